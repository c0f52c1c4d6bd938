"""Right answers to the exercises of lesson 04 that are written in another way than the package's."""

import math
from fractions import Fraction

import diffusers
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


def euler_in_numpy(denoise, x, grid, schedule, generator=None, project=None):
    sigmas = grid.sigmas.numpy()
    for i in range(len(grid.timesteps)):
        t = grid.timesteps[i].item()
        x0 = denoised(denoise, x, t, grid.sigmas[i], schedule)
        slope = (x.numpy() - x0.numpy()) / sigmas[i]
        x = torch.from_numpy(x.numpy() + (sigmas[i + 1] - sigmas[i]) * slope)
        if project:
            x = project(x, i)
        yield Step(i, t, x, x0)


def euler_in_place_on_a_copy(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, grid.sigmas[i], schedule)
        x = x.clone()
        x += (grid.sigmas[i + 1] - grid.sigmas[i]) * (x - x0) / grid.sigmas[i]
        if project:
            x = project(x, i)
        yield Step(i, t, x, x0)


@torch.no_grad()
def euler_in_float64(denoise, x, grid, schedule, generator=None, project=None):
    i, x = 0, x.double()
    while i < len(grid):
        t, sigma = grid.timesteps[i].item(), grid.sigmas[i].double()
        x0 = denoised(denoise, x, t, sigma, schedule)
        x = torch.lerp(x0, x, grid.sigmas[i + 1].double() / sigma)
        x = x if project is None else project(x, i)
        yield Step(i, t, x, x0)
        i += 1


def euler_with_numbers(denoise, x, grid, schedule, generator=None, project=None):
    sigmas = grid.sigmas.tolist()
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, sigmas[i], schedule)
        x = x - (sigmas[i] - sigmas[i + 1]) * (x - x0) / sigmas[i]
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def euler_by_epsilon(denoise, x, grid, schedule, generator=None, project=None):
    for i, (t, sigma) in enumerate(zip(grid.timesteps.tolist(), grid.sigmas[:-1].tolist(), strict=True)):
        signal_rate = (sigma**2 + 1) ** -0.5
        in_vp = signal_rate * x
        x0 = schedule.x0_at(denoise(in_vp, t), in_vp, signal_rate, sigma * signal_rate)
        epsilon = (in_vp - signal_rate * x0) / (sigma * signal_rate)
        x = x - (sigma - grid.sigmas[i + 1].item()) * epsilon
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def euler_by_diffusers(denoise, x, grid, schedule, generator=None, project=None):
    scheduler = diffusers.EulerDiscreteScheduler.from_config(schedule.config.to_dict())
    scheduler.set_timesteps(len(grid))
    scheduler.timesteps, scheduler.sigmas = grid.timesteps, grid.sigmas
    scheduler.set_begin_index(0)
    for i, t in enumerate(grid.timesteps):
        made = scheduler.step(denoise(scheduler.scale_model_input(x, t), t.item()), t, x)
        x = project(made.prev_sample, i) if project else made.prev_sample
        yield Step(i, t.item(), x, made.pred_original_sample)


def in_numbers(denoise, x, grid, schedule, generator=None, project=None, eta=0.0):
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta}, must be from 0 to 1")
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


def ddim_in_numpy(denoise, x, grid, schedule, generator=None, project=None, eta=0.0):
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta}, must be from 0 to 1")
    for i in range(len(grid)):
        t = grid.timesteps[i].item()
        prediction = denoise(x, t)
        x0, epsilon = (to(prediction, x, t).numpy() for to in (schedule.to_x0, schedule.to_epsilon))
        now, ahead = schedule.alphas_cumprod[t].numpy(), alphas_cumprod_after(schedule, t - grid.stride).numpy()
        sigma = eta * np.sqrt((1 - ahead) / (1 - now) * (1 - now / ahead))
        x = np.sqrt(ahead) * x0 + np.sqrt(np.maximum(1 - ahead - sigma**2, 0)) * epsilon
        if eta > 0:
            x = x + sigma * draw_noise(x.shape, generator).numpy()
        x = torch.from_numpy(np.asarray(x, np.float32))
        x = project(x, i) if project else x
        yield Step(i, t, x, torch.from_numpy(x0))


def ddim_in_place_on_a_copy(denoise, x, grid, schedule, generator=None, project=None, eta=0.0):
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta}, must be from 0 to 1")
    x = x.clone()
    for i, t in enumerate(grid.timesteps.tolist()):
        prediction = denoise(x, t)
        x0, epsilon = schedule.to_x0(prediction, x, t), schedule.to_epsilon(prediction, x, t)
        now, ahead = schedule.alphas_cumprod[t], alphas_cumprod_after(schedule, t - grid.stride)
        variance = eta**2 * (1 - ahead) / (1 - now) * (1 - now / ahead)
        x = x0.clone()
        x *= ahead**0.5
        x += (1 - ahead - variance).clamp(min=0) ** 0.5 * epsilon
        if eta > 0:
            x += variance**0.5 * draw_noise(x.shape, generator)
        x = x if project is None else project(x, i)
        yield Step(i, t, x, x0)


@torch.no_grad()
def ddim_in_float64(denoise, x, grid, schedule, generator=None, project=None, eta=0.0):
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta}, must be from 0 to 1")
    table = torch.cumprod(1 - schedule.betas.double(), 0)
    end = torch.tensor(1.0).double() if schedule.config.set_alpha_to_one else table[0]
    x = x.double()
    for i, t in enumerate(grid.timesteps.tolist()):
        ahead = table[t - grid.stride] if t >= grid.stride else end
        x0 = schedule.to_x0(denoise(x, t), x, t)
        epsilon = (x - table[t].sqrt() * x0) / (1 - table[t]).sqrt()
        sigma = eta * ((1 - ahead) / (1 - table[t]) * (1 - table[t] / ahead)).sqrt()
        x = ahead.sqrt() * x0 + (1 - ahead - sigma**2).clamp(min=0).sqrt() * epsilon
        if eta > 0:
            x = x + sigma * draw_noise(x.shape, generator)
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def checked_at_once(denoise, x, grid, schedule, generator=None, project=None, eta=0.0):
    """A function that isn't a generator itself, so it refuses when it is called, and not at the first step."""
    if not 0 <= eta <= 1 or (eta > 0 and generator is None):
        raise ValueError("eta must be from 0 to 1, and above 0 there must be a generator")
    return in_numbers(denoise, x, grid, schedule, generator, project, eta)


def ddim_by_diffusers(denoise, x, grid, schedule, generator=None, project=None, eta=0.0):
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta}, must be from 0 to 1")
    if eta > 0 and generator is None:
        raise ValueError("a generator is needed")  # Diffusers draws from the global one
    scheduler = diffusers.DDIMScheduler.from_config(schedule.config.to_dict())
    scheduler.set_timesteps(len(schedule.betas) // grid.stride)
    for i, t in enumerate(grid.timesteps.tolist()):
        made = scheduler.step(denoise(x, t), t, x, eta=eta, generator=generator)
        x = project(made.prev_sample, i) if project else made.prev_sample
        yield Step(i, t, x, made.pred_original_sample)


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


def heun_by_steps(denoise, x, grid, schedule, generator=None, project=None):
    t, sigmas = grid.timesteps.tolist(), grid.sigmas.tolist()
    for k in range(grid.steps):
        i, start = 2 * k, x
        x0 = denoised(denoise, start, t[i], grid.sigmas[i], schedule)
        first = (start - x0) / sigmas[i]
        x = x0 + sigmas[i + 1] * first
        x = project(x, i) if project else x
        yield Step(i, t[i], x, x0)
        if k == grid.steps - 1:
            return
        x0 = denoised(denoise, x, t[i + 1], grid.sigmas[i + 1], schedule)
        second = (x - x0) / sigmas[i + 1]
        x = start + (sigmas[i + 1] - sigmas[i]) * 0.5 * (first + second)
        x = project(x, i + 1) if project else x
        yield Step(i + 1, t[i + 1], x, x0)


def heun_with_numbers(denoise, x, grid, schedule, generator=None, project=None):
    sigmas = grid.sigmas.tolist()
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, sigmas[i], schedule)
        slope = (x - x0) / sigmas[i]
        if i % 2 == 0:
            start, first = x, slope
            x = x0 + sigmas[i + 1] * slope
        else:
            x = start - (sigmas[i - 1] - sigmas[i]) * (first + slope) / 2
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def heun_in_numpy(denoise, x, grid, schedule, generator=None, project=None):
    sigmas = grid.sigmas.numpy()
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, grid.sigmas[i], schedule)
        slope = (x.numpy() - x0.numpy()) / sigmas[i]
        if i % 2 == 0:
            start, slopes, h = x.numpy(), [slope], sigmas[i + 1] - sigmas[i]
        else:
            slopes = [*slopes, slope]
        x = torch.from_numpy(start + h * np.mean(slopes, axis=0))
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


@torch.no_grad()
def heun_in_float64(denoise, x, grid, schedule, generator=None, project=None):
    x, sigmas, i = x.double(), grid.sigmas.double(), 0
    while i < len(grid):
        t, sigma = grid.timesteps[i].item(), sigmas[i]
        x0 = denoised(denoise, x, t, sigma, schedule)
        slope = (x - x0) / sigma
        if i % 2 == 0:
            begin, before, length = x, slope, sigmas[i + 1] - sigma
            x = begin + length * before
        else:
            x = begin + length * torch.stack([before, slope]).mean(0)
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)
        i += 1


def by_integrating_lagrange_s_polynomials(n):
    weights = []
    for j in range(n):
        others = [-float(k) for k in range(n) if k != j]
        polynomial = np.polynomial.Polynomial.fromroots(others) if others else np.polynomial.Polynomial([1.0])
        weights.append(polynomial.integ()(1.0) / polynomial(-float(j)))
    return torch.tensor(weights, dtype=torch.float64)


def weights_in_numpy(n):
    powers = np.arange(n)
    return np.linalg.solve(np.vander(-np.arange(n, dtype=float), increasing=True).T, 1 / (powers + 1))


def weights_by_loops(n):
    matrix = torch.zeros(n, n, dtype=torch.float64)
    for k in range(n):
        for j in range(n):
            matrix[k, j] = (-j) ** k
    return torch.linalg.inv(matrix) @ torch.tensor([1 / (k + 1) for k in range(n)], dtype=torch.float64)


def weights_in_fractions(n):
    rows = [[Fraction((-j) ** k) for j in range(n)] + [Fraction(1, k + 1)] for k in range(n)]
    for k in range(n):  # elimination
        pivot = next(row for row in range(k, n) if rows[row][k])
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [value / rows[k][k] for value in rows[k]]
        for row in set(range(n)) - {k}:
            rows[row] = [a - rows[row][k] * b for a, b in zip(rows[row], rows[k], strict=True)]
    return torch.tensor([float(row[n]) for row in rows], dtype=torch.float64)


RIGHT = {
    "04.euler": [
        from_x0,
        euler_in_numpy,
        euler_in_place_on_a_copy,
        euler_in_float64,
        euler_with_numbers,
        euler_by_epsilon,
        euler_by_diffusers,
    ],
    "04.ddim": [
        in_numbers,
        checked_at_once,
        ddim_in_numpy,
        ddim_in_place_on_a_copy,
        ddim_in_float64,
        ddim_by_diffusers,
    ],
    "04.heun": [half_and_half, heun_by_steps, heun_with_numbers, heun_in_numpy, heun_in_float64],
    "04.adams_bashforth": [
        by_integrating_lagrange_s_polynomials,
        weights_in_numpy,
        weights_by_loops,
        weights_in_fractions,
    ],
}
