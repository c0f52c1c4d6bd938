"""Right answers to the exercises of lesson 02 that are written in another way than the package's."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler

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


def in_float64(schedule, x0, x, t, previous):
    bars = torch.cat([schedule.alphas_cumprod.double(), torch.ones(1, dtype=torch.float64)])  # [-1] is the end
    now, before = bars[t], bars[max(previous, -1)]
    beta = 1 - now / before
    mean = (before.sqrt() * beta * x0.double() + (now / before).sqrt() * (1 - before) * x.double()) / (1 - now)
    return mean, beta * (1 - before) / (1 - now)


def ends_early(schedule, x0, x, t, previous):
    if previous < 0:
        return x0, 0.0
    now, before = schedule.alphas_cumprod[t].item(), schedule.alphas_cumprod[previous].item()
    alpha = now / before
    beta = 1 - alpha
    mean = math.sqrt(before) * beta / (1 - now) * x0 + math.sqrt(alpha) * (1 - before) / (1 - now) * x
    return mean, (1 - before) / (1 - now) * beta


def by_numpy(schedule, x0, x, t, previous):
    bars = schedule.alphas_cumprod.numpy().astype(np.float64)
    now, before = bars[t], bars[previous] if previous >= 0 else 1.0
    beta = 1 - now / before
    mean = np.sqrt(before) * beta * x0.numpy() + np.sqrt(now / before) * (1 - before) * x.numpy()
    return mean / (1 - now), beta * (1 - before) / (1 - now)


@torch.no_grad()
def in_place_on_a_copy(schedule, x0, x, t, previous):
    now = schedule.alphas_cumprod[t]
    before = schedule.alphas_cumprod[previous] if previous >= 0 else torch.tensor(1.0)
    alpha = now / before
    mean = x.clone()
    mean *= alpha.sqrt() * (1 - before)
    mean += before.sqrt() * (1 - alpha) * x0
    mean /= 1 - now
    return mean, (1 - alpha) * (1 - before) / (1 - now)


def a_number_for_the_variance(schedule, x0, x, t, previous):
    now = schedule.alphas_cumprod[t]
    before = schedule.alphas_cumprod[previous] if previous >= 0 else torch.tensor(1.0)
    beta = 1 - now / before
    mean = (before.sqrt() * beta * x0 + (now / before).sqrt() * (1 - before) * x) / (1 - now)
    return mean, (beta * (1 - before) / (1 - now)).item()


def as_diffusers_does(schedule, x0, x, t, previous):
    alpha_prod_t = schedule.alphas_cumprod[t]
    alpha_prod_t_prev = schedule.alphas_cumprod[previous] if previous >= 0 else torch.tensor(1.0)
    beta_prod_t, beta_prod_t_prev = 1 - alpha_prod_t, 1 - alpha_prod_t_prev
    current_alpha_t = alpha_prod_t / alpha_prod_t_prev
    current_beta_t = 1 - current_alpha_t
    original = (alpha_prod_t_prev**0.5 * current_beta_t) / beta_prod_t
    current = current_alpha_t**0.5 * beta_prod_t_prev / beta_prod_t
    variance = (1 - alpha_prod_t_prev) / (1 - alpha_prod_t) * current_beta_t
    return original * x0 + current * x, torch.clamp(variance, min=1e-20)


def with_match(schedule, prediction, x, signal_rate, noise_rate):
    match schedule.config.prediction_type:
        case "sample":
            return prediction
        case "epsilon":
            return x.sub(prediction * noise_rate).div(signal_rate)
    epsilon = signal_rate * prediction + noise_rate * x
    return (x - noise_rate * epsilon) / signal_rate


def from_a_table(schedule, prediction, x, signal_rate, noise_rate):
    answers = {
        "epsilon": lambda: (x - noise_rate * prediction) / signal_rate,
        "sample": lambda: prediction.clone(),
        "v_prediction": lambda: signal_rate * x - noise_rate * prediction,
    }
    return answers[schedule.config.prediction_type]()


def x0_in_float64(schedule, prediction, x, signal_rate, noise_rate):
    prediction, x = prediction.double(), x.double()
    if schedule.config.prediction_type == "epsilon":
        return (x - noise_rate.double() * prediction) / signal_rate.double()
    if schedule.config.prediction_type == "v_prediction":
        return signal_rate.double() * x - noise_rate.double() * prediction
    return prediction


def x0_by_numpy(schedule, prediction, x, signal_rate, noise_rate):
    prediction, x, signal, noise = (np.asarray(one) for one in (prediction, x, signal_rate, noise_rate))
    if schedule.config.prediction_type == "sample":
        return prediction
    if schedule.config.prediction_type == "epsilon":
        return x / signal - noise / signal * prediction
    return signal * x - noise * prediction


@torch.no_grad()
def x0_in_place_on_a_copy(schedule, prediction, x, signal_rate, noise_rate):
    if schedule.config.prediction_type == "sample":
        return prediction
    x0 = x.clone()
    if schedule.config.prediction_type == "epsilon":
        x0 -= noise_rate * prediction
        x0 /= signal_rate
    else:
        x0 *= signal_rate
        x0 -= noise_rate * prediction
    return x0


def with_mse_loss(denoise, x0, noise, t, schedule):
    return F.mse_loss(denoise(schedule.add_noise(x0, noise, t), t), schedule.target(x0, noise, t))


def by_einsum(denoise, x0, noise, t, schedule):
    with torch.no_grad():  # nothing is learned from the data
        x, target = schedule.add_noise(x0, noise, t), schedule.target(x0, noise, t)
    off = (target - denoise(x, t)).flatten()
    return torch.einsum("i,i->", off, off) / off.numel()


def loss_in_float64(denoise, x0, noise, t, schedule):
    x = schedule.add_noise(x0, noise, t)
    off = denoise(x, t).double() - schedule.target(x0, noise, t).double()
    return off.pow(2).sum() / off.numel()


def loss_of_a_loop(denoise, x0, noise, t, schedule):
    predictions, losses = denoise(schedule.add_noise(x0, noise, t), t), []
    for i in range(len(t)):
        one = slice(i, i + 1)
        losses.append((predictions[one] - schedule.target(x0[one], noise[one], t[one])).square().mean())
    return sum(losses) / len(losses)


def with_the_formulas(denoise, x0, noise, t, schedule):
    bar = schedule.alphas_cumprod[t].reshape(-1, *[1] * (x0.ndim - 1))
    signal_rate, noise_rate = bar.sqrt(), (1 - bar).sqrt()
    target = {"epsilon": noise, "sample": x0, "v_prediction": signal_rate * noise - noise_rate * x0}
    guess = denoise(signal_rate * x0 + noise_rate * noise, t)
    return torch.nn.MSELoss()(guess, target[schedule.config.prediction_type])


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


def while_steps_are_left(denoise, x, grid, schedule, generator=None, project=None):
    i, left = 0, grid.timesteps.tolist()
    while left:
        t = left.pop(0)
        x0 = schedule.to_x0(denoise(x, t), x, t)
        mean, variance = schedule.posterior(x0, x, t, left[0] if left else -1)
        x = mean + variance.sqrt() * torch.randn(x.shape, generator=generator) if left else mean
        if project:
            x = project(x, i)
        yield Step(i, t, x, x0)
        i += 1


@torch.no_grad()
def ddpm_in_place_on_a_copy(denoise, x, grid, schedule, generator=None, project=None):
    x = x.clone()
    for i in range(len(grid)):
        t = int(grid.timesteps[i])
        last = i + 1 == len(grid)
        x0 = schedule.to_x0(denoise(x, t), x, t)
        mean, variance = schedule.posterior(x0, x, t, -1 if last else int(grid.timesteps[i + 1]))
        x.copy_(mean)
        if not last:
            x += variance.sqrt() * draw_noise(x.shape, generator)
        if project:
            x.copy_(project(x, i))
        yield Step(i, t, x.clone(), x0)


def ddpm_in_float64(denoise, x, grid, schedule, generator=None, project=None):
    x, ends = x.double(), [*grid.timesteps.tolist()[1:], -1]
    for i, (t, previous) in enumerate(zip(grid.timesteps.tolist(), ends, strict=True)):
        x0 = schedule.to_x0(denoise(x, t), x, t)
        mean, variance = in_float64(schedule, x0, x, t, previous)
        noise = draw_noise(x.shape, generator).double() if previous >= 0 else 0
        x = mean + variance.sqrt() * noise
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def with_diffusers(denoise, x, grid, schedule, generator=None, project=None):
    scheduler = DDPMScheduler.from_config(schedule.config.to_dict() | {"_class_name": "DDPMScheduler"})
    scheduler.set_timesteps(timesteps=grid.timesteps.tolist())
    for i, t in enumerate(scheduler.timesteps.tolist()):
        result = scheduler.step(denoise(x, t), t, x, generator=generator)
        x = project(result.prev_sample, i) if project else result.prev_sample
        yield Step(i, t, x, result.pred_original_sample)


RIGHT = {
    "02.posterior": [
        by_adding_precisions,
        in_float64,
        ends_early,
        by_numpy,
        in_place_on_a_copy,
        a_number_for_the_variance,
        as_diffusers_does,
    ],
    "02.x0_at": [with_match, from_a_table, x0_in_float64, x0_by_numpy, x0_in_place_on_a_copy],
    "02.simple_loss": [with_mse_loss, by_einsum, loss_in_float64, loss_of_a_loop, with_the_formulas],
    "02.ddpm": [in_pairs, while_steps_are_left, ddpm_in_place_on_a_copy, ddpm_in_float64, with_diffusers],
}
