"""Trainings that are killed, files that are damaged, disks that are full, losses that are not finite."""

import json
import math
import os
import resource
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from interrupted import KILLED
from small import LINEAR, LinearTask, assert_same, assert_same_end, load, make, make_parts, read_log
from torch import Tensor, nn

import sdlearn.training.run as runs
from sdlearn.training.checkpoint import before, load_checkpoint, save_checkpoint
from sdlearn.training.loop import TrainConfig
from sdlearn.training.run import run

# --- killed and resumed ---

MOMENTS = 20


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """The folder that interrupted.py leaves."""
    root = tmp_path_factory.mktemp("runs")
    make_parts(root / "parts")
    script = Path(__file__).with_name("interrupted.py")
    command = [sys.executable, "-W", "ignore", str(script), str(root), str(MOMENTS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout.splitlines()[-1]) == dict.fromkeys(KILLED, -signal.SIGKILL), out.stderr
    return root


@pytest.fixture(scope="module")
def undisturbed(killed: Path) -> dict[str, Path]:
    """The same trainings, each in one go: made when they are first asked for."""
    return {}


@pytest.mark.parametrize("name", KILLED)
def test_killed_and_resumed_ends_with_the_same_bits(name: str, killed: Path, undisturbed: dict[str, Path]) -> None:
    kind, _, checkpoint = KILLED[name]
    if kind not in undisturbed:
        undisturbed[kind] = killed / f"undisturbed {kind}"
        task, config = make(kind, killed, undisturbed[kind])
        run(task, config, undisturbed[kind], progress=False)

    folder = killed / name
    assert not (folder / "model").exists()
    if checkpoint:
        assert load(folder)["step"] == checkpoint
    else:
        assert not (folder / "checkpoint.pt").exists()
    assert any(folder.glob("checkpoint.*.partial")) == (name == "while a checkpoint is written")

    task, config = make(kind, killed, folder)
    steps, loss = set(), task.loss
    task.loss = lambda network, step, rows: steps.add(step) or loss(network, step, rows)
    torch.manual_seed(99)  # the random state must come from the checkpoint
    if not checkpoint:
        torch.manual_seed(0)
        task, config = make(kind, killed, folder)
    run(task, config, folder, progress=False)

    assert not checkpoint or steps == set(range(checkpoint, config.steps))  # nothing is done twice
    assert_same_end(folder, undisturbed[kind])
    assert [int(row["step"]) for row in read_log(folder)] == list(range(1, config.steps + 1))


def test_killed_at_random_moments(killed: Path) -> None:
    left = [json.loads((killed / f"moment {number}.json").read_text()) for number in range(MOMENTS)]
    assert len({state["step"] for state in left}) >= 3, left  # they were spread over the run
    for number in range(MOMENTS):
        assert_same_end(killed / f"moment {number}", killed / "moments")


def test_killed_before_every_operation_on_a_file(killed: Path) -> None:
    notes = sorted(killed.glob("operation *.json"))
    left = [json.loads(note.read_text())["left"] for note in notes]
    assert len(notes) >= 20
    assert any("checkpoint.pt" not in names and "checkpoint.previous.pt" in names for names in left)
    for number in range(len(notes)):
        assert_same_end(killed / f"operation {number}", killed / "operations")


# --- damaged checkpoints ---


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> tuple[bytes, bytes]:
    """The last checkpoint of a run, of step 3, and the one before, of step 2."""
    folder = tmp_path_factory.mktemp("two")
    run(LinearTask(), TrainConfig(**LINEAR | {"steps": 3}), folder, progress=False)
    return (folder / "checkpoint.pt").read_bytes(), (folder / "checkpoint.previous.pt").read_bytes()


def lay(folder: Path, last: bytes, previous: bytes | None) -> Path:
    file = folder / "checkpoint.pt"
    file.write_bytes(last)
    before(file).unlink(missing_ok=True)
    if previous is not None:
        before(file).write_bytes(previous)
    return file


def flip(data: bytes, bit: int) -> bytes:
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("damaged")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**40))
@example(-400)  # the place of the zip's directory: the reader is sent before the beginning of the file
def test_a_flipped_bit_is_noticed_or_changes_nothing(two: tuple[bytes, bytes], folder: Path, position: int) -> None:
    last, previous = two
    damaged = flip(last, position % (8 * len(last)))
    file = lay(folder, damaged, previous)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        values = load_checkpoint(file)
    kept = len(caught) == 0
    assert values["step"] == (3 if kept else 2)
    assert_same(values, torch.load(lay(folder, last if kept else previous, None), weights_only=True))
    if not kept:
        assert [str(w.message).split(" (")[0] for w in caught] == [f"{file} is damaged"]
        assert not before(file).exists()
        assert file.with_suffix(".damaged").read_bytes() == damaged


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**40))
def test_a_cut_file_is_noticed(two: tuple[bytes, bytes], folder: Path, length: int) -> None:
    last, previous = two
    file = lay(folder, last[: length % len(last)], previous)
    with pytest.warns(UserWarning, match=r"checkpoint.pt is damaged .*; training resumes from the checkpoint before"):
        assert load_checkpoint(file)["step"] == 2


def test_a_flipped_bit_of_a_parameter_is_noticed(two: tuple[bytes, bytes], folder: Path) -> None:
    last, previous = two
    weight = torch.load(lay(folder, last, None), weights_only=True)["parameters"][0]
    place = last.index(weight.numpy().tobytes())
    for byte in range(place, place + 4 * weight.numel()):
        file = lay(folder, flip(last, 8 * byte + byte % 8), previous)
        with pytest.warns(UserWarning, match="wrong checksum of"):
            assert load_checkpoint(file)["step"] == 2


def test_a_run_goes_on_from_the_checkpoint_before(two: tuple[bytes, bytes], tmp_path: Path) -> None:
    config = TrainConfig(**LINEAR | {"steps": 3})
    run(LinearTask(), config, tmp_path / "once", progress=False)
    file = lay(tmp_path, flip(two[0], 4 * len(two[0])), two[1])
    with pytest.warns(UserWarning, match="is damaged"):
        run(LinearTask(), config, tmp_path, progress=False)
    assert_same(load(tmp_path), load(tmp_path / "once"))
    assert load_checkpoint(before(file))["step"] == 2  # not the damaged one


@pytest.mark.parametrize("previous", [None, b"", b"PK no zip"])
def test_no_checkpoint_is_whole(two: tuple[bytes, bytes], previous: bytes | None, tmp_path: Path) -> None:
    """Then the run doesn't quietly begin anew."""
    file = lay(tmp_path, two[0][:-100], previous)
    with (
        warnings.catch_warnings(action="ignore"),
        pytest.raises(RuntimeError, match=r"checkpoint.pt is damaged and the only one left; remove it to start again"),
    ):
        run(LinearTask(), TrainConfig(**LINEAR), tmp_path, progress=False)
    assert file.exists()


@pytest.mark.parametrize("values", [[1], {"step": "x"}, {"step": 3}, None, {"step": 3, "settings": {}}])
def test_a_file_that_is_no_checkpoint(values: Any, tmp_path: Path) -> None:
    torch.save(values, tmp_path / "checkpoint.pt")
    with (
        warnings.catch_warnings(action="ignore"),
        pytest.raises(RuntimeError, match=r"checkpoint.pt is damaged and the"),
    ):
        run(LinearTask(), TrainConfig(**LINEAR), tmp_path, progress=False)


def test_pipes_in_the_place_of_files(two: tuple[bytes, bytes], tmp_path: Path) -> None:
    """Reading them would never end."""
    os.mkfifo(tmp_path / "checkpoint.pt")
    with pytest.raises(RuntimeError, match=r"checkpoint.pt is not a file"):
        run(LinearTask(), TrainConfig(**LINEAR), tmp_path, progress=False)
    (tmp_path / "checkpoint.pt").unlink()
    lay(tmp_path, *two)
    os.mkfifo(tmp_path / "log.csv")
    with pytest.raises(ValueError, match=r"log.csv is not as the training wrote it"):
        run(LinearTask(), TrainConfig(**LINEAR | {"steps": 3}), tmp_path, progress=False)


# --- full disks ---


def test_checkpoints_are_atomic(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "checkpoint.pt"
    save_checkpoint(file, {"step": 1})

    def fail(state: dict[str, Any], stream: Any) -> None:
        stream.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(runs.torch, "save", fail)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(file, {"step": 2})
    assert torch.load(file, weights_only=True) == {"step": 1}
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_stops_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    """A limit on the size of files fails as a full disk does: in the midst of writing."""
    values = LINEAR | {"decay_steps": 0}
    run(LinearTask(), TrainConfig(**values), tmp_path / "once", progress=False)

    folder = tmp_path / "twice"
    run(LinearTask(), TrainConfig(**values | {"steps": 4}), folder, progress=False)
    files = {file: file.read_bytes() for file in folder.glob("*.pt")}
    assert len(files) == 2
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        with pytest.raises(OSError) as caught:
            run(LinearTask(), TrainConfig(**values), folder, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value) == f"[Errno 27] File too large: '{folder / 'checkpoint.pt'}'"
    assert {file: file.read_bytes() for file in folder.glob("checkpoint*")} == files
    run(LinearTask(), TrainConfig(**values), folder, progress=False)
    assert_same(load(folder), load(tmp_path / "once"))


@pytest.mark.parametrize("limit", [0, 100, 2000])
def test_a_disk_that_is_full_from_the_start(limit: int, tmp_path: Path) -> None:
    """Whichever file is the first that can't be written, it is named, and what was there stays whole."""
    for begun in (False, True):
        folder = tmp_path / str(begun)
        if begun:
            run(LinearTask(), TrainConfig(**LINEAR | {"steps": 4}), folder, progress=False)
        files = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with (
                warnings.catch_warnings(action="ignore"),
                pytest.raises(OSError, match=rf"File too large: '{folder}/\w"),
            ):
                run(LinearTask(), TrainConfig(**LINEAR), folder, progress=False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert {file: file.read_bytes() for file in folder.glob("*.pt")} == {
            file: data for file, data in files.items() if file.suffix == ".pt"
        }
        assert not list(folder.rglob("*.partial")) and not (folder / "run.lock").exists()


# --- losses that are not finite ---


@pytest.mark.parametrize("checkpoint_every", [2, 7])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops(checkpoint_every: int, bad: float, tmp_path: Path) -> None:
    """At once, whatever the log and the checkpoints wait for; the checkpoint before stays good."""
    config = TrainConfig(**LINEAR | {"steps": 40, "log_every": 20, "checkpoint_every": checkpoint_every})
    with pytest.raises(RuntimeError, match=rf"the loss is {bad} at step 9; .*checkpoint.pt stays as it was"):
        run(poisoned(lambda loss: loss + bad), config, tmp_path, progress=False)
    assert_good_until(8 // checkpoint_every * checkpoint_every, tmp_path)
    run(LinearTask(), config, tmp_path, progress=False)  # can be resumed
    assert load(tmp_path)["step"] == 40


def test_a_gradient_that_is_not_finite_stops(tmp_path: Path) -> None:
    """The loss may still be finite: √0 has the slope ∞. At the latest a checkpoint notices it."""
    config = TrainConfig(**LINEAR | {"steps": 9, "checkpoint_every": 3})
    with pytest.raises(RuntimeError, match=r"a parameter is not finite at step 9; .*checkpoint.pt stays as it was"):
        run(poisoned(lambda loss: loss + (0 * loss).sqrt()), config, tmp_path, progress=False)
    assert_good_until(6, tmp_path)


def poisoned(spoil: Callable[[Tensor], Tensor]) -> LinearTask:
    """A task with something wrong with the loss of its ninth step."""
    task = LinearTask()
    good = task.loss

    def loss(network: nn.Module, step: int, rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        value, numbers = good(network, step, rows)
        return (spoil(value) if step == 8 else value), numbers

    task.loss = loss
    return task


def assert_good_until(step: int, folder: Path) -> None:
    state = load(folder)
    assert state["step"] == step
    assert all(parameter.isfinite().all() for parameter in state["parameters"] + state["ema"])
    assert not (folder / "model").exists()
