"""Solved copies of lessons: what `notebooks/execute.py --solved` fills in, and what it doesn't let pass."""

import runpy
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from sdlearn.lessons import exercises as ex

FILE = Path(__file__).parents[3] / "notebooks" / "execute.py"


@pytest.fixture(scope="module")
def module() -> dict[str, Any]:
    return runpy.run_path(str(FILE))


def lesson(stub: str, check: str = 'part = ex.check("00.combine", my_combine)') -> nbformat.NotebookNode:
    write = new_code_cell(stub, metadata={"tags": ["exercise"]}, id="write")
    cells = [
        new_code_cell("from sdlearn.lessons import exercises as ex", id="imports"),
        write,
        new_code_cell(check, id="try"),
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
    assert solved.cells[1].source == ex.solution("00.combine")
    assert solved.cells[2].outputs[0].text == "✔ 00.combine: correct\n"
    assert (tmp_path / "00_a.ipynb").read_bytes() == before
    assert not (tmp_path / "passport").exists()
    assert "00_a.ipynb" in capfd.readouterr().out


def test_a_cell_that_is_no_stub(module: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"the cell write differs from ex.stub\('00.combine'\)"):
        module["solve"](lesson(ex.stub("00.combine") + "  # mine"))
    with pytest.raises(ValueError, match="there is no exercise"):
        module["solve"](lesson("def my_combine(): ..."))


@pytest.mark.parametrize(
    "printed",
    [
        "",
        "○ 00.combine: not written yet; the lesson goes on with the package's\n",
        "✘ 00.combine: TypeError\n",
        "✔ 00.combine: correct; not in the passport: it uses x, which the cell doesn't define\n",
        "✔ 00.combine: correct\n✘ 00.row: TypeError\n",
    ],
)
def test_what_is_not_green(module: dict[str, Any], printed: str) -> None:
    notebook = lesson("")
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="before\n" + printed)]
    with pytest.raises(RuntimeError, match="lines that should not be there, or are missing"):
        module["demand_green"](notebook, ["00.combine"])
    notebook.cells[2].outputs[0].text = "✔ 00.combine: correct\n"
    module["demand_green"](notebook, ["00.combine"])
