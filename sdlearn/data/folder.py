"""A folder of the user's own pictures, with a caption for each."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from sdlearn.pictures import on_white

NOT_PICTURES = {".txt", ".csv"}
NAMED = 20  # an error names this many files, and counts the rest


@dataclass(frozen=True)
class Picture:
    """One of the user's pictures."""

    image: Tensor  # (3, H, W) uint8
    caption: str
    file: Path


class ImageFolder:
    """Pictures with captions: `pictures[index]` is a `Picture`, in the order of their names.

    Captions come from `captions.csv` in the folder (columns: file, caption) or, without one, from a .txt file next to
    each picture (cat.jpg, cat.txt). Every file that isn't hidden, .txt or .csv counts as a picture, in subfolders too.
    Pictures are cropped to the square at their centre, resized to `size` pixels and kept in memory; transparent ones
    get a white background. With a `caption` all pictures have that one, and none is read.

    Raises FileNotFoundError for a missing folder; ValueError for one without pictures, and for broken pictures,
    pictures without a caption and captions without a picture. None is skipped.
    """

    def __init__(self, folder: str | Path, size: int = 64, caption: str | None = None) -> None:
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
        if size < 1:
            raise ValueError(f"size={size}; accepted: 1 and above")
        files = sorted(f for f in folder.rglob("*") if f.is_file() and _is_picture(f.relative_to(folder)))
        if not files:
            raise ValueError(f"{folder} holds no pictures; accepted: .png, .jpg, .webp and others that Pillow reads")
        captions = _captions(folder, files) if caption is None else dict.fromkeys(files, caption)

        self._pictures: list[Picture] = []
        unknown = sorted(set(captions) - set(files))
        problems = [f"{_name(file, folder)} (in captions.csv, but not in the folder)" for file in unknown]
        for file in files:
            if caption is None and not captions.get(file):
                problems.append(f"{_name(file, folder)} (no caption)")
            try:
                self._pictures.append(Picture(_read(file, size), captions.get(file, ""), file))
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow raises
                problems.append(f"{_name(file, folder)} (can't be read: {error})")
        if problems:
            more = f" and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
            raise ValueError(f"{len(problems)} problems in {folder}: {'; '.join(problems[:NAMED])}{more}")

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Picture:
        return self._pictures[index]


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() not in NOT_PICTURES and not any(part.startswith(".") for part in file.parts)


def _name(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.as_posix()


def _captions(folder: Path, files: list[Path]) -> dict[Path, str]:
    table = folder / "captions.csv"
    if not table.exists():
        texts = {file: file.with_suffix(".txt") for file in files}
        return {file: _text(text).strip() for file, text in texts.items() if text.exists()}
    reader = csv.DictReader(io.StringIO(_text(table), newline=""))
    if not {"file", "caption"} <= set(reader.fieldnames or ()):
        raise ValueError(f"{table} has the columns {reader.fieldnames}; accepted: file, caption")
    captions: dict[Path, str] = {}
    for row in reader:
        file = folder / (row["file"] or "").strip()
        if file in captions:
            raise ValueError(f"{table} names {row['file']} twice")
        captions[file] = (row["caption"] or "").strip()
    return captions


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")  # -sig: spreadsheets start a csv with a byte order mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} can't be read; accepted: text in UTF-8 ({error})") from error


def _read(file: Path, size: int) -> Tensor:
    with Image.open(file) as image:
        square = ImageOps.fit(on_white(image), (size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()  # (H, W, 3) -> (3, H, W)
