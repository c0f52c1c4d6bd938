"""Mistakes that can happen in every exercise, and what is said of them."""

import inspect
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdlearn.lessons.exercises import compare
from sdlearn.lessons.exercises.exercise import Case, Exercise, call
from sdlearn.lessons.exercises.reference import Reference, first_difference
from sdlearn.lessons.exercises.running import GLOBAL_SEEDS, Run, cases, run_cases, set_global_seeds

SHAPES_DIFFER = re.compile(r"must match the size|could not be broadcast|shape mismatch")


def wrong_inputs(exercise: Exercise, mine: Any) -> str | None:
    """Why the answer can't be called as the package's function is. None if it can, or if that isn't known."""
    if exercise.run is not call or isinstance(exercise.reference, type):
        return None
    try:
        ours = inspect.signature(mine)
    except (TypeError, ValueError):  # a function that is written in C may have no signature
        return None
    theirs = inspect.signature(exercise.reference).parameters.values()
    theirs = [one for one in theirs if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    needed = [one.name for one in theirs if one.default is one.empty]
    defaults = {one.name: one.default for one in theirs if one.default is not one.empty}
    for named in ({}, defaults):
        try:
            ours.bind(*needed, **named)
        except TypeError:
            text = f"its inputs are {inputs_in_words(ours)}, but they must be "
            return text + inputs_in_words(inspect.signature(exercise.reference), exercise.object_name)
    return None


def inputs_in_words(signature: inspect.Signature, instead_of_self: str = "self") -> str:
    """A signature without type hints: (x, t, eta=0.0)."""
    parameters = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
    parameters = [one.replace(name=instead_of_self) if one.name == "self" else one for one in parameters]
    return str(inspect.Signature(parameters))


def misdeed(ours: list[Run], theirs: Reference) -> str | None:
    """What the answer should not do, though it computes the right values: the first of the cases' misdeeds.

    A loop that goes on past the grid calls the network too often as well; of that its steps tell more.
    """
    for mine, run in zip(ours, theirs.runs, strict=True):
        if mine.misdeeds:
            return mine.misdeeds[0]
        if mine.calls > run.calls and not getattr(mine.output, "cut", False):
            return f"it calls the network {mine.calls} times, but {run.calls} is enough; each call is expensive"
    return None


def hidden_draw(ours: list[Run], theirs: Reference) -> str | None:
    """Says so if the right noise was drawn, but the generator is where it was before."""
    if any(run.drew and not mine.drew for mine, run in zip(ours, theirs.runs, strict=True)):
        return "it leaves `generator` as it was before, so the next call would draw the same noise again"
    return None


def own_randomness(exercise: Exercise, mine: Any, ours: list[Run], theirs: Reference) -> str | None:
    """Says so if the answer's values change with the global random numbers, or from call to call."""
    differs = []
    for seed in GLOBAL_SEEDS:  # the first one is the seed with which it ran before
        set_global_seeds(seed)
        try:
            again = run_cases(exercise, mine, theirs.steps)
        except Exception:  # then it is random whether it fails
            return None
        pairs = [(a.output, b.output) for a, b in zip(ours, again, strict=True)]
        differs.append(any(compare.difference(*pair) for pair in pairs))
    if not any(differs):
        return None
    if differs[0]:
        return "called a second time with the same inputs, it returns something else"
    if not any(isinstance(one, torch.Generator) for case in cases(exercise) for one in case.inputs):
        return (
            "two calls with the same inputs give different results: it draws random numbers of its own, "
            "or a part of its result, made by `empty`, is never filled; use what it is given"
        )
    return "it draws random numbers of its own; draw them from `generator`, so that a seed always gives the same"


def habit(exercise: Exercise, mine: Any, ours: list[Run], theirs: Reference) -> str | None:
    """Mistakes that can happen in every exercise: nothing is returned, the order is another, no noise is drawn."""
    every = list(zip(cases(exercise), ours, theirs.runs, strict=True))
    if all(run.output is None for run in ours):
        if any(run.printed for run in ours):
            return "it prints its result, but it must return it"
        output = theirs.runs[0].output
        word = "yield" if isinstance(output, compare.Steps) else "return"
        return f"it returns None, but it must {word} {compare.kind(output)}: is a `{word}` missing?"
    if all(compare.in_another_order(run.output, reference.output) for _, run, reference in every):
        return "the values are right, but they are returned in another order than the task asks for"
    if any(reference.drew and not run.drew for _, run, reference in every):
        return "it draws nothing from `generator`, which all noise must come from"
    names = exercise.input_names
    own = own_names(mine)
    if own != names and sorted(own) == sorted(names):
        return f"its inputs are in another order: ({', '.join(own)}), but it must be ({', '.join(names)})"
    for case, run, reference in every:
        one, other = ([value for _, value in compare.leaves(side.output)] for side in (run, reference))
        if len(one) == len(other) and any(np.shape(a) != np.shape(b) for a, b in zip(one, other, strict=True)):
            return None if not (more := one_for_each_picture(case)) else first_difference(exercise, ours, theirs) + more
    return None


def own_names(mine: Any) -> list[str]:
    """The names of an answer's inputs, if they are known."""
    try:
        return list(inspect.signature(mine).parameters)
    except (TypeError, ValueError):
        return []


def about(error: Exception, exercise: Exercise) -> str:
    """What else to say of an exception: the shapes where they don't fit, and the case in words."""
    case = cases(exercise)[error.case - 1]
    shapes = one_for_each_picture(case) if SHAPES_DIFFER.search(str(error)) else ""
    return f"{shapes} (case {error.case}: {case.words})"


def one_for_each_picture(case: Case) -> str:
    """What shape a number for each picture needs, if the case has one: (B,) becomes (B, 1, …, 1)."""
    tensors = [one for one in case.inputs if isinstance(one, Tensor)]
    each = [one for one in tensors if one.ndim == 1 and len(one) > 1]
    pictures = [one for one in tensors if each and one.ndim > 1 and len(one) == len(each[0])]
    if not pictures:
        return ""
    shape, count = tuple(pictures[0].shape), len(each[0])
    needed = (count, *[1] * (len(shape) - 1))
    return f"; one number for each picture, shape ({count},), multiplies pictures of shape {shape} only as {needed}"
