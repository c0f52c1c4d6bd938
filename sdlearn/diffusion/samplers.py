"""Samplers: from noise to a sample, one network call at a time.

A sampler is a generator. It owns no network; it calls `denoise(x, t)`, which returns the raw prediction (epsilon, x_0
or v, as the schedule's prediction_type says) for x (B, ...) at the timestep t, a Python int. After each call it yields
a Step, so that the caller can draw it, or stop early:

    sampler = get_sampler("ddim")
    grid = sampler.make_grid(schedule, 50)
    x = draw_noise((1, 4, 64, 64), generator) * sampler.initial_scale(schedule, grid)
    for step in sampler.loop(denoise, x, grid, schedule, generator=generator):
        ...

`project(x, i)`, if given, returns what x becomes after step i (counted from 0); inpainting puts the known pixels back
with it. Whether gradients are recorded is the caller's choice.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdlearn.diffusion.schedule import SPACINGS, Schedule

Denoise = Callable[[Tensor, int], Tensor]
Project = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Grid:
    """The timesteps of one run, in the order in which they are visited.

    timesteps: int64, (n,), strictly decreasing. sigmas: noise rate / signal rate at each of them, then 0; float32,
    (n + 1,). stride: how far DDIM goes back from one timestep to the next, num_train_timesteps // steps.
    """

    timesteps: Tensor
    sigmas: Tensor
    stride: int

    def __len__(self) -> int:
        return len(self.timesteps)

    def tail(self, k: int) -> "Grid":
        """The last k timesteps with the same stride, 1 <= k <= len(grid): image to image starts here."""
        if not 1 <= k <= len(self):
            raise ValueError(f"k = {k}, must be from 1 to {len(self)}, the number of timesteps in the grid")
        return Grid(self.timesteps[-k:], self.sigmas[-k - 1 :], self.stride)


@dataclass(frozen=True)
class Step:
    """One step of a sampler: its index i, the timestep t of the network call, x after the step, the predicted x_0."""

    i: int
    t: int
    x: Tensor
    x0: Tensor


def make_grid(schedule: Schedule, steps: int, spacing: str | None = None) -> Grid:
    """The grid of DDPM and DDIM: `steps` timesteps, spaced as Diffusers does (Lin et al. 2023, table 2).

    spacing: "leading", "trailing" or "linspace"; None takes the schedule's timestep_spacing.
    Raises ValueError when steps is not from 1 to num_train_timesteps, or the spacing is unknown.
    """
    n, spacing = _check_grid(schedule, steps, spacing)
    if spacing == "leading":
        timesteps = _leading(np.arange(steps) * (n // steps), schedule)
    elif spacing == "trailing":
        timesteps = _trailing(n, steps)
    else:
        timesteps = np.linspace(0, n - 1, steps).round()
    return _grid(schedule, np.sort(timesteps)[::-1], n // steps)


def make_grid_dpmpp(schedule: Schedule, steps: int, spacing: str | None = None) -> Grid:
    """The grid of DPM-Solver++: `make_grid`, but "leading" and "linspace" make a timestep more and drop the lowest."""
    n, spacing = _check_grid(schedule, steps, spacing)
    if spacing == "leading":
        timesteps = _leading(np.arange(1, steps + 1) * max(n // (steps + 1), 1), schedule)
    elif spacing == "trailing":
        timesteps = _trailing(n, steps)
    else:
        # With n steps there are only n timesteps, so none is dropped.
        timesteps = np.linspace(0, n - 1, min(steps + 1, n)).round()[-steps:]
    return _grid(schedule, np.sort(timesteps)[::-1], n // steps)


def _check_grid(schedule: Schedule, steps: int, spacing: str | None) -> tuple[int, str]:
    n = schedule.config.num_train_timesteps
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= n:
        raise ValueError(f"steps = {steps!r}, must be a whole number from 1 to {n}")
    spacing = schedule.config.timestep_spacing if spacing is None else spacing
    if spacing not in SPACINGS:
        raise ValueError(f"spacing = {spacing!r} is not known, only {', '.join(SPACINGS)}")
    return n, spacing


def _leading(timesteps: np.ndarray, schedule: Schedule) -> np.ndarray:
    """Add steps_offset, or less where that would pass the last timestep (with n or n - 1 steps; Diffusers fails)."""
    room = schedule.config.num_train_timesteps - 1 - timesteps.max()
    return timesteps + min(schedule.config.steps_offset, room)


def _trailing(n: int, steps: int) -> np.ndarray:
    """From n - 1 downwards. Rounding can make arange one too long; the slice drops what Diffusers would call t = -1."""
    return np.arange(n, 0, -n / steps)[:steps].round() - 1


def _grid(schedule: Schedule, timesteps: np.ndarray, stride: int) -> Grid:
    timesteps = torch.from_numpy(timesteps.astype(np.int64))
    return Grid(timesteps, torch.cat([schedule.sigmas[timesteps], torch.zeros(1)]), stride)


def draw_noise(shape: tuple[int, ...], generator: torch.Generator | list[torch.Generator] | None) -> Tensor:
    """Standard normal noise, float32, drawn on the CPU, so that a seed means the same on every device.

    With a list of generators, one for each image, an image gets the same noise whatever else is in its batch.
    Raises ValueError when there is no generator, one that is not on the CPU, or a list that doesn't fit the batch.
    """
    if isinstance(generator, list):
        if len(generator) != shape[0]:
            raise ValueError(f"{len(generator)} generators for a batch of {shape[0]}, must be one for each image")
        return torch.cat([draw_noise((1, *shape[1:]), one) for one in generator])  # B times (1, ...) -> (B, ...)
    if generator is None or generator.device.type != "cpu":
        raise ValueError("noise is needed, and generator is missing or not on the CPU: pass a CPU torch.Generator")
    return torch.randn(shape, generator=generator)


def ddpm(
    denoise: Denoise,
    x: Tensor,
    grid: Grid,
    schedule: Schedule,
    generator: torch.Generator | list[torch.Generator] | None = None,
    project: Project | None = None,
) -> Iterator[Step]:
    """Ancestral sampling: algorithm 2 of DDPM (Ho et al. 2020), on any grid. The variance is that of equation 7.

    x: noise (B, ...). Draws noise from `generator` in each step but the last. Raises ValueError without one.
    """
    timesteps = grid.timesteps.tolist()
    for i, t in enumerate(timesteps):
        x0 = schedule.to_x0(denoise(x, t), x, t)

        # q(x_previous given x_t, x_0), equations 6 and 7. The grid may skip timesteps, so alpha and beta span the gap.
        final = i == len(timesteps) - 1
        alphas_cumprod = schedule.alphas_cumprod[t]
        alphas_cumprod_previous = torch.tensor(1.0) if final else schedule.alphas_cumprod[timesteps[i + 1]]
        alpha = alphas_cumprod / alphas_cumprod_previous
        beta = 1 - alpha
        mean = (
            alphas_cumprod_previous.sqrt() * beta / (1 - alphas_cumprod) * x0
            + alpha.sqrt() * (1 - alphas_cumprod_previous) / (1 - alphas_cumprod) * x
        )
        variance = (1 - alphas_cumprod_previous) / (1 - alphas_cumprod) * beta

        x = mean if final else mean + variance.sqrt() * draw_noise(x.shape, generator).to(x)
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def ddim(
    denoise: Denoise,
    x: Tensor,
    grid: Grid,
    schedule: Schedule,
    generator: torch.Generator | list[torch.Generator] | None = None,
    project: Project | None = None,
    eta: float = 0.0,
) -> Iterator[Step]:
    """DDIM (Song et al. 2021), equation 12. There alpha means alphas_cumprod.

    x: noise (B, ...). eta: 0 is deterministic, 1 has the variance of DDPM (equation 16). Raises ValueError when eta is
    not from 0 to 1, or above 0 without a generator.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta}, must be from 0 to 1")
    final = torch.tensor(1.0) if schedule.config.set_alpha_to_one else schedule.alphas_cumprod[0]
    for i, t in enumerate(grid.timesteps.tolist()):
        prediction = denoise(x, t)
        x0 = schedule.to_x0(prediction, x, t)
        epsilon = schedule.to_epsilon(prediction, x, t)

        previous = t - grid.stride
        alphas_cumprod = schedule.alphas_cumprod[t]
        alphas_cumprod_previous = schedule.alphas_cumprod[previous] if previous >= 0 else final
        variance = (1 - alphas_cumprod_previous) / (1 - alphas_cumprod) * (1 - alphas_cumprod / alphas_cumprod_previous)
        sigma = eta * variance.sqrt()

        # Back to x_0, then out again along the same noise; rounding must not take the root below 0.
        direction = (1 - alphas_cumprod_previous - sigma**2).clamp(min=0).sqrt() * epsilon
        x = alphas_cumprod_previous.sqrt() * x0 + direction
        if eta > 0:
            x = x + sigma * draw_noise(x.shape, generator).to(x)
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def dpmpp_2m(
    denoise: Denoise,
    x: Tensor,
    grid: Grid,
    schedule: Schedule,
    generator: torch.Generator | list[torch.Generator] | None = None,
    project: Project | None = None,
) -> Iterator[Step]:
    """DPM-Solver++(2M), algorithm 2 of Lu et al. 2022 (arXiv 2211.01095). lambda is the logarithm of signal / noise.

    x: noise (B, ...). Deterministic: `generator` is not used. The first step and the last one, to noise rate 0, are
    first order: the one has no history, the other has h = infinity.
    """
    sigmas = grid.sigmas.double()
    signal_rates = (sigmas**2 + 1).rsqrt()  # alpha_t and sigma_t in the paper
    noise_rates = sigmas * signal_rates
    lambdas = -sigmas.log()
    h = lambdas.diff()  # h[i] belongs to the step from i to i + 1; the last one is infinite
    from_x = (noise_rates[1:] / noise_rates[:-1]).tolist()
    from_x0 = (-signal_rates[1:] * torch.expm1(-h)).tolist()
    rates = list(zip(signal_rates.tolist(), noise_rates.tolist(), strict=True))

    previous_x0 = None
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = schedule.x0_at(denoise(x, t), x, *rates[i])
        if previous_x0 is None or i == len(grid) - 1:
            estimate = x0
        else:
            r = (h[i - 1] / h[i]).item()
            estimate = x0 + (x0 - previous_x0) / (2 * r)  # x_0 half a step ahead, extrapolated from the last two
        x = from_x[i] * x + from_x0[i] * estimate
        previous_x0 = x0
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def unit_scale(schedule: Schedule, grid: Grid) -> float:
    """The standard deviation of the noise that sampling starts from, for samplers whose x_t has unit variance: 1."""
    return 1.0


@dataclass(frozen=True)
class Sampler:
    """A sampler with what belongs to it: make_grid(schedule, steps, spacing=None), loop, initial_scale(schedule, grid).

    loop(denoise, x, grid, schedule, generator=None, project=None) yields Steps. x starts as noise · initial_scale.
    """

    name: str
    loop: Callable[..., Iterator[Step]]
    make_grid: Callable[..., Grid] = make_grid
    initial_scale: Callable[[Schedule, Grid], float] = unit_scale


SAMPLERS = {
    sampler.name: sampler
    for sampler in (
        Sampler("ddpm", ddpm),
        Sampler("ddim", ddim),
        Sampler("dpmpp_2m", dpmpp_2m, make_grid_dpmpp),
    )
}


def get_sampler(name: str) -> Sampler:
    """The sampler of this name. Raises ValueError, with the known names, when there is none."""
    if name not in SAMPLERS:
        raise ValueError(f"sampler {name!r} is not known, only {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


def last(steps: Iterator[Step]) -> Tensor:
    """Run a sampler to its end and return the final x. Raises ValueError when it makes no step."""
    step = None
    for step in steps:  # noqa: B007
        pass
    if step is None:
        raise ValueError("the sampler made no step")
    return step.x
