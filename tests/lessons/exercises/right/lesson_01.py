"""Right answers to the exercises of lesson 01 that are written in another way than the package's."""

import numpy as np
import torch

from sdlearn.diffusion.schedule import rescale_zero_snr


def with_alphas(schedule, x, noise, t):
    signal_rate = schedule.alphas[t] ** 0.5
    return torch.lerp(torch.zeros_like(x), x, signal_rate) + noise * torch.sqrt(1 - signal_rate**2)


def in_einsteins_notation(schedule, x0, noise, t):
    alphas_cumprod = schedule.alphas_cumprod[torch.as_tensor(t).expand(len(x0))]
    signal = torch.einsum("b,b...->b...", alphas_cumprod**0.5, x0)
    return signal + torch.einsum("b,b...->b...", (1 - alphas_cumprod) ** 0.5, noise)


def from_sigma(schedule, t):
    return schedule.sigmas[t] ** -2


def with_numpy(config):
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


def with_a_loop(betas):
    rates = []
    for beta in betas:
        rates.append((rates[-1] if rates else 1.0) * (1 - beta) ** 0.5)
    scale = rates[0] / (rates[0] - rates[-1])
    moved = [scale * (rate - rates[-1]) for rate in rates]
    alphas = [moved[0] ** 2] + [(after / before) ** 2 for before, after in zip(moved, moved[1:])]
    return 1 - torch.stack(alphas)


RIGHT = {
    "01.add_one_step": [with_alphas],
    "01.add_noise": [in_einsteins_notation],
    "01.snr": [from_sigma],
    "01.make_betas": [with_numpy],
    "01.rescale_zero_snr": [with_a_loop],
}
