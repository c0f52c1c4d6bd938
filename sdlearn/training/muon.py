"""Muon, for networks with convolutions.

PyTorch's `torch.optim.Muon` accepts only matrices. A convolution (out, in, h, w) is a matrix, too: out rows, and a
column for each number that a row multiplies.

Source: Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); the step's size as in
"Muon is Scalable for LLM Training" (arXiv 2502.16982, section 2.2).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# By their names in Diffusers. Without a nonlinearity in between, quant_conv forms one map with the encoder's
# conv_out, and post_quant_conv with the decoder's conv_in.
FIRST_AND_LAST = {"conv_in", "conv_out", "quant_conv", "post_quant_conv"}


class MuonAdamW(torch.optim.Optimizer):
    """Muon for the matrices and convolutions inside a network, AdamW for its first and last layer and all vectors.

    AdamW scales each number of a gradient by itself. Muon treats the gradient of a layer as one matrix and makes its
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
        super().__init__([p for _, p in named], {"lr": learning_rate})
        self.inside = [p for name, p in named if is_inside(name, p)]
        self.matrices = [nn.Parameter(as_matrix(p.detach(), like=p)) for p in self.inside]  # they share their memory
        self.muon = torch.optim.Muon(
            self.matrices,
            learning_rate,
            weight_decay=weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        rest = [p for name, p in named if not is_inside(name, p)]
        self.adamw = torch.optim.AdamW(rest, learning_rate, betas, weight_decay=weight_decay, fused=True)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update all parameters, with the learning rate of this optimizer's one group."""
        for optimizer in (self.muon, self.adamw):
            optimizer.param_groups[0]["lr"] = self.param_groups[0]["lr"]
        for parameter, matrix in zip(self.inside, self.matrices, strict=True):
            matrix.grad = None if parameter.grad is None else as_matrix(parameter.grad, like=parameter)
        self.muon.step()
        self.adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """Both optimizers' states."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both states."""
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])


def is_inside(name: str, parameter: Tensor) -> bool:
    """Whether Muon updates it: a matrix or a convolution, but not the first or the last layer."""
    return parameter.ndim in (2, 4) and not FIRST_AND_LAST & set(name.split("."))


def as_matrix(weight: Tensor, like: Tensor) -> Tensor:
    """(out, in, h, w) -> (out, in·h·w) or, if `like` has that layout, (out, h·w·in). For `like` itself, a view."""
    if not like.is_contiguous():  # channels_last; a 1×1 convolution is contiguous in both layouts
        weight = weight.permute(0, 2, 3, 1)
    return weight.flatten(1)
