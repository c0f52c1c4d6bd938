"""A training run in a folder: checkpoints, the log, sample pictures, and resuming."""

import csv
import math
import os
import pickle
import time
import tomllib
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from tqdm.auto import tqdm

from sdlearn.files import atomic_write, remove_leftovers
from sdlearn.pictures import save_image_grid
from sdlearn.training.loop import Ema, State, Task, TrainConfig, TrainStep, train


def run(task: Task, config: TrainConfig, folder: Path, *, progress: bool = True) -> None:
    """Train `task` until step `config.steps`, resuming from the checkpoint in `folder` if there is one.

    Runs in one process, or in each of those that torchrun or accelerate started. The first of them writes
    `checkpoint.pt` and the one before it, `log.csv` and `samples/*.png`, and at the end, averaged,
    `task.save(folder / "model")`.

    Raises:
        OSError: a file can't be written; its previous version is kept.
        RuntimeError: the loss is not finite, and the last checkpoint stays as it is; or no checkpoint can be read.
        ValueError: the batch can't be split evenly over the processes, or the checkpoint is from another recipe.
    """
    state = State(task, config)
    settings = flatten({"training": asdict(config)} | task.settings)
    first = state.accelerator.is_main_process
    folder.mkdir(parents=True, exist_ok=True)
    if first:
        remove_leftovers(folder)
    checkpoint = folder / "checkpoint.pt"
    resume(state, checkpoint, settings)

    def due(every: int) -> bool:
        return state.step % every == 0 or state.step == config.steps

    log, recent, started = Log(folder / "log.csv", state.step), [], time.monotonic()
    bar = tqdm(total=config.steps, initial=state.step, disable=not (progress and first), unit="step")
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
    bar.close()
    if first:
        with state.ema.applied():
            task.save(folder / "model")
    state.accelerator.wait_for_everyone()


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
    except ValueError as error:  # or not UTF-8
        raise ValueError(f"{file} is not a TOML file: {error}") from error


def resume(state: State, checkpoint: Path, settings: dict[str, Any]) -> None:
    """Resume from the last intact checkpoint, if there is one.

    Raises:
        RuntimeError: no checkpoint is intact, or the processes would resume from different ones.
        ValueError: it is from another recipe, or from a later step than the recipe's last.
    """
    with state.accelerator.main_process_first():  # it replaces a damaged one by the one before; then all read
        if values := load_checkpoint(checkpoint):
            compare(settings, values, checkpoint)
            state.restore(values)
    here = torch.tensor([state.step], device=state.accelerator.device)
    steps = state.accelerator.gather(here).tolist()
    if len(set(steps)) > 1:
        raise RuntimeError(f"the processes would resume at steps {steps}: all machines must share {checkpoint.parent}")


def compare(settings: dict[str, Any], values: dict[str, Any], checkpoint: Path) -> None:
    """Is a checkpoint from these settings? In `[training]`, all but the seed and the batch may change: then it warns.

    Raises ValueError for any other change, and if the checkpoint is from a later step than the last.
    """
    stored = values.get("settings", {})
    changed, refused = [], []
    for name in sorted(settings.keys() | stored.keys()):
        was, now = stored.get(name), settings.get(name)
        if was != now:
            free = name.startswith("training.") and name not in ("training.seed", "training.batch_size")
            (changed if free else refused).append(f"{name} was {was!r} and is {now!r}")
    if refused:
        raise ValueError(f"{checkpoint} is from another recipe: {', '.join(refused)}; use another folder")
    if values["step"] > settings["training.steps"]:
        last = settings["training.steps"]
        raise ValueError(f"{checkpoint} is from step {values['step']}, but the recipe ends at step {last}")
    if changed:
        warnings.warn(f"the recipe has changed since {checkpoint}: {', '.join(changed)}", stacklevel=2)


def flatten(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one: {"model": {"width": 8}} -> {"model.width": 8}."""
    flat = {}
    for key, value in tables.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def save_checkpoint(file: Path, values: dict[str, Any]) -> None:
    """Write a checkpoint atomically. The one before it stays, so the disk needs room for three.

    The new one is flushed to the disk before it replaces the old one. Whenever the process is killed, one of the two is
    intact.
    """
    with atomic_write(file) as temporary:
        with temporary.open("wb") as stream:
            torch.save(values, stream)
            stream.flush()
            os.fsync(stream.fileno())
        if file.exists():
            file.replace(before(file))


def before(file: Path) -> Path:
    """The path of the checkpoint before the last one."""
    return file.with_stem(f"{file.stem}.previous")


# OSError: a damaged directory can make zipfile seek to before the file's beginning.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, pickle.UnpicklingError)


def load_checkpoint(file: Path) -> dict[str, Any] | None:
    """Read the last checkpoint; None if there isn't one.

    If it is damaged, the one before replaces it, with a warning, and the damaged one is kept as `*.damaged`. A PyTorch
    file is a zip with a CRC-32 for each tensor. PyTorch doesn't check them, so we do it here.

    Raises:
        RuntimeError: it is damaged, and the one before is damaged or missing.
    """
    if not file.exists() and before(file).exists():  # killed while one replaced the other
        before(file).replace(file)
    if not file.exists():
        return None
    with file.open("rb") as stream:  # a file that can't be opened isn't damaged: that error is the caller's
        try:
            if name := zipfile.ZipFile(stream).testzip():
                raise zipfile.BadZipFile(f"wrong checksum of {name}")
            stream.seek(0)
            return torch.load(stream, map_location="cpu", weights_only=True)
        except DAMAGE as error:
            if not before(file).exists():
                raise RuntimeError(f"{file} is damaged and the only one left; remove it to start again") from error
            warnings.warn(f"{file} is damaged ({error}); training resumes from the checkpoint before it", stacklevel=2)
    file.replace(file.with_suffix(".damaged"))
    return load_checkpoint(file)


class Log:
    """A CSV file with one row for every `log_every` steps; rows after the resumed step are dropped.

    The first row after a resumed step averages over fewer steps, unless a checkpoint was due with the row before.
    """

    def __init__(self, file: Path, resumed_step: int) -> None:
        self.file = file
        self.rows: list[dict[str, Any]] = []
        if resumed_step and file.exists():
            with file.open(newline="", encoding="utf-8") as stream:
                self.rows = [row for row in csv.DictReader(stream) if int(row["step"]) <= resumed_step]

    def write(self, row: dict[str, Any]) -> None:
        """Add a row. The file is rewritten atomically."""
        self.rows.append(row)
        with atomic_write(self.file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(row))
            writer.writeheader()
            writer.writerows(self.rows)


def summary(steps: list[TrainStep], batch_size: int, seconds: float) -> dict[str, Any]:
    """The log's row for these steps: the mean of their losses, and the other numbers of the last one."""
    last = steps[-1]
    row = {"step": last.step, "loss": f"{fmean(step.loss for step in steps):.5f}"}
    row |= {"learning_rate": f"{last.learning_rate:.3g}", "gradient_norm": f"{last.gradient_norm:.3f}"}
    row |= {"images_per_second": f"{len(steps) * batch_size / seconds:.1f}"}
    return row | {name: f"{value:.5f}" for name, value in last.numbers.items()}


def save_samples(task: Task, ema: Ema, file: Path) -> None:
    """Draw the task's pictures with the averaged network."""
    with ema.applied(), torch.no_grad():
        pictures = task.samples()
    if pictures is not None:
        file.parent.mkdir(exist_ok=True)
        save_image_grid(pictures, file)
