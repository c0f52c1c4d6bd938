"""A training run in a folder: checkpoints, the log, sample pictures, and resuming."""

import math
import time
import tomllib
import warnings
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from sdlearn.files import remove_leftovers
from sdlearn.pictures import save_image_grid
from sdlearn.training.checkpoint import compare, flatten, load_checkpoint, save_checkpoint
from sdlearn.training.lock import lock
from sdlearn.training.log import Log, summary
from sdlearn.training.loop import Ema, State, Task, TrainConfig, train


def run(task: Task, config: TrainConfig, folder: Path, *, progress: bool = True) -> None:
    """Train `task` until step `config.steps`, resuming from the checkpoint in `folder` if there is one.

    Runs in one process, or in each of those that torchrun or accelerate started. The first of them writes
    `checkpoint.pt` and the one before it, `log.csv` and `samples/*.png`, and at the end, averaged,
    `task.save(folder / "model")`.

    Raises:
        OSError: a file can't be written; its previous version is kept.
        RuntimeError: the loss is not finite, and the last checkpoint stays as it is; or no checkpoint can be read; or
            another process trains in the folder.
        ValueError: the batch can't be split evenly over the processes, or the checkpoint is from another recipe, or
            the log was changed.
    """
    state = State(task, config)
    first = state.accelerator.is_main_process
    with lock(folder) if first else nullcontext():
        if first:
            remove_leftovers(folder)
        settings = flatten({"training": asdict(config)} | task.settings)
        resume(state, folder / "checkpoint.pt", settings)
        with tqdm(total=config.steps, initial=state.step, disable=not (progress and first), unit="step") as bar:
            go_on(task, config, state, folder, settings, bar)
        if first:
            with state.ema.applied():
                task.save(folder / "model")
        state.accelerator.wait_for_everyone()


def go_on(task: Task, config: TrainConfig, state: State, folder: Path, settings: dict[str, Any], bar: tqdm) -> None:
    """Train until the last step, and write what is due on the way."""
    first, checkpoint = state.accelerator.is_main_process, folder / "checkpoint.pt"

    def due(every: int) -> bool:
        return state.step % every == 0 or state.step == config.steps

    log, recent, started = Log(folder / "log.csv", state.step), [], time.monotonic()
    for step in train(task, config, state):
        if not math.isfinite(step.loss):
            raise RuntimeError(f"the loss is {step.loss} at step {step.step}; {checkpoint} stays as it was")
        recent.append(step)
        bar.update()
        if due(config.log_every):
            row = summary(recent, config.batch_size, time.monotonic() - started)
            if first:
                log.write(row)
            bar.set_postfix(loss=row["loss"])
            recent, started = [], time.monotonic()
        if due(config.sample_every) and first:
            save_samples(task, state.ema, folder / "samples" / f"{state.step:07d}.png")
        if due(config.checkpoint_every):
            if not all(parameter.isfinite().all() for parameter in state.parameters):
                raise RuntimeError(f"a parameter is not finite at step {state.step}; {checkpoint} stays as it was")
            if first:
                save_checkpoint(checkpoint, state.to_dict() | {"settings": settings})


def read_recipe(file: Path) -> dict[str, Any]:
    """The tables of a recipe, a TOML file. `read_table` makes it a CLIPRecipe, AutoencoderRecipe or DiffusionRecipe.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not TOML.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no recipe at {file}")
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # or not UTF-8
        raise ValueError(f"{file} is not a TOML file: {error}") from error


def resume(state: State, checkpoint: Path, settings: dict[str, Any]) -> None:
    """Resume from the last intact checkpoint, if there is one.

    Raises:
        RuntimeError: no checkpoint is intact, or the processes would resume from different ones.
        ValueError: it is from another recipe, or from a later step than the recipe's last.
    """
    with state.accelerator.main_process_first():  # it replaces a damaged one by the one before; then all read
        if values := load_checkpoint(checkpoint):
            changed = compare(settings, values.get("settings", {}), checkpoint)
            if values["step"] > (last := settings["training.steps"]):
                raise ValueError(f"{checkpoint} is from step {values['step']}, but the recipe ends at step {last}")
            if changed:
                said = f"the recipe has changed since {checkpoint}: {', '.join(changed)}"
                warnings.warn(f"{said}; the run goes on as the recipe says now", stacklevel=2)
            state.restore(values)
    here = torch.tensor([state.step], device=state.accelerator.device)
    steps = state.accelerator.gather(here).tolist()
    if len(set(steps)) > 1:
        raise RuntimeError(f"the processes would resume at steps {steps}: all machines must share {checkpoint.parent}")


def save_samples(task: Task, ema: Ema, file: Path) -> None:
    """Draw the task's pictures with the averaged network."""
    with ema.applied(), torch.no_grad():
        pictures = task.samples()
    if pictures is not None:
        file.parent.mkdir(exist_ok=True)
        save_image_grid(pictures, file)
