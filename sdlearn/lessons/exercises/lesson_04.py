"""The exercises of lesson 04."""

from collections.abc import Iterator

import torch
from torch import Tensor

from sdlearn.diffusion.grids import make_grid, make_grid_euler, make_grid_heun
from sdlearn.diffusion.samplers import adams_bashforth, ddim, euler, heun
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.lessons.exercises.exercise import Case, Exercise
from sdlearn.lessons.exercises.lesson_02 import nudge

KINDS = (
    (4, "epsilon", "leading", (2, 3, 5)),
    (7, "v_prediction", "trailing", (1, 4, 3, 2)),
    (1, "epsilon", "trailing", (3, 1)),
)


def predict(x: Tensor, t: float) -> Tensor:
    """Stands for the network: smooth in x, and different at every timestep."""
    return 0.7 * x + 0.2 * torch.sin(2 * x + t / 300)


def in_words(steps: int, kind: str, spacing: str) -> str:
    return f"{steps} step{'s' * (steps > 1)}, {kind}, {spacing}"


def euler_starts(generator: torch.Generator) -> Iterator[Case]:
    """Noise (B, ...), some steps, each kind of prediction, and two spacings."""
    for steps, kind, spacing, shape in KINDS:
        schedule = Schedule(ScheduleConfig(prediction_type=kind))
        x, grid = torch.randn(shape, generator=generator), make_grid_euler(schedule, steps, spacing)
        yield Case(in_words(steps, kind, spacing), predict, x, grid, schedule, None, nudge)


def ddim_starts(generator: torch.Generator) -> Iterator[Case]:
    """The same, each with eta from 0 to 1. With eta 0 there is no generator, and none is needed."""
    for (steps, kind, spacing, shape), eta in zip((*KINDS, KINDS[0]), (0.0, 0.3, 0.7, 1.0), strict=True):
        schedule = Schedule(ScheduleConfig(prediction_type=kind, set_alpha_to_one=spacing == "trailing"))
        x, grid = torch.randn(shape, generator=generator), make_grid(schedule, steps, spacing)
        own = torch.Generator().manual_seed(1) if eta > 0 else None
        yield Case(f"{in_words(steps, kind, spacing)}, eta = {eta}", predict, x, grid, schedule, own, nudge, eta)


def heun_starts(generator: torch.Generator) -> Iterator[Case]:
    """As for Euler; each step but the last has two entries in the grid, one for each network call."""
    for steps, kind, spacing, shape in KINDS:
        schedule = Schedule(ScheduleConfig(prediction_type=kind))
        x, grid = torch.randn(shape, generator=generator), make_grid_heun(schedule, steps, spacing)
        yield Case(in_words(steps, kind, spacing), predict, x, grid, schedule, None, nudge)


def counts(generator: torch.Generator) -> Iterator[Case]:
    """How many values there are."""
    for n in (1, 2, 3, 4, 6):
        yield Case(f"n = {n}", n)


EXERCISES = (
    Exercise("04.euler", euler, euler_starts, difficulty=1, minutes=6, part="euler", box="sampler"),
    Exercise("04.ddim", ddim, ddim_starts, difficulty=2, minutes=12, part="ddim", box="sampler"),
    Exercise("04.heun", heun, heun_starts, difficulty=3, minutes=12, part="heun", box="sampler"),
    Exercise("04.adams_bashforth", adams_bashforth, counts, difficulty=3, minutes=10, box="sampler"),
)
