"""LoRA: the weights stay as they are, and a small update is computed beside them.

A layer that computes W x then computes W x + scale · alpha / rank · B A x. A and B have `rank` rows and columns, so
B A is a matrix as large as W that takes little to store. Only A and B are trained.

Source: "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685, section 4.1, equation 3).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdlearn.config import check_count

if TYPE_CHECKING:
    from sdlearn.pipeline import StableDiffusion


class Update(nn.Module):
    """What LoRA adds to one layer: scale · alpha / rank · B A x.

    A is (rank, in) and B (out, rank); of a 1×1 convolution (rank, in, 1, 1) and (out, rank, 1, 1). Files call them
    lora_A and lora_B, or lora_down and lora_up. alpha is stored with them, and is rank where nothing is stored; the
    scale is for whoever draws a picture.
    """

    def __init__(self, A: Tensor, B: Tensor, alpha: float | None = None) -> None:
        super().__init__()
        self.A, self.B = nn.Parameter(A), nn.Parameter(B)
        self.rank = len(A)
        self.alpha = self.rank if alpha is None else alpha
        self.scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), or (B, in, H, W) -> (B, out, H, W)."""
        apply = F.conv2d if self.A.ndim == 4 else F.linear
        return self.scale * self.alpha / self.rank * apply(apply(x, self.A), self.B)

    def matrix(self) -> Tensor:
        """scale · alpha / rank · B A, in the shape of the layer's weight and at least in float32."""
        A, B = (one.flatten(1).to(torch.promote_types(one.dtype, torch.float32)) for one in (self.A, self.B))
        return self.scale * self.alpha / self.rank * (B @ A).reshape(len(B), *self.A.shape[1:])


LoRA = dict[str, Update]
"""An adapter: the names of layers, such as "unet.mid_block.attentions.0.proj_in", and the update of each."""


class LoRALayer(nn.Module):
    """A layer as it was, and the updates of all adapters attached to it: takes the layer's place in the network."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.updates = layer, nn.ModuleList()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + sum(update(x) for update in self.updates)


TARGETS = {
    "attention": ("to_q", "to_k", "to_v", "to_out.0"),
    "feed_forward": ("ff.net.0.proj", "ff.net.2"),
    "projections": ("proj_in", "proj_out"),
    "text": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
}
"""The layers that `create` can update: three kinds in the UNet's transformers, and those of the text encoder."""


def networks(model: "StableDiffusion") -> nn.ModuleDict:
    """The networks that adapters change, under the names that LoRA files have for them."""
    return nn.ModuleDict({"text_encoder": model.text_encoder, "unet": model.unet})


def layers(model: "StableDiffusion") -> dict[str, nn.Module]:
    """Every layer that can have an update, by name: the linear ones and the 1×1 convolutions."""
    return {
        name.removesuffix(".layer"): layer
        for name, layer in networks(model).named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))
    }


def create(
    model: "StableDiffusion",
    rank: int = 4,
    alpha: float | None = None,
    targets: Sequence[str] = ("attention",),
    generator: torch.Generator | None = None,
) -> LoRA:
    """A new adapter, to be trained. A is random, with a standard deviation of 1 / rank, and B is 0: so is the update.

    targets: one or more of TARGETS. alpha: rank if it isn't given.

    Raises ValueError for a rank that isn't a whole number above 0, or an unknown target.
    """
    check_count("rank", rank)
    if unknown := [target for target in targets if target not in TARGETS]:
        raise ValueError(f"targets {', '.join(map(repr, unknown))} are unknown; accepted: {', '.join(TARGETS)}")
    ends = tuple(f".{end}" for target in targets for end in TARGETS[target])
    lora: LoRA = {}
    for name, layer in layers(model).items():
        if name.endswith(ends):
            out, inputs, *ones = layer.weight.shape
            A = torch.randn(rank, inputs, *ones, generator=generator) / rank
            lora[name] = Update(A, torch.zeros(out, rank, *ones), alpha).to(layer.weight)
    return lora


def attach(model: "StableDiffusion", lora: LoRA, scale: float = 1.0) -> None:
    """Let the model compute the updates of an adapter, beside those that it already has.

    The adapter must fit the model: `load_lora` checks that. It is moved to the device and the dtype of the layers.

    Raises ValueError if it is attached already.
    """
    inside = networks(model)
    for name, update in lora.items():
        place = inside.get_submodule(name)
        if not isinstance(place, LoRALayer):
            place = LoRALayer(place)
            inside.set_submodule(name, place)
        if any(update is one for one in place.updates):
            raise ValueError(f"this adapter is attached already, to {name}; set_scale changes its scale")
        place.updates.append(update.to(place.layer.weight))
    set_scale(lora, scale)


def set_scale(lora: LoRA, scale: float) -> None:
    """How strongly an adapter works: 0 not at all, 1 as it was trained; other numbers work, too."""
    for update in lora.values():
        update.scale = scale


def attached(model: "StableDiffusion") -> dict[str, LoRALayer]:
    """The layers that have updates, by name."""
    return {name: place for name, place in networks(model).named_modules() if isinstance(place, LoRALayer)}


def detach(model: "StableDiffusion", lora: LoRA | None = None) -> None:
    """Take an adapter off the model, or all of them. The layers were never changed, so the model is what it was."""
    inside, gone = networks(model), None if lora is None else {id(update) for update in lora.values()}
    for name, place in attached(model).items():
        place.updates = nn.ModuleList(one for one in place.updates if gone is not None and id(one) not in gone)
        if not place.updates:
            inside.set_submodule(name, place.layer)


@torch.no_grad()
def merge(model: "StableDiffusion") -> dict[str, Tensor]:
    """Add the updates to the weights: W + scale · alpha / rank · B A. Then the model is as fast as without them.

    Returns the weights as they were, for `restore`: subtracting the updates again would leave rounding errors.
    """
    inside, kept = networks(model), {}
    for name, place in attached(model).items():
        weight = place.layer.weight
        kept[name] = weight.data
        weight.data = (weight + sum(update.matrix() for update in place.updates)).to(weight.dtype)
        inside.set_submodule(name, place.layer)
    return kept


def restore(model: "StableDiffusion", kept: dict[str, Tensor]) -> None:
    """Put the weights back that `merge` returned. If it was called several times, begin with the last."""
    inside = layers(model)
    for name, weight in kept.items():
        inside[name].weight.data = weight.to(inside[name].weight)
