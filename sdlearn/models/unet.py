"""The UNet: predicts the noise (or v) in the latents, told the time and the text.

Source: "High-Resolution Image Synthesis with Latent Diffusion Models" (arXiv 2112.10752), as in Stable
Diffusion 1 and 2, with their inpainting, depth and upscaling models. Parameter names are those of Diffusers'
UNet2DConditionModel.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdlearn.config import Config, check_groups, is_count
from sdlearn.models.attention import repeat_batch, transformer_parts
from sdlearn.models.blocks import Downsample, ResnetBlock, Upsample, silu


def is_bool(value: Any) -> bool:
    return type(value) is bool


@dataclass(frozen=True)
class UNetConfig(Config):
    """The UNet's config.json. The defaults are Stable Diffusion 1.5.

    `attention_head_dim` is, despite its name, the *number* of heads: one for all levels, or one for each.
    `only_cross_attention` too is one for all levels, or one for each; the middle block always has self-attention.
    """

    sample_size: int = 64
    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    layers_per_block: int = 2
    cross_attention_dim: int = 768
    attention_head_dim: int | tuple[int, ...] = 8
    norm_num_groups: int = 32
    use_linear_projection: bool = False
    upcast_attention: bool = False
    only_cross_attention: bool | tuple[bool, ...] = False
    num_class_embeds: int | None = None

    class_name: ClassVar[str] = "UNet2DConditionModel"
    neutral: ClassVar[dict[str, Any]] = {
        "act_fn": ("silu",),
        "flip_sin_to_cos": (True,),
        "freq_shift": (0,),
        "norm_eps": (1e-5,),
        "downsample_padding": (1,),
        "mid_block_scale_factor": (1,),
        "mid_block_type": ("UNetMidBlock2DCrossAttn",),
        "transformer_layers_per_block": (1,),
        "time_embedding_type": ("positional",),
        "resnet_time_scale_shift": ("default",),
        "resnet_out_scale_factor": (1.0,),
        "conv_in_kernel": (3,),
        "conv_out_kernel": (3,),
        "attention_type": ("default",),
        "dropout": (0.0,),
        "addition_embed_type_num_heads": ...,  # used only where addition_embed_type is set, which is refused
    }

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        if not levels == len(self.down_block_types) == len(self.up_block_types):
            raise ValueError("block_out_channels, down_block_types and up_block_types must have the same length")
        counts = ("sample_size", "in_channels", "out_channels", "layers_per_block", "cross_attention_dim")
        for key in (*counts, "norm_num_groups", "num_class_embeds"):
            value = getattr(self, key)
            if not is_count(value) and not (key == "num_class_embeds" and value is None):
                raise ValueError(f"{key} = {value!r} is not supported, only one whole number above 0")
        for key in ("use_linear_projection", "upcast_attention"):
            if not is_bool(getattr(self, key)):
                raise ValueError(f"{key} = {getattr(self, key)!r} is not supported, only True or False")
        for key, fits in (("attention_head_dim", is_count), ("only_cross_attention", is_bool)):
            value = getattr(self, key)
            values = value if isinstance(value, tuple) else (value,) * levels
            if len(values) != levels or not all(fits(one) for one in values):
                kind = "whole number above 0" if fits is is_count else "True or False"
                raise ValueError(f"{key} = {value!r} is not supported, only one {kind} for all levels, or {levels}")
        for key, kinds in (("down_block_types", self.down_block_types), ("up_block_types", self.up_block_types)):
            name = "DownBlock2D" if key.startswith("down") else "UpBlock2D"
            for kind in kinds:
                if kind not in (name, f"CrossAttn{name}"):
                    raise ValueError(f"{key} = {kind!r} is not supported, only {name!r} or 'CrossAttn{name}'")
        check_groups(self)
        for level, width in enumerate(self.block_out_channels):
            if self.attends(level) and width % self.heads(level):
                raise ValueError(f"attention_head_dim = {self.attention_head_dim!r} does not divide {width} channels")

    def attends(self, level: int) -> bool:
        """Whether a level has attention; the middle block always has, and counts as the last level."""
        kinds = self.down_block_types[level], self.up_block_types[-1 - level]
        return level == len(self.block_out_channels) - 1 or any(kind.startswith("CrossAttn") for kind in kinds)

    def heads(self, level: int) -> int:
        """The number of attention heads at a level, 0 being the one with the most pixels."""
        return self.attention_head_dim if isinstance(self.attention_head_dim, int) else self.attention_head_dim[level]

    def lacks_self_attention(self, level: int) -> bool:
        """Whether a level's transformers look at the text alone; not true of the middle block."""
        lacks = self.only_cross_attention
        return lacks if isinstance(lacks, bool) else lacks[level]


def timestep_embedding(t: Tensor, channels: int) -> Tensor:
    """Cosines and sines of t at geometrically spaced frequencies, 1 down to 1/10000. (B,) -> (B, channels).

    Source: the position encoding of "Attention Is All You Need" (arXiv 1706.03762, section 3.5), cosines first.
    """
    half = channels // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = t[:, None].float() * frequencies  # (B, channels / 2)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimestepEmbedding(nn.Module):
    """Two linear layers that turn the sinusoids into what every ResnetBlock is told of the time."""

    def __init__(self, channels: int, time_channels: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(channels, time_channels)
        self.linear_2 = nn.Linear(time_channels, time_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels) -> (B, time_channels)."""
        return self.linear_2(F.silu(self.linear_1(x)))


class DownBlock(nn.Module):
    """ResnetBlocks, each followed by a transformer if the level attends; then half the size, save at the last level."""

    def __init__(
        self,
        channels: Sequence[int],
        make_resnet: Callable[..., nn.Module],
        make_attention: Callable[..., nn.Module] | None,
        downsample: Callable[..., nn.Module] | None,
    ) -> None:
        super().__init__()
        out_channels = channels[-1]
        self.resnets = nn.ModuleList(make_resnet(a, b) for a, b in pairwise(channels))
        if make_attention is not None:
            self.attentions = nn.ModuleList(make_attention(out_channels) for _ in self.resnets)
        if downsample is not None:
            self.downsamplers = nn.ModuleList([downsample(out_channels)])

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, in, H, W) -> (B, out, H/2, W/2), and every feature map on the way: the skips."""
        skips = []
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, repeat_batch(time, len(x)))
            if hasattr(self, "attentions"):
                x = self.attentions[i](x, context)
            skips.append(x)
        if hasattr(self, "downsamplers"):
            x = self.downsamplers[0](x)
            skips.append(x)
        return x, skips


class MiddleBlock(nn.Module):
    """ResnetBlock, transformer, ResnetBlock at the lowest resolution."""

    def __init__(
        self, channels: int, make_resnet: Callable[..., nn.Module], make_attention: Callable[..., nn.Module]
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([make_resnet(channels, channels), make_resnet(channels, channels)])
        self.attentions = nn.ModuleList([make_attention(channels)])

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = self.resnets[0](x, repeat_batch(time, len(x)))
        x = self.attentions[0](x, context)
        return self.resnets[1](x, repeat_batch(time, len(x)))


class UpBlock(nn.Module):
    """Like a DownBlock, but every ResnetBlock first gets a skip joined to its input; then twice the size."""

    def __init__(
        self,
        channels: Sequence[int],
        skip_channels: Sequence[int],
        make_resnet: Callable[..., nn.Module],
        make_attention: Callable[..., nn.Module] | None,
        upsample: Callable[..., nn.Module] | None,
    ) -> None:
        super().__init__()
        out_channels = channels[-1]
        ins = [below + skip for below, skip in zip(channels, skip_channels, strict=False)]
        self.resnets = nn.ModuleList(make_resnet(a, out_channels) for a in ins)
        if make_attention is not None:
            self.attentions = nn.ModuleList(make_attention(out_channels) for _ in self.resnets)
        if upsample is not None:
            self.upsamplers = nn.ModuleList([upsample(out_channels)])

    def forward(self, x: Tensor, skips: list[Tensor], time: Tensor, context: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, 2H, 2W). Takes its skips from the end of the list."""
        for i, resnet in enumerate(self.resnets):
            skip = repeat_batch(skips.pop(), len(x))
            joined = torch.cat([x, skip], dim=1)  # (B, below + skip, H, W)
            x = resnet(joined, repeat_batch(time, len(x)))
            if hasattr(self, "attentions"):
                x = self.attentions[i](x, context)
        if hasattr(self, "upsamplers"):
            x = self.upsamplers[0](x)
        return x


class UNet(nn.Module):
    """Stable Diffusion's UNet.

    The classes that it is assembled from are keyword arguments: `resnet_block`, `downsample`, `upsample`,
    `timestep_embedding`, and those of `transformer_parts`. A learner's own class goes into every place of ours.
    """

    def __init__(
        self,
        config: UNetConfig,
        *,
        resnet_block: Callable[..., nn.Module] = ResnetBlock,
        downsample: Callable[..., nn.Module] = Downsample,
        upsample: Callable[..., nn.Module] = Upsample,
        timestep_embedding: Callable[..., nn.Module] = TimestepEmbedding,
        **parts: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        self.config = config
        # Whether a context may be longer than x, see `forward`. A learner's own transformer may not know of it.
        self.takes_several_texts = not {"spatial_transformer", "transformer_block"} & parts.keys()
        widths, groups, layers = config.block_out_channels, config.norm_num_groups, config.layers_per_block
        time_channels = 4 * widths[0]
        last = len(widths) - 1

        def make_resnet(in_channels: int, out_channels: int) -> nn.Module:
            return resnet_block(in_channels, out_channels, time_channels, groups, 1e-5)

        def make_attention(level: int, middle: bool = False) -> Callable[[int], nn.Module]:
            transformer = transformer_parts(
                use_linear_projection=config.use_linear_projection,
                upcast_attention=config.upcast_attention,
                only_cross_attention=config.lacks_self_attention(level) and not middle,
                **parts,
            )
            return lambda channels: transformer(channels, config.heads(level), config.cross_attention_dim, groups)

        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = timestep_embedding(widths[0], time_channels)
        if config.num_class_embeds is not None:
            self.class_embedding = nn.Embedding(config.num_class_embeds, time_channels)

        self.down_blocks = nn.ModuleList()
        skips = [widths[0]]  # the channels of every skip, in the order in which the way down makes them
        for level, width in enumerate(widths):
            attends = config.down_block_types[level].startswith("CrossAttn")
            channels = [skips[-1]] + [width] * layers
            self.down_blocks.append(
                DownBlock(
                    channels,
                    make_resnet,
                    make_attention(level) if attends else None,
                    downsample if level < last else None,
                )
            )
            skips += [width] * (layers + (level < last))

        self.mid_block = MiddleBlock(widths[-1], make_resnet, make_attention(last, middle=True))

        self.up_blocks = nn.ModuleList()
        below = widths[-1]
        for level, kind in zip(reversed(range(len(widths))), config.up_block_types, strict=True):
            width = widths[level]
            channels = [below] + [width] * layers  # what comes from below into each of the layers + 1 ResnetBlocks
            taken = [skips.pop() for _ in range(layers + 1)]
            attends = make_attention(level) if kind.startswith("CrossAttn") else None
            self.up_blocks.append(UpBlock(channels, taken, make_resnet, attends, upsample if level > 0 else None))
            below = width

        self.conv_norm_out = nn.GroupNorm(groups, widths[0], eps=1e-5)
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)

    def check_labels(self, class_labels: Tensor | None, batch: int) -> None:
        """Raises ValueError unless they are (B,) whole numbers below num_class_embeds, or None where that is None.

        How high they are is looked at on the CPU alone: elsewhere every step would wait for the device.
        """
        classes = self.config.num_class_embeds
        if (classes is None) != (class_labels is None):
            raise ValueError(f"class_labels must be given exactly if num_class_embeds is set: {class_labels=}")
        if class_labels is None:
            return
        if class_labels.shape != (batch,):
            raise ValueError(f"class_labels must have the shape ({batch},), not {tuple(class_labels.shape)}")
        if class_labels.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"class_labels are {class_labels.dtype}; accepted are whole numbers, torch.int64 or int32")
        if class_labels.device.type == "cpu" and not all(0 <= label < classes for label in class_labels.tolist()):
            raise ValueError(f"class_labels = {class_labels.tolist()}, must be from 0 to {classes - 1}")

    def embed_time(self, x: Tensor, t: Tensor | float, class_labels: Tensor | None) -> Tensor:
        """What the ResnetBlocks are told of the time, and of the class if there is one. -> (B, time_channels)."""
        t = torch.as_tensor(t, device=x.device).expand(len(x))  # (B,)
        time = self.time_embedding(timestep_embedding(t, self.config.block_out_channels[0]).to(x.dtype))
        self.check_labels(class_labels, len(x))
        return time if class_labels is None else time + self.class_embedding(class_labels)

    def forward(
        self,
        x: Tensor,
        t: Tensor | float,
        context: Tensor,
        *,
        class_labels: Tensor | None = None,
        residuals: tuple[list[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Predict, at time `t`, the noise or v in `x`: (B, in_channels, H, W) -> (B, out_channels, H, W).

        Args:
            x: noisy latents, and behind them the channels of what else is known (a mask, a depth map, a small
                picture); H and W divisible by 2^(levels − 1).
            t: timestep, 0 to 999; one for all, or (B,).
            context: the encoded text (B, T, cross_attention_dim).
            class_labels: (B,) whole numbers below `num_class_embeds`, where that is set: the upscaler's noise level.
            residuals: what a ControlNet adds to each skip, and to the middle block's output.

        With a context of (2B, T, cross_attention_dim) the result is that of x twice, (2B, out_channels, H, W), but what
        comes before the first look at the text is computed once: 5 % of the bundled UNet's work, where guidance asks
        for the same x with and without words. residuals then are of 2B.

        Raises:
            ValueError: a shape does not fit.
        """
        config, factor = self.config, 2 ** (len(self.down_blocks) - 1)
        if x.ndim != 4 or x.shape[1] != config.in_channels or x.shape[2] % factor or x.shape[3] % factor:
            accepted = f"(B, {config.in_channels}, H, W) with H and W divisible by {factor}"
            raise ValueError(f"the UNet takes {accepted}, not {tuple(x.shape)}")
        if context.ndim != 3 or len(context) % max(len(x), 1) or context.shape[2] != config.cross_attention_dim:
            accepted = f"({len(x)}, T, {config.cross_attention_dim})"
            raise ValueError(f"the UNet takes a context of shape {accepted}, not {tuple(context.shape)}")

        time = self.embed_time(x, t, class_labels)
        x = self.conv_in(x)  # (B, 4, H, W) -> (B, C, H, W)
        skips = [x]
        for block in self.down_blocks:
            x, new = block(x, time, context)
            skips += new
        x = self.mid_block(x, time, context)
        if residuals is not None:
            skips = [repeat_batch(skip, len(x)) + residual for skip, residual in zip(skips, residuals[0], strict=True)]
            x = x + residuals[1]
        for block in self.up_blocks:
            x = block(x, skips, time, context)
        return self.conv_out(silu(self.conv_norm_out(x)))  # (B, C, H, W) -> (B, 4, H, W)
