"""How an answer to an exercise is judged.

An answer is compared with the package's own code on a few random cases: the values, and where the exercise asks for
them the gradients. A common mistake, a bug, is a small change of the package's source text. A bug is named only if the
answer computes exactly what this bug computes, and no other bug does.
"""

import inspect
import io
import linecache
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from sdlearn.lessons.exercises import compare, source
from sdlearn.lessons.exercises.exercise import Exercise
from sdlearn.lessons.exercises.hints import Bug
from sdlearn.lessons.exercises.running import (
    GLOBAL_SEEDS,
    Beginning,
    Mismatch,
    Run,
    Stop,
    TimeIsUp,
    call_names,
    cases,
    in_time,
    leaving_nothing,
    prepare,
    run_cases,
    set_global_seeds,
)

SECONDS = 10.0  # for an answer, on all cases
NEARLY = 1e-3  # a bug that differs by more than this is not what the answer computes, whatever the rounding
JITTERS = (101, 202, 303)  # seeds of the rounding errors that are tried on the reference


@dataclass(frozen=True)
class Verdict:
    """The verdict on an answer: ○ not written yet, ✔ right, ✘ wrong."""

    mark: str
    text: str

    @property
    def green(self) -> bool:
        return self.mark == "✔"


NOT_WRITTEN = Verdict("○", "not written yet; the lesson uses the package's")
THE_PACKAGE_S = Verdict("○", "this is the package's own, not yours; write yours in the cell")
CORRECT = Verdict("✔", "correct")


@dataclass(frozen=True)
class Reference:
    """What the package's own code does with each case. spreads: what rounding the inputs does to each value."""

    runs: list[Run]
    spreads: list[list[Tensor | None]]
    gradients: list[dict[str, Tensor | None]]

    @property
    def steps(self) -> list[int | None]:
        return [len(run.output) if isinstance(run.output, compare.Steps) else None for run in self.runs]


@cache
def reference_of(exercise: Exercise) -> Reference:
    """Run the package's own code."""
    with leaving_nothing(io.StringIO()), torch.enable_grad():
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


def assess(exercise: Exercise, mine: Any, seconds: float = SECONDS) -> Verdict:
    """Compare an answer with the package's own code.

    What the answer prints for the first case is printed, once. Nothing else stays behind: random states, the default
    dtype and the like are as before. A KeyboardInterrupt is passed on.

    Raises:
        ValueError: the exercise itself is wrong, for example a bug whose change no longer fits the source.
    """
    theirs = reference_of(exercise)
    if is_the_package_s(exercise, mine):
        return THE_PACKAGE_S
    if wrong := wrong_kind(exercise, mine):
        return Verdict("✘", wrong)
    printed = Beginning()
    with leaving_nothing(printed):
        try:
            verdict = in_time(lambda: judge(exercise, mine, theirs), seconds)
        except TimeIsUp:
            verdict = Verdict("✘", f"it is still running after {seconds:.0f} seconds; does its loop ever end?")
    return verdict


def judge(exercise: Exercise, mine: Any, theirs: Reference) -> Verdict:
    """The verdict, in the order: not written yet, an exception, a bug, a misdeed, a difference, the gradients."""
    with torch.enable_grad():
        set_global_seeds(GLOBAL_SEEDS[0])
        try:
            ours = run_cases(exercise, mine, theirs.steps)
        except (Stop, KeyboardInterrupt):
            raise
        except Mismatch as error:
            return Verdict("✘", str(error))
        except NotImplementedError as error:
            return not_written(exercise, mine) if not str(error) else Verdict("✘", in_one_line(error, mine))
        except BaseException as error:
            return Verdict("✘", in_one_line(error, mine))
        if any(run.output is NotImplemented for run in ours):
            return NOT_WRITTEN
        if wrong := first_difference(exercise, ours, theirs):
            wrong = misdeed(ours, theirs) or wrong
            return Verdict("✘", hint(exercise, ours, theirs) or own_randomness(exercise, mine, ours, theirs) or wrong)
        if wrong := misdeed(ours, theirs):
            return Verdict("✘", wrong)
        if not exercise.gradients:
            return CORRECT
        try:
            our_gradients = list(gradients_of(exercise, mine))
        except Exception as error:
            return Verdict("✘", f"the values are right, but the gradient fails: {in_one_line(error, mine)}")
        if wrong := first_gradient_difference(our_gradients, theirs.gradients):
            return Verdict("✘", hint(exercise, ours, theirs, our_gradients) or f"the values are right, but {wrong}")
    return CORRECT


def is_the_package_s(exercise: Exercise, mine: Any) -> bool:
    return callable(mine) and inspect.unwrap(mine) is exercise.reference


def wrong_kind(exercise: Exercise, mine: Any) -> str | None:
    """Why the answer isn't the function or class that it must be."""
    must = "a class" if isinstance(exercise.reference, type) else "a function"
    if callable(mine) and isinstance(mine, type) == isinstance(exercise.reference, type):
        return None
    return f"it is {compare.describe(mine)}, but it must be {must}"


def not_written(exercise: Exercise, mine: Any) -> Verdict:
    """The verdict on an answer that ends with the stub's `raise NotImplementedError`."""
    return NOT_WRITTEN


def first_difference(exercise: Exercise, ours: list[Run], theirs: Reference) -> str | None:
    """Where the outputs first differ, with the case in words. None if they agree."""
    for number, (case, mine, run, one) in enumerate(
        zip(cases(exercise), ours, theirs.runs, theirs.spreads, strict=True), 1
    ):
        if compare.in_another_order(mine.output, run.output):
            return "the values are right, but their order isn't"
        if text := compare.difference(mine.output, run.output, one):
            return f"{text} (case {number}: {case.words})"
    return None


def misdeed(ours: list[Run], theirs: Reference) -> str | None:
    """What the answer should not do, though it computes the right values: the first of the cases' misdeeds."""
    for mine, run in zip(ours, theirs.runs, strict=True):
        if mine.misdeeds:
            return mine.misdeeds[0]
        if mine.calls > run.calls:
            return f"it calls the network {mine.calls} times, but {run.calls} is enough; each call is expensive"
    return None


def own_randomness(exercise: Exercise, mine: Any, ours: list[Run], theirs: Reference) -> str | None:
    """Says so if the answer's values change with the global random numbers."""
    set_global_seeds(GLOBAL_SEEDS[1])
    try:
        again = run_cases(exercise, mine, theirs.steps)
    except Exception:  # then it is random whether it fails
        again = []
    if all(compare.difference(a.output, b.output) is None for a, b in zip(ours, again, strict=False)) and again:
        return None
    return "it draws random numbers of its own, so that they are others each time; draw them from `generator`"


def gradients_of(exercise: Exercise, part: Any) -> Iterator[dict[str, Tensor | None]]:
    """For each case the gradients of the outputs, weighted at random, by the inputs and parameters that are floats."""
    for number, case in enumerate(cases(exercise), 1):
        function, inputs = prepare(exercise, part, case, number)
        names = call_names(exercise, inputs)
        found: dict[str, Tensor] = {}
        for i, value in enumerate(inputs):
            if isinstance(value, Tensor) and value.is_floating_point():
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


def first_gradient_difference(
    ours: list[dict[str, Tensor | None]], theirs: list[dict[str, Tensor | None]]
) -> str | None:
    """Where the gradients first differ. If the reference has none, ours can be anything."""
    for i, (mine, reference) in enumerate(zip(ours, theirs, strict=True), 1):
        for name, gradient in reference.items():
            if gradient is None or (mine[name] is None and not gradient.any()):
                continue
            if mine[name] is None:
                return f"no gradient reaches {name} (case {i}): something on the way cuts it off"
            if text := compare.other_value(mine[name].detach(), gradient.detach()):
                return f"the gradients for {name} differ in case {i} {text}"
    return None


def hint(
    exercise: Exercise, ours: list[Run], theirs: Reference, our_gradients: list[dict[str, Tensor | None]] | None = None
) -> str:
    """The name of the one bug that computes what the answer computes, and where to read. Empty if none or two do."""
    fitting = [bug for bug in exercise.bugs if computes(exercise, bug, ours, theirs, our_gradients)]
    return f"{fitting[0].name}; read {fitting[0].read}" if len(fitting) == 1 else ""


def computes(
    exercise: Exercise, bug: Bug, ours: list[Run], theirs: Reference, our_gradients: list[Any] | None = None
) -> bool:
    """Whether a bug's outputs, and its gradients if there are some to compare, are these."""
    part = with_bug(exercise, bug)
    try:
        runs = run_cases(exercise, part, theirs.steps)
        pairs = [(mine.output, run.output) for mine, run in zip(ours, runs, strict=True)]
        if any(compare.difference(mine, other, tolerance=NEARLY) for mine, other in pairs):
            return False
        spreads = spreads_of(exercise, part, runs)
        if any(compare.difference(*pair, one) for pair, one in zip(pairs, spreads, strict=True)):
            return False
        return our_gradients is None or not first_gradient_difference(our_gradients, list(gradients_of(exercise, part)))
    except Exception:  # a bug can end in an error: then it computes nothing
        return False


def with_bug(exercise: Exercise, bug: Bug) -> Callable[..., Any] | type:
    """The package's part with the bug in it. Raises ValueError when a change doesn't fit the source."""
    text = source.changed_source(exercise.reference, bug.changes)
    module = vars(sys.modules[exercise.reference.__module__])
    return source.run_source(text, f"<{exercise.id}: {bug.name}>", dict(module))


def in_one_line(error: BaseException, mine: Any = None) -> str:
    """An exception's type and message, and the line of the answer that it came from."""
    message = " ".join(str(error).split())
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    text = text if len(text) <= 240 else text[:240] + " …"
    functions = [vars(mine).get(name) for name in dir(mine) if name in vars(mine)] if isinstance(mine, type) else [mine]
    files = {inspect.unwrap(one).__code__.co_filename for one in functions if inspect.isfunction(one)}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename in files and (line := linecache.getline(frame.filename, frame.lineno or 0).strip()):
            return f"{text}, in the line `{line}`"
    return text
