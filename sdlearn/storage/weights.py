"""Weights in files: which tensors a file holds, and loading them into a network, all of them or none."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sdlearn.files import shown
from sdlearn.storage.compvis import CompVis, Place
from sdlearn.storage.pickles import read_tensors

# Transformers' name, Diffusers' name; the second pair, pickles, is read where the first is missing.
SAFETENSORS = ("model.safetensors", "diffusion_pytorch_model.safetensors")
PICKLES = ("pytorch_model.bin", "diffusion_pytorch_model.bin")


def weight_file(folder: Path) -> Path:
    """The weights in a part's folder. Raises FileNotFoundError, with the accepted names, when there are none."""
    for name in SAFETENSORS + PICKLES:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} holds no weights: neither {' nor '.join(SAFETENSORS + PICKLES)}")


def is_safetensors(file: Path) -> bool:
    """Whether a file begins as safetensors files do, whatever its name: a length, and a JSON object of that length."""
    with file.open("rb") as stream:
        start = stream.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < file.stat().st_size


def map_file(file: Path) -> tuple[dict[str, tuple[int, ...]], Callable[[str], Tensor]]:
    """The shapes of all tensors in a file, by name, and a function that returns one of them.

    The file is memory-mapped: a tensor isn't read until it is used. It is a safetensors file or a pickle of
    torch.save, as its first bytes say; see `read_tensors` for those.

    Raises:
        ValueError: the file is damaged, of another kind, or a pickle that needs what isn't harmless.
    """
    if not is_safetensors(file) and file.suffix.lower() != ".safetensors":
        tensors = read_tensors(file)
        return {name: tuple(value.shape) for name, value in tensors.items()}, tensors.__getitem__
    try:
        weights = safe_open(file, framework="pt")
        shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged or not a safetensors file: {shown(str(error))}") from error
    return shapes, weights.get_tensor


def check_floats(key: str, value: Tensor, file: Path) -> None:
    """Raises ValueError for a tensor that can't be weights: whole numbers, complex or sparse ones, no data."""
    plain = value.layout is torch.strided and not value.is_meta
    if not plain or not value.is_floating_point():
        kind = str(value.dtype if plain else value.layout if not value.is_meta else value.device)
        raise ValueError(f"{file}: {shown(key)} holds {kind.removeprefix('torch.')}, must hold floats")


def check_finite(key: str, value: Tensor, file: Path) -> None:
    """Raises ValueError for a tensor with NaN or infinity in it. One pass over it, without a copy."""
    if value.numel():
        ends = (value if value.element_size() > 1 else value.float()).aminmax()  # NaN, if there is one
        if not (ends.min.isfinite() and ends.max.isfinite()):
            dtype = str(value.dtype).removeprefix("torch.")
            raise ValueError(f"{file}: {shown(key)} holds NaN, infinity, or numbers too large for {dtype}")


def load_weights(
    model: nn.Module, file: Path, dtype: torch.dtype = torch.float32, layout: CompVis | None = None
) -> None:
    """Put the weights of a file into `model`, whose own tensors are replaced; all of them or none.

    Without `layout` the file is from a Diffusers folder: text encoders with and without the prefix `text_model.`,
    and the autoencoder's older attention names. With it, `model` is a ModuleDict of text_encoder, vae and unet.

    Raises:
        ValueError: the file is damaged; a name or shape is missing, extra or different; or values aren't finite floats.
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
        check_floats(place.key, value, file)
        value = value if place.third is None else value.chunk(3)[place.third]
        state[name] = value.reshape(expected[name]).to(dtype)
        check_finite(place.key, state[name], file)
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
    first = [f"missing {shown(name)}" for name in missing] + [f"extra {shown(name)}" for name in extra]
    first += [f"{shown(name)} is {shown(stored[name])}, not {expected[name]}" for name in misshapen]
    if first:
        counts = f"{len(missing)} missing, {len(extra)} extra, {len(misshapen)} misshapen"
        raise ValueError(f"{file} does not fit the network: {counts}; the first: {'; '.join(first[:5])}")


def check_dtype(dtype: torch.dtype) -> None:
    """Raises ValueError for a dtype that holds no floats: weights would be rounded to whole numbers."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype = {dtype!r}, must be a floating-point dtype, such as torch.float32 or torch.float16")
