"""Saving a model: as a folder or as a single file. `load` reads both, and so does Diffusers."""

from pathlib import Path

import torch

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
        ValueError: the destination is another kind of file, or the dtype is not a floating-point one.
    """
    check_dtype(dtype)
    path = Path(destination)
    if path.suffix == ".safetensors":
        save_single_file(model, path, dtype)
    elif path.suffix in SINGLE_FILES or path.is_file():
        raise ValueError(f"{path} must be a folder, or a file that ends with .safetensors")
    else:
        save_folder(model, path, dtype)
