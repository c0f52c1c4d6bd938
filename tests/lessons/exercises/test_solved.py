"""Solved copies of lessons: what `notebooks/execute.py --solved` fills in, and what it doesn't let pass."""

import contextlib
import runpy
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from sdlearn.lessons import exercises as ex
from sdlearn.lessons.exercises.hints import Prediction

FILE = Path(__file__).parents[3] / "notebooks" / "execute.py"


@pytest.fixture(scope="module")
def module() -> dict[str, Any]:
    return runpy.run_path(str(FILE))


def lesson(stub: str, after: str = 'combine = ex.part("00.combine")') -> nbformat.NotebookNode:
    write = new_code_cell(stub, metadata={"tags": ["exercise"]}, id="write")
    cells = [
        new_markdown_cell("# 00 · A lesson", id="title"),
        new_code_cell("import sdlearn", id="setup"),
        new_code_cell("from sdlearn.lessons import exercises as ex", id="imports"),
        write,
        new_code_cell(after, id="use"),
    ]
    return new_notebook(cells=cells)


def test_solved_copy(
    module: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The copy is run and green, also in a kernel; the lesson stays as it was; the learner's passport, too."""
    monkeypatch.setenv("SDLEARN_PASSPORT", str(tmp_path / "passport"))
    nbformat.write(lesson(ex.stub("00.combine")), tmp_path / "00_a.ipynb")
    before = (tmp_path / "00_a.ipynb").read_bytes()
    monkeypatch.setattr(sys, "argv", ["execute.py", "--solved", str(tmp_path / "out"), str(tmp_path / "00_a.ipynb")])
    module["main"]()
    solved = nbformat.read(tmp_path / "out" / "00_a.ipynb", as_version=4)
    assert solved.cells[3].source == ex.stub("00.combine").replace(
        "raise NotImplementedError", "return unconditional + guidance_scale * (conditional - unconditional)"
    )
    assert solved.cells[3].outputs[0].text == "✔ 00.combine: correct\n"
    assert solved.cells[4].outputs[0].text == "00.combine: from here on yours is used\n"
    assert (tmp_path / "00_a.ipynb").read_bytes() == before
    assert not (tmp_path / "passport").exists()
    assert "00_a.ipynb" in capfd.readouterr().out


def test_a_cell_that_is_no_stub(module: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"the cell write differs from ex.stub\('00.combine'\)"):
        module["solve"](lesson(ex.stub("00.combine") + "  # mine"))
    with pytest.raises(ValueError, match="there is no exercise"):
        module["solve"](lesson("def combine(): ..."))


def test_predictions(module: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The right letter is filled in, and must be confirmed."""
    prediction = Prediction("00.colour", "b", {"a": "it isn't", "c": "nor this"})
    monkeypatch.setitem(ex.PREDICTIONS, "00.colour", prediction)
    notebook = new_notebook(cells=[new_code_cell('ex.predict("00.colour", "")')])
    assert module["solve"](notebook) == ["00.colour"]
    assert notebook.cells[0].source == 'ex.predict("00.colour", "b")'
    for printed, green in (("✔ 00.colour, b: that is right\n", True), ("✘ 00.colour, a: it isn't\n", False)):
        notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text=printed)]
        with contextlib.nullcontext() if green else pytest.raises(RuntimeError, match=r"00\.colour, a: it isn't"):
            module["demand_green"](notebook, ["00.colour"])


@pytest.mark.parametrize(
    "printed",
    [
        "",
        "○ 00.combine: not written yet; the lesson uses the package's\n",
        "✘ 00.combine: TypeError\n",
        "✔ 00.combine: correct; not in the passport: it uses x, which the cell doesn't define\n",
        "✔ 00.combine: correct\n✘ 00.row: TypeError\n",
    ],
)
def test_what_is_not_green(module: dict[str, Any], printed: str) -> None:
    notebook = lesson("")
    notebook.cells[4].outputs = [nbformat.v4.new_output("stream", text="before\n" + printed)]
    with pytest.raises(RuntimeError, match="verdicts that should not be there, or are missing"):
        module["demand_green"](notebook, ["00.combine"])
    notebook.cells[4].outputs[0].text = "✔ 00.combine: correct\n"
    module["demand_green"](notebook, ["00.combine"])
