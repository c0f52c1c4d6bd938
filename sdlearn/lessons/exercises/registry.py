"""All exercises, lesson by lesson: what the modules `lesson_NN` call EXERCISES."""

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from sdlearn.lessons.exercises.exercise import Exercise

LESSONS = sorted(file.stem for file in Path(__file__).parent.glob("lesson_*.py"))
EXERCISES: dict[str, Exercise] = {
    exercise.id: exercise
    for name in LESSONS
    for exercise in import_module(f"sdlearn.lessons.exercises.{name}").EXERCISES
}


def find(id: str) -> Exercise:
    """The exercise of this id. Raises ValueError, with the most similar ids, if there is none."""
    if id not in EXERCISES:
        like = get_close_matches(str(id), EXERCISES, n=5, cutoff=0.4) or list(EXERCISES)
        raise ValueError(f"there is no exercise {id!r}; did you mean {', '.join(like)}?")
    return EXERCISES[id]
