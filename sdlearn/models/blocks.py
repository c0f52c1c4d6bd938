"""The convolutional blocks that the UNet and the autoencoder share."""

import torch.nn.functional as F
from torch import Tensor, nn


class ResnetBlock(nn.Module):
    """Two normalised 3×3 convolutions, the time embedding added between them, the input added after them.

    Source: the residual block of DDPM (arXiv 2006.11239, appendix B), taken from Wide ResNet.
    """

    def __init__(
        self, in_channels: int, out_channels: int, time_channels: int | None = None, groups: int = 32, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        if time_channels is not None:
            self.time_emb_proj = nn.Linear(time_channels, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """(B, in, H, W), (B, time_channels) -> (B, out, H, W)."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        if time is not None:
            hidden = hidden + self.time_emb_proj(F.silu(time))[:, :, None, None]  # (B, out) -> (B, out, 1, 1)
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        if hasattr(self, "conv_shortcut"):
            x = self.conv_shortcut(x)
        return x + hidden


class Downsample(nn.Module):
    """Halve the height and width by a convolution of stride 2; the number of channels stays the same.

    The UNet pads one pixel on every side. The autoencoder pads only at the right and the bottom
    (`symmetric=False`).
    """

    def __init__(self, channels: int, symmetric: bool = True) -> None:
        super().__init__()
        self.symmetric = symmetric
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1 if symmetric else 0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H/2, W/2)."""
        return self.conv(x if self.symmetric else F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double the height and width: repeat each pixel, then smooth by a convolution. The channels stay the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def check_shape(network: str, x: Tensor, channels: int, factor: int = 1) -> None:
    """Raises ValueError unless x is (B, channels, H, W) with H and W divisible by the factor."""
    if x.ndim != 4 or x.shape[1] != channels or x.shape[2] % factor or x.shape[3] % factor:
        divisible = f" with H and W divisible by {factor}" if factor > 1 else ""
        raise ValueError(f"{network} takes (B, {channels}, H, W){divisible}, not {tuple(x.shape)}")
