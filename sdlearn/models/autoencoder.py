"""The autoencoder: pictures to latents and back. Stable Diffusion's first stage.

Sources: "Auto-Encoding Variational Bayes" (arXiv 1312.6114) for the Gaussian and its KL; "High-Resolution Image
Synthesis with Latent Diffusion Models" (arXiv 2112.10752, section 3.1 and appendix G). Parameter names are those of
Diffusers' AutoencoderKL.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdlearn.config import Config, check_counts, check_groups
from sdlearn.models.attention import Attention
from sdlearn.models.blocks import Downsample, ResnetBlock, Upsample, check_shape


@dataclass(frozen=True)
class AutoencoderConfig(Config):
    """The autoencoder's config.json. The defaults are Stable Diffusion 1's; old files lack its `scaling_factor`."""

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: int = 512
    scaling_factor: float = 0.18215
    mid_block_add_attention: bool = True

    class_name: ClassVar[str] = "AutoencoderKL"
    neutral: ClassVar[dict[str, Any]] = {
        "act_fn": ("silu",),
        "use_quant_conv": (True,),
        "use_post_quant_conv": (True,),
        "down_block_types": ...,  # checked in from_dict: their number is that of block_out_channels
        "up_block_types": ...,
        "force_upcast": ...,  # about half precision only
    }

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "out_channels", "layers_per_block", "latent_channels", "sample_size")
        check_groups(self)
        if not self.scaling_factor > 0:
            raise ValueError(f"scaling_factor = {self.scaling_factor!r} is not supported; accepted: numbers above 0")

    @classmethod
    def from_dict(cls, values: dict[str, Any], file: str = "config.json") -> "AutoencoderConfig":
        config = super().from_dict(values, file)
        for key, kind in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
            types = [kind] * len(config.block_out_channels)
            if values.get(key, types) not in (types, tuple(types)):
                raise ValueError(f"{file}: {key} = {values[key]!r} is not supported; accepted: {types}")
        return config

    def to_dict(self) -> dict[str, Any]:
        levels = len(self.block_out_channels)
        types = {"down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels}
        return {**super().to_dict(), **types}

    @property
    def factor(self) -> int:
        """Pixels per latent along each side: 8 in Stable Diffusion, 4 in the bundled model."""
        return 2 ** (len(self.block_out_channels) - 1)


@dataclass(frozen=True)
class Gaussian:
    """A diagonal Gaussian over latents: one mean and one logarithm of the variance per number. Both (B, C, H, W)."""

    mean: Tensor
    logvar: Tensor

    def at(self, noise: Tensor) -> Tensor:
        """mean + std · noise, noise (B, C, H, W): the reparameterisation (arXiv 1312.6114, section 2.4)."""
        return self.mean + (0.5 * self.logvar).exp() * noise

    def sample(self, generator: torch.Generator) -> Tensor:
        """Latents drawn from the Gaussian, (B, C, H, W). `generator` is one on the CPU."""
        return self.at(torch.randn(self.mean.shape, generator=generator).to(self.mean))

    def mode(self) -> Tensor:
        """The most likely latents: the mean."""
        return self.mean

    def kl(self) -> Tensor:
        """KL(N(mean, var) ‖ N(0, 1)) in nats, a sum for each picture, (B,) (arXiv 1312.6114, appendix B)."""
        return 0.5 * (self.mean**2 + self.logvar.exp() - 1 - self.logvar).sum(dim=(1, 2, 3))


class PixelAttention(Attention):
    """Self-attention with one head over all pixels of a feature map, with its own norm, added to its input."""

    def __init__(self, channels: int, groups: int = 32) -> None:
        super().__init__(channels, heads=1, bias=True)
        self.group_norm = nn.GroupNorm(groups, channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        hidden = self.group_norm(x).flatten(2).transpose(1, 2)  # (B, C, H, W) -> (B, H*W, C)
        return x + super().forward(hidden).transpose(1, 2).unflatten(2, x.shape[-2:])


class Level(nn.Module):
    """ResnetBlocks, then perhaps a change of size. One class for both the way down and the way up."""

    def __init__(self, resnets: list[nn.Module], *, down: nn.Module | None = None, up: nn.Module | None = None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        if down is not None:
            self.downsamplers = nn.ModuleList([down])
        if up is not None:
            self.upsamplers = nn.ModuleList([up])

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H', W')."""
        for resnet in self.resnets:
            x = resnet(x)
        if hasattr(self, "downsamplers"):
            x = self.downsamplers[0](x)
        if hasattr(self, "upsamplers"):
            x = self.upsamplers[0](x)
        return x


class Middle(nn.Module):
    """ResnetBlock, attention over all pixels unless it is left out, ResnetBlock."""

    def __init__(
        self, channels: int, make_resnet: Callable[..., nn.Module], make_attention: Callable[..., nn.Module] | None
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([make_resnet(channels, channels), make_resnet(channels, channels)])
        if make_attention is not None:
            self.attentions = nn.ModuleList([make_attention(channels)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = self.resnets[0](x)
        if hasattr(self, "attentions"):
            x = self.attentions[0](x)
        return self.resnets[1](x)


class Encoder(nn.Module):
    """Pictures to the means and log-variances of latents."""

    def __init__(
        self,
        config: AutoencoderConfig,
        make_resnet: Callable[..., nn.Module],
        make_attention: Callable[..., nn.Module] | None,
        downsample: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        widths, layers = config.block_out_channels, config.layers_per_block
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for level, width in enumerate(widths):
            channels = [widths[max(level - 1, 0)]] + [width] * layers
            resnets = [make_resnet(a, b) for a, b in pairwise(channels)]
            down = downsample(width, symmetric=False) if level < len(widths) - 1 else None
            self.down_blocks.append(Level(resnets, down=down))
        self.mid_block = Middle(widths[-1], make_resnet, make_attention)
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2 * latent_channels, H/f, W/f)."""
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        x = self.mid_block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class Decoder(nn.Module):
    """Latents to pictures. Each level has one more ResnetBlock than the encoder's."""

    def __init__(
        self,
        config: AutoencoderConfig,
        make_resnet: Callable[..., nn.Module],
        make_attention: Callable[..., nn.Module] | None,
        upsample: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        widths, layers = config.block_out_channels[::-1], config.layers_per_block
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = Middle(widths[0], make_resnet, make_attention)
        self.up_blocks = nn.ModuleList()
        for level, width in enumerate(widths):
            channels = [widths[max(level - 1, 0)]] + [width] * (layers + 1)
            resnets = [make_resnet(a, b) for a, b in pairwise(channels)]
            self.up_blocks.append(Level(resnets, up=upsample(width) if level < len(widths) - 1 else None))
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, latent_channels, H/f, W/f) -> (B, 3, H, W)."""
        x = self.mid_block(self.conv_in(x))
        for level in self.up_blocks:
            x = level(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class Autoencoder(nn.Module):
    """The KL autoencoder. Pictures in [−1, 1]; latents are *unscaled*: the UNet sees them times `scaling_factor`."""

    parts: ClassVar[tuple[str, ...]] = ("resnet_block", "downsample", "upsample", "pixel_attention")

    def __init__(
        self,
        config: AutoencoderConfig,
        *,
        resnet_block: Callable[..., nn.Module] = ResnetBlock,
        downsample: Callable[..., nn.Module] = Downsample,
        upsample: Callable[..., nn.Module] = Upsample,
        pixel_attention: Callable[..., nn.Module] = PixelAttention,
    ) -> None:
        super().__init__()
        self.config = config
        # Every norm of the autoencoder has eps = 1e-6. The UNet's ResnetBlocks have 1e-5.
        make_resnet = partial(resnet_block, groups=config.norm_num_groups, eps=1e-6)
        make_attention = partial(pixel_attention, groups=config.norm_num_groups)
        attention = make_attention if config.mid_block_add_attention else None
        self.encoder = Encoder(config, make_resnet, attention, downsample)
        self.decoder = Decoder(config, make_resnet, attention, upsample)
        self.quant_conv = nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 1)

    def encode(self, image: Tensor) -> Gaussian:
        """The distribution of a picture's latents. (B, 3, H, W) in [−1, 1] -> Gaussian of (B, C, H/f, W/f), unscaled.

        Raises:
            ValueError: the shape is not (B, 3, H, W) with H and W divisible by the factor f.
        """
        check_shape("the autoencoder", image, self.config.in_channels, self.config.factor)
        mean, logvar = self.quant_conv(self.encoder(image)).chunk(2, dim=1)
        return Gaussian(mean, logvar.clamp(-30, 20))

    def decode(self, latents: Tensor) -> Tensor:
        """Unscaled latents to a picture. (B, C, H/f, W/f) -> (B, 3, H, W), about [−1, 1], not clipped.

        Raises:
            ValueError: the shape is not (B, latent_channels, H, W).
        """
        check_shape("the decoder", latents, self.config.latent_channels)
        return self.decoder(self.post_quant_conv(latents))
