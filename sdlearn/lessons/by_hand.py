"""Text to image with nothing hidden: what `sdlearn.text_to_image` does, without its settings and checks."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from sdlearn.diffusion.guidance import Condition
from sdlearn.diffusion.samplers import Step, draw_noise

if TYPE_CHECKING:
    from sdlearn.pipeline import StableDiffusion


def text_to_image(
    model: "StableDiffusion",
    prompts: list[str],
    negative_prompt: str = "",
    steps: int = 12,
    guidance_scale: float = 3.0,
    sampler: str = "dpmpp_2m_karras",
    seed: int = 0,
) -> Iterator[Step]:
    """Draw a picture for each prompt: yields the sampler's Steps.

    `model.decode` makes pictures of the last one's x. Picture i has a generator of its own, with
    seed + i, for all its noise. `negative_prompt` is what guidance leads away from, for all
    pictures. `sampler` is a name in `model.samplers`.
    """
    words = model.encode_prompt(prompts)
    nothing = model.encode_prompt([negative_prompt] * len(prompts))
    denoise = model.guide(model.predict, Condition(words), Condition(nothing), guidance_scale)

    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    side = model.unet.config.sample_size
    noise = draw_noise((len(prompts), model.unet.config.in_channels, side, side), generators)  # (B, C, H, W)
    chosen = model.samplers[sampler]
    grid = chosen.make_grid(model.schedule, steps)
    x = noise.to(model.device, model.sampling_dtype) * chosen.initial_scale(model.schedule, grid)
    yield from chosen.loop(denoise, x, grid, model.schedule, generator=generators)
