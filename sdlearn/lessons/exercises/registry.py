"""All exercises and predictions, lesson by lesson: the modules `lesson_NN`, and the files in `hints`."""

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from sdlearn.lessons.exercises.exercise import Exercise
from sdlearn.lessons.exercises.hints import Prediction, lesson_hints

LESSONS = sorted(file.stem for file in Path(__file__).parent.glob("lesson_*.py"))
EXERCISES: dict[str, Exercise] = {}
PREDICTIONS: dict[str, Prediction] = {}
for lesson in LESSONS:
    bugs, predictions = lesson_hints(lesson.removeprefix("lesson_"))
    PREDICTIONS |= predictions
    for exercise in import_module(f"{__package__}.{lesson}").EXERCISES:
        EXERCISES[exercise.id] = replace(exercise, bugs=tuple(bugs.get(exercise.id, ())))

Kind = TypeVar("Kind")


def find(id: str) -> Exercise:
    """The exercise of this id. Raises ValueError, with the most similar ids, if there is none."""
    return look_up("exercise", id, EXERCISES)


def find_prediction(id: str) -> Prediction:
    """The prediction of this id. Raises ValueError, with the most similar ids, if there is none."""
    return look_up("prediction", id, PREDICTIONS)


def look_up(kind: str, id: str, among: Mapping[str, Kind]) -> Kind:
    if id not in among:
        like = get_close_matches(str(id), among, n=5, cutoff=0.4) or list(among)
        raise ValueError(f"there is no {kind} {id!r}; did you mean {', '.join(like)}?")
    return among[id]
