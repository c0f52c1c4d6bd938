"""The exercises of lesson 02."""

from collections.abc import Iterator

import torch
from torch import Tensor

from sdlearn.diffusion.grids import make_grid
from sdlearn.diffusion.samplers import ddpm
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig, simple_loss
from sdlearn.lessons.exercises.exercise import Case, Exercise


def pairs(generator: torch.Generator) -> Iterator[Case]:
    """x_0 and x_t (B, ...), a timestep and an earlier one: one step, long strides, and the end."""
    cases = (
        ((2, 3, 5, 4), 500, 499),
        ((3, 7), 981, 941),
        ((4, 1, 2), 300, 20),
        ((2, 5), 40, -20),
        ((2, 3), 20, 0),
        ((1, 6), 0, -1),
    )
    configs = (ScheduleConfig(), ScheduleConfig(rescale_betas_zero_snr=True, prediction_type="v_prediction"))
    for i, (shape, t, previous) in enumerate(cases):
        x0, x = torch.randn(2, *shape, generator=generator)
        words = f"from t = {t} to previous = {previous}" + (", the end" if previous < 0 else "")
        yield Case(words, Schedule(configs[i % 2]), x0, x, t, previous)


def predictions(generator: torch.Generator) -> Iterator[Case]:
    """A prediction and x_t (B, ...), and the rates at t, for all or one for each, for each kind of prediction."""
    cases = (
        ("epsilon", (2, 3, 5, 4), 700),
        ("v_prediction", (3, 7), [0, 300, 999]),
        ("sample", (1, 2, 3), 500),
        ("epsilon", (2, 5), [40, 999]),
        ("v_prediction", (1, 4, 2), 850),
    )
    for kind, shape, t in cases:
        schedule = Schedule(ScheduleConfig(prediction_type=kind))
        prediction, x = torch.randn(2, *shape, generator=generator)
        words = f"{kind}, the rates of t = {t}"
        yield Case(words, schedule, prediction, x, *schedule.rates(torch.tensor(t) if isinstance(t, list) else t, x))


def curve(x: Tensor, t: Tensor) -> Tensor:
    """Stands for a network that gets a t for each picture, (B,): smooth in x, and different at every timestep."""
    return torch.sin(2 * x + t.view(-1, *[1] * (x.ndim - 1)) / 300)


def batches(generator: torch.Generator) -> Iterator[Case]:
    """x_0 and noise (B, ...), t (B,), and schedules that ask for each kind of prediction."""
    for kind, shape in (("epsilon", (3, 4, 5, 2)), ("v_prediction", (5, 2)), ("sample", (2, 7, 3))):
        x0, noise = torch.randn(2, *shape, generator=generator)
        t = torch.randint(50, 1000, shape[:1], generator=generator)
        schedule = Schedule(ScheduleConfig(prediction_type=kind))
        yield Case(f"the network predicts {kind}, shape {shape}", curve, x0, noise, t, schedule)


def wave(x: Tensor, t: float) -> Tensor:
    """Stands for a network that gets one t for all pictures."""
    return torch.sin(x + t / 300)


def nudge(x: Tensor, i: int) -> Tensor:
    """Stands for inpainting's `project`, which changes x after every network call."""
    return x + 0.01 * (i + 1)


def starts(generator: torch.Generator) -> Iterator[Case]:
    """Noise (B, ...), grids of some steps, each kind of prediction, and generators with some seed."""
    cases = (((2, 3, 5), 4, "epsilon"), ((3, 2), 7, "v_prediction"), ((1, 4, 3, 2), 3, "sample"), ((2, 2), 1, "sample"))
    for i, (shape, count, kind) in enumerate(cases):
        schedule = Schedule(ScheduleConfig(prediction_type=kind, timestep_spacing="trailing"))
        x, own = torch.randn(shape, generator=generator), torch.Generator().manual_seed(i)
        words = f"{count} step{'s' * (count > 1)}, the network predicts {kind}"
        yield Case(words, wave, x, make_grid(schedule, count), schedule, own, nudge)


EXERCISES = (
    Exercise(
        "02.posterior",
        Schedule.posterior,
        pairs,
        difficulty=3,
        minutes=10,
        part="schedule",
        sampler="ddpm",
        box="sampler",
    ),
    Exercise("02.x0_at", Schedule.x0_at, predictions, difficulty=2, minutes=5, part="schedule", box="sampler"),
    Exercise("02.simple_loss", simple_loss, batches, difficulty=1, minutes=5),
    Exercise("02.ddpm", ddpm, starts, difficulty=2, minutes=10, part="ddpm", box="sampler"),
)
