"""The passport: a folder that keeps what a learner has written and got right.

An answer is kept as a file, `01.add_noise.py`. It counts as right only as long as its text is the one that was judged:
`judged.json` holds the digests of the texts that were green. A file that was edited since, or put there by somebody,
counts once it has been judged again.
"""

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sdlearn.files import atomic_write, read_json
from sdlearn.lessons.exercises.exercise import Exercise
from sdlearn.lessons.exercises.judge import NOT_WRITTEN, Verdict, assess, in_one_line
from sdlearn.lessons.exercises.registry import EXERCISES
from sdlearn.lessons.exercises.source import own_source, run_source
from sdlearn.paths import expand

PATIENCE = 60.0  # seconds for a process that judges an answer; most of them are for importing torch on a slow computer

LARGEST = 1_000_000  # bytes of an answer

GREEN: dict[str, Any] = {}  # the answers whose last check in this session was green, by id


def passport_folder() -> Path:
    """Where correct answers are kept: $SDLEARN_PASSPORT, else sdlearn/passport in $XDG_DATA_HOME or ~/.local/share."""
    if folder := os.environ.get("SDLEARN_PASSPORT"):
        return expand(folder)
    return expand(os.environ.get("XDG_DATA_HOME") or "~/.local/share") / "sdlearn" / "passport"


def answers_in(folder: Path) -> dict[str, Path]:
    """The files of answers by the ids of their exercises, in the registry's order. Other files are left alone."""
    return {id: folder / f"{id}.py" for id in EXERCISES if (folder / f"{id}.py").is_file()}


def remembered() -> list[str]:
    """The ids of the exercises whose answers in the passport are right: judged, and not edited since."""
    folder = passport_folder()
    digests = judged_in(folder)
    return [id for id, file in answers_in(folder).items() if digests.get(id) == digest(file.read_bytes())]


def kept() -> dict[str, Any]:
    """What the right answers in one's own passport define, by id. One that no longer runs is left out."""
    found = {}
    for id in remembered():
        with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
            found[id] = run_source(read_answer(passport_folder() / f"{id}.py")[0])
    return found


def judged_in(folder: Path) -> dict[str, Any]:
    """The digests of the answers that were judged right, by id. A damaged list is an empty one."""
    try:
        return read_json(folder / "judged.json")
    except (OSError, ValueError, RecursionError):
        return {}


def read_answer(file: Path) -> tuple[str, bytes]:
    """The text of an answer, perhaps with a byte-order mark before it or with the line ends of Windows, and its bytes.

    Raises OSError or ValueError if it can't be read.
    """
    if file.stat().st_size > LARGEST:
        raise ValueError(f"{file.name} has more than {LARGEST:,} bytes")
    data = file.read_bytes()
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig").read(), data


def digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def set_judged(folder: Path, id: str, text: bytes | None) -> None:
    """Note down that this text was judged right, or with None that the answer isn't."""
    digests = {key: value for key, value in judged_in(folder).items() if key != id}
    if text is not None:
        digests[id] = digest(text)
    with atomic_write(folder / "judged.json") as temporary:
        temporary.write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")


def remember(exercise: Exercise, mine: Any) -> str:
    """Keep the source of a correct answer in the passport. Returns why that can't be done, or an empty text."""
    found = own_source(mine)
    if found is None:
        return "it has no source text; write it as a function or class with a name"
    text, missing = found
    verdict = judge_source(exercise, text)
    if not verdict.green:
        uses = ", ".join(sorted(missing))
        return (
            f"it uses {uses}, which the cell doesn't define"
            if missing
            else f"run by itself, it isn't right: {verdict.text}"
        )
    folder, data = passport_folder(), text.encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / f"{exercise.id}.py") as temporary:
            temporary.write_bytes(data)
        set_judged(folder, exercise.id, data)
    except OSError as error:
        return f"it can't be written to {folder}: {error.strerror}"
    return ""


def judge_source(exercise: Exercise, text: str) -> Verdict:
    """Run a remembered source by itself and assess what it defines. What it prints is not shown."""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            mine = run_source(text)
        except SystemExit:
            return Verdict("✘", "it ends the program: remove exit() or quit()")
        except Exception as error:
            return Verdict("✘", in_one_line(error))
        return assess(exercise, mine)


def judge_folder(folder: Path, seconds: float = PATIENCE) -> Iterator[tuple[Exercise, Verdict, str]]:
    """Each exercise, the verdict on the answer in the folder, and its text. Runs each answer in a process of its own.

    Notes down in the folder which of them are right, if it can be written to.
    """
    files = answers_in(folder)
    for id, exercise in EXERCISES.items():
        if id not in files:
            yield exercise, NOT_WRITTEN, ""
            continue
        try:
            text, data = read_answer(files[id])
        except (OSError, ValueError) as error:
            yield exercise, Verdict("✘", f"{files[id]} can't be read: {in_one_line(error)}"), ""
            continue
        answer = in_a_process(judge_by_id, id, text, seconds=seconds)
        verdict = (
            Verdict(*answer) if answer else Verdict("✘", "its process ended without a verdict, or ran for too long")
        )
        with contextlib.suppress(OSError):
            set_judged(folder, id, data if verdict.green else None)
        yield exercise, verdict, text


def judge_by_id(id: str, text: str) -> tuple[str, str]:
    verdict = judge_source(EXERCISES[id], text)
    return verdict.mark, verdict.text


def in_a_process(work: Callable[..., Any], *inputs: Any, seconds: float) -> Any:
    """What work(*inputs) returns, run in a process of its own; None if that ends without a result or takes too long.

    The process is forked from a server that has imported torch, where the platform can do that; else it is started.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload([__name__])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send_result, args=(sender, work, inputs), daemon=True)
    process.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(seconds) else None
    except EOFError:  # it ended without sending anything
        return None
    finally:
        process.kill()
        process.join()
        receiver.close()


def send_result(sender: Connection, work: Callable[..., Any], inputs: tuple[Any, ...]) -> None:
    """In the process: do the work in silence, and send its result."""
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
    sender.send(work(*inputs))
