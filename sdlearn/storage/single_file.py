"""A single file in the CompVis layout: what it holds, which its names alone don't show; and writing such a file."""

import warnings
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sdlearn.diffusion.schedule import ScheduleConfig
from sdlearn.files import atomic_write, shown
from sdlearn.models.autoencoder import Autoencoder
from sdlearn.models.text import TextEncoder
from sdlearn.models.unet import UNet, UNetConfig
from sdlearn.pipeline import StableDiffusion
from sdlearn.storage.compvis import OPEN_CLIP, CompVis, Place, check_kind, identify
from sdlearn.storage.folder import NETWORKS, Description, describe_folder
from sdlearn.storage.weights import is_safetensors, load_weights, map_file
from sdlearn.tokenizer import EOS, Tokenizer

SINGLE_FILES = (".safetensors", ".ckpt", ".pt", ".pth")  # in small letters or capitals
PREDICTION_TYPES = {"epsilon": "epsilon", "v_prediction": "v", "sample": "sample"}  # ours, that of modelspec
SPELLINGS = {"eps": "epsilon", "v": "v_prediction", "vpred": "v_prediction", "v-prediction": "v_prediction"}


def describe_single_file(file: Path, make_tokenizer: type[Tokenizer], config: str | Path | None = None) -> Description:
    """Everything about a model but its weights, the only thing in the file: from the folder `config`, if it is given.

    Else names and shapes show whether it is Stable Diffusion 1 or 2. Both have CLIP's vocabulary and the same schedule.
    """
    if config is not None:
        return replace(
            describe_folder(Path(config).expanduser(), make_tokenizer), card=None
        )  # the card is another model's
    configs = identify(map_file(file)[0], file)
    return Description(configs, ScheduleConfig(), make_tokenizer.clip("!" if is_version_2(configs["unet"]) else EOS))


def is_version_2(config: UNetConfig) -> bool:
    """Whether a UNet reads texts as wide as those of Stable Diffusion 2."""
    return config.cross_attention_dim == 1024


def set_sample_size(config: UNetConfig, prediction_type: str) -> UNetConfig:
    """The models of Stable Diffusion 2 that predict v are made for 768 pixels: 96 latents. All others keep theirs."""
    return replace(config, sample_size=96) if prediction_type == "v_prediction" and is_version_2(config) else config


def load_single_file(
    networks: nn.ModuleDict, file: Path, dtype: torch.dtype = torch.float32, ema: bool = False
) -> None:
    """Put the weights of a file into text_encoder, vae and unet; see `load_weights`.

    ema: use the moving averages of the UNet's weights instead of the weights.
    """
    keys, _ = map_file(file)
    check_kind(keys, file)
    configs = {name: network.config for name, network in networks.items()}
    layout = CompVis(**configs, open_clip=any(key.startswith(OPEN_CLIP) for key in keys), ema=ema)
    if others := sorted({key.split(".")[0] for key in keys if layout.is_unknown(key)}):
        names = ", ".join(map(shown, others[:10])) + (f" and {len(others) - 10} more" if len(others) > 10 else "")
        warnings.warn(f"{file} also holds {names}, which drawing doesn't need: ignored", stacklevel=2)
    load_weights(networks, file, dtype, layout)


def find_prediction_type(
    file: Path, tokenizer: Tokenizer, text_encoder: TextEncoder, vae: Autoencoder, unet: UNet
) -> str:
    """What the UNet of a single file predicts, "epsilon" or "v_prediction"; names and shapes don't show it.

    The file's metadata decide. Without an entry there it is epsilon, except for Stable Diffusion 2's text-to-image
    models, which exist with both: there the network itself is tested.
    """
    if stored := stored_prediction_type(file):
        return stored
    if not is_version_2(unet.config) or unet.config.in_channels != vae.config.latent_channels:
        return "epsilon"
    return "epsilon" if predicts_noise(tokenizer, text_encoder, unet) else "v_prediction"


@torch.no_grad()
def predicts_noise(tokenizer: Tokenizer, text_encoder: TextEncoder, unet: UNet) -> bool:
    """Whether the UNet predicts epsilon, found by testing it.

    At the last timestep x is almost pure noise. So a prediction of epsilon resembles x, and one of v, which is there
    almost −x_0, doesn't.
    """
    like = next(unet.parameters())
    x = torch.randn((1, unet.config.in_channels, 16, 16), generator=torch.Generator().manual_seed(0)).to(like)
    prediction = unet(x, 999, text_encoder(tokenizer("").to(like.device)))
    return F.cosine_similarity(prediction.float().flatten(), x.float().flatten(), dim=0).item() > 0.5


def stored_prediction_type(file: Path) -> str | None:
    """What the UNet predicts according to the metadata of a safetensors file, if they name it."""
    if not is_safetensors(file):
        return None
    with safe_open(file, framework="pt") as weights:
        said = (weights.metadata() or {}).get("modelspec.prediction_type")
    if said is None:
        return None
    ours = SPELLINGS.get(said.strip().lower(), said.strip().lower())
    if ours not in PREDICTION_TYPES:
        warnings.warn(
            f"{file} says prediction_type {shown(repr(said))}, which is unknown; the network is looked at", stacklevel=2
        )
    return ours if ours in PREDICTION_TYPES else None


def save_single_file(model: StableDiffusion, file: Path, dtype: torch.dtype) -> None:
    """Write the networks as one safetensors file in the CompVis layout: no tokenizer, no schedule, no configuration.

    A text encoder with the exact GELU is assumed to be OpenCLIP's. Its last layer is missing: SD 2 doesn't use it, so
    Diffusers' layout dropped it. Diffusers and this package don't need it; programs that build all 24 layers do.
    """
    networks = dict(zip(NETWORKS, model.networks, strict=True))
    configs = {name: network.config for name, network in networks.items()}
    layout = CompVis(**configs, open_clip=configs["text_encoder"].hidden_act == "gelu")
    if layout.open_clip:
        warnings.warn(f"{file} lacks OpenCLIP's last layer, which no Diffusers folder holds", stacklevel=2)
    pieces: dict[Place, Tensor] = {}
    for name, value in nn.ModuleDict(networks).state_dict().items():
        place = layout.place(name, tuple(value.shape), {})
        pieces[place] = value.detach().to("cpu", dtype)
    stored: dict[str, Tensor] = {}
    for place in sorted(pieces, key=lambda place: place.third or 0):
        if place.third is None:
            stored[place.key] = pieces[place].reshape(place.shape).contiguous()
        else:  # query, key, value, one below the other
            stored[place.key] = torch.cat([stored[place.key], pieces[place]] if place.third else [pieces[place]])
    # The one thing that the weights don't show, under the name that other programs read.
    metadata = {"format": "pt", "modelspec.prediction_type": PREDICTION_TYPES[model.schedule.config.prediction_type]}
    with atomic_write(file) as temporary:
        save_file(stored, temporary, metadata)
