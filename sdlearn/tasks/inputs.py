"""The pictures and masks that a caller gives, checked, and made into tensors of the size that is drawn."""

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from sdlearn.pictures import check_floats, from_images, from_masks

Pictures = Image.Image | Sequence[Image.Image] | Tensor


def picture_size(picture: Pictures) -> tuple[int, int]:
    """(H, W) of a picture, or of the first of several."""
    if isinstance(picture, Tensor):
        check_floats("pictures", picture, "(B, 3, H, W) from −1 to 1")
        return picture.shape[2], picture.shape[3]
    first = check_images("picture", picture)[0]
    return first.height, first.width


def read_pictures(picture: Pictures, size: tuple[int, int]) -> Tensor:
    """-> (1 or several, 3, H, W) in [−1, 1]."""
    if not isinstance(picture, Tensor):
        return from_images(check_images("picture", picture), size)
    check_floats("pictures", picture, "(B, 3, H, W) from −1 to 1")
    return check_range("pictures", picture, (3, *size), -1)


def read_masks(mask: Pictures, size: tuple[int, int]) -> Tensor:
    """-> (1 or several, 1, H, W), 1 where the mask is at least one half, else 0."""
    if isinstance(mask, Tensor):
        check_floats("masks", mask, "(B, 1, H, W) from 0 to 1")
        mask = check_range("masks", mask, (1, *size), 0)
    else:
        mask = from_masks(check_images("mask", mask), size)
    return (mask >= 0.5).float()


def check_images(name: str, images: Image.Image | Sequence[Image.Image]) -> list[Image.Image]:
    images = [images] if isinstance(images, Image.Image) else images
    if not isinstance(images, list | tuple) or not images or not all(isinstance(one, Image.Image) for one in images):
        raise ValueError(
            f"{name} is {type(images).__name__}, must be a PIL image, a list of them, or a tensor of floats"
        )
    return list(images)


def check_range(name: str, values: Tensor, shape: tuple[int, ...], low: int) -> Tensor:
    if tuple(values.shape[1:]) != shape:
        raise ValueError(f"{name} have the shape {tuple(values.shape)}, must have (B, {', '.join(map(str, shape))})")
    if values.numel() == 0 or values.min() < low or values.max() > 1:
        raise ValueError(f"{name} must hold numbers from {low} to 1, and some")
    return values


def spread(name: str, values: Tensor, batch: int, prompts: int) -> Tensor:
    """One for all, or one for each prompt -> one for each picture: (B, ...)."""
    if len(values) not in (1, prompts, batch):
        raise ValueError(f"{len(values)} {name} for {prompts} prompts; must be one, or as many")
    return values.repeat_interleave(batch // len(values), dim=0)
