"""The text encoder against Transformers' CLIPTextModel: in float64, and once in float32."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from sdlearn.lessons.check import assert_gradients, assert_parity, randomize_
from sdlearn.models.text import TextConfig, TextEncoder, TextLayer

SMALL = {
    **{"vocab_size": 99, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 3},
    **{"max_position_embeddings": 20, "bos_token_id": 97, "pad_token_id": 98, "eos_token_id": 98},
}


REFERENCE = "CLIPTextModel"
# text_encoder/config.json of Stable Diffusion 1 and 2. The ids in it are wrong: see TextConfig.
SD1 = {
    **{"_name_or_path": "openai/clip-vit-large-patch14", "architectures": ["CLIPTextModel"], "dropout": 0.0},
    **{"attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 2, "hidden_act": "quick_gelu", "pad_token_id": 1},
    **{"hidden_size": 768, "initializer_factor": 1.0, "initializer_range": 0.02, "intermediate_size": 3072},
    **{"layer_norm_eps": 1e-05, "max_position_embeddings": 77, "model_type": "clip_text_model"},
    **{"num_attention_heads": 12, "num_hidden_layers": 12, "projection_dim": 768, "torch_dtype": "float32"},
    **{"transformers_version": "4.22.0.dev0", "vocab_size": 49408},
}
SD2 = {
    **SD1,
    **{"_name_or_path": "hf-models/stable-diffusion-v2-768x768/text_encoder", "hidden_act": "gelu"},
    **{"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 23},
    **{"projection_dim": 512, "transformers_version": "4.25.0.dev0"},
}
NAMES = {"quick_gelu": "text encoder, SD 1, reduced", "gelu": "text encoder, SD 2 (OpenCLIP), reduced"}


def both(dtype: torch.dtype = torch.float64, **changes: object) -> tuple[TextEncoder, CLIPTextModel]:
    """Ours and the reference with the same random weights. Transformers 5 drops the prefix `text_model.` in memory."""
    ours = randomize_(TextEncoder(TextConfig(**SMALL | changes)).to(dtype))
    reference = CLIPTextModel(CLIPTextConfig(**ours.config.to_dict())).eval().to(dtype)
    prefix = "" if hasattr(reference, "text_model") else "text_model."
    reference.load_state_dict({name.removeprefix(prefix): w for name, w in ours.state_dict().items()}, strict=True)
    return ours, reference


def random_ids(batch: int, tokens: int) -> Tensor:
    return torch.randint(0, 99, (batch, tokens), generator=torch.Generator().manual_seed(batch * tokens))


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize(
    ("batch", "tokens", "dtype"),
    [
        (1, 1, torch.float64),
        (3, 7, torch.float64),
        (1, 20, torch.float64),
        (3, 20, torch.float64),
        (3, 7, torch.float32),
    ],
)
def test_equals_reference(activation: str, batch: int, tokens: int, dtype: torch.dtype) -> None:
    ours, reference = both(dtype, hidden_act=activation)
    ids = random_ids(batch, tokens)
    out, expected = ours(ids), reference(ids).last_hidden_state
    assert_parity(NAMES[activation], out, expected, against=REFERENCE)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    assert_gradients(ours, reference, name=f"{NAMES[activation]}, gradients", against=REFERENCE)


@pytest.mark.parametrize("skip", [0, 1, 2, 3])
def test_skip_equals_clip_skip(skip: int) -> None:
    """As Diffusers' pipeline does it: an earlier hidden state, through the final norm. What is left out is not run."""
    ours, reference = both(hidden_act="gelu")
    ids = random_ids(3, 7)
    out = ours(ids, skip=skip)
    norm = getattr(reference, "text_model", reference).final_layer_norm
    expected = norm(reference(ids, output_hidden_states=True).hidden_states[-(skip + 1)])
    assert_parity("text encoder, clip skip", out, expected, against=REFERENCE)
    out.square().mean().backward()
    expected.square().mean().backward()
    assert_gradients(ours, reference, name="text encoder, clip skip, gradients", against=REFERENCE)
    run = [any(weight.grad is not None for weight in layer.parameters()) for layer in ours.text_model.encoder.layers]
    assert run == [True] * (3 - skip) + [False] * skip


def test_the_penultimate_layer_is_the_last_of_a_shorter_tower() -> None:
    """Stable Diffusion 2 reads layer 23 of OpenCLIP's 24; its files in the Diffusers layout hold these 23 alone."""
    whole, _ = both(hidden_act="gelu")
    shorter = TextEncoder(TextConfig(**SMALL | {"hidden_act": "gelu", "num_hidden_layers": 2})).double()
    kept = {name: weight for name, weight in whole.state_dict().items() if "layers.2." not in name}
    shorter.load_state_dict(kept, strict=True)
    assert_parity("penultimate layer", whole(random_ids(3, 9), skip=1), shorter(random_ids(3, 9)))


def test_padding_is_read_like_words() -> None:
    """Stable Diffusion 2 pads with "!", id 0. No mask hides it, and the tower reads it like any other token."""
    ours, reference = both(hidden_act="gelu", pad_token_id=0, eos_token_id=2)
    ids = random_ids(3, 20)
    ids[:, 8], ids[:, 9:] = 98, 0
    out = ours(ids)
    assert_parity("text encoder, padded", out, reference(ids).last_hidden_state, against=REFERENCE)
    assert (out[:, 10] - out[:, 19]).abs().max() > 0.1


def test_layer_norm_eps_is_read() -> None:
    ours, reference = both(layer_norm_eps=0.1)
    mine, theirs = ours(random_ids(3, 5)), reference(random_ids(3, 5)).last_hidden_state
    assert_parity(NAMES["quick_gelu"], mine, theirs, against=REFERENCE)


def test_a_token_sees_only_what_stands_before_it() -> None:
    ours, _ = both()
    ids = random_ids(1, 9)
    changed = ids.clone()
    changed[0, 6:] = (ids[0, 6:] + 1) % 99
    before, after = ours(ids), ours(changed)
    assert_parity("before the change", after[:, :6], before[:, :6])
    assert not torch.isclose(before[:, 6:], after[:, 6:]).all(dim=-1).any()


@pytest.mark.parametrize(("values", "parameters"), [(SD1, 123_060_480), (SD2, 340_387_840)])
def test_published_towers_in_full(values: dict[str, object], parameters: int) -> None:
    """Names, shapes and number of parameters, on the meta device."""
    config = TextConfig.from_dict(values, "text_encoder/config.json")
    with torch.device("meta"):
        ours, reference = TextEncoder(config), CLIPTextModel(CLIPTextConfig(**values))
        again = CLIPTextModel(CLIPTextConfig(**config.to_dict()))
    names = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    for theirs in (reference, again):
        expected = {f"text_model.{n.removeprefix('text_model.')}": t.shape for n, t in theirs.state_dict().items()}
        assert names == expected
        assert TextConfig.from_dict(theirs.config.to_dict()) == config
    assert sum(parameter.numel() for parameter in ours.parameters()) == parameters


def test_saved_files_are_read_by_transformers(tmp_path: Path) -> None:
    """With the prefix in the names, as on the hub. In float32, as files are."""
    ours, _ = both(torch.float32)
    save_file(ours.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(ours.config.to_dict()))
    reference = CLIPTextModel.from_pretrained(tmp_path)
    ids = random_ids(3, 11)
    assert_parity("text encoder, from file", ours(ids), reference(ids).last_hidden_state, against=REFERENCE)


def test_layer_can_be_swapped() -> None:
    assert TextEncoder.parts == ("text_layer",)

    class Doubled(TextLayer):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            return 2 * super().forward(x, mask)

    config = TextConfig(**SMALL)
    plain, doubled = TextEncoder(config), TextEncoder(config, text_layer=Doubled)
    doubled.load_state_dict(plain.state_dict(), strict=True)
    assert all(type(layer) is Doubled for layer in doubled.text_model.encoder.layers)
    assert not torch.allclose(plain(random_ids(1, 5)), doubled(random_ids(1, 5)))


def test_fresh_weights_follow_clip() -> None:
    """Small embeddings; what is added to the stream shrinks with depth."""
    torch.manual_seed(0)
    config = TextConfig(
        hidden_size=64, num_attention_heads=2, intermediate_size=256, num_hidden_layers=8, vocab_size=999
    )
    ours = TextEncoder(config).text_model
    layer = ours.encoder.layers[0]
    spread = {
        ours.embeddings.token_embedding: 0.02,
        ours.embeddings.position_embedding: 0.01,
        layer.self_attn.q_proj: 64**-0.5,
        layer.self_attn.out_proj: (64 * 16) ** -0.5,
        layer.mlp.fc1: 128**-0.5,
        layer.mlp.fc2: (64 * 16) ** -0.5,
    }
    for module, std in spread.items():
        assert module.weight.std().item() == pytest.approx(std, rel=0.06)
        assert not isinstance(module, nn.Linear) or not module.bias.any()


def test_config_of_stable_diffusion_1_is_read() -> None:
    config = TextConfig.from_dict(SD1, "text_encoder/config.json")
    assert config == TextConfig(bos_token_id=0, pad_token_id=1, eos_token_id=2)
    assert TextConfig.from_dict(config.to_dict()) == config
    assert TextConfig.from_dict(CLIPTextConfig(**SMALL).to_dict()) == TextConfig(**SMALL, projection_dim=512)


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"text_encoder/config.json: hidden_act = 'relu'"):
        TextConfig.from_dict({"hidden_act": "relu"}, "text_encoder/config.json")
    with pytest.raises(ValueError, match="num_attention_heads = 5"):
        TextConfig(num_attention_heads=5)
    with pytest.raises(ValueError, match="is_decoder"):
        TextConfig.from_dict({"is_decoder": True})
    ours, _ = both()
    for skip in (-1, 4, 0.5, 1.0, True, None):
        with pytest.raises(ValueError, match=f"skip = {skip}, must be a whole number from 0 to 3"):
            ours(random_ids(1, 5), skip=skip)
    for shape in [(1, 21), (1, 0), (5,), (1, 2, 3)]:
        with pytest.raises(ValueError, match=r"accepted: \(B, T\) with T from 1 to 20"):
            ours(torch.zeros(shape, dtype=torch.long))
