"""Saving a model: as a folder or as a single file. `load` reads both, and so does Diffusers."""

from pathlib import Path

import torch

from sdlearn.adapters.lora import attached
from sdlearn.adapters.textual_inversion import WithWords
from sdlearn.pipeline import StableDiffusion
from sdlearn.storage.folder import save_folder
from sdlearn.storage.single_file import SINGLE_FILES, save_single_file
from sdlearn.storage.weights import check_dtype


def save(model: StableDiffusion, destination: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a model folder in the Diffusers layout, or one .safetensors file in the CompVis layout.

    The folder counts as a model once model_index.json is there; it is written last. The file holds only the
    weights: no tokenizer, no schedule, no configuration.

    Raises:
        OSError: it can't be written; an old file stays intact.
        ValueError: the destination is another kind of file, the dtype is not a floating-point one, or adapters change
            the model: no such file could hold them.
    """
    check_dtype(dtype)
    check_adapters(model)
    path = Path(destination).expanduser()
    if path.suffix == ".safetensors":
        save_single_file(model, path, dtype)
    elif path.suffix.lower() in SINGLE_FILES or path.is_file():
        raise ValueError(f"{path} must be a folder, or a file that ends with .safetensors")
    else:
        save_folder(model, path, dtype)


def check_adapters(model: StableDiffusion) -> None:
    """Raises ValueError if a model has updates beside its weights, or new words."""
    if attached(model):
        raise ValueError("a LoRA is attached to the model: merge it into the weights, or detach it, first")
    if isinstance(model.tokenizer, WithWords):
        words = ", ".join(model.tokenizer.words)
        raise ValueError(f"the model has new words, {words}: store them with save_embedding, and remove_words first")
