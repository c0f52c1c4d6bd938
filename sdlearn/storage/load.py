"""Loading a model: from a folder, a single file or the hub, with the caller's own parts."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sdlearn.diffusion.guidance import guide
from sdlearn.diffusion.samplers import SAMPLERS
from sdlearn.diffusion.schedule import Schedule
from sdlearn.pipeline import StableDiffusion
from sdlearn.storage.folder import build_networks, describe_folder, load_folder
from sdlearn.storage.hub import find_model
from sdlearn.storage.parts import sort_parts
from sdlearn.storage.single_file import (
    describe_single_file,
    find_prediction_type,
    load_single_file,
    set_sample_size,
)
from sdlearn.storage.weights import check_dtype
from sdlearn.tokenizer import Tokenizer

BUNDLED = Path(__file__).parents[1] / "weights" / "tiny"


def load(
    source: str | Path | None = None,
    *,
    parts: Mapping[str, Callable[..., Any]] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    config: str | Path | None = None,
    ema: bool = False,
    prediction_type: str | None = None,
) -> StableDiffusion:
    """Load a model. Its weights are frozen: they get no gradients until you call `requires_grad_(True)`.

    Args:
        source: a model folder in the Diffusers layout; a .safetensors or .ckpt file of Stable Diffusion 1 or 2 in the
            CompVis layout; or the name of a model on the Hugging Face hub, "owner/name", which is fetched into
            huggingface_hub's cache. None: what the environment variable SDLEARN_MODEL names, else the bundled model.
        parts: your own classes and functions by name, such as {"resnet_block": MyBlock, "ddim": my_ddim}; `PARTS` lists
            the names. Weights are loaded strictly, so a class must have the same parameters as ours.
        device, dtype: where the networks are, and what they compute in; by default the CPU and float32. The device
            "auto" is an NVIDIA GPU if there is one, else the CPU.
        config: for a single file, a model folder whose configurations, tokenizer and schedule are used. Without it
            they are those of Stable Diffusion 1 or 2, recognised by the file's names and shapes.
        ema: for a single file that holds plain weights of the UNet and their moving averages: use the averages.
        prediction_type: "epsilon" or "v_prediction", in place of what is stored or found; see `find_prediction_type`.

    Raises:
        FileNotFoundError: there is no such model, or something in it is missing.
        ValueError: it is another kind of model, has an unsupported setting, or weights that are damaged or don't fit;
        or a name in `parts` is unknown; or the dtype is not a floating-point one.
    """
    check_dtype(dtype)
    own = sort_parts(parts)
    make_tokenizer = own["pipeline"].get("tokenizer", Tokenizer)
    path, name = find_model(source or os.environ.get("SDLEARN_MODEL") or BUNDLED)
    folder = path.is_dir()
    if folder and (config is not None or ema):
        raise ValueError(f"{path} is a folder; config and ema are for single files")
    about = describe_folder(path, make_tokenizer) if folder else describe_single_file(path, make_tokenizer, config)
    networks = build_networks(about.configs, own)
    if folder:
        load_folder(networks, path, dtype)
    else:
        load_single_file(networks, path, dtype, ema)
    networks.to(device=pick_device(device)).requires_grad_(False)
    if not folder and config is None:
        prediction_type = prediction_type or find_prediction_type(path, about.tokenizer, **networks)
        networks["unet"].config = set_sample_size(networks["unet"].config, prediction_type)
    schedule = replace(about.schedule, prediction_type=prediction_type or about.schedule.prediction_type)
    try:
        return StableDiffusion(
            about.tokenizer,
            *networks.values(),  # text encoder, autoencoder, UNet
            own["pipeline"].get("schedule", Schedule)(schedule),
            **functions(own),
            defaults=about.defaults,
            name=name,
            card=about.card,
        )
    except ValueError as error:  # a part doesn't accept what the one before it makes
        raise ValueError(f"{path}: {error}") from error


def functions(own: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What a pipeline calls besides its networks: samplers, guidance and, if swapped, the loop's ends and the whole."""
    swapped = ("encode_pictures", "decode_latents", "text_to_image")
    ends = {name: own["pipeline"][name] for name in swapped if name in own["pipeline"]}
    samplers = SAMPLERS | {name: replace(SAMPLERS[name], loop=loop) for name, loop in own["samplers"].items()}
    return {"samplers": samplers, "guide": partial(own["pipeline"].get("guide", guide), **own["guide"]), **ends}


def pick_device(device: torch.device | str | None) -> torch.device | str | None:
    """ "auto" is an NVIDIA GPU if there is one, else the CPU; anything else is taken as it is."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device
