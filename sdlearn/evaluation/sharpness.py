"""How sharp a drawn picture is: how close it comes to the nearest true rendering of what was requested.

A scene is a function of subject, colour, size and place. So what was requested can be rendered at all sizes and
places, and the nearest one chosen. The distance from that one measures the drawing alone.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdlearn.data.scenes import COLORS, SIZES, Stickers, paste, placement, steepness

SIDE = 64  # pixels of a scene
EDGE = 0.25  # an edge: this much of the way from black to white between neighbouring pixels


@dataclass(frozen=True)
class Sharpness:
    """How close the pictures of a group come to the nearest true rendering of what was requested.

    For the drawn pictures, and for those renderings after a round trip through the autoencoder.
    """

    group: str
    psnr: float  # dB; the mean over the pictures
    psnr_autoencoder: float
    edges: float  # agreement of edges, from 0 to 1
    edges_autoencoder: float


def renderings(stickers: Stickers, subject: str, color: str, size: str) -> Tensor:
    """All correct pictures for a request, (N, 3, 64, 64) uint8: every size that the word allows, every place.

    Captions don't contain "medium", so for it any size is correct.
    """
    words = SIZES if size == "medium" else (size,)
    sides = [side for word in words for side in range(SIZES[word][0], SIZES[word][1] + 1)]
    pictures = []
    for side in sides:
        sticker = stickers.shrunk(subject, side)  # (h, w, 4)
        (top, down), (left, right) = (placement(length) for length in sticker.shape[:2])
        # One larger picture with the subject in the middle: each place is a window of it.
        canvas = np.full((SIDE + 2 * down, SIDE + 2 * right, 3), COLORS[color], np.uint8)
        paste(canvas, sticker, left + right, top + down)
        windows = torch.from_numpy(canvas).unfold(0, SIDE, 1).unfold(1, SIDE, 1)  # (2·down+1, 2·right+1, 3, 64, 64)
        pictures.append(windows.flatten(0, 1))
    return torch.cat(pictures)


def nearest_renderings(drawn: Tensor, asked: list[tuple[str, str, str]]) -> Tensor:
    """For each picture (B, 3, 64, 64) uint8 the rendering of what was requested that is nearest in squared error.

    asked: a subject, a colour and a size for each picture.
    """
    stickers = Stickers(sorted({subject for subject, _, _ in asked}))
    nearest = []
    for picture, request in zip(drawn, asked, strict=True):
        right = renderings(stickers, *request)
        errors = (right.float() - picture.float()).square().sum(dim=(1, 2, 3))  # (N,)
        nearest.append(right[errors.argmin()])
    return torch.stack(nearest)


def edge_agreement(drawn: Tensor, true: Tensor) -> Tensor:
    """How well the edges of two sets of pictures (B, 3, H, W) uint8 agree: (B,), 1 where they are the same pixels.

    F1, the harmonic mean of two shares: of the drawn edges, how many are true; of the true ones, how many are drawn.
    """
    one, other = edge_pixels(drawn), edge_pixels(true)
    both, total = (one & other).sum(dim=(1, 2)), one.sum(dim=(1, 2)) + other.sum(dim=(1, 2))
    return torch.where(total > 0, 2 * both / total, 1.0)


def edge_pixels(pictures: Tensor) -> Tensor:
    """Where the grey picture changes by more than EDGE from pixel to pixel, by Sobel's filters. (B, H, W), booleans."""
    grey = pictures.float().mean(dim=1, keepdim=True) / 255  # (B, 1, H, W)
    return steepness(grey) > EDGE


def psnr(original: Tensor, other: Tensor) -> tuple[Tensor, float]:
    """Peak signal-to-noise ratio in dB: of each picture, (B,), and of the mean squared error of all.

    10·log10(255² / mean squared error). Pictures are (B, C, H, W) uint8. Raises ValueError when shapes or types differ.
    """
    if original.shape != other.shape or original.dtype != torch.uint8 or other.dtype != torch.uint8:
        sides = [f"{tuple(x.shape)} {x.dtype}" for x in (original, other)]
        raise ValueError(f"pictures of {sides[0]} and {sides[1]}; accepted: equal shapes of torch.uint8")
    errors = (original.double() - other.double()).square().mean(dim=(1, 2, 3))  # (B, C, H, W) -> (B,)
    return 10 * torch.log10(255**2 / errors), (10 * torch.log10(255**2 / errors.mean())).item()


def measure_sharpness(
    drawn: Tensor, nearest: Tensor, reconstructed: Tensor, groups: dict[str, Tensor]
) -> list[Sharpness]:
    """The sharpness of each group that isn't empty.

    drawn, and for each picture the nearest true rendering, and that after the autoencoder: (B, 3, 64, 64) uint8.
    groups: by name, which pictures belong to it, (B,) booleans.
    """
    measured = [psnr(nearest, pictures)[0] for pictures in (drawn, reconstructed)]
    measured += [edge_agreement(pictures, nearest) for pictures in (drawn, reconstructed)]
    return [
        Sharpness(name, *(values[inside].mean().item() for values in measured))
        for name, inside in groups.items()
        if inside.any()
    ]
