"""The stored latents: used again only if they were made from the same networks, words, scenes and settings."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import make, make_parts

import sdlearn.training.diffusion as diffusion
from sdlearn.data import Scenes
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig
from sdlearn.models.text import TextConfig, TextEncoder
from sdlearn.pictures import to_images, to_unit
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


def write_folder(folder: Path, captions: list[str]) -> dict[str, Any]:
    """A folder of scenes as one's own pictures, and the table of the recipe that names it."""
    folder.mkdir(exist_ok=True)
    scenes = Scenes(5)
    for i, text in enumerate(captions):
        to_images(to_unit(scenes[i].image[None]))[0].save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(text)
    return {"data": {"pool_size": None, "folder": str(folder)}}


def test_of_ones_own_pictures(root: Path, made: list[bool]) -> None:
    """As many latents as pictures, each caption once; made anew when a picture or a caption changes."""
    captions = ["a cat", "a small owl", "a cat"]
    changes = write_folder(root / "own", captions)
    task, config = make("diffusion", root, root / "other", **changes)
    assert task.pool.caption.tolist() == [1, 2, 1] and len(task.pool.context) == 3
    images = to_unit(torch.stack([Scenes(5)[i].image for i in range(3)]))
    expected = diffusion.encode_pictures(task.autoencoder, images, diffusion.generator_for(0, 0, purpose=1)).half()
    assert torch.equal(task.pool.latents, expected)
    assert task.loss(task.unet, 0, slice(0, config.batch_size))[0].isfinite()
    with warnings.catch_warnings(action="error"):
        make("diffusion", root, root / "other", **changes)
    assert made == [True]
    for change_it in (
        lambda: (root / "own" / "1.txt").write_text("a large owl"),
        lambda: (root / "own" / "2.png").write_bytes((root / "own" / "0.png").read_bytes()),
    ):
        change_it()
        with pytest.warns(UserWarning, match=r"pool.safetensors was made from other .*; it is rebuilt"):
            make("diffusion", root, root / "other", **changes)
    assert made == [True] * 3
