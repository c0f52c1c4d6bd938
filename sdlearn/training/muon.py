"""Muon, for networks with convolutions.

PyTorch's `torch.optim.Muon` accepts only matrices, and computes in bfloat16. A processor that has no instructions for
bfloat16 takes fifty times longer for it than for float32: more than for all the rest of a training step. So here is
Muon in float32. A convolution (out, in, h, w) is a matrix, too: out rows, and a column for each number that a row
multiplies.

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
MOMENTUM = 0.95
ITERATIONS = 5


class MuonAdamW(torch.optim.Optimizer):
    """Muon for the matrices and convolutions inside a network, AdamW for its first and last layer and all vectors.

    AdamW scales each number of a gradient by itself. Muon treats the gradient of a layer as one matrix and makes its
    singular values nearly equal, so that rare directions are learned as fast as frequent ones. Its steps are scaled to
    the size of AdamW's, so one learning rate fits both.

    named_parameters: move the network to its device first.
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
        self.weight_decay = weight_decay
        self.inside = [p for name, p in named if is_inside(name, p)]
        self.momentum = [torch.zeros_like(p) for p in self.inside]
        rest = [p for name, p in named if not is_inside(name, p)]
        self.adamw = torch.optim.AdamW(rest, learning_rate, betas, weight_decay=weight_decay, fused=True)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update all parameters, with the learning rate of this optimizer's one group."""
        learning_rate = self.param_groups[0]["lr"]
        for parameter, momentum in zip(self.inside, self.momentum, strict=True):
            if parameter.grad is None:
                continue
            momentum.lerp_(parameter.grad, 1 - MOMENTUM)
            update = orthogonalize(parameter.grad.lerp(momentum, MOMENTUM).flatten(1))  # a look ahead, as Nesterov's
            size = 0.2 * max(update.shape) ** 0.5  # AdamW's steps have about this root mean square
            parameter.mul_(1 - learning_rate * self.weight_decay)
            parameter.sub_(update.view(parameter.shape), alpha=learning_rate * size)
        self.adamw.param_groups[0]["lr"] = learning_rate
        self.adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """The mean gradient of each matrix, and AdamW's state."""
        return {"momentum": self.momentum, "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both."""
        for momentum, value in zip(self.momentum, state_dict["momentum"], strict=True):
            momentum.copy_(value)
        self.adamw.load_state_dict(state_dict["adamw"])


def orthogonalize(matrix: Tensor) -> Tensor:
    """Bring all singular values near 1, and keep the singular vectors. (out, in) -> (out, in)

    A polynomial of the matrix changes its singular values alone. This one is steep at zero, so that small ones grow
    fast; large ones end between about 0.7 and 1.2.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T  # the smaller product of the two
    x = wide / wide.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        product = x @ x.T
        x = 3.4445 * x + (-4.7750 * product + 2.0315 * product @ product) @ x
    return x if wide is matrix else x.T


def is_inside(name: str, parameter: Tensor) -> bool:
    """Whether Muon updates it: a matrix or a convolution, but not the first or the last layer."""
    return parameter.ndim in (2, 4) and not FIRST_AND_LAST & set(name.split("."))
