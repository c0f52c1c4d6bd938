"""Right answers to the exercises of lesson 01 that are written in another way than the package's."""

import math

import numpy as np
import torch
from diffusers import DDPMScheduler
from diffusers.schedulers.scheduling_ddpm import rescale_zero_terminal_snr
from diffusers.training_utils import compute_snr

from sdlearn.diffusion.schedule import rescale_zero_snr


def step_with_alphas(schedule, x, noise, t):
    signal_rate = schedule.alphas[t] ** 0.5
    return torch.lerp(torch.zeros_like(x), x, signal_rate) + noise * torch.sqrt(1 - signal_rate**2)


def step_with_numpy(schedule, x, noise, t):
    beta = schedule.betas.numpy()[t]
    return np.sqrt(1 - beta) * x.numpy() + np.sqrt(beta) * noise.numpy()


def step_in_place_on_a_copy(schedule, x, noise, t):
    beta = schedule.betas[t].item()
    x = x.clone()
    x *= math.sqrt(1 - beta)
    x += math.sqrt(beta) * noise
    return x


@torch.no_grad()
def step_without_gradients(schedule, x, noise, t):
    beta = schedule.betas[t]
    return torch.addcmul(torch.sqrt(1 - beta) * x, torch.sqrt(beta), noise)


def step_in_float64(schedule, x, noise, t):
    beta = schedule.betas[t].double()
    return (1 - beta) ** 0.5 * x.double() + beta**0.5 * noise.double()


def step_picture_by_picture(schedule, x, noise, t):
    beta = schedule.betas[t]
    return torch.stack([(1 - beta).sqrt() * one + beta.sqrt() * n for one, n in zip(x, noise, strict=True)])


def step_from_the_products(schedule, x, noise, t):
    alpha = schedule.alphas_cumprod[t] / (schedule.alphas_cumprod[t - 1] if t else 1)
    return alpha.sqrt() * x + (1 - alpha).sqrt() * noise


def jump_in_einsteins_notation(schedule, x0, noise, t):
    alphas_cumprod = schedule.alphas_cumprod[torch.as_tensor(t).expand(len(x0))]
    signal = torch.einsum("b,b...->b...", alphas_cumprod**0.5, x0)
    return signal + torch.einsum("b,b...->b...", (1 - alphas_cumprod) ** 0.5, noise)


def jump_with_diffusers(schedule, x0, noise, t):
    scheduler = DDPMScheduler.from_config(schedule.config.to_dict())
    return scheduler.add_noise(x0, noise, torch.as_tensor(t).expand(len(x0)))


def jump_with_numpy(schedule, x0, noise, t):
    rate = np.reshape(schedule.alphas_cumprod.numpy()[np.asarray(t)], (-1,) + (1,) * (x0.ndim - 1))
    return np.sqrt(rate) * x0.numpy() + np.sqrt(1 - rate) * noise.numpy()


def jump_in_place_on_a_copy(schedule, x0, noise, t):
    x = x0.clone()
    for i in range(len(x)):
        rate = schedule.alphas_cumprod[t if isinstance(t, int) else t[i]]
        x[i] *= rate.sqrt()
        x[i] += (1 - rate).sqrt() * noise[i]
    return x


def jump_by_unsqueezing(schedule, x0, noise, t):
    rate = schedule.alphas_cumprod.double()[t]
    while rate.ndim < x0.ndim:
        rate = rate.unsqueeze(-1)
    return rate.sqrt() * x0 + (1 - rate).sqrt() * noise


def jump_with_rates(schedule, x0, noise, t):
    signal_rate, noise_rate = schedule.rates(t, x0)
    with torch.no_grad():
        return torch.add(x0 * signal_rate, noise * noise_rate)


def jump_transposed(schedule, x0, noise, t):
    rate = schedule.alphas_cumprod[t]
    return (rate.sqrt() * x0.movedim(0, -1) + (1 - rate).sqrt() * noise.movedim(0, -1)).movedim(-1, 0)


def ratio_from_sigma(schedule, t):
    return schedule.sigmas[t] ** -2


def ratio_upside_down_twice(schedule, t):
    return 1 / (1 / schedule.alphas_cumprod[t] - 1)


def ratio_as_a_number(schedule, t):
    if isinstance(t, int):
        rate = schedule.alphas_cumprod[t].item()
        return rate / (1 - rate)
    return torch.tensor([ratio_as_a_number(schedule, int(one)) for one in t])


def ratio_with_numpy(schedule, t):
    rate = schedule.alphas_cumprod.numpy().astype(float)[np.asarray(t)]
    return rate / (1 - rate)


def ratio_with_diffusers(schedule, t):
    return compute_snr(DDPMScheduler.from_config(schedule.config.to_dict()), torch.as_tensor(t))


def ratio_from_the_logit(schedule, t):
    return torch.logit(schedule.alphas_cumprod.double()[t]).exp()


def ratio_of_squared_rates(schedule, t):
    signal_rate, noise_rate = schedule.rates(t, torch.zeros(1 if isinstance(t, int) else len(t)))
    return (signal_rate / noise_rate).square()


def betas_with_numpy(config):
    at = np.arange(config.num_train_timesteps) / (config.num_train_timesteps - 1)
    if config.beta_schedule == "linear":
        betas = config.beta_start + at * (config.beta_end - config.beta_start)
    elif config.beta_schedule == "scaled_linear":
        betas = (config.beta_start**0.5 * (1 - at) + config.beta_end**0.5 * at) ** 2
    else:
        f = np.cos((np.linspace(0, 1, config.num_train_timesteps + 1) + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - f[1:] / f[:-1], 0.999)
    betas = torch.from_numpy(betas).float()
    return rescale_zero_snr(betas) if config.rescale_betas_zero_snr else betas


def betas_with_diffusers(config):
    return DDPMScheduler.from_config(config.to_dict()).betas


def betas_in_a_loop(config):
    betas, n = [], config.num_train_timesteps
    start, end = config.beta_start, config.beta_end

    def f(i):
        return math.cos((i / n + 0.008) / 1.008 * math.pi / 2) ** 2

    for i in range(n):
        part = i / (n - 1)
        if config.beta_schedule == "linear":
            betas.append(start + (end - start) * part)
        elif config.beta_schedule == "scaled_linear":
            betas.append((math.sqrt(start) + (math.sqrt(end) - math.sqrt(start)) * part) ** 2)
        else:
            betas.append(min(0.999, 1 - f(i + 1) / f(i)))
    betas = torch.tensor(betas)
    if config.rescale_betas_zero_snr:
        betas = rescale_zero_snr(betas)
    return betas


def betas_in_float64(config):
    n = config.num_train_timesteps
    ends = torch.tensor([config.beta_start, config.beta_end], dtype=torch.float64)
    match config.beta_schedule:
        case "linear":
            betas = torch.linspace(*ends.tolist(), n, dtype=torch.float64)
        case "scaled_linear":
            betas = torch.linspace(*ends.sqrt().tolist(), n, dtype=torch.float64).square()
        case "squaredcos_cap_v2":
            i = torch.arange(n + 1, dtype=torch.float64)
            f = torch.cos((i / n + 0.008) / 1.008 * torch.pi / 2).square()
            betas = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return rescale_zero_snr(betas) if config.rescale_betas_zero_snr else betas


def betas_with_a_cosine_of_float32(config):
    n, start, end = config.num_train_timesteps, config.beta_start, config.beta_end
    f = torch.cos((torch.arange(n + 1) / n + 0.008) / 1.008 * math.pi / 2) ** 2
    betas = {
        "linear": torch.linspace(start, end, n),
        "scaled_linear": torch.linspace(math.sqrt(start), math.sqrt(end), n) ** 2,
        "squaredcos_cap_v2": (1 - f[1:] / f[:-1]).clamp(max=0.999),
    }[config.beta_schedule]
    return rescale_zero_snr(betas) if config.rescale_betas_zero_snr else betas


def rescaled_in_a_loop(betas):
    rates = []
    for beta in betas:
        rates.append((rates[-1] if rates else 1.0) * (1 - beta) ** 0.5)
    scale = rates[0] / (rates[0] - rates[-1])
    moved = [scale * (rate - rates[-1]) for rate in rates]
    alphas = [moved[0] ** 2] + [(after / before) ** 2 for before, after in zip(moved, moved[1:], strict=False)]
    return 1 - torch.stack(alphas)


def rescaled_with_diffusers(betas):
    return rescale_zero_terminal_snr(betas)


def rescaled_with_the_line_through_two_points(betas):
    rates = torch.cumprod(1 - betas.double(), dim=0).sqrt()
    conditions = torch.tensor([[rates[0], 1], [rates[-1], 1]], dtype=torch.float64)
    m, n = torch.linalg.solve(conditions, torch.tensor([rates[0], 0], dtype=torch.float64))
    squares = (m * rates + n) ** 2
    return 1 - squares / torch.cat([torch.ones(1, dtype=torch.float64), squares[:-1]])


def rescaled_with_numpy(betas):
    rates = np.sqrt(np.cumprod(1 - betas.numpy()))
    rates = (rates - rates[-1]) * rates[0] / (rates[0] - rates[-1])
    alphas = rates**2
    alphas[1:] = alphas[1:] / alphas[:-1]
    return 1 - alphas


def rescaled_with_logarithms(betas):
    rates = torch.log1p(-betas).cumsum(0).div(2).exp()
    logs = ((rates - rates[-1]) * rates[0] / (rates[0] - rates[-1])).square().log()
    return 1 - torch.cat([logs[:1], logs.diff()]).exp()


@torch.no_grad()
def rescaled_in_place_on_a_copy(betas):
    rates = (1 - betas).cumprod(0).sqrt()
    first = rates[0].clone()
    rates -= rates[-1].clone()
    rates *= first / rates[0].clone()
    result = betas.clone()
    result[0] = 1 - rates[0] ** 2
    result[1:] = 1 - (rates[1:] / rates[:-1]) ** 2
    return result


RIGHT = {
    "01.add_one_step": [
        step_with_alphas,
        step_with_numpy,
        step_in_place_on_a_copy,
        step_without_gradients,
        step_in_float64,
        step_picture_by_picture,
        step_from_the_products,
    ],
    "01.add_noise": [
        jump_in_einsteins_notation,
        jump_with_diffusers,
        jump_with_numpy,
        jump_in_place_on_a_copy,
        jump_by_unsqueezing,
        jump_with_rates,
        jump_transposed,
    ],
    "01.snr": [
        ratio_from_sigma,
        ratio_upside_down_twice,
        ratio_as_a_number,
        ratio_with_numpy,
        ratio_with_diffusers,
        ratio_from_the_logit,
        ratio_of_squared_rates,
    ],
    "01.make_betas": [
        betas_with_numpy,
        betas_with_diffusers,
        betas_in_a_loop,
        betas_in_float64,
        betas_with_a_cosine_of_float32,
    ],
    "01.rescale_zero_snr": [
        rescaled_in_a_loop,
        rescaled_with_diffusers,
        rescaled_with_the_line_through_two_points,
        rescaled_with_numpy,
        rescaled_in_place_on_a_copy,
        rescaled_with_logarithms,
    ],
}
