"""Paths as people write them."""

from pathlib import Path


def expand(text: str | Path) -> Path:
    """A path in which ~ is the home folder, also where no shell has seen it. Raises ValueError if there is none."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{text}: there is no such home folder") from error
