"""Figures, grids, animations, widgets and source, for the lessons and the command line."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor


def to_images(pictures: Tensor) -> list[Image.Image]:
    """(B, 3, H, W) in [−1, 1], clipped -> PIL images."""
    array = ((pictures.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in array]


def image_grid(images: list[Image.Image], columns: int = 8, gap: int = 2) -> Image.Image:
    """One picture with all of them in rows."""
    width, height = images[0].size
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * (width + gap), i // columns * (height + gap)))
    return sheet


def save_image_grid(pictures: Tensor, file: Path, columns: int = 8) -> None:
    """Write pictures (B, 3, H, W) in [−1, 1] as one PNG, whole or not at all."""
    temporary = file.with_name(file.name + ".partial")
    image_grid(to_images(pictures), columns).save(temporary, format="PNG")
    temporary.replace(file)
