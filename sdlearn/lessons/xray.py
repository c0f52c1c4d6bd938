"""An x-ray of a program: every tensor that gets a name while it runs, and where two programs first differ."""

import dis
import sys
from collections.abc import Callable, Mapping
from types import CodeType, FrameType
from typing import Any

from torch import Tensor


def x_ray(program: Callable[..., Any], *inputs: Any, **named: Any) -> dict[str, Tensor]:
    """Run program(*inputs, **named), and return the tensors that have names in it, in the order in which they are made.

    Those of a function inside it are kept for each of its calls: "guided, call 3". Of a name in the program itself it
    is the first tensor if it was given before that function's first call, else the last.
    """
    whole = program.__code__
    inner = {one for one in whole.co_consts if isinstance(one, CodeType) and not one.co_name.startswith("<")}
    seen: dict[str, Tensor] = {}
    calls = 0
    outer: FrameType | None = None

    def keep(frame: FrameType, after: str = "") -> None:
        for name in names_in(frame.f_code):
            if isinstance(value := frame.f_locals.get(name), Tensor):
                seen.setdefault(name + after, value.detach().clone())

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls, outer
        if frame.f_code is whole and event == "call":
            outer = frame
        elif frame.f_code in inner and event == "call" and outer is not None and not calls:
            keep(outer)
        elif frame.f_code in inner and event == "return":
            calls += 1
            keep(frame, f", call {calls}")
        elif frame.f_code is whole and event == "return":
            keep(frame)

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        program(*inputs, **named)
    finally:
        sys.setprofile(before)
    return seen


def names_in(code: CodeType) -> list[str]:
    """The names of a function's inputs, and those that it gives, in the order in which it first does."""
    count = code.co_argcount + code.co_kwonlyargcount
    given = [one.argval for one in dis.get_instructions(code) if one.opname.startswith("STORE_")]
    flat = [name for one in given for name in (one if isinstance(one, tuple) else (one,))]
    return [*dict.fromkeys([*code.co_varnames[:count], *flat])]


def first_difference(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], tolerance: float = 1e-4) -> str | None:
    """The name of the first tensor in which two x-rays differ: where to look for the bug. None if all agree.

    Both hold tensors under the same names, in the order in which the programs make them. Two agree if their
    shapes are equal and no number differs by more than tolerance · max(1, the largest |number| of theirs),
    all in float64.
    """
    for name, reference in theirs.items():
        mine, reference = ours[name].double(), reference.double()
        if mine.shape != reference.shape:
            return name
        bound = tolerance * max(1.0, reference.abs().max().item())
        if not (mine - reference).abs().max().item() <= bound:
            return name
    return None
