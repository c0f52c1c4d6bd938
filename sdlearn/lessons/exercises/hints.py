"""The classic mistakes and the predictions of a lesson: text files in `hints`, and the parser that reads them.

    # 01.add_one_step @ equation (1)
    β is used where √β belongs: β is a variance, and what multiplies the noise is its root
        `+ beta.sqrt()` → `+ beta`

A line with # names the exercise, and after @ where to read. A line at the margin is the hint: what was confused. The
indented lines below it are the mistake, as changes of the package's source in the form that `ast.unparse` gives it,
without docstrings. Each text on the left occurs there exactly once; \\n is a new line.

    # predict 01.colour
    b
    a: why a is wrong
    c: why c is wrong

The line with nothing but a letter is the answer of a prediction. What follows its own letter, if there is such a line,
confirms it. Blank lines mean nothing.
"""

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "hints"
CHANGE = re.compile(r"`(.*)` → `(.*)`")


@dataclass(frozen=True)
class Bug:
    """A classic mistake. name: the hint. read: where to read, "equation (2)". changes: pairs (old, new) of texts."""

    name: str
    read: str
    changes: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Prediction:
    """A question with options: the right letter, and by letter why an option is wrong, or right."""

    id: str
    answer: str
    why: dict[str, str]

    @property
    def letters(self) -> list[str]:
        return sorted({self.answer, *self.why})


def read_hints(text: str) -> tuple[dict[str, list[Bug]], dict[str, Prediction]]:
    """The bugs by exercise and the predictions by id. Raises ValueError, with the line, for what can't be read."""
    bugs: dict[str, list[Bug]] = {}
    predictions: dict[str, Prediction] = {}
    section: list[Bug] | Prediction | None = None
    read = ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        if found := re.fullmatch(r"# predict (\d\d\.\w+)", line):
            section = predictions[found[1]] = Prediction(found[1], "", {})
        elif found := re.fullmatch(r"# (\d\d\.\w+) @ (.+)", line):
            section, read = bugs.setdefault(found[1], []), found[2]
        elif isinstance(section, Prediction) and (found := re.fullmatch(r"([a-z])", line)):
            section = predictions[section.id] = Prediction(section.id, found[1], section.why)
        elif isinstance(section, Prediction) and (found := re.fullmatch(r"([a-z]): (.+)", line)):
            section.why[found[1]] = found[2]
        elif isinstance(section, list) and section and (found := CHANGE.fullmatch(line.strip())) and line[0] == " ":
            change = tuple(one.replace("\\n", "\n") for one in found.groups())
            section[-1] = Bug(section[-1].name, read, (*section[-1].changes, change))
        elif isinstance(section, list) and line[0] not in " #":
            section.append(Bug(line, read, ()))
        else:
            raise ValueError(f"line {number} of the hints can't be read: {line}")
    return bugs, predictions


def lesson_hints(number: str, language: str = "en") -> tuple[dict[str, list[Bug]], dict[str, Prediction]]:
    """What the hints file of a lesson holds; nothing if there is no such file."""
    file = FOLDER / f"{number}.{language}.md"
    return read_hints(file.read_text(encoding="utf-8")) if file.is_file() else ({}, {})
