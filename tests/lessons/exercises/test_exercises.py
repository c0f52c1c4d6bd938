"""The proof of the exercises: the right passes, the stub is not written yet, each bug has its own hint and no other.

Right answers written another way are in `right/lesson_NN.py`, wrong ones as learners type them in `wrong/lesson_NN.py`.
"""

import ast
import re
import runpy
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch

import sdlearn
from sdlearn.diffusion.samplers import SAMPLERS
from sdlearn.lessons import exercises as ex
from sdlearn.lessons.exercises import compare, hints, registry, source
from sdlearn.lessons.exercises.bugs import computes, runs_of_bug, with_bug
from sdlearn.lessons.exercises.exercise import Exercise
from sdlearn.lessons.exercises.hints import Bug
from sdlearn.lessons.exercises.judge import CORRECT, NOT_WRITTEN, assess
from sdlearn.lessons.exercises.parts import join_parts, sampler_of
from sdlearn.lessons.exercises.running import cases, run_cases
from sdlearn.storage.parts import PARTS

HERE = Path(__file__).parent
NOTEBOOKS = HERE.parents[2] / "notebooks"
SECONDS = 120.0  # for an answer: a busy machine is slow, and none of these loops for ever


def answers(folder: str, table: str) -> dict[str, list]:
    """The tables RIGHT or WRONG of all lessons, joined."""
    files = sorted((HERE / folder).glob("lesson_*.py"))
    return {id: found for file in files for id, found in runpy.run_path(str(file))[table].items()}


RIGHT, WRONG = answers("right", "RIGHT"), answers("wrong", "WRONG")
BUGS = [(exercise, bug) for exercise in ex.EXERCISES.values() for bug in exercise.bugs]

each_exercise = pytest.mark.parametrize("exercise", ex.EXERCISES.values(), ids=lambda exercise: exercise.id)
each_bug = pytest.mark.parametrize(
    ("exercise", "bug"), BUGS, ids=[f"{exercise.id}-{exercise.bugs.index(bug)}" for exercise, bug in BUGS]
)


def copy_of_the_package_s(exercise: Exercise) -> Any:
    """The reference, compiled once more, so that it isn't mistaken for an answer that was never written."""
    return with_bug(exercise, Bug("none", "", ()))


def written(exercise: Exercise, emptied: bool) -> Any:
    """What the stub's cell defines, or the solution's."""
    return source.run_source(source.definition(exercise, emptied))


@each_exercise
class TestExercise:
    def test_the_package_passes(self, exercise: Exercise) -> None:
        assert assess(exercise, copy_of_the_package_s(exercise), SECONDS) == CORRECT

    def test_the_stub_is_not_written_yet(self, exercise: Exercise) -> None:
        assert assess(exercise, written(exercise, emptied=True), SECONDS) == NOT_WRITTEN

    def test_the_solution_passes(self, exercise: Exercise) -> None:
        assert assess(exercise, written(exercise, emptied=False), SECONDS) == CORRECT

    def test_the_solution_stands_in_the_stub_s_cell(self, exercise: Exercise) -> None:
        stub, solution = ex.stub(exercise.id), source.solution(exercise)
        for text in (stub, solution):
            assert text.startswith(f"# {exercise.id}\n")
            assert text.endswith(f'\n\n\nex.check("{exercise.id}", {exercise.name})')
            assert ast.parse(text).body[-2].name == exercise.name
        assert "raise NotImplementedError" in stub and "raise NotImplementedError" not in solution

    def test_bugs_are_told_apart(self, exercise: Exercise) -> None:
        """By their outputs, pair by pair; a bug that ends in an error has none."""
        assert len(exercise.bugs) >= 2
        assert len({bug.name for bug in exercise.bugs}) == len(exercise.bugs)
        for one in exercise.bugs:
            found = runs_of_bug(exercise, one)
            for other in exercise.bugs if found.error is None else ():
                assert computes(exercise, other, found.runs) == (one is other), (one.name, other.name)

    def test_cases(self, exercise: Exercise) -> None:
        """Three or more with words of their own, the same each time."""
        words = [case.words for case in cases(exercise)]
        assert len(words) >= 3 and len(set(words)) == len(words)
        first, second = (run_cases(exercise, exercise.reference) for _ in range(2))
        for a, b in zip(first, second, strict=True):
            for (_, one), (_, other) in zip(compare.leaves(a.output), compare.leaves(b.output), strict=True):
                if compare.is_numeric(one):
                    one, other = compare.to_tensor(one), compare.to_tensor(other)
                    assert torch.equal(one, other) and one.isfinite().all()

    def test_what_is_said_of_it(self, exercise: Exercise) -> None:
        lesson, name = exercise.id.split(".")
        assert re.fullmatch(r"\d\d", lesson) and re.fullmatch(r"[a-z0-9_]+", name)
        assert exercise.difficulty in (1, 2, 3)
        assert 1 <= exercise.minutes <= 30
        assert exercise.part is None or exercise.part in PARTS
        assert exercise.sampler is None or (exercise.sampler in SAMPLERS and exercise.part)
        assert exercise.box is None or exercise.box in sdlearn.lessons.maps.MAP
        for bug in exercise.bugs:
            assert bug.name and bug.read and "\n" not in bug.name + bug.read and not bug.name.endswith(".")

    def test_the_answer_is_short(self, exercise: Exercise) -> None:
        """What is to be written is at most 15 lines, without docstring and comments."""
        tree = ast.parse(source.plain_source(exercise.reference)).body[0]
        functions = [tree] if isinstance(tree, ast.FunctionDef) else [f for f in tree.body if f.name != "__init__"]
        lines = {line for f in functions for s in f.body for n in ast.walk(s) if (line := getattr(n, "lineno", 0))}
        assert len(lines) <= 15

    def test_the_model_draws_with_its_part(self, exercise: Exercise, tiny_folder: Path) -> None:
        """Where a part is named, it is used: one that only raises stops the model."""
        if exercise.part is None:
            pytest.skip("it isn't a part of the drawing")
        model = sdlearn.load(tiny_folder, parts=join_parts({exercise.id: written(exercise, emptied=True)}))
        with pytest.raises(NotImplementedError):
            model.decode(sdlearn.last(model.sample("a cat", steps=3, sampler=sampler_of(exercise))))


@each_bug
def test_each_bug_has_its_own_hint(exercise: Exercise, bug: Bug) -> None:
    verdict = assess(exercise, with_bug(exercise, bug), SECONDS)
    assert verdict.mark == "✘" and verdict.text.endswith(f"{bug.name}; read {bug.read}")


@pytest.mark.parametrize(
    ("id", "answer"),
    [(id, one) for id, found in RIGHT.items() for one in found],
    ids=lambda one: one.__name__ if callable(one) else one,
)
def test_a_right_answer_written_another_way_passes(id: str, answer: Any) -> None:
    assert assess(ex.EXERCISES[id], answer, SECONDS) == CORRECT


@pytest.mark.parametrize(
    ("id", "said", "answer"),
    [(id, *one) for id, found in WRONG.items() for one in found],
    ids=lambda one: one.__name__ if callable(one) else one[:24],
)
def test_what_learners_type_is_named(id: str, said: str, answer: Any) -> None:
    verdict = assess(ex.EXERCISES[id], answer, SECONDS)
    assert verdict.mark == "✘" and said in verdict.text


@each_exercise
def test_it_stands_in_its_lesson(exercise: Exercise) -> None:
    """Once, as the stub, in a cell with the tag "exercise"."""
    files = list(NOTEBOOKS.glob(f"{exercise.id[:2]}_*.ipynb"))
    cells = [cell for file in files for cell in nbformat.read(file, as_version=4).cells]
    stubs = [cell for cell in cells if cell.source.startswith(f"# {exercise.id}\n")]
    assert [cell.source for cell in stubs] == [ex.stub(exercise.id)]
    assert stubs[0].metadata.tags == ["exercise"]


def test_lessons_are_found() -> None:
    assert "lesson_00" in registry.LESSONS
    assert list(ex.EXERCISES) == sorted(ex.EXERCISES, key=lambda id: id.split(".")[0])
    assert set(RIGHT) == set(ex.EXERCISES) >= set(WRONG)


@pytest.mark.parametrize("lesson", registry.LESSONS)
def test_hints_belong_to_exercises(lesson: str) -> None:
    """Each section names an exercise of its lesson, and each prediction has two wrong options or more."""
    number = lesson.removeprefix("lesson_")
    bugs, predictions = hints.lesson_hints(number)
    assert bugs.keys() <= ex.EXERCISES.keys() and all(id.startswith(number) for id in [*bugs, *predictions])
    for prediction in predictions.values():
        assert prediction.answer and len(prediction.letters) >= 3


def test_an_unknown_id() -> None:
    with pytest.raises(ValueError, match=r"there is no exercise '00.combin'; did you mean 00.combine"):
        ex.stub("00.combin")
