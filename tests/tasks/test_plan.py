"""What tasks accept and refuse, and what the plan makes of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

import sdlearn
from sdlearn.diffusion.samplers import draw_noise, last
from sdlearn.lessons.check import assert_parity
from sdlearn.pipeline import StableDiffusion, decode_latents, encode_pictures
from sdlearn.storage.load import load
from sdlearn.tasks.plan import make_plan

PROMPT = "a small red apple"


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> StableDiffusion:
    return load(tiny_folder)


def photo(width: int = 64, height: int = 48, mode: str = "RGB") -> Image.Image:
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)


def stripes(width: int = 64, height: int = 48) -> Image.Image:
    """Grey values of all kinds, in columns."""
    return Image.fromarray(np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1)))


def plan(model: StableDiffusion, *given: Any, task: str = "inpainting", **settings: Any) -> Any:
    return make_plan(task, model, PROMPT, *given, **settings)


@pytest.mark.parametrize("size", [(64, 48), (100, 70), (32, 32)])
def test_masks_are_resized_as_in_diffusers(tiny: StableDiffusion, size: tuple[int, int]) -> None:
    mask = stripes(*size)
    processor = VaeImageProcessor(do_normalize=False, do_binarize=True, do_convert_grayscale=True)
    expected = torch.nn.functional.interpolate(processor.preprocess(mask, height=48, width=64), size=(12, 16))
    assert torch.equal(plan(tiny, photo(), mask, height=48, width=64).mask, expected)


@pytest.mark.parametrize(("column", "stays"), [(31, False), (32, True)])
def test_a_mask_of_one_column(tiny: StableDiffusion, column: int, stays: bool) -> None:
    """Only every fourth pixel has a say: the nearest one to a latent."""
    mask = torch.zeros(1, 1, 48, 64)
    mask[..., column] = 1
    assert plan(tiny, photo(), mask).mask.any().item() == stays


@pytest.mark.parametrize("threshold", [(0.49, 0.0), (0.5, 1.0), (1.0, 1.0)])
def test_from_one_half_up_is_drawn(tiny: StableDiffusion, threshold: tuple[float, float]) -> None:
    value, expected = threshold
    assert (plan(tiny, photo(), torch.full((1, 1, 48, 64), value)).mask == expected).all()


def test_pictures_are_resized_as_in_diffusers(tiny: StableDiffusion) -> None:
    expected = VaeImageProcessor().preprocess(photo(100, 70), height=48, width=64)
    generator = torch.Generator().manual_seed(0)
    known = plan(tiny, photo(100, 70), task="image to image", height=48, width=64).known
    assert_parity("resized picture", known, tiny.encode(expected, generator))


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "LA", "1"])
def test_pictures_of_any_mode_become_rgb(tiny: StableDiffusion, mode: str) -> None:
    picture = photo(mode=mode)
    known = plan(tiny, picture, task="image to image").known
    assert torch.equal(known, plan(tiny, picture.convert("RGB"), task="image to image").known)


def test_what_is_transparent_is_white(tiny: StableDiffusion) -> None:
    clear = Image.new("RGBA", (64, 48), (255, 0, 0, 0))
    white = Image.new("RGB", (64, 48), "white")
    assert torch.equal(*(plan(tiny, one, task="image to image").known for one in (clear, white)))


def test_the_picture_is_drawn_before_the_noise(tiny: StableDiffusion) -> None:
    generator = torch.Generator().manual_seed(9)
    picture = torch.rand(1, 3, 48, 64) * 2 - 1
    planned = plan(tiny, picture, task="image to image", seed=9)
    assert torch.equal(planned.known, tiny.encode(picture, generator))
    assert torch.equal(planned.noise, draw_noise((1, 4, 12, 16), generator))


def test_each_prompt_has_its_picture(tiny: StableDiffusion) -> None:
    pictures = [photo(), stripes().convert("RGB")]
    four = last(sdlearn.image_to_image(tiny, [PROMPT, "an owl"], pictures, count=2, seed=3, steps=3))
    for i, (prompt, picture) in enumerate(((PROMPT, 0), (PROMPT, 0), ("an owl", 1), ("an owl", 1))):
        alone = last(sdlearn.image_to_image(tiny, prompt, pictures[picture], seed=3 + i, steps=3))
        assert_parity(f"picture {i}", four[i : i + 1], alone)
    shared = last(sdlearn.image_to_image(tiny, [PROMPT, "an owl"], photo(), seed=3, steps=3))
    assert_parity("one picture for all", shared[:1], four[:1])


def test_what_the_mask_leaves_stays(tiny: StableDiffusion) -> None:
    planned = plan(tiny, photo(), stripes(), seed=2, steps=3)
    latents = last(sdlearn.inpaint(tiny, PROMPT, photo(), stripes(), seed=2, steps=3))
    kept = (planned.mask == 0).expand_as(latents)
    assert torch.equal(latents[kept], planned.known[kept])
    assert not torch.allclose(latents[~kept], planned.known[~kept], atol=0.1)


def test_steps_are_counted_before_they_are_made(tiny: StableDiffusion) -> None:
    steps = sdlearn.image_to_image(tiny, PROMPT, photo(), steps=10, strength=0.35)
    assert len(steps) == 3
    assert [step.i for step in steps] == [0, 1, 2]
    assert len(tiny.sample(PROMPT, steps=4, sampler="heun")) == 7


def test_the_scaling_factor_goes_in_and_out_once(tiny: StableDiffusion) -> None:
    assert tiny.autoencoder.config.scaling_factor == 0.5
    pictures = torch.rand(2, 3, 32, 32) * 2 - 1
    gaussian = tiny.autoencoder.encode(pictures)
    assert torch.equal(encode_pictures(tiny.autoencoder, pictures), 0.5 * gaussian.mean)
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    sampled = encode_pictures(tiny.autoencoder, pictures, generators)
    noise = draw_noise(gaussian.mean.shape, [torch.Generator().manual_seed(seed) for seed in range(2)])
    assert_parity("sampled", sampled, 0.5 * (gaussian.mean + (gaussian.logvar / 2).exp() * noise))
    assert torch.equal(decode_latents(tiny.autoencoder, sampled), tiny.autoencoder.decode(sampled / 0.5))


def test_a_loss_on_the_picture_has_a_gradient(tiny: StableDiffusion) -> None:
    """Nothing between the first noise and the picture forbids one. Nor is a graph built where nobody asks for it."""
    noise = draw_noise((1, 4, 8, 8), torch.Generator().manual_seed(0)).requires_grad_(True)
    for draw in (
        lambda: tiny.sample(PROMPT, steps=2, latents=noise),
        lambda: sdlearn.image_to_image(tiny, PROMPT, torch.zeros(1, 3, 32, 32), steps=2, latents=noise),
    ):
        tiny.decode(last(draw())).mean().backward()
        assert noise.grad is not None and noise.grad.abs().max() > 0
        noise.grad = None
    assert not last(tiny.sample(PROMPT, steps=1)).requires_grad


def test_a_picture_is_never_overlooked(tiny: StableDiffusion) -> None:
    for name in ("picture", "mask", "strength"):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            tiny.sample(PROMPT, **{name: photo()})


def test_a_task_by_name(tiny: StableDiffusion) -> None:
    settings = {"steps": 3, "progress": False}
    (picture,) = tiny(PROMPT, task=sdlearn.inpaint, picture=photo(), mask=stripes(), **settings)
    latents = last(sdlearn.inpaint(tiny, PROMPT, photo(), stripes(), steps=3))
    assert np.array_equal(np.asarray(picture), np.asarray(sdlearn.pictures.to_images(tiny.decode(latents))[0]))


ZEROS = torch.zeros(1, 3, 48, 64)
Make = Callable[[StableDiffusion], Any]
REFUSED: list[tuple[Make, str]] = [
    (lambda m: sdlearn.image_to_image(m, PROMPT, None), "image to image needs a picture"),
    (lambda m: sdlearn.inpaint(m, PROMPT), "inpainting needs a picture and a mask"),
    (lambda m: sdlearn.inpaint(m, PROMPT, ZEROS), "inpainting needs a mask"),
    (lambda m: sdlearn.image_to_image(m, PROMPT, ZEROS, strength=0.1, steps=5), "0.1 leaves none of 5 steps"),
    (lambda m: sdlearn.image_to_image(m, PROMPT, ZEROS, strength=0, steps=5), "strength = 0 leaves none of 5 steps"),
    (lambda m: sdlearn.image_to_image(m, PROMPT, ZEROS, strength=1.01), "strength = 1.01, must be a number above 0"),
    (lambda m: sdlearn.image_to_image(m, PROMPT, ZEROS, strength=float("nan")), "strength = nan, must be a number"),
    (lambda m: sdlearn.inpaint(m, PROMPT, ZEROS, ZEROS[:, :1], strength=-1), "strength = -1, must be a number"),
    (lambda m: sdlearn.image_to_image(m, PROMPT, ZEROS[..., :60]), "width = 60, must be a multiple of 16 pixels"),
    (lambda m: sdlearn.image_to_image(m, PROMPT, photo(60, 48)), "width = 60, must be a multiple of 16 pixels"),
    (
        lambda m: sdlearn.image_to_image(m, PROMPT, ZEROS, height=32),
        r"\(1, 3, 48, 64\), must have \(B, 3, 32, 64\)",
    ),
    (lambda m: sdlearn.image_to_image(m, PROMPT, ZEROS[0]), r"pictures are torch.float32 of shape \(3, 48, 64\)"),
    (lambda m: sdlearn.image_to_image(m, PROMPT, ZEROS.byte()), "pictures are torch.uint8"),
    (lambda m: sdlearn.image_to_image(m, PROMPT, ZEROS + 255), "pictures must hold numbers from -1 to 1"),
    (lambda m: sdlearn.image_to_image(m, PROMPT, ZEROS + float("nan")), "pictures hold NaN or infinity"),
    (lambda m: sdlearn.image_to_image(m, PROMPT, ZEROS.repeat(3, 1, 1, 1), count=2), "3 pictures for 1 prompts"),
    (
        lambda m: sdlearn.image_to_image(m, PROMPT, []),
        "picture is list, must be a PIL image",
    ),
    (lambda m: sdlearn.image_to_image(m, PROMPT, "cat.png"), "picture is str, must be a PIL image"),
    (
        lambda m: sdlearn.inpaint(m, PROMPT, ZEROS, ZEROS),
        r"\(1, 3, 48, 64\), must have \(B, 1, 48, 64\)",
    ),
    (lambda m: sdlearn.inpaint(m, PROMPT, ZEROS, ZEROS[:, :1] - 1), "masks must hold numbers from 0 to 1"),
    (lambda m: sdlearn.inpaint(m, PROMPT, ZEROS, "mask.png"), "mask is str, must be a PIL image"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_is_refused_before_the_first_step(tiny: StableDiffusion, make: Make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(tiny)
