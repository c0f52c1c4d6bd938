"""Runs that take too long for a lesson: what they measured and drew, and the recipe that made them.

`NAME.py` makes `NAME.csv` and `NAME.png`: `make recorded RUN=NAME`.
"""

import csv
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).parent


def read_rows(name: str) -> list[dict[str, str]]:
    """The table of a recorded run, a dictionary for each row. Raises FileNotFoundError if there is no such run."""
    with (FOLDER / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def read_picture(name: str) -> Image.Image:
    """What a recorded run drew. Raises FileNotFoundError if there is no such run."""
    with Image.open(FOLDER / f"{name}.png") as image:
        return image.convert("RGB")
