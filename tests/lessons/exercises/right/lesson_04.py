"""Right answers to the exercises of lesson 04 that are written in another way than the package's."""

import math

import numpy as np
import torch

from sdlearn.diffusion.samplers import Step, alphas_cumprod_after, denoised, draw_noise


def from_x0(denoise, x, grid, schedule, generator=None, project=None):
    levels = list(grid.sigmas)
    for i, (t, now, ahead) in enumerate(zip(grid.timesteps.tolist(), levels, levels[1:], strict=False)):
        x0 = denoised(denoise, x, t, now, schedule)
        x = x0 + ahead / now * (x - x0)
        if project is not None:
            x = project(x, i)
        yield Step(i, t, x, x0)


def in_numbers(denoise, x, grid, schedule, generator=None, project=None, eta=0.0):
    for i, t in enumerate(grid.timesteps.tolist()):
        now = schedule.alphas_cumprod[t].item()
        ahead = alphas_cumprod_after(schedule, t - grid.stride).item()
        x0 = schedule.to_x0(denoise(x, t), x, t)
        epsilon = (x - math.sqrt(now) * x0) / math.sqrt(1 - now)
        variance = eta**2 * (1 - ahead) * (1 - now / ahead) / (1 - now)
        x = math.sqrt(ahead) * x0 + math.sqrt(max(1 - ahead - variance, 0)) * epsilon
        if eta:
            x = x + math.sqrt(variance) * draw_noise(x.shape, generator)
        x = x if project is None else project(x, i)
        yield Step(i, t, x, x0)


def half_and_half(denoise, x, grid, schedule, generator=None, project=None):
    calls = list(zip(grid.timesteps.tolist(), grid.sigmas, grid.sigmas[1:], strict=False))
    for i, (t, now, ahead) in enumerate(calls):
        x0 = denoised(denoise, x, t, now, schedule)
        if i % 2 == 0:
            start, slope, h = x, (x - x0) / now, ahead - now
            x = x + h * slope
        else:
            x = start + h / 2 * (slope + (x - x0) / now)
        x = x if project is None else project(x, i)
        yield Step(i, t, x, x0)


def by_integrating_lagrange_s_polynomials(n):
    weights = []
    for j in range(n):
        others = [-float(k) for k in range(n) if k != j]
        polynomial = np.polynomial.Polynomial.fromroots(others) if others else np.polynomial.Polynomial([1.0])
        weights.append(polynomial.integ()(1.0) / polynomial(-float(j)))
    return torch.tensor(weights, dtype=torch.float64)


RIGHT = {
    "04.euler": [from_x0],
    "04.ddim": [in_numbers],
    "04.heun": [half_and_half],
    "04.adams_bashforth": [by_integrating_lagrange_s_polynomials],
}
