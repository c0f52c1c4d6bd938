"""Generated mutants of each reference are red, and every one that isn't is listed in `survivors.py` with the reason."""

from dataclasses import replace

import pytest
from mutants import mutants_of, run_mutant
from survivors import SURVIVORS

from sdlearn.lessons import exercises as ex
from sdlearn.lessons.exercises.exercise import Exercise
from sdlearn.lessons.exercises.judge import assess

SHARE = 0.95  # of all mutants are red


def listed(id: str) -> list[str]:
    return [change for changes in SURVIVORS.get(id, {}).values() for change in changes]


@pytest.mark.parametrize("exercise", ex.EXERCISES.values(), ids=lambda exercise: exercise.id)
def test_mutants_are_red(exercise: Exercise) -> None:
    """All but those that are listed, and those are green: what became red must leave the list."""
    without_hints = replace(exercise, bugs=())
    mutants = mutants_of(exercise)
    alive = [str(one) for one in mutants if assess(without_hints, run_mutant(exercise, one), seconds=5).green]
    assert sorted(alive) == sorted(listed(exercise.id))


def test_most_mutants_are_red() -> None:
    """Listed survivors are few."""
    count = sum(len(mutants_of(exercise)) for exercise in ex.EXERCISES.values())
    assert count > 500 and sum(len(listed(id)) for id in SURVIVORS) <= (1 - SHARE) * count
    assert set(SURVIVORS) <= set(ex.EXERCISES) and all(reason for table in SURVIVORS.values() for reason in table)
