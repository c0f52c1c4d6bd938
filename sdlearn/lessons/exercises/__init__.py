"""Exercises that check themselves.

A cell holds `stub(id)`, whose last line, `check(id, mine)`, judges what was written there. `part(id)` is what the
lesson goes on with.
"""

from collections.abc import Callable
from typing import Any

from sdlearn.lessons.exercises import source
from sdlearn.lessons.exercises.drawing import draw_map, see
from sdlearn.lessons.exercises.judge import assess
from sdlearn.lessons.exercises.parts import join_parts, usable
from sdlearn.lessons.exercises.passport import GREEN, kept, remember
from sdlearn.lessons.exercises.registry import EXERCISES, PREDICTIONS, find, find_prediction
from sdlearn.lessons.exercises.running import cases

__all__ = [
    "EXERCISES",
    "PREDICTIONS",
    "case",
    "check",
    "draw_map",
    "outcome",
    "own_parts",
    "part",
    "predict",
    "see",
    "solution",
    "stub",
]


def stub(id: str) -> str:
    """The text of the cell in which the learner writes. Raises ValueError for an unknown id."""
    return source.stub(find(id))


def solution(id: str) -> None:
    """Print the package's code as an answer, for the same cell. Raises ValueError for an unknown id."""
    print(source.solution(find(id)))


def check(id: str, mine: Any) -> None:
    """Judge an answer and print the verdict, below what the answer prints. A correct one is kept in the passport.

    Raises ValueError for an unknown id.
    """
    exercise = find(id)
    GREEN.pop(id, None)
    verdict = assess(exercise, mine)
    why_not = remember(exercise, mine) if verdict.green else ""
    if verdict.green:
        GREEN[id] = mine
    if verdict.printed:
        print(verdict.printed.rstrip())
    print(f"{verdict.mark} {id}: {verdict.text}" + (f"; not in the passport: {why_not}" if why_not else ""))


def part(id: str) -> Callable[..., Any] | type:
    """The learner's function if its last check was green, else the package's, with the same inputs.

    Prints which of the two it is. Raises ValueError for an unknown id.
    """
    exercise = find(id)
    if id in GREEN:
        print(f"{id}: from here on yours is used")
        return usable(exercise, GREEN[id])
    print(f"{id}: from here on the package's is used")
    return exercise.reference


def own_parts() -> dict[str, Callable[..., Any] | type]:
    """The `parts` of sdlearn.load from all right answers: those of this session, and those in the passport.

    Prints which parts they are. An answer in the passport that no longer runs is left out.
    """
    parts = join_parts(kept() | GREEN)
    print(f"parts of your own: {', '.join(parts) or 'none yet, so the package draws'}")
    return parts


def case(id: str, number: int) -> dict[str, Any]:
    """Print what case `number` of an exercise is, in words, and return its inputs by name, made afresh.

    Raises ValueError for an unknown id, or a case that doesn't exist.
    """
    exercise = find(id)
    every = cases(exercise)
    if not isinstance(number, int) or not 1 <= number <= len(every):
        raise ValueError(f"{id} has the cases 1 to {len(every)}, there is no case {number}")
    found = every[number - 1]
    print(f"{id}, case {number}: {found.words}")
    return dict(zip(exercise.input_names, found.inputs, strict=False))


def predict(id: str, letter: str) -> None:
    """Take a prediction: say whether it is right, and of a wrong one why. "A", " b" and "b)" are accepted, too.

    Raises ValueError for an unknown id.
    """
    prediction = find_prediction(id)
    letters = prediction.letters
    chosen = str(letter).strip("\ufeff \t\r\n.()").lower()  # U+FEFF: a byte-order mark, from a pasted file
    if chosen not in letters:
        print(f"write {', '.join(letters[:-1])} or {letters[-1]}, then run this cell")
        return
    mark, said = ("✔", "that is right") if chosen == prediction.answer else ("✘", "that isn't it")
    why = prediction.why.get(chosen, "")
    print(f"{mark} {id}, {chosen}: {why or said}")


def outcome(id: str, letter: str) -> None:
    """Compare what an experiment found with the answer that the lesson states.

    Raises RuntimeError if they differ, ValueError for an unknown id.
    """
    answer = find_prediction(id).answer
    if letter != answer:
        raise RuntimeError(f"the experiment says {letter}, but the answer of prediction {id} is {answer}")
