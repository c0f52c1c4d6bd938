"""CLIP beside a model: its text tower is stored once."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

from sdlearn.lessons.check import randomize_
from sdlearn.models.clip import CLIP, CLIPConfig, VisionConfig
from sdlearn.models.text import TextConfig, TextEncoder
from sdlearn.storage.clip import load_clip, save_clip
from sdlearn.storage.folder import CLIP_WEIGHTS, load_part
from sdlearn.storage.load import BUNDLED

VISION = VisionConfig(
    hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
)


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_folder, tmp_path / "model")


@pytest.fixture
def clip(folder: Path) -> CLIP:
    text = load_part(folder / "text_encoder", TextEncoder, TextConfig)
    clip = randomize_(CLIP(CLIPConfig(text.config, VISION, projection_dim=12)), 3).requires_grad_(False)
    clip.text_model = text.text_model
    return clip


def test_what_is_saved_is_loaded(clip: CLIP, folder: Path) -> None:
    save_clip(clip, folder, torch.float32)
    assert not any(name.startswith("text_model.") for name in load_file(folder / "clip" / CLIP_WEIGHTS))
    again = load_clip(folder)
    assert again.config == clip.config
    assert again.state_dict().keys() == clip.state_dict().keys()
    assert all(torch.equal(value, clip.state_dict()[name]) for name, value in again.state_dict().items())
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_another_text_tower_is_refused(clip: CLIP, folder: Path) -> None:
    clip.text_model = randomize_(TextEncoder(clip.config.text_config), 4).text_model
    with pytest.raises(ValueError, match="text_encoder is not the text tower of this CLIP"):
        save_clip(clip, folder)
    assert not (folder / "clip").exists()


def test_what_is_missing_is_named(clip: CLIP, folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*clip.config\.json"):
        load_clip(folder)
    save_clip(clip, folder)
    stored = load_file(folder / "clip" / CLIP_WEIGHTS)
    save_file({name: value for name, value in stored.items() if name != "logit_scale"}, folder / "clip" / CLIP_WEIGHTS)
    with pytest.raises(ValueError, match="1 missing, 0 extra, 0 misshapen; the first: missing logit_scale"):
        load_clip(folder)
    (folder / "clip" / CLIP_WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=f"no file .*{CLIP_WEIGHTS}"):
        load_clip(folder)


def test_transformers_does_not_take_the_rest_for_the_whole() -> None:
    """It would draw the weights of the text tower at random, and only warn."""
    with pytest.raises(OSError, match=r"model\.safetensors"):
        CLIPModel.from_pretrained(BUNDLED / "clip", local_files_only=True)


def test_the_bundled_clip_has_the_text_encoder_as_its_tower() -> None:
    clip, text = load_clip(BUNDLED), load_part(BUNDLED / "text_encoder", TextEncoder, TextConfig)
    assert clip.config.text_config == text.config
    for name, value in text.text_model.state_dict().items():
        assert torch.equal(clip.text_model.state_dict()[name], value), name
    assert torch.isfinite(clip.encode_image(torch.zeros(1, 3, 64, 64))).all()
