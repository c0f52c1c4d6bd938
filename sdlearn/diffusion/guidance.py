"""Classifier-free guidance: the UNet's conditions, and how two of its predictions become one.

Source: "Classifier-Free Diffusion Guidance" (arXiv 2207.12598).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """What the UNet is given in addition to x and t.

    context: the text embedding (B, T, C). channels: (B, C, H, W), appended to x after the sampler's scaling
    (inpainting, depth, super-resolution). class_labels: (B,). control: control(x, t, context) returns ControlNet's
    residuals for the UNet; x comes without the channels, and under guidance with both halves, 2B.
    """

    context: Tensor
    channels: Tensor | None = None
    class_labels: Tensor | None = None
    control: Callable[[Tensor, Any, Tensor], Any] | None = None


def drop_captions(context: Tensor, empty: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A batch of captions in which some are lost: each is replaced by the empty one with the probability `share`.

    context: (B, T, C). empty: (T, C). A number between 0 and 1 is drawn for each caption, `torch.rand(B)` from the
    generator; a caption is lost if its number is below `share`. (B, T, C) comes back.
    """
    lost = torch.rand(len(context), generator=generator) < share  # (B,)
    return torch.where(lost[:, None, None], empty, context)  # (B, 1, 1), (T, C), (B, T, C) -> (B, T, C)


def combine(unconditional: Tensor, conditional: Tensor, guidance_scale: float) -> Tensor:
    """Two predictions (B, C, H, W) become one: from the unconditional one towards the conditional one, and beyond it.

    Ho & Salimans 2022, equation 6, whose w is guidance_scale - 1. Scale 0 is the unconditional prediction.
    """
    return unconditional + guidance_scale * (conditional - unconditional)


def guide(
    unet: Callable[..., Tensor],
    condition: Condition,
    unconditional: Condition | None,
    guidance_scale: float,
    rescale: float = 0.0,
    *,
    combine: Callable[[Tensor, Tensor, float], Tensor] = combine,
) -> Callable[[Tensor, int | float | Tensor], Tensor]:
    """A function denoise(x, t) that returns the UNet's raw prediction (epsilon, x_0 or v), guided by the condition.

    `combine` does it. Scale 1 is the conditional prediction alone: then only that half is computed, and
    `unconditional` may be None. Else both halves run in one batch, the unconditional one first.

    unet: called as unet(x, t, context, class_labels=..., residuals=...).
    unconditional: the empty or the negative prompt. If its channels or class_labels are None, the condition's are used;
    control is always the condition's.
    rescale: from 0 to 1, how far the standard deviation of each image is brought back to that of the conditional
    prediction, against over-exposure (Lin et al. 2023, section 3.4, equations 15 and 16).

    Raises ValueError when unconditional is missing but needed, shapes don't match, or a number is out of range.
    """
    if not -float("inf") < guidance_scale < float("inf"):
        raise ValueError(f"guidance_scale = {guidance_scale}, must be finite")
    if not 0 <= rescale <= 1:
        raise ValueError(f"rescale = {rescale}, must be from 0 to 1")
    if guidance_scale != 1 and unconditional is None:
        raise ValueError(f"guidance_scale = {guidance_scale} needs an unconditional condition; only 1 works without")
    if guidance_scale == 1:
        return partial(look, unet, condition)
    both = join(unconditional, condition)

    def denoise(x: Tensor, t: int | float | Tensor) -> Tensor:
        t = torch.cat([t, t]) if isinstance(t, Tensor) and t.ndim == 1 else t
        without, conditional = look(unet, both, torch.cat([x, x]), t).chunk(2)  # (2B, C, H, W) -> (B, C, H, W) twice
        guided = combine(without, conditional, guidance_scale)
        return rescale_std(guided, conditional, rescale)

    return denoise


def look(unet: Callable[..., Tensor], condition: Condition, x: Tensor, t: int | float | Tensor) -> Tensor:
    """One call of the UNet, with everything that the condition holds. (B, C, H, W) -> the same shape.

    Raises ValueError when the condition is for another number of images than x has.
    """
    check_batch(condition, x)
    residuals = condition.control(x, t, condition.context) if condition.control else None
    if condition.channels is not None:
        x = torch.cat([x, condition.channels.to(x)], dim=1)
    return unet(x, t, condition.context, class_labels=condition.class_labels, residuals=residuals)


def rescale_std(guided: Tensor, conditional: Tensor, rescale: float) -> Tensor:
    """`guided`, each image's standard deviation brought back to that of `conditional`: part of the way, from 0 to 1.

    (B, C, H, W), (B, C, H, W) -> (B, C, H, W). Lin et al. 2023, section 3.4, equations 15 and 16.
    """
    if rescale == 0:
        return guided
    dims = tuple(range(1, guided.ndim))  # one standard deviation for each image
    matched = guided * conditional.std(dims, keepdim=True) / guided.std(dims, keepdim=True)
    return rescale * matched + (1 - rescale) * guided


def check_batch(condition: Condition, x: Tensor) -> None:
    """Raises ValueError unless the condition is for as many images as x has."""
    for name in ("context", "channels", "class_labels"):
        value = getattr(condition, name)
        if value is not None and len(value) != len(x):
            raise ValueError(f"{name} has a batch of {len(value)}, x one of {len(x)}; they must be equal")


def join(unconditional: Condition, condition: Condition) -> Condition:
    """Both conditions as one with twice the batch, the unconditional half first."""
    joined = {}
    for name in ("context", "channels", "class_labels"):
        first, second = getattr(unconditional, name), getattr(condition, name)
        if second is None and first is not None:
            raise ValueError(f"unconditional has {name} and condition has none")
        first = second if first is None else first
        if first is not None and first.shape != second.shape:
            raise ValueError(f"{name}: shape {tuple(first.shape)} of unconditional is not {tuple(second.shape)}")
        joined[name] = None if first is None else torch.cat([first, second])
    return Condition(**joined, control=condition.control)
