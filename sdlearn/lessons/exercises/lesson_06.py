"""The exercises of lesson 06."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sdlearn.lessons.exercises.exercise import Case, Exercise
from sdlearn.models.autoencoder import Gaussian
from sdlearn.models.blocks import Downsample
from sdlearn.training.first_stage import adaptive_weight, discriminator_loss, perceptual_distance, scaling_factor


def colors(x: Tensor) -> list[Tensor]:
    """One layer, which sees the picture as it is."""
    return [x]


def three_layers(x: Tensor) -> list[Tensor]:
    """Smaller and smaller layers with more and more channels."""
    coarse = F.avg_pool2d(x, 2)
    return [x, torch.cat([coarse, coarse.sin()], 1), torch.cat([F.avg_pool2d(x, 4).cos()] * 3, 1) - 0.3]


def blind_spots(x: Tensor) -> list[Tensor]:
    """What a ReLU lets through: some pixels, at the left, are 0 in all channels, and none is nearly 0."""
    seen = F.relu(x) + 0.1 * (x > 0)
    return [seen * (torch.arange(x.shape[-1]) > 1), F.avg_pool2d(seen, 2)]


def two_pictures(generator: torch.Generator) -> Iterator[Case]:
    """A network, and two batches of pictures (B, 3, H, W)."""
    for words, features, shape in (
        ("one layer", colors, (2, 3, 5, 7)),
        ("three layers of different sizes", three_layers, (3, 3, 8, 12)),
        ("two layers, and some pixels are 0 in all channels", blind_spots, (1, 3, 4, 6)),
        ("three layers, one picture", three_layers, (1, 3, 12, 4)),
    ):
        one, other = torch.randn(2, *shape, generator=generator)
        yield Case(words, features, one, other)


def distance_to_learn_from(
    part: Callable[..., Tensor], features: Callable[[Tensor], Sequence[Tensor]], one: Tensor, other: Tensor
) -> Tensor:
    """The distance from pictures that have a gradient. Raises TypeError or ValueError if none reaches them, or NaN.

    The other pictures need no gradient: nothing is learned through them.
    """
    one = one.clone().requires_grad_()
    distance = part(features, one, other.detach())
    if isinstance(distance, int | float | np.ndarray | np.generic):
        raise TypeError("the distance is no tensor, so nothing can be learned from it: .item() or NumPy cuts it off")
    if isinstance(distance, Tensor) and not distance.requires_grad:
        raise ValueError("no gradient reaches the pictures, so nothing can be learned: no_grad or detach() cuts it off")
    if isinstance(distance, Tensor) and distance.isfinite().all():
        (gradient,) = torch.autograd.grad(distance.sum(), one, retain_graph=True, allow_unused=True)
        if gradient is not None and gradient.isnan().any():
            raise ValueError(
                "the distance is a number, but its gradient is NaN where all channels are 0: a root has no slope at 0, "
                "so what keeps the length from 0 must stand inside the root; F.normalize takes care of it"
            )
    return distance


def verdicts(generator: torch.Generator) -> Iterator[Case]:
    """A discriminator's numbers for real and for fake patches (B, 1, h, w), some beyond the margin, some not."""
    for words, real, fake in (
        ("as many real patches as fake ones", (2, 1, 3, 5), (2, 1, 3, 5)),
        ("more fake patches than real ones", (2, 1, 2, 3), (3, 1, 2, 3)),
        ("one picture, one row of patches, and large numbers", (1, 1, 1, 7), (1, 1, 1, 7)),
    ):
        size = 60 if "large" in words else 1.5
        yield Case(words, size * torch.randn(real, generator=generator), size * torch.randn(fake, generator=generator))
    yield Case(
        "everything is right by more than the margin", torch.full((2, 1, 2, 2), 3.0), torch.full((2, 1, 2, 2), -3.0)
    )


def loss_to_learn_from(part: Callable[..., Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """The loss of numbers that have a gradient. Raises TypeError or ValueError if none reaches them."""
    real, fake = (one.clone().requires_grad_() for one in (real, fake))
    loss = part(real, fake)
    if isinstance(loss, int | float | np.ndarray | np.generic):
        raise TypeError("the loss is no tensor, so the discriminator can't learn from it: .item() or NumPy cuts it off")
    if isinstance(loss, Tensor) and not loss.requires_grad:
        raise ValueError(
            "no gradient reaches the discriminator, so it can't learn: no_grad, detach() or a comparison cuts it off"
        )
    return loss


def halvings(generator: torch.Generator) -> Iterator[Case]:
    """Channels and where to pad, and a picture (B, C, H, W) whose sides are even."""
    for words, arguments, shape in (
        ("the UNet's: padded on every side", (3, True), (2, 3, 6, 8)),
        ("the autoencoder's: padded at the right and at the bottom", (4, False), (1, 4, 8, 6)),
        ("the autoencoder's, one channel", {"channels": 1, "symmetric": False}, (3, 1, 4, 6)),
        ("the UNet's, the smallest picture, with large numbers", {"channels": 2}, (1, 2, 2, 2)),
    ):
        size = 100 if "large" in words else 1
        yield Case(words, arguments, size * torch.randn(shape, generator=generator))


class Encoder:
    """Stands for an autoencoder of which only the encoder is needed: half as wide, half as high, one channel more."""

    def __init__(self, gain: float, offset: float) -> None:
        self.gain, self.offset = gain, offset

    def encode(self, pictures: Tensor) -> Gaussian:
        half = F.avg_pool2d(pictures, 2)
        mean = self.gain * torch.cat([half, half[:, :1] ** 2], 1) + self.offset
        return Gaussian(mean, 0.3 * mean.sin() - 2)


def picture_batches(generator: torch.Generator) -> Iterator[Case]:
    """An autoencoder, and batches of pictures (B, 3, H, W), so many that it makes no difference to count one less."""
    for words, gain, offset, shapes in (
        ("one batch", 5.0, 0.0, [(4, 3, 160, 160)]),
        ("latents with a mean far from 0", 0.4, 2.0, [(3, 3, 192, 160)]),
        (
            "three batches, the last one smaller and of larger pictures",
            2.0,
            -0.5,
            [(2, 3, 128, 96)] * 2 + [(1, 3, 256, 256)],
        ),
    ):
        spread = [1.0, 0.5, 2.0]
        batches = [s * torch.randn(shape, generator=generator) for s, shape in zip(spread, shapes, strict=False)]
        yield Case(words, Encoder(gain, offset), batches)


def pulls(generator: torch.Generator) -> Iterator[Case]:
    """The last layer's weights (out, in, 3, 3), a target of the reconstruction, and the adversarial loss's strength."""
    for words, shape, far, strength in (
        ("both pull about equally", (3, 4, 3, 3), 1.0, 1.0),
        ("the adversarial loss pulls hard", (2, 5, 1, 1), 1.0, 40.0),
        ("both hardly pull", (3, 2, 3, 3), 1e-5, 1e-4),
        ("the adversarial loss doesn't pull at all", (1, 2, 3, 3), 100.0, 0.0),
        ("neither pulls, or hardly", (2, 2, 3, 3), 1e-3, 0.0),
    ):
        weight, target = torch.randn(2, *shape, generator=generator)
        yield Case(words, weight, target, far, strength)


def weigh(part: Callable[..., Tensor], weight: Tensor, target: Tensor, far: float, strength: float) -> Tensor:
    """The weight for two losses of a layer.

    Raises ValueError if it leaves a gradient, has one itself, changes the layer, or breaks the losses' graph.
    """
    last_layer = weight.clone().requires_grad_()
    before = torch.full((), 2.0, requires_grad=True)  # a parameter of an earlier layer
    hidden = before * last_layer
    reconstruction = (hidden - 2 * weight - far * target).square().sum()
    adversarial = strength * (hidden * target.sin()).sum()
    try:
        found = part(reconstruction, adversarial, last_layer)
    except RuntimeError as error:
        if "a second time" not in str(error):
            raise
        raise ValueError("the first gradient uses up the graph that the next needs: add retain_graph=True") from error
    if last_layer.grad is not None:
        raise ValueError("it leaves a gradient in last_layer.grad, which the optimizer would use: take autograd.grad")
    if before.grad is not None:
        raise ValueError(
            "its backward() leaves gradients in other layers' .grad, which the optimizer would use: take autograd.grad"
        )
    if not last_layer.requires_grad or not torch.equal(last_layer, weight):
        raise ValueError("it changes last_layer, which belongs to the decoder")
    if isinstance(found, Tensor) and found.requires_grad:
        right = adaptive_weight(reconstruction, adversarial, last_layer)
        found = found.detach()  # a wrong value tells more
        if right < 1e4 and found.shape == right.shape and torch.isclose(found.to(right), right, rtol=1e-3):
            raise ValueError("the value is right, but a gradient flows through it: create_graph isn't needed")
    (reconstruction + adversarial).backward()
    return found


EXERCISES = (
    Exercise(
        "06.perceptual_distance",
        perceptual_distance,
        two_pictures,
        difficulty=2,
        minutes=8,
        run=distance_to_learn_from,
        box="decoder",
        gradients=True,
    ),
    Exercise(
        "06.discriminator_loss",
        discriminator_loss,
        verdicts,
        difficulty=1,
        minutes=5,
        run=loss_to_learn_from,
        box="decoder",
        gradients=True,
    ),
    Exercise("06.scaling_factor", scaling_factor, picture_batches, difficulty=1, minutes=5, box="decoder"),
    Exercise("06.downsample", Downsample, halvings, 1, 5, part="downsample", box="UNet", gradients=True),
    Exercise(
        "06.adaptive_weight", adaptive_weight, pulls, difficulty=2, minutes=8, run=weigh, box="decoder", core=False
    ),
)
