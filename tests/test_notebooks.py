"""The notebooks as stored: run in order, without error, of one form, legible where no code runs, compared by nbval.

Each check is a function of a notebook. SPOILT holds one or more ways to break each; there the check must fail.
"""

import copy
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from sdlearn.lessons import exercises as ex

FOLDER = Path(__file__).parents[1] / "notebooks"
FILES = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
WIDGET = "application/vnd.jupyter.widget-view+json"
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(home|root|work|tmp|usr|opt|mnt|var|Users|content)/|\b[A-Z]:\\\w")
TIME = re.compile(r"\*\*Time:\*\* (\d+) minutes \(cells together (\d+) seconds on two CPU cores\)")
IGNORED = "nbval-ignore-output"


def tags(cell: Any) -> list[str]:
    return cell.metadata.get("tags", [])


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def code(notebook: Any, pattern: str = "") -> list[Any]:
    """The code cells whose id begins with the pattern."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and re.match(pattern, cell.id)]


def prose(notebook: Any) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def printed(cell: Any) -> list[str]:
    """The lines that a cell prints and that nbval compares."""
    if IGNORED in tags(cell):
        return []
    return "".join(output.get("text", "") for output in cell.outputs).splitlines()


def texts(notebook: Any) -> list[str]:
    """All that a reader reads: sources, printed text, values, HTML."""
    found = [cell.source for cell in notebook.cells if cell.id != "setup"]
    for output in outputs(notebook):
        found.append(output.get("text", ""))
        found += [value for kind, value in output.get("data", {}).items() if kind.startswith("text/")]
    return found


def valid_and_small(notebook: Any) -> None:
    nbformat.validate(notebook)
    assert len(nbformat.writes(notebook).encode()) < 1.5e6


def run_from_top_to_bottom(notebook: Any) -> None:
    counts = [cell.execution_count for cell in code(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def ids_tell_what_the_cell_is(notebook: Any) -> None:
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    for name in ids:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name), name
        assert not re.fullmatch(r"[0-9a-f]{8}(-.+)?", name), f"{name} is a random id"


def no_error_and_nothing_on_stderr(notebook: Any) -> None:
    assert {output.output_type for output in outputs(notebook)} <= {"stream", "display_data", "execute_result"}
    assert {output.name for output in outputs(notebook) if output.output_type == "stream"} == {"stdout"}


def no_widget_state(notebook: Any) -> None:
    assert "widgets" not in notebook.metadata
    assert not any(WIDGET in output.get("data", {}) for output in outputs(notebook))


def no_absolute_path(notebook: Any) -> None:
    for text in texts(notebook):
        assert not ABSOLUTE_PATH.search(text), text


def every_picture_has_alt_text(notebook: Any) -> None:
    pictures = [
        (output, kind) for output in outputs(notebook) for kind in output.get("data", {}) if kind.startswith("image/")
    ]
    assert pictures
    for output, kind in pictures:
        assert len(output.metadata[kind]["alt"]) > 10
    for image in re.findall(r"<img[^>]*>|!\[[^\]]*\]", "\n".join(texts(notebook))):
        assert re.search(r'alt="[^"]+"|!\[[^\]]+\]', image), image


def pictures_are_not_compared_and_text_is(notebook: Any) -> None:
    compared = [cell for cell in code(notebook) if IGNORED not in tags(cell)]
    for cell in compared:
        assert all(output.output_type == "stream" for output in cell.outputs), cell.id
    assert any(cell.outputs for cell in compared)


def title_promises(notebook: Any) -> None:
    title = notebook.cells[0].source
    assert re.match(r"# \d\d · \w", title)
    assert "**After this lesson you can**" in title and "**Builds on" in title
    minutes, seconds = map(int, TIME.search(title).groups())
    assert 0 < minutes <= 45 and seconds <= 120


def parts_in_order(notebook: Any) -> None:
    ids = [cell.id for cell in notebook.cells]
    assert ids[:3] == ["title", "setup", "imports"]
    first = notebook.cells[0].source.startswith("# 00")  # the first lesson draws before it shows the map
    assert ids.index("map") < (len(ids) if first else 6)
    places = [
        prose(notebook).find(words) for words in ("The question", "## Recap", "**Try this", "## What to read next")
    ]
    assert -1 not in places and places == sorted(places)
    assert "What people often get wrong" in prose(notebook)
    assert "](glossary.md)" in prose(notebook)
    assert re.search(r"arxiv\.org/abs/\d", prose(notebook)[places[-1] :])


def exercises_are_stubs(notebook: Any) -> None:
    ids = [cell.id for cell in notebook.cells]
    cells = code(notebook)
    written = [cell for cell in cells if cell.id.startswith("write-") or "exercise" in tags(cell)]
    assert len(written) >= 3
    for cell in written:
        name = cell.id.removeprefix("write-")
        id = cell.source.splitlines()[0].removeprefix("# ")
        assert tags(cell) == ["exercise"] and id[:3] == notebook.cells[0].source[2:4] + "."
        assert cell.source == ex.stub(id).strip()
        after = cells[cells.index(cell) + 1]
        assert after.id == f"try-{name}" and f'ex.check("{id}"' in after.source
        assert printed(after)[0].startswith(f"○ {id}: not written yet")
        assert ids.index(f"exercise-{name}") < ids.index(cell.id) < ids.index(f"solution-{name}")
        assert re.search(
            r"\*Difficulty: (easy|medium|hard)\. \d+ minutes\.", notebook.cells[ids.index(f"exercise-{name}")].source
        )
        solution = notebook.cells[ids.index(f"solution-{name}")].source
        assert solution.startswith("stuck = False") and f'ex.solution("{id}")' in solution


def learners_predict_first(notebook: Any) -> None:
    asked = [cell for cell in code(notebook, "predict-") if 'answer = ""' in cell.source]
    assert len(asked) >= 2
    for cell in asked:
        assert not cell.outputs and "**Predict first" in prose(notebook)


def sliders_have_static_twins(notebook: Any) -> None:
    sliders = [cell for cell in code(notebook) if "show.interact(" in cell.source]
    assert sliders
    for cell in sliders:
        (twin,) = code(notebook, f"{cell.id}-twin$")
        assert any("image/png" in output.get("data", {}) for output in cell.outputs)
        assert any("image/png" in output.get("data", {}) for output in twin.outputs)


def components_are_compared(notebook: Any) -> None:
    cells = [cell for cell in code(notebook, "(check|eq)-") if not cell.id.endswith("-difference")]
    assert any(cell.id.startswith("check-") for cell in cells)
    helpers = [
        name for one in code(notebook) if "check." in one.source for name in re.findall(r"def (\w+)", one.source)
    ]
    compares = re.compile("|".join([r"\bcheck\.", r"\bassert\b", *(rf"\b{name}\(" for name in helpers)]))
    for cell in cells:
        assert printed(cell) and printed(cell)[-1].endswith("ok"), cell.id
        assert compares.search(cell.source), cell.id
        if cell.id.startswith("check-"):
            (exact,) = code(notebook, f"{cell.id}-difference$")
            assert IGNORED in tags(exact) and exact.outputs


def equations_are_evaluated(notebook: Any) -> None:
    numbers = re.findall(r"\\tag\{(\w+)\}", prose(notebook))
    assert len(set(numbers)) == len(numbers) > 0
    shown = [line for cell in code(notebook, "eq-") for line in printed(cell)]
    for number in numbers:
        assert any(f"equation ({number})" in line and line.endswith("ok") for line in shown), number


def code_cells_hold_code(notebook: Any) -> None:
    for cell in code(notebook):
        lines = cell.source.splitlines()
        comments = [line.strip().startswith("#") for line in lines]
        if not cell.id.startswith("write-"):
            assert all(len(line.strip()) <= 60 for line, is_one in zip(lines, comments, strict=True) if is_one), cell.id
            assert not any(all(comments[i : i + 3]) for i in range(len(lines) - 2)), cell.id
            assert len(lines) <= (40 if cell.id == "setup" else 30), cell.id


def cell(notebook: Any, id: str) -> Any:
    return next(cell for cell in notebook.cells if cell.id == id)


def replace(id: str, old: str, new: str) -> Callable[[Any], None]:
    """Change a cell's source. The old text must be there, or nothing is spoilt."""

    def spoil(notebook: Any) -> None:
        assert old in cell(notebook, id).source
        cell(notebook, id).source = cell(notebook, id).source.replace(old, new)

    return spoil


def change(name: str, **values: Any) -> Callable[[Any], None]:
    return lambda notebook: cell(notebook, name).update(values)


def add_output(id: str, output_type: str, **values: Any) -> Callable[[Any], None]:
    return lambda notebook: cell(notebook, id).outputs.append(nbformat.v4.new_output(output_type, **values))


SPOILT: dict[Callable[[Any], None], list[Callable[[Any], None]]] = {
    valid_and_small: [change("recap", source="x" * 1_500_000)],
    run_from_top_to_bottom: [change("sample", execution_count=None), change("imports", execution_count=1)],
    ids_tell_what_the_cell_is: [change("sample", id="0a1b2c3d"), change("sample", id="shapes")],
    no_error_and_nothing_on_stderr: [
        add_output("sample", "stream", name="stderr", text="a warning"),
        add_output("sample", "error", ename="ValueError", evalue="no"),
    ],
    no_widget_state: [
        lambda notebook: notebook.metadata.update(widgets={}),
        add_output("playground", "display_data", data={WIDGET: {}}),
    ],
    no_absolute_path: [replace("recap", "tokenizer", "/home/me/file"), replace("recap", "tokenizer", r"C:\me")],
    every_picture_has_alt_text: [
        lambda notebook: cell(notebook, "map").outputs[0].metadata["image/png"].pop("alt"),
        replace("recap", "## Recap", "![](picture.png)"),
        lambda notebook: [cell.update(outputs=[]) for cell in code(notebook)],
    ],
    pictures_are_not_compared_and_text_is: [lambda notebook: cell(notebook, "map").metadata.clear()],
    title_promises: [replace("title", "**Time:** 40", "**Time:** 50"), replace("title", "**Builds on", "**Built on")],
    parts_in_order: [
        change("imports", id="begin"),
        replace("recap", "## Recap", "## End"),
        replace("wrong", "What people often get wrong", "Errors"),
        replace("title", "glossary.md", "glossary"),
        lambda notebook: notebook.cells.insert(3, notebook.cells.pop()),
    ],
    exercises_are_stubs: [
        replace("write-combine", "raise NotImplementedError", "return unconditional"),
        change("try-combine", id="check-combine-later"),
        change("solution-combine", source="stuck = True"),
        replace("exercise-combine", "*Difficulty", "*Level"),
        lambda notebook: cell(notebook, "write-combine").metadata.clear(),
    ],
    learners_predict_first: [replace("predict-scale", 'answer = ""', 'answer = "b"')],
    sliders_have_static_twins: [change("playground-twin", outputs=[]), change("playground-twin", id="other")],
    components_are_compared: [
        lambda notebook: cell(notebook, "check-pipeline").metadata.update(tags=[IGNORED]),
        lambda notebook: cell(notebook, "eq-guidance").outputs[0].update(text="equation (1) not ok at all"),
        change("check-pipeline-difference", id="difference"),
        change("check-pipeline", source='print("ok")'),
    ],
    equations_are_evaluated: [replace("guidance-idea", r"\tag{1}", r"\tag{2}")],
    code_cells_hold_code: [
        change("sample", source="# " + "x" * 60),
        change("sample", source="# one\n# two\n# three"),
        change("sample", source="print()\n" * 40),
    ],
}


def test_there_are_notebooks() -> None:
    assert FILES


@pytest.mark.parametrize("check", SPOILT, ids=lambda check: check.__name__)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_as_stored(file: Path, check: Callable[[Any], None]) -> None:
    check(nbformat.read(file, as_version=4))


SPOILINGS = [(check, i) for check in SPOILT for i in range(len(SPOILT[check]))]


@pytest.mark.parametrize(("check", "i"), SPOILINGS, ids=[f"{check.__name__}-{i}" for check, i in SPOILINGS])
def test_what_is_spoilt_is_found(check: Callable[[Any], None], i: int) -> None:
    notebook = copy.deepcopy(nbformat.read(FILES[0], as_version=4))
    SPOILT[check][i](notebook)
    with pytest.raises((AssertionError, KeyError, ValueError, nbformat.ValidationError)):
        check(notebook)


def test_the_glossary_has_a_table_for_each_lesson() -> None:
    sections = re.split(r"^## ", (FOLDER / "glossary.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    tables = {section[:2]: re.findall(r"^\|.*\|$", section, re.MULTILINE) for section in sections}
    for file in FILES:
        titles, rule, *rows = tables[file.name[:2]]
        assert titles.count("|") == rule.count("|") == 7 and rows
        for row in rows:
            cells = [cell.strip() for cell in row.strip("|").split(" | ")]
            assert len(cells) == 6 and all(cells) and row.count("$") % 2 == row.count("`") % 2 == 0, row
            assert re.search(r"[\u4e00-\u9fff]|[A-Z]", cells[5]), row


def test_a_changed_number_is_found(tmp_path: Path) -> None:
    """Two copies of the first lesson's beginning, in one of them a stored number is changed: nbval fails there only."""
    notebook = nbformat.read(FILES[0], as_version=4)
    keep = ("setup", "imports", "first-picture", "sample")
    notebook.cells = [cell(notebook, id) for id in keep]
    nbformat.write(notebook, tmp_path / "same.ipynb")
    (output,) = notebook.cells[-1].outputs
    output.text, changed = re.subn(r"\d+", lambda number: str(int(number[0]) + 1), output.text, count=1)
    assert changed
    nbformat.write(notebook, tmp_path / "changed.ipynb")

    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "-rf"]
    files = [str(tmp_path / name) for name in ("same.ipynb", "changed.ipynb")]
    done = subprocess.run([*command, *files], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.findall(r"^FAILED (.+?::Cell \d+)", done.stdout, re.MULTILINE) == [f"changed.ipynb::Cell {len(keep) - 1}"]
