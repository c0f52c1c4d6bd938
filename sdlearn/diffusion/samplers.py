"""Samplers: from noise to a sample, one network call at a time.

A sampler is a generator. It owns no network; it calls `denoise(x, t)`, which returns the raw prediction (epsilon, x_0
or v, according to the schedule's prediction_type) for x (B, ...) at timestep t, an int or a float as in the grid.
After each call it yields a Step, so that the caller can show it, or stop early:

    sampler = get_sampler("ddim")
    grid = sampler.make_grid(schedule, 50)
    x = draw_noise((1, 4, 64, 64), generator) * sampler.initial_scale(schedule, grid)
    for step in sampler.loop(denoise, x, grid, schedule, generator=generator):
        ...

There are two kinds of coordinates for x at the noise level sigma = noise rate / signal rate. DDPM, DDIM, PLMS and
DPM-Solver++ preserve the variance: x = signal rate · x_0 + noise rate · epsilon. Euler, Euler ancestral and Heun let
it grow ("explode"): x = x_0 + sigma · epsilon; the network gets x / sqrt(sigma² + 1), which is the former. Each
sampler starts from, yields, and passes to `project` its own kind. At sigma 0, the end, both are x_0.

`project(x, i)`, if given, returns what x becomes after network call i (counted from 0); its noise level is then that
of call i + 1. Inpainting puts the known pixels back with it. Whether gradients are recorded is the caller's choice.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sdlearn.diffusion.grids import (
    Grid,
    make_grid,
    make_grid_dpmpp,
    make_grid_euler,
    make_grid_heun,
    make_grid_karras,
    make_grid_plms,
)
from sdlearn.diffusion.schedule import Schedule

Denoise = Callable[[Tensor, int | float], Tensor]
Project = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Step:
    """A network call and its result: its index i, its timestep t, x after it, and the predicted x_0."""

    i: int
    t: int | float
    x: Tensor
    x0: Tensor


def draw_noise(shape: tuple[int, ...], generator: torch.Generator | list[torch.Generator] | None) -> Tensor:
    """Standard normal noise, float32, drawn on the CPU, so that a seed gives the same noise on every device.

    With a list of generators, one for each image, an image gets the same noise whatever else is in its batch.
    Raises ValueError without a generator, for one that isn't on the CPU, or a list that doesn't fit the batch.
    """
    if isinstance(generator, list):
        if len(generator) != shape[0]:
            raise ValueError(f"{len(generator)} generators for a batch of {shape[0]}, must be one for each image")
        return torch.cat([draw_noise((1, *shape[1:]), one) for one in generator])  # B times (1, ...) -> (B, ...)
    if not isinstance(generator, torch.Generator) or generator.device.type != "cpu":
        raise ValueError(f"noise is needed, and generator is {generator!r}: pass a CPU torch.Generator")
    return torch.randn(shape, generator=generator)


def ddpm(
    denoise: Denoise,
    x: Tensor,
    grid: Grid,
    schedule: Schedule,
    generator: torch.Generator | list[torch.Generator] | None = None,
    project: Project | None = None,
) -> Iterator[Step]:
    """Ancestral sampling: algorithm 2 of DDPM (Ho et al. 2020), on any grid.

    x: noise (B, ...). The variance is that of DDPM's equation 7. Each step but the last
    adds noise: `draw_noise` draws it from `generator`, and raises ValueError without one.
    """
    timesteps = [*grid.timesteps.tolist(), -1]  # below 0 is the end
    for i, t in enumerate(timesteps[:-1]):
        x0 = schedule.to_x0(denoise(x, t), x, t)
        mean, variance = schedule.posterior(x0, x, t, timesteps[i + 1])
        final = i == len(grid) - 1
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

    x: noise (B, ...). eta: 0 is deterministic, 1 has the variance of DDPM (equation 16).
    Raises ValueError when eta is not from 0 to 1, or above 0 without a generator: for the
    latter, `draw_noise` does.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta}, must be from 0 to 1")
    for i, t in enumerate(grid.timesteps.tolist()):
        prediction = denoise(x, t)
        x0, epsilon = schedule.to_x0(prediction, x, t), schedule.to_epsilon(prediction, x, t)

        alphas_cumprod, previous = schedule.alphas_cumprod[t], alphas_cumprod_after(schedule, t - grid.stride)
        sigma = eta * ((1 - previous) / (1 - alphas_cumprod) * (1 - alphas_cumprod / previous)).sqrt()

        # Back to x_0, then out again along the same noise; rounding must not take the root below 0.
        x = previous.sqrt() * x0 + (1 - previous - sigma**2).clamp(min=0).sqrt() * epsilon
        if eta > 0:
            x = x + sigma * draw_noise(x.shape, generator).to(x)
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def alphas_cumprod_after(schedule: Schedule, t: int) -> Tensor:
    """alphas_cumprod where a step of DDIM or PLMS ends; the last one ends below t = 0."""
    if t >= 0:
        return schedule.alphas_cumprod[t]
    return torch.tensor(1.0) if schedule.config.set_alpha_to_one else schedule.alphas_cumprod[0]


def adams_bashforth(n: int) -> Tensor:
    """What the last n values of a function weigh in its mean over the next step.

    Latest first, float64, (n,). The values lie at s = 0, -1, ..., -(n - 1), the step goes
    from 0 to 1. The weights are those that are exact for the powers s^0, s^1, ...,
    s^(n - 1), hence for the polynomial through the values (Adams and Bashforth 1883).
    """
    power = torch.arange(n, dtype=torch.float64)
    values = (-power) ** power[:, None]  # (power, value): s^power at each s
    means = 1 / (power + 1)  # the integral of s^power from 0 to 1
    return torch.linalg.solve(values, means)


def plms(
    denoise: Denoise,
    x: Tensor,
    grid: Grid,
    schedule: Schedule,
    generator: torch.Generator | list[torch.Generator] | None = None,
    project: Project | None = None,
) -> Iterator[Step]:
    """PLMS, the linear multistep method of PNDM (Liu et al. 2022, arXiv 2202.09778), equation 12, without Runge-Kutta.

    A DDIM step (their transfer part) with a weighted mean of the last four raw predictions instead of the last one. The
    first step has no history, so it is made twice: the second time from the same start, with the mean of the
    predictions at its two ends. With epsilon the method is second order, but only asymptotically: from 10 to 100 steps
    the measured order is 1.3 to 1.5. v turns from step to step, so for it such a mean is only first order.
    x: noise (B, ...). Deterministic: `generator` is not used.

    In the tail of a grid, too, call 1 repeats the first step, as in Diffusers. If the tail has no repeated timestep,
    that costs a step: from there on, x is one stride noisier than its timestep.
    """
    first, history = x, []
    for i, t in enumerate(grid.timesteps.tolist()):
        prediction = denoise(x, t)
        if i == 1:
            prediction = (prediction + history[0]) / 2
            x, t_start = first, t + grid.stride
        else:
            history = [prediction, *history[:3]]
            prediction = sum(w * old for w, old in zip(adams_bashforth(len(history)), history, strict=True))
            t_start = t

        x0 = schedule.to_x0(prediction, x, t_start)
        epsilon = schedule.to_epsilon(prediction, x, t_start)
        alphas_cumprod = alphas_cumprod_after(schedule, t_start - grid.stride)
        x = alphas_cumprod.sqrt() * x0 + (1 - alphas_cumprod).sqrt() * epsilon
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def denoised(denoise: Denoise, x: Tensor, t: float, sigma: Tensor | float, schedule: Schedule) -> Tensor:
    """The x_0 predicted for x = x_0 + sigma · epsilon: D(x; sigma) in Karras et al. 2022, equation 7."""
    return schedule.x0_at_sigma(denoise(x / (sigma**2 + 1) ** 0.5, t), x, sigma)


def euler(
    denoise: Denoise,
    x: Tensor,
    grid: Grid,
    schedule: Schedule,
    generator: torch.Generator | list[torch.Generator] | None = None,
    project: Project | None = None,
) -> Iterator[Step]:
    """Euler's method for dx / dsigma = epsilon = (x - x_0) / sigma.

    Algorithm 1 of Karras et al. 2022, lines 4 and 5. x: noise (B, ...) times sigma.
    Deterministic: `generator` is not used.
    """
    sigmas = grid.sigmas
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, sigmas[i], schedule)
        slope = (x - x0) / sigmas[i]
        x = x + (sigmas[i + 1] - sigmas[i]) * slope
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def euler_ancestral(
    denoise: Denoise,
    x: Tensor,
    grid: Grid,
    schedule: Schedule,
    generator: torch.Generator | list[torch.Generator] | None = None,
    project: Project | None = None,
) -> Iterator[Step]:
    """Euler's method beyond the next noise level, then fresh noise back up to it: k-diffusion's sample_euler_ancestral.

    The fresh noise has the variance of DDPM (Ho et al. 2020, equation 7). x: noise (B, ...) times sigma. Draws noise
    from `generator` in each step but the last. Raises ValueError without one.
    """
    now, ahead = grid.sigmas[:-1], grid.sigmas[1:]
    up = (ahead**2 * (now**2 - ahead**2) / now**2).sqrt()
    # Exactly, down is ahead² / now. We lose the same digits as Diffusers, but stop at 0, where it returns NaN.
    down = (ahead**2 - up**2).clamp(min=0).sqrt()
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, now[i], schedule)
        slope = (x - x0) / now[i]
        x = x + (down[i] - now[i]) * slope
        if i < len(grid) - 1:
            x = x + up[i] * draw_noise(x.shape, generator).to(x)
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def heun(
    denoise: Denoise,
    x: Tensor,
    grid: Grid,
    schedule: Schedule,
    generator: torch.Generator | list[torch.Generator] | None = None,
    project: Project | None = None,
) -> Iterator[Step]:
    """Heun's method: algorithm 1 of Karras et al. 2022.

    Each step is first made as Euler's, then again with the mean of the slopes at its two
    ends. The last one, to sigma 0, stays Euler's. x: noise (B, ...) times sigma.
    Deterministic: `generator` is not used.
    """
    timesteps, sigmas = grid.timesteps.tolist(), grid.sigmas
    for i in range(0, len(grid), 2):
        start, h = x, sigmas[i + 1] - sigmas[i]
        x0 = denoised(denoise, x, timesteps[i], sigmas[i], schedule)
        slope = (x - x0) / sigmas[i]
        x = start + h * slope
        x = project(x, i) if project else x
        yield Step(i, timesteps[i], x, x0)

        if i + 1 < len(grid):
            x0 = denoised(denoise, x, timesteps[i + 1], sigmas[i + 1], schedule)
            slope_ahead = (x - x0) / sigmas[i + 1]
            x = start + h * (slope + slope_ahead) / 2
            x = project(x, i + 1) if project else x
            yield Step(i + 1, timesteps[i + 1], x, x0)


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
    first order: the first has no history, the last has h = infinity.
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
            estimate = x0 + (x0 - previous_x0) / (2 * r)  # half a step ahead, from the last two
        x = from_x[i] * x + from_x0[i] * estimate
        previous_x0 = x0
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def unit_scale(schedule: Schedule, grid: Grid) -> float:
    """The standard deviation of the noise that sampling starts from, where x keeps the variance: 1."""
    return 1.0


def sigma_scale(schedule: Schedule, grid: Grid) -> float:
    """The same for x = x_0 + sigma · epsilon: sigma, or with "leading" the root of sigma² + 1, as in Diffusers."""
    sigma = grid.sigmas[0]
    return (sigma**2 + 1).sqrt().item() if grid.spacing == "leading" else sigma.item()


def noise_at_timestep(x0: Tensor, noise: Tensor, schedule: Schedule, grid: Grid, i: int) -> Tensor:
    """signal rate · x_0 + noise rate · noise, with the rates of grid.timesteps[i]."""
    return x0 if i == len(grid) else schedule.add_noise(x0, noise, int(grid.timesteps[i]))


def noise_with_rates(x0: Tensor, noise: Tensor, schedule: Schedule, grid: Grid, i: int) -> Tensor:
    """signal rate · x_0 + noise rate · noise, with the rates of grid.sigmas[i]."""
    signal_rate = (grid.sigmas[i] ** 2 + 1).rsqrt()
    return signal_rate * x0 + grid.sigmas[i] * signal_rate * noise


def noise_with_sigma(x0: Tensor, noise: Tensor, schedule: Schedule, grid: Grid, i: int) -> Tensor:
    """x_0 + sigma · noise, with grid.sigmas[i]."""
    return x0 + grid.sigmas[i] * noise


@dataclass(frozen=True)
class Sampler:
    """A sampler and everything that belongs to it.

    make_grid(schedule, steps, spacing=None): the Grid. loop(denoise, x, grid, schedule, generator=None, project=None)
    yields Steps. Text to image starts from x = noise · initial_scale(schedule, grid).

    add_noise(x0, noise, schedule, grid, i): x_0 noised to the level of x before network call i, in the sampler's
    coordinates; x_0 itself when i is len(grid). Image to image starts from it with i = 0 and grid.tail(k), and
    inpainting needs it with i + 1 in `project(x, i)`.
    """

    name: str
    loop: Callable[..., Iterator[Step]]
    make_grid: Callable[..., Grid] = make_grid
    initial_scale: Callable[[Schedule, Grid], float] = unit_scale
    add_noise: Callable[[Tensor, Tensor, Schedule, Grid, int], Tensor] = noise_at_timestep


SAMPLERS = {
    sampler.name: sampler
    for sampler in (
        Sampler("ddpm", ddpm),
        Sampler("ddim", ddim),
        Sampler("plms", plms, make_grid_plms),
        Sampler("euler", euler, make_grid_euler, sigma_scale, noise_with_sigma),
        Sampler("euler_ancestral", euler_ancestral, make_grid_euler, sigma_scale, noise_with_sigma),
        Sampler("heun", heun, make_grid_heun, sigma_scale, noise_with_sigma),
        Sampler("dpmpp_2m", dpmpp_2m, make_grid_dpmpp, add_noise=noise_with_rates),
        Sampler("dpmpp_2m_karras", dpmpp_2m, make_grid_karras, add_noise=noise_with_rates),
    )
}


def get_sampler(name: str) -> Sampler:
    """The sampler of this name. Raises ValueError, with the known names, if there is none."""
    if name not in SAMPLERS:
        raise ValueError(f"sampler {name!r} is unknown; accepted: {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


def last(steps: Iterator[Step]) -> Tensor:
    """Run a sampler to its end and return the final x. Raises ValueError when it makes no step."""
    step = None
    for step in steps:  # noqa: B007
        pass
    if step is None:
        raise ValueError("the sampler made no step")
    return step.x
