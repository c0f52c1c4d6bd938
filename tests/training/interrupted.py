"""Runs that are killed, in processes of their own, forked since starting PyTorch takes seconds.

`python interrupted.py FOLDER COUNT` leaves in FOLDER:
- each scenario of KILLED, as SIGKILL left it;
- `moment N`, N < COUNT: killed at a random moment, then finished by another process;
- `operation N`: killed before its Nth operation on a file, then finished by another process;
- `moments` and `operations`: the same runs, undisturbed.
"""

import io
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from small import LINEAR, LinearTask, make

import sdlearn.training.run as runs
from sdlearn.training.loop import TrainConfig
from sdlearn.training.run import run


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_step(kind: str, step: int) -> Callable[[Path, Path], None]:
    """Dies when the loss of this step, counted from 0, is asked for."""

    def work(root: Path, folder: Path) -> None:
        task, config = make(kind, root, folder)
        loss = task.loss
        task.loss = lambda network, now, rows: die() if now == step else loss(network, now, rows)
        run(task, config, folder, progress=False)

    return work


def in_checkpoint(kind: str, step: int) -> Callable[[Path, Path], None]:
    """Dies when half of the checkpoint of this step is written."""

    def work(root: Path, folder: Path) -> None:
        task, config = make(kind, root, folder)
        save = torch.save

        def save_half(state: dict[str, Any], stream: io.BufferedWriter) -> None:
            whole = io.BytesIO()
            save(state, whole)
            stream.write(whole.getvalue()[: len(whole.getvalue()) // 2 if state["step"] == step else None])
            if state["step"] == step:
                stream.flush()
                die()

        runs.torch.save = save_half
        run(task, config, folder, progress=False)

    return work


# name: what is trained, how it dies, the step of the checkpoint that it leaves
KILLED: dict[str, tuple[str, Callable[[Path, Path], None], int]] = {
    "before the first checkpoint": ("linear", in_step("linear", 1), 0),
    "in a step": ("linear", in_step("linear", 7), 6),
    "while a checkpoint is written": ("linear", in_checkpoint("linear", 8), 6),
    "autoencoder": ("autoencoder", in_step("autoencoder", 3), 2),
    "diffusion": ("diffusion", in_step("diffusion", 3), 2),
}


# Much of the time goes into files, so that many moments fall there.
MOMENTS = LINEAR | {"steps": 40, "checkpoint_every": 3, "sample_every": 20}
OPERATIONS = LINEAR | {"steps": 3, "checkpoint_every": 1, "sample_every": 3}


def run_linear(values: dict[str, Any], folder: Path) -> None:
    run(LinearTask(dropout=0.5), TrainConfig(**values), folder, progress=False)


def fork(work: Callable[..., None], *args: Any) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work(*args)
            status = 0
        finally:
            os._exit(status)
    return child


def end_of(child: int) -> int:
    """0, or the negative number of the signal that it died of."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at_moments(root: Path, count: int) -> None:
    random = Random(0)
    run_linear(MOMENTS, root / "moments")
    started = time.monotonic()
    end_of(fork(run_linear, MOMENTS, root / "to measure"))
    duration = time.monotonic() - started
    killed = 0
    while killed < count:
        folder = root / f"moment {killed}"
        child = fork(run_linear, MOMENTS, folder)
        time.sleep(random.uniform(0, duration))
        os.kill(child, signal.SIGKILL)
        if end_of(child) != -signal.SIGKILL:  # it was faster
            shutil.rmtree(folder)
            continue
        note(folder)
        assert end_of(fork(run_linear, MOMENTS, folder)) == 0
        killed += 1


def kill_before_operations(root: Path) -> None:
    run_linear(OPERATIONS, root / "operations")
    for number in range(1000):
        folder = root / f"operation {number}"
        if end_of(fork(run_until_operation, number, folder)) != -signal.SIGKILL:
            shutil.rmtree(folder)  # there are no more operations
            return
        note(folder)
        assert end_of(fork(run_linear, OPERATIONS, folder)) == 0


def run_until_operation(number: int, folder: Path) -> None:
    count = 0

    def watch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        writes = event in ("os.rename", "os.remove", "os.mkdir") or (event == "open" and args[1] in ("w", "wb", "w+b"))
        if writes and str(args[0]).startswith(str(folder)):
            if count == number:
                die()
            count += 1

    sys.addaudithook(watch)
    run_linear(OPERATIONS, folder)


def note(folder: Path) -> None:
    """Write down what was left."""
    left = sorted(file.name for file in folder.iterdir()) if folder.exists() else []
    step = torch.load(folder / "checkpoint.pt", weights_only=True)["step"] if "checkpoint.pt" in left else None
    folder.with_suffix(".json").write_text(json.dumps({"left": left, "step": step}))


def main(root: Path, count: int) -> None:
    """Prints what the scenarios of KILLED died of."""
    torch.set_num_threads(1)
    kill_before_operations(root)
    kill_at_moments(root, count)
    print(json.dumps({name: end_of(fork(scenario, root, root / name)) for name, (_, scenario, _) in KILLED.items()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
