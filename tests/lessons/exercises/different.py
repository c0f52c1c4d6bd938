"""Right answers that are written in another way than the package's, by the ids of their exercises.

Each is a text that runs by itself and ends with the answer: a function or a class.
"""

DIFFERENT: dict[str, list[str]] = {
    "00.row": [
        """
import torch
from sdlearn.tokenizer import BOS, EOS, Tokenizer


class Filled(Tokenizer):
    def row(self, text):
        row = torch.full((self.max_length,), self.vocab[self.pad_token])
        ids = self.encode(text)
        del ids[self.max_length - 2 :]
        row[0] = self.vocab[BOS]
        row[1 : len(ids) + 1] = torch.tensor(ids, dtype=torch.long)
        row[len(ids) + 1] = self.vocab[EOS]
        return row
""",
    ],
    "00.to_pixels": [
        """
import torch


def by_adding_a_half(pictures):
    return torch.floor(pictures.add(1).mul(127.5) + 0.5).clip(0, 255).byte()
""",
    ],
    "00.combine": [
        """
import torch


def by_lerp(unconditional, conditional, guidance_scale):
    return torch.lerp(unconditional, conditional, guidance_scale)
""",
        """
def as_in_the_paper(unconditional, conditional, guidance_scale):
    w = guidance_scale - 1
    return (1 + w) * conditional - w * unconditional
""",
        """
import torch


def by_einsum(unconditional, conditional, guidance_scale):
    both = torch.stack([unconditional, conditional])
    return torch.einsum("i, i... -> ...", torch.tensor([1 - guidance_scale, guidance_scale]), both)
""",
        """
def in_place(unconditional, conditional, guidance_scale):
    return unconditional.add_(guidance_scale * (conditional - unconditional))
""",
    ],
    "03.langevin_step": [
        """
import torch
from sdlearn import draw_noise


def by_normal(x, score, step_size, generator):
    mean = torch.add(x, score, alpha=step_size / 2)
    return torch.addcmul(mean, draw_noise(x.shape, generator), torch.tensor(step_size**0.5))
""",
    ],
    "03.to_score": [
        """
def by_tweedie(prediction, x, t, schedule):
    signal_rate, noise_rate = schedule.rates(t, x)
    return (signal_rate * schedule.to_x0(prediction, x, t) - x) / noise_rate**2
""",
    ],
    "03.mala_log_acceptance": [
        """
import math
import torch
from torch.distributions import Independent, Normal


def by_distributions(start, end, step_size):
    def log_q(a, b):
        return Independent(Normal(a.x + step_size / 2 * a.score, math.sqrt(step_size)), a.x.ndim - 1).log_prob(b.x)

    there = start.log_density + log_q(start, end)
    back = end.log_density + log_q(end, start)
    return torch.minimum(back - there, torch.zeros_like(there))
""",
    ],
    "03.leapfrog": [
        """
def in_whole_steps(score, x, momentum, step_size, leapfrog_steps):
    for _ in range(leapfrog_steps):
        half = momentum + step_size / 2 * score(x)
        x = x + step_size * half
        momentum = half + step_size / 2 * score(x)
    return x, momentum
""",
    ],
    "04.euler": [
        """
from sdlearn.diffusion.samplers import Step, denoised


def from_x0(denoise, x, grid, schedule, generator=None, project=None):
    levels = list(grid.sigmas)
    for i, (t, now, ahead) in enumerate(zip(grid.timesteps.tolist(), levels, levels[1:], strict=False)):
        x0 = denoised(denoise, x, t, now, schedule)
        x = x0 + ahead / now * (x - x0)
        if project is not None:
            x = project(x, i)
        yield Step(i, t, x, x0)
""",
    ],
    "04.ddim": [
        """
import math
from sdlearn.diffusion.samplers import Step, alphas_cumprod_after, draw_noise


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
""",
    ],
    "04.heun": [
        """
from sdlearn.diffusion.samplers import Step, denoised


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
""",
    ],
    "04.adams_bashforth": [
        """
import numpy as np
import torch


def by_integrating_lagrange_s_polynomials(n):
    weights = []
    for j in range(n):
        others = [-float(k) for k in range(n) if k != j]
        polynomial = np.polynomial.Polynomial.fromroots(others) if others else np.polynomial.Polynomial([1.0])
        weights.append(polynomial.integ()(1.0) / polynomial(-float(j)))
    return torch.tensor(weights, dtype=torch.float64)
""",
    ],
    "02.posterior": [
        """
import torch
from sdlearn.diffusion.schedule import Schedule


class ByAddingPrecisions(Schedule):
    def posterior(self, x0, x, t, previous):
        now = self.alphas_cumprod[t].double()
        before = self.alphas_cumprod[previous].double() if previous >= 0 else torch.tensor(1.0, dtype=torch.float64)
        if before == 1:
            return x0 + 0 * x, torch.tensor(0.0)
        alpha = now / before
        prior, likelihood = 1 / (1 - before), alpha / (1 - alpha)
        variance = 1 / (prior + likelihood)
        weight_x0, weight_x = variance * prior * before.sqrt(), variance * alpha.sqrt() / (1 - alpha)
        return (weight_x0.float() * x0 + weight_x.float() * x), variance.float()
""",
    ],
    "02.x0_at": [
        """
from sdlearn.diffusion.schedule import Schedule


class WithMatch(Schedule):
    def x0_at(self, prediction, x, signal_rate, noise_rate):
        match self.config.prediction_type:
            case "sample":
                return prediction
            case "epsilon":
                return x.sub(prediction * noise_rate).div(signal_rate)
        epsilon = signal_rate * prediction + noise_rate * x
        return (x - noise_rate * epsilon) / signal_rate
""",
    ],
    "02.simple_loss": [
        """
import torch.nn.functional as F


def with_mse_loss(denoise, x0, noise, t, schedule):
    return F.mse_loss(denoise(schedule.add_noise(x0, noise, t), t), schedule.target(x0, noise, t))
""",
    ],
    "02.ddpm": [
        """
from sdlearn.diffusion.samplers import Step, draw_noise


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
""",
    ],
    "01.add_one_step": [
        """
import torch
from sdlearn.diffusion.schedule import Schedule


class WithAlphas(Schedule):
    def add_one_step(self, x, noise, t):
        signal_rate = self.alphas[t] ** 0.5
        return torch.lerp(torch.zeros_like(x), x, signal_rate) + noise * torch.sqrt(1 - signal_rate**2)
""",
    ],
    "01.add_noise": [
        """
import torch
from sdlearn.diffusion.schedule import Schedule


class InEinsteinsNotation(Schedule):
    def add_noise(self, x0, noise, t):
        alphas_cumprod = self.alphas_cumprod[torch.as_tensor(t).expand(len(x0))]
        signal = torch.einsum("b,b...->b...", alphas_cumprod**0.5, x0)
        return signal + torch.einsum("b,b...->b...", (1 - alphas_cumprod) ** 0.5, noise)
""",
    ],
    "01.snr": [
        """
from sdlearn.diffusion.schedule import Schedule


class FromSigma(Schedule):
    def snr(self, t):
        return self.sigmas[t] ** -2
""",
    ],
    "01.make_betas": [
        """
import numpy as np
import torch
from sdlearn.diffusion.schedule import rescale_zero_snr


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
""",
    ],
    "01.rescale_zero_snr": [
        """
import torch


def with_a_loop(betas):
    rates = []
    for beta in betas:
        rates.append((rates[-1] if rates else 1.0) * (1 - beta) ** 0.5)
    scale = rates[0] / (rates[0] - rates[-1])
    moved = [scale * (rate - rates[-1]) for rate in rates]
    alphas = [moved[0] ** 2] + [(after / before) ** 2 for before, after in zip(moved, moved[1:])]
    return 1 - torch.stack(alphas)
""",
    ],
}
