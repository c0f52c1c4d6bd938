"""Writing files atomically, and reading texts and JSON."""

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """An atomic write: yields a temporary name next to `file`; what was written there becomes `file` at the end.

    If the block fails, the old file stays and nothing else is left behind. The temporary name is nobody else's, so
    that several processes can write the same file: the last one wins. Whoever may read other new files may read it.

    Raises:
        OSError: the file can't be written, for example because the disk is full; it names `file`.
    """
    temporary = file.with_name(f"{file.stem[:40]}.{secrets.token_hex(4)}.partial")
    try:
        with temporary.open("x"):  # it is made here, or the name is somebody's
            mode = temporary.stat().st_mode
        try:
            yield temporary
            if temporary.stat().st_mode != mode:
                temporary.chmod(mode)  # some libraries make their files for the owner alone
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
    except Exception as error:
        reason = system_error(error)
        if reason is None or reason.filename not in (None, str(temporary), temporary):
            raise
        raise OSError(reason.errno, reason.strerror, str(file)) from error


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left of atomic writes in a folder and below. Nobody may be writing there."""
    for file in folder.rglob("*.partial"):
        if re.fullmatch(r".+\.[0-9a-f]{8}\.partial", file.name):
            file.unlink(missing_ok=True)


def system_error(error: BaseException) -> OSError | None:
    """The operating system's error, where a library reports it in its own words, or None."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    if code := re.search(r"\(os error (\d+)\)", str(error)):  # safetensors is written in Rust
        return OSError(int(code[1]), os.strerror(int(code[1])))
    hidden = error.__context__ if isinstance(error, RuntimeError) else None  # PyTorch's writer hides the first error
    return hidden and system_error(hidden)


def parse_int(digits: str) -> int | float:
    """A whole number of a JSON file. One that is too large for any tensor becomes a float, which no size may be."""
    return int(digits) if len(digits) <= 18 else float(digits)


def read_text(file: Path) -> str:
    """Read a text in UTF-8, with or without a byte order mark.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no text in UTF-8.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}")
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not a text in UTF-8: {error}") from error


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, or not an object.
    """
    text = read_text(file)
    try:
        values = json.loads(text, parse_int=parse_int)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not a JSON file: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file} holds {type(values).__name__}, must hold an object")
    return values


def shown(value: Any) -> str:
    """A value from a file as messages show it: on one line, without control characters, at most 100 characters."""
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 100 else f"{text[:99]}…"


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
