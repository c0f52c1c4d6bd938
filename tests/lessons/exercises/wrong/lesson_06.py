"""Wrong answers to the exercises of lesson 06 as learners type them, and a piece of what they are told."""

import torch
import torch.nn.functional as F
from torch import nn


def plain_squares(features, one, other):
    return sum((a - b).square().sum(1).mean((1, 2)) for a, b in zip(features(one), features(other), strict=True))


def mean_over_everything(features, one, other):
    return sum(
        (F.normalize(a) - F.normalize(b)).square().mean() for a, b in zip(features(one), features(other), strict=True)
    )


def no_gradient(features, one, other):
    with torch.no_grad():
        layers = zip(features(one), features(other), strict=True)
        return sum((F.normalize(a) - F.normalize(b)).square().sum(1).mean((1, 2)) for a, b in layers)


def a_number(features, one, other):
    layers = zip(features(one), features(other), strict=True)
    return sum(((F.normalize(a) - F.normalize(b)).square().sum(1).mean()).item() for a, b in layers)


def without_a_guard(features, one, other):
    def unit(x):
        return x / x.square().sum(1, keepdim=True).sqrt()

    layers = zip(features(one), features(other), strict=True)
    return sum((unit(a) - unit(b)).square().sum(1).mean((1, 2)) for a, b in layers)


def early_return(features, one, other):
    for a, b in zip(features(one), features(other), strict=True):
        return (F.normalize(a) - F.normalize(b)).square().sum(1).mean((1, 2))


def mean_of_the_channels(features, one, other):
    layers = zip(features(one), features(other), strict=True)
    return sum((F.normalize(a) - F.normalize(b)).square().mean((1, 2, 3)) for a, b in layers)


def only_the_print(features, one, other):
    print(sum((F.normalize(a) - F.normalize(b)).square().sum(1).mean((1, 2)) for a, b in [(one, other)]))


def margins_swapped(real, fake):
    return (torch.relu(1 + real).mean() + torch.relu(1 - fake).mean()) / 2


def no_half(real, fake):
    return torch.relu(1 - real).mean() + torch.relu(1 + fake).mean()


def no_hinge(real, fake):
    return ((1 - real).mean() + (1 + fake).mean()) / 2


def sums(real, fake):
    return (torch.relu(1 - real).sum() + torch.relu(1 + fake).sum()) / 2


def hinge_of_the_mean(real, fake):
    return (torch.relu(1 - real.mean()) + torch.relu(1 + fake.mean())) / 2


def cross_entropy(real, fake):
    ours = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
    return (ours + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))) / 2


def hinge_with_item(real, fake):
    return 0.5 * (torch.relu(1 - real).mean() + torch.relu(1 + fake).mean()).item()


def detached(real, fake):
    return 0.5 * (torch.relu(1 - real.detach()).mean() + torch.relu(1 + fake.detach()).mean())


def in_place(real, fake):
    real.neg_().add_(1)
    return 0.5 * (torch.relu(real).mean() + torch.relu(1 + fake).mean())


def arguments_swapped(fake, real):
    return 0.5 * (torch.relu(1 - real).mean() + torch.relu(1 + fake).mean())


def deviation(autoencoder, batches):
    return torch.cat([autoencoder.encode(x).mode().flatten() for x in batches]).std()


def variance(autoencoder, batches):
    return 1 / torch.cat([autoencoder.encode(x).mode().flatten() for x in batches]).var()


def drawn(autoencoder, batches):
    generator = torch.Generator().manual_seed(0)
    return 1 / torch.cat([autoencoder.encode(x).sample(generator).flatten() for x in batches]).std()


def mean_of_deviations(autoencoder, batches):
    stds = [autoencoder.encode(x).mode().std() for x in batches]
    return 1 / torch.stack(stds).mean()


def of_the_pixels(autoencoder, batches):
    return 1 / torch.cat([x.flatten() for x in batches]).std()


def the_constant(autoencoder, batches):
    return 0.18215


def first_batch(autoencoder, batches):
    for x in batches:
        return 1 / autoencoder.encode(x).mode().std()


def a_factor_for_each_channel(autoencoder, batches):
    return 1 / torch.cat([autoencoder.encode(x).mode().transpose(0, 1).flatten(1) for x in batches], 1).std(1)


class TopAndLeft(nn.Module):
    padding = (1, 0, 1, 0)

    def __init__(self, channels, symmetric=True):
        super().__init__()
        self.symmetric = symmetric
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1 if symmetric else 0)

    def forward(self, x):
        return self.conv(x if self.symmetric else F.pad(x, self.padding))


class OnlyTheWidth(TopAndLeft):
    padding = (1, 1)


class AllAround(TopAndLeft):
    padding = (1, 1, 1, 1)


class NeverPadded(TopAndLeft):
    def forward(self, x):
        return self.conv(x)


class AlwaysPadded(TopAndLeft):
    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Swapped(TopAndLeft):
    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.symmetric else x)


class Replicated(TopAndLeft):
    def forward(self, x):
        return self.conv(x if self.symmetric else F.pad(x, (0, 1, 0, 1), mode="replicate"))


class OtherNames(nn.Module):
    def __init__(self, channels, symmetric=True):
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x):
        return self.convolution(x)


def upside_down(reconstruction, adversarial, last_layer):
    ours, theirs = (
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm() for loss in (reconstruction, adversarial)
    )
    return (theirs / (ours + 1e-4)).clamp(max=1e4)


def no_retain(reconstruction, adversarial, last_layer):
    ours = torch.autograd.grad(reconstruction, last_layer)[0].norm()
    return (ours / (torch.autograd.grad(adversarial, last_layer)[0].norm() + 1e-4)).clamp(max=1e4)


def by_backward(reconstruction, adversarial, last_layer):
    pulls = []
    for loss in (reconstruction, adversarial):
        last_layer.grad = None
        loss.backward(retain_graph=True)
        pulls.append(last_layer.grad.norm())
    return (pulls[0] / (pulls[1] + 1e-4)).clamp(max=1e4)


def no_limit(reconstruction, adversarial, last_layer):
    ours, theirs = (
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm() for loss in (reconstruction, adversarial)
    )
    return ours / (theirs + 1e-4)


def of_the_losses(reconstruction, adversarial, last_layer):
    return (reconstruction.abs() / (adversarial.abs() + 1e-4)).clamp(max=1e4)


WRONG = {
    "06.perceptual_distance": [
        ("the vectors aren't scaled to length 1", plain_squares),
        ("the shape is ()", mean_over_everything),
        ("no gradient reaches the pictures", no_gradient),
        ("the distance isn't a tensor", a_number),
        ("gives 0 / 0; its vector stays 0", without_a_guard),
        ("only the first layer counts", early_return),
        ("averaged over the channels, but they must be summed", mean_of_the_channels),
        ("isn't a tensor", only_the_print),
    ],
    "06.discriminator_loss": [
        ("or the signs of both", margins_swapped),
        ("the half is missing", no_half),
        ("the hinge is missing", no_hinge),
        ("summed, but their mean is asked for", sums),
        ("the relu is applied to the means", hinge_of_the_mean),
        ("the logistic loss", cross_entropy),
        ("return it without .item()", hinge_with_item),
        ("no gradient reaches the discriminator", detached),
        ("in-place operation", in_place),
        ("real and fake are swapped", arguments_swapped),
    ],
    "06.scaling_factor": [
        ("this is the standard deviation itself", deviation),
        ("1 over the variance", variance),
        ("yours is", drawn),
        ("the deviations of the batches are averaged", mean_of_deviations),
        ("the deviation of the pictures is measured", of_the_pixels),
        ("the constant of Stable Diffusion 1", the_constant),
        ("only the first batch is measured", first_batch),
        ("the shape is (4,)", a_factor_for_each_channel),
    ],
    "06.downsample": [
        ("at the left and at the top", TopAndLeft),
        ("none to the height", OnlyTheWidth),
        ("perhaps on every side", AllAround),
        ("isn't padded at all", NeverPadded),
        ("padded twice", AlwaysPadded),
        ("the two kinds are swapped", Swapped),
        ("the padding repeats the last pixel", Replicated),
        ("its parameters differ", OtherNames),
    ],
    "06.adaptive_weight": [
        ("the ratio is upside down", upside_down),
        ("a second time", no_retain),
        ("it leaves a gradient in last_layer.grad", by_backward),
        ("the largest weight is missing", no_limit),
        ("the ratio of the losses is taken", of_the_losses),
    ],
}
