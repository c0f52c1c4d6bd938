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


def length_without_gradient(features, one, other):
    def unit(x):
        return x / x.norm(dim=1, keepdim=True).clamp(min=1e-12).detach()

    layers = zip(features(one), features(other), strict=True)
    return sum((unit(a) - unit(b)).square().sum(1).mean((1, 2)) for a, b in layers)


def root_without_slope(features, one, other):
    def unit(x):
        return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)

    layers = zip(features(one), features(other), strict=True)
    return sum((unit(a) - unit(b)).square().sum(1).mean((1, 2)) for a, b in layers)


def nan_to_num(features, one, other):
    def unit(x):
        return (x / x.norm(dim=1, keepdim=True)).nan_to_num()

    layers = zip(features(one), features(other), strict=True)
    return sum((unit(a) - unit(b)).square().sum(1).mean((1, 2)) for a, b in layers)


def half_the_distance(features, one, other):
    layers = zip(features(one), features(other), strict=True)
    return sum((1 - F.cosine_similarity(a, b)).mean((1, 2)) for a, b in layers)


def cosines_at_zero(features, one, other):
    layers = zip(features(one), features(other), strict=True)
    return sum((2 - 2 * F.cosine_similarity(a, b)).mean((1, 2)) for a, b in layers)


def scaled_along_the_batch(features, one, other):
    layers = zip(features(one), features(other), strict=True)
    return sum((F.normalize(a, dim=0) - F.normalize(b, dim=0)).square().sum(1).mean((1, 2)) for a, b in layers)


def all_places_pooled(features, one, other):
    total = places = 0
    for a, b in zip(features(one), features(other), strict=True):
        total = total + (F.normalize(a) - F.normalize(b)).square().sum((1, 2, 3))
        places += a.shape[2] * a.shape[3]
    return total / places


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


def fake_detached(real, fake):
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake.detach()).mean())


def real_detached(real, fake):
    return 0.5 * (F.relu(1 - real.detach()).mean() + F.relu(1 + fake).mean())


def one_mean(real, fake):
    return 0.5 * (F.relu(1 - real) + F.relu(1 + fake)).mean()


def kept_small(real, fake):
    return 0.5 * (F.relu(1 - real.clamp(-20, 20)).mean() + F.relu(1 + fake.clamp(-20, 20)).mean())


def counted(real, fake):
    return 0.5 * ((real < 1).float().mean() + (fake > -1).float().mean())


def with_numpy(real, fake):
    real, fake = real.detach().numpy(), fake.detach().numpy()
    return 0.5 * ((1 - real).clip(0).mean() + (1 + fake).clip(0).mean())


def least_squares(real, fake):
    return 0.5 * ((1 - real).square().mean() + (1 + fake).square().mean())


def nothing(real, fake):
    0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


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


def variance_itself(autoencoder, batches):
    return torch.cat([autoencoder.encode(x).mode().flatten() for x in batches]).var()


def mean_of_variances(autoencoder, batches):
    return torch.stack([autoencoder.encode(x).mode().var() for x in batches]).mean().rsqrt()


def means_of_channels_removed(autoencoder, batches):
    z = torch.cat([autoencoder.encode(x).mode().transpose(0, 1).flatten(1) for x in batches], dim=1)
    return 1 / (z - z.mean(1, keepdim=True)).std()


def not_flattened(autoencoder, batches):
    return 1 / torch.cat([autoencoder.encode(x).mode() for x in batches]).std()


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


class OneColumn(TopAndLeft):
    padding = (0, 1)


class PaddedTwice(TopAndLeft):
    def forward(self, x):
        return self.conv(F.pad(x, (1, 1, 1, 1) if self.symmetric else (0, 1, 0, 1)))


class WithoutBias(TopAndLeft):
    def forward(self, x):
        x = F.pad(x, (1, 1, 1, 1) if self.symmetric else (0, 1, 0, 1))
        return F.conv2d(x, self.conv.weight, stride=2)


class HalvedTwice(TopAndLeft):
    padding = (0, 1, 0, 1)

    def forward(self, x):
        return super().forward(x)[:, :, ::2, ::2]


class CutOff(TopAndLeft):
    padding = (0, 1, 0, 1)

    def forward(self, x):
        return super().forward(x.detach())


class NoGradient(TopAndLeft):
    padding = (0, 1, 0, 1)

    def forward(self, x):
        with torch.no_grad():
            return super().forward(x)


class Clamped(TopAndLeft):
    padding = (0, 1, 0, 1)

    def forward(self, x):
        return super().forward(x).clamp(-5, 5)


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


def by_backward_with_care(reconstruction, adversarial, last_layer):
    weight = by_backward(reconstruction, adversarial, last_layer)
    last_layer.grad = None
    return weight


def lengths(reconstruction, adversarial, last_layer, **options):
    losses = (reconstruction, adversarial)
    return [torch.autograd.grad(loss, last_layer, retain_graph=True, **options)[0].norm() for loss in losses]


def with_a_gradient(reconstruction, adversarial, last_layer):
    ours, theirs = lengths(reconstruction, adversarial, last_layer, create_graph=True)
    return (ours / (theirs + 1e-4)).clamp(max=1e4)


def fixes_the_layer(reconstruction, adversarial, last_layer):
    ours, theirs = lengths(reconstruction, adversarial, last_layer)
    last_layer.requires_grad_(False)
    return (ours / (theirs + 1e-4)).clamp(max=1e4)


@torch.no_grad()
def changes_the_layer(reconstruction, adversarial, last_layer):
    ours, theirs = lengths(reconstruction, adversarial, last_layer)
    last_layer.mul_(1.001)
    return (ours / (theirs + 1e-4)).clamp(max=1e4)


def the_paper_s_summand(reconstruction, adversarial, last_layer):
    ours, theirs = lengths(reconstruction, adversarial, last_layer)
    return (ours / (theirs + 1e-6)).clamp(max=1e4)


def at_least_a_little(reconstruction, adversarial, last_layer):
    ours, theirs = lengths(reconstruction, adversarial, last_layer)
    return (ours / theirs.clamp(min=1e-4)).clamp(max=1e4)


def at_least_ten_thousand(reconstruction, adversarial, last_layer):
    ours, theirs = lengths(reconstruction, adversarial, last_layer)
    return (ours / (theirs + 1e-4)).clamp(min=1e4)


def number_by_number(reconstruction, adversarial, last_layer):
    losses = (reconstruction, adversarial)
    ours, theirs = (torch.autograd.grad(loss, last_layer, retain_graph=True)[0] for loss in losses)
    return (ours / (theirs + 1e-4)).norm().clamp(max=1e4)


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
        ("the distance is no tensor", a_number),
        ("gives 0 / 0; its vector stays 0", without_a_guard),
        ("only the first layer counts", early_return),
        ("averaged over the channels, but they must be summed", mean_of_the_channels),
        ("it prints its result, but it must return it", only_the_print),
        ("the length is detached", length_without_gradient),
        ("its gradient is NaN where all channels are 0", root_without_slope),
        ("its gradient is NaN where all channels are 0", nan_to_num),
        ("1 − cos is half of", half_the_distance),
        ("2 − 2 cos is right only where", cosines_at_zero),
        ("along the batch", scaled_along_the_batch),
        ("each layer has a mean of its own", all_places_pooled),
    ],
    "06.discriminator_loss": [
        ("or the signs of both", margins_swapped),
        ("the half is missing", no_half),
        ("the hinge is missing", no_hinge),
        ("summed, but their mean is asked for", sums),
        ("the relu is applied to the means", hinge_of_the_mean),
        ("the logistic loss", cross_entropy),
        ("the loss is no tensor", hinge_with_item),
        ("the loss is no tensor", with_numpy),
        ("or a comparison cuts it off", counted),
        ("the fake numbers are detached", fake_detached),
        ("no gradient reaches real", real_detached),
        ("take each mean first", one_mean),
        ("case 3", kept_small),
        ("the least-squares loss", least_squares),
        ("is a `return` missing", nothing),
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
        ("one factor for each channel", a_factor_for_each_channel),
        ("the variance itself", variance_itself),
        ("the variances of the batches are averaged", mean_of_variances),
        ("each channel's mean is subtracted", means_of_channels_removed),
        ("flatten each batch", not_flattened),
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
        ("only a column is added", OneColumn),
        ("the UNet's picture is padded twice", PaddedTwice),
        ("the bias is forgotten", WithoutBias),
        ("the convolution's stride does it already", HalvedTwice),
        ("no gradient reaches x", CutOff),
        ("no gradient reaches", NoGradient),
        ("case 4", Clamped),
    ],
    "06.adaptive_weight": [
        ("the ratio is upside down", upside_down),
        ("add retain_graph=True", no_retain),
        ("it leaves a gradient in last_layer.grad", by_backward),
        ("in other layers' .grad", by_backward_with_care),
        ("a gradient flows through it", with_a_gradient),
        ("it changes last_layer", fixes_the_layer),
        ("it changes last_layer", changes_the_layer),
        ("the paper's", the_paper_s_summand),
        ("it is added", at_least_a_little),
        ("at most 10,000", at_least_ten_thousand),
        ("number by number", number_by_number),
        ("the largest weight is missing", no_limit),
        ("the ratio of the losses is taken", of_the_losses),
    ],
}
