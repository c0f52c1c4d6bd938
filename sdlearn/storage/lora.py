"""LoRA files: Diffusers' layout, and kohya's, which most files on Civitai have. Both are read and written.

    unet.mid_block.attentions.0.proj_in.lora_A.weight          Diffusers; alpha is in the file's metadata
    lora_unet_mid_block_attentions_0_proj_in.lora_down.weight  kohya; alpha is a tensor beside the other two

Older files of Diffusers spell the names in other ways, which are read, too.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from sdlearn.adapters.lora import LoRA, Update, layers
from sdlearn.files import atomic_write
from sdlearn.pipeline import StableDiffusion
from sdlearn.storage.weights import check_dtype, check_floats, is_safetensors, map_file

LAYOUTS = ("diffusers", "kohya")
METADATA = "lora_adapter_metadata"  # Diffusers' name for a JSON object: r, lora_alpha and so on, for each network

# A key is the name of a layer and what it holds: A, B, or alpha.
KEY = re.compile(r"(.+?)(?:[._]lora(?:_linear_layer)?[._](A|B|down|up)\.weight|\.(alpha))")
HOLDS = {"A": "A", "down": "A", "B": "B", "up": "B", "alpha": "alpha"}

# Names that identify other kinds of adapters.
OTHER_FILES = {
    "dora_scale": "a DoRA",
    "lora_magnitude_vector": "a DoRA",
    "hada_": "a LoHa",
    "lokr_": "a LoKr",
    "oft_": "an OFT",
    "lora_te2_": "a LoRA for Stable Diffusion XL",
    "text_encoder_2.": "a LoRA for Stable Diffusion XL",
    "transformer.": "a LoRA for a model without a UNet",
}


def load_lora(file: str | Path, model: StableDiffusion) -> LoRA:
    """Read a LoRA file that was made for a model like this one; `attach` lets the model use it.

    file: .safetensors; or a pickle of torch.save, whose code, if it has any, is never run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is another kind of adapter, or was made for another model; names its keys.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no LoRA file {path}")
    stored, get = map_file(path)
    metadata = read_metadata(path)
    check_kind(stored, metadata, path)
    inside = layers(model)
    names = {spelling: name for name in inside for spelling in spellings(name)}
    keys: dict[str, dict[str, str]] = {}  # layer -> A, B and alpha -> the key in the file
    unknown = []
    for key in stored:
        match = KEY.fullmatch(key)
        if match and match[1] in names:
            keys.setdefault(names[match[1]], {})[HOLDS[match[2] or match[3]]] = key
        else:
            unknown.append(key)
    check_fit(keys, unknown, stored, {name: tuple(layer.weight.shape) for name, layer in inside.items()}, path)
    lora: LoRA = {}
    for name, key in sorted(keys.items()):
        A, B, ones = get(key["A"]), get(key["B"]), inside[name].weight.shape[2:]
        alpha = get(key["alpha"]).item() if "alpha" in key else stored_alpha(metadata, name, len(A))
        for part, one in (("A", A), ("B", B)):
            check_floats(key[part], one, path)
            if not one.isfinite().all():
                raise ValueError(f"{path}: {key[part]} holds NaN or infinity")
        A, B = (one.reshape(*one.shape[:2], *ones) for one in (A, B))
        lora[name] = Update(A, B, alpha).requires_grad_(False)
    return lora


def spellings(name: str) -> list[str]:
    """All the ways in which files write a layer's name. The first is Diffusers', the second is kohya's."""
    network, _, inside = name.partition(".")
    if network == "unet":
        old = re.sub(r"\.(to_[qkv]|to_out)(\.0)?$", r".processor.\1", inside)
        return [name, f"lora_unet_{inside.replace('.', '_')}", f"unet.{old}", inside, old]
    bare = inside.removeprefix("text_model.")
    old = re.sub(r"\.([qkv]|out)_proj$", r".to_\1", name)
    return [name, f"lora_te_{inside.replace('.', '_')}", f"text_encoder.{bare}", old]


def read_metadata(file: Path) -> dict[str, Any]:
    """What Diffusers stores in a file besides the tensors, such as "unet.lora_alpha"; {} if there is nothing."""
    if not is_safetensors(file):
        return {}
    with safe_open(file, framework="pt") as opened:
        text = (opened.metadata() or {}).get(METADATA, "{}")
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{file}: its metadata {METADATA} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file}: its metadata {METADATA} is {type(values).__name__}, must be an object")
    for network in ("unet", "text_encoder"):
        alpha, own = values.get(f"{network}.lora_alpha", 1), values.get(f"{network}.alpha_pattern", {})
        numbers = [alpha, *own.values()] if isinstance(own, dict) else [None]
        if not all(isinstance(one, int | float) for one in numbers):
            raise ValueError(f"{file}: {network}.lora_alpha = {alpha!r}, alpha_pattern = {own!r}; must be numbers")
    return values


def stored_alpha(metadata: dict[str, Any], name: str, rank: int) -> float:
    """The alpha of a layer according to the metadata: its own, or that of its network, or rank if there is neither."""
    network, _, inside = name.partition(".")
    alpha = metadata.get(f"{network}.lora_alpha", rank)
    for end, own in metadata.get(f"{network}.alpha_pattern", {}).items():
        if f".{inside}".endswith(f".{end.removeprefix('^')}"):
            alpha = own
    return alpha * rank**0.5 if metadata.get(f"{network}.use_rslora") else alpha  # there it is divided by √rank


def check_kind(stored: Mapping[str, tuple[int, ...]], metadata: dict[str, Any], file: Path) -> None:
    """Raises ValueError, with the name of the kind, for a file that is known to hold something else than a LoRA."""
    kinds = [kind for part, kind in OTHER_FILES.items() if any(part in key for key in stored)]
    if any(metadata.get(f"{network}.use_dora") for network in ("unet", "text_encoder")):
        kinds.append("a DoRA")
    if any("lora" in key and len(shape) == 4 and shape[2:] != (1, 1) for key, shape in stored.items()):
        kinds.append("a LoCon, which updates 3×3 convolutions, too,")
    if kinds:
        raise ValueError(f"{file} holds {kinds[0]}, which is not supported; accepted: LoRAs for Stable Diffusion 1, 2")


def check_fit(
    keys: Mapping[str, Mapping[str, str]],
    unknown: list[str],
    stored: Mapping[str, tuple[int, ...]],
    weights: Mapping[str, tuple[int, ...]],
    file: Path,
) -> None:
    """Raises ValueError unless each layer has its A and its B, in shapes that fit its weight; names the first five."""
    wrong = [f"no layer for {key}" for key in unknown]
    for name, key in keys.items():
        if missing := {"A", "B"} - key.keys():
            wrong.append(f"{name} lacks its {' and '.join(sorted(missing))}")
            continue
        A, B, (out, inputs, *_) = stored[key["A"]], stored[key["B"]], weights[name]
        ones = {*A[2:], *B[2:], *stored.get(key.get("alpha"), ())}
        if not A or A[0] == 0 or A[1:2] != (inputs,) or B[:2] != (out, A[0]) or ones - {1}:
            wrong.append(f"{key['A']} is {A} and {key['B']} is {B}, for a layer of {out} × {inputs}")
    if wrong or not keys:
        first = "; ".join(wrong[:5]) or "it holds no tensors"
        raise ValueError(f"{file} is for another model, or is no LoRA (misfits: {len(wrong)}); the first: {first}")


def save_lora(lora: LoRA, file: str | Path, layout: str = "diffusers", dtype: torch.dtype = torch.float16) -> None:
    """Write an adapter as a .safetensors file. Its scale is not stored: that is for whoever draws with it.

    layout: "diffusers" or "kohya". Diffusers reads both; most other programs read "kohya".

    Raises:
        OSError: it can't be written; an old file stays intact.
        ValueError: the layout is unknown, the name doesn't end with .safetensors, or the adapter is empty.
    """
    check_dtype(dtype)
    path = Path(file)
    if layout not in LAYOUTS:
        raise ValueError(f"layout = {layout!r} is unknown; accepted: {', '.join(LAYOUTS)}")
    if path.suffix != ".safetensors" or not lora:
        raise ValueError(f"{path}: the name must end with .safetensors, and the adapter must have layers")
    tensors: dict[str, Tensor] = {}
    for name, update in lora.items():
        A, B = (one.detach().to("cpu", dtype).contiguous() for one in (update.A, update.B))
        diffusers, kohya = spellings(name)[:2]
        if layout == "kohya":
            tensors |= {f"{kohya}.lora_down.weight": A, f"{kohya}.lora_up.weight": B}
            tensors[f"{kohya}.alpha"] = torch.tensor(float(update.alpha))
        else:
            tensors |= {f"{diffusers}.lora_A.weight": A, f"{diffusers}.lora_B.weight": B}
    metadata = {METADATA: json.dumps(describe(lora), indent=2, sort_keys=True)} if layout == "diffusers" else {}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, {"format": "pt", **metadata})


def describe(lora: LoRA) -> dict[str, Any]:
    """The metadata from which Diffusers learns ranks and alphas: those of most layers, and a pattern of the others."""
    values: dict[str, Any] = {}
    for network in ("text_encoder", "unet"):
        # Without "text_model.", which the names in Transformers' CLIPTextModel don't have any more.
        own = {
            name.removeprefix(f"{network}.").removeprefix("text_model."): update
            for name, update in lora.items()
            if name.startswith(f"{network}.")
        }
        if own:
            ranks, alphas = [one.rank for one in own.values()], [one.alpha for one in own.values()]
            rank, alpha = (max(set(values), key=values.count) for values in (ranks, alphas))
            values |= {f"{network}.r": rank, f"{network}.lora_alpha": alpha, f"{network}.target_modules": list(own)}
            values[f"{network}.rank_pattern"] = {name: one.rank for name, one in own.items() if one.rank != rank}
            values[f"{network}.alpha_pattern"] = {name: one.alpha for name, one in own.items() if one.alpha != alpha}
    return values
