"""How two outputs are compared, and how a difference is put in words."""

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from itertools import permutations
from typing import Any

import numpy as np
import torch
from torch import Tensor

TOLERANCE = 1e-5  # of a difference, relative to the value, or to the median of the values where that is larger
SLACK = 10.0  # how many times what rounding the inputs does to the output


class Steps(list):
    """What a generator yielded. cut: it would have yielded more than it was asked for."""

    cut = False


def leaves(output: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """The single values in an output, each with its place in words, "step 3, x"."""
    inside = f"{where}, " if where else ""
    if is_dataclass(output) and not isinstance(output, type):
        for field in fields(output):
            yield from leaves(getattr(output, field.name), f"{inside}{field.name}")
    elif isinstance(output, tuple | list):
        name = "step" if isinstance(output, Steps) else "output"
        for i, one in enumerate(output, 1):
            yield from leaves(one, f"{inside}{name} {i}")
    else:
        yield where, output


def is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number | np.bool_)


def is_numeric(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray) or is_number(value)


def to_tensor(value: Any) -> Tensor:
    """A number, array or tensor as a tensor of its own dtype, on the CPU. One without data becomes NaN."""
    if isinstance(value, Tensor) and value.is_meta:
        return torch.full(value.shape, torch.nan)
    if isinstance(value, Tensor):
        return value.detach().cpu()
    return torch.as_tensor(value, dtype=torch.float64 if type(value) is float else None)


def kind(output: Any) -> str:
    """What sort of thing an output is, in words."""
    if isinstance(output, Steps):
        return "no steps" if not output else f"{len(output)} steps, each {kind(output[0])}"
    if is_dataclass(output) and not isinstance(output, type):
        return f"a {type(output).__name__}"
    if isinstance(output, tuple | list):
        if not output:
            return f"an empty {type(output).__name__}"
        kinds = [f"a list of {len(one)}" if isinstance(one, list) else kind(one) for one in output]
        alike = len(kinds) > 3 and len(set(kinds)) == 1
        return f"{len(kinds)} values ({f'each {kinds[0]}' if alike else ', '.join(kinds)})"
    if isinstance(output, np.ndarray):
        return "an array"
    if isinstance(output, Tensor):
        return "a tensor"
    return "a number" if is_number(output) else describe(output)


def describe(value: Any) -> str:
    """A value that is not what was expected, in a few words."""
    if value is None:
        return "None"
    if isinstance(value, str):
        return repr(value) if len(value) <= 40 else f"{value[:40]!r} …"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "a function" if callable(value) else f"a value of type {type(value).__name__}"


def difference(
    mine: Any, theirs: Any, spread: list[Tensor | None] | None = None, tolerance: float = TOLERANCE
) -> str | None:
    """Where and how the outputs of one case first differ, in words; None if they agree.

    In this order: the number of values and their sort, the shapes, the dtypes, the values. Any floating dtype will do
    for another one, and a number for a tensor of one element. spread: for each value of theirs what rounding the
    inputs does to it.
    """
    ours, reference = list(leaves(mine)), list(leaves(theirs))
    more = getattr(mine, "cut", False) != getattr(theirs, "cut", False)
    if more or [place for place, _ in ours] != [place for place, _ in reference]:
        return other_kind(mine, theirs)
    pairs = [(place, one, other) for (place, one), (_, other) in zip(ours, reference, strict=True)]
    for place, one, other in pairs:
        if is_numeric(one) != is_numeric(other) or (not is_numeric(one) and type(one) is not type(other)):
            return other_kind(mine, theirs) if not place else f"{place} is {kind(one)}, but it must be {kind(other)}"
    for place, one, other in pairs:
        if is_numeric(one) and (text := other_shape(one, other)):
            return at(place, text)
    for place, one, other in pairs:
        if is_numeric(one) and (text := other_device(one, other) or other_dtype(one, other)):
            return at(place, text)
    for i, (place, one, other) in enumerate(pairs):
        if not is_numeric(one):
            if one != other:
                return at(place, f"yours is {one!r}, but it must be {other!r}")
        elif text := other_value(to_tensor(one), to_tensor(other), spread[i] if spread else None, tolerance):
            return at(place, text)
    return None


def at(place: str, text: str) -> str:
    return f"{place}: {text}" if place else text


def other_kind(mine: Any, theirs: Any) -> str:
    if mine is None:
        return f"it returns None, but it must return {kind(theirs)}: a `return` is missing"
    if isinstance(theirs, Steps) and isinstance(mine, Steps) and mine:
        if kind(mine[0]) != kind(theirs[0]):
            return f"it yields {kind(mine[0])}, but each step must be handed out by: yield Step(i, t, x, x0)"
        if mine.cut:
            return f"it yields more than {len(theirs)} steps, but there is one step for each entry of the grid"
        return f"it yields {len(mine)} of {len(theirs)} steps"
    if isinstance(theirs, Steps):
        said = "yields nothing" if isinstance(mine, Steps) else f"returns {kind(mine)}"
        return f"it {said}; each step must be handed out by: yield Step(i, t, x, x0)"
    said = "yields its result" if isinstance(mine, Steps) else f"returns {kind(mine)}"
    return f"it {said}, but it must return {kind(theirs)}"


def other_shape(mine: Any, theirs: Any) -> str | None:
    """In words how the shapes differ. One element is one element: (), (1,) and a number are the same."""
    ours, reference = tuple(np.shape(mine)), tuple(np.shape(theirs))
    one = math.prod(ours) == math.prod(reference) == 1
    if ours == reference or (one and (len(ours) + len(reference) <= 1 or is_number(mine) or is_number(theirs))):
        return None
    return f"the shape is {ours}, but it must be {reference}"


def other_device(mine: Any, theirs: Any) -> str | None:
    """In words how the devices differ."""
    if isinstance(mine, Tensor) and isinstance(theirs, Tensor) and mine.device != theirs.device:
        return f"it is on the device {mine.device}, but it must be on {theirs.device}, like the inputs"
    return None


def other_dtype(mine: Any, theirs: Any) -> str | None:
    """In words how the dtypes differ: floats are all alike, whole numbers are not, and a number has none."""
    ours, reference = to_tensor(mine).dtype, to_tensor(theirs).dtype
    if is_number(mine) or is_number(theirs) or ours == reference:
        return None
    if ours.is_floating_point and reference.is_floating_point:
        return None
    if reference.is_floating_point and not ours.is_complex and to_tensor(mine).numel() == 1:
        return None
    return f"the dtype is {ours}, but it must be {reference}"


def bound(reference: Tensor, spread: Tensor | None, tolerance: float) -> Tensor:
    """By how much each value may differ. reference: float64."""
    size = reference.abs()
    finite = size[size.isfinite()]
    typical = finite.median() if finite.numel() else torch.tensor(0.0)
    typical = finite.max() if finite.numel() and not typical else typical
    allowed = tolerance * torch.maximum(size, typical).nan_to_num(posinf=0.0) + 1e-8
    return allowed if spread is None else allowed + SLACK * spread.reshape(reference.shape)


def other_value(mine: Tensor, theirs: Tensor, spread: Tensor | None = None, tolerance: float = TOLERANCE) -> str | None:
    """Where two tensors of one shape differ most, if by more than the bound, and both values there."""
    if mine.is_complex():
        return "the values are complex numbers, but they must be real"
    mine, reference = mine.to_dense().double().reshape(theirs.shape), theirs.double()
    distance = (mine - reference).abs()
    same = distance <= bound(reference, spread, tolerance)
    same |= (mine == reference) | (mine.isnan() & reference.isnan())
    if same.all():
        return None
    farthest = distance.nan_to_num(torch.inf).masked_fill(same, -1)  # what isn't a number is farthest
    index = tuple(int(i) for i in np.unravel_index(farthest.argmax().item(), farthest.shape))
    whole = not theirs.is_floating_point() and not mine[index].item() % 1
    texts = in_digits(mine[index].item(), reference[index].item(), whole)
    return (f"at index {list(index)} " if index else "") + "yours is {}, but it must be {}".format(*texts)


def in_digits(mine: float, reference: float, whole: bool = False) -> tuple[str, str]:
    """Two numbers with as many digits as it takes to differ, four at least."""
    if whole:
        return f"{mine:.0f}", f"{reference:.0f}"
    for digits in range(4, 18):
        texts = tuple(f"{one:#.{digits}g}".rstrip(".") for one in (mine, reference))
        if texts[0] != texts[1]:
            break
    return texts


def in_another_order(mine: Any, theirs: Any) -> bool:
    """Whether the right values are returned, but in another order."""
    if not isinstance(mine, tuple | list) or not isinstance(theirs, tuple) or not 1 < len(theirs) == len(mine) <= 4:
        return False
    orders = permutations(range(len(mine)))
    next(orders)  # the order as it is
    return any(difference(tuple(mine[i] for i in order), theirs) is None for order in orders)
