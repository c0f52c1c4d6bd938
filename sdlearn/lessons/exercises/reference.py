"""What the package's own code computes, and how an answer's runs are compared with it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from sdlearn.lessons.exercises import compare
from sdlearn.lessons.exercises.exercise import Exercise
from sdlearn.lessons.exercises.running import Beginning, Run, call_names, cases, leaving_nothing, prepare, run_cases

JITTERS = (101, 202, 303)  # seeds of the rounding errors that are tried on the reference


@dataclass(frozen=True)
class Reference:
    """What the package's own code does with each case, or a bug.

    spreads: what rounding the inputs does to each value. error: what it raises, if it does; then there are the runs
    before that, and no spreads.
    """

    runs: list[Run]
    spreads: list[list[Tensor | None]]
    gradients: list[dict[str, Tensor | None]]
    error: Exception | None = None

    @property
    def steps(self) -> list[int | None]:
        return [len(run.output) if isinstance(run.output, compare.Steps) else None for run in self.runs]


@cache
def reference_of(exercise: Exercise) -> Reference:
    """Run the package's own code."""
    with leaving_nothing(Beginning()), torch.enable_grad():
        torch.set_default_dtype(torch.float32)
        runs = run_cases(exercise, exercise.reference)
        spreads = spreads_of(exercise, exercise.reference, runs)
        gradients = list(gradients_of(exercise, exercise.reference)) if exercise.gradients else []
    return Reference(runs, spreads, gradients)


def spreads_of(exercise: Exercise, part: Any, runs: list[Run]) -> list[list[Tensor | None]]:
    """For each case and each value how far it moves when the inputs are rounded."""
    steps = [len(run.output) if isinstance(run.output, compare.Steps) else None for run in runs]
    shaken = [run_cases(exercise, part, steps, jitter) for jitter in JITTERS]
    return [spread(run.output, [other[i].output for other in shaken]) for i, run in enumerate(runs)]


def spread(output: Any, shaken: list[Any]) -> list[Tensor | None]:
    """For each value of an output how far it moves when the inputs are rounded; None where it isn't a float."""
    found: list[Tensor | None] = []
    others = [list(compare.leaves(other)) for other in shaken]
    for i, (_, value) in enumerate(compare.leaves(output)):
        if not compare.is_numeric(value) or not (one := compare.to_tensor(value)).is_floating_point():
            found.append(None)
            continue
        moved = [(compare.to_tensor(other[i][1]).double() - one.double()).abs() for other in others]
        found.append(torch.stack(moved).amax(0).nan_to_num(posinf=0.0))
    return found


def gradients_of(exercise: Exercise, part: Any) -> Iterator[dict[str, Tensor | None]]:
    """For each case the gradients of the outputs, weighted at random, by the inputs and parameters that are floats.

    Inputs that hold infinity, as a mask does, are left out.
    """
    for number, case in enumerate(cases(exercise), 1):
        function, inputs = prepare(exercise, part, case, number)
        names = call_names(exercise, inputs)
        found: dict[str, Tensor] = {}
        for i, value in enumerate(inputs):
            if isinstance(value, Tensor) and value.is_floating_point() and value.isfinite().all():
                found[names[i]] = leaf = value.detach().clone().requires_grad_()
                inputs[i] = leaf.clone()  # not a leaf: the answer may change its inputs in place
        if isinstance(function, nn.Module):
            found |= dict(function.named_parameters())
        result = exercise.run(function, *inputs)
        generator = torch.Generator().manual_seed(1)
        weighted = [
            (one * torch.randn(one.shape, generator=generator)).sum()
            for _, one in compare.leaves(result)
            if isinstance(one, Tensor) and one.is_floating_point()
        ]
        total = sum(weighted) if weighted else None
        if total is None or not total.requires_grad or not found:
            yield dict.fromkeys(found)
            continue
        gradients = torch.autograd.grad(total, list(found.values()), allow_unused=True)
        yield dict(zip(found, gradients, strict=True))


def first_difference(exercise: Exercise, ours: list[Run], theirs: Reference) -> str | None:
    """Where the outputs first differ, with the case in words. None if they agree."""
    for number, (case, mine, run, one) in enumerate(
        zip(cases(exercise), ours, theirs.runs, theirs.spreads, strict=True), 1
    ):
        if text := compare.difference(mine.output, run.output, one):
            return f"{text} (case {number}: {case.words})"
    return None


def first_gradient_difference(
    ours: list[dict[str, Tensor | None]], theirs: list[dict[str, Tensor | None]]
) -> str | None:
    """Where the gradients first differ. If the reference has none, ours can be anything.

    One that is a millionth of the largest is rounding: that of a key's bias is 0, since a softmax ignores what it adds.
    """
    for i, (mine, reference) in enumerate(zip(ours, theirs, strict=True), 1):
        largest = max((one.abs().max().item() for one in reference.values() if one is not None), default=0.0)
        for name, gradient in reference.items():
            if gradient is None or (mine[name] is None and not gradient.any()):
                continue
            if mine[name] is None:
                return f"no gradient reaches {name} (case {i}): something on the way cuts it off"
            rounding = torch.full(gradient.shape, 1e-6 * largest / compare.SLACK)
            if text := compare.other_value(mine[name].detach(), gradient.detach(), rounding):
                return f"the gradients for {name} differ in case {i} {text}"
    return None
