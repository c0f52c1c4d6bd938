"""What the parts of a model are used for: text to image, image to image, inpainting.

A task is a function: task(model, prompt, ...) checks its arguments and returns the Steps of a sampler, made one by
one on demand. The x of the last Step is passed to `model.decode`.
"""

from collections.abc import Callable, Iterator

from sdlearn.diffusion.samplers import Step
from sdlearn.tasks.image_to_image import image_to_image
from sdlearn.tasks.inpaint import inpaint
from sdlearn.tasks.text_to_image import text_to_image

TASKS: dict[str, Callable[..., Iterator[Step]]] = {
    "StableDiffusionPipeline": text_to_image,
    "StableDiffusionInpaintPipeline": inpaint,
}
"""What a model is made for, by its kind. Text-to-image models do all three."""

__all__ = ["TASKS", "image_to_image", "inpaint", "text_to_image"]
