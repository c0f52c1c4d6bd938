"""Wrong answers to the exercises of lesson 04 as learners type them, and a piece of what they are told."""

import torch

from sdlearn import Step


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


def turned_round(n):
    s = torch.arange(1 - n, 1, dtype=torch.float64)
    k = torch.arange(n, dtype=torch.float64)
    return torch.linalg.solve(s ** k.view(-1, 1), 1 / (k + 1))


WRONG = {
    "04.euler": [
        ("must be shrunk to VP", x_is_not_shrunk),
        ("the raw answer is taken for the slope", raw_answer_as_slope),
        ("it returns an empty list; each step must be handed out by", an_empty_list),
    ],
    "04.adams_bashforth": [("the order is turned round", turned_round)],
}
