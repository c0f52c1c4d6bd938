"""Runs lessons from top to bottom and stores what they print and draw: `make notebooks`, or `execute.py NOTEBOOK …`.

Stored outputs come from one clean run. What differs from run to run without telling anything is left out: the times of
cells, and the state of widgets, whose static picture stays. The seconds of the run go into the notebook's facts, and
from these the heading, the time and the links are written: see facts.py.

With `--solved FOLDER` the lessons stay as they are, and the folder gets copies whose exercise cells hold the package's
solutions, and the right letters in its predictions: `make solved`. There every check and prediction must be green.
"""

import argparse
import math
import os
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

import facts
import host
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from sdlearn.files import atomic_write
from sdlearn.lessons import exercises as ex
from sdlearn.lessons.exercises.registry import find, find_prediction
from sdlearn.lessons.exercises.source import solution

FOLDER = Path(__file__).parent
VERDICT = re.compile(r"^([○✔✘]) (\d\d\.\w+)(?:, [a-z])?: (.*)$", re.MULTILINE)
PREDICTION = re.compile(r"""ex\.predict\("(\d\d\.\w+)", ""\)""")


def execute(notebook: NotebookNode) -> None:
    """Run a notebook in place. A cell that fails raises CellExecutionError."""
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
    kept = {"sdlearn": notebook.metadata["sdlearn"]} if "sdlearn" in notebook.metadata else {}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}} | kept
    nbformat.validate(notebook)


def round_up(seconds: float) -> int:
    """To five seconds: the same run never takes exactly as long twice."""
    return 5 * math.ceil(seconds / 5)


def solve(notebook: NotebookNode) -> list[str]:
    """Fill in the package's solutions and the right letters; return the ids of these exercises and predictions.

    Raises:
        ValueError: an exercise cell is not the stub that its first line names.
    """
    ids = []
    for cell in notebook.cells:
        if "exercise" in cell.metadata.get("tags", ()):
            id = cell.source.partition("\n")[0].removeprefix("# ")
            if cell.source != ex.stub(id):
                raise ValueError(f"the cell {cell.id} differs from ex.stub({id!r})")
            cell.source = solution(find(id))
            ids.append(id)
        elif cell.cell_type == "code":
            for id in PREDICTION.findall(cell.source):
                letter = find_prediction(id).answer
                cell.source = cell.source.replace(f'ex.predict("{id}", "")', f'ex.predict("{id}", "{letter}")')
                ids.append(id)
    return ids


def demand_green(notebook: NotebookNode, ids: list[str]) -> None:
    """Raises RuntimeError unless these exercises and predictions, and no others, were judged once and are green."""
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    verdicts = list(VERDICT.finditer(printed))
    wrong = [found[0] for found in verdicts if found[1] != "✔" or "not in the passport" in found[3]]
    wrong += sorted((Counter(found[2] for found in verdicts) - Counter(ids)).elements())
    wrong += sorted((Counter(ids) - Counter(found[2] for found in verdicts)).elements())
    if wrong:
        raise RuntimeError("verdicts that should not be there, or are missing: " + " | ".join(wrong))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--solved", type=Path, metavar="FOLDER", help="where copies with solutions go")
    parser.add_argument("notebooks", nargs="*", type=Path, help="all lessons, if none is named")
    arguments = parser.parse_args()
    for file in arguments.notebooks or host.lessons(FOLDER.parent):
        notebook = host.stamped(nbformat.read(file, as_version=4), host.read_address(host.ROOT), file.name)
        destination, ids = file, []
        started = time.perf_counter()
        if arguments.solved is not None:
            destination = arguments.solved / file.name
            destination.parent.mkdir(parents=True, exist_ok=True)
            ids = solve(notebook)
        with tempfile.TemporaryDirectory() as passport:  # an empty one: whose computer it is must not show on the maps
            os.environ["SDLEARN_PASSPORT"] = passport
            execute(notebook)
        if "sdlearn" in notebook.metadata and arguments.solved is None:
            notebook.metadata["sdlearn"]["seconds"] = round_up(time.perf_counter() - started)
            facts.stamp(notebook, file.resolve())
        if arguments.solved is not None:
            demand_green(notebook, ids)
        with atomic_write(destination) as temporary:
            nbformat.write(notebook, temporary)
        print(f"{file.name}  {time.perf_counter() - started:.0f} s, {destination.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
