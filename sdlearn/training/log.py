"""The log of a training run, `log.csv`: how it is written, and how it is read, also after a spreadsheet had it."""

import csv
import re
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from sdlearn.files import atomic_write

if TYPE_CHECKING:
    from sdlearn.training.loop import TrainStep

COLUMNS = ("step", "loss", "learning_rate", "gradient_norm", "images_per_second")


class Log:
    """A CSV file with one row for every `log_every` steps; rows after the resumed step are dropped.

    The first row after a resumed step averages over fewer steps, unless a checkpoint was due with the row before.
    Raises ValueError if the file isn't as it was written.
    """

    def __init__(self, file: Path, resumed_step: int) -> None:
        self.file = file
        self.rows: list[dict[str, Any]] = []
        if resumed_step and file.exists():
            self.rows = [row for row in written_rows(file) if int(row["step"]) <= resumed_step]

    def write(self, row: dict[str, Any]) -> None:
        """Add a row. The file is rewritten atomically."""
        self.rows.append(row)
        with atomic_write(self.file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(row))
            writer.writeheader()
            writer.writerows(self.rows)


def written_rows(file: Path) -> list[dict[str, str]]:
    """The rows of a log as `Log` wrote it. Raises ValueError if it was changed since."""
    try:
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        header, *rows = csv.reader(text.splitlines())
        if not text.endswith("\n"):
            raise ValueError("the last line is cut off")
        if tuple(header[:2]) != COLUMNS[:2]:
            raise ValueError(f"the columns are {header}")
        for row in rows:
            for name, cell in zip(header, row, strict=True):
                (int if name == "step" else float)(cell)  # raises ValueError
    except (ValueError, csv.Error) as error:
        raise ValueError(
            f"{file} is not as the training wrote it; was it saved by a spreadsheet? Put the original back, or move it "
            "away: then a new one begins, and the training itself goes on from its checkpoint"
        ) from error
    return [dict(zip(header, row, strict=True)) for row in rows]


def summary(steps: list["TrainStep"], batch_size: int, seconds: float) -> dict[str, Any]:
    """The log's row for these steps: the mean of their losses, and the other numbers of the last one."""
    last = steps[-1]
    row = {"step": last.step, "loss": f"{fmean(step.loss for step in steps):.5f}"}
    row |= {"learning_rate": f"{last.learning_rate:.3g}", "gradient_norm": f"{last.gradient_norm:.3f}"}
    row |= {"images_per_second": f"{len(steps) * batch_size / seconds:.1f}"}
    return row | {name: f"{value:.5f}" for name, value in last.numbers.items()}


# --- reading what may have been changed ---


def read_log(file: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """The columns of a log, and remarks on what a spreadsheet or an interruption did to it.

    Raises ValueError if it isn't a log, or not to be understood; the message names the line.
    """
    text, remarks = decode(file), []
    lines = [(place, line) for place, line in enumerate(text.splitlines(), start=1) if line.strip(" ,;\t")]
    if lines and lines[0][1].lower().startswith("sep="):  # a note from one spreadsheet to the next
        del lines[0]
    if not lines:
        raise ValueError(f"{file} is empty: the run has not written a row, or the file was cleared")
    separator = max(",;\t", key=lines[0][1].count)
    if separator != ",":
        remarks.append("Its columns are separated as a spreadsheet does it; the log was read all the same.")
    try:
        cells = [(place, next(csv.reader([line], delimiter=separator))) for place, line in lines]
    except csv.Error as error:
        raise ValueError(f"{file} can't be read: {error}") from error
    header = [name.strip() for name in cells.pop(0)[1]]
    if missing := [name for name in COLUMNS[:2] if name not in header]:
        raise ValueError(f"{file} has no column {' and no column '.join(missing)}: it is not the log of a training run")
    if cells and len(cells[-1][1]) < len(header):
        cells.pop()
        remarks.append("The last line is cut off; it was left out.")
    elif cells and not text.endswith(("\n", "\r")):
        cells.pop()
        remarks.append("The last line has no end and may be cut off; it was left out.")
    if not cells:
        raise ValueError(f"{file} has no complete row, only the names of its columns")
    rows: list[dict[str, float]] = []
    for place, row in cells:
        if len(row) != len(header):
            raise ValueError(f"{file}, line {place}: it has {len(row)} columns, the first line has {len(header)}")
        named = dict(zip(header, row, strict=True))
        rows.append({name: read_number(named.get(name, "").strip(), name, f"{file}, line {place}") for name in COLUMNS})
        if len(rows) > 1 and rows[-1]["step"] <= rows[-2]["step"]:
            steps = f"step {rows[-1]['step']} comes after step {rows[-2]['step']}"
            raise ValueError(f"{file}, line {place}: {steps}; were lines sorted, or two logs joined?")
    check_points(file, [dict(zip(header, row, strict=True))["loss"] for _, row in cells])
    return {name: np.array([row[name] for row in rows]) for name in COLUMNS}, remarks


def decode(file: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 as spreadsheets write it, with or without a byte-order mark.

    Raises ValueError if it is neither.
    """
    data = file.read_bytes()
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not text: {error}") from error
    if "\0" in text:
        raise ValueError(f"{file} is not text: it holds zero bytes")
    return text


def read_number(text: str, name: str, place: str) -> float:
    """A cell as a number; a decimal comma counts as a point. Raises ValueError for what is neither."""
    if name == "step":
        if match := re.fullmatch(r"(\d+)([.,]0)?", text):
            return int(match[1])
        raise ValueError(f"{place}: step = {text!r} is not a whole number; was the file changed with a spreadsheet?")
    if not text and name != "loss":
        return np.nan
    try:
        return float(text.replace(",", "."))
    except ValueError as error:
        raise ValueError(
            f"{place}: {name} = {text!r} is not a number; was the file changed with a spreadsheet?"
        ) from error


def check_points(file: Path, losses: list[str]) -> None:
    """Raises ValueError if the losses have lost their decimal points, as 0.81234 that became 81234."""
    whole = [text for text in losses if re.fullmatch(r"\d{3,}", text)]
    if len(whole) > len(losses) / 2:
        raise ValueError(f"{file}: losses such as {whole[0]} have lost their decimal point; a spreadsheet does that")
