"""Image to image and inpainting, equal to Diffusers' pipelines in float64: latents, after whole trajectories."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.utils import logging as diffusers_logging
from side_by_side import SCHEDULERS, both
from torch import Tensor
from transformers.utils import logging as transformers_logging

import sdlearn
from sdlearn.diffusion.samplers import last
from sdlearn.lessons.check import assert_parity, randomize_
from sdlearn.models.unet import UNet
from sdlearn.pipeline import StableDiffusion
from sdlearn.storage.load import load
from sdlearn.storage.save import save
from sdlearn.tasks.inpaint import inpaint

PROMPTS = ["a small red apple on a blue background", "an owl"]
NEGATIVE = ["a large green cat"] * 2
STEPS = 7


def pixels(seed: int, count: int = 2, height: int = 48, width: int = 64) -> Tensor:
    """Pictures (B, 3, H, W) from 0 to 1, as Diffusers takes them. 2x − 1 has no rounding."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(257, (count, 3, height, width), generator=generator).double() / 256


def some_mask(height: int = 48, width: int = 64) -> Tensor:
    """(1, 1, H, W): values on both sides of one half, and at it, in stripes that don't match the latents' grid."""
    mask = torch.zeros(1, 1, height, width)
    mask[..., 5:30, 10:41] = 1.0
    mask[..., 33:40, :] = 0.5
    mask[..., 41:, :] = 0.4
    return mask


@pytest.fixture(autouse=True)
def the_same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Diffusers draws noise in the networks' dtype. In float64 it would be other noise; let it be that of float32."""
    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    from diffusers.utils.torch_utils import randn_tensor

    def draw(shape: Any, generator: Any = None, device: Any = None, dtype: Any = None, layout: Any = None) -> Tensor:
        return randn_tensor(shape, generator, device, torch.float32, layout).to(dtype)

    for name, module in list(sys.modules.items()):
        if name.startswith("diffusers.") and getattr(module, "randn_tensor", None) is randn_tensor:
            monkeypatch.setattr(module, "randn_tensor", draw)


@pytest.fixture(scope="module")
def inpainting_folder(epsilon_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads mask and masked picture: a UNet of 9 channels."""
    model = load(epsilon_folder)
    unet = randomize_(UNet(replace(model.unet.config, in_channels=9)).requires_grad_(False), 5)
    parts = (model.tokenizer, model.text_encoder, model.autoencoder, unet, model.schedule)
    folder = tmp_path_factory.mktemp("models") / "inpainting"
    save(StableDiffusion(*parts, defaults=model.defaults), folder)
    return folder


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in (5, 6)]


def settings(sampler: str) -> dict[str, Any]:
    return {"negative_prompt": NEGATIVE, "sampler": sampler, "steps": STEPS, "guidance_scale": 3.0, "seed": 5}


def reference_settings() -> dict[str, Any]:
    shared = {"negative_prompt": NEGATIVE, "num_inference_steps": STEPS, "guidance_scale": 3.0}
    return {**shared, "generator": generators(), "output_type": "latent"}


@pytest.mark.parametrize("strength", [1 / STEPS + 1e-6, 0.6, 1.0])
@pytest.mark.parametrize("sampler", SCHEDULERS)
@pytest.mark.parametrize("folder", ["tiny_folder", "epsilon_folder"])
def test_image_to_image(folder: str, sampler: str, strength: float, request: pytest.FixtureRequest) -> None:
    ours, theirs = both(request.getfixturevalue(folder), diffusers.StableDiffusionImg2ImgPipeline, sampler)
    expected = theirs(PROMPTS, image=pixels(1), strength=strength, **reference_settings()).images
    steps = sdlearn.image_to_image(ours, PROMPTS, 2 * pixels(1) - 1, strength=strength, **settings(sampler))
    k = int(STEPS * strength)
    assert len(steps) == {"heun": 2 * k - 1, "plms": k + 1 if k < STEPS or k > 1 else k}.get(sampler, k)
    name = f"image to image, {sampler}, latents"
    assert_parity(name, last(steps), expected, SCHEDULERS[sampler][1], against="StableDiffusionImg2ImgPipeline")


@pytest.mark.parametrize("strength", [1 / STEPS + 1e-6, 0.6, 1.0])
@pytest.mark.parametrize("sampler", SCHEDULERS)
@pytest.mark.parametrize("folder", ["tiny_folder", "epsilon_folder", "inpainting_folder"])
def test_inpaint(folder: str, sampler: str, strength: float, request: pytest.FixtureRequest) -> None:
    ours, theirs = both(request.getfixturevalue(folder), diffusers.StableDiffusionInpaintPipeline, sampler)
    sizes = {"height": 48, "width": 64}
    given = {"image": pixels(1), "mask_image": some_mask(), "strength": strength}
    expected = theirs(PROMPTS, **given, **sizes, **reference_settings()).images
    latents = last(inpaint(ours, PROMPTS, 2 * pixels(1) - 1, some_mask(), strength=strength, **settings(sampler)))
    name = f"inpainting, {ours.unet.config.in_channels} channels, {sampler}, latents"
    assert_parity(name, latents, expected, SCHEDULERS[sampler][1], against="StableDiffusionInpaintPipeline")
