"""Kinds of models: what a UNet is made to draw from."""

KINDS = {
    "StableDiffusionPipeline": "text to image",
    "StableDiffusionDepth2ImgPipeline": "depth to image",
    "StableDiffusionInpaintPipeline": "inpainting",
}
"""What a model is made for, by the pipeline of Diffusers that it belongs to. Its folder's model_index.json names it."""


def kinds(latent_channels: int) -> dict[int, str]:
    """Which of KINDS a UNet belongs to, by its in_channels.

    Beside the latents it takes nothing, a depth map, or a mask and the latents of a picture without what it hides.
    """
    return dict(zip((latent_channels, latent_channels + 1, 2 * latent_channels + 1), KINDS, strict=True))
