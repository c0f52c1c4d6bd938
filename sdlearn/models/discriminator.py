"""The patch discriminator: which patches of a picture are real? It is needed only to train an autoencoder.

Source: "Image-to-Image Translation with Conditional Adversarial Networks" (arXiv 1611.07004, section 3.2.2), there
without our norm. Stable Diffusion's first stage was trained with one (arXiv 2112.10752, appendix G).
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from sdlearn.config import check_counts

SLOPE = 0.2  # of the leaky ReLU below 0


@dataclass(frozen=True)
class DiscriminatorConfig:
    """How wide its first layer is, and how often it halves the picture: once sees patches of 16 × 16, twice of 34."""

    width: int = 32
    halvings: int = 1

    def __post_init__(self) -> None:
        check_counts(self, "width", "halvings")

    @property
    def patch(self) -> int:
        """The side in pixels of the patch that one verdict depends on."""
        side = 1
        for stride in (1, 1, *[2] * self.halvings):  # from the last convolution to the first
            side = (side - 1) * stride + 4
        return side


class PixelNorm(nn.Module):
    """Divide the channels of each pixel by their root mean square.

    A batch norm would mix the pictures of a batch, and a group norm all pixels of a picture: then a verdict would
    depend on more than its patch. Source: arXiv 1710.10196, section 4.2.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class PatchDiscriminator(nn.Module):
    """4 × 4 convolutions: some of stride 2, each doubling the channels, then two of stride 1."""

    def __init__(self, config: DiscriminatorConfig, channels: int = 3) -> None:
        super().__init__()
        widths = [config.width * 2**i for i in range(config.halvings + 1)]
        strides = [*[2] * config.halvings, 1]
        self.convs = nn.ModuleList()
        for width, stride in zip(widths, strides, strict=True):
            self.convs.append(nn.Conv2d(channels, width, 4, stride, padding=1))
            channels = width
        self.norm = PixelNorm()
        self.conv_out = nn.Conv2d(channels, 1, 4, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [−1, 1] -> (B, 1, h, w): a number for each patch, above 0 where it looks real."""
        for i, conv in enumerate(self.convs):
            x = conv(x)
            x = F.leaky_relu(self.norm(x) if i else x, SLOPE)  # the first layer has no norm
        return self.conv_out(x)
