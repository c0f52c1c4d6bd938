"""The one training loop: everything that sdlearn trains goes through `train`.

Data, noise and timesteps are pure functions of (seed, step, row of the batch). So a run that was killed and resumed, or
that is spread over several processes, sees exactly what one undisturbed process would have seen.
"""

import csv
import math
import os
import pickle
import time
import tomllib
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from tqdm.auto import tqdm

from sdlearn.config import check_counts
from sdlearn.pictures import save_image_grid
from sdlearn.storage.files import atomic_write
from sdlearn.training.muon import MuonAdamW


class Task(Protocol):
    """What is trained. One file of this folder for each."""

    objective: nn.Module
    """Holds the networks that learn; `objective(**batch)` is the loss, and a dictionary of numbers for the log."""

    def batch(self, step: int, rows: slice) -> dict[str, Tensor]:
        """The given rows of the global batch of a step: a pure function of its arguments and the recipe's seed."""

    def samples(self) -> Tensor | None:
        """Pictures (N, 3, H, W) in [−1, 1] that show how far the networks are, or None."""

    def save(self, folder: Path) -> None:
        """Write the networks into a model folder, in the Diffusers layout."""


@dataclass(frozen=True)
class TrainConfig:
    """The `[training]` table of a recipe. `batch_size` is that of all processes and accumulation steps together."""

    steps: int
    batch_size: int
    learning_rate: float
    optimizer: str = "adamw"  # or "muon"
    seed: int = 0
    warmup_steps: int = 100
    decay_steps: int = 0
    weight_decay: float = 0.01
    beta_2: float = 0.99
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    accumulation: int = 1
    mixed_precision: str = "no"
    channels_last: bool = False  # a third faster for the UNet on a CPU, slower for the autoencoder's large pictures
    log_every: int = 20
    sample_every: int = 1000
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        check_counts(self, "steps", "batch_size", "accumulation", "log_every", "sample_every", "checkpoint_every")
        for name in ("learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("seed", "warmup_steps", "decay_steps", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")
        for name in ("beta_2", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {getattr(self, name)}")
        if self.batch_size % self.accumulation:
            raise ValueError(f"batch_size {self.batch_size} is not divisible by accumulation {self.accumulation}")
        if self.optimizer not in ("adamw", "muon"):
            raise ValueError(f"optimizer must be 'adamw' or 'muon', not {self.optimizer!r}")
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise ValueError(f"mixed_precision must be 'no', 'bf16' or 'fp16', not {self.mixed_precision!r}")

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, constant, then linear decay to zero over the last `decay_steps`."""
        rise = (step + 1) / max(1, self.warmup_steps)
        fall = (self.steps - step) / max(1, self.decay_steps)
        return self.learning_rate * min(1.0, rise, fall)


def read_recipe(file: Path) -> dict[str, Any]:
    """The tables of a recipe, a TOML file. `read_table` makes a CLIPRecipe, AutoencoderRecipe or DiffusionRecipe of it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not TOML.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no recipe at {file}")
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # also where it is no UTF-8
        raise ValueError(f"{file} is not a TOML file: {error}") from error


def generator_for(seed: int, step: int, purpose: int = 0) -> torch.Generator:
    """A CPU generator that depends on nothing but its arguments. `purpose` tells streams of one step apart."""
    state = torch.Generator().manual_seed(seed)
    offset = torch.randint(2**31, (), generator=state).item()
    return torch.Generator().manual_seed((offset * 1_000_003 + step) * 97 + purpose)


class Ema:
    """An exponential moving average of parameters, which gives better samples than the last step's."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.average = [parameter.detach().clone() for parameter in parameters]

    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))  # short memory while everything still moves fast
        torch._foreach_lerp_(self.average, [parameter.detach() for parameter in self.parameters], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average in the parameters' place while the block runs."""
        kept = [parameter.detach().clone() for parameter in self.parameters]
        try:
            self._write(self.average)
            yield
        finally:
            self._write(kept)

    @torch.no_grad()
    def _write(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)


@dataclass
class State:
    """All that changes while training goes on: what a checkpoint holds."""

    parameters: list[nn.Parameter]
    ema: Ema
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None = None  # of the loss; only float16 needs one
    step: int = 0

    def to_dict(self) -> dict[str, Any]:
        values = {"step": self.step, "parameters": [p.detach() for p in self.parameters], "ema": self.ema.average}
        values |= {"optimizer": self.optimizer.state_dict(), "random": torch.get_rng_state()}
        return values | ({"scaler": self.scaler.state_dict()} if self.scaler else {})

    def restore(self, values: dict[str, Any]) -> None:
        """Go back to what `to_dict` gave. Raises ValueError if that was of other networks."""
        ours, theirs = ([tuple(p.shape) for p in parameters] for parameters in (self.parameters, values["parameters"]))
        if ours != theirs:
            raise ValueError("the checkpoint is of other networks than the recipe: the parameters' shapes differ")
        self.ema._write(values["parameters"])
        torch._foreach_copy_(self.ema.average, values["ema"])
        if values["optimizer"].keys() == self.optimizer.state_dict().keys():
            self.optimizer.load_state_dict(values["optimizer"])
        else:
            warnings.warn("the checkpoint is of another optimizer; its state is not taken over", stacklevel=2)
        torch.set_rng_state(values["random"])
        if self.scaler and "scaler" in values:
            self.scaler.load_state_dict(values["scaler"])
        self.step = values["step"]


def save_checkpoint(file: Path, values: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all. The one before it stays, so the disk needs room for three.

    The new one is forced to the disk before it takes the old one's place. Whenever the process is killed, one of the
    two is there and whole.
    """
    with atomic_write(file) as temporary:
        with temporary.open("wb") as stream:
            torch.save(values, stream)
            stream.flush()
            os.fsync(stream.fileno())
        if file.exists():
            file.replace(before(file))


def before(file: Path) -> Path:
    """Where the checkpoint before the last one lies."""
    return file.with_stem(f"{file.stem}.previous")


# OSError: zipfile seeks to where a damaged directory sends it, before the file's beginning.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, pickle.UnpicklingError)


def load_checkpoint(file: Path) -> dict[str, Any] | None:
    """Read the last checkpoint, or None where there is none.

    If it is damaged, the one before takes its place, with a warning, and the damaged one is kept as `*.damaged`. A file
    of PyTorch is a zip with a CRC-32 for each tensor. PyTorch doesn't check them, so that is done here.

    Raises:
        RuntimeError: it is damaged, and so is the one before, or there is none.
    """
    if not file.exists() and before(file).exists():  # killed while one took the other's place
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
                raise RuntimeError(f"{file} is damaged and the only one left; remove it to begin anew") from error
            warnings.warn(f"{file} is damaged ({error}); training goes on from the checkpoint before it", stacklevel=2)
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
        self.rows.append(row)
        with atomic_write(self.file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(row))
            writer.writeheader()
            writer.writerows(self.rows)


def processes() -> PartialState:
    """This process and those that torchrun or accelerate started beside it. The first call joins them.

    Raises:
        RuntimeError: not all of them are found; else each would train alone and overwrite the others' files.
    """
    started = int(os.environ.get("WORLD_SIZE", 1))
    # Without a GPU accelerate looks for other processes only if it is told to use the CPU. And they may have to wait
    # for the first one longer than the usual ten minutes: while it encodes scenes, or draws samples.
    cpu = started > 1 and not (torch.cuda.is_available() or torch.xpu.is_available())
    state = PartialState(cpu=cpu, timeout=timedelta(hours=2))
    if state.num_processes != started:
        raise RuntimeError(f"{started} processes were started, but {state.num_processes} joined")
    return state


def train(task: Task, config: TrainConfig, folder: Path, *, progress: bool = True) -> None:
    """Train `task` until step `config.steps`, going on from the checkpoint in `folder` if there is one.

    Runs in one process, or in each of those that torchrun or accelerate started. The first of them writes
    `checkpoint.pt` and the one before it, `log.csv` and `samples/*.png`, and at the end, averaged,
    `task.save(folder / "model")`.

    Raises:
        OSError: a file can't be written; what was there before is still there.
        RuntimeError: the loss is not finite, and the last checkpoint stays as it is; or no checkpoint can be read.
        ValueError: the batch can't be split evenly over the processes, or the checkpoint is of other networks.
    """
    processes()
    # Accelerate keeps the mixed precision of a process's first training and refuses another one. A notebook has several
    # trainings. There is no public way to begin anew (up to 1.15); this one leaves the processes' group as it is.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.accumulation,
    )
    if (config.batch_size // config.accumulation) % accelerator.num_processes:
        raise ValueError(f"batch_size {config.batch_size} can't be split over {accelerator.num_processes} processes")
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    task.objective.to(accelerator.device, memory_format=layout)
    parameters = [parameter for parameter in task.objective.parameters() if parameter.requires_grad]
    optimizer = make_optimizer(task.objective, config)
    state = State(parameters, Ema(parameters, config.ema_decay), optimizer, accelerator.scaler)

    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    resume(state, checkpoint, accelerator)
    objective, optimizer = accelerator.prepare(task.objective, optimizer)

    def due(every: int) -> bool:
        return state.step % every == 0 or state.step == config.steps

    log = Log(folder / "log.csv", state.step)
    total, count, started = torch.zeros((), device=accelerator.device), 0, time.monotonic()
    hidden = not (progress and accelerator.is_main_process)
    bar = tqdm(total=config.steps, initial=state.step, disable=hidden, unit="step")
    while state.step < config.steps:
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate_at(state.step)
        loss, norm, numbers = take_step(accelerator, objective, optimizer, task, config, state.step)
        state.ema.update(state.step)
        state.step += 1
        total += loss
        count += 1
        bar.update()

        if due(config.log_every):
            mean = accelerator.reduce(total / count, "mean").item()
            if not math.isfinite(mean):
                steps = f"steps {state.step - count + 1} to {state.step}" if count > 1 else f"step {state.step}"
                raise RuntimeError(f"the loss is {mean} at {steps}; {checkpoint} stays as it was")
            speed = count * config.batch_size / (time.monotonic() - started)
            row = {"step": state.step, "loss": f"{mean:.5f}"}
            row |= {"learning_rate": f"{config.learning_rate_at(state.step - 1):.3g}"}
            row |= {"gradient_norm": f"{norm:.3f}", "images_per_second": f"{speed:.1f}"}
            row |= {name: f"{float(value):.5f}" for name, value in numbers.items()}
            if accelerator.is_main_process:
                log.write(row)
            bar.set_postfix(loss=row["loss"])
            total, count, started = torch.zeros_like(total), 0, time.monotonic()
        if due(config.sample_every) and accelerator.is_main_process:
            save_samples(task, state.ema, folder / "samples" / f"{state.step:07d}.png")
        if due(config.checkpoint_every):
            if not all(parameter.isfinite().all() for parameter in parameters):
                raise RuntimeError(f"a parameter is not finite at step {state.step}; {checkpoint} stays as it was")
            if accelerator.is_main_process:
                save_checkpoint(checkpoint, state.to_dict())
    bar.close()
    if accelerator.is_main_process:
        with state.ema.applied():
            task.save(folder / "model")
    accelerator.wait_for_everyone()


def make_optimizer(objective: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The recipe's optimizer, of all that learns."""
    named = [(name, parameter) for name, parameter in objective.named_parameters() if parameter.requires_grad]
    betas, decay = (0.9, config.beta_2), config.weight_decay
    if config.optimizer == "muon":
        return MuonAdamW(named, config.learning_rate, betas, weight_decay=decay)
    return torch.optim.AdamW([p for _, p in named], config.learning_rate, betas, weight_decay=decay, fused=True)


def resume(state: State, checkpoint: Path, accelerator: Accelerator) -> None:
    """Go on from the last checkpoint that is whole, if there is one. Raises RuntimeError if the processes disagree."""
    with accelerator.main_process_first():  # it puts the one before in a damaged one's place; then the others read
        if values := load_checkpoint(checkpoint):
            state.restore(values)
    steps = accelerator.gather(torch.tensor([state.step], device=accelerator.device)).tolist()
    if len(set(steps)) > 1:
        raise RuntimeError(f"the processes would go on from steps {steps}: all machines must share {checkpoint.parent}")


def take_step(
    accelerator: Accelerator,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    task: Task,
    config: TrainConfig,
    step: int,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """One step of the optimizer, on this process's rows of the batch.

    Returns their loss, the norm of the gradient of the whole batch before it is clipped, and the objective's numbers.
    """
    total = torch.zeros((), device=accelerator.device)
    share = config.batch_size // config.accumulation // accelerator.num_processes
    for micro in range(config.accumulation):
        first = (micro * accelerator.num_processes + accelerator.process_index) * share
        batch = task.batch(step, slice(first, first + share))
        batch = {name: value.to(accelerator.device) for name, value in batch.items()}
        with accelerator.accumulate(objective):
            loss, numbers = objective(**batch)
            accelerator.backward(loss)
            if accelerator.sync_gradients:  # in the last round
                norm = accelerator.clip_grad_norm_(list(objective.parameters()), config.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
        total += loss.detach() / config.accumulation
    return total, norm, numbers


def save_samples(task: Task, ema: Ema, file: Path) -> None:
    """Draw the task's pictures with the averaged networks."""
    with ema.applied(), torch.no_grad():
        pictures = task.samples()
    if pictures is not None:
        file.parent.mkdir(exist_ok=True)
        save_image_grid(pictures, file)
