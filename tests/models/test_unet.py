"""The UNet against Diffusers' UNet2DConditionModel: in float64, and once in float32."""

import json
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sdlearn.lessons.check import assert_gradients, assert_parity, randomize_
from sdlearn.models.attention import (
    Attention,
    FeedForward,
    SpatialTransformer,
    TransformerBlock,
    record_attention,
)
from sdlearn.models.blocks import Downsample, ResnetBlock, Upsample
from sdlearn.models.unet import DownBlock, TimestepEmbedding, UNet, UNetConfig, UpBlock, timestep_embedding

REFERENCE = "UNet2DConditionModel"
# The content of unet/config.json of the published models.
SD1 = {
    **{"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6.0", "act_fn": "silu", "attention_head_dim": 8},
    "block_out_channels": [320, 640, 1280, 1280],
    **{"center_input_sample": False, "cross_attention_dim": 768},
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    **{"downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2},
    **{"mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4, "sample_size": 64},
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
SD2 = {
    **SD1,
    **{"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "use_linear_projection": True},
    **{"dual_cross_attention": False, "only_cross_attention": False, "num_class_embeds": None},
}
UPSCALER = {
    **SD2,
    **{"attention_head_dim": 8, "block_out_channels": [256, 512, 512, 1024], "in_channels": 7, "sample_size": 128},
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    **{"only_cross_attention": [True, True, True, False], "num_class_embeds": 1000},
}
REAL: dict[str, dict[str, Any]] = {
    "SD 1.5": SD1,
    "SD 1.5 inpainting": {**SD1, "in_channels": 9},
    "SD 2.0": {**SD2, "sample_size": 96},
    "SD 2.1": {**SD2, "sample_size": 96, "upcast_attention": True},
    "SD 2 inpainting": {**SD2, "in_channels": 9},
    "SD 2 depth": {**SD2, "in_channels": 5},
    "SD ×4 upscaler": UPSCALER,
}


def reduced(name: str) -> UNetConfig:
    """A published model with a sixteenth of its width (SD 1: a twentieth, so that eight heads divide it)."""
    part = 20 if name.startswith("SD 1") else 16
    widths = [width // part for width in REAL[name]["block_out_channels"]]
    narrow = {"block_out_channels": widths, "norm_num_groups": widths[0] // 4, "cross_attention_dim": 24}
    return UNetConfig.from_dict({**REAL[name], **narrow})


SD15 = reduced("SD 1.5")
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
CONFIGS = {name: reduced(name) for name in REAL} | {
    "three levels": TINY,
    "three levels, two layers": UNetConfig(**{**TINY.__dict__, "layers_per_block": 2, "attention_head_dim": 4}),
    "three levels, only cross-attention": UNetConfig(**{**TINY.__dict__, "only_cross_attention": True}),
}
# Batch, height, width, tokens: batch 1 and 3, not square, odd token counts.
SHAPES = [(1, 8, 16, 7), (3, 16, 8, 3)]
DIFFERENT = ("SD 1.5", "SD 2.1", "SD ×4 upscaler", "three levels")  # in more than the number of channels


class Sinusoids(nn.Module):
    """Ours in the reference's place. Both compute them in float32, and a last digit there is 1e7 of float64's."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, t: Tensor) -> Tensor:
        return timestep_embedding(t, self.channels)


def both(config: UNetConfig, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[UNet, UNet2DConditionModel]:
    """Ours and the reference, built from our configuration's JSON, with the same random weights."""
    ours = randomize_(UNet(config).to(dtype), seed)
    reference = UNet2DConditionModel.from_config(config.to_dict()).eval().to(dtype)
    reference.load_state_dict(ours.state_dict(), strict=True)
    if dtype == torch.float64:
        reference.time_proj = Sinusoids(config.block_out_channels[0])  # test_timestep_embedding compares them
    return ours, reference


def inputs(
    config: UNetConfig, batch: int, height: int, width: int, tokens: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """Latents, a time for each of them, a context, and class labels for a UNet that takes them."""
    generator = torch.Generator().manual_seed(batch)
    x = torch.randn(batch, config.in_channels, height, width, generator=generator, dtype=dtype)
    t = torch.randint(0, 1000, (batch,), generator=generator)
    context = torch.randn(batch, tokens, config.cross_attention_dim, generator=generator, dtype=dtype)
    classes = config.num_class_embeds
    labels = {} if classes is None else {"class_labels": torch.randint(0, classes, (batch,), generator=generator)}
    return x, t, context, labels


def assert_order_one(tensor: Tensor) -> None:
    """A tolerance that is absolute below 1 says something only about numbers of order one."""
    assert 0.3 < tensor.std() < 5


F64, F32 = torch.float64, torch.float32


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [(name, SHAPES[0], F64) for name in CONFIGS]
    + [(name, SHAPES[1], F64) for name in DIFFERENT]
    + [("SD 1.5", SHAPES[1], F32)],
)
def test_forward_and_gradients(name: str, shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    ours, reference = both(CONFIGS[name], dtype=dtype)
    x, t, context, labels = inputs(ours.config, *shape, dtype)
    sides = []
    for model in (ours, reference):
        leaves = x.clone().requires_grad_(), context.clone().requires_grad_()
        out = model(leaves[0], t, leaves[1], **labels)
        out = out if model is ours else out.sample
        out.square().mean().backward()
        sides.append((out, *(leaf.grad for leaf in leaves)))
    assert_order_one(sides[1][0])
    assert_parity(f"UNet, {name}, reduced", sides[0][0], sides[1][0], against=REFERENCE)
    for mine, theirs in zip(sides[0][1:], sides[1][1:], strict=True):  # of the latents and of the context
        scale = theirs.abs().max()
        assert_parity(f"UNet, {name}, reduced, gradients", mine / scale, theirs / scale, against=REFERENCE)
    assert_gradients(ours, reference, name=f"UNet, {name}, reduced, gradients", against=REFERENCE)


@pytest.mark.parametrize("name", DIFFERENT)
def test_one_time_for_the_whole_batch(name: str) -> None:
    """A number, or a tensor without dimensions. Without gradients."""
    ours, reference = both(CONFIGS[name], seed=1)
    x, _, context, labels = inputs(ours.config, 3, 8, 24, 1)
    with torch.no_grad():
        for t in (0, 999, torch.tensor(500), 946.42):
            expected = reference(x, t, context, **labels).sample
            assert_order_one(expected)
            assert_parity(f"UNet, {name}, reduced", ours(x, t, context, **labels), expected, against=REFERENCE)


@st.composite
def configurations(draw: st.DrawFn) -> UNetConfig:
    """Any UNet of two or three levels: which of them attend, with how many heads, and all the options."""
    levels = draw(st.integers(2, 3))
    attends = [draw(st.booleans()) for _ in range(levels)]
    heads, flags = st.sampled_from([1, 2, 4, 8]), st.booleans()
    return UNetConfig(
        in_channels=draw(st.integers(1, 9)),
        out_channels=draw(st.integers(1, 5)),
        block_out_channels=tuple(draw(st.sampled_from([8, 16, 24])) for _ in range(levels)),
        down_block_types=tuple("CrossAttnDownBlock2D" if one else "DownBlock2D" for one in attends),
        up_block_types=tuple("CrossAttnUpBlock2D" if one else "UpBlock2D" for one in reversed(attends)),
        layers_per_block=draw(st.integers(1, 2)),
        cross_attention_dim=draw(st.integers(1, 9)),
        attention_head_dim=draw(heads | st.tuples(*[heads] * levels)),
        norm_num_groups=draw(st.sampled_from([1, 2, 4])),
        use_linear_projection=draw(flags),
        upcast_attention=draw(flags),
        only_cross_attention=draw(flags | st.tuples(*[flags] * levels)),
        num_class_embeds=draw(st.none() | st.integers(1, 5)),
    )


@settings(max_examples=12, deadline=None)
@given(configurations(), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 5))
def test_any_configuration(config: UNetConfig, batch: int, rows: int, columns: int, tokens: int) -> None:
    ours, reference = both(config)
    x, t, context, labels = inputs(config, batch, 4 * rows, 4 * columns, tokens)
    with torch.no_grad():
        mine, theirs = ours(x, t, context, **labels), reference(x, t, context, **labels).sample
    assert_parity("UNet, any configuration", mine, theirs, against=REFERENCE)
    assert UNetConfig.from_dict(json.loads(json.dumps(dict(reference.config)))) == config


def test_upcast_attention_in_half_precision() -> None:
    """Diffusers heeds it in AttnProcessor alone, not in its default, which leaves it to PyTorch's fused kernel.

    In half precision two right implementations differ by roundings, which add up to a few. So both are held against
    float64.
    """
    ours, reference = both(CONFIGS["SD 2.1"])
    reference.set_attn_processor(AttnProcessor())
    ours, reference = ours.bfloat16(), reference.bfloat16()
    x, t, context, _ = inputs(ours.config, 3, 16, 8, 7)
    exact = UNet(ours.config).double()
    exact.load_state_dict(ours.state_dict(), strict=True)
    x, context = x.bfloat16(), context.bfloat16()
    truth = exact(x.double(), t, context.double())
    theirs, mine = reference(x, t, context).sample, ours(x, t, context)
    assert mine.dtype == torch.bfloat16

    def error(out: Tensor) -> float:
        return (out - truth).square().mean().sqrt().item()

    assert all(module.upcast for module in ours.modules() if isinstance(module, Attention))
    assert not any(module.upcast for module in UNet(SD15).modules() if isinstance(module, Attention))
    assert max(error(mine), error(theirs)) < 4 * torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize("name", ["SD 1.5", "three levels"])
def test_control_residuals(name: str) -> None:
    ours, reference = both(CONFIGS[name])
    x, t, context, _ = inputs(ours.config, 3, 8, 16, 5)
    generator = torch.Generator().manual_seed(0)
    skips = []  # the shapes, from the way down
    time = ours.embed_time(x, t, None)
    hidden = ours.conv_in(x)
    skips.append(hidden)
    for block in ours.down_blocks:
        hidden, new = block(hidden, time, context)
        skips += new
    down = [torch.randn(skip.shape, generator=generator).double() for skip in skips]
    mid = torch.randn(hidden.shape, generator=generator).double()
    kept = [residual.clone() for residual in down]
    with torch.no_grad():
        controlled = ours(x, t, context, residuals=(down, mid))
        extra = {"down_block_additional_residuals": tuple(down), "mid_block_additional_residual": mid}
        expected = reference(x, t, context, **extra).sample
        assert_parity("UNet, with a ControlNet's residuals", controlled, expected, against=REFERENCE)
        assert (controlled - ours(x, t, context)).abs().max() > 0.1
        assert all(torch.equal(before, after) for before, after in zip(kept, down, strict=True))
        with pytest.raises(ValueError):
            ours(x, t, context, residuals=(down[:-1], mid))


def test_class_labels_must_fit() -> None:
    unet, plain = UNet(CONFIGS["SD ×4 upscaler"]), UNet(SD15)
    x, t, context, _ = inputs(unet.config, 3, 8, 8, 3, torch.float32)
    labels = torch.tensor([0, 999, 4])
    with pytest.raises(ValueError, match="class_labels must be given exactly if num_class_embeds is set"):
        unet(x, t, context)
    with pytest.raises(ValueError, match="class_labels must be given exactly if num_class_embeds is set"):
        plain(x[:, :4], t, context, class_labels=labels)
    for wrong in (labels[:1], labels[:, None], torch.tensor(0)):
        with pytest.raises(ValueError, match=r"class_labels must have the shape \(3,\), not"):
            unet(x, t, context, class_labels=wrong)


def test_epsilon_of_the_norms() -> None:
    """With activations of order 1e-3 the norms' epsilon decides: 1e-5 in the ResnetBlocks, 1e-6 in the transformers.

    The norms amplify rounding: in float32 it would hide a wrong epsilon.
    """
    ours, reference = both(TINY)
    with torch.no_grad():
        for model in (ours, reference):
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1 or name.endswith("bias"):
                    parameter.mul_(0.02)
    x, t, context, _ = inputs(TINY, 3, 8, 16, 5)
    x = 0.1 * x
    mine, theirs = ours(x, t, context), reference(x, t, context).sample
    assert_parity("small activations", mine / theirs.std(), theirs / theirs.std())


PARAMETERS = {"SD 1.5": 859_520_964, "SD 1.5 inpainting": 859_535_364, "SD 2.1": 865_910_724}


def shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("name", REAL)
def test_published_models_in_full(name: str) -> None:
    """Names, shapes and number of parameters; and the configuration is the same after every way through a file."""
    config = UNetConfig.from_dict(REAL[name], "unet/config.json")
    with torch.device("meta"):
        ours = UNet(config)
        reference = UNet2DConditionModel.from_config(REAL[name])  # from the published file
        again = UNet2DConditionModel.from_config(json.loads(json.dumps(config.to_dict())))  # from ours
    assert shapes(ours) == shapes(reference)
    count = sum(parameter.numel() for parameter in ours.parameters())
    assert count == PARAMETERS.get(name, count)
    theirs, written = (
        {key: value for key, value in json.loads(json.dumps(dict(model.config))).items() if not key.startswith("_")}
        for model in (reference, again)
    )
    assert theirs == written
    assert UNetConfig.from_dict(theirs) == UNetConfig.from_dict(config.to_dict()) == config


def test_stable_diffusion_15_is_the_default() -> None:
    assert UNetConfig.from_dict(SD1) == UNetConfig()


def test_where_the_cross_attention_sits() -> None:
    """Six on the way down, one in the middle, nine on the way up, none at the lowest level; the same names there."""
    with torch.device("meta"):
        ours, reference = UNet(UNetConfig()), UNet2DConditionModel.from_config(SD1)
    for kind, ending in ((SpatialTransformer, "attentions."), (Attention, "attn2")):
        mine = [name for name, module in ours.named_modules() if isinstance(module, kind) and ending in name]
        count = {part: sum(name.startswith(part) for name in mine) for part in ("down", "mid", "up")}
        assert count == {"down": 6, "mid": 1, "up": 9}
        assert not any(name.startswith(("down_blocks.3", "up_blocks.0")) for name in mine)
        assert set(mine) <= {name for name, _ in reference.named_modules()}


def test_where_the_upscaler_compares_pixels() -> None:
    """Only at its lowest level and in the middle; everywhere else both attentions read the text."""
    unet = UNet(CONFIGS["SD ×4 upscaler"]).double()
    with_pixels = [
        name for name, m in unet.named_modules() if isinstance(m, TransformerBlock) and not m.only_cross_attention
    ]
    assert {name.split(".attentions")[0] for name in with_pixels} == {"down_blocks.3", "mid_block", "up_blocks.0"}
    x, t, context, labels = inputs(unet.config, 1, 8, 16, 7)
    with record_attention(unet) as maps:
        unet(x, t, context, **labels)
    assert {calls[0].shape[-1] for calls in maps.values()} == {7} and len(maps) == 16


REFUSED = {
    "attention_head_dim": ([5, 10, 20], "eight", 0, 7, [5, 10, 20, 21]),
    "only_cross_attention": ([True, False], "yes", None, [1, 1, 1, 0]),
    "use_linear_projection": ("yes", 1),
    "upcast_attention": (None, [True]),
    "num_class_embeds": ("timestep", 0),
    "layers_per_block": (0, True),
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in REFUSED.items() for value in values])
def test_values_that_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError) as error:
        UNetConfig.from_dict({**SD1, key: value}, "unet/config.json")
    assert str(error.value).startswith(f"unet/config.json: {key} = {tuple(value) if type(value) is list else value!r}")


def test_timestep_embedding() -> None:
    from diffusers.models.embeddings import get_timestep_embedding

    t = torch.tensor([0, 1, 500, 999])
    for channels in (6, 320):
        mine = timestep_embedding(t, channels)
        theirs = get_timestep_embedding(t, channels, flip_sin_to_cos=True, downscale_freq_shift=0)
        assert_parity("timestep embedding", mine, theirs, against="get_timestep_embedding")
        # Angles are up to 999, and the last digit of such a float32 is 6e-5.
        angles = t[:, None] * 10_000 ** (-torch.arange(channels // 2).double() / (channels // 2))
        assert_parity("timestep embedding", mine.double(), torch.cat([angles.cos(), angles.sin()], dim=1), 1e-4)
    assert_parity("at 0", timestep_embedding(torch.tensor([0]), 6), torch.tensor([[1.0, 1, 1, 0, 0, 0]]))


PARTS = {
    "down_block": (DownBlock, 4),
    "up_block": (UpBlock, 4),
    "resnet_block": (ResnetBlock, 22),
    "downsample": (Downsample, 3),
    "upsample": (Upsample, 3),
    "timestep_embedding": (TimestepEmbedding, 1),
    "spatial_transformer": (SpatialTransformer, 16),
    "transformer_block": (TransformerBlock, 16),
    "attention": (Attention, 32),
    "feed_forward": (FeedForward, 16),
}


def test_it_says_which_parts_it_takes() -> None:
    assert set(UNet.parts) == {*PARTS, "sinusoids"}


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


def test_own_sinusoids() -> None:
    """Called with t (B,) and the width; what they return is what the two layers get."""
    asked = []

    def mine(t: Tensor, channels: int) -> Tensor:
        asked.append((tuple(t.shape), channels))
        return -timestep_embedding(t, channels)

    x, t, context, _ = inputs(SD15, 3, 8, 8, 3)
    plain, swapped = UNet(SD15).double(), UNet(SD15, sinusoids=mine).double()
    swapped.load_state_dict(randomize_(plain).state_dict(), strict=True)
    other = swapped(x, t, context)
    assert asked == [((3,), SD15.block_out_channels[0])] and (other - plain(x, t, context)).abs().max() > 1e-3
    with torch.no_grad():
        swapped.time_embedding.linear_1.weight.neg_()
    assert_parity("own sinusoids", swapped(x, t, context), plain(x, t, context))


def test_all_parts_together_and_their_effect() -> None:
    class Silent(nn.Module):
        """Takes what an Attention takes, and adds nothing."""

        def __init__(self, channels: int, heads: int, context_channels: int | None = None) -> None:
            super().__init__()

        def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
            return torch.zeros_like(x)

    x, t, context, _ = inputs(SD15, 1, 8, 8, 3)
    mute = randomize_(UNet(SD15, attention=Silent).double())
    assert_parity("attention that adds nothing", mute(x, t, context), mute(x, t, -context))
    types = {part: type("Mine", (kind,), {}) for part, (kind, _) in PARTS.items()}
    for config in (SD15, CONFIGS["SD ×4 upscaler"], CONFIGS["SD 2.1"]):
        swapped, plain = UNet(config, **types).double(), randomize_(UNet(config).double())
        swapped.load_state_dict(plain.state_dict(), strict=True)
        x, t, context, labels = inputs(config, 1, 8, 8, 3)
        assert_parity("own parts", swapped(x, t, context, **labels), plain(x, t, context, **labels))
        for mine, theirs in zip(swapped.modules(), plain.modules(), strict=True):  # the options reach a swapped class
            for option in ("upcast", "only_cross_attention", "use_linear_projection"):
                assert getattr(mine, option, None) == getattr(theirs, option, None)
    with pytest.raises(TypeError, match="resnet_blok"):
        UNet(SD15, resnet_blok=ResnetBlock)


def test_recorded_attention() -> None:
    unet = randomize_(UNet(SD15).double())
    x, t, context, _ = inputs(SD15, 3, 16, 8, 7)
    plain = unet(x, t, context)
    with record_attention(unet) as maps:
        for _ in range(2):
            assert_parity("recorded", unet(x, t, context), plain)
    assert len(maps) == 16 and all(name.endswith("attn2") for name in maps)
    pixels = [16 * 8, 8 * 4, 4 * 2, 2 * 1]
    for name, calls in maps.items():
        way, index = name.split(".")[:2]  # down_blocks.i is level i, up_blocks.i level 3 − i
        level = {"down_blocks": int, "up_blocks": lambda i: 3 - int(i), "mid_block": lambda _: 3}[way](index)
        assert [weights.shape for weights in calls] == 2 * [(3, 8, pixels[level], 7)]
        assert_parity(name, calls[0].sum(dim=-1), torch.ones(3, 8, pixels[level]).double())
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
    for shape in [(2, 3, 21), (3, 20), (3, 3, 20), (1, 3, 20)]:
        with pytest.raises(ValueError, match=r"context of shape \(2, T, 20\)"):
            unet(torch.zeros(2, 4, 8, 8), 0, torch.zeros(shape))
