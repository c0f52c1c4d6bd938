"""Every file format, in and out. Files are written under a temporary name and renamed, so none is ever half there."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sdlearn.config import Config
from sdlearn.files import whole_file

WEIGHT_FILES = ("model.safetensors", "diffusion_pytorch_model.safetensors")  # Transformers' name, Diffusers' name
OLD_ATTENTION_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, or not an object.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not a JSON file: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file} holds {type(values).__name__}, must hold an object")
    return values


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    with whole_file(file) as temporary:
        temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_part(folder: Path, config: Config, state: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> None:
    """Write one part of a model folder: `config.json` and its weights in safetensors, named as Diffusers names them."""
    folder.mkdir(parents=True, exist_ok=True)
    values = config.to_dict()
    if config.class_name:  # only Diffusers' classes have one
        name = "diffusion_pytorch_model.safetensors"
    else:
        name = "model.safetensors"
        # Transformers loads in the dtype of the file unless told otherwise, and Diffusers loads the rest in float32.
        values["dtype"] = "float32"
    stored = {key: value.detach().to("cpu", dtype).contiguous() for key, value in state.items()}
    with whole_file(folder / name) as temporary:
        save_file(stored, temporary, {"format": "pt"})
    write_json(folder / "config.json", values)


def load_part(
    folder: Path,
    model_class: Callable[..., nn.Module],
    config_class: type[Config],
    dtype: torch.dtype = torch.float32,
    **parts: Callable[..., nn.Module],
) -> nn.Module:
    """Build a network from `config.json`, of the given classes for its parts, and load its weights strictly.

    Weights stored in half precision are loaded as `dtype`.

    Raises:
        FileNotFoundError: the folder, its config.json or its weights are missing.
        ValueError: the configuration is not supported, the file is damaged, or its weights don't fit the network.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    file = folder / "config.json"
    config = config_class.from_dict(read_json(file), str(file))
    # On the meta device nothing is allocated or drawn, only to be overwritten. A learner's class may compute tensors
    # in its __init__, and those are needed.
    with torch.device("cpu" if parts else "meta"):
        model = model_class(config, **parts)
    load_weights(model, weight_file(folder), dtype)
    return model


def weight_file(folder: Path) -> Path:
    """The weights in a part's folder. Raises FileNotFoundError, with the accepted names, when there are none."""
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} holds no weights: neither {' nor '.join(WEIGHT_FILES)}")


def load_weights(model: nn.Module, file: Path, dtype: torch.dtype = torch.float32) -> None:
    """Put the weights of a safetensors file into `model`, whose own tensors are replaced; all of them or none.

    Accepts text encoders with and without the prefix `text_model.`, and the autoencoder's older attention names.

    Raises:
        ValueError: the file is damaged, or a name or shape is missing, extra or different.
    """
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    try:
        with safe_open(file, framework="pt") as weights:
            stored = {current_name(name, expected): name for name in weights.keys() if not is_ignored(name)}  # noqa: SIM118
            shapes = {name: tuple(weights.get_slice(old).get_shape()) for name, old in stored.items()}
            # Old autoencoders store linear layers as 1×1 convolutions: (C, C, 1, 1) -> (C, C).
            shapes = {
                name: shape[:2] if shape[2:] == (1, 1) and len(expected.get(name, ())) == 2 else shape
                for name, shape in shapes.items()
            }
            check_names(expected, shapes, file)
            state = {name: weights.get_tensor(old).reshape(shapes[name]).to(dtype) for name, old in stored.items()}
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged or no safetensors file: {error}") from error
    model.load_state_dict(state, strict=True, assign=True)


def is_ignored(name: str) -> bool:
    """Old text encoders store the numbers 0, 1, 2, … of their positions."""
    return name.endswith("position_ids")


def current_name(name: str, expected: Mapping[str, Any]) -> str:
    """The name that a stored tensor has today, if that is one of the expected ones."""
    *path, part, kind = name.split(".") if name.count(".") else ("", name)
    for candidate in (f"text_model.{name}", ".".join([*path, OLD_ATTENTION_NAMES.get(part, part), kind])):
        if candidate in expected and name not in expected:
            return candidate
    return name


def check_names(expected: Mapping[str, Any], stored: Mapping[str, Any], file: Path) -> None:
    """Raises ValueError unless names and shapes are equal: how many are missing, extra, misshapen; the first five."""
    missing = sorted(set(expected) - set(stored))
    extra = sorted(set(stored) - set(expected))
    misshapen = sorted(name for name in set(expected) & set(stored) if expected[name] != stored[name])
    first = [f"missing {name}" for name in missing] + [f"extra {name}" for name in extra]
    first += [f"{name} is {stored[name]}, not {expected[name]}" for name in misshapen]
    if first:
        counts = f"{len(missing)} missing, {len(extra)} extra, {len(misshapen)} misshapen"
        raise ValueError(f"{file} does not fit the network: {counts}; the first: {'; '.join(first[:5])}")
