"""Right answers to the exercises of lesson 02 that are written in another way than the package's."""

import torch
import torch.nn.functional as F

from sdlearn.diffusion.samplers import Step, draw_noise


def by_adding_precisions(schedule, x0, x, t, previous):
    now = schedule.alphas_cumprod[t].double()
    before = schedule.alphas_cumprod[previous].double() if previous >= 0 else torch.tensor(1.0, dtype=torch.float64)
    if before == 1:
        return x0 + 0 * x, torch.tensor(0.0)
    alpha = now / before
    prior, likelihood = 1 / (1 - before), alpha / (1 - alpha)
    variance = 1 / (prior + likelihood)
    weight_x0, weight_x = variance * prior * before.sqrt(), variance * alpha.sqrt() / (1 - alpha)
    return (weight_x0.float() * x0 + weight_x.float() * x), variance.float()


def with_match(schedule, prediction, x, signal_rate, noise_rate):
    match schedule.config.prediction_type:
        case "sample":
            return prediction
        case "epsilon":
            return x.sub(prediction * noise_rate).div(signal_rate)
    epsilon = signal_rate * prediction + noise_rate * x
    return (x - noise_rate * epsilon) / signal_rate


def with_mse_loss(denoise, x0, noise, t, schedule):
    return F.mse_loss(denoise(schedule.add_noise(x0, noise, t), t), schedule.target(x0, noise, t))


def in_pairs(denoise, x, grid, schedule, generator=None, project=None):
    timesteps = [int(t) for t in grid.timesteps]
    for i, (t, previous) in enumerate(zip(timesteps, timesteps[1:] + [-1])):
        x0 = schedule.to_x0(denoise(x, t), x, t)
        x, variance = schedule.posterior(x0, x, t, previous)
        if previous >= 0:
            x = x + variance**0.5 * draw_noise(tuple(x.shape), generator).to(x)
        if project is not None:
            x = project(x, i)
        yield Step(i, t, x, x0)


RIGHT = {
    "02.posterior": [by_adding_precisions],
    "02.x0_at": [with_match],
    "02.simple_loss": [with_mse_loss],
    "02.ddpm": [in_pairs],
}
