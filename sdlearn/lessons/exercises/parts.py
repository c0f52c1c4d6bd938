"""What the learner's answers do in the model: as parts for `sdlearn.load`, next to the package's own."""

import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sdlearn.diffusion.samplers import SAMPLERS, Step
from sdlearn.lessons.exercises.exercise import Exercise
from sdlearn.lessons.exercises.reference import reference_of
from sdlearn.lessons.exercises.registry import find


def usable(exercise: Exercise, mine: Callable[..., Any] | type) -> Callable[..., Any] | type:
    """A correct answer that fits among the package's functions, whatever it computes with: NumPy, float64, numbers.

    It returns, and hands to the functions that it is given, tensors of its input's dtype and device. A class stays as
    it is.
    """
    if isinstance(exercise.reference, type):
        return mine

    @functools.wraps(mine)
    def part(*inputs: Any, **named: Any) -> Any:
        given = [one for value in (*inputs, *named.values()) for one in (value if isinstance(value, list) else [value])]
        tensors = [one for one in given if isinstance(one, Tensor)]
        like = next((one for one in tensors if one.is_floating_point()), None)
        if like is not None:
            inputs = tuple(handing(one, like) for one in inputs)
            named = {name: handing(one, like) for name, one in named.items()}
        output = mine(*inputs, **named)
        if isinstance(output, Iterator):
            return (tidy(step, like) for step in output)
        if callable(output):
            return returning(output)
        expected = reference_of(exercise).runs[0].output
        device = tensors[0].device if tensors else None
        if type(expected) is tuple:
            return tuple(as_expected(*pair, like, device) for pair in zip(output, expected, strict=True))
        return as_expected(output, expected, like, device)

    return part


def handing(value: Any, like: Tensor) -> Any:
    """A function that gets floats like `like`, whatever it is called with, and numbers for single elements."""
    if not inspect.isroutine(value):
        return value

    def cast(one: Any) -> Any:
        if not isinstance(one, Tensor):
            return torch.as_tensor(one).to(like) if hasattr(one, "__array__") else one
        if one.is_floating_point() and one.ndim:
            return one.to(like)
        return one if one.ndim else one.item()

    return lambda *inputs, **named: value(*map(cast, inputs), **named)


def returning(function: Callable[..., Any]) -> Callable[..., Tensor]:
    """A function that an answer has made, such as denoise(x, t): what it returns becomes a tensor like x."""
    return lambda x, *inputs: torch.as_tensor(function(x, *inputs)).to(x)


def tidy(step: Any, like: Tensor | None) -> Any:
    """A Step whose x and x_0 are like the sampler's input, and whose t is a number."""
    if not isinstance(step, Step) or like is None:
        return step
    t = step.t.item() if isinstance(step.t, Tensor) else step.t
    return replace(step, t=t, x=torch.as_tensor(step.x).to(like), x0=torch.as_tensor(step.x0).to(like))


def as_expected(value: Any, expected: Any, like: Tensor | None, device: torch.device | None) -> Any:
    """A value as the package returns it: a tensor, and unless it is a scalar of the inputs' dtype; a list of them; or
    a number."""
    if isinstance(expected, list) and expected:
        return [as_expected(one, expected[0], like, device) for one in value]
    if isinstance(expected, Tensor):
        floats = like is not None and expected.is_floating_point() and expected.ndim
        return torch.as_tensor(value, dtype=like.dtype if floats else expected.dtype, device=device)
    return value.item() if isinstance(expected, int | float) and hasattr(value, "item") else value


def join_parts(own: Mapping[str, Any]) -> dict[str, Callable[..., Any] | type]:
    """The `parts` of sdlearn.load from correct answers by id.

    Functions that are methods of the package's become methods of a subclass, all those of one class of the same one.
    """
    parts: dict[str, Any] = {}
    for id, mine in own.items():
        exercise = find(id)
        if exercise.part is None:
            continue
        part = usable(exercise, mine)
        if exercise.owner is not None:
            owner = parts.get(exercise.part, exercise.owner)
            part = type(f"My{exercise.owner.__name__}", (owner,), {exercise.reference.__name__: part})
        parts[exercise.part] = part
    return parts


def sampler_of(exercise: Exercise) -> str | None:
    """The only sampler with which the answer takes part in a drawing; None if any does, or none."""
    return exercise.part if exercise.part in SAMPLERS else exercise.sampler


def choose_sampler(own: Collection[str], default: str) -> str:
    """The sampler to draw with: the one that most of these exercises need; on a tie the model's own, else the first.

    A drawing has one sampler. Answers that need another one are left out; all others take part.
    """
    needed = [sampler for id in own if (sampler := sampler_of(find(id)))]
    return max([default, *needed], key=needed.count)
