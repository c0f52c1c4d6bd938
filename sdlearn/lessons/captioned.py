"""Points with captions: the smallest data on which guidance can be trained and seen."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sdlearn.diffusion.guidance import drop_captions
from sdlearn.diffusion.schedule import Schedule
from sdlearn.lessons.mlp import DenoisingMLP
from sdlearn.lessons.toy import two_moons

WIDTH = 8  # numbers in what stands for a caption


def encode_captions(captions: list[str]) -> Tensor:
    """What stands for the text encoder: each caption has a vector of its own, random but always the same.

    N texts -> (N, 1, WIDTH).
    """
    vectors = [torch.randn(WIDTH, generator=torch.Generator().manual_seed(sum(text.encode()))) for text in captions]
    return torch.stack(vectors)[:, None]


def captioned_moons(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points (N, 2) of `two_moons`, and their captions' numbers (N,): 1 for the upper moon, 0 for the lower one."""
    points = two_moons(count, generator)
    return points, is_upper(points).long()


def is_upper(points: Tensor) -> Tensor:
    """Which of the two moons each point is nearer to, (N, 2) -> (N,): True for the upper one."""
    angle = torch.linspace(0, torch.pi, 100)
    upper = 1.4 * torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], dim=1)
    return torch.cdist(points, upper).amin(1) < torch.cdist(points, -upper).amin(1)


class CaptionedMLP(DenoisingMLP):
    """`DenoisingMLP` that reads a caption as well. It is called as the UNet is. For points (B, 2)."""

    def __init__(self, width: int = 128, layers: int = 3) -> None:
        super().__init__(2, width, layers)
        self.read = nn.Linear(WIDTH, width)

    def forward(self, x: Tensor, t: int | Tensor, context: Tensor, **_: Any) -> Tensor:
        """x (B, 2), t an int or (B,), context (B, 1, WIDTH) -> prediction (B, 2)."""
        return super().forward(x, t, self.read(context[:, 0]))


def train_captioned(
    network: nn.Module,
    schedule: Schedule,
    share: float,
    steps: int,
    *,
    drop: Callable[..., Tensor] = drop_captions,
    batch_size: int = 256,
    learning_rate: float = 4e-3,
    seed: int = 0,
) -> list[float]:
    """The simple loss with captions, of which `drop` loses the given share. Changes `network`, and returns all losses.

    The learning rate falls to 0 along a cosine.
    """
    generator = torch.Generator().manual_seed(seed)
    contexts, empty = encode_captions(["the lower moon", "the upper moon"]), encode_captions([""])[0]
    optimizer = torch.optim.Adam(network.parameters(), learning_rate, fused=True)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in range(steps):
        x0, caption = captioned_moons(batch_size, generator)
        context = drop(contexts[caption], empty, share, generator)  # (B, 1, WIDTH)
        t = torch.randint(schedule.config.num_train_timesteps, (batch_size,), generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        prediction = network(schedule.add_noise(x0, noise, t), t, context)
        loss = (prediction - schedule.target(x0, noise, t)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        losses.append(loss.item())
    return losses
