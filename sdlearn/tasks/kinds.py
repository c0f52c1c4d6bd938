"""Kinds of models: what a UNet is made to draw from."""

from typing import Any

KINDS = {
    "StableDiffusionPipeline": "text to image",
    "StableDiffusionDepth2ImgPipeline": "depth to image",
    "StableDiffusionInpaintPipeline": "inpainting",
}
"""What a model is made for, by its Diffusers pipeline, which model_index.json in its folder names."""

NEEDS = {"text to image": (), "image to image": ("picture",), "inpainting": ("picture", "mask")}
"""What each task needs in addition to a prompt."""


def kinds(latent_channels: int) -> dict[int, str]:
    """Which of KINDS a UNet belongs to, by its in_channels.

    Its input is the latents, alone or with a depth map, or with a mask and the latents of the masked picture.
    """
    return dict(zip((latent_channels, latent_channels + 1, 2 * latent_channels + 1), KINDS, strict=True))


def check_task(task: str, kind: str, **given: Any) -> None:
    """Raises ValueError unless a model of this kind can do the task and everything the task needs is given.

    A text-to-image model can do all of NEEDS; any other only what it is made for.
    """
    made_for = KINDS[kind]
    missing = [name for name in NEEDS[task] if given[name] is None]
    if made_for != "text to image" and all(value is None for value in given.values()):
        raise ValueError(f"this model is made for {made_for}; it can't draw from text alone")
    if made_for not in ("text to image", task):
        raise ValueError(f"this model is made for {made_for}, not for {task}")
    if missing:
        raise ValueError(f"{task} needs a {' and a '.join(missing)}")
