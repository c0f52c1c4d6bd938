"""The notebooks as stored: run in order, without error, of one form, legible where no code runs, compared by nbval.

Each check is a function of a notebook. SPOILT holds one or more ways to break each; there the check must fail.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from made_up import FILES, FOLDER, IGNORED, by_id, change, made_up, replace

WIDGET = "application/vnd.jupyter.widget-view+json"
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(home|root|work|tmp|usr|opt|mnt|var|Users|content)/|\b[A-Z]:\\\w")


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


def code_cells_hold_code(notebook: Any) -> None:
    for cell in code(notebook):
        lines = cell.source.splitlines()
        comments = [line.strip().startswith("#") for line in lines]
        if "exercise" not in tags(cell):
            titles = [line.startswith("# @title ") for line in lines]
            assert all(
                len(line.strip()) <= 60
                for line, is_one, is_title in zip(lines, comments, titles, strict=True)
                if is_one and not is_title
            ), cell.id
            assert not any(all(comments[i : i + 3]) for i in range(len(lines) - 2)), cell.id


def add_output(id: str, output_type: str, **values: Any) -> Callable[[Any], None]:
    return lambda notebook: by_id(notebook, id).outputs.append(nbformat.v4.new_output(output_type, **values))


SPOILT: dict[Callable[[Any], None], list[Callable[[Any], None]]] = {
    valid_and_small: [change("read", source="x" * 1_500_000)],
    run_from_top_to_bottom: [change("eq-one", execution_count=None), change("imports", execution_count=1)],
    ids_tell_what_the_cell_is: [change("eq-one", id="0a1b2c3d"), change("eq-one", id="map")],
    no_error_and_nothing_on_stderr: [
        add_output("eq-one", "stream", name="stderr", text="a warning"),
        add_output("eq-one", "error", ename="ValueError", evalue="no"),
    ],
    no_widget_state: [
        lambda notebook: notebook.metadata.update(widgets={}),
        add_output("slider", "display_data", data={WIDGET: {}}),
    ],
    no_absolute_path: [replace("answer", "here", "/home/me/file"), replace("answer", "here", r"C:\me")],
    every_picture_has_alt_text: [
        lambda notebook: by_id(notebook, "slider").outputs[0].metadata["image/png"].pop("alt"),
        replace("answer", "here", "![](picture.png)"),
        lambda notebook: [cell.update(outputs=[]) for cell in code(notebook)],
    ],
    pictures_are_not_compared_and_text_is: [lambda notebook: by_id(notebook, "slider").metadata.clear()],
    code_cells_hold_code: [
        change("eq-one", source="# " + "x" * 60),
        change("eq-one", source="# one\n# two\n# three"),
    ],
}


def test_there_are_notebooks() -> None:
    assert FILES


@pytest.mark.parametrize("check", SPOILT, ids=lambda check: check.__name__)
def test_a_good_notebook_passes(check: Callable[[Any], None]) -> None:
    check(made_up())


@pytest.mark.parametrize("check", SPOILT, ids=lambda check: check.__name__)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_as_stored(file: Path, check: Callable[[Any], None]) -> None:
    check(nbformat.read(file, as_version=4))


SPOILINGS = [(check, i) for check in SPOILT for i in range(len(SPOILT[check]))]


@pytest.mark.parametrize(("check", "i"), SPOILINGS, ids=[f"{check.__name__}-{i}" for check, i in SPOILINGS])
def test_what_is_spoilt_is_found(check: Callable[[Any], None], i: int) -> None:
    notebook = made_up()
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
