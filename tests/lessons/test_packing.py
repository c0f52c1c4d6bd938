"""Latents as a file: what rounding does to them, and how long the file is."""

import math

import pytest
import torch

from sdlearn.lessons.packing import packed_bits, round_means
from sdlearn.models.autoencoder import Gaussian


def gaussian(std: float, pictures: int = 4000) -> Gaussian:
    """Means from N(0, 1) that are known up to `std`."""
    mean = torch.randn(pictures, 2, 1, 3, generator=torch.Generator().manual_seed(0))
    return Gaussian(mean, torch.full_like(mean, 2 * math.log(std)))


def test_rounding_errs_as_much_as_the_noise() -> None:
    one = gaussian(0.1)
    whole, step = round_means(one)
    assert step.shape == (2, 1, 3) and torch.equal(whole, whole.round())
    assert (whole * step - one.mean).std().item() == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("std", [0.3, 0.1, 0.05])
def test_a_file_is_as_long_as_the_entropy(std: float) -> None:
    """That of N(0, 1), rounded: log2 of (√(2πe) / step) for each number. The packer needs somewhat more."""
    whole, step = round_means(gaussian(std))
    assert packed_bits(whole) / 6 == pytest.approx(math.log2(math.sqrt(2 * math.pi * math.e) / step[0, 0, 0]), rel=0.3)


def test_numbers_that_say_nothing_take_no_room() -> None:
    nothing = Gaussian(torch.zeros(4000, 5, 2, 2), torch.zeros(4000, 5, 2, 2))
    assert packed_bits(round_means(nothing)[0]) < 0.5
