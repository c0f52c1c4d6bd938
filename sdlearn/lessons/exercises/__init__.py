"""Exercises that check themselves: a cell holds `stub(id)`, and `check(id, mine)` assesses what was written there."""

from typing import Any

from sdlearn.lessons.exercises import source
from sdlearn.lessons.exercises.engine import assess
from sdlearn.lessons.exercises.passport import draw_map, remember, see
from sdlearn.lessons.exercises.registry import EXERCISES, find

__all__ = ["EXERCISES", "check", "draw_map", "see", "solution", "stub"]


def stub(id: str) -> str:
    """The text of the cell in which the learner writes. Raises ValueError for an unknown id."""
    return source.stub(find(id))


def solution(id: str) -> str:
    """The package's code under the learner's name, for the same cell. Raises ValueError for an unknown id."""
    return source.solution(find(id))


def check(id: str, mine: Any) -> Any:
    """Assess an answer, print one line, and return the part to use from here on: the learner's if correct, else ours.

    A correct answer is kept in the passport. Raises ValueError for an unknown id.
    """
    exercise = find(id)
    verdict = assess(exercise, mine)
    why_not = remember(exercise, mine) if verdict.green else ""
    print(f"{verdict.mark} {id}: {verdict.text}" + (f"; not in the passport: {why_not}" if why_not else ""))
    return mine if verdict.green else exercise.package_part
