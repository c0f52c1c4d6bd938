"""Parity and equation checks that the lessons and the tests share."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Measurement:
    """One comparison with a reference, as `docs/parity.md` lists it."""

    name: str
    reference: str  # the class or function that ours was compared with
    difference: float
    bound: float


MEASUREMENTS: list[Measurement] = []  # of this process; `make parity` writes the worst of each into docs/parity.md


def parity_table(measurements: list[Measurement]) -> str:
    """The worst of the measurements for each name, reference and bound, as a Markdown table."""
    worst: dict[tuple[str, str, float], tuple[float, int]] = {}
    for one in measurements:
        difference, count = worst.get((one.name, one.reference, one.bound), (0.0, 0))
        worst[one.name, one.reference, one.bound] = max(difference, one.difference), count + 1
    rows = [
        f"| {name} | {reference} | {count} | {difference:.1e} | {bound:.0e} |"
        for (name, reference, bound), (difference, count) in sorted(worst.items())
    ]
    return "\n".join(
        ["| part | reference | comparisons | worst difference | bound |", "|---|---|---|---|---|", *rows, ""]
    )


@torch.no_grad()
def randomize_(module: nn.Module, seed: int = 0, std: float = 0.1) -> nn.Module:
    """Draw every parameter anew, so that no swapped norm or zero convolution can hide behind its default value.

    Vectors called `weight` are norms: they are drawn around 1, all others around 0. Changes `module` in place.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        center = 1.0 if name.endswith("weight") and parameter.ndim == 1 else 0.0
        parameter.copy_(center + std * torch.randn(parameter.shape, generator=generator))
    return module


def max_difference(ours: Tensor, reference: Tensor) -> float:
    """The largest absolute difference, max |Δ|.

    Raises:
        ValueError: the shapes differ, or one side holds a value that is not finite.
    """
    if ours.shape != reference.shape:
        raise ValueError(f"shapes differ: ours {tuple(ours.shape)}, reference {tuple(reference.shape)}")
    for side, tensor in (("ours", ours), ("reference", reference)):
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{side} holds values that are not finite")
    return (ours.detach().double() - reference.detach().double()).abs().max().item() if ours.numel() else 0.0


def assert_parity(
    name: str,
    ours: Tensor,
    reference: Tensor,
    bound: float = 1e-5,
    relative: bool = False,
    *,
    against: str | None = None,
) -> float:
    """Assert max |ours − reference| ≤ bound, and return the difference.

    With `relative` the difference is divided by max(1, max |reference|): for quantities that are not of order one.
    `against` names the reference's class; then the comparison is added to MEASUREMENTS under `name`.

    Raises:
        AssertionError: the bound is passed; the message holds `name`, the difference and the bound.
    """
    difference = max_difference(ours, reference)
    if relative and reference.numel():
        difference /= max(1.0, reference.detach().abs().max().item())
    if against is not None:
        MEASUREMENTS.append(Measurement(name, against, difference, bound))
    if not difference <= bound:
        raise AssertionError(f"{name}: |Δ| = {difference:.3g} is above {bound:g}")
    return difference


def assert_gradients(
    ours: nn.Module, reference: nn.Module, bound: float = 1e-4, *, name: str = "", against: str | None = None
) -> float:
    """Assert that two modules' parameters, paired by order of their names, have equal gradients; return the worst |Δ|.

    Each difference is relative to the largest gradient of that parameter in the reference; a parameter whose
    gradient is zero up to rounding (a key's bias before a softmax) is measured against the largest of all. With
    `against`, the reference's class, the worst is added to MEASUREMENTS under `name`.

    Raises:
        AssertionError: a difference passes the bound, or only one side has a gradient.
        ValueError: the modules have different parameters.
    """
    pairs = list(zip(sorted(ours.named_parameters()), sorted(reference.named_parameters()), strict=True))
    gradients = [parameter.grad for _, (_, parameter) in pairs if parameter.grad is not None]
    if not gradients:
        raise AssertionError("the reference has no gradient: call backward() on both sides first")
    largest = max(gradient.abs().max().item() for gradient in gradients)
    worst = 0.0
    for (parameter, mine), (_, theirs) in pairs:
        if (mine.grad is None) != (theirs.grad is None):
            raise AssertionError(f"{parameter}: only one side has a gradient")
        if mine.grad is None:
            continue
        scale = max(theirs.grad.abs().max().item(), 1e-3 * largest)
        worst = max(worst, max_difference(mine.grad, theirs.grad) / scale)
        if not worst <= bound:
            raise AssertionError(f"gradient of {parameter}: relative |Δ| = {worst:.3g} is above {bound:g}")
    if against is not None:
        MEASUREMENTS.append(Measurement(name, against, worst, bound))
    return worst


def report_parity(name: str, reference_name: str, ours: Tensor, reference: Tensor, bound: float = 1e-5) -> float:
    """`assert_parity` for a lesson: prints one line that is the same on every machine, and returns the difference."""
    difference = assert_parity(name, ours, reference, bound)
    print(f"{name}  {reference_name}  |Δ| ≤ {bound:.0e}  ok")
    return difference
