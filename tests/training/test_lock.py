"""Two trainings in one folder: the second is refused, however the first ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small import LINEAR, LinearTask

from sdlearn.training import lock as locks
from sdlearn.training.lock import lock
from sdlearn.training.loop import TrainConfig
from sdlearn.training.run import run

HOLD = """
import sys
from pathlib import Path
from sdlearn.training.lock import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def another(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds a folder, until its stdin ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("end", ["killed", "ended"])
def test_one_at_a_time(end: str, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with another(folder) as process:
        for _ in range(2):
            with pytest.raises(
                RuntimeError, match=rf"another run is training in {folder}; stop it, or use another folder"
            ):
                run(LinearTask(), TrainConfig(**LINEAR), folder, progress=False)
        assert [file.name for file in folder.iterdir()] == ["run.lock"]
        if end == "killed":
            process.send_signal(signal.SIGKILL)
        else:
            process.stdin.close()
        process.wait()
    run(LinearTask(), TrainConfig(**LINEAR), folder, progress=False)
    assert not (folder / "run.lock").exists()


def test_blocks_can_be_nested_and_leave_nothing(tmp_path: Path) -> None:
    with lock(tmp_path), lock(tmp_path / "." / "."):
        assert [file.name for file in tmp_path.iterdir()] == ["run.lock"]
    assert list(tmp_path.iterdir()) == [] and not locks.HELD
    with pytest.raises(KeyError), lock(tmp_path):
        raise KeyError
    assert list(tmp_path.iterdir()) == [] and not locks.HELD


def test_a_file_that_was_removed_in_the_meantime_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits may get hold of the file of a run that has just ended, which the next one wouldn't see."""
    open_file, opened = os.open, []

    def open_late(*arguments: object) -> int:
        descriptor = open_file(*arguments)
        opened.append(descriptor)
        if len(opened) == 1:
            (tmp_path / "run.lock").unlink()
        return descriptor

    monkeypatch.setattr(locks.os, "open", open_late)
    with lock(tmp_path):
        assert len(opened) == 2 and os.path.samestat(os.fstat(opened[1]), (tmp_path / "run.lock").stat())


def test_where_nothing_can_be_locked_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="can't be locked .Function not implemented.: start no second run there"):
        run(LinearTask(), TrainConfig(**LINEAR), tmp_path, progress=False)


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/run")):
        with pytest.raises(OSError):
            run(LinearTask(), TrainConfig(**LINEAR), folder, progress=False)
