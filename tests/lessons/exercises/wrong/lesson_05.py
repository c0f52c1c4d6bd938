"""Wrong answers to the exercises of lesson 05 as learners type them, and a piece of what they are told."""

import torch
import torch.nn.functional as F


def a_mean(gaussian):
    var = gaussian.logvar.exp()
    return 0.5 * (gaussian.mean**2 + var - 1 - gaussian.logvar).mean(dim=(1, 2, 3))


def one_number(gaussian):
    return -0.5 * torch.sum(1 + gaussian.logvar - gaussian.mean.pow(2) - gaussian.logvar.exp())


def as_in_old_code(gaussian):
    kl = -0.5 * (1 + gaussian.logvar - gaussian.mean.pow(2) - gaussian.logvar.exp())
    return kl.sum(dim=1).mean(dim=0)


def log_of_the_deviation(gaussian):
    std = gaussian.logvar.exp()
    return (0.5 * (gaussian.mean**2 + std**2 - 1) - std.log()).sum((1, 2, 3))


def without_half(gaussian):
    return (gaussian.mean**2 + gaussian.logvar.exp() - 1 - gaussian.logvar).sum((1, 2, 3))


def the_other_way_round(gaussian):
    var = gaussian.logvar.exp()
    return (0.5 * ((1 + gaussian.mean**2) / var - 1 + var.log())).flatten(1).sum(1)


def in_bits(gaussian):
    nats = 0.5 * (gaussian.mean**2 + gaussian.logvar.exp() - 1 - gaussian.logvar).sum((1, 2, 3))
    return nats / torch.log(torch.tensor(2.0))


def kl_without_gradient(gaussian):
    with torch.no_grad():
        return 0.5 * (gaussian.mean**2 + gaussian.logvar.exp() - 1 - gaussian.logvar).sum((1, 2, 3))


def kl_in_place(gaussian):
    mean, logvar = gaussian.mean.detach(), gaussian.logvar.detach()
    mean.pow_(2)
    return 0.5 * (mean + logvar.exp() - 1 - logvar).sum((1, 2, 3))


def kl_printed(gaussian):
    print(0.5 * (gaussian.mean**2 + gaussian.logvar.exp() - 1 - gaussian.logvar).sum((1, 2, 3)))


def with_the_variance(gaussian, noise):
    return gaussian.mean + torch.exp(gaussian.logvar) * noise


def with_logvar(gaussian, noise):
    return gaussian.mean + gaussian.logvar * noise


def half_outside(gaussian, noise):
    return gaussian.mean + 0.5 * torch.exp(gaussian.logvar) * noise


def plus_noise(gaussian, noise):
    return gaussian.mean + noise


def own_noise(gaussian, noise):
    return gaussian.mean + (0.5 * gaussian.logvar).exp() * torch.randn_like(gaussian.mean)


def by_normal(gaussian, noise):
    return torch.normal(gaussian.mean, (0.5 * gaussian.logvar).exp())


def only_the_mode(gaussian, noise):
    return gaussian.mode()


def cut_off(gaussian, noise):
    std = (0.5 * gaussian.logvar).exp().detach()
    return gaussian.mean + std * noise


def at_in_place(gaussian, noise):
    noise *= (0.5 * gaussian.logvar.detach()).exp()
    noise += gaussian.mean.detach()
    return noise


def another_order(noise, gaussian):
    return gaussian.mean + (0.5 * gaussian.logvar).exp() * noise


def mean_squared(image, again, gaussian, kl_weight):
    return F.mse_loss(again, image) + kl_weight * gaussian.kl().mean()


def weight_on_the_error(image, again, gaussian, kl_weight):
    error = ((image - again) ** 2).sum(dim=(1, 2, 3))
    return (kl_weight * error + gaussian.kl()).mean()


def kl_per_number(image, again, gaussian, kl_weight):
    error = ((image - again) ** 2).sum(dim=(1, 2, 3))
    return (error + kl_weight * gaussian.kl() / gaussian.mean[0].numel()).mean()


def everything_summed(image, again, gaussian, kl_weight):
    return ((image - again) ** 2).sum() + kl_weight * gaussian.kl().sum()


def everything_summed_and_the_kl_averaged(image, again, gaussian, kl_weight):
    return ((image - again) ** 2).sum() + kl_weight * gaussian.kl().mean()


def absolute(image, again, gaussian, kl_weight):
    return ((image - again).abs().sum((1, 2, 3)) + kl_weight * gaussian.kl()).mean()


def for_each_picture(image, again, gaussian, kl_weight):
    return (image - again).pow(2).sum((1, 2, 3)) + kl_weight * gaussian.kl()


def no_weight(image, again, gaussian, kl_weight):
    return ((image - again).pow(2).sum((1, 2, 3)) + gaussian.kl()).mean()


def rewarded(image, again, gaussian, kl_weight):
    return ((image - again).pow(2).sum((1, 2, 3)) - kl_weight * gaussian.kl()).mean()


def a_number(image, again, gaussian, kl_weight):
    return ((image - again).pow(2).sum((1, 2, 3)) + kl_weight * gaussian.kl()).mean().item()


def multiplied(autoencoder, latents):
    return autoencoder.decode(latents * autoencoder.config.scaling_factor)


def unscaled(autoencoder, latents):
    return autoencoder.decode(latents)


def written_in(autoencoder, latents):
    return autoencoder.decode(latents / 0.18215)


def clamped(autoencoder, latents):
    return autoencoder.decode(latents / autoencoder.config.scaling_factor).clamp(-1, 1)


def from_zero_to_one(autoencoder, latents):
    image = autoencoder.decode(latents / autoencoder.config.scaling_factor)
    return (image / 2 + 0.5).clamp(0, 1)


def decoded_in_place(autoencoder, latents):
    latents /= autoencoder.config.scaling_factor
    return autoencoder.decode(latents)


def the_first_only(autoencoder, latents):
    return autoencoder.decode(latents[:1] / autoencoder.config.scaling_factor)


def nothing_returned(autoencoder, latents):
    autoencoder.decode(latents / autoencoder.config.scaling_factor)


def divided(autoencoder, pictures, generator=None):
    if isinstance(generator, list):
        return torch.cat([divided(autoencoder, p[None], g) for p, g in zip(pictures, generator, strict=True)])
    gaussian = autoencoder.encode(pictures)
    latents = gaussian.mode() if generator is None else gaussian.sample(generator)
    return latents / autoencoder.config.scaling_factor


def always_the_mode(autoencoder, pictures, generator=None):
    return autoencoder.encode(pictures).mode() * autoencoder.config.scaling_factor


def scaled_twice(autoencoder, pictures, generator=None):
    scale = autoencoder.config.scaling_factor
    if isinstance(generator, list):
        alone = zip(pictures.split(1), generator, strict=True)
        return torch.cat([scaled_twice(autoencoder, one, its) for one, its in alone]) * scale
    gaussian = autoencoder.encode(pictures)
    return (gaussian.sample(generator) if generator else gaussian.mode()) * scale


def no_lists(autoencoder, pictures, generator=None):
    gaussian = autoencoder.encode(pictures)
    latents = gaussian.mode() if generator is None else gaussian.sample(generator)
    return latents * autoencoder.config.scaling_factor


def always_a_sample(autoencoder, pictures, generator=None):
    if isinstance(generator, list):
        alone = zip(pictures.split(1), generator, strict=True)
        return torch.cat([always_a_sample(autoencoder, one, its) for one, its in alone])
    return autoencoder.encode(pictures).sample(generator) * autoencoder.config.scaling_factor


def the_pictures_scaled(autoencoder, pictures, generator=None):
    pictures = pictures * autoencoder.config.scaling_factor
    if isinstance(generator, list):
        alone = zip(pictures.split(1), generator, strict=True)
        return torch.cat([autoencoder.encode(one).sample(its) for one, its in alone])
    gaussian = autoencoder.encode(pictures)
    return gaussian.mode() if generator is None else gaussian.sample(generator)


def stacked(autoencoder, pictures, generator=None):
    if isinstance(generator, list):
        alone = zip(pictures.split(1), generator, strict=True)
        return torch.stack([stacked(autoencoder, one, its) for one, its in alone])
    gaussian = autoencoder.encode(pictures)
    latents = gaussian.mode() if generator is None else gaussian.sample(generator)
    return latents * autoencoder.config.scaling_factor


def with_sd_s_factor(autoencoder, pictures, generator=None):
    if isinstance(generator, list):
        alone = zip(pictures.split(1), generator, strict=True)
        return torch.cat([with_sd_s_factor(autoencoder, one, its) for one, its in alone])
    gaussian = autoencoder.encode(pictures)
    return 0.18215 * (gaussian.mode() if generator is None else gaussian.sample(generator))


WRONG = {
    "05.kl": [
        ("the KL of a vector is the sum over its numbers", a_mean),
        ("all pictures are summed up", one_number),
        ("the shape is", as_in_old_code),
        ("logarithm of the standard deviation", log_of_the_deviation),
        ("the factor 1/2 is missing", without_half),
        ("the two are swapped", the_other_way_round),
        ("in bits", in_bits),
        ("no gradient reaches", kl_without_gradient),
        ("changes mean, one of its inputs, in place", kl_in_place),
        ("it prints its result", kl_printed),
    ],
    "05.at": [
        ("multiplied by the variance", with_the_variance),
        ("multiplied by logvar", with_logvar),
        ("the 1/2 belongs inside the exp", half_outside),
        ("the noise isn't scaled", plus_noise),
        ("random numbers of its own", own_noise),
        ("random numbers of its own", by_normal),
        ("the noise is forgotten", only_the_mode),
        ("σ is cut off", cut_off),
        ("changes noise, one of its inputs, in place", at_in_place),
        ("object has no attribute 'logvar'", another_order),
    ],
    "05.vae_loss": [
        ("this is the mean of the squared errors, over all numbers", mean_squared),
        ("the weight multiplies the error", weight_on_the_error),
        ("the KL is divided by the number of latents", kl_per_number),
        ("the pictures are summed, but their mean is asked for", everything_summed),
        ("the errors of all pictures are summed", everything_summed_and_the_kl_averaged),
        ("the error isn't squared", absolute),
        ("this is one loss for each picture", for_each_picture),
        ("the weight is forgotten", no_weight),
        ("the KL is subtracted", rewarded),
        ("the loss isn't a tensor", a_number),
    ],
    "05.decode_latents": [
        ("the latents are multiplied by the scaling factor", multiplied),
        ("the scaling factor is forgotten", unscaled),
        ("Stable Diffusion 1's factor is written in", written_in),
        ("the picture is clamped", clamped),
        ("brought to 0 … 1 and clamped", from_zero_to_one),
        ("changes latents, one of its inputs, in place", decoded_in_place),
        ("the shape is", the_first_only),
        ("is a `return` missing", nothing_returned),
    ],
    "05.encode_pictures": [
        ("the latents are divided by the scaling factor", divided),
        ("a generator is given, but the mean is returned", always_the_mode),
        ("the factor is applied twice", scaled_twice),
        ("TypeError", no_lists),
        ("random numbers of its own", always_a_sample),
        ("the pictures are multiplied by the factor", the_pictures_scaled),
        ("torch.stack makes a new dimension", stacked),
        ("Stable Diffusion 1's factor is written in", with_sd_s_factor),
    ],
}
