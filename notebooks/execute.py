"""Runs lessons from top to bottom and stores what they print and draw: `make notebooks`, or `execute.py NOTEBOOK …`.

Stored outputs come from one clean run. What differs from run to run without telling anything is left out: the times of
cells, and the state of widgets, whose static picture stays.
"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from sdlearn.files import whole_file

FOLDER = Path(__file__).parent


def execute(file: Path) -> None:
    """Run one notebook and write it back, whole or not at all. A cell that fails raises CellExecutionError."""
    notebook = nbformat.read(file, as_version=4)
    started = time.perf_counter()
    NotebookClient(
        notebook,
        timeout=600,
        resources={"metadata": {"path": str(FOLDER)}},
        store_widget_state=False,
        coalesce_streams=True,
    ).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            if "data" in output:
                output.data.pop("application/vnd.jupyter.widget-view+json", None)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    nbformat.validate(notebook)
    with whole_file(file) as temporary:
        nbformat.write(notebook, temporary)
    print(f"{file.name}  {time.perf_counter() - started:.0f} s, {file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    for path in [Path(name) for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb")):
        execute(path)
