"""What is known about a lesson stands once, in its notebook's metadata, under "sdlearn":

number, title, builds (what the reader builds), minutes, deeper_minutes, seconds (measured by execute.py), picture (the
id of the cell whose picture is in the table of lessons), exercises (the ids in the core and in Deeper).

Here the lines that repeat them are written: the heading, the time, and the links to the lessons before and after.
"""

import re
from pathlib import Path
from typing import Any

import host
import nbformat

CONTENTS = "[contents](../README.md#lessons)"
TIME = re.compile(r"^\*\*Time:\*\*.*$", re.MULTILINE)
LINKS = re.compile(r"^.*\]\(\.\./README\.md#lessons\).*$", re.MULTILINE)


def read(notebook: Any) -> dict[str, Any]:
    """The facts. Raises ValueError when the notebook has none."""
    if "sdlearn" not in notebook.metadata:
        raise ValueError(f"{notebook.cells[0].source[:40]!r}: the notebook's metadata hold no facts, key 'sdlearn'")
    return notebook.metadata["sdlearn"]


def heading(facts: dict[str, Any]) -> str:
    return f"# {facts['number']} · {facts['title']}"


def time(facts: dict[str, Any]) -> str:
    more = f", and {facts['deeper_minutes']} more for *Deeper*" if facts.get("deeper_minutes") else ""
    return f"**Time:** {facts['minutes']} minutes{more}. The cells together take {facts['seconds']} seconds."


def link(file: Path) -> str:
    """A link to a lesson, named by its heading up to a colon."""
    name = nbformat.read(file, as_version=4).cells[0].source.splitlines()[0].removeprefix("# ").partition(":")[0]
    return f"[{name}]({file.name})"


def links(file: Path) -> str:
    """One line with links to the lesson before, to the contents, and to the lesson after."""
    files = host.lessons(file.parents[1])
    place = files.index(file)
    before = [f"« {link(one)}" for one in files[max(0, place - 1) : place]]
    after = [f"{link(one)} »" for one in files[place + 1 : place + 2]]
    return " · ".join([*before, CONTENTS, *after])


def put(line: str, where: re.Pattern[str], text: str) -> str:
    """The text with this line where the pattern matches, or else at its end, as a paragraph."""
    return where.sub(lambda found: line, text) if where.search(text) else f"{text}\n\n{line}"


def stamp(notebook: Any, file: Path) -> None:
    """Write heading and time into the first cell, and the links into the first and the last."""
    facts = read(notebook)
    title, last = notebook.cells[0], notebook.cells[-1]
    title.source = re.sub(r"^# .*$", lambda found: heading(facts), title.source, count=1, flags=re.MULTILINE)
    title.source = put(links(file), LINKS, put(time(facts), TIME, title.source))
    last.source = put(links(file), LINKS, last.source)
