"""Points in the plane: data for which diffusion takes seconds, and whose score is known exactly.

All point sets are pure functions of a CPU generator, are centred on 0, and have a variance of about 1, like latents.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdlearn.diffusion.samplers import Denoise
from sdlearn.diffusion.schedule import Schedule


def two_moons(count: int, generator: torch.Generator, noise: float = 0.08) -> Tensor:
    """Two half circles, one in the other's opening, float32, (N, 2). noise: standard deviation across the line."""
    angle = math.pi * torch.rand(count, generator=generator)
    side = torch.randint(2, (count,), generator=generator) * 2.0 - 1  # 1: the upper moon, -1: the lower one
    moons = torch.stack([side * (angle.cos() - 0.5), side * (angle.sin() - 0.25)], dim=1)
    return 1.4 * moons + noise * torch.randn(count, 2, generator=generator)


def spiral(count: int, generator: torch.Generator, noise: float = 0.05) -> Tensor:
    """A spiral of two turns, float32, (N, 2). noise: standard deviation across the line."""
    line = spiral_line(torch.rand(count, generator=generator))
    return line + noise * torch.randn(count, 2, generator=generator)


def spiral_line(places: Tensor) -> Tensor:
    """The line of `spiral` from its inner end, 0, to its outer one, 1: (N,) -> (N, 2)."""
    turn = places.sqrt()  # the root: points are about equally dense along the line
    angle = 4 * math.pi * turn
    middle = torch.tensor([1 / (2 * math.pi**2), -1 / math.pi])  # the mean of the line before it is moved
    return 1.025 * (2 * turn[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1) - middle)


@dataclass(frozen=True)
class GaussianMixture:
    """A weighted sum of K Gaussians in D dimensions. Its density, its score, and both with noise on top are exact.

    Gaussians are as wide as `stds` along each axis, and not tilted. All methods compute in the dtype of x (N, D).
    """

    means: Tensor  # (K, D)
    stds: Tensor  # (K, D)
    weights: Tensor  # (K,), sum 1

    def __post_init__(self) -> None:
        if self.means.ndim != 2 or self.stds.shape != self.means.shape or self.weights.shape != self.means.shape[:1]:
            raise ValueError(
                f"means {tuple(self.means.shape)}, stds {tuple(self.stds.shape)}, weights {tuple(self.weights.shape)}: "
                "must be (K, D), (K, D), (K,)"
            )
        if not (self.stds > 0).all() or not (self.weights > 0).all() or abs(self.weights.sum().item() - 1) > 1e-5:
            raise ValueError("stds and weights must be positive, and the weights must add up to 1")

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Independent points, float32, (N, D)."""
        k = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, self.means.shape[1], generator=generator)
        return self.means[k].float() + self.stds[k].float() * noise

    def _log_parts(self, x: Tensor) -> Tensor:
        """log(weight · density) of each Gaussian at each point, (N, D) -> (N, K)."""
        means, stds = self.means.to(x), self.stds.to(x)
        z = (x[:, None] - means) / stds  # (N, K, D)
        constant = self.weights.to(x).log() - stds.log().sum(1) - means.shape[1] / 2 * math.log(2 * math.pi)
        return constant - z.square().sum(2) / 2

    def shares(self, x: Tensor) -> Tensor:
        """How probable it is that a point at x came from each of the Gaussians, (N, D) -> (N, K)."""
        return self._log_parts(x).softmax(1)

    def log_density(self, x: Tensor) -> Tensor:
        """(N, D) -> (N,)."""
        return self._log_parts(x).logsumexp(1)

    def score(self, x: Tensor) -> Tensor:
        """The gradient of `log_density`, in closed form, (N, D) -> (N, D)."""
        pull = (self.means.to(x) - x[:, None]) / self.stds.to(x) ** 2  # (N, K, D)
        return (self.shares(x)[:, :, None] * pull).sum(1)

    def noised(self, signal_rate: Tensor | float, noise_rate: Tensor | float) -> "GaussianMixture":
        """The distribution of signal_rate · x_0 + noise_rate · epsilon; a mixture again. The rates are scalars."""
        variances = (signal_rate * self.stds.double()) ** 2 + noise_rate**2
        return GaussianMixture(signal_rate * self.means.double(), variances**0.5, self.weights)

    def x0(self, x: Tensor, signal_rate: Tensor | float, noise_rate: Tensor | float) -> Tensor:
        """The mean of all x_0 that x = signal_rate · x_0 + noise_rate · epsilon can come from, (N, D) -> (N, D).

        It is what a perfect network predicts. Each Gaussian alone gives a linear answer; the shares mix them.
        """
        means, variances = self.means.to(x), self.stds.to(x) ** 2
        noised = self.noised(signal_rate, noise_rate)
        gain = signal_rate * variances / noised.stds.to(x) ** 2  # (K, D)
        each = means + gain * (x[:, None] - signal_rate * means)  # (N, K, D)
        return (noised.shares(x)[:, :, None] * each).sum(1)


def gaussian_grid(side: int = 5, spacing: float = 0.7, std: float = 0.05) -> GaussianMixture:
    """side · side equal Gaussians on a square grid. The 25 of the defaults have a variance of about 1."""
    line = spacing * (torch.arange(side) - (side - 1) / 2)
    means = torch.cartesian_prod(line, line)  # (K, 2)
    return GaussianMixture(means, torch.full_like(means, std), torch.full((len(means),), 1 / len(means)))


def exact_denoiser(mixture: GaussianMixture, schedule: Schedule) -> Denoise:
    """`denoise(x, t)` for the samplers: the prediction of a perfect network for these data, of the schedule's type.

    t may lie between two timesteps; sigma is interpolated there, as Euler's grid does.
    """

    def denoise(x: Tensor, t: int | float) -> Tensor:
        low = min(int(t), len(schedule.sigmas) - 1)
        sigmas = schedule.sigmas[low : low + 2].double()
        sigma = sigmas[0] + (t - low) * (sigmas[-1] - sigmas[0])
        signal_rate, noise_rate = (sigma**2 + 1).rsqrt(), sigma * (sigma**2 + 1).rsqrt()
        x0 = mixture.x0(x, signal_rate, noise_rate)
        if schedule.config.prediction_type == "sample":
            return x0
        epsilon = (x - signal_rate * x0) / noise_rate
        return epsilon if schedule.config.prediction_type == "epsilon" else signal_rate * epsilon - noise_rate * x0

    return denoise


def energy_distance(a: Tensor, b: Tensor) -> Tensor:
    """How far apart two sets of points (N, D) and (M, D) are as distributions: 0 only when they are equal.

    2 · mean |a − b| − mean |a − a'| − mean |b − b'|, over all pairs (Székely & Rizzo 2013). The unit is that of the
    points.
    """
    within = [torch.cdist(x, x).sum() / (len(x) * (len(x) - 1)) for x in (a, b)]  # a point isn't paired with itself
    return 2 * torch.cdist(a, b).mean() - within[0] - within[1]
