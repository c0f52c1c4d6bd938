"""Training on points in the plane: it fits on one screen, and takes seconds."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sdlearn.diffusion.schedule import Schedule, simple_loss


def train_points(
    network: nn.Module,
    schedule: Schedule,
    draw: Callable[[int, torch.Generator], Tensor],
    steps: int,
    batch_size: int = 256,
    learning_rate: float = 4e-3,
    seed: int = 0,
) -> list[float]:
    """Algorithm 1 of DDPM (Ho et al. 2020) with Adam. Changes `network`, and returns the loss of each step.

    draw(count, generator): data (B, D). network(x, t): the prediction (B, D) for x (B, D) and t (B,). The learning rate
    falls to 0 along a cosine.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), learning_rate, fused=True)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in range(steps):
        x0 = draw(batch_size, generator)
        t = torch.randint(schedule.config.num_train_timesteps, (batch_size,), generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        loss = simple_loss(network, x0, noise, t, schedule)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        losses.append(loss.item())
    return losses
