"""Wrong answers to the exercises of lesson 05 as learners type them, and a piece of what they are told."""

import math

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


def kl_of_the_class(gaussian):
    return gaussian.kl()


def famous_slip(gaussian):
    return -0.5 * (1 + gaussian.logvar + gaussian.mean.pow(2) - gaussian.logvar.exp()).sum(dim=(1, 2, 3))


def one_for_each_picture(gaussian):
    each = gaussian.mean.square() + gaussian.logvar.exp() - gaussian.logvar
    return (each.flatten(1).sum(1) - 1) / 2


def kept_dimensions(gaussian):
    return 0.5 * (gaussian.mean**2 + gaussian.logvar.exp() - 1 - gaussian.logvar).sum((1, 2, 3), keepdim=True)


def channels_averaged(gaussian):
    return 0.5 * (gaussian.mean**2 + gaussian.logvar.exp() - 1 - gaussian.logvar).sum((2, 3)).mean(1)


def never_0(gaussian):
    return 0.5 * (gaussian.mean**2 + gaussian.logvar.exp() - 1 - gaussian.logvar).sum((1, 2, 3)).clamp(min=1e-3)


def at_of_the_class(gaussian, noise):
    return gaussian.at(noise)


def mean_and_noise_swapped(gaussian, noise):
    return torch.exp(gaussian.logvar / 2) * gaussian.mean + noise


def solved_for_the_noise(gaussian, noise):
    return (noise - gaussian.mean) / torch.exp(gaussian.logvar / 2)


def one_sigma(gaussian, noise):
    return gaussian.mean + (gaussian.logvar / 2).exp().mean() * noise


def with_the_reconstruction_clamped(image, again, gaussian, kl_weight):
    return ((again.clamp(-1, 1) - image).square().sum((1, 2, 3)) + kl_weight * gaussian.kl()).mean()


def both_clamped(image, again, gaussian, kl_weight):
    error = (again.clamp(-1, 1) - image.clamp(-1, 1)).square().sum((1, 2, 3))
    return (error + kl_weight * gaussian.kl()).mean()


def free_bits(image, again, gaussian, kl_weight):
    return ((again - image).square().sum((1, 2, 3)) + kl_weight * gaussian.kl().clamp(min=1)).mean()


def huber(image, again, gaussian, kl_weight):
    off = (image - again).abs()
    return (torch.where(off < 2.5, off**2, off).sum((1, 2, 3)) + kl_weight * gaussian.kl()).mean()


def negative(image, again, gaussian, kl_weight):
    return -((again - image).square().sum((1, 2, 3)) + kl_weight * gaussian.kl()).mean()


def weight_on_both(image, again, gaussian, kl_weight):
    return kl_weight * ((again - image).square().sum((1, 2, 3)) + gaussian.kl()).mean()


def error_over_the_weight(image, again, gaussian, kl_weight):
    return ((again - image).square().sum((1, 2, 3)) / kl_weight + gaussian.kl()).mean()


def loss_with_bits(image, again, gaussian, kl_weight):
    return ((again - image).square().sum((1, 2, 3)) + kl_weight * gaussian.kl() / math.log(2)).mean()


def weight_written_in(image, again, gaussian, kl_weight):
    return ((again - image).square().sum((1, 2, 3)) + 20 * gaussian.kl()).mean()


def over_the_colours(image, again, gaussian, kl_weight):
    return (again - image).square().sum(dim=1).mean() + kl_weight * gaussian.kl().mean()


def both_parts(image, again, gaussian, kl_weight):
    return (again - image).square().sum((1, 2, 3)).mean(), kl_weight * gaussian.kl().mean()


def a_tensor_of_a_number(image, again, gaussian, kl_weight):
    return torch.tensor(((again - image).square().sum((1, 2, 3)) + kl_weight * gaussian.kl()).mean().item())


def decoded_and_squashed(autoencoder, latents):
    return autoencoder.decode(latents / autoencoder.config.scaling_factor).tanh()


def decoded_and_cut(autoencoder, latents):
    return autoencoder.decode(latents / autoencoder.config.scaling_factor)[:, :, :64, :64]


def clamped_at_3(autoencoder, latents):
    return autoencoder.decode(latents / autoencoder.config.scaling_factor).clamp(-3, 3)


def noise_for(shape, generator, alone):
    """Noise for all pictures, `alone(generators, shape)` for a list."""
    if generator is None:
        return torch.zeros(shape)
    return alone(generator, shape) if isinstance(generator, list) else torch.randn(shape, generator=generator)


def by_the_first(autoencoder, pictures, generator=None):
    gaussian = autoencoder.encode(pictures)
    noise = noise_for(gaussian.mean.shape, generator, lambda all, shape: torch.randn(shape, generator=all[0]))
    return gaussian.at(noise) * autoencoder.config.scaling_factor


def each_for_all(autoencoder, pictures, generator=None):
    def alone(generators, shape):
        return torch.cat([torch.randn(shape, generator=one)[i : i + 1] for i, one in enumerate(generators)])

    gaussian = autoencoder.encode(pictures)
    return gaussian.at(noise_for(gaussian.mean.shape, generator, alone)) * autoencoder.config.scaling_factor


def reversed_list(autoencoder, pictures, generator=None):
    def alone(generators, shape):
        return torch.cat([torch.randn((1, *shape[1:]), generator=one) for one in reversed(generators)])

    gaussian = autoencoder.encode(pictures)
    return gaussian.at(noise_for(gaussian.mean.shape, generator, alone)) * autoencoder.config.scaling_factor


def same_noise_for_all(autoencoder, pictures, generator=None):
    gaussian = autoencoder.encode(pictures)
    if isinstance(generator, list):
        noise = torch.cat([torch.randn(gaussian.mean[:1].shape, generator=one) for one in generator])
    elif generator is None:
        noise = 0
    else:
        noise = torch.randn(gaussian.mean[:1].shape, generator=generator)
    return gaussian.at(noise) * autoencoder.config.scaling_factor


def mean_counted_twice(autoencoder, pictures, generator=None):
    if isinstance(generator, list):
        alone = zip(pictures.split(1), generator, strict=True)
        return torch.cat([mean_counted_twice(autoencoder, one, its) for one, its in alone])
    gaussian = autoencoder.encode(pictures)
    latents = gaussian.mode() if generator is None else gaussian.mode() + gaussian.sample(generator)
    return latents * autoencoder.config.scaling_factor


def draws_in_secret(autoencoder, pictures, generator=None):
    if isinstance(generator, list):
        alone = zip(pictures.split(1), generator, strict=True)
        return torch.cat([draws_in_secret(autoencoder, one, its) for one, its in alone])
    gaussian = autoencoder.encode(pictures)
    if generator is None:
        return gaussian.mode() * autoencoder.config.scaling_factor
    state = generator.get_state()
    latents = gaussian.sample(generator)
    generator.set_state(state)
    return latents * autoencoder.config.scaling_factor


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
        ("gaussian.kl() becomes your own function", kl_of_the_class),
        ("the square of the mean is subtracted", famous_slip),
        ("the 1 is subtracted once for each picture", one_for_each_picture),
        ("keepdim leaves dimensions of length 1", kept_dimensions),
        ("the mean over the channels", channels_averaged),
        ("a KL of 0", never_0),
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
        ("gaussian.at(), which gaussian.sample() calls, becomes your own function", at_of_the_class),
        ("mean and noise have changed places", mean_and_noise_swapped),
        ("this is (3) solved for the noise", solved_for_the_noise),
        ("all numbers get the same σ", one_sigma),
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
        ("the reconstruction is clamped", with_the_reconstruction_clamped),
        ("the reconstruction is clamped", both_clamped),
        ("a KL below 1 is counted as 1", free_bits),
        ("far outside of −1 … 1", huber),
        ("the sign of the whole is wrong", negative),
        ("the weight multiplies both", weight_on_both),
        ("the error is divided by the weight", error_over_the_weight),
        ("the KL is counted in bits", loss_with_bits),
        ("the weight 20 is written in", weight_written_in),
        ("summed over the colours only", over_the_colours),
        ("it returns 2 values", both_parts),
        ("no gradient reaches again", a_tensor_of_a_number),
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
        ("the picture goes through a tanh", decoded_and_squashed),
        ("the shape is (1, 3, 2, 64)", decoded_and_cut),
        ("far outside of −1 … 1", clamped_at_3),
    ],
    "05.encode_pictures": [
        ("the latents are divided by the scaling factor", divided),
        ("a generator is given, but the mean is returned", always_the_mode),
        ("the factor is applied twice", scaled_twice),
        ("generator can also be a list", no_lists),
        ("random numbers of its own", always_a_sample),
        ("the pictures are multiplied by the factor", the_pictures_scaled),
        ("torch.stack makes a new dimension", stacked),
        ("Stable Diffusion 1's factor is written in", with_sd_s_factor),
        ("the first generator draws for the whole batch", by_the_first),
        ("each generator draws for the whole batch", each_for_all),
        ("gone through from its end", reversed_list),
        ("all pictures get the same noise", same_noise_for_all),
        ("the mean is counted twice", mean_counted_twice),
        ("it leaves `generator` as it was before", draws_in_secret),
    ],
}
