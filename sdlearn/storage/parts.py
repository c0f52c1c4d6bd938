"""What `load(parts=...)` can swap: the names of classes and functions, and where each belongs."""

from collections.abc import Callable, Mapping
from typing import Any

from sdlearn.diffusion.samplers import SAMPLERS
from sdlearn.models.autoencoder import Autoencoder
from sdlearn.models.text import TextEncoder
from sdlearn.models.unet import UNet


def list_parts() -> dict[str, tuple[str, ...]]:
    """PARTS: the blocks of each network class, the samplers' loops, and what the pipeline is made of."""
    places: dict[str, tuple[str, ...]] = {}
    for place, network in (("unet", UNet), ("autoencoder", Autoencoder), ("text_encoder", TextEncoder)):
        for name in network.parts:
            places[name] = (*places.get(name, ()), place)
    places |= dict.fromkeys(SAMPLERS, ("samplers",))
    return places | {
        "guide": ("pipeline",),
        "combine": ("guide",),
        "schedule": ("pipeline",),
        "tokenizer": ("pipeline",),
        "encode_pictures": ("pipeline",),
        "decode_latents": ("pipeline",),
        "text_to_image": ("pipeline",),
    }


PARTS = list_parts()
"""What `load(parts=...)` can swap, and where: loops (the samplers), functions (guide, combine, encode_pictures,
decode_latents, sinusoids, text_to_image), classes (the rest)."""


def sort_parts(parts: Mapping[str, Callable[..., Any]] | None) -> dict[str, dict[str, Callable[..., Any]]]:
    """A caller's own classes and functions, by the place where they belong: {place: {name: part}}, with all places.

    Raises ValueError for a name that is not in PARTS.
    """
    parts = parts or {}
    if unknown := sorted(set(parts) - set(PARTS)):
        raise ValueError(f"parts {', '.join(unknown)} are unknown; accepted: {', '.join(PARTS)}")
    places = {place for places in PARTS.values() for place in places}
    return {place: {name: part for name, part in parts.items() if place in PARTS[name]} for place in places}
