"""A lock on a run's folder: two trainings in one folder would overwrite each other's files."""

import errno
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

OTHERS = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)  # what a system reports of a lock that another process holds
HELD: set[Path] = set()  # the folders that this process holds


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a folder while the block runs; it is made if it isn't there. Blocks of one process may be nested.

    The system lets go of it when the process ends, however it ends.

    Raises:
        OSError: the folder can't be made, or not be written to.
        RuntimeError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (here := folder.resolve()) in HELD:
        yield
        return
    file = folder / "run.lock"
    descriptor = take(file)
    HELD.add(here)
    try:
        yield
    finally:
        HELD.remove(here)
        with suppress(OSError):  # Windows removes no file that is open, and a lock that stays does no harm
            file.unlink()
        os.close(descriptor)


def take(file: Path) -> int:
    """Create a file, lock it, and return its descriptor, until it is closed."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if sys.platform == "win32":
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
                return descriptor
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in OTHERS:
                os.close(descriptor)
                raise RuntimeError(
                    f"another run is training in {file.parent}; stop it, or use another folder"
                ) from None
            warnings.warn(f"{file.parent} can't be locked ({error.strerror}): start no second run there", stacklevel=3)
            return descriptor
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                return descriptor
        os.close(descriptor)  # the run that held it has just ended, and removed the file
