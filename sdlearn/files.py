"""Writing files, whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(file: Path, *, shared: bool = False) -> Iterator[Path]:
    """A temporary name beside `file` to write under; what was written becomes `file` when the block ends.

    If the block fails, the old file stays and nothing else is left. shared: other processes may write the same file at
    the same time, so each gets a name of its own.
    """
    temporary = file.with_name(f"{file.stem}.{os.getpid()}.partial" if shared else f"{file.stem}.partial")
    try:
        yield temporary
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
