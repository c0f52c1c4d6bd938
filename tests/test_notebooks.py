"""The notebooks as stored: run in order, without error, legible where no code runs, and compared by nbval."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
FILES = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
WIDGET = "application/vnd.jupyter.widget-view+json"
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(home|root|work|tmp|usr|opt|mnt|var|Users|content|kaggle)/|\b[A-Z]:\\\w")


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def texts(notebook: Any) -> list[str]:
    """All that a reader reads: sources, printed text, values, HTML."""
    found = [cell.source for cell in notebook.cells]
    for output in outputs(notebook):
        found.append(output.get("text", ""))
        found += [value for kind, value in output.get("data", {}).items() if kind.startswith("text/")]
    return found


def test_there_are_notebooks() -> None:
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
class TestAsStored:
    @pytest.fixture
    def notebook(self, file: Path) -> Any:
        return nbformat.read(file, as_version=4)

    def test_valid_and_small(self, file: Path, notebook: Any) -> None:
        nbformat.validate(notebook)
        assert file.stat().st_size < 1.5e6

    def test_was_run_from_top_to_bottom(self, file: Path, notebook: Any) -> None:
        counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
        assert counts == list(range(1, len(counts) + 1))

    def test_cell_ids_tell_what_the_cell_is(self, file: Path, notebook: Any) -> None:
        ids = [cell.id for cell in notebook.cells]
        assert len(set(ids)) == len(ids)
        for name in ids:
            assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name), name
            assert not re.fullmatch(r"[0-9a-f]{8}(-.+)?", name), f"{name} is a random id"

    def test_no_error_and_nothing_on_stderr(self, file: Path, notebook: Any) -> None:
        assert {output.output_type for output in outputs(notebook)} <= {"stream", "display_data", "execute_result"}
        assert {output.name for output in outputs(notebook) if output.output_type == "stream"} == {"stdout"}

    def test_no_widget_state(self, file: Path, notebook: Any) -> None:
        assert "widgets" not in notebook.metadata
        assert not any(WIDGET in output.get("data", {}) for output in outputs(notebook))

    def test_no_absolute_path(self, file: Path, notebook: Any) -> None:
        for text in texts(notebook):
            assert not ABSOLUTE_PATH.search(text), text

    def test_every_picture_has_alt_text(self, file: Path, notebook: Any) -> None:
        pictures = 0
        for output in outputs(notebook):
            for kind in output.get("data", {}):
                if kind.startswith("image/"):
                    pictures += 1
                    assert len(output.metadata[kind]["alt"]) > 10
        assert pictures
        for image in re.findall(r"<img[^>]*>|!\[[^\]]*\]", "\n".join(texts(notebook))):
            assert re.search(r'alt="[^"]+"|!\[[^\]]+\]', image), image

    def test_pictures_are_not_compared_and_text_is(self, file: Path, notebook: Any) -> None:
        compared = 0
        for cell in notebook.cells:
            if cell.cell_type == "code" and "nbval-ignore-output" not in cell.metadata.get("tags", []):
                assert all(output.output_type == "stream" for output in cell.outputs), cell.id
                compared += len(cell.outputs)
        assert compared


def test_a_changed_number_is_found(tmp_path: Path) -> None:
    """Two copies of the first lesson's beginning, in one of them a stored number is changed: nbval fails there only."""
    notebook = nbformat.read(FILES[0], as_version=4)
    last = next(i for i, cell in enumerate(notebook.cells) if cell.id == "sample")
    notebook.cells = notebook.cells[: last + 1]
    nbformat.write(notebook, tmp_path / "same.ipynb")
    (output,) = notebook.cells[-1].outputs
    output.text, changed = re.subn(r"\d+", lambda number: str(int(number[0]) + 1), output.text, count=1)
    assert changed
    nbformat.write(notebook, tmp_path / "changed.ipynb")

    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "-rf"]
    files = [str(tmp_path / name) for name in ("same.ipynb", "changed.ipynb")]
    done = subprocess.run([*command, *files], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.findall(r"^FAILED (.+?::Cell \d+)", done.stdout, re.MULTILINE) == [
        f"changed.ipynb::Cell {count(notebook) - 1}"
    ]


def count(notebook: Any) -> int:
    return sum(cell.cell_type == "code" for cell in notebook.cells)
