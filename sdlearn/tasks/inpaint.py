"""Inpainting: part of a picture is redrawn, the rest stays."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from sdlearn.diffusion.samplers import Step
from sdlearn.tasks.plan import make_plan

if TYPE_CHECKING:
    from sdlearn import StableDiffusion


def inpaint(
    model: "StableDiffusion",
    prompt: str | list[str],
    picture: Image.Image | Sequence[Image.Image] | Tensor | None = None,
    mask: Image.Image | Sequence[Image.Image] | Tensor | None = None,
    *,
    strength: float = 1.0,
    **settings: Any,
) -> Iterator[Step]:
    """Redraw what the mask covers.

    A model made for inpainting also gets the mask and the rest of the picture (Rombach et al. 2022, section 4.5). With
    any other, the rest of the picture, noised like x, is put back after each call (RePaint, Lugmayr et al. 2022, arXiv
    2201.09865, equation 8; with the same noise each time, as in Diffusers).

    picture: see `image_to_image`. mask: white, or 1 in a tensor (B, 1, H, W), where to draw; 0.5 and above count.
    strength: above 0, up to 1; below 1 the first noise still contains some of the picture, under the mask too.
    settings: see `sdlearn.tasks.plan.Settings`.
    """
    plan = make_plan("inpainting", model, prompt, picture, mask, strength, **settings)
    condition, project = plan.condition, None
    if model.unet.config.in_channels > plan.noise.shape[1]:
        condition = replace(condition, channels=torch.cat([plan.mask, plan.rest], dim=1))  # (B, 1 + C, H/f, W/f)
    else:

        def project(x: Tensor, i: int) -> Tensor:
            known = plan.sampler.add_noise(plan.known, plan.noise, model.schedule, plan.grid, i + 1)
            return (1 - plan.mask) * known + plan.mask * x

    denoise = model.guide(model.predict, condition, plan.unconditional, plan.guidance_scale, plan.rescale)
    if strength == 1:
        x = plan.noise * plan.sampler.initial_scale(model.schedule, plan.grid)
    else:
        x = plan.sampler.add_noise(plan.known, plan.noise, model.schedule, plan.grid, 0)
    return plan.run(denoise, x, project)
