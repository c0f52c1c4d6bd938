"""What one does with the parts of a model: text to image, image to image, inpainting.

A task is a function: task(model, prompt, ...) checks what it is given and returns the Steps of a sampler, which are
made one by one as they are asked for. The x of the last Step goes to `model.decode`.
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
