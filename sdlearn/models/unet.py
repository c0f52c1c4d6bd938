"""The UNet: predicts the noise (or v) in the latents, given the time and the text.

Source: "High-Resolution Image Synthesis with Latent Diffusion Models" (arXiv 2112.10752), as in Stable
Diffusion 1 and 2, with their inpainting, depth and upscaling models. Parameter names are those of Diffusers'
UNet2DConditionModel.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdlearn.config import Config, check_counts, check_groups
from sdlearn.models.attention import Attention, FeedForward, SpatialTransformer, TransformerBlock
from sdlearn.models.blocks import Downsample, ResnetBlock, Upsample, check_shape


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
        check_counts(self, "sample_size", "in_channels", "out_channels", "layers_per_block", "cross_attention_dim")
        check_counts(self, "attention_head_dim", *(["num_class_embeds"] if self.num_class_embeds is not None else []))
        for key in ("attention_head_dim", "only_cross_attention"):
            value = getattr(self, key)
            if isinstance(value, tuple) and len(value) != levels:
                raise ValueError(f"{key} = {value!r} is not supported; accepted: one value for all levels, or {levels}")
        for key, kinds in (("down_block_types", self.down_block_types), ("up_block_types", self.up_block_types)):
            name = "DownBlock2D" if key.startswith("down") else "UpBlock2D"
            for kind in kinds:
                if kind not in (name, f"CrossAttn{name}"):
                    raise ValueError(f"{key} = {kind!r} is not supported; accepted: {name!r} or 'CrossAttn{name}'")
        check_groups(self)
        for level, width in enumerate(self.block_out_channels):
            if self.attends(level) and width % self.heads(level):
                raise ValueError(f"attention_head_dim = {self.attention_head_dim!r} does not divide {width} channels")

    def attends(self, level: int) -> bool:
        """Whether a level has attention; the middle block always does, and counts as the last level."""
        kinds = self.down_block_types[level], self.up_block_types[-1 - level]
        return level == len(self.block_out_channels) - 1 or any(kind.startswith("CrossAttn") for kind in kinds)

    def heads(self, level: int) -> int:
        """The number of attention heads at a level, 0 being the one with the most pixels."""
        return self.attention_head_dim if isinstance(self.attention_head_dim, int) else self.attention_head_dim[level]

    def lacks_self_attention(self, level: int) -> bool:
        """Whether a level's transformers look only at the text. The middle block's never do."""
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
    """Two linear layers that turn the sinusoids into the time embedding that every ResnetBlock gets."""

    def __init__(self, channels: int, time_channels: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(channels, time_channels)
        self.linear_2 = nn.Linear(time_channels, time_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels) -> (B, time_channels)."""
        return self.linear_2(F.silu(self.linear_1(x)))


class DownBlock(nn.Module):
    """ResnetBlocks, each followed by a transformer if the level attends; then half the size, except at the last."""

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        make_resnet: Callable[[int, int], nn.Module],
        make_transformer: Callable[[], nn.Module] | None,
        downsample: Callable[..., nn.Module] | None,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(make_resnet(channels, out_channels) for channels in in_channels)
        if make_transformer is not None:
            self.attentions = nn.ModuleList(make_transformer() for _ in self.resnets)
        if downsample is not None:
            self.downsamplers = nn.ModuleList([downsample(out_channels)])

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, in, H, W) -> (B, out, H/2, W/2), and every feature map on the way: the skips."""
        skips = []
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, time)
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
        self,
        channels: int,
        make_resnet: Callable[[int, int], nn.Module],
        make_transformer: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([make_resnet(channels, channels), make_resnet(channels, channels)])
        self.attentions = nn.ModuleList([make_transformer()])

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = self.resnets[0](x, time)
        x = self.attentions[0](x, context)
        return self.resnets[1](x, time)


class UpBlock(nn.Module):
    """Like a DownBlock, but every ResnetBlock first gets a skip joined to its input; then twice the size."""

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        make_resnet: Callable[[int, int], nn.Module],
        make_transformer: Callable[[], nn.Module] | None,
        upsample: Callable[..., nn.Module] | None,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(make_resnet(channels, out_channels) for channels in in_channels)
        if make_transformer is not None:
            self.attentions = nn.ModuleList(make_transformer() for _ in self.resnets)
        if upsample is not None:
            self.upsamplers = nn.ModuleList([upsample(out_channels)])

    def forward(self, x: Tensor, skips: list[Tensor], time: Tensor, context: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, 2H, 2W). Takes its skips from the end of the list."""
        for i, resnet in enumerate(self.resnets):
            x = torch.cat([x, skips.pop()], dim=1)  # (B, below + skip, H, W)
            x = resnet(x, time)
            if hasattr(self, "attentions"):
                x = self.attentions[i](x, context)
        if hasattr(self, "upsamplers"):
            x = self.upsamplers[0](x)
        return x


@dataclass(frozen=True)
class UNetParts:
    """What a UNet is assembled from: classes, and one function. A learner's own replaces ours everywhere."""

    resnet_block: Callable[..., nn.Module] = ResnetBlock
    downsample: Callable[..., nn.Module] = Downsample
    upsample: Callable[..., nn.Module] = Upsample
    down_block: Callable[..., nn.Module] = DownBlock
    up_block: Callable[..., nn.Module] = UpBlock
    sinusoids: Callable[[Tensor, int], Tensor] = timestep_embedding
    timestep_embedding: Callable[..., nn.Module] = TimestepEmbedding
    spatial_transformer: Callable[..., nn.Module] = SpatialTransformer
    transformer_block: Callable[..., nn.Module] = TransformerBlock
    attention: Callable[..., nn.Module] = Attention
    feed_forward: Callable[..., nn.Module] = FeedForward

    def transformer(self, config: UNetConfig, level: int, middle: bool = False) -> nn.Module:
        """A transformer as a level needs it, 0 being the one with the most pixels.

        Options at their defaults are not passed on: a learner's class need not support those of other models.
        """
        inner, outer = {}, {}
        if self.attention is not Attention or config.upcast_attention:
            inner["attention"] = partial(self.attention, upcast=True) if config.upcast_attention else self.attention
        if self.feed_forward is not FeedForward:
            inner["feed_forward"] = self.feed_forward
        if config.lacks_self_attention(level) and not middle:
            inner["only_cross_attention"] = True
        if config.use_linear_projection:
            outer["use_linear_projection"] = True
        return self.spatial_transformer(
            config.block_out_channels[level],
            config.heads(level),
            config.cross_attention_dim,
            config.norm_num_groups,
            transformer_block=partial(self.transformer_block, **inner),
            **outer,
        )


class UNet(nn.Module):
    """Stable Diffusion's UNet. Keyword arguments swap what it is assembled from: see `UNetParts`."""

    parts: ClassVar[tuple[str, ...]] = tuple(field.name for field in fields(UNetParts))

    def __init__(self, config: UNetConfig, **parts: Callable[..., Any]) -> None:
        super().__init__()
        part, widths, layers = UNetParts(**parts), config.block_out_channels, config.layers_per_block
        self.config, self.sinusoids = config, part.sinusoids
        time_channels, last = 4 * widths[0], len(widths) - 1

        def make_resnet(in_channels: int, out_channels: int) -> nn.Module:
            return part.resnet_block(in_channels, out_channels, time_channels, config.norm_num_groups, eps=1e-5)

        def transformers(level: int, kind: str) -> Callable[[], nn.Module] | None:
            return partial(part.transformer, config, level) if kind.startswith("CrossAttn") else None

        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = part.timestep_embedding(widths[0], time_channels)
        if config.num_class_embeds is not None:
            self.class_embedding = nn.Embedding(config.num_class_embeds, time_channels)

        self.down_blocks = nn.ModuleList()
        skips = [widths[0]]  # the channels of every skip, in the order of the way down
        for level, (width, kind) in enumerate(zip(widths, config.down_block_types, strict=True)):
            channels = [skips[-1]] + [width] * (layers - 1)  # into each ResnetBlock
            down = part.downsample if level < last else None
            self.down_blocks.append(part.down_block(channels, width, make_resnet, transformers(level, kind), down))
            skips += [width] * (layers if down is None else layers + 1)

        self.mid_block = MiddleBlock(widths[-1], make_resnet, partial(part.transformer, config, last, middle=True))

        self.up_blocks = nn.ModuleList()
        below = widths[-1]  # the channels of what comes from below; joined to a skip's: 640 + 320 = 960
        for level, kind in zip(range(last, -1, -1), config.up_block_types, strict=True):
            channels, width = [below + skips.pop()], widths[level]
            channels += [width + skips.pop() for _ in range(layers)]
            up = part.upsample if level > 0 else None
            self.up_blocks.append(part.up_block(channels, width, make_resnet, transformers(level, kind), up))
            below = width

        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, widths[0], eps=1e-5)
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)

    def embed_time(self, x: Tensor, t: Tensor | float, class_labels: Tensor | None) -> Tensor:
        """The embedding of the time, and of the class if there is one, for the ResnetBlocks. -> (B, time_channels)."""
        t = torch.as_tensor(t, device=x.device).expand(len(x))  # (B,)
        time = self.time_embedding(self.sinusoids(t, self.config.block_out_channels[0]).to(x.dtype))
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
            x: noisy latents, followed by the channels of any other input (a mask, a depth map, a small
                picture); H and W divisible by 2^(levels − 1).
            t: timestep, 0 to 999; one for all, or (B,).
            context: the encoded text (B, T, cross_attention_dim).
            class_labels: (B,) whole numbers below `num_class_embeds`, where that is set: the upscaler's noise level.
            residuals: what a ControlNet adds to each skip, and to the middle block's output.

        Raises:
            ValueError: a shape doesn't fit, or class_labels are missing, not applicable, or out of range.
        """
        check_inputs(self.config, x, context, class_labels)
        time = self.embed_time(x, t, class_labels)  # (B, time_channels)
        x = self.conv_in(x)  # (B, 4, H, W) -> (B, C, H, W)
        skips = [x]
        for block in self.down_blocks:
            x, new = block(x, time, context)
            skips += new
        x = self.mid_block(x, time, context)
        if residuals is not None:
            skips = [skip + residual for skip, residual in zip(skips, residuals[0], strict=True)]
            x = x + residuals[1]
        for block in self.up_blocks:
            x = block(x, skips, time, context)
        return self.conv_out(F.silu(self.conv_norm_out(x)))  # (B, C, H, W) -> (B, 4, H, W)


def check_inputs(config: UNetConfig, x: Tensor, context: Tensor, class_labels: Tensor | None) -> None:
    """Raises ValueError unless a UNet of this configuration accepts them.

    The range of labels is checked only on the CPU: elsewhere every step would wait for the device.
    """
    check_shape("the UNet", x, config.in_channels, 2 ** (len(config.block_out_channels) - 1))
    if context.ndim != 3 or len(context) != len(x) or context.shape[2] != config.cross_attention_dim:
        accepted = f"({len(x)}, T, {config.cross_attention_dim})"
        raise ValueError(f"the UNet takes a context of shape {accepted}, not {tuple(context.shape)}")
    classes = config.num_class_embeds
    if (classes is None) != (class_labels is None):
        raise ValueError(f"class_labels must be given exactly if num_class_embeds is set: {class_labels=}")
    if class_labels is None:
        return
    if class_labels.shape != (len(x),):
        raise ValueError(f"class_labels must have the shape ({len(x)},), not {tuple(class_labels.shape)}")
    if class_labels.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"class_labels are {class_labels.dtype}; accepted: whole numbers, torch.int64 or int32")
    if class_labels.device.type == "cpu" and not all(0 <= label < classes for label in class_labels.tolist()):
        raise ValueError(f"class_labels = {class_labels.tolist()}, must be from 0 to {classes - 1}")
