"""Running what a learner wrote: within a time limit, on fresh inputs that are watched, and leaving nothing behind."""

import contextlib
import ctypes
import inspect
import io
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sdlearn.lessons.check import randomize_
from sdlearn.lessons.exercises.compare import Steps, leaves
from sdlearn.lessons.exercises.exercise import Case, Exercise, call

NETWORK = "denoise"  # an input of this name is a network: its calls are counted
GLOBAL_SEEDS = (7919, 104729)  # of the global random numbers, which no answer may depend on
PRINTED = 10_000  # characters of what an answer prints are kept


class TimeIsUp(BaseException):
    """The answer ran longer than its time limit. Not an Exception, so that it isn't taken for one of the answer's."""


class Stop(BaseException):
    """Raised inside an answer whose time is up. Not an Exception, so that `except Exception` doesn't catch it."""


class Mismatch(Exception):
    """The answer can't be compared; the message says why."""


@dataclass
class Run:
    """What a part did with one case, and what it should not have done.

    calls: of the network. spoilt: it changed this input in place, in words. drew: it drew from a generator among the
    inputs. printed: it printed something.
    """

    output: Any
    calls: int
    misdeeds: list[str]
    spoilt: str
    drew: bool
    printed: bool


class Counted:
    """A network that counts its calls."""

    def __init__(self, network: Callable[..., Any]) -> None:
        self.network, self.calls = network, 0

    def __call__(self, *inputs: Any) -> Any:
        self.calls += 1
        return self.network(*inputs)


def cases(exercise: Exercise) -> list[Case]:
    """The cases, all their inputs made afresh, so that neither side can spoil the other's."""
    return list(exercise.cases(torch.Generator().manual_seed(0)))


def run_cases(exercise: Exercise, part: Any, steps: list[int | None] | None = None, jitter: int = 0) -> list[Run]:
    """Run a part on all cases.

    Raises Mismatch, or what the part raises, with two attributes: the number of the `case`, and the `runs` before it.

    steps: how many steps the reference yields in each case; one more is asked for at most. jitter: a seed for rounding
    errors that the inputs get, 0 for none.
    """
    runs = []
    for number, case in enumerate(cases(exercise), 1):
        try:
            runs.append(run_case(exercise, part, case, number, steps[number - 1] if steps else None, jitter))
        except Exception as error:
            error.case, error.runs = number, runs
            raise
        if isinstance(sys.stdout, Beginning):
            sys.stdout.keeps = False
    return runs


def run_case(exercise: Exercise, part: Any, case: Case, number: int, steps: int | None, jitter: int) -> Run:
    function, inputs = prepare(exercise, part, case, number)
    names = call_names(exercise, inputs)
    networks = [Counted(one) for name, one in zip(names, inputs, strict=True) if name == NETWORK]
    watched = [(place, one) for name, value in zip(names, inputs, strict=True) for place, one in tensors(value, name)]
    inputs = [networks[0] if name == NETWORK else one for name, one in zip(names, inputs, strict=True)]
    if jitter:
        round_off([one for _, one in watched], jitter + number)
    before = [one.detach().clone() for _, one in watched]
    lists = [(name, one, list(one)) for name, one in zip(names, inputs, strict=True) if isinstance(one, list)]
    given = [one for value in inputs for one in (value if isinstance(value, list) else [value])]
    generators = [(one, one.get_state()) for one in given if isinstance(one, torch.Generator)]
    printed = sys.stdout.count if isinstance(sys.stdout, Beginning) else 0
    output, misdeeds = collect(call_with(exercise, function, inputs), steps)
    changed = [
        (place, f"{place}.clone()") for (place, one), old in zip(watched, before, strict=True) if not same(one, old)
    ]
    changed += [(name, f"list({name})") for name, one, old in lists if [*map(id, one)] != [*map(id, old)]]
    spoilt = "it changes {}, one of its inputs, in place; work on a copy: {}".format(*changed[0]) if changed else ""
    misdeeds = [spoilt, *misdeeds] if spoilt else misdeeds
    drew = any(not torch.equal(one.get_state(), state) for one, state in generators)
    printed = isinstance(sys.stdout, Beginning) and sys.stdout.count > printed
    return Run(output, sum(one.calls for one in networks), misdeeds, spoilt, drew, printed)


def prepare(exercise: Exercise, part: Any, case: Case, number: int) -> tuple[Callable[..., Any], list[Any]]:
    """What is called, and with which inputs. Raises Mismatch where a module has other parameters than the package's."""
    inputs = list(case.inputs)
    if not isinstance(exercise.reference, type):
        return part, inputs
    arguments = inputs.pop(0)
    built = build(part, arguments)
    if issubclass(exercise.reference, nn.Module):
        load_like(built, randomize_(build(exercise.reference, arguments), seed=number - 1))
        built.requires_grad_(exercise.gradients)
    return built, inputs


def call_names(exercise: Exercise, inputs: list[Any]) -> list[str]:
    """The names of the inputs that `prepare` returns."""
    return exercise.input_names[isinstance(exercise.reference, type) :][: len(inputs)]


def call_with(exercise: Exercise, function: Callable[..., Any], inputs: list[Any]) -> Any:
    """Call a function as the package does: what has a default by its name, everything else by its place."""
    if exercise.run is not call or isinstance(exercise.reference, type):
        return exercise.run(function, *inputs)
    parameters = list(inspect.signature(exercise.reference).parameters.values())[: len(inputs)]
    pairs = list(zip(parameters, inputs, strict=False))
    named = {one.name: value for one, value in pairs if one.default is not one.empty}
    return function(*[value for one, value in pairs if one.name not in named], *inputs[len(pairs) :], **named)


def build(part: type, arguments: tuple | dict[str, Any]) -> Any:
    return part(**arguments) if isinstance(arguments, dict) else part(*arguments)


def load_like(module: Any, reference: nn.Module) -> None:
    """Give the module the reference's weights, strictly. Raises Mismatch where names or shapes differ."""
    if not isinstance(module, nn.Module):
        raise Mismatch("the class must inherit from nn.Module")
    ours, theirs = module.state_dict(), reference.state_dict()
    problems = [f"{name} is missing" for name in theirs if name not in ours]
    problems += [f"{name} is not the package's" for name in ours if name not in theirs]
    problems += [
        f"{name} has the shape {tuple(ours[name].shape)}, but it must have {tuple(value.shape)}"
        for name, value in theirs.items()
        if name in ours and ours[name].shape != value.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise Mismatch(f"its parameters differ: {', '.join(problems[:3])}{more}")
    module.load_state_dict(theirs)
    module.eval()


def tensors(value: Any, place: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors in an input, with their places: a tensor itself, and those in tuples, dataclasses and objects."""
    if isinstance(value, Tensor):
        yield place, value
    elif isinstance(value, tuple | list):
        for i, one in enumerate(value):
            name = value._fields[i] if hasattr(value, "_fields") else None
            yield from tensors(one, f"{place}.{name}" if name else f"{place}[{i}]")
    elif is_dataclass(value) and not isinstance(value, type):
        for one in fields(value):
            yield from tensors(getattr(value, one.name), f"{place}.{one.name}")
    elif type(value).__module__.startswith("sdlearn.") and hasattr(value, "__dict__"):
        for name, one in vars(value).items():
            yield from tensors(one, f"{place}.{name}")


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal; NaN equals NaN."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())


@torch.no_grad()
def round_off(inputs: list[Tensor], seed: int) -> None:
    """Change floats by their last digit, up or down."""
    generator = torch.Generator().manual_seed(seed)
    for one in inputs:
        if one.is_floating_point():
            signs = 2 * torch.randint(2, one.shape, generator=generator) - 1
            one.mul_(1 + torch.finfo(one.dtype).eps * signs.to(one))


def collect(result: Any, steps: int | None) -> tuple[Any, list[str]]:
    """A copy of a result, and what was done wrong on the way. Of an iterator one step more than `steps` at most."""
    if not isinstance(result, Iterator):
        return snapshot(result), []
    output, held = Steps(), []
    for step in result:
        if steps is not None and len(output) == steps:
            output.cut = True
            break
        held.append(step)
        output.append(snapshot(step))
    pairs = zip(leaves(held), leaves(list(output)), strict=True)
    if any(isinstance(one, Tensor) and not same(one, old) for (_, one), (_, old) in pairs):
        return output, ["a step changes a tensor that was yielded before; make a new one, x = x + …, not x += …"]
    return output, []


def snapshot(value: Any) -> Any:
    """A copy of tensors and arrays, also of those in tuples, lists and dataclasses. Of an iterator, only its type."""
    if isinstance(value, Iterator):
        return type(value)
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{one.name: snapshot(getattr(value, one.name)) for one in fields(value) if one.init})
    if isinstance(value, tuple | list):
        copies = [snapshot(one) for one in value]
        return type(value)(*copies) if hasattr(value, "_fields") else type(value)(copies)
    return value


class Beginning(io.StringIO):
    """Keeps the beginning of what is printed, as long as `keeps` is true, and counts all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.keeps, self.count = True, 0

    def write(self, text: str) -> int:
        self.count += len(text)
        if self.keeps and self.tell() < PRINTED:
            super().write(text)
        return len(text)


@contextlib.contextmanager
def leaving_nothing(printed: Beginning) -> Iterator[None]:
    """Afterwards random states, the default dtype, the number of threads and the warnings' filters are as before.

    What is printed in between goes into `printed`.
    """
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            yield
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def set_global_seeds(seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


class Clock:
    """The seconds that an answer has for all its runs together. Between them it stands still."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    def run(self, work: Callable[[], Any]) -> Any:
        """The result of work(). Raises TimeIsUp when no time is left, or whatever work() raises."""
        started = time.monotonic()
        try:
            return in_time(work, self.left)
        finally:
            self.left = max(0.0, self.left - (time.monotonic() - started))


def in_time(work: Callable[[], Any], seconds: float) -> Any:
    """The result of work(), which runs in a thread of its own: its grad mode and the like end with it.

    Raises TimeIsUp, or whatever work() raises. An interrupt by the user stops the work, too.
    """
    result: list[Any] = []
    failure: list[BaseException] = []
    done = threading.Event()

    def body() -> None:
        try:
            try:
                result.append(work())
            except BaseException as error:  # SystemExit, too
                failure.append(error)
            done.set()
        except Stop:  # it came when the work had ended by itself
            done.set()

    thread = threading.Thread(target=body, daemon=True)
    try:
        thread.start()  # in here: an interrupt can come before it returns
        ended = done.wait(seconds)
    finally:  # a KeyboardInterrupt, too, stops the work
        stop(thread, done)
    if not ended:
        raise TimeIsUp
    if failure:
        raise failure[0]
    return result[0]


def stop(thread: threading.Thread, done: threading.Event, patience: float = 2.0) -> None:
    """Raise Stop in a thread until it is done. One that is inside a long call of C is left to itself after a while."""
    deadline = time.monotonic() + patience
    while not done.is_set() and time.monotonic() < deadline:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Stop))
        done.wait(0.4)  # it may have something to clean up
