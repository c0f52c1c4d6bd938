"""The exercises of lesson 03."""

import torch
from torch import Tensor

from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.lessons.exercises.exercise import Bug, Exercise
from sdlearn.lessons.mcmc import Point, langevin_step, leapfrog, mala_log_acceptance, to_score
from sdlearn.lessons.toy import GaussianMixture

ISLANDS = GaussianMixture(
    torch.tensor([[-1.0, 0.3], [0.8, -0.5]]), torch.tensor([[0.5, 0.8], [0.7, 0.4]]), torch.tensor([0.4, 0.6])
)


def arrows(generator: torch.Generator) -> list[tuple]:
    """Where the chains are, the score there, a step size, and a generator for the noise."""
    cases = (((5, 2), 0.3), ((3, 4, 5, 7), 0.04), ((1, 3), 2.5))
    return [
        (*torch.randn(2, *shape, generator=generator), step_size, torch.Generator().manual_seed(i))
        for i, (shape, step_size) in enumerate(cases)
    ]


def predictions(generator: torch.Generator) -> list[tuple]:
    """A prediction and x_t (B, C, H, W), t for all or one for each, and schedules of all prediction types."""
    cases = (((3, 4, 5, 6), 700, "epsilon"), ((2, 1, 3, 7), 250, "v_prediction"), ((4, 2), 500, "sample"))
    one = [
        (*torch.randn(2, *shape, generator=generator), t, Schedule(ScheduleConfig(prediction_type=kind)))
        for shape, t, kind in cases
    ]
    each = (*torch.randn(2, 3, 4, 5, 6, generator=generator), torch.tensor([999, 40, 400]), Schedule(ScheduleConfig()))
    return [*one, each]


def moves(generator: torch.Generator) -> list[tuple]:
    """x, log density and score at both ends of a move, and the step size."""
    cases = (((7, 2), 0.5), ((6, 3, 2), 1.5), ((9, 1), 0.8))
    return [
        (*(torch.randn(size, generator=generator) for size in (shape, shape[:1], shape) * 2), step_size)
        for shape, step_size in cases
    ]


def accept(
    part,
    x: Tensor,
    log_density: Tensor,
    score: Tensor,
    x_end: Tensor,
    log_density_end: Tensor,
    score_end: Tensor,
    h: float,
) -> Tensor:
    return part(Point(x, log_density, score), Point(x_end, log_density_end, score_end), h)


def balls(generator: torch.Generator) -> list[tuple]:
    """A score, x and momentum (B, 2), a step size, and how many steps."""
    cases = ((5, 0.3, 4), (3, 0.5, 1), (7, 0.2, 3))
    return [(ISLANDS.score, *torch.randn(2, count, 2, generator=generator), h, steps) for count, h, steps in cases]


# The three parts of `leapfrog`: before the loop, in it, and after it.
FIRST = "    momentum = momentum + step_size / 2 * score(x)\n    for _ in range(leapfrog_steps - 1):\n"
ROUND = "        x = x + step_size * momentum\n        momentum = momentum + step_size * score(x)\n"
LAST = "    x = x + step_size * momentum\n    momentum = momentum + step_size / 2 * score(x)\n"

EXERCISES = (
    Exercise(
        id="03.langevin_step",
        reference=langevin_step,
        cases=arrows,
        bugs=(
            Bug(
                "the noise is multiplied by the step size, not its root: variance and standard deviation are mixed up",
                "the two reasons above equation (2)",
                (("math.sqrt(step_size) * noise", "step_size * noise"),),
            ),
            Bug(
                "the half is missing: the arrow counts twice as much as the noise allows",
                "equation (2)",
                (("step_size / 2 * score", "step_size * score"),),
            ),
            Bug(
                "the noise has the factor sqrt(2 · step size), which belongs to a drift without the half",
                "the note on two conventions below equation (2)",
                (("math.sqrt(step_size)", "math.sqrt(2 * step_size)"),),
            ),
            Bug(
                "the sign of the score is swapped: this walks away from where points are likely",
                "equation (1)",
                (("x + drift", "x - drift"),),
            ),
            Bug(
                "the noise is missing: all points end on the peaks",
                "the film",
                ((" + math.sqrt(step_size) * noise", ""),),
            ),
            Bug(
                "the step size is taken for the standard deviation of the noise; it is its variance",
                "equation (2)",
                (
                    ("step_size / 2 * score", "step_size**2 / 2 * score"),
                    ("math.sqrt(step_size)", "step_size"),
                ),
            ),
            Bug(
                "this is a step of twice the size, h · score and sqrt(2h) · z, as others count it",
                "the note on two conventions below equation (2)",
                (
                    ("step_size / 2 * score", "step_size * score"),
                    ("math.sqrt(step_size)", "math.sqrt(2 * step_size)"),
                ),
            ),
            Bug(
                "the noise isn't scaled: its variance is 1, must be the step size",
                "equation (2)",
                (("math.sqrt(step_size) * noise", "noise"),),
            ),
        ),
        difficulty=1,
        minutes=6,
    ),
    Exercise(
        id="03.to_score",
        reference=to_score,
        cases=predictions,
        bugs=(
            Bug(
                "the sign is missing: the score points against the noise",
                "equation (5)",
                (("-epsilon", "epsilon"),),
            ),
            Bug(
                "it is divided by the variance, not by the noise rate",
                "equation (4): one of the two noise rates cancels",
                (("/ noise_rate", "/ noise_rate**2"),),
            ),
            Bug(
                "it is divided by sigma = noise rate / signal rate, as belongs to x_0 + sigma · epsilon",
                "the note on coordinates below equation (5)",
                (
                    ("_, noise_rate", "signal_rate, noise_rate"),
                    ("epsilon / noise_rate", "epsilon * signal_rate / noise_rate"),
                ),
            ),
            Bug(
                "it is multiplied by the noise rate, must be divided",
                "equation (5)",
                (("/ noise_rate", "* noise_rate"),),
            ),
            Bug(
                "the noise is not divided by the noise rate: this is epsilon with the other sign",
                "equation (5)",
                (("-epsilon / noise_rate", "-epsilon"),),
            ),
            Bug(
                "the raw prediction is taken for epsilon; a network may also predict v or x_0",
                "the task: schedule.to_epsilon",
                (("schedule.to_epsilon(prediction, x, t)", "prediction"),),
            ),
            Bug(
                "it is divided by the signal rate; schedule.rates returns the signal rate first",
                "equation (5)",
                (("_, noise_rate", "noise_rate, _"),),
            ),
        ),
        difficulty=1,
        minutes=6,
    ),
    Exercise(
        id="03.mala_log_acceptance",
        reference=mala_log_acceptance,
        cases=moves,
        bugs=(
            Bug(
                "the proposal's densities are missing: Metropolis's rule, for proposals as likely back as there",
                "equation (8)",
                ((" + log_q_back - log_q_there", ""),),
            ),
            Bug(
                "the proposal's ratio is upside down: the way back belongs above the line",
                "equation (8)",
                (("log_q_back - log_q_there", "log_q_there - log_q_back"),),
            ),
            Bug(
                "start and end have changed places in the ratio of the densities",
                "equation (8)",
                (("end.log_density - start.log_density", "start.log_density - end.log_density"),),
            ),
            Bug(
                "the way back starts at the end, so it needs the score at the end",
                "the sentence below equation (8)",
                (("step_size / 2 * end.score", "step_size / 2 * start.score"),),
            ),
            Bug(
                "the square is divided by the variance, not by twice the variance",
                "the density of a normal distribution, below equation (8)",
                (
                    (
                        "-(way_there**2).flatten(1).sum(1) / (2 * step_size)",
                        "-(way_there**2).flatten(1).sum(1) / step_size",
                    ),
                    (
                        "-(way_back**2).flatten(1).sum(1) / (2 * step_size)",
                        "-(way_back**2).flatten(1).sum(1) / step_size",
                    ),
                ),
            ),
            Bug(
                "the probability may come out above 1: the smaller of it and 1 is missing",
                "equation (8)",
                ((".clamp(max=0)", ""),),
            ),
            Bug(
                "the squares are not divided by twice the variance",
                "the density of a normal distribution, below equation (8)",
                (
                    ("-(way_there**2).flatten(1).sum(1) / (2 * step_size)", "-(way_there**2).flatten(1).sum(1)"),
                    ("-(way_back**2).flatten(1).sum(1) / (2 * step_size)", "-(way_back**2).flatten(1).sum(1)"),
                ),
            ),
            Bug(
                "the squares are divided by 2, but not by the variance, which is the step size",
                "the density of a normal distribution, below equation (8)",
                (
                    ("-(way_there**2).flatten(1).sum(1) / (2 * step_size)", "-(way_there**2).flatten(1).sum(1) / 2"),
                    ("-(way_back**2).flatten(1).sum(1) / (2 * step_size)", "-(way_back**2).flatten(1).sum(1) / 2"),
                ),
            ),
            Bug(
                "the half is missing: the proposal is normal around x + step_size / 2 · score",
                "equation (2)",
                (
                    ("step_size / 2 * start.score", "step_size * start.score"),
                    ("step_size / 2 * end.score", "step_size * end.score"),
                ),
            ),
            Bug(
                "brackets are missing: the whole mean of the proposal is subtracted, also the part with the score",
                "equation (2)",
                (
                    ("(start.x + step_size / 2 * start.score)", "start.x + step_size / 2 * start.score"),
                    ("(end.x + step_size / 2 * end.score)", "end.x + step_size / 2 * end.score"),
                ),
            ),
            Bug(
                "the larger of it and 1 is taken, must be the smaller",
                "equation (8)",
                ((".clamp(max=0)", ".clamp(min=0)"),),
            ),
            Bug(
                "the probability is clamped at 1, but this is its logarithm: log 1 is 0",
                "equation (8)",
                ((".clamp(max=0)", ".clamp(max=1)"),),
            ),
            Bug(
                "this is the probability, must be its logarithm",
                "the task: the logarithm of (8)",
                ((".clamp(max=0)", ".clamp(max=0).exp()"),),
            ),
        ),
        difficulty=3,
        minutes=12,
        run=accept,
    ),
    Exercise(
        id="03.leapfrog",
        reference=leapfrog,
        cases=balls,
        bugs=(
            Bug(
                "the first half step of the momentum is a whole one",
                "equation (9)",
                (
                    (
                        "momentum = momentum + step_size / 2 * score(x)\n    for",
                        "momentum = momentum + step_size * score(x)\n    for",
                    ),
                ),
            ),
            Bug(
                "the half step of the momentum at the end is missing: position and momentum belong to different times",
                "equation (9)",
                (("momentum = momentum + step_size / 2 * score(x)\n    return", "return"),),
            ),
            Bug(
                "there are no half steps: that is Euler's method in turns, and it isn't reversible",
                "equation (9)",
                (
                    (
                        "    momentum = momentum + step_size / 2 * score(x)\n    for",
                        "    momentum = momentum + step_size * score(x)\n    for",
                    ),
                    ("    momentum = momentum + step_size / 2 * score(x)\n    return", "    return"),
                ),
            ),
            Bug(
                "the force has the wrong sign: the ball rolls uphill, away from where points are likely",
                "the sentence above equation (9): the score is the force",
                (
                    (
                        "momentum = momentum + step_size / 2 * score(x)\n    for",
                        "momentum = momentum - step_size / 2 * score(x)\n    for",
                    ),
                    ("momentum = momentum + step_size * score(x)", "momentum = momentum - step_size * score(x)"),
                    (
                        "momentum = momentum + step_size / 2 * score(x)\n    return",
                        "momentum = momentum - step_size / 2 * score(x)\n    return",
                    ),
                ),
            ),
            Bug(
                "one step too many: the last step of x stands after the loop",
                "the task: how often x moves",
                (("range(leapfrog_steps - 1)", "range(leapfrog_steps)"),),
            ),
            Bug(
                "this is Euler's rule: both move at once, from where the ball was",
                "equation (9)",
                (
                    (FIRST, "    for _ in range(leapfrog_steps):\n"),
                    (
                        ROUND + LAST,
                        "        x, momentum = x + step_size * momentum, momentum + step_size * score(x)\n",
                    ),
                ),
            ),
            Bug(
                "there are no half steps, and x goes first",
                "equation (9)",
                ((FIRST, "    for _ in range(leapfrog_steps):\n"), (ROUND + LAST, ROUND)),
            ),
            Bug(
                "the momentum goes half a step between two steps of x: two halves meet there",
                "equation (9)",
                (("momentum + step_size * score(x)", "momentum + step_size / 2 * score(x)"),),
            ),
            Bug(
                "one step too few: x goes as often as leapfrog_steps says",
                "the task: how often x moves",
                (
                    (
                        "    x = x + step_size * momentum\n    momentum = momentum + step_size / 2 * score(x)\n",
                        "    momentum = momentum + step_size / 2 * score(x)\n",
                    ),
                ),
            ),
            Bug(
                "the momentum is turned round at the end; the method itself doesn't do so",
                "equation (9)",
                (("return x, momentum", "return x, -momentum"),),
            ),
        ),
        difficulty=2,
        minutes=8,
    ),
)
