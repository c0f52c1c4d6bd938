"""A made-up lesson that keeps all rules for notebooks, and ways to spoil it."""

import base64
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import facts
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from sdlearn.lessons import exercises as ex
from sdlearn.lessons import show

NUMBER = "01"  # the lesson whose place the made-up one takes
IGNORED = "nbval-ignore-output"
LEVELS = {1: "easy", 2: "medium", 3: "hard"}
FOLDER = Path(__file__).parents[1] / "notebooks"
FILES = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
FILE = next(file for file in FILES if file.name.startswith(NUMBER))
FIRST = next(id for id, one in ex.EXERCISES.items() if id.startswith(f"{NUMBER}.") and one.core)
NAME = FIRST.partition(".")[2].replace("_", "-")


def picture(frames: int = 1) -> Any:
    images = [Image.new("RGB", (8, 8), (i * 40, 0, 0)) for i in range(frames + 1)]
    data = show.film(images[1:], still=images[0]) if frames > 1 else show.to_png(images[0])
    about = {"image/png": {"alt": "squares that become red"}}
    return new_output("display_data", {"image/png": base64.b64encode(data).decode()}, metadata=about)


def says(text: str) -> Any:
    return new_output("stream", name="stdout", text=f"{text}\n")


def hidden(id: str, source: str = "x = 1", *outputs: Any) -> Any:
    drawn = any("data" in output for output in outputs)
    metadata = {"jupyter": {"source_hidden": True}} | ({"tags": [IGNORED]} if drawn else {})
    return new_code_cell(f"# @title Something\n{source}", id=id, metadata=metadata, outputs=list(outputs))


def task(id: str) -> list[Any]:
    """The two cells of an exercise."""
    exercise = ex.EXERCISES[id]
    level = f"*Difficulty: {LEVELS[exercise.difficulty]}. {exercise.minutes} minutes.*"
    text = f'### Your turn: {id}\n\nWrite it. {level} `ex.case("{id}", 1)`, `ex.solution("{id}")`'
    name = id.partition(".")[2].replace("_", "-")
    stub = new_code_cell(ex.stub(id), id=f"write-{name}", metadata={"tags": ["exercise"]})
    return [new_markdown_cell(text, id=f"turn-{name}"), stub]


def made_up() -> Any:
    """A lesson that keeps all rules."""
    ids = [id for id in ex.EXERCISES if id.startswith(f"{NUMBER}.")]
    core, deeper = [id for id in ids if ex.EXERCISES[id].core], [id for id in ids if not ex.EXERCISES[id].core]
    sides = says("equation (1): the two sides differ by 1.2e-07")
    cells = [
        new_markdown_cell("# Title\n\nWhy? See the [glossary](glossary.md).\n\n- to see\n- to write", id="title"),
        *map(hidden, ("setup", "imports", "map")),
        new_markdown_cell("## The question\n\n$$x = 1 \\tag{1}$$\n\nSee [the end](#The-answer).", id="question"),
        new_code_cell('check.equal("equation (1)", 1, 1)', id="eq-one", outputs=[sides]),
        new_markdown_cell("### Predict\n\na) one, b) two", id="predict"),
        new_code_cell('ex.predict("01.x", "")', id="predict-x", outputs=[says("write a, b or c, then run this cell")]),
        hidden("outcome-x", 'ex.outcome("01.x", "b")', picture()),
        *[cell for id in core for cell in task(id)],
        hidden("slider", "show.interact(draw, t=slider)", picture(frames=4)),
        new_markdown_cell("## The *answer*\n\n```python\nx = 1\n```\n\nNo `!` here.", id="answer"),
        hidden("compare", "check.parity_table(rows)", says("ours  theirs  allowed  differ by")),
        new_markdown_cell("## What to read next\n\n[Ho](https://arxiv.org/abs/2006.11239)", id="read"),
        hidden("map-end"),
        new_markdown_cell("## Deeper", id="deeper"),
        *[cell for id in deeper for cell in task(id)],
        new_markdown_cell("That was it.", id="next"),
    ]
    lesson = {"number": NUMBER, "title": "A title", "builds": "x", "minutes": 45, "deeper_minutes": 5, "seconds": 40}
    notebook = new_notebook(cells=cells)
    notebook.metadata["sdlearn"] = lesson | {
        "picture": "outcome-x",
        "exercises": {"core": core, "deeper": deeper},
    }
    for count, one in enumerate((one for one in cells if one.cell_type == "code"), start=1):
        one.execution_count = count
    facts.stamp(notebook, FILE)
    return notebook


def by_id(notebook: Any, id: str) -> Any:
    """The cell with this id."""
    return next(cell for cell in notebook.cells if cell.id == id)


def append(id: str, text: str) -> Callable[[Any], None]:
    return lambda notebook: by_id(notebook, id).update(source=by_id(notebook, id).source + text)


def replace(id: str, old: str, new: str) -> Callable[[Any], None]:
    """Change a cell's source. The old text must be there, or nothing is spoilt."""

    def spoil(notebook: Any) -> None:
        assert old in by_id(notebook, id).source
        by_id(notebook, id).source = by_id(notebook, id).source.replace(old, new)

    return spoil


def change(id: str, /, **values: Any) -> Callable[[Any], None]:
    return lambda notebook: by_id(notebook, id).update(values)


def fact(name: str, value: Any) -> Callable[[Any], None]:
    return lambda notebook: notebook.metadata["sdlearn"].update({name: value})


def remove(id: str) -> Callable[[Any], None]:
    return lambda notebook: notebook.cells.remove(by_id(notebook, id))


def insert(place: int, *cells: Any) -> Callable[[Any], None]:
    def spoil(notebook: Any) -> None:
        notebook.cells[place:place] = copy.deepcopy(cells)

    return spoil
