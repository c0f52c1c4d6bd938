"""The proof of the exercises: the right passes, the stub is not written yet, each bug has its own hint and no other."""

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from different import DIFFERENT
from wrong import WRONG

import sdlearn
from sdlearn.diffusion.samplers import SAMPLERS
from sdlearn.lessons import exercises as ex
from sdlearn.lessons.exercises import engine, registry
from sdlearn.lessons.exercises.engine import CORRECT, NOT_WRITTEN, assess, with_bug
from sdlearn.lessons.exercises.exercise import Bug, Exercise
from sdlearn.lessons.exercises.passport import sampler_of
from sdlearn.lessons.exercises.source import run_source
from sdlearn.lessons.show import whole_source
from sdlearn.storage.parts import PARTS

NOTEBOOKS = Path(__file__).parents[3] / "notebooks"
BUGS = [(exercise, bug) for exercise in ex.EXERCISES.values() for bug in exercise.bugs]

each_exercise = pytest.mark.parametrize("exercise", ex.EXERCISES.values(), ids=lambda exercise: exercise.id)
each_bug = pytest.mark.parametrize(
    ("exercise", "bug"), BUGS, ids=[f"{exercise.id}-{exercise.bugs.index(bug)}" for exercise, bug in BUGS]
)


def copy_of_the_package_s(exercise: Exercise) -> Any:
    """The reference, compiled anew, so that it isn't taken for an answer that was never written."""
    return with_bug(exercise, Bug("none", "", ()))


@each_exercise
class TestExercise:
    def test_the_package_passes(self, exercise: Exercise) -> None:
        assert assess(exercise, copy_of_the_package_s(exercise)) == CORRECT

    def test_the_stub_is_not_written_yet(self, exercise: Exercise) -> None:
        assert assess(exercise, run_source(ex.stub(exercise.id))) == NOT_WRITTEN

    def test_the_solution_passes(self, exercise: Exercise) -> None:
        assert assess(exercise, run_source(ex.solution(exercise.id))) == CORRECT

    def test_the_solution_stands_in_the_stub_s_cell(self, exercise: Exercise) -> None:
        stub, solution = ex.stub(exercise.id), ex.solution(exercise.id)
        assert stub.startswith(f"# {exercise.id}\n") and solution.startswith(f"# {exercise.id}\n")
        assert ast.parse(stub).body[-1].name == ast.parse(solution).body[-1].name == exercise.own_name
        assert "raise NotImplementedError" in stub and "raise NotImplementedError" not in solution

    def test_a_different_right_answer_passes(self, exercise: Exercise) -> None:
        assert DIFFERENT.get(exercise.id), "write it in tests/lessons/exercises/different.py"
        for text in DIFFERENT[exercise.id]:
            assert assess(exercise, run_source(text)) == CORRECT

    def test_bugs_are_told_apart(self, exercise: Exercise) -> None:
        """By their outputs, pair by pair; a bug that ends in an error has none."""
        assert len(exercise.bugs) >= 2
        assert len({bug.name for bug in exercise.bugs}) == len(exercise.bugs)
        with torch.enable_grad():
            for one in exercise.bugs:
                part = with_bug(exercise, one)
                ours, gradients = list(engine.outputs(exercise, part)), list(engine.gradients(exercise, part))
                for other in exercise.bugs:
                    assert engine.computes(exercise, other, ours, gradients) == (one is other), (one.name, other.name)

    def test_cases(self, exercise: Exercise) -> None:
        """Three or more, the same for the same seed."""
        cases = exercise.cases(torch.Generator().manual_seed(0))
        assert len(cases) >= 3
        first, second = (list(engine.outputs(exercise, exercise.package_part)) for _ in range(2))
        for a, b in zip(first, second, strict=True):
            for one, other in zip(engine.as_tensors(a), engine.as_tensors(b), strict=True):
                assert torch.equal(one, other) and one.isfinite().all()

    def test_what_is_said_of_it(self, exercise: Exercise) -> None:
        lesson, name = exercise.id.split(".")
        assert re.fullmatch(r"\d\d", lesson) and re.fullmatch(r"[a-z0-9_]+", name)
        assert exercise.difficulty in (1, 2, 3)
        assert 1 <= exercise.minutes <= 30
        assert exercise.part is None or exercise.part in PARTS
        assert exercise.sampler is None or (exercise.sampler in SAMPLERS and exercise.part)
        assert exercise.box is None or exercise.box in sdlearn.lessons.show.MAP
        for bug in exercise.bugs:
            assert bug.name and bug.read and "\n" not in bug.name + bug.read and not bug.name.endswith(".")

    def test_the_answer_is_short(self, exercise: Exercise) -> None:
        """What is to be written is at most 15 lines, without docstring and comments."""
        tree = ast.parse(whole_source(exercise.reference)).body[0]
        functions = [tree] if isinstance(tree, ast.FunctionDef) else [f for f in tree.body if f.name != "__init__"]
        bodies = [f.body[ast.get_docstring(f) is not None :] for f in functions]
        lines = {number for body in bodies for s in body for n in ast.walk(s) if (number := getattr(n, "lineno", 0))}
        assert len(lines) <= 15

    def test_the_model_draws_with_its_part(self, exercise: Exercise, tiny_folder: Path) -> None:
        """Where a part is named, it is used: one that only raises stops the model."""
        if exercise.part is None:
            pytest.skip("it isn't a part of the drawing")
        broken = run_source(ex.stub(exercise.id))
        model = sdlearn.load(tiny_folder, parts={exercise.part: broken})
        with pytest.raises(NotImplementedError):
            sdlearn.last(model.sample("a cat", steps=3, sampler=sampler_of(exercise)))


@each_bug
def test_each_bug_has_its_own_hint(exercise: Exercise, bug: Bug) -> None:
    verdict = assess(exercise, with_bug(exercise, bug))
    assert (verdict.mark, verdict.text) == ("✘", f"{bug.name}; read {bug.read}")


@pytest.mark.parametrize(
    ("id", "said", "text"), [(id, *one) for id, answers in WRONG.items() for one in answers], ids=lambda text: text[:24]
)
def test_what_learners_type_is_named(id: str, said: str, text: str) -> None:
    verdict = assess(ex.EXERCISES[id], run_source(text))
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
    assert set(DIFFERENT) <= set(ex.EXERCISES)


def test_an_unknown_id() -> None:
    with pytest.raises(ValueError, match=r"there is no exercise '00.combin'; did you mean 00.combine"):
        ex.stub("00.combin")
