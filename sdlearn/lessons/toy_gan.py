"""A small GAN for points in the plane, to be compared with a diffusion model of the same size."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdlearn.lessons.mlp import FREQUENCIES, with_waves


class PointMLP(nn.Module):
    """Three hidden layers for points (B, D). With `waves` it sees positions like DenoisingMLP."""

    def __init__(self, outputs: int, dimensions: int = 2, width: int = 128, waves: bool = False) -> None:
        super().__init__()
        self.waves = waves
        inputs = dimensions * (1 + 2 * len(FREQUENCIES)) if waves else dimensions
        self.layers = nn.ModuleList(nn.Linear(n, width) for n in (inputs, width, width))
        self.last = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, D) -> (B, outputs)."""
        x = with_waves(x) if self.waves else x
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
        return self.last(x)


def train_gan(
    generator: nn.Module,
    discriminator: nn.Module,
    draw: Callable[[int, torch.Generator], Tensor],
    steps: int,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> None:
    """Algorithm 1 of Goodfellow et al. 2014 (arXiv 1406.2661), with one step of each network in turn, and Adam.

    generator(z): points (B, D) from standard normal z (B, D). discriminator(x): (B, 1), the log odds that x is data.
    draw(count, rng): data (B, D). Changes both networks. The generator has the non-saturating loss of their section 3:
    it raises log D(G(z)). The learning rate falls to 0 along a cosine.
    """
    rng = torch.Generator().manual_seed(seed)
    optimizers = [
        torch.optim.Adam(network.parameters(), learning_rate, betas=(0.5, 0.999), fused=True)  # DCGAN's betas
        for network in (discriminator, generator)
    ]
    decays = [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) for optimizer in optimizers]
    for _ in range(steps):
        real = draw(batch_size, rng)
        fake = generator(torch.randn(real.shape, generator=rng))

        # -log D(real) - log(1 - D(fake)); softplus(-a) is -log sigmoid(a).
        loss = F.softplus(-discriminator(real)).mean() + F.softplus(discriminator(fake.detach())).mean()
        update(optimizers[0], loss)
        update(optimizers[1], F.softplus(-discriminator(fake)).mean())
        for decay in decays:
            decay.step()


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of the optimizer's network down the slope of the loss."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
