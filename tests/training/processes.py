"""What several processes do: `torchrun --nproc-per-node 2 processes.py FOLDER`. Each leaves a report in FOLDER."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from accelerate import Accelerator, PartialState
from small import few_scenes_and_samples, make
from torch import Tensor

from sdlearn.lessons.check import randomize_
from sdlearn.training.run import run

KINDS = ("linear", "autoencoder", "diffusion", "clip")
STEPS = (2, 4, 6)  # by one process, by two, by one again


def first_gradient(kind: str, root: Path, folder: Path) -> list[Tensor]:
    """The gradient of the first step's whole batch, of random networks, before it is clipped."""
    task, config = make(kind, root, folder)
    randomize_(task.network.eval(), 1)
    gradients = []
    clip = Accelerator.clip_grad_norm_

    def note(self: Accelerator, parameters: list[Tensor], norm: float) -> Tensor:
        gradients.extend(parameter.grad.clone() for parameter in parameters)
        return clip(self, parameters, norm)

    with patch.object(Accelerator, "clip_grad_norm_", note):
        run(task, replace(config, steps=1), folder, progress=False)
    return gradients


def go_on(kind: str, root: Path, folder: Path, steps: int) -> None:
    task, config = make(kind, root, folder)
    task.network.eval()  # no dropout: it depends on the number of processes
    run(task, replace(config, steps=steps, decay_steps=0), folder, progress=False)


def main(root: Path) -> None:
    torch.set_num_threads(1)
    written = []

    def watch(event: str, args: tuple[Any, ...]) -> None:
        writes = event == "os.rename" or (event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR))
        if writes and str(args[0]).startswith(f"{root}{os.sep}"):
            written.append(str(args[0]))

    sys.addaudithook(watch)
    gradients = {kind: first_gradient(kind, root, root / f"{kind}, two") for kind in KINDS}
    for kind in KINDS:
        go_on(kind, root, root / f"{kind}, one two one", STEPS[1])
    state = PartialState()
    report = {"processes": state.num_processes, "written": list(written), "gradients": gradients}
    torch.save(report, root / f"report {state.process_index}.pt")
    state.destroy_process_group()


if __name__ == "__main__":
    with few_scenes_and_samples():
        main(Path(sys.argv[1]))
