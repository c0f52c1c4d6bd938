"""What an exercise is: a function or a class of the package that the learner writes, and the cases it is judged by."""

import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from sdlearn.lessons.exercises.hints import Bug


class Case:
    """One call of what the learner writes: what is special about it, in words, and its inputs in their order."""

    def __init__(self, words: str, *inputs: Any) -> None:
        self.words = words
        self.inputs = inputs


def call(part: Callable[..., Any], *inputs: Any) -> Any:
    """What is compared by default: the result of the call."""
    return part(*inputs)


@dataclass(frozen=True)
class Exercise:
    """Something of the package that the learner writes.

    id: lesson, dot, what is written: "01.add_noise".
    reference: a function, a class, or a method, given as `Schedule.add_noise`. For a method the learner writes a
        function that takes the object first: `add_noise(schedule, x0, noise, t)`.
    cases: makes at least three Cases of odd shapes, the same for the same generator. For a class the first input of a
        case holds the constructor's arguments, a tuple or a dict by name; the others go to the object's call. An
        nn.Module gets random weights.
    difficulty: 1 easy, 2 medium, 3 hard.
    run: run(part, *inputs) returns what is compared, if that isn't simply the result of the call.
    part: the key in sdlearn.load(parts=...) that puts the answer into the model, if there is one.
    sampler: the sampler that uses this part, if not all do and the part isn't a sampler itself.
    box: the box on the map that it belongs to.
    core: whether it belongs to the lesson's core, and counts on the map; else to its section "Deeper".
    gradients: whether the answer's gradients are compared, too: only where something is trained through it.
    bugs: the classic mistakes, from the hints file. The registry puts them in.
    called: what the learner's answer is called, where the package's name says too little: `Attention.forward`.
    """

    id: str
    reference: Callable[..., Any] | type
    cases: Callable[[torch.Generator], Iterable[Case]]
    difficulty: int
    minutes: int
    run: Callable[..., Any] = call
    part: str | None = None
    sampler: str | None = None
    box: str | None = None
    core: bool = True
    gradients: bool = False
    bugs: tuple[Bug, ...] = ()
    called: str | None = None

    @property
    def owner(self) -> type | None:
        """The class whose method is written as a function, or None."""
        names = self.reference.__qualname__.split(".")
        return getattr(sys.modules[self.reference.__module__], names[0]) if len(names) == 2 else None

    @property
    def object_name(self) -> str:
        """What `self` is called in the learner's function: the owner's name in lower case."""
        return self.owner.__name__.lower() if self.owner else "self"

    @property
    def name(self) -> str:
        """What the learner's answer is called: as the package's, without leading underscores, unless `called` says."""
        return self.called or self.reference.__name__.lstrip("_")

    @property
    def input_names(self) -> list[str]:
        """The names of a case's inputs, in their order."""
        if isinstance(self.reference, type):
            function = getattr(self.reference, "forward", self.reference.__call__)
            return ["arguments", *list(inspect.signature(function).parameters)[1:]]
        if self.run is not call:
            return list(inspect.signature(self.run).parameters)[1:]
        names = list(inspect.signature(self.reference).parameters)
        return [self.object_name, *names[1:]] if self.owner else names
