"""A variational autoencoder that trains in seconds: a scene of 32×32 pixels, and a few numbers for all of it.

Stable Diffusion's autoencoder keeps a map of latents, and each of them knows its neighbourhood only. Here a picture
becomes one short vector, as in "Auto-Encoding Variational Bayes" (arXiv 1312.6114).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sdlearn.data import Scenes
from sdlearn.models.autoencoder import Gaussian
from sdlearn.pictures import to_unit

SIDE = 32  # pixels
SUBJECTS = ("penguin", "red apple", "sun", "tropical fish", "house", "tree", "car", "pumpkin")


class SmallAutoencoder(nn.Module):
    """Three layers down to the Gaussian of a vector of some numbers, three up again. Shapes as in `Autoencoder`.

    gaussian: the class of what `encode` returns.
    """

    def __init__(self, numbers: int, width: int = 512, gaussian: type[Gaussian] = Gaussian) -> None:
        super().__init__()
        self.gaussian, pixels = gaussian, (3, SIDE, SIDE)
        self.encoder = nn.Sequential(
            nn.Flatten(),  # (B, 3, 32, 32) -> (B, 3072)
            nn.Linear(math.prod(pixels), width),
            nn.SiLU(),
            nn.Linear(width, width // 2),
            nn.SiLU(),
            nn.Linear(width // 2, 2 * numbers),  # a mean and a log-variance for each number
            nn.Unflatten(1, (2 * numbers, 1, 1)),
        )
        self.decoder = nn.Sequential(
            nn.Flatten(),  # (B, numbers, 1, 1) -> (B, numbers)
            nn.Linear(numbers, width // 2),
            nn.SiLU(),
            nn.Linear(width // 2, width),
            nn.SiLU(),
            nn.Linear(width, math.prod(pixels)),
            nn.Unflatten(1, pixels),
        )

    def encode(self, image: Tensor) -> Gaussian:
        """(B, 3, 32, 32) in [−1, 1] -> Gaussian of (B, numbers, 1, 1)."""
        mean, logvar = self.encoder(image).chunk(2, dim=1)
        return self.gaussian(mean, logvar.clamp(-30, 20))

    def decode(self, latents: Tensor) -> Tensor:
        """(B, numbers, 1, 1) -> (B, 3, 32, 32), about [−1, 1], not clipped."""
        return self.decoder(latents)


def vae_loss(image: Tensor, again: Tensor, gaussian: Gaussian, kl_weight: float) -> Tensor:
    """Squared error plus kl_weight · KL, both sums over a picture's numbers; then the mean over B.

    image, again: (B, 3, H, W), the original and the reconstruction. gaussian.kl() is (B,).
    """
    error = (again - image).square().sum(dim=(1, 2, 3))  # (B, 3, H, W) -> (B,)
    return (error + kl_weight * gaussian.kl()).mean()


def train_scenes(
    network: SmallAutoencoder,
    pictures: Tensor,
    kl_weight: float,
    steps: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
    loss: Callable[..., Tensor] = vae_loss,
) -> list[float]:
    """Changes `network` with Adam, and returns the loss of each step.

    pictures: (N, 3, 32, 32). With a kl_weight of 0 the latents are the means, without noise: a plain autoencoder. The
    learning rate falls to 0 over the second half.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), learning_rate, fused=True)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, 2 - 2 * step / steps))
    losses = []
    for _ in range(steps):
        image = pictures[torch.randint(len(pictures), (batch_size,), generator=generator)]
        gaussian = network.encode(image)
        noise = torch.randn(gaussian.mean.shape, generator=generator)
        latents = gaussian.at(noise) if kl_weight else gaussian.mean
        value = loss(image, network.decode(latents), gaussian, kl_weight)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        decay.step()
        losses.append(value.item())
    return losses


def small_scenes(count: int, split: str = "train", subjects: tuple[str, ...] = SUBJECTS) -> Tensor:
    """The first scenes of a split with few subjects, (count, 3, 32, 32) in [−1, 1]."""
    scenes = Scenes(0, split=split, size=SIDE, subjects=subjects)
    return to_unit(torch.stack([scenes[index].image for index in range(count)]))
