"""The facts of a lesson stand in its metadata, and are written from there into cells and README; runs are measured."""

import base64
import subprocess
import sys
from pathlib import Path

import contents
import execute
import facts
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from sdlearn.lessons.show import to_png

FOLDER = Path(__file__).parents[1] / "notebooks"


def lesson(number: int, seconds: int = 7) -> nbformat.NotebookNode:
    """A lesson of few cells, not yet stamped."""
    title = new_markdown_cell(f"# 0{number} · Old\n\nA question?\n\n**Time:** none", id="title")
    picture = new_output(
        "display_data", data={"image/png": base64.b64encode(to_png(Image.new("RGB", (8, 4)))).decode()}
    )
    cells = [title, new_code_cell(id="setup"), new_code_cell(id="drawn", outputs=[picture])]
    notebook = new_notebook(cells=[*cells, new_markdown_cell("That was it.", id="next")])
    notebook.metadata["sdlearn"] = {
        "number": f"0{number}",
        "title": f"Lesson {number}: more",
        "builds": "a thing",
        "minutes": 45,
        "deeper_minutes": 25 * number,
        "seconds": seconds,
        "picture": "drawn",
        "exercises": {"core": [], "deeper": []},
    }
    return notebook


@pytest.fixture
def course(tmp_path: Path) -> list[Path]:
    """Three lessons."""
    (tmp_path / "notebooks").mkdir()
    files = [tmp_path / "notebooks" / f"0{number}_lesson.ipynb" for number in range(3)]
    for number, file in enumerate(files):
        nbformat.write(lesson(number), file)
    return files


def test_first_and_last_cell_are_stamped_from_the_facts(course: list[Path]) -> None:
    for file in (*course, course[0]):  # the names of the lessons after are known from the second time on
        notebook = nbformat.read(file, as_version=4)
        facts.stamp(notebook, file)
        nbformat.write(notebook, file)
    first, middle, last = ([cell.source for cell in nbformat.read(file, as_version=4).cells] for file in course)
    contents_link = "[contents](../README.md#lessons)"
    links = f"« [00 · Lesson 0](00_lesson.ipynb) · {contents_link} · [02 · Old](02_lesson.ipynb) »"
    assert middle[0].split("\n\n") == [
        "# 01 · Lesson 1: more",
        "A question?",
        "**Time:** 45 minutes, and 25 more for *Deeper*. The cells together take 7 seconds.",
        links,
    ]
    assert middle[-1] == f"That was it.\n\n{links}"
    assert first[-1] == f"That was it.\n\n{contents_link} · [01 · Lesson 1](01_lesson.ipynb) »"
    assert "**Time:** 45 minutes. The" in first[0]  # there is no Deeper
    assert last[-1].endswith(f"« [01 · Lesson 1](01_lesson.ipynb) · {contents_link}")


def test_stamping_again_changes_nothing(course: list[Path]) -> None:
    notebook = nbformat.read(course[1], as_version=4)
    facts.stamp(notebook, course[1])
    before = nbformat.writes(notebook)
    facts.stamp(notebook, course[1])
    assert nbformat.writes(notebook) == before


def test_a_lesson_without_facts_is_refused(course: list[Path]) -> None:
    notebook = nbformat.read(course[0], as_version=4)
    del notebook.metadata["sdlearn"]
    with pytest.raises(ValueError, match="no facts"):
        facts.stamp(notebook, course[0])


def test_the_table_of_lessons_is_made_from_the_facts(course: list[Path]) -> None:
    root = course[0].parents[1]
    (root / "pyproject.toml").write_text('[project]\nname = "x"\n', encoding="utf-8")
    (root / "README.md").write_text("above\n<!-- lessons -->\nold\n<!-- end of lessons -->\nbelow\n", encoding="utf-8")
    contents.write(root)
    lines = (root / "README.md").read_text(encoding="utf-8").splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("above", "below", 9)
    name = "01 · Lesson 1: more"
    assert lines[5] == f"| ![{name}](docs/img/01.png) | [{name}](notebooks/01_lesson.ipynb) | a thing | 45 | 7 |"
    with Image.open(root / "docs" / "img" / "01.png") as image:
        assert image.size == (160, 80)


def test_a_run_keeps_the_facts_and_nothing_else() -> None:
    notebook = lesson(1)
    notebook.metadata["widgets"] = {}
    notebook.cells[2].source = "print(6 * 7)"
    execute.execute(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info", "sdlearn"}
    assert notebook.metadata["sdlearn"]["title"] == "Lesson 1: more" and notebook.cells[2].outputs[0].text == "42\n"


@pytest.mark.parametrize(("seconds", "rounded"), [(0.2, 5), (5, 5), (31.5, 35)])
def test_measured_seconds_are_rounded_up(seconds: float, rounded: int) -> None:
    assert execute.round_up(seconds) == rounded


SAME = [
    ("the two sides differ by 1.2e-07", "the two sides differ by 9.9e-05"),
    ("the two sides differ by 3.4e-16", "the two sides differ by 0"),
    ("snr  compute_snr  1e-05    0", "snr  compute_snr  1e-05    2.2e-12"),
    ("ids  CLIPTokenizer  0        0\nx  y  1e-05    1.2e-07", "ids  CLIPTokenizer  0        0\nx  y  1e-05    0"),
    ("that took 1.2 s, 30 seconds", "that took 0.9 s, 31 seconds"),
]
DIFFERENT = [
    ("the two sides differ by 1.2e-07", "the two sides differ by 1.2e-04"),
    ("the two sides differ by 1.2e-07", "the two sides differ by 3.1e-01"),
    ("the two sides differ by 0", "the two sides differ by 0.5"),
    ("a step of 1e-05", "a step of 1e-06"),
    ("snr  compute_snr  1e-05    0", "snr  compute_snr  1e-04    0"),
    ("after 12 steps", "after 13 steps"),
]


def test_rounding_and_seconds_are_not_compared_and_all_else_is(tmp_path: Path) -> None:
    """Cells that print one text and have another one stored: nbval must find those of DIFFERENT, and no others."""
    cells = []
    for i, (then, now) in enumerate([*SAME, *DIFFERENT]):
        stored = new_output("stream", name="stdout", text=f"{then}\n")
        cells.append(new_code_cell(f"print({now!r})", execution_count=i + 1, outputs=[stored]))
    nbformat.write(new_notebook(cells=cells), tmp_path / "made_up.ipynb")
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "-q", "-rf"]
    command += ["--nbval-sanitize-with", str(FOLDER / "sanitize.cfg"), "made_up.ipynb"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    found = [line.split("::")[1] for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert [name.split(" ")[:2] for name in found] == [
        ["Cell", str(i)] for i in range(len(SAME), len(SAME) + len(DIFFERENT))
    ], done.stdout + done.stderr
