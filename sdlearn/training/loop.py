"""The one training loop: everything that sdlearn trains goes through `train`.

Data, noise and timesteps are pure functions of (seed, step, row of the batch). So a run that was killed and resumed, or
that is spread over several processes, sees exactly what one undisturbed process would have seen.
"""

import csv
import os
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from tqdm.auto import tqdm

from sdlearn.files import whole_file
from sdlearn.show import save_image_grid


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
        for name in ("steps", "batch_size", "accumulation", "log_every", "sample_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.batch_size % self.accumulation:
            raise ValueError(f"batch_size {self.batch_size} is not divisible by accumulation {self.accumulation}")
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise ValueError(f"mixed_precision must be 'no', 'bf16' or 'fp16', not {self.mixed_precision!r}")

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, constant, then linear decay to zero over the last `decay_steps`."""
        rise = (step + 1) / max(1, self.warmup_steps)
        fall = (self.steps - step) / max(1, self.decay_steps)
        return self.learning_rate * min(1.0, rise, fall)

    @classmethod
    def from_recipe(cls, recipe: dict[str, Any]) -> Self:
        """Read the `[training]` table.

        Raises:
            ValueError: a key is unknown or missing, or a value is out of range.
        """
        values = recipe.get("training", {})
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"[training] has unknown keys {', '.join(unknown)}; known are {', '.join(known)}")
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"[training]: {error}") from error


def read_recipe(file: Path) -> dict[str, Any]:
    """Read a recipe, a TOML file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not TOML.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no recipe at {file}")
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
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


def save_checkpoint(file: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all, and force it to the disk before it takes the old one's place."""
    with whole_file(file) as temporary, temporary.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())


class Log:
    """A CSV file with one row for every `log_every` steps; rows after the resumed step are dropped."""

    def __init__(self, file: Path, resumed_step: int) -> None:
        self.file = file
        self.rows: list[dict[str, Any]] = []
        if resumed_step and file.exists():
            with file.open(newline="", encoding="utf-8") as stream:
                self.rows = [row for row in csv.DictReader(stream) if int(row["step"]) <= resumed_step]

    def write(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        with whole_file(self.file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(row))
            writer.writeheader()
            writer.writerows(self.rows)


def train(task: Task, config: TrainConfig, folder: Path, *, progress: bool = True) -> None:
    """Train `task` until step `config.steps`, going on from the checkpoint in `folder` if there is one.

    Writes `checkpoint.pt`, `log.csv` and `samples/*.png`, and at the end, averaged, `task.save(folder / "model")`.

    Raises:
        RuntimeError: the loss is not finite; the last checkpoint stays as it is.
        ValueError: the batch can't be split evenly over the processes.
    """
    AcceleratorState._reset_state()  # another training in this process may have had another mixed precision
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.accumulation,
    )
    share, rest = divmod(config.batch_size // config.accumulation, accelerator.num_processes)
    if rest:
        raise ValueError(f"batch_size {config.batch_size} can't be split over {accelerator.num_processes} processes")
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    task.objective.to(accelerator.device, memory_format=layout)
    parameters = [parameter for parameter in task.objective.parameters() if parameter.requires_grad]
    betas = (0.9, config.beta_2)
    optimizer = torch.optim.AdamW(parameters, config.learning_rate, betas, weight_decay=config.weight_decay, fused=True)
    ema = Ema(parameters, config.ema_decay)
    step = 0

    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=accelerator.device, weights_only=True)
        ema._write(state["parameters"])
        torch._foreach_copy_(ema.average, state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"].cpu())
        step = state["step"]
    objective, optimizer = accelerator.prepare(task.objective, optimizer)

    def save() -> None:
        if not all(parameter.isfinite().all() for parameter in parameters):
            raise RuntimeError(
                f"a parameter is not finite at step {step}; the last good checkpoint is kept in {checkpoint}"
            )
        if accelerator.is_main_process:
            state = {"step": step, "parameters": [p.detach() for p in parameters], "ema": ema.average}
            state |= {"optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}
            save_checkpoint(checkpoint, state)

    def sample() -> None:
        if accelerator.is_main_process:
            with ema.applied(), torch.no_grad():
                pictures = task.samples()
            if pictures is not None:
                (folder / "samples").mkdir(exist_ok=True)
                save_image_grid(pictures, folder / "samples" / f"{step:07d}.png")

    folder.mkdir(parents=True, exist_ok=True)
    log = Log(folder / "log.csv", step)
    total, count, started = torch.zeros((), device=accelerator.device), 0, time.monotonic()
    bar = tqdm(total=config.steps, initial=step, disable=not (progress and accelerator.is_main_process), unit="step")
    while step < config.steps:
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate_at(step)
        for micro in range(config.accumulation):
            first = (micro * accelerator.num_processes + accelerator.process_index) * share
            batch = task.batch(step, slice(first, first + share))
            batch = {name: value.to(accelerator.device) for name, value in batch.items()}
            with accelerator.accumulate(objective):
                loss, numbers = objective(**batch)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(parameters, config.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
            total += loss.detach() / config.accumulation
        count += 1
        ema.update(step)
        step += 1
        bar.update()

        if step % config.log_every == 0 or step == config.steps:
            mean = accelerator.reduce(total / count, "mean").item()
            if not mean == mean or abs(mean) == float("inf"):
                raise RuntimeError(
                    f"the loss is {mean} at step {step}; the last good checkpoint is kept in {checkpoint}"
                )
            seconds = time.monotonic() - started
            row = {"step": step, "loss": f"{mean:.5f}", "learning_rate": f"{config.learning_rate_at(step - 1):.3g}"}
            row |= {
                "gradient_norm": f"{float(norm):.3f}",
                "images_per_second": f"{count * config.batch_size / seconds:.1f}",
            }
            row |= {name: f"{float(value):.5f}" for name, value in numbers.items()}
            if accelerator.is_main_process:
                log.write(row)
            bar.set_postfix(loss=row["loss"])
            total, count, started = torch.zeros_like(total), 0, time.monotonic()
        if step % config.sample_every == 0:
            sample()
        if step % config.checkpoint_every == 0:
            save()
    bar.close()
    save()
    sample()
    if accelerator.is_main_process:
        with ema.applied():
            task.save(folder / "model")
    accelerator.wait_for_everyone()
    accelerator.end_training()
