"""A model folder in the Diffusers layout: a subfolder for each part, with a JSON file and perhaps weights."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sdlearn.config import Config
from sdlearn.diffusion.schedule import ScheduleConfig
from sdlearn.files import atomic_write, read_json, write_json
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig
from sdlearn.models.text import TextConfig, TextEncoder
from sdlearn.models.unet import UNet, UNetConfig
from sdlearn.pipeline import StableDiffusion
from sdlearn.storage.weights import load_weights, weight_file
from sdlearn.tasks.kinds import KINDS
from sdlearn.tasks.plan import Defaults
from sdlearn.tokenizer import Tokenizer

# The parts of a model folder, by the names that Diffusers gives them: the library and the class that read each.
FOLDERS = {
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "scheduler": ("diffusers", None),  # the class is the schedule's
}
NETWORKS: dict[str, tuple[Callable[..., nn.Module], type[Config], str]] = {  # the class, its config, its place in PARTS
    "text_encoder": (TextEncoder, TextConfig, "text_encoder"),
    "vae": (Autoencoder, AutoencoderConfig, "autoencoder"),
    "unet": (UNet, UNetConfig, "unet"),
}
# The ×4 upscaler's vae/config.json lacks its scaling factor, or holds the 0.18215 that programs fill in for it. So
# Diffusers' StableDiffusionUpscalePipeline uses this value, whatever is in the file.
UPSCALER, UPSCALER_SCALING_FACTOR = "StableDiffusionUpscalePipeline", 0.08333
DIFFUSERS_VERSION = "0.35.0"  # of the layout that we write; Diffusers' inpainting refuses folders without it
OTHER_MODELS = {"StableDiffusionXL": "Stable Diffusion XL", "StableDiffusion3": "Stable Diffusion 3", "Flux": "Flux"}
ACCEPTED = (
    "accepted: a model folder in the Diffusers layout, a .safetensors or .ckpt file in the CompVis layout, or a "
    "model's name on the Hugging Face hub, owner/name"
)


@dataclass(frozen=True)
class Description:
    """Everything about a model but its weights."""

    configs: dict[str, Config]  # of the text_encoder, the vae and the unet
    schedule: ScheduleConfig
    tokenizer: Tokenizer
    defaults: Defaults | None = None
    card: str | None = None


def describe_folder(folder: Path, make_tokenizer: type[Tokenizer]) -> Description:
    """Read a model folder, but not its weights. Raises FileNotFoundError or ValueError like `load`."""
    check_folder(folder)
    schedule = folder / "scheduler" / "scheduler_config.json"
    return Description(
        read_configs(folder),
        ScheduleConfig.from_dict(read_json(schedule), str(schedule)),
        make_tokenizer.from_folder(folder / "tokenizer"),
        read_defaults(folder / "defaults.json"),
        read_card(folder),
    )


def check_folder(folder: Path) -> None:
    """Raises FileNotFoundError or ValueError unless the folder holds a model of a known kind, with all its parts."""
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(f"{folder} has no model_index.json; {ACCEPTED}")
    kind = str(read_json(folder / "model_index.json").get("_class_name"))
    if kind not in KINDS:
        known = next((f" ({name})" for prefix, name in OTHER_MODELS.items() if kind.startswith(prefix)), "")
        raise ValueError(f"{folder} holds a {kind}{known}, which is not supported; accepted: {', '.join(KINDS)}")
    if missing := [name for name in FOLDERS if not (folder / name).is_dir()]:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}; a model folder has {', '.join(FOLDERS)}")


def read_configs(folder: Path) -> dict[str, Config]:
    """The configurations of the networks in a model folder: text_encoder, vae, unet."""
    files = {part: folder / part / "config.json" for part in NETWORKS}
    configs = {part: NETWORKS[part][1].from_dict(read_json(file), str(file)) for part, file in files.items()}
    if read_json(folder / "model_index.json").get("_class_name") == UPSCALER:
        configs["vae"] = replace(configs["vae"], scaling_factor=UPSCALER_SCALING_FACTOR)
    return configs


def read_defaults(file: Path) -> Defaults | None:
    """The defaults stored with a model, or None. Raises ValueError for a missing or unknown key, or a bad value."""
    if not file.is_file():
        return None
    try:
        return Defaults(**read_json(file))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{file}: {error}") from error


def read_card(folder: Path) -> str | None:
    """The text of a model's card, or None."""
    return (folder / "README.md").read_text(encoding="utf-8") if (folder / "README.md").is_file() else None


def build(
    config: Config, model_class: Callable[..., nn.Module], parts: Mapping[str, Callable[..., nn.Module]]
) -> nn.Module:
    """A network without weights, assembled from the given classes; `load_weights` fills it.

    On the meta device nothing is allocated or initialised only to be overwritten. A learner's class may compute tensors
    in its __init__, and those are needed.
    """
    with torch.device("cpu" if parts else "meta"):
        return model_class(config, **parts)


def build_networks(
    configs: Mapping[str, Config], own: Mapping[str, Mapping[str, Callable[..., nn.Module]]]
) -> nn.ModuleDict:
    """text_encoder, vae and unet without weights; `own` are the caller's classes for their parts, by place."""
    return nn.ModuleDict(
        {name: build(configs[name], network, own[place]) for name, (network, _, place) in NETWORKS.items()}
    )


def load_folder(networks: nn.ModuleDict, folder: Path, dtype: torch.dtype) -> None:
    """Put the weights of a model folder into text_encoder, vae and unet; see `load_weights`."""
    for name, network in networks.items():
        load_weights(network, weight_file(folder / name), dtype)


def load_part(
    folder: Path,
    model_class: Callable[..., nn.Module],
    config_class: type[Config],
    dtype: torch.dtype = torch.float32,
    **parts: Callable[..., nn.Module],
) -> nn.Module:
    """Build a network from `config.json`, with the given classes as its parts, and load its weights strictly.

    Weights stored in half precision are loaded as `dtype`. They are frozen: to train the network, call
    `requires_grad_(True)`.

    Raises:
        FileNotFoundError: the folder, its config.json or its weights are missing.
        ValueError: the configuration is not supported, the file is damaged, or its weights don't fit the network.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    file = folder / "config.json"
    model = build(config_class.from_dict(read_json(file), str(file)), model_class, parts)
    load_weights(model, weight_file(folder), dtype)
    return model.requires_grad_(False)


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
    with atomic_write(folder / name) as temporary:
        save_file(stored, temporary, {"format": "pt"})
    write_json(folder / "config.json", values)


def save_folder(model: StableDiffusion, folder: Path, dtype: torch.dtype) -> None:
    """Write a model folder. It counts as a model once model_index.json is there, which is written last.

    An old one is removed first: a folder in which half of a model was replaced must not load.
    """
    (folder / "scheduler").mkdir(parents=True, exist_ok=True)
    (folder / "model_index.json").unlink(missing_ok=True)
    model.tokenizer.save(folder / "tokenizer")
    for name, network in zip(NETWORKS, model.networks, strict=True):
        save_part(folder / name, network.config, network.state_dict(), dtype)
    schedule = model.schedule.config.to_dict()
    write_json(folder / "scheduler" / "scheduler_config.json", schedule)
    write_json(folder / "defaults.json", asdict(model.defaults))
    if model.card is not None:
        with atomic_write(folder / "README.md") as temporary:
            temporary.write_text(model.card, encoding="utf-8")
    index: dict[str, Any] = {"_class_name": model.kind, "_diffusers_version": DIFFUSERS_VERSION}
    index["requires_safety_checker"] = False
    index |= {name: (library, kind or schedule["_class_name"]) for name, (library, kind) in FOLDERS.items()}
    index |= dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"), (None, None))
    write_json(folder / "model_index.json", index)
