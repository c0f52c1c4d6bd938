"""Exercises of each kind that the tests of the machinery use: a method, a network, a sampler."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import sdlearn
from sdlearn.diffusion.samplers import ddim
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.lessons.exercises import source
from sdlearn.lessons.exercises.exercise import Case, Exercise
from sdlearn.lessons.exercises.hints import Bug
from sdlearn.models.blocks import ResnetBlock


def add_noise_cases(generator: torch.Generator) -> Iterator[Case]:
    """One timestep for all, one for each, and another schedule."""
    for shape, t in (((2, 3, 5), 700), ((2, 1, 7), torch.tensor([3, 998])), ((1, 9), 40)):
        x0, noise = torch.randn(2, *shape, generator=generator)
        yield Case(f"shape {shape}", Schedule(ScheduleConfig()), x0, noise, t)


METHOD = Exercise(
    id="97.add_noise",
    reference=Schedule.add_noise,
    cases=add_noise_cases,
    difficulty=1,
    minutes=5,
    box="noise",
    bugs=(
        Bug("signal and noise are swapped", "equation (2)", (("signal_rate * x0", "noise_rate * x0"),)),
        Bug("no root", "equation (2)", (("signal_rate * x0", "signal_rate**2 * x0"),)),
    ),
)


def block_cases(generator: torch.Generator) -> list[Case]:
    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return [
        Case("more channels come out", (4, 6, 5, 2), random(2, 4, 5, 3), random(2, 5)),
        Case("no time", {"in_channels": 4, "out_channels": 4, "groups": 2}, random(1, 4, 3, 7)),
        Case("fewer channels come out", (6, 2, 3, 2), random(3, 6, 2, 2), random(3, 3)),
    ]


MODULE = Exercise(
    id="97.resnet_block",
    reference=ResnetBlock,
    cases=block_cases,
    difficulty=2,
    minutes=10,
    part="resnet_block",
    box="UNet",
    gradients=True,
    bugs=(
        Bug("the input isn't added", "the picture", (("return x + hidden", "return hidden"),)),
        Bug("this one stops", "nowhere", (("return x + hidden", "return x + unknown"),)),
    ),
)


def ddim_cases(generator: torch.Generator) -> Iterator[Case]:
    schedule = Schedule(ScheduleConfig())
    for shape, n in (((2, 3), 4), ((1, 5), 7), ((3, 1, 2), 3)):
        x = torch.randn(shape, generator=generator)
        yield Case(f"{n} steps", lambda x, t: torch.sin(x), x, sdlearn.make_grid(schedule, n), schedule)


SAMPLER = Exercise(
    id="97.ddim",
    reference=ddim,
    cases=ddim_cases,
    difficulty=3,
    minutes=15,
    part="ddim",
    box="sampler",
    bugs=(
        Bug("it goes one timestep back", "equation (12)", (("t - grid.stride", "t - 1"),)),
        Bug("x_0 is handed on", "equation (12)", (("yield Step(i, t, x, x0)", "yield Step(i, t, x0, x0)"),)),
    ),
)


def written(exercise: Exercise, emptied: bool = False) -> Any:
    """What the solution's cell defines, or the stub's."""
    return source.run_source(source.definition(exercise, emptied))
