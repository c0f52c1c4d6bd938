"""The exercises of lesson 03. The classic mistakes are in hints/03.en.md."""

from collections.abc import Iterator

import torch
from torch import Tensor

from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.lessons.exercises.exercise import Case, Exercise
from sdlearn.lessons.mcmc import Point, langevin_step, leapfrog, mala_log_acceptance, to_score
from sdlearn.lessons.toy import GaussianMixture

ISLANDS = GaussianMixture(
    torch.tensor([[-1.0, 0.3], [0.8, -0.5]]), torch.tensor([[0.5, 0.8], [0.7, 0.4]]), torch.tensor([0.4, 0.6])
)


def arrows(generator: torch.Generator) -> Iterator[Case]:
    """Where the chains are, the score there, a step size, and a generator for the noise."""
    for i, (words, shape, step_size) in enumerate(
        (
            ("five points in the plane", (5, 2), 0.3),
            ("three tensors of latents, a small step", (3, 4, 5, 7), 0.04),
            ("a single point in three dimensions, a step size above 2", (1, 3), 2.5),
        )
    ):
        x, score = torch.randn(2, *shape, generator=generator)
        yield Case(words, x, score, step_size, torch.Generator().manual_seed(i))


def predictions(generator: torch.Generator) -> Iterator[Case]:
    """A prediction and x_t (B, ...), t for all or one for each, and schedules of all prediction types."""
    for words, shape, t, kind in (
        ("three points in the plane, a network that predicts the noise, t = 700", (3, 2), 700, "epsilon"),
        ("a network that predicts v, t = 999, the last timestep", (2, 1, 3, 7), 999, "v_prediction"),
        ("a network that predicts x_0, t = 0, the first timestep", (4, 2), 0, "sample"),
        ("a t for each of the batch", (3, 4, 5, 6), torch.tensor([999, 40, 0]), "epsilon"),
    ):
        prediction, x = torch.randn(2, *shape, generator=generator)
        yield Case(words, prediction, x, t, Schedule(ScheduleConfig(prediction_type=kind)))


def moves(generator: torch.Generator) -> Iterator[Case]:
    """x, log density and score at both ends of a move, and the step size."""
    for words, shape, step_size in (
        ("seven points in the plane", (7, 2), 0.5),
        ("six matrices, a step size above 1", (6, 3, 2), 1.5),
        ("nine numbers, each a point", (9, 1), 0.8),
    ):
        start, end = (
            Point(*(torch.randn(size, generator=generator) for size in (shape, shape[:1], shape))) for _ in range(2)
        )
        yield Case(words, start, end, step_size)


def bowl(x: Tensor) -> Tensor:
    """The score of a normal distribution with variance 4."""
    return -x / 4


def balls(generator: torch.Generator) -> Iterator[Case]:
    """A score, x and momentum (B, ...), a step size, and how many steps."""
    for words, score, shape, step_size, steps in (
        ("five balls on two islands, 4 steps", ISLANDS.score, (5, 2), 0.3, 4),
        ("one step", ISLANDS.score, (3, 2), 0.5, 1),
        ("tensors of latents in a bowl, 3 steps", bowl, (2, 3, 4, 5), 0.7, 3),
    ):
        x, momentum = torch.randn(2, *shape, generator=generator)
        yield Case(words, score, x, momentum, step_size, steps)


EXERCISES = (
    Exercise("03.langevin_step", langevin_step, arrows, difficulty=1, minutes=6),
    Exercise("03.to_score", to_score, predictions, difficulty=1, minutes=6),
    Exercise("03.mala_log_acceptance", mala_log_acceptance, moves, difficulty=3, minutes=12, core=False),
    Exercise("03.leapfrog", leapfrog, balls, difficulty=2, minutes=8, core=False),
)
