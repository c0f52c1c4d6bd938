"""The exercises of lesson 03."""

from collections.abc import Iterator

import torch

from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.lessons.exercises.exercise import Case, Exercise
from sdlearn.lessons.mcmc import Point, langevin_step, leapfrog, mala_log_acceptance, to_score
from sdlearn.lessons.toy import GaussianMixture


def arrows(generator: torch.Generator) -> Iterator[Case]:
    """Where the chains are, the score there, a step size, and a generator for the noise."""
    for i, (shape, step_size) in enumerate((((5, 2), 0.3), ((3, 4, 5, 7), 0.04), ((1, 3), 2.5))):
        x, score = torch.randn(2, *shape, generator=generator)
        yield Case(f"step_size = {step_size}, shape {shape}", x, score, step_size, torch.Generator().manual_seed(i))


def predictions(generator: torch.Generator) -> Iterator[Case]:
    """A prediction and x_t (B, C, H, W), t for all or one for each, and schedules of all prediction types."""
    cases = (
        ((3, 4, 5, 6), 700, "epsilon"),
        ((2, 1, 3, 7), 250, "v_prediction"),
        ((4, 2), 500, "sample"),
        ((3, 4, 5, 6), [999, 40, 400], "epsilon"),
    )
    for shape, t, kind in cases:
        prediction, x = torch.randn(2, *shape, generator=generator)
        schedule = Schedule(ScheduleConfig(prediction_type=kind))
        yield Case(f"{kind}, t = {t}", prediction, x, torch.tensor(t) if isinstance(t, list) else t, schedule)


def moves(generator: torch.Generator) -> Iterator[Case]:
    """x, log density and score at both ends of a move, and the step size."""
    for shape, step_size in (((7, 2), 0.5), ((6, 3, 2), 1.5), ((9, 1), 0.8)):
        ends = [Point(*(torch.randn(one, generator=generator) for one in (shape, shape[:1], shape))) for _ in range(2)]
        yield Case(f"{shape[0]} chains, step_size = {step_size}", *ends, step_size)


def balls(generator: torch.Generator) -> Iterator[Case]:
    """A score, x and momentum (B, 2), a step size, and how many steps."""
    means, stds = torch.tensor([[-1.0, 0.3], [0.8, -0.5]]), torch.tensor([[0.5, 0.8], [0.7, 0.4]])
    islands = GaussianMixture(means, stds, torch.tensor([0.4, 0.6]))
    for count, step_size, steps in ((5, 0.3, 4), (3, 0.5, 1), (7, 0.2, 3)):
        x, momentum = torch.randn(2, count, 2, generator=generator)
        words = f"{steps} step{'s' * (steps > 1)} of size {step_size}"
        yield Case(words, islands.score, x, momentum, step_size, steps)


EXERCISES = (
    Exercise("03.langevin_step", langevin_step, arrows, difficulty=1, minutes=6),
    Exercise("03.to_score", to_score, predictions, difficulty=1, minutes=6),
    Exercise("03.mala_log_acceptance", mala_log_acceptance, moves, difficulty=3, minutes=12),
    Exercise("03.leapfrog", leapfrog, balls, difficulty=2, minutes=8),
)
