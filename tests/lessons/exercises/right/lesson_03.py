"""Right answers to lesson 03's exercises, written in other ways than the package's."""

import math

import numpy as np
import torch
from torch.distributions import Independent, Normal

from sdlearn import draw_noise


def step_by_addcmul(x, score, step_size, generator):
    mean = torch.add(x, score, alpha=step_size / 2)
    return torch.addcmul(mean, draw_noise(x.shape, generator), torch.tensor(step_size**0.5))


def step_by_normal(x, score, step_size, generator):
    return torch.normal(x + step_size / 2 * score, math.sqrt(step_size), generator=generator)


def step_by_numpy(x, score, step_size, generator):
    z = torch.randn(x.shape, generator=generator).numpy()
    return x.numpy() + step_size / 2 * score.numpy() + np.sqrt(step_size) * z


def step_in_place_on_a_copy(x, score, step_size, generator):
    x = x.clone()
    x += step_size * score / 2
    x += draw_noise(x.shape, generator) * step_size**0.5
    return x


def step_in_a_loop(x, score, step_size, generator):
    noise = draw_noise(x.shape, generator)
    rows = []
    with torch.no_grad():
        for i in range(len(x)):
            rows.append(x[i] + 0.5 * step_size * score[i] + torch.tensor(step_size).sqrt() * noise[i])
    return torch.stack(rows)


def step_in_float64(x, score, step_size, generator):
    noise = draw_noise(x.shape, generator).double()
    return x.double() + step_size / 2 * score.double() + math.sqrt(step_size) * noise


def score_by_tweedie(prediction, x, t, schedule):
    signal_rate, noise_rate = schedule.rates(t, x)
    return (signal_rate * schedule.to_x0(prediction, x, t) - x) / noise_rate**2


def score_in_float64(prediction, x, t, schedule):
    x = x.double()
    _, noise_rate = schedule.rates(t, x)
    return schedule.to_epsilon(prediction.double(), x, t).neg().div(noise_rate)


def score_in_place(prediction, x, t, schedule):
    epsilon = schedule.to_epsilon(prediction, x, t).clone()
    epsilon *= -1
    epsilon /= schedule.rates(t, x)[1]
    return epsilon


def score_by_numpy(prediction, x, t, schedule):
    epsilon = schedule.to_epsilon(prediction, x, t).numpy()
    variance = 1 - schedule.alphas_cumprod.double().numpy()[np.asarray(t)]
    return -epsilon / np.sqrt(variance).reshape(-1, *[1] * (x.ndim - 1))


@torch.no_grad()
def score_by_einsum(prediction, x, t, schedule):
    epsilon = schedule.to_epsilon(prediction, x, t)
    noise_rate = (1 - schedule.alphas_cumprod[torch.as_tensor(t).expand(len(x))]).sqrt()
    return -torch.einsum("b..., b -> b...", epsilon, 1 / noise_rate)


def score_in_a_loop(prediction, x, t, schedule):
    if isinstance(t, int):
        t = [t] * len(x)
    rows = []
    for i in range(len(x)):
        one = slice(i, i + 1)
        _, noise_rate = schedule.rates(int(t[i]), x[one])
        rows.append(-schedule.to_epsilon(prediction[one], x[one], int(t[i])) / noise_rate)
    return torch.cat(rows)


def acceptance_by_distributions(start, end, step_size):
    def log_q(a, b):
        return Independent(Normal(a.x + step_size / 2 * a.score, math.sqrt(step_size)), a.x.ndim - 1).log_prob(b.x)

    there = start.log_density + log_q(start, end)
    back = end.log_density + log_q(end, start)
    return torch.minimum(back - there, torch.zeros_like(there))


def acceptance_by_einsum(start, end, step_size):
    there = (end.x - start.x - step_size / 2 * start.score).reshape(len(start.x), -1)
    back = (start.x - end.x - step_size / 2 * end.score).reshape(len(start.x), -1)
    squares = torch.einsum("bn, bn -> b", there, there) - torch.einsum("bn, bn -> b", back, back)
    return (end.log_density - start.log_density + squares / (2 * step_size)).clip(max=0)


def acceptance_in_a_loop(start, end, step_size):
    answers = []
    for i in range(len(start.x)):
        ratio = end.log_density[i].item() - start.log_density[i].item()
        ratio += ((end.x[i] - start.x[i] - step_size / 2 * start.score[i]) ** 2).sum().item() / (2 * step_size)
        ratio -= ((start.x[i] - end.x[i] - step_size / 2 * end.score[i]) ** 2).sum().item() / (2 * step_size)
        answers.append(min(0.0, ratio))
    return torch.tensor(answers)


def acceptance_by_numpy(start, end, step_size):
    a, b = ([part.numpy().astype(np.float64) for part in place] for place in (start, end))
    axes = tuple(range(1, a[0].ndim))
    there = ((b[0] - a[0] - step_size / 2 * a[2]) ** 2).sum(axes)
    back = ((a[0] - b[0] - step_size / 2 * b[2]) ** 2).sum(axes)
    return np.minimum(0, b[1] - a[1] + (there - back) / (2 * step_size))


def acceptance_multiplied_out(start, end, step_size):
    """(there² − back²) / 2h, as a product: (there − back)(there + back) / 2h."""
    difference = 2 * (end.x - start.x) - step_size / 2 * (start.score - end.score)
    total = -step_size / 2 * (start.score + end.score)
    squares = (difference * total).flatten(1).sum(1) / (2 * step_size)
    return torch.where(squares + end.log_density < start.log_density, squares + end.log_density - start.log_density, 0)


def leapfrog_in_whole_steps(score, x, momentum, step_size, leapfrog_steps):
    for _ in range(leapfrog_steps):
        half = momentum + step_size / 2 * score(x)
        x = x + step_size * half
        momentum = half + step_size / 2 * score(x)
    return x, momentum


def leapfrog_in_place_on_copies(score, x, momentum, step_size, leapfrog_steps):
    x, momentum = x.clone(), momentum.clone()
    momentum += score(x) * step_size / 2
    for i in range(leapfrog_steps):
        x += momentum * step_size
        momentum += score(x) * (step_size if i < leapfrog_steps - 1 else step_size / 2)
    return x, momentum


def leapfrog_in_float64(score, x, momentum, step_size, leapfrog_steps):
    x, momentum = x.double(), momentum.double()
    force = score(x)
    for _ in range(leapfrog_steps):
        half = momentum + step_size / 2 * force
        x = x + step_size * half
        force = score(x)
        momentum = half + step_size / 2 * force
    return x, momentum


def leapfrog_by_numpy(score, x, momentum, step_size, leapfrog_steps):
    def force(x):
        return score(torch.from_numpy(x)).numpy()

    x, momentum = x.numpy(), momentum.numpy()
    momentum = momentum + step_size / 2 * force(x)
    for i in range(1, leapfrog_steps + 1):
        x = x + step_size * momentum
        momentum = momentum + (step_size if i < leapfrog_steps else step_size / 2) * force(x)
    return x, momentum


def leapfrog_by_verlet(score, x, momentum, step_size, leapfrog_steps):
    """Without half steps: the position by Verlet's rule, the momentum by the mean of two forces."""
    with torch.no_grad():
        force = score(x)
        for _ in range(leapfrog_steps):
            x = x + step_size * momentum + step_size**2 / 2 * force
            after = score(x)
            momentum = momentum + step_size * (force + after) / 2
            force = after
    return [x, momentum]


RIGHT = {
    "03.langevin_step": [
        step_by_addcmul,
        step_by_normal,
        step_by_numpy,
        step_in_place_on_a_copy,
        step_in_a_loop,
        step_in_float64,
    ],
    "03.to_score": [
        score_by_tweedie,
        score_in_float64,
        score_in_place,
        score_by_numpy,
        score_by_einsum,
        score_in_a_loop,
    ],
    "03.mala_log_acceptance": [
        acceptance_by_distributions,
        acceptance_by_einsum,
        acceptance_in_a_loop,
        acceptance_by_numpy,
        acceptance_multiplied_out,
    ],
    "03.leapfrog": [
        leapfrog_in_whole_steps,
        leapfrog_in_place_on_copies,
        leapfrog_in_float64,
        leapfrog_by_numpy,
        leapfrog_by_verlet,
    ],
}
