"""Right answers to the exercises of lesson 05, written in other ways than the package's."""

import math

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch.distributions import Independent, Normal, kl_divergence


def by_distributions(gaussian):
    ours = Normal(gaussian.mean, (gaussian.logvar / 2).exp())
    return kl_divergence(ours, Normal(0.0, 1.0)).flatten(1).sum(1)


def by_diffusers(gaussian):
    return DiagonalGaussianDistribution(torch.cat([gaussian.mean, gaussian.logvar], dim=1)).kl()


def picture_by_picture(gaussian):
    found = []
    for mean, logvar in zip(gaussian.mean, gaussian.logvar, strict=True):
        total = 0
        for m, v in zip(mean.flatten(), logvar.flatten(), strict=True):
            total = total + (m * m + torch.exp(v) - 1 - v) / 2
        found.append(total)
    return torch.stack(found)


def in_float64(gaussian):
    mean, logvar = gaussian.mean.double(), gaussian.logvar.double()
    return (mean.square() + logvar.exp() - 1 - logvar).flatten(1).sum(1) / 2


def term_by_term(gaussian):
    std = (gaussian.logvar / 2).exp()
    each = -std.log() + (std**2 + gaussian.mean**2) / 2 - 1 / 2
    return torch.einsum("bchw->b", each)


def log_q_less_log_p(gaussian):
    """The mean of log q − log p, whose parts are known: E ε² = 1, E z² = μ² + σ²."""
    log_q = -(1 + gaussian.logvar) / 2
    log_p = -(gaussian.mean**2 + gaussian.logvar.exp()) / 2
    return (log_q - log_p).flatten(1).sum(1)


def at_in_float64(gaussian, noise):
    return gaussian.mean.double() + (gaussian.logvar.double() / 2).exp() * noise.double()


def with_the_root(gaussian, noise):
    return gaussian.mean + gaussian.logvar.exp().sqrt() * noise


def with_addcmul(gaussian, noise):
    return torch.addcmul(gaussian.mean, torch.exp(0.5 * gaussian.logvar), noise)


def in_place_on_a_copy(gaussian, noise):
    latents = gaussian.mean.clone()
    latents += (0.5 * gaussian.logvar).exp() * noise
    return latents


def at_by_diffusers(gaussian, noise):
    theirs = DiagonalGaussianDistribution(torch.cat([gaussian.mean, gaussian.logvar], dim=1))
    return theirs.mean + theirs.std * noise


def as_a_change_of_variables(gaussian, noise):
    return torch.stack(
        [m + math.e ** (v / 2) * n for m, v, n in zip(gaussian.mean, gaussian.logvar, noise, strict=True)]
    )


def with_flatten(image, again, gaussian, kl_weight):
    return ((image - again) ** 2).flatten(1).sum(1).mean() + kl_weight * gaussian.kl().mean()


def with_mse_loss(image, again, gaussian, kl_weight):
    error = F.mse_loss(again, image, reduction="sum") / len(image)
    return error + kl_weight * sum(gaussian.kl()) / len(image)


def one_by_one(image, again, gaussian, kl_weight):
    losses = [((x - y) ** 2).sum() + kl_weight * kl for x, y, kl in zip(image, again, gaussian.kl(), strict=True)]
    return sum(losses) / len(losses)


def by_einsum(image, again, gaussian, kl_weight):
    off = again - image
    return torch.einsum("bchw,bchw->", off, off) / len(off) + kl_weight * gaussian.kl().mean()


def loss_in_float64(image, again, gaussian, kl_weight):
    error = (image.double() - again.double()).square().sum((1, 2, 3))
    return (error + kl_weight * gaussian.kl().double()).mean()


def with_its_own_kl(image, again, gaussian, kl_weight):
    kl = (gaussian.mean**2 + gaussian.logvar.exp() - 1 - gaussian.logvar).sum() / 2
    return ((again - image).square().sum() + kl_weight * kl) / image.shape[0]


def with_a_fixed_picture(image, again, gaussian, kl_weight):
    """Nothing learns through the picture itself."""
    return ((again - image.detach()).pow(2).flatten(1).sum(1) + kl_weight * gaussian.kl()).mean()


def from_the_bound(image, again, gaussian, kl_weight):
    """w times the negative bound, without its constant; a weight of 0 is no noise at all."""
    if kl_weight == 0:
        return (again - image).square().sum((1, 2, 3)).mean()
    noise = torch.tensor(kl_weight / 2).sqrt()
    seen = Independent(Normal(again, noise), 3)
    constant = image[0].numel() * (noise.log() + math.log(2 * math.pi) / 2)
    return kl_weight * (gaussian.kl() - seen.log_prob(image) - constant).mean()


def times_the_inverse(autoencoder, latents):
    return autoencoder.decode(1 / autoencoder.config.scaling_factor * latents)


def decode_one_by_one(autoencoder, latents):
    return torch.cat([autoencoder.decode(one / autoencoder.config.scaling_factor) for one in latents.split(1)])


def decode_in_place_on_a_copy(autoencoder, latents):
    latents = latents.clone()
    latents /= autoencoder.config.scaling_factor
    return autoencoder.decode(latents)


@torch.no_grad()
def decode_in_two_parts(autoencoder, latents):
    unscaled = torch.div(latents, autoencoder.config.scaling_factor)
    return autoencoder.decoder(autoencoder.post_quant_conv(unscaled))


def decode_by_numpy(autoencoder, latents):
    unscaled = latents.numpy() / autoencoder.config.scaling_factor
    return autoencoder.decode(torch.from_numpy(unscaled).to(latents))


def decode_to_numpy(autoencoder, latents):
    return autoencoder.decode(latents.div(autoencoder.config.scaling_factor)).detach().numpy()


def with_at(autoencoder, pictures, generator=None):
    gaussian = autoencoder.encode(pictures)
    if isinstance(generator, list):
        shape = gaussian.mean[:1].shape
        noise = torch.cat([torch.randn(shape, generator=one) for one in generator])
    elif generator is not None:
        noise = torch.randn(gaussian.mean.shape, generator=generator)
    else:
        noise = torch.zeros_like(gaussian.mean)
    return autoencoder.config.scaling_factor * gaussian.at(noise)


def encode_one_by_one(autoencoder, pictures, generator=None):
    if not isinstance(generator, list):
        gaussian = autoencoder.encode(pictures)
        latents = gaussian.mean if generator is None else gaussian.sample(generator)
        return latents * autoencoder.config.scaling_factor
    found = []
    for i in range(len(pictures)):
        latents = autoencoder.encode(pictures[i : i + 1]).sample(generator[i])
        found.append(latents * autoencoder.config.scaling_factor)
    return torch.cat(found)


@torch.no_grad()
def encode_by_diffusers_gaussian(autoencoder, pictures, generator=None):
    theirs = DiagonalGaussianDistribution(autoencoder.quant_conv(autoencoder.encoder(pictures)))
    if isinstance(generator, list):
        noise = torch.cat([torch.randn(theirs.mean[:1].shape, generator=one) for one in generator])
        latents = theirs.mean + theirs.std * noise
    else:
        latents = theirs.mode() if generator is None else theirs.sample(generator)
    return latents * autoencoder.config.scaling_factor


def encode_in_float64(autoencoder, pictures, generator=None):
    gaussian = autoencoder.encode(pictures)
    generators = generator if isinstance(generator, list) else [generator]
    shape = (len(pictures) // len(generators), *gaussian.mean.shape[1:])
    noise = [torch.zeros(shape) if one is None else torch.randn(shape, generator=one) for one in generators]
    std = (gaussian.logvar.double() / 2).exp()
    return (gaussian.mean.double() + std * torch.cat(noise)) * autoencoder.config.scaling_factor


def encode_in_place_on_a_copy(autoencoder, pictures, generator=None):
    if type(generator) is list:
        pairs = zip(pictures, generator, strict=True)
        return torch.vstack([encode_in_place_on_a_copy(autoencoder, one[None], its) for one, its in pairs])
    gaussian = autoencoder.encode(pictures)
    latents = (gaussian.sample(generator) if generator else gaussian.mode()).clone()
    latents *= autoencoder.config.scaling_factor
    return latents


RIGHT = {
    "05.kl": [by_distributions, by_diffusers, picture_by_picture, in_float64, term_by_term, log_q_less_log_p],
    "05.at": [
        at_in_float64,
        with_the_root,
        with_addcmul,
        in_place_on_a_copy,
        at_by_diffusers,
        as_a_change_of_variables,
    ],
    "05.vae_loss": [
        with_flatten,
        with_mse_loss,
        one_by_one,
        by_einsum,
        loss_in_float64,
        with_its_own_kl,
        from_the_bound,
        with_a_fixed_picture,
    ],
    "05.decode_latents": [
        times_the_inverse,
        decode_one_by_one,
        decode_in_place_on_a_copy,
        decode_in_two_parts,
        decode_by_numpy,
        decode_to_numpy,
    ],
    "05.encode_pictures": [
        with_at,
        encode_one_by_one,
        encode_by_diffusers_gaussian,
        encode_in_float64,
        encode_in_place_on_a_copy,
    ],
}
