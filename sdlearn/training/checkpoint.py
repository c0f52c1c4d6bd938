"""Checkpoints: written so that one is always whole, read with care, and compared with the recipe that goes on."""

import os
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from sdlearn.files import atomic_write

# What a damaged file makes zipfile and torch.load raise. OSError: a damaged directory can make zipfile seek to before
# the file's beginning.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, pickle.UnpicklingError)
DAMAGE += (TypeError, LookupError, AttributeError)
PARTS = ("step", "parameters", "ema", "optimizer", "random")
ESSENTIAL = ("training.seed", "training.batch_size", "training.optimizer")  # with others it is another run


def save_checkpoint(file: Path, values: dict[str, Any]) -> None:
    """Write a checkpoint atomically. The one before it stays, so the disk needs room for three.

    The new one is flushed to the disk before it replaces the old one. Whenever the process is killed, one of the two is
    intact.
    """
    with atomic_write(file) as temporary:
        with temporary.open("wb") as stream:
            torch.save(values, stream)
            stream.flush()
            os.fsync(stream.fileno())
        if file.exists():
            file.replace(before(file))


def before(file: Path) -> Path:
    """The path of the checkpoint before the last one."""
    return file.with_stem(f"{file.stem}.previous")


def load_checkpoint(file: Path) -> dict[str, Any] | None:
    """Read the last checkpoint; None if there isn't one.

    If it is damaged, the one before replaces it, with a warning, and the damaged one is kept as `*.damaged`. A PyTorch
    file is a zip with a CRC-32 for each tensor. PyTorch doesn't check them, so we do it here.

    Raises:
        RuntimeError: it is damaged, and the one before is damaged or missing.
    """
    if not file.exists() and before(file).exists():  # killed while one replaced the other
        before(file).replace(file)
    if not file.exists():
        return None
    if not file.is_file():
        raise RuntimeError(f"{file} is not a file")
    with file.open("rb") as stream:  # a file that can't be opened isn't damaged: that error is the caller's
        try:
            if name := zipfile.ZipFile(stream).testzip():
                raise zipfile.BadZipFile(f"wrong checksum of {name}")
            stream.seek(0)
            return check(torch.load(stream, map_location="cpu", weights_only=True), PARTS)
        except DAMAGE as error:
            if not before(file).exists():
                raise RuntimeError(f"{file} is damaged and the only one left; remove it to start again") from error
            warnings.warn(f"{file} is damaged ({error}); training resumes from the checkpoint before it", stacklevel=2)
    file.replace(file.with_suffix(".damaged"))
    return load_checkpoint(file)


def check(values: Any, parts: Iterable[str]) -> dict[str, Any]:
    """Raises ValueError unless these are the values of a checkpoint, with these parts."""
    if not isinstance(values, dict) or not isinstance(values.get("step"), int):
        raise ValueError("it holds no training")
    if missing := [name for name in parts if name not in values]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    return values


def read_recipe_of(file: Path) -> tuple[dict[str, Any], int | None, list[Path]]:
    """The settings and the step of the last checkpoint that can be read, and those that can't be. Reads no tensors.

    Without a checkpoint: no settings, and no step.
    """
    damaged = []
    for one in (file, before(file)):
        if one.is_file():
            try:
                values = check(torch.load(one, map_location="cpu", weights_only=True, mmap=True), PARTS[:1])
                return dict(values.get("settings", {})), values["step"], damaged
            except DAMAGE:
                damaged.append(one)
    return {}, None, damaged


def compare(settings: Mapping[str, Any], stored: Mapping[str, Any], checkpoint: Path) -> list[str]:
    """What of the settings has changed since a checkpoint and may change: in `[training]` all but ESSENTIAL.

    Raises ValueError for any other change.
    """
    if not stored:
        raise ValueError(f"{checkpoint} lacks its recipe, so nobody can say whether it is this one; use another folder")
    changed, refused = [], []
    for name in sorted(settings.keys() | stored.keys()):
        was, now = stored.get(name), settings.get(name)
        if was != now:
            free = name.startswith("training.") and name not in ESSENTIAL
            (changed if free else refused).append(f"{name} was {was!r} and is {now!r}")
    if refused:
        raise ValueError(f"{checkpoint} is from another recipe: {', '.join(refused)}; use another folder")
    return changed


def check_recipe(settings: Mapping[str, Any], folder: Path) -> None:
    """Is the run in a folder one with these settings of a task? Better asked before anything is changed there.

    Raises ValueError if its checkpoint is from another recipe.
    """
    checkpoint, settings = folder / "checkpoint.pt", flatten(settings)
    stored, step, _ = read_recipe_of(checkpoint)
    if step is not None:
        compare(settings, {name: value for name, value in stored.items() if name in settings}, checkpoint)


def flatten(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one: {"model": {"width": 8}} -> {"model.width": 8}."""
    flat = {}
    for key, value in tables.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
