"""Files of textual inversion: Diffusers' layout is read and written, that of the program A1111 is read.

Diffusers' file holds one tensor, (C,) or (n, C), whose name is the word. A1111's has the word under "name" and the
tensor under "string_to_param"; its newer kind, a .safetensors file, has only the tensor, and the word is its own name.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sdlearn.files import atomic_write, shown
from sdlearn.storage.pickles import load_pickle
from sdlearn.storage.weights import check_dtype, check_finite, check_floats, is_safetensors, map_file

ACCEPTED = "accepted: one tensor whose name is the word (Diffusers), or string_to_param or emb_params (A1111)"


def load_embedding(file: str | Path) -> tuple[str, Tensor]:
    """The word and the vectors (n, C) in a file: .safetensors, or a pickle of torch.save, whose code is never run.

    `add_word` teaches them to a model.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or another kind of file.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no embedding file {path}")
    word, vectors = find_word(path, read_content(path))
    if not isinstance(word, str):
        raise ValueError(f"{path} is no embedding: its only entry is {shown(word)}; {ACCEPTED}")
    fits = isinstance(vectors, Tensor) and vectors.ndim in (1, 2) and vectors.numel() and vectors.is_floating_point()
    if not fits:
        shape = tuple(vectors.shape) if isinstance(vectors, Tensor) else type(vectors).__name__
        raise ValueError(f"{path}: the vectors of {shown(word)!r} are {shape}; accepted: floats (C,) or (n, C)")
    check_floats(word, vectors, path)
    check_finite(word, vectors, path)
    return word, vectors.detach().reshape(-1, vectors.shape[-1]).float()


def read_content(file: Path) -> dict[str, Any]:
    """The dictionary in a file."""
    if is_safetensors(file) or file.suffix.lower() == ".safetensors":
        stored, get = map_file(file)
        return {name: get(name) for name in stored}
    content = load_pickle(file, [nn.ParameterDict])
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds {type(content).__name__}, must hold a dictionary; {ACCEPTED}")
    return content


def find_word(file: Path, content: dict[str, Any]) -> tuple[str, Any]:
    """The word and its vectors. A1111's first files have "*" for the word: then it is the name of the file."""
    if "string_to_param" in content:
        params, name = content["string_to_param"], content.get("name")
        params = getattr(params, "_parameters", params)  # of a ParameterDict, in the first files
        vectors = next(iter(params.values()), None) if isinstance(params, dict) else params
        return (name if isinstance(name, str) and name.strip("*") else file.stem), vectors
    if {"clip_l", "clip_g"} & content.keys():
        raise ValueError(f"{file} holds an embedding for Stable Diffusion XL, which is not supported; {ACCEPTED}")
    if len(content) != 1:
        names = ", ".join(map(shown, list(content)[:5]))
        raise ValueError(f"{file} is no embedding: it holds {len(content)} entries, {names}; {ACCEPTED}")
    ((name, vectors),) = content.items()
    return (file.stem if name == "emb_params" else name), vectors


def save_embedding(file: str | Path, word: str, vectors: Tensor, dtype: torch.dtype = torch.float32) -> None:
    """Write a word's vectors, (C,) or (n, C), as a .safetensors file in Diffusers' layout.

    Raises:
        OSError: it can't be written; an old file stays intact.
        ValueError: the name doesn't end with .safetensors, or the dtype is not a floating-point one.
    """
    check_dtype(dtype)
    path = Path(file).expanduser()
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: the name must end with .safetensors")
    with atomic_write(path) as temporary:
        save_file({word: vectors.detach().to("cpu", dtype).contiguous()}, temporary, {"format": "pt"})
