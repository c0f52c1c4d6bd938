"""Right answers to the exercises of lesson 03 that are written in another way than the package's."""

import math

import torch
from torch.distributions import Independent, Normal

from sdlearn import draw_noise


def by_normal(x, score, step_size, generator):
    mean = torch.add(x, score, alpha=step_size / 2)
    return torch.addcmul(mean, draw_noise(x.shape, generator), torch.tensor(step_size**0.5))


def by_tweedie(prediction, x, t, schedule):
    signal_rate, noise_rate = schedule.rates(t, x)
    return (signal_rate * schedule.to_x0(prediction, x, t) - x) / noise_rate**2


def by_distributions(start, end, step_size):
    def log_q(a, b):
        return Independent(Normal(a.x + step_size / 2 * a.score, math.sqrt(step_size)), a.x.ndim - 1).log_prob(b.x)

    there = start.log_density + log_q(start, end)
    back = end.log_density + log_q(end, start)
    return torch.minimum(back - there, torch.zeros_like(there))


def in_whole_steps(score, x, momentum, step_size, leapfrog_steps):
    for _ in range(leapfrog_steps):
        half = momentum + step_size / 2 * score(x)
        x = x + step_size * half
        momentum = half + step_size / 2 * score(x)
    return x, momentum


RIGHT = {
    "03.langevin_step": [by_normal],
    "03.to_score": [by_tweedie],
    "03.mala_log_acceptance": [by_distributions],
    "03.leapfrog": [in_whole_steps],
}
