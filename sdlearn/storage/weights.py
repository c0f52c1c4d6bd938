"""Weights in files: which tensors a file holds, and loading them into a network, all of them or none."""

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sdlearn.storage.compvis import CompVis, Place

# Transformers' name, Diffusers' name; the second pair, pickles, is read where the first is missing.
SAFETENSORS = ("model.safetensors", "diffusion_pytorch_model.safetensors")
PICKLES = ("pytorch_model.bin", "diffusion_pytorch_model.bin")


def weight_file(folder: Path) -> Path:
    """The weights in a part's folder. Raises FileNotFoundError, with the accepted names, when there are none."""
    for name in SAFETENSORS + PICKLES:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} holds no weights: neither {' nor '.join(SAFETENSORS + PICKLES)}")


def map_file(file: Path) -> tuple[dict[str, tuple[int, ...]], Callable[[str], Tensor]]:
    """The shapes of all tensors in a file, by name, and a function that returns one of them.

    The file is memory-mapped: a tensor isn't read until it is used. It is a safetensors file or a pickle of
    torch.save. A pickle can also hold numbers and texts, which are left out, and its tensors can be in a dictionary
    "state_dict". Code in it is never run: such a file is refused.

    Raises:
        ValueError: the file is damaged, of another kind, or a pickle that would run code.
    """
    if file.suffix == ".safetensors":
        try:
            weights = safe_open(file, framework="pt")
        except SafetensorError as error:
            raise ValueError(f"{file} is damaged or not a safetensors file: {error}") from error
        return {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}, weights.get_tensor  # noqa: SIM118
    # The files of SD 1 also hold a callback object from their training. It becomes an empty one.
    watcher = type("ModelCheckpoint", (), {"__module__": "pytorch_lightning.callbacks.model_checkpoint"})
    content = load_pickle(file, [watcher])
    while isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds {type(content).__name__}, must hold a dictionary of tensors")
    tensors = {name: value.detach() for name, value in content.items() if isinstance(value, Tensor)}
    return {name: tuple(value.shape) for name, value in tensors.items()}, tensors.__getitem__


def load_pickle(file: Path, allowed: Sequence[type] = ()) -> Any:
    """What a file of torch.save holds, with its tensors memory-mapped: only data, and objects of the `allowed` classes.

    Raises:
        ValueError: the file is damaged, of another kind, or would run code.
    """
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        if wanted := re.search(r"(?:Unsupported global: GLOBAL|Unsupported class) (\S+)", str(error)):
            raise ValueError(f"{file} would run code when opened ({wanted[1]}); refused, nothing was run") from error
        raise ValueError(f"{file} is damaged, or not a torch.save file (PyTorch 1.6 or later): {error}") from error


def load_weights(
    model: nn.Module, file: Path, dtype: torch.dtype = torch.float32, layout: CompVis | None = None
) -> None:
    """Put the weights of a file into `model`, whose own tensors are replaced; all of them or none.

    Without `layout` the file is from a Diffusers folder: text encoders with and without the prefix `text_model.`,
    and the autoencoder's older attention names. With it, `model` is a ModuleDict of text_encoder, vae and unet.

    Raises:
        ValueError: the file is damaged, or a name or shape is missing, extra or different.
    """
    stored, get = map_file(file)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    find, ignores = (layout.place, layout.ignores) if layout else (diffusers_place, is_ignored)
    places = {name: find(name, shape, stored) for name, shape in expected.items()}
    used = {place.key: place.shape for place in places.values()}
    check_names(used, {key: shape for key, shape in stored.items() if key in used or not ignores(key)}, file)

    # Tensors that already have the dtype stay memory-mapped. Copied ones would keep their pages too, since a mapping
    # frees its pages only all at once. So the file is remapped after each 32nd of it, but at least 4 MiB.
    state, copied, limit = {}, 0, max(file.stat().st_size / 32, 2**22)
    for name, place in places.items():
        value = get(place.key)
        value = value if place.third is None else value.chunk(3)[place.third]
        state[name] = value.reshape(expected[name]).to(dtype)
        copied += value.nbytes if value.dtype != dtype else 0
        if copied > limit:
            value, get, copied = None, None, 0
            _, get = map_file(file)
    model.load_state_dict(state, strict=True, assign=True)


def is_ignored(key: str) -> bool:
    """Old text encoders store the numbers 0, 1, 2, … of their positions."""
    return key.endswith("position_ids")


def diffusers_place(name: str, shape: tuple[int, ...], stored: Mapping[str, tuple[int, ...]]) -> Place:
    """Where a weight is in a Diffusers folder: under its name, or the name it had in older files."""
    *path, part, kind = name.split(".") if name.count(".") else ("", name)
    old = {"to_q": "query", "to_k": "key", "to_v": "value"}.get(part, part)
    if path[-1:] == ["to_out"]:
        path, old = path[:-1], "proj_attn"  # to_out.0 -> proj_attn
    for key in (name, name.removeprefix("text_model."), ".".join([*path, old, kind])):
        if key in stored:
            # Old autoencoders store linear layers as 1×1 convolutions: (C, C, 1, 1).
            convolution = len(shape) == 2 and stored[key] == (*shape, 1, 1)
            return Place(key, stored[key] if convolution else shape)
    return Place(name, shape)


def check_names(expected: Mapping[str, Any], stored: Mapping[str, Any], file: Path) -> None:
    """Raises ValueError unless names and shapes are equal; counts missing, extra, misshapen ones; names five."""
    missing = sorted(set(expected) - set(stored))
    extra = sorted(set(stored) - set(expected))
    misshapen = sorted(name for name in set(expected) & set(stored) if expected[name] != stored[name])
    first = [f"missing {name}" for name in missing] + [f"extra {name}" for name in extra]
    first += [f"{name} is {stored[name]}, not {expected[name]}" for name in misshapen]
    if first:
        counts = f"{len(missing)} missing, {len(extra)} extra, {len(misshapen)} misshapen"
        raise ValueError(f"{file} does not fit the network: {counts}; the first: {'; '.join(first[:5])}")


def check_dtype(dtype: torch.dtype) -> None:
    """Raises ValueError for a dtype that holds no floats: weights would be rounded to whole numbers."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype = {dtype!r}, must be a floating-point dtype, such as torch.float32 or torch.float16")
