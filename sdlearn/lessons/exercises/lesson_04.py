"""The exercises of lesson 04."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sdlearn.diffusion.grids import Grid, make_grid, make_grid_euler, make_grid_heun
from sdlearn.diffusion.samplers import Denoise, Project, Step, adams_bashforth, ddim, euler, heun
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.lessons.exercises.exercise import Case, Exercise


def nudge(x: Tensor, i: int) -> Tensor:
    """Stands for inpainting's `project`. It shrinks x, too: so it makes a difference whether noise is added before."""
    return 0.9 * x + 0.01 * (i + 1)


KINDS = (
    (4, "epsilon", "leading", (2, 3, 5), nudge),
    (7, "v_prediction", "trailing", (1, 4, 3, 2), nudge),
    (1, "epsilon", "trailing", (3, 1), nudge),
    (3, "sample", "linspace", (2, 2), None),
)


def predict(x: Tensor, t: float) -> Tensor:
    """Stands for the network: smooth in x, and different at every timestep."""
    return 0.7 * x + 0.2 * torch.sin(2 * x + t / 300)


def in_words(steps: int, kind: str, spacing: str, project: Project | None) -> str:
    return f"{steps} step{'s' * (steps > 1)}, {kind}, {spacing}" + ", no project" * (project is None)


def euler_starts(generator: torch.Generator) -> Iterator[Case]:
    """Noise (B, ...), some steps, each kind of prediction, each spacing, with and without `project`."""
    for steps, kind, spacing, shape, project in KINDS:
        schedule = Schedule(ScheduleConfig(prediction_type=kind))
        x, grid = torch.randn(shape, generator=generator), make_grid_euler(schedule, steps, spacing)
        yield Case(in_words(steps, kind, spacing, project), predict, x, grid, schedule, None, project)


def ddim_starts(generator: torch.Generator) -> Iterator[Case]:
    """The same, each with eta from 0 to 1; eta 0 needs no generator. Then what is easily forgotten."""
    for (steps, kind, spacing, shape, project), eta in zip((*KINDS, KINDS[0]), (0.0, 0.3, 0.7, 0.5, 1.0), strict=True):
        schedule = Schedule(ScheduleConfig(prediction_type=kind, set_alpha_to_one=spacing == "trailing"))
        x, grid = torch.randn(shape, generator=generator), make_grid(schedule, steps, spacing)
        own = torch.Generator().manual_seed(1) if eta > 0 else None
        words = f"{in_words(steps, kind, spacing, project)}, eta = {eta}"
        yield Case(words, predict, x, grid, schedule, own, project, eta)

    schedule = Schedule(ScheduleConfig())
    x, grid = torch.randn(3, 2, 5, generator=generator), make_grid(schedule, 5)
    seeds = [torch.Generator().manual_seed(i) for i in range(3)]
    yield Case("a list of generators, one for each picture, eta = 0.6", predict, x, grid, schedule, seeds, nudge, 0.6)
    yield Case("the last 2 of 5 steps, as in image to image", predict, x, grid.tail(2), schedule, None, nudge, 0.0)
    yield Case("eta isn't given", predict, x, grid, schedule, None, nudge)
    own = torch.Generator().manual_seed(2)
    yield Case("eta = 0, with a generator that must stay as it is", predict, x, grid, schedule, own, nudge, 0.0)
    yield Case("eta = 0.5 without a generator", predict, x, grid, schedule, None, nudge, 0.5)
    for eta in (1.5, -0.5):
        yield Case(f"eta = {eta}", predict, x, grid, schedule, torch.Generator().manual_seed(3), nudge, eta)


def ddim_with_words(
    part: Callable[..., Iterator[Step]],
    denoise: Denoise,
    x: Tensor,
    grid: Grid,
    schedule: Schedule,
    generator: torch.Generator | list[torch.Generator] | None = None,
    project: Project | None = None,
    eta: float | None = None,
) -> Iterator[Step] | str:
    """The steps; in words whether a wrong eta was refused, and at eta 0 whether a generator was left as it is."""
    given = {"generator": generator, "project": project} | ({} if eta is None else {"eta": eta})
    if eta is not None and (not 0 <= eta <= 1 or (eta > 0 and generator is None)):
        uncounted = getattr(denoise, "network", denoise)  # that it isn't refused matters more than the calls
        try:
            list(itertools.islice(part(uncounted, x, grid, schedule, **given) or (), 1))
        except ValueError:
            return "a ValueError"
        return "no error"
    state = generator.get_state() if isinstance(generator, torch.Generator) else None
    steps = part(denoise, x, grid, schedule, **given)
    if eta != 0 or state is None or not isinstance(steps, Iterator):
        return steps
    list(itertools.islice(steps, len(grid)))
    return "no noise drawn" if torch.equal(generator.get_state(), state) else "noise drawn"


def heun_starts(generator: torch.Generator) -> Iterator[Case]:
    """As for Euler; each step but the last has two entries in the grid, one for each network call."""
    for steps, kind, spacing, shape, project in KINDS:
        schedule = Schedule(ScheduleConfig(prediction_type=kind))
        x, grid = torch.randn(shape, generator=generator), make_grid_heun(schedule, steps, spacing)
        yield Case(in_words(steps, kind, spacing, project), predict, x, grid, schedule, None, project)


def counts(generator: torch.Generator) -> Iterator[Case]:
    """How many values there are: few, and so many that single precision shows. Then the dtype."""
    for n, more in ((2, ""), (3, ""), (1, ""), (4, ""), (6, "; any n must work"), (9, ", where float32 is too coarse")):
        yield Case(f"n = {n}{more}", n)
    yield Case("the dtype", 5, True)


def weights_or_dtype(part: Callable[..., Any], n: int, only_dtype: bool = False) -> Any:
    """The weights, or what sort of numbers they are."""
    weights = part(n)
    return str(getattr(weights, "dtype", "float64")).removeprefix("torch.") if only_dtype else weights


EXERCISES = (
    Exercise("04.euler", euler, euler_starts, difficulty=1, minutes=6, part="euler", box="sampler"),
    Exercise("04.ddim", ddim, ddim_starts, difficulty=2, minutes=12, run=ddim_with_words, part="ddim", box="sampler"),
    Exercise("04.heun", heun, heun_starts, difficulty=3, minutes=12, part="heun", box="sampler", core=False),
    Exercise(
        "04.adams_bashforth",
        adams_bashforth,
        counts,
        difficulty=3,
        minutes=10,
        run=weights_or_dtype,
        box="sampler",
        core=False,
    ),
)
