"""What an exercise is: something of the package that the learner writes, and the classic mistakes in it."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Bug:
    """A classic mistake, as a change of the reference's own source text.

    name: the hint, what was confused. read: where to read, "equation (2)". changes: (old, new) pairs; each `old` occurs
    exactly once in the source text that `show.whole_source(reference)` returns.
    """

    name: str
    read: str
    changes: tuple[tuple[str, str], ...]


def call(part: Callable[..., Any], *inputs: Any) -> Any:
    """What is compared by default: the result of the call."""
    return part(*inputs)


@dataclass(frozen=True)
class Exercise:
    """Something of the package that the learner writes.

    id: lesson, dot, what is written: "01.add_noise".
    reference: a function, a class, or a method, given as `Schedule.add_noise`. For a method the learner writes a
        subclass with that one method.
    cases: makes the inputs, at least three tuples of odd shapes, the same for the same generator. For a function a
        case holds its arguments. For a method or a class it is a pair: the constructor's arguments (a tuple, or a dict
        by name), and the arguments of the method or of the object's call. An nn.Module gets random weights.
    bugs: two or more, told apart by their outputs on the cases.
    difficulty: 1 easy, 2 medium, 3 hard.
    run: run(part, *inputs) returns what is compared: a tensor, a number, or a tuple of them. part is the function, the
        method of a new object, or the object.
    part: the key in sdlearn.load(parts=...) that puts the answer into the model, if there is one.
    sampler: the sampler that uses this part, if not all do and the part isn't a sampler itself.
    box: the box on the map that it belongs to.
    """

    id: str
    reference: Callable[..., Any] | type
    cases: Callable[[torch.Generator], list[tuple]]
    bugs: tuple[Bug, ...]
    difficulty: int
    minutes: int
    run: Callable[..., Any] = call
    part: str | None = None
    sampler: str | None = None
    box: str | None = None

    @property
    def owner(self) -> type | None:
        """The class whose method is written, or None."""
        names = self.reference.__qualname__.split(".")
        return getattr(sys.modules[self.reference.__module__], names[0]) if len(names) == 2 else None

    @property
    def package_part(self) -> Callable[..., Any] | type:
        """What the learner's answer stands in for: the function or class; for a method, the class."""
        return self.owner or self.reference

    @property
    def own_name(self) -> str:
        """What the learner's answer is called: my_combine, MyBlock; for a method of Schedule, MySchedule."""
        name = self.package_part.__name__.lstrip("_")
        return f"My{name}" if isinstance(self.package_part, type) else f"my_{name}"
