"""Image to image: noise on a picture, and from there to what the words describe."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from sdlearn.diffusion.samplers import Step
from sdlearn.tasks.plan import make_plan

if TYPE_CHECKING:
    from sdlearn import StableDiffusion


def image_to_image(
    model: "StableDiffusion",
    prompt: str | list[str],
    picture: Image.Image | Sequence[Image.Image] | Tensor,
    *,
    strength: float = 0.8,
    **settings: Any,
) -> Iterator[Step]:
    """Change a picture: noise it up to a level in the middle of the grid, and denoise it from there.

    Source: SDEdit (Meng et al. 2022, arXiv 2108.01073, section 3). It needs a text-to-image model.

    picture: a PIL image, or one for each prompt, resized to `height` and `width` if these are given; or a tensor
        (B, 3, H, W) in [−1, 1].
    strength: above 0, up to 1; only the last int(steps · strength) steps of the grid are made.
    settings: see `sdlearn.tasks.plan.Settings`.
    """
    plan = make_plan("image to image", model, prompt, picture, None, strength, **settings)
    denoise = model.guide(model.predict, plan.condition, plan.unconditional, plan.guidance_scale, plan.rescale)
    x = plan.sampler.add_noise(plan.known, plan.noise, model.schedule, plan.grid, 0)
    return plan.run(denoise, x)
