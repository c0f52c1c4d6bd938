"""The exercises of lesson 05. The classic mistakes are in hints/05.en.md."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sdlearn.lessons.check import randomize_
from sdlearn.lessons.exercises.exercise import Case, Exercise
from sdlearn.lessons.small_vae import vae_loss
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig, Gaussian
from sdlearn.pipeline import decode_latents, encode_pictures


class Unfinished(Gaussian):
    """A Gaussian without the methods that the learner's functions become: called there, they would call themselves."""

    def kl(self) -> Tensor:
        raise TypeError(
            "gaussian.kl() becomes your own function; compute the KL from gaussian.mean and gaussian.logvar"
        )

    def at(self, noise: Tensor) -> Tensor:
        raise TypeError(
            "gaussian.at(), which gaussian.sample() calls, becomes your own function; "
            "compute z from gaussian.mean and gaussian.logvar"
        )


def gaussians(generator: torch.Generator) -> Iterator[Case]:
    """Means and log-variances (B, C, H, W)."""
    for words, shape, spread in (
        ("three pictures, latents of 4×5×2", (3, 4, 5, 2), 1.0),
        ("one picture, a vector of 7 numbers", (1, 7, 1, 1), 1.0),
        ("two pictures, very narrow and very wide Gaussians", (2, 3, 1, 4), 4.0),
    ):
        mean, logvar = torch.randn(2, *shape, generator=generator)
        yield Case(words, mean, spread * logvar)
    narrow = torch.full((2, 1, 3, 3), -30.0)
    yield Case(
        "log-variances of −30, the least that the encoder allows", torch.randn(2, 1, 3, 3, generator=generator), narrow
    )
    yield Case("two pictures that are N(0, 1): a KL of 0", torch.zeros(2, 2, 1, 3), torch.zeros(2, 2, 1, 3))


def gaussians_and_noise(generator: torch.Generator) -> Iterator[Case]:
    """Means, log-variances and noise (B, C, H, W)."""
    for words, shape, spread in (
        ("three pictures, latents of 4×5×2", (3, 4, 5, 2), 1.0),
        ("one picture, a vector of 7 numbers", (1, 7, 1, 1), 1.0),
        ("two pictures, very narrow and very wide Gaussians", (2, 3, 1, 4), 4.0),
    ):
        mean, logvar, noise = torch.randn(3, *shape, generator=generator)
        yield Case(words, mean, spread * logvar, noise)


def kl_of(part: Callable[..., Tensor], mean: Tensor, logvar: Tensor) -> Tensor:
    """The KL of a Gaussian with this mean and log-variance, through which an encoder can learn."""
    return part(Unfinished(mean, logvar))


def point_of(part: Callable[..., Tensor], mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """The latents at this noise, through which an encoder can learn."""
    return part(Unfinished(mean, logvar), noise)


def reconstructions(generator: torch.Generator) -> Iterator[Case]:
    """Pictures and reconstructions (B, 3, H, W), means and log-variances (B, C, h, w), and a weight."""
    for words, shape, latents, weight, reach, spread in (
        ("three pictures of 6×4 pixels", (3, 3, 6, 4), (3, 4, 2, 3), 0.7, 1.0, 1.0),
        (
            "two pictures of 2×3 pixels, a vector of 5 numbers, a large weight",
            (2, 3, 2, 3),
            (2, 5, 1, 1),
            30.0,
            1.0,
            1.0,
        ),
        ("one picture, a reconstruction far outside of −1 … 1", (1, 3, 4, 4), (1, 2, 2, 2), 1.3, 4.0, 1.0),
        ("four pictures with Gaussians close to N(0, 1)", (4, 3, 2, 1), (4, 3, 1, 1), 9.0, 1.5, 0.05),
        ("five pictures, a weight of 0: the KL doesn't count", (5, 3, 1, 2), (5, 3, 1, 1), 0.0, 1.0, 1.0),
    ):
        image, again = torch.rand(2, *shape, generator=generator) * 2 - 1
        mean, logvar = torch.randn(2, *latents, generator=generator)
        yield Case(f"{words}, kl_weight = {weight}", image, reach * again, spread * mean, spread * logvar, weight)


def loss_of(
    part: Callable[..., Tensor], image: Tensor, again: Tensor, mean: Tensor, logvar: Tensor, kl_weight: float
) -> Tensor:
    """The loss with a Gaussian of this mean and log-variance. Raises TypeError if nothing can learn from it.

    Nothing learns through the picture itself, so gradients by it aren't asked for.
    """
    loss = part(image.detach(), again, Gaussian(mean, logvar), kl_weight)
    if isinstance(loss, int | float):
        raise TypeError("the loss isn't a tensor, so the network can't learn from it; return it without .item()")
    return loss


def autoencoder(scaling_factor: float, seed: int, latent_channels: int = 4) -> Autoencoder:
    """A very small one, with random weights."""
    config = AutoencoderConfig(
        block_out_channels=(4, 8),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=2,
        scaling_factor=scaling_factor,
        mid_block_add_attention=False,
    )
    return randomize_(Autoencoder(config), seed).requires_grad_(False)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def latents(generator: torch.Generator) -> Iterator[Case]:
    """Autoencoders with odd scaling factors, and scaled latents (B, C, h, w)."""
    for words, scale, shape, gain in (
        ("two latents of 3×2, scaling_factor = 0.37", 0.37, (2, 4, 3, 2), 1),
        ("one latent, scaling_factor = 0.18215, as in Stable Diffusion 1", 0.18215, (1, 4, 2, 2), 1),
        ("three latents, a scaling_factor above 1", 2.5, (3, 3, 1, 2), 1),
        ("one latent of 1×35, a wide picture with values far outside of −1 … 1", 0.7, (1, 2, 1, 35), 5),
    ):
        network = autoencoder(scale, shape[0], shape[1])
        network.decoder.conv_out.weight *= gain
        yield Case(words, network, torch.randn(shape, generator=generator))


def pictures(generator: torch.Generator) -> Iterator[Case]:
    """Autoencoders with odd scaling factors, pictures (B, 3, H, W), and no generator, one, or one for each picture."""
    for words, scale, shape, seeds in (
        ("two pictures of 6×4, no generator, scaling_factor = 0.37", 0.37, (2, 3, 6, 4), None),
        ("three pictures and one generator, scaling_factor = 2.5", 2.5, (3, 3, 4, 4), 5),
        ("a generator for each of two pictures, scaling_factor = 0.37", 0.37, (2, 3, 2, 6), [1, 2]),
        ("one picture and a list with one generator, scaling_factor = 0.7", 0.7, (1, 3, 4, 2), [9]),
        ("one picture, no generator, scaling_factor = 0.18215", 0.18215, (1, 3, 2, 4), None),
    ):
        given = [seeded(seed) for seed in seeds] if isinstance(seeds, list) else seeds and seeded(seeds)
        image = torch.rand(shape, generator=generator) * 2 - 1
        yield Case(words, autoencoder(scale, shape[0]), image, given)


EXERCISES = (
    Exercise("05.kl", Gaussian.kl, gaussians, difficulty=2, minutes=6, run=kl_of, box="decoder", gradients=True),
    Exercise("05.at", Gaussian.at, gaussians_and_noise, 1, 4, run=point_of, box="decoder", gradients=True),
    Exercise("05.vae_loss", vae_loss, reconstructions, 2, 6, run=loss_of, box="decoder", gradients=True),
    Exercise("05.decode_latents", decode_latents, latents, 1, 3, part="decode_latents", box="decoder"),
    Exercise("05.encode_pictures", encode_pictures, pictures, 2, 8, core=False),
)
