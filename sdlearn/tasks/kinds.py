"""Kinds of models: what a UNet is made to draw from."""

KINDS = {
    "StableDiffusionPipeline": "text to image",
    "StableDiffusionDepth2ImgPipeline": "depth to image",
    "StableDiffusionInpaintPipeline": "inpainting",
}
"""What a model is made for, by its Diffusers pipeline, which model_index.json in its folder names."""


def kinds(latent_channels: int) -> dict[int, str]:
    """Which of KINDS a UNet belongs to, by its in_channels.

    Its input is the latents, alone or with a depth map, or with a mask and the latents of the masked picture.
    """
    return dict(zip((latent_channels, latent_channels + 1, 2 * latent_channels + 1), KINDS, strict=True))
