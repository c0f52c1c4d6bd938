"""The UNet against Diffusers' UNet2DConditionModel."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from sdlearn.check import assert_gradients, assert_parity, randomize_
from sdlearn.models.attention import Attention, FeedForward, SpatialTransformer, TransformerBlock, record_attention
from sdlearn.models.blocks import Downsample, ResnetBlock, Upsample
from sdlearn.models.unet import TimestepEmbedding, UNet, UNetConfig, timestep_embedding

# Stable Diffusion 1.5 at a twentieth of its width: four levels, two layers each, eight heads.
SD15 = UNetConfig(block_out_channels=(16, 32, 64, 64), cross_attention_dim=24, norm_num_groups=4)
TINY_TYPES = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}
TINY = UNetConfig(
    **TINY_TYPES,
    sample_size=16,
    block_out_channels=(16, 32, 48),
    layers_per_block=1,
    cross_attention_dim=20,
    attention_head_dim=(1, 2, 4),
    norm_num_groups=8,
)
TINY_TWO_LAYERS = UNetConfig(**{**TINY.__dict__, "layers_per_block": 2, "attention_head_dim": 4})
CONFIGS = {"sd15": SD15, "tiny": TINY, "tiny_two_layers": TINY_TWO_LAYERS}
# Batch, height, width, tokens: batch 1 and 3, not square, odd token counts.
SHAPES = [(1, 8, 16, 7), (3, 16, 8, 3)]


def both(config: UNetConfig, seed: int = 0) -> tuple[UNet, UNet2DConditionModel]:
    """Ours and the reference, built from our configuration's JSON, with the same random weights."""
    ours = randomize_(UNet(config), seed)
    reference = UNet2DConditionModel.from_config(config.to_dict()).eval()
    reference.load_state_dict(ours.state_dict(), strict=True)
    return ours, reference


def inputs(config: UNetConfig, batch: int, height: int, width: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, a time for each of them, and a context."""
    generator = torch.Generator().manual_seed(batch)
    x = torch.randn(batch, config.in_channels, height, width, generator=generator)
    t = torch.randint(0, 1000, (batch,), generator=generator)
    return x, t, torch.randn(batch, tokens, config.cross_attention_dim, generator=generator)


def assert_order_one(tensor: Tensor) -> None:
    """An absolute bound of 1e-5 says something only about numbers of order one."""
    assert 0.3 < tensor.std() < 5


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_gradients(name: str, shape: tuple[int, int, int, int]) -> None:
    ours, reference = both(CONFIGS[name])
    x, t, context = inputs(ours.config, *shape)
    sides = []
    for model in (ours, reference):
        leaves = x.clone().requires_grad_(), context.clone().requires_grad_()
        out = model(leaves[0], t, leaves[1]) if model is ours else model(leaves[0], t, leaves[1]).sample
        out.square().mean().backward()
        sides.append((out, *(leaf.grad for leaf in leaves)))
    assert_order_one(sides[1][0])
    assert_parity(f"{name} {shape}", sides[0][0], sides[1][0], 1e-5)
    for what, mine, theirs in zip(("latents", "context"), sides[0][1:], sides[1][1:], strict=True):
        scale = theirs.abs().max()
        assert_parity(f"gradient of the {what}", mine / scale, theirs / scale, 1e-4)
    assert_gradients(ours, reference, 1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_forward_without_gradients(name: str) -> None:
    """The fused attention kernel, and one time for the whole batch: a number, or a tensor without dimensions."""
    ours, reference = both(CONFIGS[name], seed=1)
    x, _, context = inputs(ours.config, 3, 8, 24, 1)
    with torch.no_grad():
        for t in (0, 1, 999, torch.tensor(500), 946.42):
            expected = reference(x, t, context).sample
            assert_order_one(expected)
            assert_parity(f"{name}, t = {t}", ours(x, t, context), expected, 1e-5)


@pytest.mark.parametrize("name", ["sd15", "tiny"])
def test_control_residuals(name: str) -> None:
    ours, reference = both(CONFIGS[name])
    x, t, context = inputs(ours.config, 3, 8, 16, 5)
    generator = torch.Generator().manual_seed(0)
    skips = []  # the shapes, from the way down
    time = ours.embed_time(x, t, None)
    hidden = ours.conv_in(x)
    skips.append(hidden)
    for block in ours.down_blocks:
        hidden, new = block(hidden, time, context)
        skips += new
    down = [torch.randn(skip.shape, generator=generator) for skip in skips]
    mid = torch.randn(hidden.shape, generator=generator)
    kept = [residual.clone() for residual in down]
    with torch.no_grad():
        controlled = ours(x, t, context, residuals=(down, mid))
        extra = {"down_block_additional_residuals": tuple(down), "mid_block_additional_residual": mid}
        assert_parity("residuals", controlled, reference(x, t, context, **extra).sample, 1e-5)
        assert (controlled - ours(x, t, context)).abs().max() > 0.1
        assert all(torch.equal(before, after) for before, after in zip(kept, down, strict=True))
        with pytest.raises(ValueError):
            ours(x, t, context, residuals=(down[:-1], mid))


def test_class_labels() -> None:
    ours, reference = both(UNetConfig(**{**TINY.__dict__, "num_class_embeds": 10}))
    x, t, context = inputs(ours.config, 3, 8, 8, 3)
    labels = torch.tensor([0, 9, 4])
    expected = reference(x, t, context, class_labels=labels)[0]
    mine = ours(x, t, context, class_labels=labels)
    assert_parity("class labels", mine, expected, 1e-5)
    mine.square().mean().backward()
    expected.square().mean().backward()
    assert_gradients(ours, reference, 1e-4)
    with pytest.raises(ValueError, match="class_labels must be given"):
        ours(x, t, context)
    with pytest.raises(ValueError, match="class_labels must be given"):
        UNet(TINY)(x, t, context, class_labels=labels)


def test_epsilon_of_the_norms() -> None:
    """With activations of order 1e-3 the norms' epsilon decides: 1e-5 in the ResnetBlocks, 1e-6 in the transformers.

    In float64: the norms amplify rounding.
    """
    ours, reference = (model.double() for model in both(TINY))
    with torch.no_grad():
        for model in (ours, reference):
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1 or name.endswith("bias"):
                    parameter.mul_(0.02)
    x, t, context = inputs(TINY, 3, 8, 16, 5)
    x, context = 0.1 * x.double(), context.double()
    mine, theirs = ours(x, t, context), reference(x, t, context).sample
    assert_parity("small activations", mine / theirs.std(), theirs / theirs.std(), 1e-5)


def test_stable_diffusion_15_in_full() -> None:
    """Names, shapes and number of parameters, and where the cross-attention sits."""
    with torch.device("meta"):
        ours = UNet(UNetConfig())
        reference = UNet2DConditionModel.from_config(UNetConfig().to_dict())
    names = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    assert names == {name: tensor.shape for name, tensor in reference.state_dict().items()}
    assert sum(parameter.numel() for parameter in ours.parameters()) == 859_520_964
    attentions = [name for name, module in ours.named_modules() if isinstance(module, SpatialTransformer)]
    count = {part: sum(name.startswith(part) for name in attentions) for part in ("down", "mid", "up")}
    assert count == {"down": 6, "mid": 1, "up": 9}
    assert not any(name.startswith(("down_blocks.3", "up_blocks.0")) for name in attentions)


def test_defaults_are_the_references() -> None:
    """What Diffusers builds from our few keys is what it builds from the many keys of the real file."""
    with torch.device("meta"):
        reference = UNet2DConditionModel.from_config(UNetConfig().to_dict())
    assert UNetConfig.from_dict(dict(reference.config), "unet/config.json") == UNetConfig()


def test_timestep_embedding() -> None:
    from diffusers.models.embeddings import get_timestep_embedding

    t = torch.tensor([0, 1, 500, 999])
    expected = get_timestep_embedding(t, 320, flip_sin_to_cos=True, downscale_freq_shift=0)
    assert_parity("timestep embedding", timestep_embedding(t, 320), expected, 1e-6)
    assert torch.equal(timestep_embedding(torch.tensor([0]), 6), torch.tensor([[1.0, 1, 1, 0, 0, 0]]))


PARTS = {
    "resnet_block": (ResnetBlock, 22),
    "downsample": (Downsample, 3),
    "upsample": (Upsample, 3),
    "timestep_embedding": (TimestepEmbedding, 1),
    "spatial_transformer": (SpatialTransformer, 16),
    "transformer_block": (TransformerBlock, 16),
    "attention": (Attention, 32),
    "feed_forward": (FeedForward, 16),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_swapped_in_every_place(part: str) -> None:
    kind, places = PARTS[part]
    mine = type("Mine", (kind,), {})
    original = randomize_(UNet(SD15))
    swapped = UNet(SD15, **{part: mine})
    swapped.load_state_dict(original.state_dict(), strict=True)
    types = [type(module) for module in swapped.modules()]
    assert types.count(mine) == places and kind not in types
    assert [type(m) for m in original.modules()] == [kind if found is mine else found for found in types]


def test_all_parts_together_and_their_effect() -> None:
    class Silent(nn.Module):
        """Takes what an Attention takes, and adds nothing."""

        def __init__(self, channels: int, heads: int, context_channels: int | None = None) -> None:
            super().__init__()

        def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
            return torch.zeros_like(x)

    x, t, context = inputs(SD15, 1, 8, 8, 3)
    mute = randomize_(UNet(SD15, attention=Silent))
    assert torch.equal(mute(x, t, context), mute(x, t, -context))
    types = {part: type("Mine", (kind,), {}) for part, (kind, _) in PARTS.items()}
    swapped, plain = UNet(SD15, **types), randomize_(UNet(SD15))
    swapped.load_state_dict(plain.state_dict(), strict=True)
    assert torch.equal(swapped(x, t, context), plain(x, t, context))
    with pytest.raises(ValueError, match=r"resnet_blok.*feed_forward"):
        UNet(SD15, resnet_blok=ResnetBlock)


def test_recorded_attention() -> None:
    unet = randomize_(UNet(SD15))
    x, t, context = inputs(SD15, 3, 16, 8, 7)
    plain = unet(x, t, context)
    with record_attention(unet) as maps:
        assert torch.equal(unet(x, t, context), plain)
        with torch.no_grad():
            assert_parity("recorded", unet(x, t, context), plain, 1e-5)
    assert len(maps) == 16 and all(name.endswith("attn2") for name in maps)
    pixels = [16 * 8, 8 * 4, 4 * 2, 2 * 1]
    for name, calls in maps.items():
        way, index = name.split(".")[:2]  # down_blocks.i is level i, up_blocks.i level 3 − i
        level = {"down_blocks": int, "up_blocks": lambda i: 3 - int(i), "mid_block": lambda _: 3}[way](index)
        assert [weights.shape for weights in calls] == 2 * [(3, 8, pixels[level], 7)]
        assert_parity(name, calls[0].sum(dim=-1), torch.ones(3, 8, pixels[level]), 1e-5)
        assert not calls[0].requires_grad
    assert all(module.maps is None for module in unet.modules() if isinstance(module, Attention))
    unet(x, t, context)
    assert all(len(calls) == 2 for calls in maps.values())


def test_recording_ends_after_an_exception() -> None:
    unet = UNet(TINY)
    with pytest.raises(KeyError), record_attention(unet):
        raise KeyError("any")
    assert all(module.maps is None for module in unet.modules() if isinstance(module, Attention))


def test_errors() -> None:
    unet = UNet(TINY)
    context = torch.zeros(1, 3, 20)
    for shape in [(1, 3, 8, 8), (4, 8, 8), (1, 4, 8, 6), (1, 4, 10, 8)]:
        with pytest.raises(ValueError, match=r"\(B, 4, H, W\) with H and W divisible by 4"):
            unet(torch.zeros(shape), 0, context)
    for shape in [(1, 3, 21), (3, 20), (2, 3, 20)]:
        with pytest.raises(ValueError, match=r"context of shape \(1, T, 20\)"):
            unet(torch.zeros(1, 4, 8, 8), 0, torch.zeros(shape))
