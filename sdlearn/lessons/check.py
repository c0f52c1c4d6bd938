"""Parity and equation checks that the lessons and the tests share."""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Measurement:
    """One comparison with a reference, as listed in `docs/parity.md`."""

    name: str
    reference: str  # the class or function that ours was compared with
    dtype: torch.dtype
    difference: float
    tolerance: float


# Two correct programs differ only by rounding: in float64 by far less than 1e-9. In float32 the processor matters.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}

MEASUREMENTS: list[Measurement] = []  # of this process; `make parity` writes the worst of each into docs/parity.md


def measurements_table(measurements: list[Measurement]) -> str:
    """The worst of the measurements for each name and reference, in float64 and in float32, as a Markdown table."""
    worst: dict[tuple[str, str], dict[torch.dtype, float]] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for one in measurements:
        row = worst.setdefault((one.name, one.reference), {})
        row[one.dtype] = max(row.get(one.dtype, 0.0), one.difference)
        counts[one.name, one.reference] += 1
    rows = []
    for (name, reference), row in sorted(worst.items()):
        cells = [f"{row[dtype]:.1e}" if dtype in row else "" for dtype in TOLERANCES]
        rows.append(f"| {name} | {reference} | {counts[name, reference]} | {' | '.join(cells)} |")
    head = ["| part | reference | comparisons | worst in float64 | worst in float32 |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows, ""])


@torch.no_grad()
def randomize_(module: nn.Module, seed: int = 0, std: float = 0.1) -> nn.Module:
    """Redraw every parameter, so that no swapped norm or zero convolution can hide behind its default value.

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
    name: str, ours: Tensor, reference: Tensor, tolerance: float | None = None, *, against: str | None = None
) -> float:
    """Assert max |ours − reference| ≤ tolerance · max(1, max |reference|), and return the scaled difference.

    The default `tolerance` is that of the dtype, the wider of the two, in TOLERANCES. With `against`, the name of
    the reference's class, the comparison is added to MEASUREMENTS under `name`.

    Raises:
        AssertionError: the difference is above the tolerance; the message holds `name` and both numbers.
    """
    difference = max_difference(ours, reference)
    if reference.numel():
        difference /= max(1.0, reference.detach().abs().max().item())
    dtype = torch.promote_types(ours.dtype, reference.dtype)  # a float32 that should be float64 must not pass
    tolerance = TOLERANCES[dtype] if tolerance is None else tolerance
    if against is not None:
        MEASUREMENTS.append(Measurement(name, against, dtype, difference, tolerance))
    if not difference <= tolerance:
        raise AssertionError(f"{name}: |Δ| = {difference:.3g} is above {tolerance:g}")
    return difference


def assert_gradients(
    ours: nn.Module,
    reference: nn.Module,
    tolerance: float | None = None,
    *,
    name: str = "",
    against: str | None = None,
) -> float:
    """Assert that two modules' parameters, paired by order of their names, have equal gradients; return the worst |Δ|.

    Each difference is relative to the largest gradient of that parameter in the reference; a parameter whose
    gradient is zero up to rounding (a key's bias before a softmax) is measured against the largest of all. With
    `against`, the reference's class, the worst is added to MEASUREMENTS under `name`.

    Raises:
        AssertionError: a difference is above the tolerance, or only one side has a gradient.
        ValueError: the modules have different parameters.
    """
    pairs = list(zip(sorted(ours.named_parameters()), sorted(reference.named_parameters()), strict=True))
    gradients = [parameter.grad for _, (_, parameter) in pairs if parameter.grad is not None]
    if not gradients:
        raise AssertionError("the reference has no gradient: call backward() on both sides first")
    dtype = gradients[0].dtype
    tolerance = TOLERANCES[dtype] if tolerance is None else tolerance
    largest = max(gradient.abs().max().item() for gradient in gradients)
    worst = 0.0
    for (parameter, mine), (_, theirs) in pairs:
        if (mine.grad is None) != (theirs.grad is None):
            raise AssertionError(f"{parameter}: only one side has a gradient")
        if mine.grad is None:
            continue
        scale = max(theirs.grad.abs().max().item(), 1e-3 * largest)
        worst = max(worst, max_difference(mine.grad, theirs.grad) / scale)
        if not worst <= tolerance:
            raise AssertionError(f"gradient of {parameter}: relative |Δ| = {worst:.3g} is above {tolerance:g}")
    if against is not None:
        MEASUREMENTS.append(Measurement(name, against, dtype, worst, tolerance))
    return worst


def report_parity(name: str, reference_name: str, ours: Tensor, reference: Tensor, tolerance: float = 1e-5) -> float:
    """`assert_parity` for a lesson: prints one line that is the same on every machine, and returns the difference."""
    difference = assert_parity(name, ours, reference, tolerance)
    print(f"{name}  {reference_name}  |Δ| ≤ {tolerance:.0e}  ok")
    return difference


def equal(what: str, left: Tensor | float, right: Tensor | float, tolerance: float | None = None) -> None:
    """Show that an equation holds: assert that its two sides differ by at most tolerance · max(1, max |right|).

    Prints the difference, divided by max |right| where that is above 1. The default tolerance is that of the dtype.

    Raises:
        AssertionError: they differ by more.
        ValueError: their shapes differ, or a value is not finite.
    """
    difference = assert_parity(what, *_floats(left, right), tolerance)
    print(f"{what}: the two sides differ by {_short(difference)}")


def parity_table(rows: list[tuple[str, str, Tensor | float, Tensor | float, float]]) -> None:
    """Assert each (name, name of the reference, ours, theirs, tolerance) as `assert_parity` does, and print a table."""
    lines = [("ours", "theirs", "allowed", "differ by")]
    for name, reference, ours, theirs, tolerance in rows:
        difference = assert_parity(f"{name} and {reference}", *_floats(ours, theirs), tolerance)
        lines.append((name, reference, f"{tolerance:.0e}" if tolerance else "0", _short(difference)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _floats(*sides: Tensor | float) -> list[Tensor]:
    """Tensors of floats as they are; all else as such tensors, of the other side's dtype or else of float64."""
    floats = [side for side in sides if isinstance(side, Tensor) and side.is_floating_point()]
    dtype = floats[0].dtype if floats else torch.float64
    return [side if any(side is one for one in floats) else torch.as_tensor(side, dtype=dtype) for side in sides]


def _short(difference: float) -> str:
    """The difference in the form that notebooks/sanitize.cfg knows: it has other digits on another processor."""
    return f"{difference:.1e}" if difference else "0"
