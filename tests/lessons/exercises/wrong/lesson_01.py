"""Wrong answers to the exercises of lesson 01 as learners type them, and a piece of what they are told."""

import math

import torch

from sdlearn.diffusion.schedule import rescale_zero_snr


def step_with_the_variance(schedule, x, noise, t):
    beta = schedule.betas[t]
    return torch.sqrt(1 - beta) * x + beta * noise


def step_only_added(schedule, x, noise, t):
    return x + schedule.betas[t] ** 0.5 * noise


def step_with_the_product(schedule, x, noise, t):
    a = schedule.alphas_cumprod[t]
    return a**0.5 * x + (1 - a) ** 0.5 * noise


def step_with_alpha_for_beta(schedule, x, noise, t):
    a = schedule.alphas[t]
    return (1 - a) ** 0.5 * x + a**0.5 * noise


def step_with_its_own_noise(schedule, x, noise, t):
    beta = schedule.betas[t]
    return (1 - beta).sqrt() * x + beta.sqrt() * torch.randn_like(x)


def step_in_place(schedule, x, noise, t):
    beta = schedule.betas[t]
    x *= (1 - beta).sqrt()
    x += beta.sqrt() * noise
    return x


def step_without_return(schedule, x, noise, t):
    beta = schedule.betas[t]
    x = (1 - beta).sqrt() * x + beta.sqrt() * noise


def step_with_a_deviation(schedule, x, noise, t):
    beta = schedule.betas[t].item()
    return math.sqrt(1 - beta**2) * x + beta * noise


def step_counted_from_one(schedule, x, noise, t):
    beta = schedule.betas[t - 1]
    return (1 - beta).sqrt() * x + beta.sqrt() * noise


def step_with_all_betas(schedule, x, noise, t):
    return (1 - schedule.betas).sqrt() * x + schedule.betas.sqrt() * noise


def step_after(schedule, x, noise, t):
    beta = schedule.betas[t + 1]
    return (1 - beta).sqrt() * x + beta.sqrt() * noise


def step_for_step(schedule, x, noise, t):
    for s in range(t + 1):
        x = (1 - schedule.betas[s]) ** 0.5 * x + schedule.betas[s] ** 0.5 * noise
    return x


def step_with_shrunk_noise(schedule, x, noise, t):
    beta = schedule.betas[t]
    return (1 - beta).sqrt() * (x + beta.sqrt() * noise)


def jump_not_reshaped(schedule, x0, noise, t):
    a = schedule.alphas_cumprod[t]
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


def jump_for_images_only(schedule, x0, noise, t):
    a = schedule.alphas_cumprod[torch.as_tensor(t).reshape(-1)][:, None, None, None]
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


def jump_without_roots(schedule, x0, noise, t):
    a = schedule.alphas_cumprod[t].view(-1, *[1] * (x0.ndim - 1))
    return a * x0 + (1 - a) * noise


def jump_with_one_root(schedule, x0, noise, t):
    a = schedule.alphas_cumprod[t].view(-1, *[1] * (x0.ndim - 1))
    return a.sqrt() * x0 + (1 - a.sqrt()) * noise


def jump_with_one_step_s_alpha(schedule, x0, noise, t):
    a = schedule.alphas[t].view(-1, *[1] * (x0.ndim - 1))
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


def jump_with_sigmas(schedule, x0, noise, t):
    return x0 + schedule.sigmas[t].view(-1, *[1] * (x0.ndim - 1)) * noise


def jump_with_roots_of_rates(schedule, x0, noise, t):
    signal_rate, noise_rate = schedule.rates(t, x0)
    return signal_rate.sqrt() * x0 + noise_rate.sqrt() * noise


def jump_counted_from_one(schedule, x0, noise, t):
    a = schedule.alphas_cumprod[t - 1].view(-1, *[1] * (x0.ndim - 1))
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


def jump_in_place(schedule, x0, noise, t):
    signal_rate, noise_rate = schedule.rates(t, x0)
    return x0.mul_(signal_rate).add_(noise_rate * noise)


def jump_with_swapped_inputs(schedule, x0, noise, t):
    signal_rate, noise_rate = schedule.rates(t, x0)
    return signal_rate * noise + noise_rate * x0


def jump_with_sorted_t(schedule, x0, noise, t):
    if torch.is_tensor(t):
        t = t.sort().values
    signal_rate, noise_rate = schedule.rates(t, x0)
    return signal_rate * x0 + noise_rate * noise


def jump_with_one_alpha_less(schedule, x0, noise, t):
    a = torch.cat([torch.ones(1), torch.cumprod(1 - schedule.betas, 0)])[t].view(-1, *[1] * (x0.ndim - 1))
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


def jump_with_summed_betas(schedule, x0, noise, t):
    b = torch.cumsum(schedule.betas, 0)[t].reshape(-1, *[1] * (x0.ndim - 1))
    return (1 - b).sqrt() * x0 + b.sqrt() * noise


def jump_on_the_chord(schedule, x0, noise, t):
    s = (torch.as_tensor(t) / len(schedule.betas)).reshape(-1, *[1] * (x0.ndim - 1))
    return (1 - s) * x0 + s * noise


def jump_to_the_velocity(schedule, x0, noise, t):
    a = schedule.alphas_cumprod[t].reshape(-1, *[1] * (x0.ndim - 1))
    return a.sqrt() * noise - (1 - a).sqrt() * x0


def the_signal_alone(schedule, t):
    return schedule.alphas_cumprod[t]


def upside_down(schedule, t):
    return 1 / schedule.alphas_cumprod[t] - 1


def ratio_of_rates(schedule, t):
    a = schedule.alphas_cumprod[t]
    return a.sqrt() / (1 - a).sqrt()


def ratio_in_decibels(schedule, t):
    a = schedule.alphas_cumprod[t]
    return 10 * torch.log10(a / (1 - a))


def ratio_to_beta(schedule, t):
    return schedule.alphas_cumprod[t] / schedule.betas[t]


def ratio_for_a_number_only(schedule, t):
    a = float(schedule.alphas_cumprod[t])
    return a / (1 - a)


def ratio_squared(schedule, t):
    a = schedule.alphas_cumprod[t]
    return a**2 / (1 - a) ** 2


def ratio_of_one_step(schedule, t):
    return schedule.alphas[t] / (1 - schedule.alphas[t])


def ratio_as_an_item(schedule, t):
    a = schedule.alphas_cumprod[t]
    return (a / (1 - a)).item()


def ratio_of_a_mean(schedule, t):
    a = schedule.alphas_cumprod[t]
    return (a / (1 - a)).mean()


def ratios_of_all(schedule, t):
    a = schedule.alphas_cumprod
    return a / (1 - a)


def ratio_of_squared_differences(schedule, t):
    a = schedule.alphas_cumprod[t].sqrt()
    return a**2 / (1 - a) ** 2


def cosine(n, i):
    return math.cos((i / n + 0.008) / 1.008 * math.pi / 2) ** 2


def betas_with_fixed_ends(config):
    n = config.num_train_timesteps
    if config.beta_schedule == "linear":
        betas = torch.linspace(0.0001, 0.02, n)
    elif config.beta_schedule == "scaled_linear":
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, n) ** 2
    else:
        betas = torch.tensor([min(0.999, 1 - cosine(n, i + 1) / cosine(n, i)) for i in range(n)])
    return rescale_zero_snr(betas) if config.rescale_betas_zero_snr else betas


def betas_with_1000_steps(config):
    return torch.linspace(config.beta_start**0.5, config.beta_end**0.5, 1000) ** 2


def betas_of(config, linear=None, f=cosine, cosine_betas=None, rescaled=True):
    """The betas, with one thing changed."""
    n, start, end = config.num_train_timesteps, config.beta_start, config.beta_end
    if config.beta_schedule == "linear":
        betas = linear(start, end, n) if linear else torch.linspace(start, end, n)
    elif config.beta_schedule == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, n) ** 2
    else:
        betas = torch.tensor([min(0.999, 1 - f(n, i + 1) / f(n, i)) for i in range(n)])
        betas = cosine_betas(n) if cosine_betas else betas
        if not rescaled:
            return betas
    return rescale_zero_snr(betas) if config.rescale_betas_zero_snr else betas


def betas_with_arange(config):
    return betas_of(config, lambda start, end, n: start + (end - start) * torch.arange(n) / n)


def betas_without_the_first(config):
    return betas_of(config, lambda start, end, n: torch.linspace(start, end, n + 1)[1:])


def betas_from_f_before(config):
    return betas_of(
        config, cosine_betas=lambda n: torch.tensor([1 - cosine(n, i) / cosine(n, max(i - 1, 0)) for i in range(n)])
    )


def betas_from_f_0(config):
    return betas_of(
        config, cosine_betas=lambda n: torch.tensor([min(0.999, 1 - cosine(n, i + 1) / cosine(n, 0)) for i in range(n)])
    )


def betas_without_pi(config):
    return betas_of(config, f=lambda n, i: math.cos((i / n + 0.008) / 1.008) ** 2)


def betas_as_alphas(config):
    return 1 - betas_of(config)


def betas_returned_too_early(config):
    return betas_of(config, rescaled=False)


def betas_for_one_schedule_only(config):
    betas = torch.linspace(config.beta_start**0.5, config.beta_end**0.5, config.num_train_timesteps) ** 2
    return rescale_zero_snr(betas) if config.rescale_betas_zero_snr else betas


def betas_without_the_last(config):
    n = config.num_train_timesteps
    start, end = config.beta_start, config.beta_end
    if config.beta_schedule == "linear":
        betas = torch.tensor([start + (end - start) * i / n for i in range(n)])
    elif config.beta_schedule == "scaled_linear":
        betas = torch.tensor([(start**0.5 + (end**0.5 - start**0.5) * i / n) ** 2 for i in range(n)])
    else:
        betas = torch.tensor([min(0.999, 1 - cosine(n, i + 1) / cosine(n, i)) for i in range(n)])
    return rescale_zero_snr(betas) if config.rescale_betas_zero_snr else betas


def rescaled_alphas_cumprod(betas):
    a = torch.cumprod(1 - betas, 0)
    a = (a - a[-1]) * a[0] / (a[0] - a[-1])
    return 1 - torch.cat([a[:1], a[1:] / a[:-1]])


def rescaled_without_scale(betas):
    rates = torch.cumprod(1 - betas, 0).sqrt()
    a = (rates - rates[-1]) ** 2
    return 1 - torch.cat([a[:1], a[1:] / a[:-1]])


def rescaled_alphas(betas):
    return 1 - rescale_zero_snr(betas)


def rescaled_one_short(betas):
    rates = torch.cumprod(1 - betas, 0).sqrt()
    a = ((rates - rates[-1]) * rates[0] / (rates[0] - rates[-1])) ** 2
    return 1 - a[1:] / a[:-1]


def rescaled(rates):
    a = rates**2
    return 1 - torch.cat([a[:1], a[1:] / a[:-1]])


def rescaled_by_the_first(betas):
    rates = torch.cumprod(1 - betas, 0).sqrt()
    return rescaled((rates - rates[-1]) / rates[0])


def rescaled_as_if_it_began_at_1(betas):
    rates = torch.cumprod(1 - betas, 0).sqrt()
    return rescaled((rates - rates[-1]) / (1 - rates[-1]))


def rescaled_with_a_view(betas):
    rates = torch.cumprod(1 - betas, 0).sqrt()
    first, last = rates[0], rates[-1].clone()
    rates -= last
    rates *= first / (first - last)
    return rescaled(rates)


def rescaled_upside_down(betas):
    a = torch.cumprod(1 - rescale_zero_snr(betas), 0)
    return 1 - torch.cat([a[:1], a[:-1] / a[1:]])


def rescaled_with_roll(betas):
    a = torch.cumprod(1 - rescale_zero_snr(betas), 0)
    return 1 - a / a.roll(1)


def rescaled_products(betas):
    return torch.cumprod(1 - rescale_zero_snr(betas), 0)


def rescaled_in_place(betas):
    betas[:] = rescale_zero_snr(betas.clone())
    return betas


WRONG = {
    "01.add_one_step": [
        ("β is used where √β belongs", step_with_the_variance),
        ("x isn't scaled down", step_only_added),
        ("ᾱ is used, which belongs to all steps so far", step_with_the_product),
        ("are swapped", step_with_alpha_for_beta),
        ("random numbers of its own", step_with_its_own_noise),
        ("it changes x, one of its inputs, in place", step_in_place),
        ("is a `return` missing?", step_without_return),
        ("that treats β as a standard deviation", step_with_a_deviation),
        ("t is off by one", step_counted_from_one),
        ("RuntimeError: The size of tensor a", step_with_all_betas),
        ("the last step has none", step_after),
        ("this walks all the steps up to t", step_for_step),
        ("the noise is scaled down, too", step_with_shrunk_noise),
    ],
    "01.add_noise": [
        ("reshape alphas_cumprod[t] from (B,) to (B, 1, …, 1)", jump_not_reshaped),
        ("the shape is (4, 1, 4, 4), but it must be (4, 4)", jump_for_images_only),
        ("neither factor is rooted", jump_without_roots),
        ("the noise rate is not 1 − √ᾱ", jump_with_one_root),
        ("α and β of one step are used", jump_with_one_step_s_alpha),
        ("this is x_0 + σ · noise", jump_with_sigmas),
        ("a root is taken twice", jump_with_roots_of_rates),
        ("t is off by one", jump_counted_from_one),
        ("it changes x0, one of its inputs, in place", jump_in_place),
        ("are swapped", jump_with_swapped_inputs),
        ("the t are sorted", jump_with_sorted_t),
        ("the product stops before step t", jump_with_one_alpha_less),
        ("the β are added up", jump_with_summed_betas),
        ("the straight mixture of newer models", jump_on_the_chord),
        ("this is the velocity v", jump_to_the_velocity),
    ],
    "01.snr": [
        ("this is ᾱ, the signal's variance", the_signal_alone),
        ("upside down", upside_down),
        ("the ratio of the rates", ratio_of_rates),
        ("in decibels", ratio_in_decibels),
        ("this is ᾱ/β", ratio_to_beta),
        ("in the line `a = float(schedule.alphas_cumprod[t])`", ratio_for_a_number_only),
        ("ᾱ is squared", ratio_squared),
        ("α of one step is used", ratio_of_one_step),
        ("it is right for a whole number", ratio_for_a_number_only),
        ("for a whole number it is right", ratio_as_an_item),
        ("the mean over all t", ratio_of_a_mean),
        ("t isn't used", ratios_of_all),
        ("not (1 − √ᾱ)²", ratio_of_squared_differences),
    ],
    "01.make_betas": [
        ("the ends are written as numbers", betas_with_fixed_ends),
        ("the shape is (1000,), but it must be (7,)", betas_with_1000_steps),
        ("linear, 5 timesteps, from 0.01 to 0.3", betas_for_one_schedule_only),
        ("the last β isn't beta_end", betas_without_the_last),
        ("the last linear β isn't beta_end", betas_with_arange),
        ("the first linear β isn't beta_start", betas_without_the_first),
        ("the first β is 1 − f(1)/f(0), but here it is 0", betas_from_f_before),
        ("the division is by f(0)", betas_from_f_0),
        ("the factor π/2 is missing", betas_without_pi),
        ("these are the alphas", betas_as_alphas),
        ("is ignored for the cosine", betas_returned_too_early),
    ],
    "01.rescale_zero_snr": [
        ("ᾱ is shifted and scaled where √ᾱ belongs", rescaled_alphas_cumprod),
        ("√ᾱ is shifted, but not scaled", rescaled_without_scale),
        ("these are the alphas", rescaled_alphas),
        ("the first α is missing", rescaled_one_short),
        ("then divided by its first value", rescaled_by_the_first),
        ("is right only if the first signal rate is 1", rescaled_as_if_it_began_at_1),
        ("r[0] is a view", rescaled_with_a_view),
        ("the ratio is upside down", rescaled_upside_down),
        ("which roll puts before it", rescaled_with_roll),
        ("these are the ᾱ", rescaled_products),
        ("it changes betas, one of its inputs, in place", rescaled_in_place),
    ],
}
