"""What all command lines of the package share: errors in one line, and streams that work wherever they lead."""

import codecs
import io
import os
import sys
import traceback
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

import typer

from sdlearn.paths import expand

PLAIN = {"○": "o", "✔": "+", "✘": "x", "…": "...", "–": "-", "−": "-", "×": "x"}  # for consoles that lack these


def call(app: typer.Typer) -> NoReturn:
    """Run a command line. An error is one line on stderr, and the exit status is 1, or 2 for a wrong command line.

    With --debug, which may stand anywhere before "--", the traceback comes before that line.
    """
    mend_streams()
    arguments = sys.argv[1:]
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if debug := "--debug" in options:
        arguments.remove("--debug")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: tell("warning", str(message))
            status = app(arguments, standalone_mode=False)
            sys.stdout.flush()
    except Exception as error:
        if debug:
            traceback.print_exception(error)
        message, status = describe(error)
        tell("error", message)
        close_stdout()
    sys.exit(status)


class Forgiving(io.TextIOWrapper):
    """A stream that goes on when its disk is full or its reader is gone: no picture is lost for a progress bar."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def tell(kind: str, message: str) -> None:
    """Print a message on stderr, in one line."""
    print(f"{kind}:", " ".join(message.split()), file=sys.stderr, flush=True)


def describe(error: BaseException) -> tuple[str, int]:
    """What a user is told about an error, and the exit status."""
    if isinstance(error, typer.TyperException):
        return error.format_message(), error.exit_code
    if isinstance(error, typer.Abort):  # no answer to a question
        return "stopped", 1
    if isinstance(error, OSError):
        return f"{error.strerror}: {error.filename}" if error.filename else str(error) or type(error).__name__, 1
    if isinstance(error, ValueError | RuntimeError | ImportError) and str(error):
        return str(error), 1
    if isinstance(error, MemoryError):
        return f"the memory is not enough. {error}", 1
    return f"{type(error).__name__}: {error} (this was not foreseen; with --debug you see where it happened)", 1


def mend_streams() -> None:
    """A stream that is closed leads nowhere; and what a console can't show is written in plain letters."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    if sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = Forgiving(sys.stderr.buffer, encoding=sys.stderr.encoding, line_buffering=True)
    codecs.register_error("plainly", plainly)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="plainly")


def plainly(error: UnicodeError) -> tuple[str, int]:
    """An error handler for codecs, like "backslashreplace", with better signs for those that we print."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(PLAIN.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in signs), error.end


def close_stdout() -> None:
    """What stdout can't take is given up: Python would try to write it once more when it ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def path(text: str) -> Path:
    """The path that an option names. Raises typer.BadParameter if its home folder doesn't exist."""
    try:
        return expand(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def model_name(text: str) -> str:
    """A model's name as it is, and a path in the home folder with that folder's name."""
    return str(path(text)) if text.startswith("~") else text


PathOption = partial(typer.Option, parser=path)
PathArgument = partial(typer.Argument, parser=path)


def prepare(output: Path) -> None:
    """Create the folder for a picture and check its name: better now than after minutes of work.

    Raises ValueError for a name that doesn't end in .png, OSError for a folder that can't be made or written to.
    """
    if output.suffix.lower() != ".png":
        raise ValueError(f"the output must be a .png file, not {output}")
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.is_dir() or not os.access(output.parent, os.W_OK):
        raise OSError(f"can't write {output}")
