"""Right answers to the exercises of lesson 06 that are written in another way than the package's."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.downsampling import Downsample2D
from torch import nn


def by_cosines(features, one, other):
    total = 0
    for mine, theirs in zip(features(one), features(other), strict=True):
        both_see = (mine.norm(dim=1) > 0).float() + (theirs.norm(dim=1) > 0).float()
        total = total + (both_see - 2 * F.cosine_similarity(mine, theirs, dim=1, eps=1e-12)).mean((1, 2))
    return total


def unit_vectors(features, one, other):
    def unit(x):
        return x / (x.pow(2).sum(1, keepdim=True) + 1e-10).sqrt()

    layers = zip(features(one), features(other), strict=True)
    return sum(((unit(a) - unit(b)) ** 2).sum(1).flatten(1).mean(1) for a, b in layers)


def by_einsum(features, one, other):
    total = torch.zeros(one.shape[0])
    for mine, theirs in zip(features(one), features(other), strict=True):
        lengths = [torch.einsum("bchw,bchw->bhw", x, x).clamp(min=1e-24).sqrt() for x in (mine, theirs)]
        difference = mine / lengths[0][:, None] - theirs / lengths[1][:, None]
        total = total + torch.einsum("bchw,bchw->b", difference, difference) / (mine.shape[2] * mine.shape[3])
    return total


def picture_by_picture(features, one, other):
    distances = []
    for x, y in zip(one, other, strict=True):
        layers = zip(features(x[None]), features(y[None]), strict=True)
        parts = [(F.normalize(a[0], dim=0) - F.normalize(b[0], dim=0)).square().sum(0).mean() for a, b in layers]
        distances.append(torch.stack(parts).sum())
    return torch.stack(distances)


def distance_in_float64(features, one, other):
    both = [[F.normalize(x.double(), dim=1) for x in features(pictures)] for pictures in (one, other)]
    return sum((a - b).square().mean((2, 3)).sum(1) for a, b in zip(*both, strict=True))


def both_in_one_batch(features, one, other):
    total = one.new_zeros(len(one))
    for layer in features(torch.cat([one, other])):
        mine, theirs = F.normalize(layer, dim=1).chunk(2)
        total += (mine - theirs).pow(2).sum(dim=1).mean(dim=(-1, -2))
    return total


def nothing_learned_through_the_other(features, one, other):
    with torch.no_grad():
        goal = [F.normalize(x, dim=1) for x in features(other)]
    pairs = zip(features(one), goal, strict=True)
    return torch.stack([(F.normalize(x, dim=1) - y).square().sum(1).mean((1, 2)) for x, y in pairs]).sum(0)


def by_clamp(real, fake):
    return ((1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean()) / 2


def by_maximum(real, fake):
    zero = torch.zeros(())
    return torch.maximum(1 - real, zero).mean() * 0.5 + torch.maximum(1 + fake, zero).mean() * 0.5


def by_where(real, fake):
    right = torch.where(real < 1, 1 - real, 0.0).sum() / real.numel()
    return (right + torch.where(fake > -1, 1 + fake, 0.0).sum() / fake.numel()) / 2


def by_hinge_embedding(real, fake):
    parts = [F.hinge_embedding_loss(x + 2, -torch.ones_like(x), margin=3.0) for x in (real, -fake)]
    return sum(parts) / 2


def hinge_in_float64(real, fake):
    costs = [nn.ReLU()(1 - sign * x.double()).mean() for sign, x in ((1, real), (-1, fake))]
    return torch.stack(costs).mean()


def hinge_by_a_loop(real, fake):
    cost = [sum(F.relu(1 - x) for x in real.flatten()) / real.numel()]
    cost.append(sum(F.relu(1 + x) for x in fake.flatten()) / fake.numel())
    return 0.5 * sum(cost)


def factor_in_numpy(autoencoder, batches):
    latents = [autoencoder.encode(x).mean.numpy().ravel() for x in batches]
    return 1 / np.concatenate(latents).std()


@torch.no_grad()
def factor_in_float64(autoencoder, batches):
    return torch.cat([autoencoder.encode(x).mode().double().flatten() for x in batches]).std() ** -1


def factor_by_sums(autoencoder, batches):
    count = total = squares = 0
    for pictures in batches:
        z = autoencoder.encode(pictures).mode().double()
        count, total, squares = count + z.numel(), total + z.sum(), squares + z.square().sum()
    return 1 / math.sqrt(squares / count - (total / count) ** 2)


def factor_population(autoencoder, batches):
    z = torch.hstack([autoencoder.encode(pictures).mean.reshape(-1) for pictures in batches])
    return torch.rsqrt(((z - z.mean()) ** 2).mean())


class ConvolutionInTheOpen(nn.Module):
    def __init__(self, channels, symmetric=True):
        super().__init__()
        self.symmetric = symmetric
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1 if symmetric else 0)

    def forward(self, x):
        before = 1 if self.symmetric else 0
        padded = F.pad(x, (before, 1, before, 1))
        return F.conv2d(padded, self.conv.weight, self.conv.bias, stride=2)


class ZeroPadding(nn.Module):
    def __init__(self, channels, symmetric=True):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1 if symmetric else 0)
        self.pad = nn.Identity() if symmetric else nn.ZeroPad2d((0, 1, 0, 1))

    def forward(self, x):
        return self.conv(self.pad(x))


class OnALargerCanvas(nn.Module):
    def __init__(self, channels, symmetric=True):
        super().__init__()
        self.symmetric = symmetric
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1 if symmetric else 0)

    def forward(self, x):
        if not self.symmetric:
            canvas = x.new_zeros(*x.shape[:2], x.shape[2] + 1, x.shape[3] + 1)
            canvas[:, :, :-1, :-1] = x
            x = canvas
        return self.conv(x)


class EverySecondPixel(nn.Module):
    """A convolution of stride 1 on a picture with a border all around, of which every second pixel is kept."""

    def __init__(self, channels, symmetric=True):
        super().__init__()
        self.symmetric = symmetric
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1 if symmetric else 0)

    def forward(self, x):
        first = 0 if self.symmetric else 1
        return F.conv2d(x, self.conv.weight, self.conv.bias, padding=1)[:, :, first::2, first::2]


class PatchesAndAMatrix(nn.Module):
    def __init__(self, channels, symmetric=True):
        super().__init__()
        self.symmetric = symmetric
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1 if symmetric else 0)

    def forward(self, x):
        padded = F.pad(x, (1, 1, 1, 1) if self.symmetric else (0, 1, 0, 1))
        patches = F.unfold(padded, 3, stride=2)  # (B, C·9, H/2·W/2)
        out = torch.einsum("of,bfp->bop", self.conv.weight.flatten(1), patches) + self.conv.bias[:, None]
        return out.unflatten(2, (x.shape[2] // 2, x.shape[3] // 2))


class DiffusersDownsample(Downsample2D):
    def __init__(self, channels, symmetric=True):
        super().__init__(channels, use_conv=True, padding=1 if symmetric else 0, name="op")


def weight_by_roots(reconstruction, adversarial, last_layer):
    squares = [
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].pow(2).sum()
        for loss in (reconstruction, adversarial)
    ]
    return torch.clamp(squares[0].sqrt() / (squares[1].sqrt() + 1e-4), 0.0, 1e4).detach()


def weight_as_a_number(reconstruction, adversarial, last_layer):
    pulls = []
    for loss in (reconstruction, adversarial):
        pulls.append(torch.linalg.vector_norm(*torch.autograd.grad(loss, [last_layer], retain_graph=True)).item())
    return min(pulls[0] / (pulls[1] + 1e-4), 10_000)


def weight_in_numpy(reconstruction, adversarial, last_layer):
    ours, theirs = (
        np.linalg.norm(torch.autograd.grad(loss, last_layer, retain_graph=True)[0].numpy().ravel())
        for loss in (reconstruction, adversarial)
    )
    return np.minimum(ours / (theirs + 1e-4), 1e4)


def weight_in_float64(reconstruction, adversarial, last_layer):
    ours, theirs = (
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].double().norm()
        for loss in (reconstruction, adversarial)
    )
    return torch.minimum(ours / (theirs + 1e-4), torch.tensor(1e4).double())


RIGHT = {
    "06.perceptual_distance": [
        by_cosines,
        unit_vectors,
        by_einsum,
        picture_by_picture,
        distance_in_float64,
        both_in_one_batch,
        nothing_learned_through_the_other,
    ],
    "06.discriminator_loss": [
        by_clamp,
        by_maximum,
        by_where,
        by_hinge_embedding,
        hinge_in_float64,
        hinge_by_a_loop,
    ],
    "06.scaling_factor": [factor_in_numpy, factor_in_float64, factor_by_sums, factor_population],
    "06.downsample": [
        ConvolutionInTheOpen,
        ZeroPadding,
        OnALargerCanvas,
        EverySecondPixel,
        PatchesAndAMatrix,
        DiffusersDownsample,
    ],
    "06.adaptive_weight": [weight_by_roots, weight_as_a_number, weight_in_numpy, weight_in_float64],
}
