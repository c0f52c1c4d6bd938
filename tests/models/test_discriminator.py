"""The patch discriminator: what a verdict depends on, and what it is."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sdlearn.lessons.check import assert_parity, randomize_
from sdlearn.models.discriminator import SLOPE, DiscriminatorConfig, PatchDiscriminator, PixelNorm

SHAPES = [(1, 16), (2, 34), (3, 70)]  # halvings, and the side of a patch


def make(halvings: int) -> PatchDiscriminator:
    return randomize_(PatchDiscriminator(DiscriminatorConfig(width=6, halvings=halvings))).double()


def pictures(count: int, side: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("halvings", "side"), SHAPES)
def test_a_verdict_depends_on_its_patch_alone(halvings: int, side: int) -> None:
    """By its gradient: a square of the promised side, in one picture of the batch."""
    network, x = make(halvings), pictures(2, 2 * side).requires_grad_()
    numbers = network(x)
    middle = numbers.shape[-1] // 2
    numbers[1, 0, middle, middle].backward()
    touched = x.grad.abs().amax(dim=1) > 0  # (B, H, W)
    assert not touched[0].any()
    rows, columns = touched[1].any(dim=1).nonzero().flatten(), touched[1].any(dim=0).nonzero().flatten()
    assert DiscriminatorConfig(halvings=halvings).patch == side
    for places in (rows, columns):
        assert (places.max() - places.min() + 1, len(places)) == (side, side)


@pytest.mark.parametrize(("halvings", "side"), SHAPES)
def test_a_patch_alone_gets_the_same_verdict(halvings: int, side: int) -> None:
    """The number in the middle is that of its patch, cut out and judged without padding."""
    network, x = make(halvings), pictures(2, 2 * side).requires_grad_()
    numbers = network(x)
    middle = numbers.shape[-1] // 2
    numbers[:, 0, middle, middle].sum().backward()
    places = x.grad[0].abs().amax(dim=(0, 1)).nonzero().flatten()
    patch = x.detach()[:, :, places.min() : places.max() + 1, places.min() : places.max() + 1]
    for i, conv in enumerate(network.convs):
        patch = F.conv2d(patch, conv.weight, conv.bias, conv.stride)
        if i:
            patch = patch / (patch.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
        patch = torch.where(patch > 0, patch, SLOPE * patch)
    alone = F.conv2d(patch, network.conv_out.weight, network.conv_out.bias)
    assert_parity("a patch alone", alone.flatten(), numbers[:, 0, middle, middle])


@pytest.mark.parametrize(("side", "out"), [(16, 6), (64, 30), (20, 8)])
def test_shape(side: int, out: int) -> None:
    assert make(1)(pictures(3, side)).shape == (3, 1, out, out)


def test_pixel_norm() -> None:
    x = pictures(2, 5)
    out = PixelNorm()(x)
    assert_parity("pixel norm", out.square().mean(dim=1), torch.ones(2, 5, 5, dtype=torch.float64), tolerance=1e-6)
    assert_parity("its direction", F.normalize(out, dim=1), F.normalize(x, dim=1))
    assert PixelNorm()(torch.zeros(1, 3, 2, 2)).eq(0).all()


@pytest.mark.parametrize("values", [{"width": 0}, {"halvings": 0}, {"width": 1.5}])
def test_a_bad_config(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="whole numbers above 0"):
        DiscriminatorConfig(**values)
