"""Muon, for networks that have convolutions.

PyTorch's `torch.optim.Muon` takes matrices only. A convolution (out, in, h, w) is a matrix, too: out rows, and a column
for each number that a row multiplies.

Source: Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); the step's size as in
"Muon is Scalable for LLM Training" (arXiv 2502.16982, section 2.2).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class MuonAdamW(torch.optim.Optimizer):
    """Muon for the matrices and convolutions inside a network, AdamW for its first and last layer and all vectors.

    AdamW scales each number of a gradient by itself. Muon takes the gradient of a layer as one matrix and makes its
    singular values equal, so that rare directions are learned as fast as frequent ones. Its steps are scaled to the
    size of AdamW's, so one learning rate fits both.

    named_parameters: their memory must stay where it is, so move the network to its device first.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        learning_rate: float,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        named = list(named_parameters)
        inside = [p for name, p in named if p.ndim in (2, 4) and not {"conv_in", "conv_out"} & set(name.split("."))]
        chosen = {id(p) for p in inside}
        super().__init__([p for _, p in named], {"lr": learning_rate})
        # Each matrix shares its parameter's memory. A 1×1 convolution is contiguous in both layouts.
        self.layouts = [not parameter.is_contiguous() for parameter in inside]
        self.inside = inside
        self.matrices = [
            nn.Parameter(as_matrix(p.detach(), last)) for p, last in zip(inside, self.layouts, strict=True)
        ]
        self.muon = torch.optim.Muon(
            self.matrices,
            learning_rate,
            weight_decay=weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        rest = [p for _, p in named if id(p) not in chosen]
        self.adamw = torch.optim.AdamW(rest, learning_rate, betas, weight_decay=weight_decay, fused=True)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Move all parameters, at the learning rate of this optimizer's one group."""
        for optimizer in (self.muon, self.adamw):
            optimizer.param_groups[0]["lr"] = self.param_groups[0]["lr"]
        for parameter, matrix, last in zip(self.inside, self.matrices, self.layouts, strict=True):
            matrix.grad = None if parameter.grad is None else as_matrix(parameter.grad, last)
        self.muon.step()
        self.adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """Both optimizers' states."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up both states."""
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])


def as_matrix(weight: Tensor, channels_last: bool) -> Tensor:
    """(out, in, h, w) -> (out, in·h·w) or, where memory is laid out so, (out, h·w·in): without a copy."""
    if channels_last:
        weight = weight.permute(0, 2, 3, 1)
    return weight.flatten(1)
