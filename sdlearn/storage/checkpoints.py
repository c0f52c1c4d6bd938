"""Every file format, in and out. Files are written under a temporary name and renamed, so none is ever half there."""

import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sdlearn.config import Config
from sdlearn.diffusion.schedule import ScheduleConfig
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig
from sdlearn.models.text import TextConfig, TextEncoder
from sdlearn.models.unet import UNet, UNetConfig
from sdlearn.storage.compvis import PIPELINES, CompVis, Place, identify
from sdlearn.storage.files import atomic_write, read_json, write_json
from sdlearn.tokenizer import EOS, Tokenizer

# Transformers' name, Diffusers' name; the second pair, pickles, is read where the first is missing.
SAFETENSORS = ("model.safetensors", "diffusion_pytorch_model.safetensors")
PICKLES = ("pytorch_model.bin", "diffusion_pytorch_model.bin")
SINGLE_FILES = (".safetensors", ".ckpt")

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
# Diffusers' StableDiffusionUpscalePipeline takes this one whatever the file says.
UPSCALER, UPSCALER_SCALING_FACTOR = "StableDiffusionUpscalePipeline", 0.08333
OTHER_MODELS = {"StableDiffusionXL": "Stable Diffusion XL", "StableDiffusion3": "Stable Diffusion 3", "Flux": "Flux"}
HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
ACCEPTED = (
    "accepted is a model folder in the Diffusers layout, a .safetensors or .ckpt file in the CompVis layout, or a "
    "model's name on the Hugging Face hub, owner/name"
)


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


def build(
    config: Config, model_class: Callable[..., nn.Module], parts: Mapping[str, Callable[..., nn.Module]]
) -> nn.Module:
    """A network without weights, assembled from the given classes; `load_weights` fills it.

    On the meta device nothing is allocated or drawn, only to be overwritten. A learner's class may compute tensors in
    its __init__, and those are needed.
    """
    with torch.device("cpu" if parts else "meta"):
        return model_class(config, **parts)


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
    model = build(config_class.from_dict(read_json(file), str(file)), model_class, parts)
    load_weights(model, weight_file(folder), dtype)
    return model


def weight_file(folder: Path) -> Path:
    """The weights in a part's folder. Raises FileNotFoundError, with the accepted names, when there are none."""
    for name in SAFETENSORS + PICKLES:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} holds no weights: neither {' nor '.join(SAFETENSORS + PICKLES)}")


def map_file(file: Path) -> tuple[dict[str, tuple[int, ...]], Callable[[str], Tensor]]:
    """The shapes of all tensors in a file, by name, and a function that gives one of them.

    The file is memory-mapped: a tensor is not read before it is used. It is a safetensors file or a pickle of
    torch.save. A pickle may also hold numbers and texts, which are left out, and its tensors may lie in a dictionary
    "state_dict". Nothing in it is ever run: what would need that is refused.

    Raises:
        ValueError: the file is damaged, of another kind, or a pickle that would run code.
    """
    if file.suffix == ".safetensors":
        try:
            weights = safe_open(file, framework="pt")
        except SafetensorError as error:
            raise ValueError(f"{file} is damaged or no safetensors file: {error}") from error
        return {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}, weights.get_tensor  # noqa: SIM118
    # The files of SD 1 also hold an object that watched over their training. It becomes an empty one.
    watcher = type("ModelCheckpoint", (), {"__module__": "pytorch_lightning.callbacks.model_checkpoint"})
    try:
        with torch.serialization.safe_globals([watcher]):
            content = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        if wanted := re.search(r"(?:Unsupported global: GLOBAL|Unsupported class) (\S+)", str(error)):
            raise ValueError(f"{file} would run code when opened ({wanted[1]}); refused, nothing was run") from error
        raise ValueError(f"{file} is damaged, or no file of torch.save since version 1.6: {error}") from error
    while isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds {type(content).__name__}, must hold a dictionary of tensors")
    tensors = {name: value.detach() for name, value in content.items() if isinstance(value, Tensor)}
    return {name: tuple(value.shape) for name, value in tensors.items()}, tensors.__getitem__


def load_weights(
    model: nn.Module, file: Path, dtype: torch.dtype = torch.float32, layout: CompVis | None = None
) -> None:
    """Put the weights of a file into `model`, whose own tensors are replaced; all of them or none.

    Without `layout` the file is a part of a Diffusers folder: text encoders with and without the prefix `text_model.`,
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

    # What has the dtype already stays in the map of the file. What is copied would stay there, too, since a map gives
    # its pages back only as a whole. So the file is mapped anew after each 32nd of it, but at least 4 MiB. Where the
    # convolutions are laid out anew, all is copied, or what is not would hold the map.
    state, copied, limit = {}, 0, max(file.stat().st_size / 32, 2**22)
    layout_4d = weight_format(dtype)
    copy = layout_4d == torch.channels_last
    for name, place in places.items():
        value = get(place.key)
        value = value if place.third is None else value.chunk(3)[place.third]
        memory_format = layout_4d if len(expected[name]) == 4 else torch.preserve_format
        state[name] = value.reshape(expected[name]).to(dtype, copy=copy, memory_format=memory_format)
        copied += value.nbytes if copy or value.dtype != dtype else 0
        if copied > limit:
            value, get, copied = None, None, 0
            _, get = map_file(file)
    model.load_state_dict(state, strict=True, assign=True)


def weight_format(dtype: torch.dtype) -> torch.memory_format:
    """How the weights of convolutions lie in memory: channels last in half precision, as its kernels read them.

    A step of Stable Diffusion 1.5's UNet in bfloat16 then takes 10 % less time on a CPU. In float32 it would gain
    nothing and lose a digit.
    """
    return torch.channels_last if dtype in (torch.float16, torch.bfloat16) else torch.contiguous_format


def is_ignored(key: str) -> bool:
    """Old text encoders store the numbers 0, 1, 2, … of their positions."""
    return key.endswith("position_ids")


def diffusers_place(name: str, shape: tuple[int, ...], stored: Mapping[str, tuple[int, ...]]) -> Place:
    """Where a weight stands in a Diffusers folder: under its name, or the one that it had in older files."""
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
    """Raises ValueError unless names and shapes are equal: how many are missing, extra, misshapen; the first five."""
    missing = sorted(set(expected) - set(stored))
    extra = sorted(set(stored) - set(expected))
    misshapen = sorted(name for name in set(expected) & set(stored) if expected[name] != stored[name])
    first = [f"missing {name}" for name in missing] + [f"extra {name}" for name in extra]
    first += [f"{name} is {stored[name]}, not {expected[name]}" for name in misshapen]
    if first:
        counts = f"{len(missing)} missing, {len(extra)} extra, {len(misshapen)} misshapen"
        raise ValueError(f"{file} does not fit the network: {counts}; the first: {'; '.join(first[:5])}")


def save_single_file(
    networks: Mapping[str, nn.Module], file: Path, dtype: torch.dtype = torch.float16, prediction_type: str = "epsilon"
) -> None:
    """Write text_encoder, vae and unet as one safetensors file in the CompVis layout.

    A text encoder with the exact GELU is taken for OpenCLIP's. Its last layer is not there: SD 2 doesn't use it, so
    Diffusers' layout dropped it. Diffusers and this package need none; programs that build all 24 layers miss it.
    """
    configs = {name: network.config for name, network in networks.items()}
    layout = CompVis(**configs, open_clip=configs["text_encoder"].hidden_act == "gelu")
    if layout.open_clip:
        warnings.warn(f"{file} lacks OpenCLIP's last layer, which no Diffusers folder holds", stacklevel=2)
    pieces: dict[Place, Tensor] = {}
    for name, value in nn.ModuleDict(dict(networks)).state_dict().items():
        place = layout.place(name, tuple(value.shape), {})
        pieces[place] = value.detach().to("cpu", dtype)
    stored: dict[str, Tensor] = {}
    for place in sorted(pieces, key=lambda place: place.third or 0):
        if place.third is None:
            stored[place.key] = pieces[place].reshape(place.shape).contiguous()
        else:  # query, key, value, one below the other
            stored[place.key] = torch.cat([stored[place.key], pieces[place]] if place.third else [pieces[place]])
    # The one thing that the weights don't show, by the name that other programs read.
    metadata = {"format": "pt", "modelspec.prediction_type": PREDICTION_TYPES[prediction_type]}
    with atomic_write(file) as temporary:
        save_file(stored, temporary, metadata)


PREDICTION_TYPES = {"epsilon": "epsilon", "v_prediction": "v", "sample": "sample"}


def stored_prediction_type(file: Path) -> str | None:
    """What a safetensors file says that its UNet predicts, if it says so."""
    if file.suffix != ".safetensors":
        return None
    with safe_open(file, framework="pt") as weights:
        said = (weights.metadata() or {}).get("modelspec.prediction_type")
    return next((ours for ours, theirs in PREDICTION_TYPES.items() if theirs == said), None)


def find_model(source: str | Path) -> tuple[Path, str]:
    """Where a model is, a folder or a file, and its name. One that is not here is fetched from the hub."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path, path.resolve().name
    if path.is_file() and path.suffix in SINGLE_FILES:
        return path, path.stem
    if path.exists():
        raise ValueError(f"{path} is another kind of file; {ACCEPTED}")
    hub_name = path.as_posix()
    if path.suffix in SINGLE_FILES or not HUB_NAME.fullmatch(hub_name):
        raise FileNotFoundError(f"no model at {path}; {ACCEPTED}")
    folder = fetch(hub_name, ["README.md", "defaults.json", "tokenizer/*", "*/*.json"])
    check_folder(folder)  # before gigabytes of another kind are fetched
    fetch_weights(hub_name, NETWORKS)
    return folder, hub_name


def fetch(name: str, files: Iterable[str]) -> Path:
    """Files of a model on the Hugging Face hub: the folder in huggingface_hub's cache, once all that exist are there.

    `files` may hold `*`. With HF_HUB_OFFLINE=1 in the environment only the cache is looked at.

    Raises:
        FileNotFoundError: there is no such model, or no access to it, or it is neither in the cache nor can be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(name, allow_patterns=["model_index.json", *files]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise FileNotFoundError(
            f"no folder or file {name} here, and no model {name} from the Hugging Face hub or its cache: {error}"
        ) from error


def fetch_weights(name: str, parts: Iterable[str]) -> None:
    """Fetch the weights of a model's parts from the hub: safetensors, or pickles where it has no others."""
    for part in parts:
        for kind in (SAFETENSORS, PICKLES):
            folder = fetch(name, [f"{part}/{file}" for file in kind])
            if any((folder / part / file).is_file() for file in kind):
                break


@dataclass(frozen=True)
class Description:
    """All of a model but its weights."""

    configs: dict[str, Config]  # of the text_encoder, the vae and the unet
    schedule: ScheduleConfig
    tokenizer: Tokenizer


def describe_folder(folder: Path, make_tokenizer: type[Tokenizer]) -> Description:
    """Read a model folder, but not its weights. Raises FileNotFoundError or ValueError like `load`."""
    check_folder(folder)
    schedule = folder / "scheduler" / "scheduler_config.json"
    return Description(
        read_configs(folder),
        ScheduleConfig.from_dict(read_json(schedule), str(schedule)),
        make_tokenizer.from_folder(folder / "tokenizer"),
    )


def read_configs(folder: Path) -> dict[str, Config]:
    """The configurations of the networks in a model folder: text_encoder, vae, unet."""
    files = {part: folder / part / "config.json" for part in NETWORKS}
    configs = {part: NETWORKS[part][1].from_dict(read_json(file), str(file)) for part, file in files.items()}
    if read_json(folder / "model_index.json").get("_class_name") == UPSCALER:
        configs["vae"] = replace(configs["vae"], scaling_factor=UPSCALER_SCALING_FACTOR)
    return configs


def describe_single_file(file: Path, make_tokenizer: type[Tokenizer]) -> Description:
    """Stable Diffusion 1 or 2, as names and shapes tell; both have the vocabulary of CLIP and the same schedule."""
    configs = identify(map_file(file)[0], file)
    return Description(configs, ScheduleConfig(), make_tokenizer.clip("!" if is_version_2(configs["unet"]) else EOS))


def is_version_2(config: UNetConfig) -> bool:
    """Whether a UNet reads texts as wide as those of Stable Diffusion 2."""
    return config.cross_attention_dim == 1024


def check_folder(folder: Path) -> None:
    """Raises FileNotFoundError or ValueError unless the folder holds a model that we know, with all its parts."""
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(f"{folder} has no model_index.json; {ACCEPTED}")
    kind = str(read_json(folder / "model_index.json").get("_class_name"))
    if kind not in PIPELINES:
        known = next((f" ({name})" for prefix, name in OTHER_MODELS.items() if kind.startswith(prefix)), "")
        raise ValueError(f"{folder} holds a {kind}{known}, which is not supported, only {', '.join(PIPELINES)}")
    if missing := [name for name in FOLDERS if not (folder / name).is_dir()]:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}; a model folder has {', '.join(FOLDERS)}")
