"""Runs that take too long for a lesson: what they measured and drew, and the recipe that made them.

`NAME.py` makes `NAME.csv` and `NAME.png`: `make recorded RUN=NAME`.
"""

import csv
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sdlearn.files import atomic_write
from sdlearn.pictures import from_images

FOLDER = Path(__file__).parent


def read_rows(name: str) -> list[dict[str, str]]:
    """The table of a recorded run, a dictionary for each row. Raises FileNotFoundError if there is no such run."""
    with (FOLDER / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def write_rows(file: Path, rows: list[dict[str, str]]) -> None:
    """Write what `read_rows` reads. The columns are those of the first row."""
    with atomic_write(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_picture(name: str) -> Image.Image:
    """What a recorded run drew. Raises FileNotFoundError if there is no such run."""
    with Image.open(FOLDER / f"{name}.png") as image:
        return image.convert("RGB")


def read_pictures(name: str, side: int = 64) -> Tensor:
    """The single pictures in what a recorded run drew: (rows, columns, 3, side, side) in [−1, 1].

    They are `side` pixels high and wide, and 2 pixels apart. Raises FileNotFoundError if there is no such run.
    """
    sheet, step = read_picture(name), side + 2
    rows = []
    for y in range(0, sheet.height, step):
        row = [sheet.crop((x, y, x + side, y + side)) for x in range(0, sheet.width, step)]
        rows.append(from_images(row, (side, side)))
    return torch.stack(rows)
