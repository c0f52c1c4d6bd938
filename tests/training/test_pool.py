"""The stored latents: used again only if they were made from the same networks, words, scenes and settings."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import make, make_parts

import sdlearn.training.diffusion as diffusion
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig
from sdlearn.models.text import TextConfig, TextEncoder
from sdlearn.storage.folder import load_part, save_part
from sdlearn.tokenizer import train_bpe


def change(folder: Path, model_class: Any, config_class: Any, name: str) -> None:
    """Move one number of one tensor a little."""
    part = load_part(folder, model_class, config_class)
    state = part.state_dict()
    state[name].view(-1)[-1] += 1e-3
    save_part(folder, part.config, state)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_parts(tmp_path / "parts")
    make("diffusion", tmp_path, tmp_path / "run")
    return tmp_path


@pytest.fixture
def made(monkeypatch) -> list[bool]:
    """Grows whenever a pool is made."""
    calls, make_pool = [], diffusion.make_pool
    monkeypatch.setattr(diffusion, "make_pool", lambda *args: calls.append(True) or make_pool(*args))
    return calls


def test_used_again(root: Path, made: list[bool]) -> None:
    change(root / "parts" / "vae", Autoencoder, AutoencoderConfig, "decoder.conv_out.bias")  # makes no latents
    with warnings.catch_warnings(action="error"):
        make("diffusion", root, root / "run")
    assert made == []


@pytest.mark.parametrize("what", ["autoencoder", "text encoder", "words", "scaling factor", "JITTER", "SIZES", "size"])
def test_made_anew(what: str, root: Path, made: list[bool], monkeypatch) -> None:
    parts = root / "parts"
    if what == "autoencoder":
        change(parts / "vae", Autoencoder, AutoencoderConfig, "quant_conv.weight")
    elif what == "text encoder":
        change(parts / "text_encoder", TextEncoder, TextConfig, "text_model.final_layer_norm.bias")
    elif what == "words":
        train_bpe(["a large owl on a green field"], 520).save(parts / "tokenizer")
    elif what == "scaling factor":
        file = parts / "vae" / "config.json"
        file.write_text(file.read_text().replace("0.18215", "0.2"))
    elif what != "size":
        monkeypatch.setattr(diffusion, what, {"JITTER": 3, "SIZES": {"small": (1, 2)}}[what])
    changes = {"data": {"pool_size": 7}} if what == "size" else {}
    before = load_file(root / "run" / "pool.safetensors")
    with pytest.warns(UserWarning, match=r"pool.safetensors was made from other .*; it is rebuilt"):
        make("diffusion", root, root / "run", **changes)
    assert made == [True]
    after = load_file(root / "run" / "pool.safetensors")
    if what == "scaling factor":
        assert torch.allclose(after["latents"].float(), before["latents"].float() * 0.2 / 0.18215, rtol=2e-3)
    with warnings.catch_warnings(action="error"):
        make("diffusion", root, root / "run", **changes)
    assert made == [True]


def test_a_damaged_pool_is_made_anew(root: Path, made: list[bool]) -> None:
    file = root / "run" / "pool.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    with pytest.warns(UserWarning, match=r"pool.safetensors is damaged .*; it is rebuilt"):
        make("diffusion", root, root / "run")
    assert made == [True]
    assert file.read_bytes() == whole


def test_a_pool_that_does_not_say_its_source_is_made_anew(root: Path, made: list[bool]) -> None:
    file = root / "run" / "pool.safetensors"
    save_file(load_file(file), file)
    with pytest.warns(UserWarning, match=r"pool.safetensors was made from other .*; it is rebuilt"):
        make("diffusion", root, root / "run")
    assert made == [True]
