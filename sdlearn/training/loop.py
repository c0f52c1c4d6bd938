"""The one training loop: everything that sdlearn trains uses `train`. `run` handles folders and checkpoints.

Data, noise and timesteps are pure functions of (seed, step, row of the batch). So a run that was killed and resumed, or
that is spread over several processes, sees exactly what one undisturbed process would have seen.
"""

import copy
import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from sdlearn.config import check_count, check_counts
from sdlearn.training.muon import MuonAdamW


class Task(Protocol):
    """What is trained. Each has its own file in this folder."""

    network: nn.Module
    """What learns."""

    settings: dict[str, Any]
    """What the training depends on in addition to a TrainConfig: plain values, in nested tables."""

    def loss(self, network: nn.Module, step: int, rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of these rows of a step's batch, and numbers for the log.

        Its random numbers are a pure function of the seed, the step and the row. network: the task's own, possibly
        wrapped for half precision or to share gradients with other processes. So it must be called here, once.
        """

    def samples(self) -> Tensor | None:
        """Pictures (N, 3, H, W) in [−1, 1] that show the network's progress, or None."""

    def save(self, folder: Path) -> None:
        """Write what was trained into a model folder, in the Diffusers layout."""


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
        check_count("seed", self.seed, least=0, most=2**63 - 1)
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


@dataclass(frozen=True)
class TrainStep:
    """What `train` yields after each step."""

    step: int  # steps done so far: 1, 2, ...
    loss: float  # of the complete batch, before the step
    gradient_norm: float  # of the complete batch, before it is clipped
    learning_rate: float
    numbers: dict[str, float]  # the task's other numbers, for the first process's last rows


def train(task: Task, config: TrainConfig, state: "State | None" = None) -> Iterator[TrainStep]:
    """Train `task.network` until step `config.steps`, and yield after each step.

    state: what to resume from, and to inspect on the way: it also holds the averaged parameters. Without it training
    starts from the beginning. Runs in one process, or in each of those that torchrun or accelerate started.

    Raises:
        ValueError: the batch can't be split evenly over the processes.
    """
    state = state or State(task, config)
    while state.step < config.steps:
        yield take_step(task, config, state)


def take_step(task: Task, config: TrainConfig, state: "State") -> TrainStep:
    """One step of the optimizer, on this process's rows of the batch: loss, gradient, step, average."""
    accelerator = state.accelerator
    share = config.batch_size // config.accumulation // accelerator.num_processes
    total = torch.zeros((), device=accelerator.device)
    for micro in range(config.accumulation):
        first = (micro * accelerator.num_processes + accelerator.process_index) * share
        waits = micro < config.accumulation - 1  # the processes share their gradients only in the last round
        with accelerator.no_sync(state.network) if waits else nullcontext():
            loss, numbers = task.loss(state.network, state.step, slice(first, first + share))
            accelerator.backward(loss / config.accumulation)
        total += loss.detach() / config.accumulation

    norm = accelerator.clip_grad_norm_(state.parameters, config.max_grad_norm)
    rate = config.learning_rate_at(state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.ema.update(state.step)
    state.step += 1

    mean = accelerator.reduce(total, "mean").item()
    numbers = {name: float(value) for name, value in numbers.items()}
    return TrainStep(state.step, mean, float(norm), rate, numbers)


class State:
    """Everything that changes during training. `to_dict` returns what a checkpoint stores.

    Raises ValueError if the batch can't be split evenly over the processes.
    """

    def __init__(self, task: Task, config: TrainConfig) -> None:
        device = processes().device
        # Accelerate keeps the mixed precision of a process's first training run and refuses another. A notebook has
        # several runs. There is no public way to reset it (up to 1.15); this one leaves the process group as it is.
        AcceleratorState._reset_state()
        self.accelerator = Accelerator(mixed_precision=precision_for(config, device))
        count = self.accelerator.num_processes
        if (config.batch_size // config.accumulation) % count:
            raise ValueError(f"batch_size {config.batch_size} can't be split over {count} processes")
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        task.network.to(self.accelerator.device, memory_format=layout)
        self.parameters = [parameter for parameter in task.network.parameters() if parameter.requires_grad]
        self.ema = Ema(self.parameters, config.ema_decay)
        # Accelerate changes the `forward` of what it prepares: a copy with the same parameters leaves the task's alone.
        prepared = self.accelerator.prepare(copy.copy(task.network), make_optimizer(task.network, config))
        self.network, self.optimizer = prepared
        self.step = 0

    def to_dict(self) -> dict[str, Any]:
        """Step, parameters and their average, the optimizer's state, the random state, and float16's scaler if any."""
        values = {"step": self.step, "parameters": [p.detach() for p in self.parameters], "ema": self.ema.average}
        values |= {"optimizer": self.optimizer.state_dict(), "random": torch.get_rng_state()}
        scaler = self.accelerator.scaler
        return values | ({"scaler": scaler.state_dict()} if scaler else {})

    def restore(self, values: dict[str, Any]) -> None:
        """Restore what `to_dict` returned. Raises ValueError if that was from another network."""
        ours, theirs = ([tuple(p.shape) for p in parameters] for parameters in (self.parameters, values["parameters"]))
        if ours != theirs:
            raise ValueError("the checkpoint is from another network than the recipe's: the parameters' shapes differ")
        self.ema.write(values["parameters"])
        torch._foreach_copy_(self.ema.average, values["ema"])
        if values["optimizer"].keys() == self.optimizer.state_dict().keys():
            self.optimizer.load_state_dict(values["optimizer"])
        else:
            warnings.warn("the checkpoint is from another optimizer; its state is not restored", stacklevel=2)
        torch.set_rng_state(values["random"])
        if self.accelerator.scaler and "scaler" in values:
            self.accelerator.scaler.load_state_dict(values["scaler"])
        self.step = values["step"]


def moving_average(average: list[Tensor], parameters: list[Tensor], decay: float, step: int) -> list[Tensor]:
    """The average after one more step: `decay` of what it was, and the rest of the parameters as they are now.

    step: steps done before this one: 0, 1, ... At first everything changes fast, and the memory
    is short: the decay is at most (1 + step) / (10 + step).
    """
    decay = min(decay, (1 + step) / (10 + step))
    return [decay * old + (1 - decay) * new for old, new in zip(average, parameters, strict=True)]


class Ema:
    """An exponential moving average of parameters, which give better samples than those of the last step."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.average = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        torch._foreach_copy_(self.average, moving_average(self.average, self.parameters, self.decay, step))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Replace the parameters by the average while the block runs."""
        kept = [parameter.detach().clone() for parameter in self.parameters]
        try:
            self.write(self.average)
            yield
        finally:
            self.write(kept)

    @torch.no_grad()
    def write(self, values: list[Tensor]) -> None:
        """Replace the parameters by these values."""
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)


def precision_for(config: TrainConfig, device: torch.device) -> str:
    """The recipe's `mixed_precision`, but float32 for bfloat16 on a processor that crawls in it."""
    if config.mixed_precision == "bf16" and device.type == "cpu" and not fast_in_bfloat16():
        warnings.warn("bfloat16 is slow on this processor; training in float32", stacklevel=2)
        return "no"
    return config.mixed_precision


def fast_in_bfloat16() -> bool:
    """Whether bfloat16 saves time on this processor. Without AVX-512 it takes up to 50 times as long as float32."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The recipe's optimizer, for everything that is trained."""
    named = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    betas, decay = (0.9, config.beta_2), config.weight_decay
    if config.optimizer == "muon":
        return MuonAdamW(named, config.learning_rate, betas, weight_decay=decay)
    return torch.optim.AdamW([p for _, p in named], config.learning_rate, betas, weight_decay=decay, fused=True)


def generator_for(seed: int, step: int, purpose: int = 0) -> torch.Generator:
    """A CPU generator that depends only on its arguments. `purpose` distinguishes the streams of one step."""
    state = torch.Generator().manual_seed(seed)
    offset = torch.randint(2**31, (), generator=state).item()
    return torch.Generator().manual_seed((offset * 1_000_003 + step) * 97 + purpose)


def checksum(network: nn.Module) -> str:
    """A text that changes with any of the network's numbers."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def processes() -> PartialState:
    """This process and those that torchrun or accelerate started with it. The first call joins them.

    Raises:
        RuntimeError: not all of them are found; each would train alone and overwrite the others' files.
    """
    started = os.environ.get("WORLD_SIZE", "1")
    if not started.isdecimal():
        raise RuntimeError(f"WORLD_SIZE={started} in the environment: torchrun sets it to a number of processes")
    started = int(started)
    # Without a GPU accelerate looks for other processes only if told to use the CPU. And they can have to wait for
    # the first one longer than the usual ten minutes: while it encodes scenes, or draws samples.
    cpu = started > 1 and not (torch.cuda.is_available() or torch.xpu.is_available())
    state = PartialState(cpu=cpu, timeout=timedelta(hours=2))
    if state.num_processes != started:
        raise RuntimeError(f"{started} processes were started, but {state.num_processes} joined")
    return state
