"""Text to image by hand draws what the package draws, and an x-ray shows what a program computes."""

import dataclasses
from pathlib import Path

import diffusers
import pytest
import torch
from side_by_side import both
from torch import Tensor

from sdlearn.diffusion.samplers import draw_noise
from sdlearn.lessons.by_hand import text_to_image
from sdlearn.lessons.check import assert_parity
from sdlearn.lessons.xray import first_difference, x_ray
from sdlearn.storage.load import load

PROMPTS = ["a small red apple on a blue background", "an owl"]


@pytest.mark.parametrize(("sampler", "scale"), [("euler", 3.0), ("ddpm", 0.0), ("dpmpp_2m", 1.0), ("plms", -2.0)])
def test_the_package_draws_the_same(tiny_folder: Path, sampler: str, scale: float) -> None:
    model = load(tiny_folder, dtype=torch.float64)
    settings = {"steps": 4, "guidance_scale": scale, "sampler": sampler, "seed": 7, "negative_prompt": "a green cat"}
    pairs = list(zip(text_to_image(model, PROMPTS, **settings), model.sample(PROMPTS, **settings), strict=True))
    assert len(pairs) >= 4
    for mine, theirs in pairs:
        assert (mine.i, mine.t) == (theirs.i, theirs.t)
        assert_parity("by hand, x", mine.x, theirs.x)
        assert_parity("by hand, x_0", mine.x0, theirs.x0)


def test_diffusers_draws_the_same(tiny_folder: Path) -> None:
    ours, reference = both(tiny_folder, diffusers.StableDiffusionPipeline, "ddim")
    noise = draw_noise((2, 4, 16, 16), [torch.Generator().manual_seed(seed) for seed in (5, 6)]).double()
    settings = {"guidance_scale": 7.5, "num_inference_steps": 4, "latents": noise, "output_type": "latent"}
    expected = reference(PROMPTS, negative_prompt=["an owl"] * 2, **settings).images
    *_, end = text_to_image(ours, PROMPTS, "an owl", 4, 7.5, "ddim", seed=5)
    assert_parity("text to image by hand", end.x, expected, against="StableDiffusionPipeline")


def program(count: int, offset: float = 0.0) -> Tensor:
    words = torch.arange(3.0) + offset
    unused = [words]

    def denoise(x: Tensor) -> Tensor:
        guided = x / 2
        return guided

    x = words * 8
    for _ in range(count):
        x = denoise(x)
    x = x + 0 * len(unused)
    picture = x.round()
    return picture


def test_x_ray() -> None:
    """Names in the order in which they are given; those of the inner function once for each call."""
    seen = x_ray(program, 2)
    assert list(seen) == ["words", "x", "x, call 1", "guided, call 1", "x, call 2", "guided, call 2", "picture"]
    assert seen["x"].tolist() == [0, 8, 16] and seen["guided, call 2"].tolist() == [0, 2, 4]
    assert first_difference(seen, x_ray(program, 2)) is None
    assert first_difference(x_ray(program, 2, offset=0.01), seen) == "words"
    assert first_difference(x_ray(program, 2, offset=0.01), seen, tolerance=0.1) is None


def test_x_ray_keeps_copies_and_leaves_no_trace() -> None:
    kept = torch.zeros(2)

    def changing() -> None:
        before = kept
        kept.add_(1)
        raise RuntimeError(before)

    import sys

    with pytest.raises(RuntimeError):
        x_ray(changing)
    assert sys.getprofile() is None and kept.tolist() == [1, 1]


def test_own_text_to_image(tiny_folder: Path) -> None:
    """`load(parts=...)` takes one; it gets the prompts and the settings as they are."""
    asked = []

    def mine(model, prompts, **settings):
        asked.append((prompts, settings))
        for step in text_to_image(model, prompts, **settings):
            yield dataclasses.replace(step, x=-step.x)

    plain, model = load(tiny_folder), load(tiny_folder, parts={"text_to_image": mine})
    settings = {"steps": 2, "guidance_scale": 2.0, "sampler": "ddim", "seed": 3}
    ends = [list(one.sample(PROMPTS, **settings))[-1].x for one in (model, plain)]
    assert asked == [(PROMPTS, settings)]
    assert_parity("the other way", ends[0], -ends[1], 1e-4)
