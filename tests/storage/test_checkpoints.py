"""Reading and writing parts of model folders."""

import json
import os
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionUpscalePipeline
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sdlearn.files import read_json, write_json
from sdlearn.lessons.check import randomize_
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig
from sdlearn.models.blocks import ResnetBlock
from sdlearn.models.clip import CLIP, CLIPConfig, VisionConfig
from sdlearn.models.text import TextConfig, TextEncoder
from sdlearn.storage.folder import CLIP_WEIGHTS, load_part, read_configs, save_part
from sdlearn.storage.hub import find_model
from sdlearn.storage.load import load
from sdlearn.storage.save import save

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
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


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
    with pytest.raises(ValueError, match=r"vae.config\.json: act_fn = 'mish' is not supported; accepted: 'silu'"):
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

    monkeypatch.setattr("sdlearn.storage.folder.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_part(folder, AUTOENCODER, {name: value + 1 for name, value in state.items()})
    assert_same(load_part(folder, Autoencoder, AutoencoderConfig), state)


def test_pickles_are_read_where_there_is_no_safetensors(vae: tuple[Path, dict[str, Tensor]]) -> None:
    folder, state = vae
    torch.save({name: value + 1 for name, value in state.items()}, folder / "diffusion_pytorch_model.bin")
    assert_same(load_part(folder, Autoencoder, AutoencoderConfig), state)
    (folder / WEIGHTS).unlink()
    assert_same(load_part(folder, Autoencoder, AutoencoderConfig), {name: value + 1 for name, value in state.items()})
    (folder / "diffusion_pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"diffusion_pytorch_model\.bin is damaged"):
        load_part(folder, Autoencoder, AutoencoderConfig)


# The hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB_SCRIPT = """
import sdlearn
model = sdlearn.load("someone/tiny")
print(model.name, model.kind, model.card.strip(), sum(value.double().sum().item() for value in model.unet.parameters()))
for name in ("someone/nothing", "someone/part"):
    try:
        sdlearn.load(name)
    except FileNotFoundError as error:
        print(error)
"""


def test_models_in_the_hubs_cache(tiny_folder: Path, tmp_path: Path) -> None:
    """Offline, in a process of its own, since huggingface_hub reads its environment once."""
    for name in ("tiny", "part"):  # the cache's own layout: contents by hash, commits made of links, branches
        storage = tmp_path / "hub" / f"models--someone--{name}"
        for file in (file for file in tiny_folder.rglob("*") if file.is_file()):
            if name == "part" and "unet" in file.parts:
                continue
            blob = storage / "blobs" / f"{hash(file):x}"
            link = storage / "snapshots" / COMMIT / file.relative_to(tiny_folder)
            for path in (blob, link):
                path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, blob)
            link.symlink_to(blob)
        (storage / "refs").mkdir()
        (storage / "refs" / "main").write_text(COMMIT)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "SDLEARN_"))}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", HUB_SCRIPT]
    output = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    lines = output.splitlines()
    weights = sum(value.double().sum().item() for value in load(tiny_folder).unet.parameters())
    assert lines[0] == f"someone/tiny StableDiffusionPipeline # A random model, for tests {weights}"
    assert lines[1].startswith("no folder or file someone/nothing here, and no model someone/nothing from the Hugging")
    assert f"{COMMIT} lacks unet; a model folder has tokenizer" in lines[-1]


@pytest.mark.filterwarnings("ignore:The configuration file of the vae does not contain:FutureWarning")
@pytest.mark.parametrize("stored", [{}, {"scaling_factor": 0.18215}, {"scaling_factor": 0.5}])
def test_the_upscalers_scaling_factor(stored: dict[str, float], tiny_folder: Path, tmp_path: Path) -> None:
    """Diffusers' pipeline takes its own, whatever the file says; the first files of that model say nothing."""
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    values = {key: value for key, value in read_json(folder / "vae" / "config.json").items() if key != "scaling_factor"}
    write_json(folder / "vae" / "config.json", values | stored)
    assert read_configs(folder)["vae"].scaling_factor == stored.get("scaling_factor", 0.18215)

    write_json(folder / "model_index.json", {"_class_name": "StableDiffusionUpscalePipeline"})
    others = dict.fromkeys(("text_encoder", "tokenizer", "unet", "low_res_scheduler", "scheduler"))
    reference = StableDiffusionUpscalePipeline(vae=AutoencoderKL.from_config(values | stored), **others)
    assert read_configs(folder)["vae"].scaling_factor == reference.vae.config.scaling_factor == 0.08333


@pytest.fixture
def hub(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A stand-in for the hub with one model, and for the cache: folders."""
    remote, cache = shutil.copytree(tiny_folder, tmp_path / "remote"), tmp_path / "cache"

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        assert name == "someone/tiny"
        for file in (file for file in remote.rglob("*") if file.is_file()):
            path = file.relative_to(remote)
            if any(fnmatch(path.as_posix(), pattern) for pattern in allow_patterns):
                (cache / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, cache / path)
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return remote, cache


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_only_what_is_needed_is_fetched(hub: tuple[Path, Path], tiny_folder: Path) -> None:
    remote, cache = hub
    for part, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model"), ("safety_checker", "model")):
        (remote / part).mkdir(exist_ok=True)
        for ending in ("fp16.safetensors", "non_ema.safetensors", "bin", "msgpack"):
            (remote / part / f"{name}.{ending}").touch()
    (remote / "safety_checker" / "model.safetensors").touch()
    (remote / "v1-5-pruned.ckpt").touch()
    torch.save(load_file(remote / "vae" / WEIGHTS), remote / "vae" / "diffusion_pytorch_model.bin")
    (remote / "vae" / WEIGHTS).unlink()
    assert find_model("someone/tiny") == (cache, "someone/tiny")
    expected = files_in(tiny_folder) - {f"vae/{WEIGHTS}"} | {"vae/diffusion_pytorch_model.bin"}
    assert files_in(cache) == expected
    assert_same(load("someone/tiny").autoencoder, load(tiny_folder).autoencoder.state_dict())


def test_other_models_are_refused_before_their_weights_are_fetched(hub: tuple[Path, Path]) -> None:
    remote, cache = hub
    write_json(remote / "model_index.json", {"_class_name": "StableDiffusionXLPipeline"})
    with pytest.raises(ValueError, match=r"StableDiffusionXLPipeline \(Stable Diffusion XL\), which is not supported"):
        find_model("someone/tiny")
    assert "unet/config.json" in files_in(cache)
    assert not list(cache.rglob("*.safetensors"))


def test_what_is_here_comes_before_the_hub(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny_folder, tmp_path / "someone" / "tiny")
    monkeypatch.chdir(tmp_path)
    assert find_model("someone/tiny") == (Path("someone/tiny"), "tiny")
    for name in ("nowhere", "a/b/c", "./nowhere", "/nowhere/at-all", "~/nowhere", "a/", ""):
        with pytest.raises(FileNotFoundError, match=r"no model at .*; accepted: a model folder|has no model_index"):
            load(name) if name else find_model(tmp_path / "nowhere")


# Weights that are no weights


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (float("nan"), torch.float32, "NaN, infinity, or numbers too large for float32"),
        (float("-inf"), torch.float32, "NaN, infinity, or numbers too large for float32"),
        (1e6, torch.float16, "NaN, infinity, or numbers too large for float16"),
        (float("nan"), torch.bfloat16, "NaN, infinity, or numbers too large for bfloat16"),
    ],
)
def test_weights_that_are_not_finite(
    value: float, dtype: torch.dtype, message: str, vae: tuple[Path, dict[str, Tensor]]
) -> None:
    folder, state = vae
    state["encoder.conv_in.bias"][1] = value
    save_file(state, folder / WEIGHTS)
    with pytest.raises(ValueError, match=rf"{WEIGHTS}: encoder\.conv_in\.bias holds {message}"):
        load_part(folder, Autoencoder, AutoencoderConfig, dtype)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda one: one.int(), "int32"),
        (lambda one: one > 0, "bool"),
        (lambda one: one.cfloat(), "complex64"),
        (lambda one: one.to_sparse(), "sparse_coo"),
        (lambda one: one.to("meta"), "meta"),
    ],
)
def test_tensors_without_floats(change: Any, kind: str, vae: tuple[Path, dict[str, Tensor]]) -> None:
    folder, state = vae
    (folder / WEIGHTS).unlink()
    torch.save(
        state | {"encoder.conv_in.bias": change(state["encoder.conv_in.bias"])}, folder / "diffusion_pytorch_model.bin"
    )
    with pytest.raises(
        ValueError, match=rf"diffusion_pytorch_model.bin: encoder\.conv_in\.bias holds {kind}, must hold floats"
    ):
        load_part(folder, Autoencoder, AutoencoderConfig)


def test_names_that_would_fill_the_screen(vae: tuple[Path, dict[str, Tensor]]) -> None:
    folder, state = vae
    save_file(state | {"x" * 10**6: torch.zeros(1), "a\nb\x1b[2J": torch.zeros(1)}, folder / WEIGHTS)
    with pytest.raises(ValueError, match="2 extra") as caught:
        load_part(folder, Autoencoder, AutoencoderConfig)
    assert len(str(caught.value)) < 600 and str(caught.value).isprintable()


# Saving over another model


def test_other_weights_in_a_part_s_folder_are_replaced(tiny_folder: Path, tmp_path: Path) -> None:
    """`load` and Diffusers would read some of these names before those that are written."""
    shutil.copytree(tiny_folder, tmp_path / "model")
    vae, tokenizer = tmp_path / "model" / "vae", tmp_path / "model" / "tokenizer"
    stale = [vae / "model.safetensors", vae / "diffusion_pytorch_model.bin", tokenizer / "tokenizer.json"]
    for file in stale:
        file.write_text("of another model")
    model = load(tiny_folder)
    save(model, tmp_path / "model", torch.float32)
    assert not any(file.exists() for file in stale)
    for one, other in zip(load(tmp_path / "model").networks, model.networks, strict=True):
        assert all(torch.equal(value, one.state_dict()[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize("same", [True, False])
def test_a_clip_stays_only_beside_its_text_encoder(same: bool, tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path / "model")
    model = load(tiny_folder)
    save(model, tmp_path / "model", torch.float32)
    (tmp_path / "model" / "clip").mkdir()
    for name in ("config.json", CLIP_WEIGHTS, "notes.txt"):
        (tmp_path / "model" / "clip" / name).write_text("{}")
    if not same:
        model.text_encoder.text_model.final_layer_norm.bias += 1
    save(model, tmp_path / "model", torch.float32)
    left = {file.name for file in (tmp_path / "model" / "clip").iterdir()}
    assert left == ({"config.json", CLIP_WEIGHTS, "notes.txt"} if same else {"notes.txt"})


def test_home_is_expanded(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save(load(tiny_folder), "~/model")
    assert (tmp_path / "model" / "model_index.json").is_file()
