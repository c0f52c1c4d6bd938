"""Latents as a file: rounded, and packed without further loss. How long it is, is what the KL measures."""

import lzma
import math

import torch
from torch import Tensor

from sdlearn.models.autoencoder import Gaussian

PACKER = [{"id": lzma.FILTER_LZMA1, "preset": 9, "lc": 0, "lp": 0, "pb": 0}]  # each byte by itself, not words of bytes


def round_means(gaussian: Gaussian) -> tuple[Tensor, Tensor]:
    """The means as multiples of a step: whole numbers (B, C, H, W), and the steps (C, H, W), the same for all pictures.

    A step is √12 times the standard deviation that is typical at its place, the geometric mean over the pictures: an
    error spread evenly over such a step is as large as the Gaussian's noise.
    """
    std = (0.5 * gaussian.logvar.mean(dim=0)).exp()  # (B, C, H, W) -> (C, H, W)
    step = math.sqrt(12) * std
    return (gaussian.mean / step).round(), step


def packed_bits(whole: Tensor) -> float:
    """Bits for each picture in a file that holds the whole numbers (B, C, H, W), from −128 to 127, of all pictures."""
    rows = whole.flatten(1).T.to(torch.int8)  # (B, C, H, W) -> (C*H*W, B): what is alike stands together
    return 8 * len(lzma.compress(rows.numpy().tobytes(), lzma.FORMAT_RAW, filters=PACKER)) / len(whole)
