"""Pictures: numbers from −1 to 1, as networks use them; whole numbers from 0 to 255; and PIL images.

This is the only place that converts between them and lays pictures out on a sheet.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from sdlearn.files import atomic_write


def to_unit(pictures: Tensor) -> Tensor:
    """uint8 0 … 255 -> float −1 … 1, as networks expect."""
    return pictures.float() / 127.5 - 1


def to_8_bit(image: Image.Image) -> Image.Image:
    """A grey picture of 16 bits with 8: Pillow's own conversion would cut off all that is above 255.

    Raises ValueError for a picture of floats, or of whole numbers that need more than 16 bits.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    numbers = np.asarray(image)
    if image.mode.startswith("F") or numbers.min() < 0 or numbers.max() > 65535:
        name = getattr(image, "filename", "") or "the picture"
        raise ValueError(f"{name} has pixels of mode {image.mode!r}, not of 8 or 16 bits; convert it first")
    return Image.fromarray((numbers / 257).round().astype(np.uint8))


def on_white(image: Image.Image) -> Image.Image:
    """Any image as RGB: rotated upright as its metadata says, and white where it is transparent."""
    image = to_8_bit(ImageOps.exif_transpose(image)).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def from_images(images: Sequence[Image.Image], size: tuple[int, int]) -> Tensor:
    """PIL images, resized to size = (H, W) where they differ -> (B, 3, H, W) in [−1, 1]."""
    resized = [on_white(image).resize(size[::-1], Image.Resampling.LANCZOS) for image in images]
    return from_bytes(torch.from_numpy(np.stack([np.asarray(image) for image in resized])))


def from_masks(images: Sequence[Image.Image], size: tuple[int, int]) -> Tensor:
    """PIL images, resized to size = (H, W) where they differ -> their brightness (B, 1, H, W) from 0 to 1."""
    resized = [to_8_bit(image).resize(size[::-1], Image.Resampling.LANCZOS).convert("L") for image in images]
    return (
        torch.from_numpy(np.stack([np.asarray(image) for image in resized]))[:, None] / 255
    )  # (B, H, W) -> (B, 1, H, W)


def to_images(pictures: Tensor) -> list[Image.Image]:
    """(B, 3, H, W) in [−1, 1], clipped -> PIL images. Raises ValueError for another shape."""
    if pictures.ndim != 4 or pictures.shape[1] != 3:
        raise ValueError(f"pictures have the shape {tuple(pictures.shape)}, must have (B, 3, H, W)")
    return [Image.fromarray(one.numpy()) for one in to_bytes(pictures.detach().float().cpu())]


def to_pixels(pictures: Tensor) -> Tensor:
    """Numbers in [−1, 1] -> whole numbers from 0 to 255, the nearest ones, as uint8. What is outside is clipped."""
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def to_bytes(pictures: Tensor) -> Tensor:
    """Pictures as networks make them -> as files and screens hold them.

    (B, 3, H, W) in about [−1, 1] -> (B, H, W, 3), whole numbers from 0 to 255 as uint8. What is
    outside is clipped, and the rest goes to the nearest number.
    """
    return to_pixels(pictures).permute(0, 2, 3, 1)  # (B, 3, H, W) -> (B, H, W, 3)


def from_bytes(pixels: Tensor) -> Tensor:
    """Pictures as files and screens hold them -> as networks expect them.

    (B, H, W, 3), whole numbers from 0 to 255 as uint8 -> (B, 3, H, W), floats; 0 is −1, 255 is 1.
    """
    return to_unit(pixels.permute(0, 3, 1, 2))  # (B, H, W, 3) -> (B, 3, H, W)


def check_floats(name: str, values: Tensor, accepted: str) -> None:
    """Raises ValueError unless the values are floats with four dimensions, all of them finite."""
    if not isinstance(values, Tensor) or values.ndim != 4 or not values.is_floating_point():
        kind = f"{values.dtype} of shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"{name} are {kind}, must be floats {accepted}")
    if not torch.isfinite(values).all():
        raise ValueError(f"{name} hold NaN or infinity, must be finite")


def image_grid(images: list[Image.Image], columns: int = 8, gap: int = 2) -> Image.Image:
    """All pictures in rows, as one picture."""
    width, height = images[0].size
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * (width + gap), i // columns * (height + gap)))
    return sheet


def captioned_grid(
    images: Sequence[Image.Image], captions: Sequence[str], columns: int = 4, side: int = 192
) -> Image.Image:
    """One sheet with all pictures in rows, each enlarged to a width of `side` pixels and with its caption below it.

    Raises ValueError when there are no pictures, or not exactly one caption for each.
    """
    if not images or len(images) != len(captions):
        raise ValueError(f"{len(images)} pictures and {len(captions)} captions; there must be one caption for each")
    gap, size = 12, min(18, max(11, side // 13))  # in pixels: the gap between pictures, and the letters
    font = ImageFont.load_default(size)
    texts = [wrap(caption, font, side) for caption in captions]
    below = max(text.count("\n") + 1 for text in texts) * (size + 4) + 4
    height = round(side * images[0].height / images[0].width)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (side + gap) + gap, rows * (height + below + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (image, text) in enumerate(zip(images, texts, strict=True)):
        x, y = gap + i % columns * (side + gap), gap + i // columns * (height + below + gap)
        sheet.paste(image.resize((side, height), Image.Resampling.LANCZOS), (x, y))
        draw.multiline_text((x, y + height + 2), text, "black", font, spacing=4)
    return sheet


def wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text in lines of at most `width` pixels, if its words allow."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


def save_image_grid(pictures: Tensor, file: Path, columns: int = 8) -> None:
    """Write pictures (B, 3, H, W) in [−1, 1] as one PNG, atomically."""
    with atomic_write(file) as temporary:
        image_grid(to_images(pictures), columns).save(temporary, format="PNG")
