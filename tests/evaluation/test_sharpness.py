"""Sharpness: every true scene is among the renderings, and what is blurred, moved or missing is less sharp."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sdlearn.data import COLORS, SIZES, SUBJECTS, Scenes
from sdlearn.data.scenes import Stickers
from sdlearn.evaluation.sharpness import (
    edge_agreement,
    edge_pixels,
    measure_sharpness,
    nearest_renderings,
    psnr,
    renderings,
)

SOME = ("owl", "bicycle", "key")
SCENES = Scenes(subjects=SOME)


def test_psnr_by_hand() -> None:
    original = torch.full((2, 3, 4, 6), 100, dtype=torch.uint8)
    other = original.clone()
    other[0] += 1  # mean squared error 1
    other[1, 0] -= 30  # 300
    each, of_mean = psnr(original, other)
    assert each.tolist() == pytest.approx([20 * math.log10(255), 20 * math.log10(255) - 10 * math.log10(300)])
    assert of_mean == pytest.approx(20 * math.log10(255) - 10 * math.log10(150.5))
    with pytest.raises(ValueError, match="accepted"):
        psnr(original, other.float())
    with pytest.raises(ValueError, match="accepted"):
        psnr(original, other[:1])


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(SOME), st.sampled_from(list(COLORS)), st.sampled_from(list(SIZES)), st.integers(0, 10**6))
def test_every_scene_is_its_own_nearest_rendering(subject: str, color: str, size: str, seed: int) -> None:
    scene = SCENES.make(subject, color, size, np.random.default_rng(seed))
    (nearest,) = nearest_renderings(scene.image[None], [(subject, color, size)])
    assert torch.equal(nearest, scene.image)


def test_renderings_are_all_sizes_and_places_of_the_word() -> None:
    stickers = Stickers(("owl",))
    small, medium, large = (renderings(stickers, "owl", "blue", size) for size in ("small", "medium", "large"))
    assert len(small) == len(large) == 5 * 25 and len(medium) == 15 * 25  # "medium" is never said: any size is right
    assert len(torch.unique(small, dim=0)) == len(small)


def test_edges_by_hand() -> None:
    picture = torch.zeros(1, 3, 6, 8, dtype=torch.uint8)
    picture[..., 4:] = 80  # 0.31 of the range, from column 3 to column 4; Sobel sees it from both columns
    assert edge_pixels(picture)[0].float().mean(dim=0).tolist() == [0, 0, 0, 1, 1, 0, 0, 0]
    picture[..., 4:] = 60  # 0.24
    assert not edge_pixels(picture).any()


def test_agreement_of_edges() -> None:
    picture = torch.zeros(3, 3, 6, 8, dtype=torch.uint8)
    picture[..., 4:] = 255
    other = picture.clone()
    other[1] = 0  # no edge at all
    other[2] = 0
    other[2, ..., 5:] = 255  # one column further: one of two edge columns is right
    assert edge_agreement(picture, other).tolist() == [1, 0, 0.5]
    assert edge_agreement(other, picture).tolist() == [1, 0, 0.5]
    assert edge_agreement(other[1:2], other[1:2]).tolist() == [1]  # two pictures without edges agree


def test_what_is_blurred_is_less_sharp() -> None:
    assert set(SOME) <= set(SUBJECTS)
    true = torch.stack([SCENES[i].image for i in range(12)])
    weak, strong = (F.avg_pool2d(true.float(), n, stride=1, padding=n // 2).round().to(torch.uint8) for n in (3, 7))
    groups = {"all": torch.ones(12, dtype=torch.bool), "none": torch.zeros(12, dtype=torch.bool)}
    same, a, b = (measure_sharpness(pictures, true, weak, groups) for pictures in (true, weak, strong))
    assert len(same) == len(a) == len(b) == 1
    assert same[0].edges == 1 > a[0].edges > b[0].edges and same[0].psnr == math.inf > a[0].psnr > b[0].psnr
    assert a[0].edges == a[0].edges_autoencoder == b[0].edges_autoencoder
