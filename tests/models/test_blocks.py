"""The convolutional blocks against Diffusers', in float64."""

import pytest
import torch
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from sdlearn.lessons.check import assert_gradients, assert_parity, randomize_
from sdlearn.models.blocks import Downsample, ResnetBlock, Upsample


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def compare(ours: nn.Module, reference: nn.Module, mine: list[Tensor], theirs: list[Tensor]) -> Tensor:
    """Share random weights, compare the outputs and all gradients."""
    reference.eval().double().load_state_dict(randomize_(ours.double()).state_dict(), strict=True)
    out, expected = ours(*mine), reference(*theirs)
    assert 0.3 < expected.std() < 5
    name, against = type(ours).__name__, type(reference).__name__
    assert_parity(name, out, expected, against=against)
    (out**2).mean().backward()
    (expected**2).mean().backward()
    assert_gradients(ours, reference, name=f"{name}, gradients", against=against)
    return out


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 5, 7), (3, 1, 4)])
@pytest.mark.parametrize(("in_channels", "out_channels"), [(12, 12), (12, 18), (18, 6)])
@pytest.mark.parametrize(("time_channels", "eps"), [(None, 1e-6), (10, 1e-5)])
def test_resnet_block(
    batch: int, height: int, width: int, in_channels: int, out_channels: int, time_channels: int | None, eps: float
) -> None:
    ours = ResnetBlock(in_channels, out_channels, time_channels, groups=6, eps=eps)
    reference = ResnetBlock2D(
        in_channels=in_channels, out_channels=out_channels, temb_channels=time_channels, groups=6, eps=eps
    )
    x = normal(batch, in_channels, height, width)
    time = None if time_channels is None else normal(batch, time_channels, seed=1)
    out = compare(ours, reference, [x, time], [x, time])
    assert out.shape == (batch, out_channels, height, width)


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 4, 6), (3, 8, 2)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_downsample(batch: int, height: int, width: int, symmetric: bool) -> None:
    x = normal(batch, 6, height, width)
    reference = Downsample2D(6, use_conv=True, padding=1 if symmetric else 0, name="op")
    out = compare(Downsample(6, symmetric), reference, [x], [x])
    assert out.shape == (batch, 6, height // 2, width // 2)


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 3, 5), (3, 1, 2)])
def test_upsample(batch: int, height: int, width: int) -> None:
    x = normal(batch, 6, height, width)
    out = compare(Upsample(6), Upsample2D(6, use_conv=True), [x], [x])
    assert out.shape == (batch, 6, 2 * height, 2 * width)
