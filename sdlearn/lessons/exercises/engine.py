"""How an answer to an exercise is assessed.

An answer is compared with the package's own code on a few random cases: first the values, then the gradients. A common
mistake, a bug, is a small change to the package's source text. A bug is named only if the answer computes exactly what
this bug computes, and no other bug does.
"""

import inspect
import linecache
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sdlearn.lessons.check import randomize_
from sdlearn.lessons.exercises.exercise import Bug, Exercise, call
from sdlearn.lessons.exercises.source import changed_source, run_source

TOLERANCE = 1e-5  # of a difference, relative to max(1, the largest value of the reference)


@dataclass(frozen=True)
class Verdict:
    """The verdict on an answer: ○ not written yet, ✔ right, ✘ wrong."""

    mark: str
    text: str

    @property
    def green(self) -> bool:
        return self.mark == "✔"


NOT_WRITTEN = Verdict("○", "not written yet; the lesson goes on with the package's")
CORRECT = Verdict("✔", "correct")


class Mismatch(Exception):
    """The answer can't be compared; the message says why."""


def assess(exercise: Exercise, mine: Any) -> Verdict:
    """Compare an answer with the package's own code.

    The order: not written yet, an exception, the type, the shape, the dtype, the values, the gradients. The global
    random state is left unchanged.

    Raises:
        ValueError: the exercise itself is wrong, for example a bug whose change no longer fits the source.
    """
    if is_the_package_s(exercise, mine):
        return NOT_WRITTEN
    if wrong := wrong_kind(exercise, mine):
        return Verdict("✘", wrong)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        theirs = list(outputs(exercise, exercise.package_part))
        try:
            ours = list(outputs(exercise, mine))
        except Mismatch as error:
            return Verdict("✘", str(error))
        except Exception as error:
            unwritten = isinstance(error, NotImplementedError) and not str(error)
            return NOT_WRITTEN if unwritten else Verdict("✘", in_one_line(error, mine))
        if any(one is NotImplemented for one in ours):
            return NOT_WRITTEN
        if wrong := first_difference(ours, theirs):
            return Verdict("✘", hint(exercise, ours) or wrong)

        their_gradients = list(gradients(exercise, exercise.package_part))
        if all(gradient is None for case in their_gradients for gradient in case.values()):
            return CORRECT
        try:
            our_gradients = list(gradients(exercise, mine))
        except Exception as error:
            return Verdict("✘", f"the values are right, but the gradient fails: {in_one_line(error, mine)}")
        if wrong := first_gradient_difference(our_gradients, their_gradients):
            return Verdict("✘", hint(exercise, ours, our_gradients) or f"the values are right, but {wrong}")
    return CORRECT


def is_the_package_s(exercise: Exercise, mine: Any) -> bool:
    """Whether nothing was written: the answer is the package's own part, or inherits its method."""
    if mine is exercise.package_part:
        return True
    return exercise.owner is not None and getattr(mine, exercise.reference.__name__, None) is exercise.reference


def wrong_kind(exercise: Exercise, mine: Any) -> str | None:
    """Why the answer isn't the function or class that it must be."""
    owner = exercise.owner
    if owner is not None and not (isinstance(mine, type) and issubclass(mine, owner)):
        return f"it is {describe(mine)}, must be a class that inherits from {owner.__name__}"
    if isinstance(exercise.package_part, type) and not isinstance(mine, type):
        return f"it is {describe(mine)}, must be a class"
    if not callable(mine) or isinstance(mine, type) != isinstance(exercise.package_part, type):
        return f"it is {describe(mine)}, must be a function"
    return None


def prepare(exercise: Exercise, part: Any) -> Iterator[tuple[Callable[..., Any], list[Any]]]:
    """For each case what is called and its inputs, all made afresh, so that neither side can spoil the other's.

    Raises:
        Mismatch: a module's parameters have other names or shapes than the reference's.
    """
    for i, case in enumerate(exercise.cases(torch.Generator().manual_seed(0))):
        if not isinstance(exercise.package_part, type):
            yield part, list(case)
            continue
        arguments, inputs = case
        built = build(part, arguments)
        if exercise.owner is not None:
            yield getattr(built, exercise.reference.__name__), list(inputs)
            continue
        if issubclass(exercise.package_part, nn.Module):
            load_like(built, randomize_(build(exercise.package_part, arguments), seed=i))
        yield built, list(inputs)


def build(part: type, arguments: tuple | dict[str, Any]) -> Any:
    return part(**arguments) if isinstance(arguments, dict) else part(*arguments)


def load_like(module: Any, reference: nn.Module) -> None:
    """Give the module the reference's weights, strictly. Raises Mismatch where names or shapes differ."""
    if not isinstance(module, nn.Module):
        raise Mismatch(f"it is a class of {describe(module)}, must inherit from nn.Module")
    ours, theirs = module.state_dict(), reference.state_dict()
    problems = [f"{name} is missing" for name in theirs if name not in ours]
    problems += [f"{name} is not the package's" for name in ours if name not in theirs]
    problems += [
        f"{name} has the shape {tuple(ours[name].shape)}, must have {tuple(value.shape)}"
        for name, value in theirs.items()
        if name in ours and ours[name].shape != value.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise Mismatch(f"its parameters differ: {', '.join(problems[:3])}{more}")
    module.load_state_dict(theirs)
    module.eval()


def outputs(exercise: Exercise, part: Any) -> Iterator[Any]:
    """What the part returns for each case."""
    for function, inputs in prepare(exercise, part):
        yield exercise.run(function, *inputs)


def gradients(exercise: Exercise, part: Any) -> Iterator[dict[str, Tensor | None]]:
    """For each case the gradients of the outputs, weighted at random, by the inputs and parameters that are floats."""
    for function, inputs in prepare(exercise, part):
        leaves: dict[str, Tensor] = {}
        for i, value in enumerate(inputs):
            if isinstance(value, Tensor) and value.is_floating_point():
                leaves[input_name(exercise, i)] = leaf = value.detach().clone().requires_grad_()
                inputs[i] = leaf.clone()  # not a leaf: the answer may change its inputs in place
        if isinstance(function, nn.Module):
            leaves |= dict(function.named_parameters())
        result = exercise.run(function, *inputs)
        results = result if isinstance(result, tuple | list) else (result,)
        generator = torch.Generator().manual_seed(1)
        weighted = [
            (one * torch.randn(one.shape, generator=generator)).sum()
            for one in results
            if isinstance(one, Tensor) and one.is_floating_point()
        ]
        total = sum(weighted) if weighted else None
        if total is None or not total.requires_grad or not leaves:
            yield dict.fromkeys(leaves)
            continue
        found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        yield dict(zip(leaves, found, strict=True))


def input_name(exercise: Exercise, i: int) -> str:
    """The name of input i, from the signature of what is called."""
    if exercise.run is not call:
        names = list(inspect.signature(exercise.run).parameters.values())[1:]
    elif isinstance(exercise.reference, type):
        names = list(inspect.signature(exercise.reference.__call__).parameters.values())[1:]
        if issubclass(exercise.reference, nn.Module):
            names = list(inspect.signature(exercise.reference.forward).parameters.values())[1:]
    else:
        names = list(inspect.signature(exercise.reference).parameters.values())[exercise.owner is not None :]
    fits = i < len(names) and names[i].kind in (names[i].POSITIONAL_ONLY, names[i].POSITIONAL_OR_KEYWORD)
    return names[i].name if fits else f"input {i + 1}"


def as_tensors(output: Any) -> list[Tensor] | None:
    """The output's tensors; numbers become tensors, too. None if it holds anything else."""
    several = output if isinstance(output, tuple | list) else (output,)
    if not several or not all(isinstance(one, Tensor | int | float) for one in several):
        return None
    return [one.detach() if isinstance(one, Tensor) else torch.tensor(one, dtype=torch.float64) for one in several]


def kind(output: Any) -> str:
    """What sort of thing an output is, in words. Only outputs of one kind are compared."""
    if isinstance(output, tuple | list):
        kinds = [kind(one) for one in output]
        alike = len(kinds) > 3 and len(set(kinds)) == 1
        return f"{len(kinds)} values ({f'each {kinds[0]}' if alike else ', '.join(kinds)})"
    if isinstance(output, Tensor):
        return "a tensor"
    return "a number" if isinstance(output, int | float) else describe(output)


def describe(value: Any) -> str:
    """A value that is not what was expected, in a few words."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "a function" if inspect.isroutine(value) else f"of type {type(value).__name__}"


def first_difference(ours: list[Any], theirs: list[Any]) -> str | None:
    """Where the two outputs first differ, in the order type, shape, dtype, value. None if they agree."""
    for mine, reference in zip(ours, theirs, strict=True):
        if kind(mine) != kind(reference):
            return f"it returns {kind(mine)}, must return {kind(reference)}"
    pairs = [
        (f"case {i}" + (f", output {j}" if isinstance(reference, tuple | list) else ""), *pair)
        for i, (mine, reference) in enumerate(zip(ours, theirs, strict=True), 1)
        for j, pair in enumerate(zip(as_tensors(mine), as_tensors(reference), strict=True), 1)
    ]
    for where, mine, reference in pairs:
        if mine.shape != reference.shape:
            return f"the shape is {tuple(mine.shape)}, must be {tuple(reference.shape)} ({where})"
    for where, mine, reference in pairs:
        if mine.dtype != reference.dtype:
            return f"the dtype is {mine.dtype}, must be {reference.dtype} ({where})"
    for where, mine, reference in pairs:
        if text := first_value(mine, reference):
            return f"the values differ in {where}, {text}"
    return None


def first_value(mine: Tensor, reference: Tensor) -> str | None:
    """The first index at which two tensors of one shape differ by more than the tolerance, and both values."""
    mine, reference = mine.double(), reference.double()
    finite = reference[reference.isfinite()].abs()
    scale = max(1.0, finite.max().item()) if finite.numel() else 1.0
    same = ((mine - reference).abs() <= TOLERANCE * scale) | (mine == reference) | (mine.isnan() & reference.isnan())
    if same.all():
        return None
    index = tuple((~same).nonzero()[0].tolist())
    at = f"at index {list(index)}: " if index else ""
    return f"{at}yours is {mine[index].item():.4g}, must be {reference[index].item():.4g}"


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
            if text := first_value(mine[name], gradient):
                return f"the gradients for {name} differ in case {i}, {text}"
    return None


def hint(exercise: Exercise, ours: list[Any], our_gradients: list[dict[str, Tensor | None]] | None = None) -> str:
    """The name of the one bug that computes what the answer computes, and where to read. Empty if none or two do."""
    fitting = [bug for bug in exercise.bugs if computes(exercise, bug, ours, our_gradients)]
    return f"{fitting[0].name}; read {fitting[0].read}" if len(fitting) == 1 else ""


def computes(exercise: Exercise, bug: Bug, ours: list[Any], our_gradients: list[Any] | None) -> bool:
    """Whether a bug's outputs, and its gradients if there are some to compare, are these."""
    part = with_bug(exercise, bug)
    try:
        theirs = list(outputs(exercise, part))
        if any(as_tensors(one) is None for one in ours + theirs) or first_difference(ours, theirs):
            return False
        return our_gradients is None or not first_gradient_difference(our_gradients, list(gradients(exercise, part)))
    except Exception:  # a bug can end in an error: then it computes nothing
        return False


def with_bug(exercise: Exercise, bug: Bug) -> Callable[..., Any] | type:
    """The package's part with the bug in it. Raises ValueError when a change doesn't fit the source."""
    text = changed_source(exercise.reference, bug.changes, exercise.owner)
    module = vars(sys.modules[exercise.reference.__module__])
    return run_source(text, f"<{exercise.id}: {bug.name}>", dict(module))


def in_one_line(error: Exception, mine: Any = None) -> str:
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
