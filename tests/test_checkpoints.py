"""Reading and writing parts of model folders."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sdlearn.check import randomize_
from sdlearn.checkpoints import load_part, read_json, save_part, write_json
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig
from sdlearn.models.blocks import ResnetBlock
from sdlearn.models.clip import CLIP, CLIPConfig, VisionConfig
from sdlearn.models.text import TextConfig, TextEncoder

TEXT = TextConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=50)
VISION = VisionConfig(
    hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
)
AUTOENCODER = AutoencoderConfig(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, sample_size=16)
WEIGHTS = "diffusion_pytorch_model.safetensors"
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def assert_same(ours: nn.Module, expected: dict[str, Tensor]) -> None:
    state = ours.state_dict()
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(state[name], value), name


@pytest.fixture
def vae(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """A saved autoencoder, and its weights."""
    state = randomize_(Autoencoder(AUTOENCODER)).state_dict()
    save_part(tmp_path / "vae", AUTOENCODER, state)
    return tmp_path / "vae", state


@pytest.mark.parametrize(
    ("model_class", "config"),
    [(TextEncoder, TEXT), (CLIP, CLIPConfig(TEXT, VISION, projection_dim=12)), (Autoencoder, AUTOENCODER)],
    ids=["text", "clip", "autoencoder"],
)
def test_what_is_saved_is_loaded(model_class: type[nn.Module], config: TextConfig, tmp_path: Path) -> None:
    model = randomize_(model_class(config))
    save_part(tmp_path / "part", config, model.state_dict())
    loaded = load_part(tmp_path / "part", model_class, type(config))
    assert loaded.config == config
    assert_same(loaded, model.state_dict())
    assert not list(tmp_path.rglob("*.partial"))
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_half_precision_is_loaded_as_float32_unless_asked(tmp_path: Path) -> None:
    state = randomize_(TextEncoder(TEXT)).state_dict()
    save_part(tmp_path, TEXT, state, torch.float16)
    assert {value.dtype for value in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float32"
    assert_same(
        load_part(tmp_path, TextEncoder, TextConfig), {name: value.half().float() for name, value in state.items()}
    )
    loaded = load_part(tmp_path, TextEncoder, TextConfig, torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}


def test_loading_draws_no_random_numbers(vae: tuple[Path, dict[str, Tensor]]) -> None:
    before = torch.get_rng_state()
    load_part(vae[0], Autoencoder, AutoencoderConfig)
    assert torch.equal(torch.get_rng_state(), before)


def test_text_encoders_without_prefix_and_with_position_ids(tmp_path: Path) -> None:
    state = randomize_(TextEncoder(TEXT)).state_dict()
    save_part(tmp_path, TEXT, state)
    for prefix in ("", "text_model."):
        stored = {name.replace("text_model.", prefix): value for name, value in state.items()}
        stored[f"{prefix}embeddings.position_ids"] = torch.arange(77)[None]
        save_file(stored, tmp_path / "model.safetensors")
        assert_same(load_part(tmp_path, TextEncoder, TextConfig), state)


@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 1, 1)], ids=["linear", "convolution"])
def test_old_attention_names(vae: tuple[Path, dict[str, Tensor]], shape: tuple[int, ...]) -> None:
    folder, state = vae
    stored = {}
    for name, value in state.items():
        for new, old in OLD_NAMES.items():
            if f".{new}." in name:
                name = name.replace(new, old)
                value = value.reshape(shape) if name.endswith("weight") else value
        stored[name] = value
    assert sum("proj_attn" in name for name in stored) == 4  # weight and bias, in encoder and decoder
    save_file(stored, folder / WEIGHTS)
    assert_same(load_part(folder, Autoencoder, AutoencoderConfig), state)


def test_wrong_names_and_shapes_are_counted(vae: tuple[Path, dict[str, Tensor]]) -> None:
    folder, state = vae
    stored = dict(state)
    del stored["encoder.conv_in.bias"], stored["decoder.conv_in.bias"]
    stored |= {f"more.{i}": torch.zeros(1) for i in range(3)}
    stored["quant_conv.bias"] = torch.zeros(3)
    save_file(stored, folder / WEIGHTS)
    with pytest.raises(ValueError, match="2 missing, 3 extra, 1 misshapen") as error:
        load_part(folder, Autoencoder, AutoencoderConfig)
    message = str(error.value)
    assert WEIGHTS in message
    assert all(name in message for name in ("missing decoder.conv_in.bias", "missing encoder.conv_in.bias"))
    assert all(f"extra more.{i}" in message for i in range(3))
    assert "quant_conv" not in message  # the first five only


def test_a_shape_that_only_misses_ones_is_refused_elsewhere(vae: tuple[Path, dict[str, Tensor]]) -> None:
    """Only where a linear layer is expected may a 1×1 convolution stand, and not the other way round."""
    folder, state = vae
    save_file({**state, "quant_conv.weight": state["quant_conv.weight"][:, :, 0, 0].contiguous()}, folder / WEIGHTS)
    with pytest.raises(ValueError, match=r"1 misshapen; the first: quant_conv\.weight is .8, 8., not .8, 8, 1, 1."):
        load_part(folder, Autoencoder, AutoencoderConfig)


def test_damaged_weights(vae: tuple[Path, dict[str, Tensor]]) -> None:
    file = vae[0] / WEIGHTS
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:5], b"", b"no tensors here, just text"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"diffusion_pytorch_model\.safetensors is damaged"):
            load_part(vae[0], Autoencoder, AutoencoderConfig)


def test_missing_files(vae: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        load_part(tmp_path / "nowhere", Autoencoder, AutoencoderConfig)
    shutil.copytree(vae[0], tmp_path / "copy")
    (vae[0] / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"vae.config\.json"):
        load_part(vae[0], Autoencoder, AutoencoderConfig)
    (tmp_path / "copy" / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=r"copy holds no weights: neither model\.safetensors nor diffusion"):
        load_part(tmp_path / "copy", Autoencoder, AutoencoderConfig)


def test_an_unsupported_value_names_file_key_and_value(vae: tuple[Path, dict[str, Tensor]]) -> None:
    file = vae[0] / "config.json"
    write_json(file, {**read_json(file), "act_fn": "mish"})
    with pytest.raises(ValueError, match=r"vae.config\.json: act_fn = 'mish' is not supported, only 'silu'"):
        load_part(vae[0], Autoencoder, AutoencoderConfig)


@pytest.mark.parametrize(("text", "message"), [('{"a": ', "is not a JSON file"), ("[1]", "holds list")])
def test_broken_json(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=f"config.json {message}"):
        read_json(tmp_path / "config.json")


def test_own_classes_are_built_and_loaded_strictly(vae: tuple[Path, dict[str, Tensor]]) -> None:
    class Mine(ResnetBlock):
        def __init__(self, *args: int, **kwargs: int) -> None:
            super().__init__(*args, **kwargs)
            self.half = torch.tensor(0.5)  # no buffer: it would have no value on the meta device

    class Other(ResnetBlock):
        def __init__(self, *args: int, **kwargs: int) -> None:
            super().__init__(*args, **kwargs)
            self.scale = nn.Parameter(torch.ones(1))

    folder, state = vae
    loaded = load_part(folder, Autoencoder, AutoencoderConfig, resnet_block=Mine)
    assert_same(loaded, state)
    blocks = [module for module in loaded.modules() if isinstance(module, ResnetBlock)]
    assert len(blocks) == 10
    assert all(type(block) is Mine and block.half.item() == 0.5 for block in blocks)
    with pytest.raises(ValueError, match="10 missing, 0 extra, 0 misshapen"):
        load_part(folder, Autoencoder, AutoencoderConfig, resnet_block=Other)


def test_what_is_replaced_survives_a_failure(
    vae: tuple[Path, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, state = vae

    def full_disk(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
        file.write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sdlearn.checkpoints.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_part(folder, AUTOENCODER, {name: value + 1 for name, value in state.items()})
    assert_same(load_part(folder, Autoencoder, AutoencoderConfig), state)
