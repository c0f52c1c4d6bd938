"""Bugs: the classic mistakes as changes of the package's source, and the answers that compute what one of them does."""

import re
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sdlearn.lessons.exercises import compare, source
from sdlearn.lessons.exercises.exercise import Exercise
from sdlearn.lessons.exercises.hints import Bug
from sdlearn.lessons.exercises.reference import (
    Reference,
    first_gradient_difference,
    gradients_of,
    reference_of,
    spreads_of,
)
from sdlearn.lessons.exercises.running import Beginning, Run, leaving_nothing, run_cases

NUMBERS = re.compile(r"\d+")


def hint(exercise: Exercise, ours: list[Run], our_gradients: list[dict[str, Tensor | None]] | None = None) -> str:
    """The name of the one bug that computes what the answer computes, and where to read. Empty if none or two do."""
    return the_only([bug for bug in exercise.bugs if computes(exercise, bug, ours, our_gradients)])


def hint_for_error(exercise: Exercise, error: Exception) -> str:
    """The one bug that raises the same error in the same case, after computing the same in the cases before.

    The same: of one type and with one message, whatever the numbers in it are.
    """
    return the_only([bug for bug in exercise.bugs if fails_like(exercise, bug, error)])


def the_only(fitting: list[Bug]) -> str:
    return f"{fitting[0].name}; read {fitting[0].read}" if len(fitting) == 1 else ""


def computes(
    exercise: Exercise, bug: Bug, ours: list[Run], our_gradients: list[dict[str, Tensor | None]] | None = None
) -> bool:
    """Whether a bug's outputs, and its gradients if there are some to compare, are these."""
    found = runs_of_bug(exercise, bug)
    if found.error is not None:
        return False
    pairs = [(mine.output, run.output) for mine, run in zip(ours, found.runs, strict=True)]
    if any(compare.difference(*pair, one) for pair, one in zip(pairs, found.spreads, strict=True)):
        return False
    return our_gradients is None or not first_gradient_difference(our_gradients, found.gradients)


def fails_like(exercise: Exercise, bug: Bug, error: Exception) -> bool:
    found = runs_of_bug(exercise, bug)
    if type(found.error) is not type(error) or found.error.case != error.case or not error.runs:
        return False
    if NUMBERS.sub("0", str(found.error)) != NUMBERS.sub("0", str(error)):
        return False
    pairs = [(mine.output, run.output) for mine, run in zip(error.runs, found.runs, strict=True)]
    return not any(compare.difference(*pair) for pair in pairs)


@cache
def runs_of_bug(exercise: Exercise, bug: Bug) -> Reference:
    """What a bug computes. Raises ValueError when a change doesn't fit the source."""
    part, steps = with_bug(exercise, bug), reference_of(exercise).steps
    with leaving_nothing(Beginning()), torch.enable_grad():
        torch.set_default_dtype(torch.float32)
        try:
            runs = run_cases(exercise, part, steps)
            spreads = spreads_of(exercise, part, runs)
            gradients = list(gradients_of(exercise, part)) if exercise.gradients else []
        except Exception as error:
            return Reference(getattr(error, "runs", []), [], [], error)
    return Reference(runs, spreads, gradients)


def with_bug(exercise: Exercise, bug: Bug) -> Callable[..., Any] | type:
    """The package's part with the bug in it. Raises ValueError when a change doesn't fit the source."""
    text = source.changed_source(exercise.reference, bug.changes)
    module = vars(sys.modules[exercise.reference.__module__])
    return source.run_source(text, f"<{exercise.id}: {bug.name}>", dict(module))
