"""Exercises of each kind that the tests of the machinery use: a method, a network, a sampler."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import sdlearn
from sdlearn.diffusion.grids import make_grid_euler
from sdlearn.diffusion.guidance import combine
from sdlearn.diffusion.samplers import ddim, euler
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig, simple_loss
from sdlearn.lessons.exercises import source
from sdlearn.lessons.exercises.exercise import Case, Exercise
from sdlearn.lessons.exercises.hints import Bug
from sdlearn.lessons.mcmc import langevin_step
from sdlearn.models.blocks import ResnetBlock
from sdlearn.pictures import to_pixels


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


def combine_cases(generator: torch.Generator) -> Iterator[Case]:
    for shape, scale in (((3, 4, 5, 6), 3.5), ((1, 4, 7, 3), 7.5), ((2, 1, 1, 9), 0.25)):
        yield Case(f"guidance_scale = {scale}", *torch.randn(2, *shape, generator=generator), scale)


def pixel_cases(generator: torch.Generator) -> Iterator[Case]:
    for shape in ((2, 3, 5, 7), (1, 3, 1, 9), (3, 3, 4, 2)):
        yield Case(f"shape {shape}", torch.rand(shape, generator=generator) * 2.2 - 1.1)


def snr_cases(generator: torch.Generator) -> Iterator[Case]:
    for t in (0, 350, torch.tensor([0, 3, 800, 999])):
        yield Case(f"t = {t}", Schedule(ScheduleConfig()), t)


def posterior_cases(generator: torch.Generator) -> Iterator[Case]:
    for t, previous in ((500, 480), (40, -20), (999, 0)):
        x0, x = torch.randn(2, 3, 7, generator=generator)
        yield Case(f"from {t} to {previous}", Schedule(ScheduleConfig()), x0, x, t, previous)


def each_t_cases(generator: torch.Generator) -> Iterator[Case]:
    for t in ([1, 250, 999], [5, 6, 7], [400, 20, 3]):
        x0, noise = torch.randn(2, 3, 7, generator=generator)
        yield Case(f"t = {t}", Schedule(ScheduleConfig()), x0, noise, torch.tensor(t))


def step_cases(generator: torch.Generator) -> Iterator[Case]:
    for t in (0, 500, 999):
        yield Case(f"t = {t}", Schedule(ScheduleConfig()), *torch.randn(2, 3, 7, generator=generator), t)


def langevin_cases(generator: torch.Generator) -> Iterator[Case]:
    for i, step_size in enumerate((0.3, 0.04, 2.5)):
        x, score = torch.randn(2, 5, 2, generator=generator)
        yield Case(f"step_size = {step_size}", x, score, step_size, torch.Generator().manual_seed(i + 1))


def loss_cases(generator: torch.Generator) -> Iterator[Case]:
    for shape in ((3, 4, 5), (5, 2), (2, 7, 3)):
        x0, noise = torch.randn(2, *shape, generator=generator)
        t = torch.randint(50, 1000, shape[:1], generator=generator)
        yield Case(f"shape {shape}", lambda x, t: torch.sin(2 * x), x0, noise, t, Schedule(ScheduleConfig()))


def euler_cases(generator: torch.Generator) -> Iterator[Case]:
    for count, kind in ((4, "epsilon"), (7, "v_prediction"), (1, "epsilon")):
        schedule = Schedule(ScheduleConfig(prediction_type=kind))
        x, grid = torch.randn(2, 3, generator=generator), make_grid_euler(schedule, count)
        words = f"{count} steps, {kind}"
        yield Case(words, lambda x, t: torch.sin(x + t / 300), x, grid, schedule, None, lambda x, i: x + i)


# Exercises of the lessons with cases of their own and without bugs, so that the lessons may change theirs.
EXAMPLES = {
    id: Exercise(id, reference, made, difficulty=1, minutes=1)
    for id, reference, made in (
        ("00.combine", combine, combine_cases),
        ("00.to_pixels", to_pixels, pixel_cases),
        ("01.snr", Schedule.snr, snr_cases),
        ("01.add_noise", Schedule.add_noise, each_t_cases),
        ("01.add_one_step", Schedule.add_one_step, step_cases),
        ("02.posterior", Schedule.posterior, posterior_cases),
        ("02.simple_loss", simple_loss, loss_cases),
        ("03.langevin_step", langevin_step, langevin_cases),
        ("04.euler", euler, euler_cases),
    )
}
