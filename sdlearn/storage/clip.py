"""CLIP next to a model: `clip/` holds everything but the text tower, which is the model's `text_encoder/`."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from sdlearn.files import atomic_write, read_json, write_json
from sdlearn.models.clip import CLIP, CLIPConfig
from sdlearn.models.text import TextConfig, TextEncoder
from sdlearn.storage.folder import CLIP_WEIGHTS, build, load_part
from sdlearn.storage.weights import load_weights

NOTE = "The weights of text_model are in ../text_encoder. sdlearn.storage.clip.load_clip joins them."


def save_clip(clip: CLIP, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write `clip/` into a model folder that has a `text_encoder/`: vision tower, projections and logit_scale.

    Raises:
        ValueError: the folder's text encoder is not CLIP's text tower, to the last bit of the dtype.
    """
    stored = load_part(folder / "text_encoder", TextEncoder, TextConfig, dtype).text_model.state_dict()
    tower = {name: value.detach().to(dtype) for name, value in clip.text_model.state_dict().items()}
    if tower.keys() != stored.keys() or not all(torch.equal(value, stored[name]) for name, value in tower.items()):
        raise ValueError(
            f"{folder / 'text_encoder'} is not the text tower of this CLIP; they must have the same weights"
        )
    rest = {name: value for name, value in clip.state_dict().items() if not name.startswith("text_model.")}
    (folder / "clip").mkdir(exist_ok=True)
    with atomic_write(folder / "clip" / CLIP_WEIGHTS) as temporary:
        save_file({name: value.detach().to("cpu", dtype).contiguous() for name, value in rest.items()}, temporary)
    write_json(folder / "clip" / "config.json", {"_text_model": NOTE, **clip.config.to_dict()})


def load_clip(folder: str | Path, dtype: torch.dtype = torch.float32) -> CLIP:
    """CLIP from a model folder: `clip/` and `text_encoder/`, joined. Its weights are frozen.

    Raises:
        FileNotFoundError: one of the two folders, or a file in it, is missing.
        ValueError: a configuration is not supported, a file is damaged, or the weights don't fit.
    """
    file, weights = Path(folder) / "clip" / "config.json", Path(folder) / "clip" / CLIP_WEIGHTS
    clip = build(CLIPConfig.from_dict(read_json(file), str(file)), CLIP, {})
    if not weights.is_file():
        raise FileNotFoundError(f"no file {weights}")
    del clip.text_model
    load_weights(clip, weights, dtype)
    clip.text_model = load_part(Path(folder) / "text_encoder", TextEncoder, TextConfig, dtype).text_model
    return clip.requires_grad_(False)
