"""Text to image: from pure noise to what the words describe."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sdlearn.diffusion.samplers import Step
from sdlearn.tasks.plan import make_plan

if TYPE_CHECKING:
    from sdlearn import StableDiffusion


def text_to_image(model: "StableDiffusion", prompt: str | list[str], **settings: Any) -> Iterator[Step]:
    """Draw from words alone (Rombach et al. 2022, arXiv 2112.10752, section 4.3).

    settings: see `sdlearn.tasks.plan.Settings`: negative_prompt, steps, sampler, guidance_scale, count, seed, height …
    Everything is checked before the first Step; ValueError names what is not accepted.
    """
    plan = make_plan("text to image", model, prompt, **settings)
    denoise = model.guide(model.predict, plan.condition, plan.unconditional, plan.guidance_scale, plan.rescale)
    x = plan.noise * plan.sampler.initial_scale(model.schedule, plan.grid)
    return plan.run(denoise, x)
