"""Stable Diffusion from scratch.

Everything here is imported when it is first used, so `import sdlearn` costs next to nothing.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "sdlearn.pipeline": ("StableDiffusion", "decode_latents", "encode_pictures"),
    "sdlearn.tasks": ("TASKS", "image_to_image", "inpaint", "text_to_image"),
    "sdlearn.tasks.plan": ("Defaults",),
    "sdlearn.storage.load": ("BUNDLED", "load"),
    "sdlearn.storage.lora": ("load_lora", "save_lora"),
    "sdlearn.storage.parts": ("PARTS",),
    "sdlearn.storage.save": ("save",),
    "sdlearn.storage.textual_inversion": ("load_embedding", "save_embedding"),
    "sdlearn.tokenizer": ("Tokenizer", "train_bpe"),
    "sdlearn.diffusion.schedule": ("Schedule", "ScheduleConfig"),
    "sdlearn.diffusion.guidance": ("Condition", "guide"),
    "sdlearn.diffusion.grids": ("Grid", "make_grid"),
    "sdlearn.diffusion.samplers": (
        *("SAMPLERS", "Sampler", "Step", "draw_noise", "get_sampler", "last"),
        *("ddim", "ddpm", "dpmpp_2m", "euler", "euler_ancestral", "heun", "plms"),
    ),
    "sdlearn.models.attention": ("record_attention",),
    "sdlearn.models.autoencoder": ("Autoencoder", "AutoencoderConfig"),
    "sdlearn.models.clip": ("CLIP", "CLIPConfig", "contrastive_loss"),
    "sdlearn.models.text": ("TextConfig", "TextEncoder"),
    "sdlearn.models.unet": ("UNet", "UNetConfig"),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}
_SUBMODULES = (
    *("adapters", "data", "diffusion", "evaluation", "lessons", "models", "pictures", "storage", "tasks"),
    *("training",),
)

__all__ = sorted([*_MODULE_OF, *_SUBMODULES])


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    if name in _SUBMODULES:
        return import_module(f"sdlearn.{name}")
    raise AttributeError(f"module 'sdlearn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
