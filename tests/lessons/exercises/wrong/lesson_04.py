"""Wrong answers to the exercises of lesson 04 as learners type them, and a piece of what they are told."""

import torch

from sdlearn import Step, draw_noise
from sdlearn.diffusion.samplers import alphas_cumprod_after, denoised


def x_is_not_shrunk(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        now, after = grid.sigmas[i], grid.sigmas[i + 1]
        x0 = schedule.x0_at_sigma(denoise(x, t), x, now)
        x = x0 + after / now * (x - x0)
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def raw_answer_as_slope(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        epsilon = denoise(x, t)
        x0 = x - grid.sigmas[i] * epsilon
        x = x + (grid.sigmas[i + 1] - grid.sigmas[i]) * epsilon
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def an_empty_list(denoise, x, grid, schedule, generator=None, project=None):
    return []


def in_place(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, grid.sigmas[i], schedule)
        x += (grid.sigmas[i + 1] - grid.sigmas[i]) * (x - x0) / grid.sigmas[i]
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def one_tensor_for_all_steps(denoise, x, grid, schedule, generator=None, project=None):
    x = x.clone()
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, grid.sigmas[i], schedule)
        x += (grid.sigmas[i + 1] - grid.sigmas[i]) * (x - x0) / grid.sigmas[i]
        if project:
            x.copy_(project(x, i))
        yield Step(i, t, x, x0)


def looks_twice(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, grid.sigmas[i], schedule)
        slope = (x - denoised(denoise, x, t, grid.sigmas[i], schedule)) / grid.sigmas[i]
        x = x + (grid.sigmas[i + 1] - grid.sigmas[i]) * slope
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def one_step_less(denoise, x, grid, schedule, generator=None, project=None):
    timesteps = grid.timesteps.tolist()
    for i in range(len(timesteps) - 1):
        x0 = denoised(denoise, x, timesteps[i], grid.sigmas[i], schedule)
        x = x + (grid.sigmas[i + 1] - grid.sigmas[i]) * (x - x0) / grid.sigmas[i]
        x = project(x, i) if project else x
        yield Step(i, timesteps[i], x, x0)


def for_ever(denoise, x, grid, schedule, generator=None, project=None):
    i = 0
    while i < len(grid):
        x0 = denoised(denoise, x, grid.timesteps[i].item(), grid.sigmas[i], schedule)
        x = x + (grid.sigmas[i + 1] - grid.sigmas[i]) * (x - x0) / grid.sigmas[i]
        x = project(x, i) if project else x
        yield Step(i, grid.timesteps[i].item(), x, x0)


def without_yield(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, grid.sigmas[i], schedule)
        x = x + (grid.sigmas[i + 1] - grid.sigmas[i]) * (x - x0) / grid.sigmas[i]
        x = project(x, i) if project else x
    return x


def returns_in_the_loop(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, grid.sigmas[i], schedule)
        x = x0 + grid.sigmas[i + 1] / grid.sigmas[i] * (x - x0)
        return Step(i, t, x, x0)


def yields_only_x(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, grid.sigmas[i], schedule)
        x = x0 + grid.sigmas[i + 1] / grid.sigmas[i] * (x - x0)
        x = project(x, i) if project else x
        yield x


def ddim_with_its_own_noise(denoise, x, grid, schedule, generator=None, project=None, eta=0.0):
    for i, t in enumerate(grid.timesteps.tolist()):
        prediction = denoise(x, t)
        x0, epsilon = schedule.to_x0(prediction, x, t), schedule.to_epsilon(prediction, x, t)
        now, ahead = schedule.alphas_cumprod[t], alphas_cumprod_after(schedule, t - grid.stride)
        sigma = eta * ((1 - ahead) / (1 - now) * (1 - now / ahead)).sqrt()
        x = ahead.sqrt() * x0 + (1 - ahead - sigma**2).clamp(min=0).sqrt() * epsilon + sigma * torch.randn_like(x)
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def ddim_looks_twice(denoise, x, grid, schedule, generator=None, project=None, eta=0.0):
    for i, t in enumerate(grid.timesteps.tolist()):
        x0, epsilon = schedule.to_x0(denoise(x, t), x, t), schedule.to_epsilon(denoise(x, t), x, t)
        now, ahead = schedule.alphas_cumprod[t], alphas_cumprod_after(schedule, t - grid.stride)
        sigma = eta * ((1 - ahead) / (1 - now) * (1 - now / ahead)).sqrt()
        x = ahead.sqrt() * x0 + (1 - ahead - sigma**2).clamp(min=0).sqrt() * epsilon
        x = x + sigma * draw_noise(x.shape, generator) if eta > 0 else x
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def ddim_to_the_next_timestep(denoise, x, grid, schedule, generator=None, project=None, eta=0.0):
    timesteps = [*grid.timesteps.tolist(), -1]
    for i, t in enumerate(timesteps[:-1]):
        prediction = denoise(x, t)
        x0, epsilon = schedule.to_x0(prediction, x, t), schedule.to_epsilon(prediction, x, t)
        now, ahead = schedule.alphas_cumprod[t], alphas_cumprod_after(schedule, timesteps[i + 1])
        sigma = eta * ((1 - ahead) / (1 - now) * (1 - now / ahead)).sqrt()
        x = ahead.sqrt() * x0 + (1 - ahead - sigma**2).clamp(min=0).sqrt() * epsilon
        x = x + sigma * draw_noise(x.shape, generator) if eta > 0 else x
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def ddim_without_roots(denoise, x, grid, schedule, generator=None, project=None, eta=0.0):
    for i, t in enumerate(grid.timesteps.tolist()):
        prediction = denoise(x, t)
        x0, epsilon = schedule.to_x0(prediction, x, t), schedule.to_epsilon(prediction, x, t)
        now, ahead = schedule.alphas_cumprod[t], alphas_cumprod_after(schedule, t - grid.stride)
        variance = eta**2 * (1 - ahead) / (1 - now) * (1 - now / ahead)
        x = ahead.sqrt() * x0 + (1 - ahead - variance).clamp(min=0).sqrt() * epsilon
        x = x + variance * draw_noise(x.shape, generator) if eta > 0 else x
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def heun_once_per_step(denoise, x, grid, schedule, generator=None, project=None):
    t, sigmas = grid.timesteps.tolist(), grid.sigmas
    for i in range(0, len(grid), 2):
        start, h = x, sigmas[i + 1] - sigmas[i]
        x0 = denoised(denoise, x, t[i], sigmas[i], schedule)
        slope = (x - x0) / sigmas[i]
        x = start + h * slope
        x = project(x, i) if project else x
        if i + 1 < len(grid):
            x0 = denoised(denoise, x, t[i + 1], sigmas[i + 1], schedule)
            x = start + h * (slope + (x - x0) / sigmas[i + 1]) / 2
            i += 1
            x = project(x, i) if project else x
        yield Step(i, t[i], x, x0)


def heun_from_where_euler_ended(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, grid.sigmas[i], schedule)
        slope = (x - x0) / grid.sigmas[i]
        if i % 2 == 0:
            first, h = slope, grid.sigmas[i + 1] - grid.sigmas[i]
            x = x + h * slope
        else:
            x = x + h * (first + slope) / 2
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def turned_round(n):
    s = torch.arange(1 - n, 1, dtype=torch.float64)
    k = torch.arange(n, dtype=torch.float64)
    return torch.linalg.solve(s ** k.view(-1, 1), 1 / (k + 1))


def rows_for_values(n):
    k = torch.arange(n, dtype=torch.float64)
    return torch.linalg.solve((-k[:, None]) ** k, 1 / (k + 1))


def the_table_of_n_4(n):
    return torch.tensor([55, -59, 37, -9], dtype=torch.float64)[:n] / 24


def never_asks_for_project(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, grid.sigmas[i], schedule)
        x = project(x0 + grid.sigmas[i + 1] / grid.sigmas[i] * (x - x0), i)
        yield Step(i, t, x, x0)


WRONG = {
    "04.euler": [
        ("must be shrunk to VP", x_is_not_shrunk),
        ("the raw answer is used as the slope", raw_answer_as_slope),
        ("it returns an empty list; each step must be handed out by", an_empty_list),
        ("in place", in_place),
        ("changes a tensor that was yielded before", one_tensor_for_all_steps),
        ("calls the network", looks_twice),
        ("the last step is missing", one_step_less),
        ("'NoneType' object is not callable", never_asks_for_project),
        ("it yields more than 4 steps", for_ever),
        ("yield Step(i, t, x, x0)", without_yield),
        ("yield Step(i, t, x, x0)", returns_in_the_loop),
        ("yield Step(i, t, x, x0)", yields_only_x),
    ],
    "04.ddim": [
        ("generator", ddim_with_its_own_noise),
        ("calls the network", ddim_looks_twice),
        ("the step ends at the list's next timestep", ddim_to_the_next_timestep),
        ("z is multiplied by σ_η², a variance", ddim_without_roots),
    ],
    "04.heun": [
        ("it yields once for each step", heun_once_per_step),
        ("the second time the step starts where the first one ended", heun_from_where_euler_ended),
    ],
    "04.adams_bashforth": [
        ("the order is turned round", turned_round),
        ("rows and columns are swapped", rows_for_values),
        ("case 1: n = 1", the_table_of_n_4),
    ],
}
