"""How an answer to an exercise is judged.

An answer is compared with the package's own code on a few random cases: the values, and where the exercise asks for
them the gradients. A common mistake, a bug, is a small change of the package's source text. A bug is named only if the
answer computes exactly what this bug computes, and no other bug does.
"""

import ast
import inspect
import linecache
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sdlearn.lessons.exercises import compare, source
from sdlearn.lessons.exercises.exercise import Case, Exercise, call
from sdlearn.lessons.exercises.hints import Bug
from sdlearn.lessons.exercises.running import (
    GLOBAL_SEEDS,
    Beginning,
    Mismatch,
    Run,
    TimeIsUp,
    call_names,
    cases,
    in_time,
    leaving_nothing,
    prepare,
    run_cases,
    set_global_seeds,
)

SHAPES_DIFFER = re.compile(r"must match the size|could not be broadcast|shape mismatch")
SECONDS = 10.0  # for an answer, on all cases
NEARLY = 1e-3  # a bug that differs by more than this is not what the answer computes, whatever the rounding
JITTERS = (101, 202, 303)  # seeds of the rounding errors that are tried on the reference


@dataclass(frozen=True)
class Verdict:
    """The verdict on an answer: ○ not written yet, ✔ right, ✘ wrong."""

    mark: str
    text: str
    printed: str = field(default="", compare=False)  # what the answer printed for the first case

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
    with leaving_nothing(Beginning()), torch.enable_grad():
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

    Nothing stays behind: nothing is printed, random states, the default dtype and the like are as before. A
    KeyboardInterrupt is passed on.

    Raises:
        ValueError: the exercise itself is wrong, for example a bug whose change no longer fits the source.
    """
    theirs = reference_of(exercise)
    if is_the_package_s(exercise, mine):
        return THE_PACKAGE_S
    if wrong := wrong_kind(exercise, mine) or wrong_inputs(exercise, mine):
        return Verdict("✘", wrong)
    printed = Beginning()
    with leaving_nothing(printed):
        try:
            verdict = in_time(lambda: judge(exercise, mine, theirs), seconds)
        except TimeIsUp:
            verdict = Verdict("✘", f"it was stopped after {seconds:g} seconds: does each of its loops come to an end?")
    return replace(verdict, printed=printed.getvalue())


def judge(exercise: Exercise, mine: Any, theirs: Reference) -> Verdict:
    """The verdict, in the order: not written yet, an exception, a bug, a misdeed, a difference, the gradients."""
    with torch.enable_grad():
        set_global_seeds(GLOBAL_SEEDS[0])
        try:
            ours = run_cases(exercise, mine, theirs.steps)
        except Mismatch as error:
            return Verdict("✘", str(error))
        except SystemExit:
            return Verdict("✘", "it ends the program: remove exit() or quit()")
        except Exception as error:
            if isinstance(error, NotImplementedError) and not str(error):
                return unfinished(exercise, mine)
            more = about(error, exercise)
            named = hint_for_error(exercise, error, theirs)
            return Verdict("✘", in_one_line(error, mine) + more + (f": {named}" if named else ""))
        if wrong := first_difference(exercise, ours, theirs):
            named = hint(exercise, ours, theirs) or own_randomness(exercise, mine, ours, theirs)
            return Verdict("✘", named or misdeed(ours, theirs) or habit(exercise, mine, ours, theirs) or wrong)
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


def unfinished(exercise: Exercise, mine: Any) -> Verdict:
    """The verdict on an answer that ends at `raise NotImplementedError`: is anything but the stub written there?"""
    try:
        ours = ast.parse(source.plain_source(mine))
    except (OSError, TypeError, SyntaxError):
        return NOT_WRITTEN
    stub = ast.parse(source.definition(exercise, emptied=True))
    given = {ast.dump(node) for node in ast.walk(stub) if isinstance(node, ast.stmt)}
    own = [node for function in ast.walk(ours) if isinstance(function, ast.FunctionDef) for node in function.body]
    own = [node for node in own if not (isinstance(node, ast.Raise) and "NotImplementedError" in ast.unparse(node))]
    if all(ast.dump(node) in given for node in own):
        return NOT_WRITTEN
    return Verdict("✘", "your code runs into the stub's `raise NotImplementedError`; delete that line")


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


def habit(exercise: Exercise, mine: Any, ours: list[Run], theirs: Reference) -> str | None:
    """Mistakes that can happen in every exercise: nothing is returned, the order is another, no noise is drawn."""
    every = list(zip(cases(exercise), ours, theirs.runs, strict=True))
    if all(run.output is None for run in ours):
        if any(run.printed for run in ours):
            return "it prints its result, but it must return it"
        return f"it returns None, but it must return {compare.kind(theirs.runs[0].output)}: is a `return` missing?"
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


def first_difference(exercise: Exercise, ours: list[Run], theirs: Reference) -> str | None:
    """Where the outputs first differ, with the case in words. None if they agree."""
    for number, (case, mine, run, one) in enumerate(
        zip(cases(exercise), ours, theirs.runs, theirs.spreads, strict=True), 1
    ):
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
    if not any(isinstance(one, torch.Generator) for case in cases(exercise) for one in case.inputs):
        return "it draws random numbers of its own; use what it is given"
    return "it draws random numbers of its own; draw them from `generator`, so that a seed always gives the same"


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


def hint_for_error(exercise: Exercise, error: Exception, theirs: Reference) -> str:
    """The one bug that raises the same error in the same case, after computing the same in the cases before."""
    fitting = [bug for bug in exercise.bugs if fails_like(exercise, bug, error, theirs)]
    return f"{fitting[0].name}; read {fitting[0].read}" if len(fitting) == 1 else ""


def fails_like(exercise: Exercise, bug: Bug, error: Exception, theirs: Reference) -> bool:
    try:
        run_cases(exercise, with_bug(exercise, bug), theirs.steps)
    except Exception as other:
        if type(other) is not type(error) or other.case != error.case or not error.runs:
            return False
        pairs = [(mine.output, run.output) for mine, run in zip(error.runs, other.runs, strict=True)]
        return not any(compare.difference(*pair) for pair in pairs)
    return False


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
