"""A folder of the user's own pictures, with a caption for each."""

import csv
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from sdlearn.paths import expand
from sdlearn.pictures import on_white

NOT_PICTURES = {".txt", ".csv"}
NAMED = 20  # an error names this many files, and counts the rest
LARGEST = 64  # million pixels of a picture
LONGEST = 10_000  # signs of a caption, of which a text encoder reads about the first 300


@dataclass(frozen=True)
class Picture:
    """One of the user's pictures."""

    image: Tensor  # (3, H, W) uint8
    caption: str
    file: Path


class ImageFolder:
    """Pictures with captions: `pictures[index]` is a `Picture`, in the order of their names.

    Captions come from `captions.csv` in the folder (columns: file, caption) or, without one, from a .txt file next to
    each picture (cat.jpg, cat.txt). Every file that isn't hidden, .txt or .csv counts as a picture, in subfolders and
    linked folders too. Pictures are cropped to the square at their centre, resized to `size` pixels and kept in memory;
    transparent ones get a white background. With a `caption` all pictures have that one, and none is read.

    Raises FileNotFoundError for a missing folder; ValueError for one without pictures, and for pictures that are broken
    or too large, links to nothing, pictures without a caption, captions that are too long or without a picture. None is
    skipped.
    """

    def __init__(self, folder: str | Path, size: int = 64, caption: str | None = None) -> None:
        folder = expand(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
        if size < 1:
            raise ValueError(f"size={size}; accepted: 1 and above")
        files = sorted(_files(folder, set()))
        if not files:
            raise ValueError(f"{folder} holds no pictures; accepted: .png, .jpg, .webp and others that Pillow reads")
        captions = _captions(folder, files) if caption is None else dict.fromkeys(files, caption)

        self._pictures: list[Picture] = []
        unknown = sorted(set(captions) - set(files))
        problems = [f"{_name(file, folder)} (in captions.csv, but not in the folder)" for file in unknown]
        for file in files:
            said = captions.get(file, "")
            if caption is None and not said:
                problems.append(f"{_name(file, folder)} (no caption)")
            if len(said) > LONGEST:
                problems.append(f"{_name(file, folder)} (a caption of {len(said):,} signs, at most {LONGEST:,})")
            try:
                self._pictures.append(Picture(_read(file, size), said, file))
            except (OSError, ValueError) as error:
                problems.append(f"{_name(file, folder)} ({str(error).removeprefix(f'{file} ')})")
        if problems:
            more = f" and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
            raise ValueError(f"{len(problems)} problems in {folder}: {'; '.join(problems[:NAMED])}{more}")

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Picture:
        return self._pictures[index]


def open_picture(file: Path) -> Image.Image:
    """Read a picture from a file.

    Raises:
        OSError: it is missing, or can't be opened.
        ValueError: it isn't a picture, is damaged, or has too many pixels.
    """
    if file.is_symlink() and not file.exists():
        raise ValueError(f"{file} is a link that leads nowhere")
    if file.exists() and not (file.is_file() or file.is_dir()):  # reading a pipe might never end
        raise ValueError(f"{file} is a pipe or a device; accepted: files")
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file) as image:
            if image.width * image.height > LARGEST * 1e6:
                raise ValueError(f"{image.width} × {image.height} pixels, accepted are {LARGEST} million")
            image.load()
            return image
    except OSError as error:
        if error.filename:
            raise
        raise ValueError(f"{file} can't be read: {error}") from error
    except Exception as error:  # Pillow raises nearly anything for a damaged picture
        raise ValueError(f"{file} can't be read: {error or type(error).__name__}") from error


def _files(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Everything in a folder that should be a picture; seen: the folders that were read, for links that lead back."""
    if (here := folder.resolve()) in seen:
        return
    seen.add(here)
    for file in sorted(folder.iterdir()):
        if file.name.startswith("."):
            continue
        if file.is_dir():
            yield from _files(file, seen)
        elif file.suffix.lower() not in NOT_PICTURES:
            yield file


def _name(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.as_posix()


def _captions(folder: Path, files: list[Path]) -> dict[Path, str]:
    table = folder / "captions.csv"
    if not table.exists() and not table.is_symlink():
        texts = {file: file.with_suffix(".txt") for file in files}
        return {file: _text(text).strip() for file, text in texts.items() if text.exists()}
    try:
        return _from_table(table, folder)
    except csv.Error as error:
        raise ValueError(f"{table} can't be read: {error}") from error


def _from_table(table: Path, folder: Path) -> dict[Path, str]:
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
    if not file.is_file():
        raise ValueError(f"{file} is not a file")
    try:
        return file.read_bytes().decode("utf-8-sig")  # -sig: spreadsheets start a csv with a byte order mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} can't be read; accepted: text in UTF-8 ({error})") from error


def _read(file: Path, size: int) -> Tensor:
    square = ImageOps.fit(on_white(open_picture(file)), (size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()  # (H, W, 3) -> (3, H, W)
