"""The CompVis layout: the names and shapes of weights in the original programs' single files, and those on Civitai.

Such a file holds all networks in one flat list of tensors, without configuration or tokenizer. This is the one map
between our names, which are those of Diffusers, and its names. It works both ways: `CompVis.place` returns where a
weight of ours is stored, for reading and for writing.

The names are those of the modules in CompVis' "latent-diffusion" and Stability AI's "stablediffusion" programs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sdlearn.config import Config
from sdlearn.models.autoencoder import AutoencoderConfig
from sdlearn.models.text import TextConfig
from sdlearn.models.unet import UNetConfig
from sdlearn.tasks.kinds import KINDS, kinds

UNET, EMA, AUTOENCODER = "model.diffusion_model.", "model_ema.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."  # of SD 1, of SD 2

# What else a file usually holds: averages of the weights, the noise schedule, the network that estimates depth.
USUAL = (
    *(EMA, "betas", "alphas_cumprod", "sqrt_", "log_one_minus_alphas_cumprod", "posterior_", "lvlb_weights", "logvar"),
    "depth_model.",
)
# Pieces of CLIP and of the autoencoder's training that drawing doesn't need. Any other name in a network is an error.
IGNORED = (
    *("cond_stage_model.logit_scale", "cond_stage_model.text_projection", f"{CLIP}text_projection"),
    *(f"{CLIP}text_model.embeddings.position_ids", f"{CLIP}embeddings.position_ids"),
    *(f"{OPEN_CLIP}logit_scale", f"{OPEN_CLIP}text_projection", f"{OPEN_CLIP}visual.", f"{OPEN_CLIP}attn_mask"),
    *(f"{AUTOENCODER}loss.", f"{AUTOENCODER}model_ema."),
)
NETWORKS = (UNET, AUTOENCODER, CLIP, OPEN_CLIP)

# Names that identify other kinds of files.
OTHER_FILES = {
    "double_blocks.": "Flux",
    "joint_blocks.": "Stable Diffusion 3",
    "conditioner.embedders.1.": "Stable Diffusion XL",
    "conditioner.embedders.0.model.transformer.resblocks.31.": "Stable Diffusion XL (its refiner)",
    "conditioner.embedders.0.model.": "Stable Diffusion Turbo, or another model in the layout of its program",
    "noise_augmentor.": "Stable unCLIP",
    "control_model.": "a ControlNet",
    "lora_": "a LoRA",
}

# The configurations by the width of the text that the UNet's cross-attention reads.
VERSIONS: dict[int, dict[str, Config]] = {
    768: {"text_encoder": TextConfig(), "vae": AutoencoderConfig(), "unet": UNetConfig()},
    1024: {
        "text_encoder": TextConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=23,
            num_attention_heads=16,
            hidden_act="gelu",
            projection_dim=512,
            pad_token_id=0,
        ),
        "vae": AutoencoderConfig(),
        "unet": UNetConfig(
            cross_attention_dim=1024,
            attention_head_dim=(5, 10, 20, 20),
            use_linear_projection=True,
            upcast_attention=True,  # 2.1 needs it in half precision, 2.0 doesn't mind
        ),
    },
}

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
PIXEL_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out": "proj_out"}
OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
OPEN_CLIP_TOP = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}


@dataclass(frozen=True)
class Place:
    """Where a weight is in a file: the name and shape of the stored tensor, and which third of it, if only a third.

    OpenCLIP keeps the matrices of query, key and value in one: third 0, 1 and 2.
    """

    key: str
    shape: tuple[int, ...]
    third: int | None = None


def unet_key(name: str, config: UNetConfig) -> str:
    """`input_blocks` counts through all levels: conv_in, then for each level its layers and its downsampling."""
    period = config.layers_per_block + 1
    match name.split("."):
        case ["conv_in", kind]:
            return f"input_blocks.0.0.{kind}"
        case ["time_embedding", "linear_1" | "linear_2" as layer, kind]:
            return f"time_embed.{0 if layer == 'linear_1' else 2}.{kind}"
        case ["class_embedding", kind]:
            return f"label_emb.{kind}"
        case ["down_blocks", level, "resnets", i, layer, kind]:
            return f"input_blocks.{1 + int(level) * period + int(i)}.0.{RESNET.get(layer, layer)}.{kind}"
        case ["down_blocks", level, "attentions", i, *rest]:
            return f"input_blocks.{1 + int(level) * period + int(i)}.1.{'.'.join(rest)}"
        case ["down_blocks", level, "downsamplers", _, "conv", kind]:
            return f"input_blocks.{(int(level) + 1) * period}.0.op.{kind}"
        case ["mid_block", "resnets", i, layer, kind]:
            return f"middle_block.{2 * int(i)}.{RESNET.get(layer, layer)}.{kind}"
        case ["mid_block", "attentions", _, *rest]:
            return f"middle_block.1.{'.'.join(rest)}"
        case ["up_blocks", level, "resnets", i, layer, kind]:
            return f"output_blocks.{int(level) * period + int(i)}.0.{RESNET.get(layer, layer)}.{kind}"
        case ["up_blocks", level, "attentions", i, *rest]:
            return f"output_blocks.{int(level) * period + int(i)}.1.{'.'.join(rest)}"
        case ["up_blocks", level, "upsamplers", _, "conv", kind]:  # after the attention, if the level has it
            after = 2 if config.up_block_types[int(level)].startswith("CrossAttn") else 1
            return f"output_blocks.{int(level) * period + period - 1}.{after}.conv.{kind}"
        case ["conv_norm_out", kind]:
            return f"out.0.{kind}"
        case ["conv_out", kind]:
            return f"out.2.{kind}"
    return name


def autoencoder_key(name: str, config: AutoencoderConfig) -> str:
    """The levels of the decoder are counted from the picture, not from the latents."""
    match name.split("."):
        case [half, "down_blocks" | "up_blocks" as way, level, *rest]:
            level = int(level) if way == "down_blocks" else len(config.block_out_channels) - 1 - int(level)
            match rest:
                case ["resnets", i, layer, kind]:
                    rest = ["block", i, layer.replace("conv_shortcut", "nin_shortcut"), kind]
                case ["downsamplers" | "upsamplers" as change, _, *inner]:
                    rest = [change.removesuffix("rs"), *inner]  # downsamplers.0.conv -> downsample.conv
            return f"{half}.{way.removesuffix('_blocks')}.{level}.{'.'.join(rest)}"
        case [half, "mid_block", "resnets", i, layer, kind]:
            return f"{half}.mid.block_{int(i) + 1}.{layer}.{kind}"
        case [half, "mid_block", "attentions", _, layer, *_, kind]:
            return f"{half}.mid.attn_1.{PIXEL_ATTENTION.get(layer, layer)}.{kind}"
        case [half, "conv_norm_out", kind]:
            return f"{half}.norm_out.{kind}"
    return name


def open_clip_key(name: str) -> tuple[str, int | None]:
    """The name in OpenCLIP, and which third of that tensor, unless it is all of it."""
    match name.split("."):
        case ["text_model", "encoder", "layers", i, "self_attn", "q_proj" | "k_proj" | "v_proj" as matrix, kind]:
            return f"transformer.resblocks.{i}.attn.in_proj_{kind}", "qkv".index(matrix[0])
        case ["text_model", "encoder", "layers", i, *layer, kind]:
            layer = ".".join(layer)
            return f"transformer.resblocks.{i}.{OPEN_CLIP_LAYER.get(layer, layer)}.{kind}", None
    return OPEN_CLIP_TOP.get(name, name), None


@dataclass(frozen=True)
class CompVis:
    """The layout of one file: the configurations of its networks, whose text encoder it has, which weights to use."""

    text_encoder: TextConfig
    vae: AutoencoderConfig
    unet: UNetConfig
    open_clip: bool
    ema: bool = False

    def place(self, name: str, shape: tuple[int, ...], stored: Mapping[str, tuple[int, ...]]) -> Place:
        """Where the weight `name` ("unet.conv_in.weight") of this shape is; `stored` are the shapes in the file."""
        network, _, name = name.partition(".")
        if network == "unet":
            key = UNET + unet_key(name, self.unet)
            return Place(EMA + key.removeprefix("model.").replace(".", "") if self.ema else key, shape)
        if network == "vae":
            key = AUTOENCODER + autoencoder_key(name, self.vae)
            convolution = ".mid.attn_1." in key and len(shape) == 2  # CompVis has 1×1 convolutions for linear layers
            return Place(key, (*shape, 1, 1) if convolution and stored.get(key) != shape else shape)
        if self.open_clip:
            key, third = open_clip_key(name)
            return Place(OPEN_CLIP + key, shape if third is None else (3 * shape[0], *shape[1:]), third)
        key = CLIP + name
        short = CLIP + name.removeprefix("text_model.")  # some programs write it like this
        return Place(short if short in stored and key not in stored else key, shape)

    def ignores(self, key: str) -> bool:
        """Whether a tensor that holds none of our weights is allowed.

        OpenCLIP's last layer is: Stable Diffusion 2 uses the output of the layer before it.
        """
        last = f"{OPEN_CLIP}transformer.resblocks.{self.text_encoder.num_hidden_layers}."
        plain = (UNET,) if self.ema else ()
        return not key.startswith(NETWORKS) or key.startswith((*IGNORED, last, *plain))

    def is_unknown(self, key: str) -> bool:
        """Whether a tensor is outside the networks, and not of the usual ones there: other programs' own."""
        return not key.startswith((*NETWORKS, *USUAL, *IGNORED))


def check_kind(keys: Iterable[str], file: Path) -> None:
    """Raises ValueError unless the file has the CompVis layout; names what it holds instead, if known."""
    keys = list(keys)
    for part, kind in OTHER_FILES.items():
        if any(part in key for key in keys):
            raise ValueError(f"{file} holds {kind}, which is not supported; accepted: Stable Diffusion 1 and 2")
    if f"{UNET}input_blocks.0.0.weight" not in keys:
        raise ValueError(
            f"{file} holds no Stable Diffusion in the CompVis layout: it has no {UNET}input_blocks.0.0.weight"
        )
    parts = {"autoencoder": (AUTOENCODER,), "text encoder": (CLIP, OPEN_CLIP)}
    for name, prefixes in parts.items():
        if not any(key.startswith(prefixes) for key in keys):
            raise ValueError(f"{file} is incomplete: it has no {name}, {' or '.join(prefixes)}…")


def identify(stored: Mapping[str, tuple[int, ...]], file: Path) -> dict[str, Config]:
    """The configurations of the networks in a file of Stable Diffusion 1 or 2, recognised by names and shapes.

    Raises:
        ValueError: it holds something else.
    """
    check_kind(stored, file)
    width = next((shape[-1] for key, shape in stored.items() if key.endswith("attn2.to_k.weight")), None)
    channels = stored[f"{UNET}input_blocks.0.0.weight"][1]
    known = {number: KINDS[kind] for number, kind in kinds(AutoencoderConfig().latent_channels).items()}
    if width not in VERSIONS or channels not in known:
        raise ValueError(
            f"{file} has a UNet with {channels} channels and a text {width} wide; known are "
            f"{', '.join(f'{number} ({kind})' for number, kind in known.items())} and {', '.join(map(str, VERSIONS))} "
            "wide. Give the configurations of any other as config=, a folder in the Diffusers layout"
        )
    configs = VERSIONS[width]
    return configs | {"unet": replace(configs["unet"], in_channels=channels)}
