"""A small network for points: what the UNet is for latents."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdlearn.models.unet import TimestepEmbedding, timestep_embedding

FREQUENCIES = (1.0, 2.0, 4.0, 8.0)  # radians per unit of the plane: the network sees positions at coarse and fine scale


def with_waves(x: Tensor) -> Tensor:
    """Points, and the cosines and sines of their coordinates at all FREQUENCIES. (B, D) -> (B, 9D)."""
    waves = torch.cat([x * frequency for frequency in FREQUENCIES], dim=1)
    return torch.cat([x, waves.cos(), waves.sin()], dim=1)


class DenoisingMLP(nn.Module):
    """Residual layers with a time embedding, like the UNet's blocks. For points (B, D); trains in seconds."""

    def __init__(self, dimensions: int = 2, width: int = 128, layers: int = 3) -> None:
        super().__init__()
        self.time_embedding = TimestepEmbedding(width, width)
        self.first = nn.Linear(dimensions * (1 + 2 * len(FREQUENCIES)), width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.last = nn.Linear(width, dimensions)
        nn.init.zeros_(self.last.weight)  # the first prediction is 0: the mean of every target
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, t: int | Tensor, told: Tensor | float = 0.0) -> Tensor:
        """x (B, D), t an int or a LongTensor (B,) -> prediction (B, D). told: (B, width) is added to the time."""
        t = torch.as_tensor(t, device=x.device).expand(len(x))
        time = self.time_embedding(timestep_embedding(t, self.first.out_features))  # (B, width)
        h = self.first(with_waves(x))  # (B, D) -> (B, 9D) -> (B, width)
        for layer in self.layers:
            h = h + layer(F.silu(h + time + told))
        return self.last(F.silu(h))
