"""How an answer to an exercise is judged.

An answer is compared with the package's own code on a few random cases: the values, and where the exercise asks for
them the gradients. A common mistake, a bug, is a small change of the package's source text. A bug is named only if the
answer computes exactly what this bug computes, and no other bug does.
"""

import ast
import inspect
import linecache
import traceback
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from sdlearn.lessons.exercises import compare, source
from sdlearn.lessons.exercises.bugs import hint, hint_for_error
from sdlearn.lessons.exercises.exercise import Exercise
from sdlearn.lessons.exercises.habits import about, habit, hidden_draw, misdeed, own_randomness, wrong_inputs
from sdlearn.lessons.exercises.reference import (
    Reference,
    first_difference,
    first_gradient_difference,
    gradients_of,
    reference_of,
)
from sdlearn.lessons.exercises.running import (
    GLOBAL_SEEDS,
    Beginning,
    Clock,
    Mismatch,
    TimeIsUp,
    leaving_nothing,
    run_cases,
    set_global_seeds,
)

SECONDS = 10.0  # for an answer, on all cases; the search for its hint isn't counted


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
            verdict = judge(exercise, mine, theirs, Clock(seconds))
        except TimeIsUp:
            verdict = Verdict("✘", f"it was stopped after {seconds:g} seconds: does each of its loops come to an end?")
    return replace(verdict, printed=printed.getvalue())


def judge(exercise: Exercise, mine: Any, theirs: Reference, clock: Clock) -> Verdict:
    """The verdict, in the order: not written yet, an exception, a bug, a misdeed, a difference, the gradients.

    An input that was changed in place comes before a bug: the values may be wrong for that reason only. Whatever calls
    the answer is on the clock, which may raise TimeIsUp; the bugs, which are the package's, are not.
    """
    with torch.enable_grad():
        set_global_seeds(GLOBAL_SEEDS[0])
        try:
            ours = clock.run(lambda: run_cases(exercise, mine, theirs.steps))
        except Mismatch as error:
            return Verdict("✘", str(error))
        except SystemExit:
            return Verdict("✘", "it ends the program: remove exit() or quit()")
        except Exception as error:
            if isinstance(error, NotImplementedError) and not str(error):
                return unfinished(exercise, mine)
            more = about(error, exercise)
            named = hint_for_error(exercise, error)
            return Verdict("✘", in_one_line(error, mine) + more + (f": {named}" if named else ""))
        if wrong := first_difference(exercise, ours, theirs):
            spoilt = next((run.spoilt for run in ours if run.spoilt), "")
            named = spoilt or hint(exercise, ours)
            named = named or clock.run(lambda: own_randomness(exercise, mine, ours, theirs))
            return Verdict("✘", named or misdeed(ours, theirs) or habit(exercise, mine, ours, theirs) or wrong)
        if wrong := misdeed(ours, theirs) or hidden_draw(ours, theirs):
            return Verdict("✘", wrong)
        if not exercise.gradients:
            return CORRECT
        try:
            our_gradients = clock.run(lambda: list(gradients_of(exercise, mine)))
        except Exception as error:
            if "inplace operation" in str(error):
                cure = "what it overwrites in place the gradient still needs; write x = x + …, not x += …"
                return Verdict("✘", f"the values are right, but the gradient fails: {cure}")
            return Verdict("✘", f"the values are right, but the gradient fails: {in_one_line(error, mine)}")
        if wrong := first_gradient_difference(our_gradients, theirs.gradients):
            return Verdict("✘", hint(exercise, ours, our_gradients) or f"the values are right, but {wrong}")
    return CORRECT


def is_the_package_s(exercise: Exercise, mine: Any) -> bool:
    return callable(mine) and inspect.unwrap(mine) is exercise.reference


def wrong_kind(exercise: Exercise, mine: Any) -> str | None:
    """Why the answer isn't the function or class that it must be."""
    must = "a class" if isinstance(exercise.reference, type) else "a function"
    if callable(mine) and isinstance(mine, type) == isinstance(exercise.reference, type):
        return None
    return f"it is {compare.describe(mine)}, but it must be {must}"


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
