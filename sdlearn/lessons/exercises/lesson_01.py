"""The exercises of lesson 01."""

from collections.abc import Iterator

import torch

from sdlearn.diffusion.schedule import Schedule, ScheduleConfig, make_betas, rescale_zero_snr
from sdlearn.lessons.exercises.exercise import Case, Exercise

SCALED = ScheduleConfig()
LINEAR = ScheduleConfig(beta_schedule="linear", beta_start=0.0001, beta_end=0.02)
COSINE = ScheduleConfig(beta_schedule="squaredcos_cap_v2")
SHORT = ScheduleConfig(num_train_timesteps=7, beta_start=0.1, beta_end=0.4)
ZERO_SNR = ScheduleConfig(rescale_betas_zero_snr=True)


def steps(generator: torch.Generator) -> Iterator[Case]:
    """x and noise (B, ...), and the number of the step."""
    for words, config, shape, t in (
        ("linear, t = 500", LINEAR, (3, 7), 500),
        ("scaled_linear, t = 999, the last step", SCALED, (2, 3, 5, 4), 999),
        ("cosine, t = 120", COSINE, (1, 4, 3, 5), 120),
        ("scaled_linear, t = 0, the first step", SCALED, (2, 1, 3), 0),
        ("a schedule of 7 steps, t = 6, its last", SHORT, (5,), 6),
    ):
        x, noise = torch.randn(2, *shape, generator=generator)
        yield Case(words, Schedule(config), x, noise, t)


def jumps(generator: torch.Generator) -> Iterator[Case]:
    """x_0 and noise (B, ...), and t, one for all or one for each picture.

    Where t is a tensor (B,), the last dimension is also B: a t that isn't reshaped runs, and is named as a mistake.
    They are in no order, and one comes twice: a t that is sorted is found out.
    """
    for words, config, shape, t in (
        ("scaled_linear, t = 700 for all pictures", SCALED, (2, 3, 5, 4), 700),
        ("linear, a t for each of four, [640, 0, 999, 640]", LINEAR, (4, 4), [640, 0, 999, 640]),
        ("cosine, a t for each of two, [40, 600]", COSINE, (2, 4, 3, 2), [40, 600]),
        ("scaled_linear, t = 0, the first step", SCALED, (2, 1, 3), 0),
        ("a schedule of 7 steps, one picture, t = [6], the last", SHORT, (1, 2, 1), [6]),
        ("zero SNR at the end, t = 999, the last step", ZERO_SNR, (1, 4, 3, 5), 999),
    ):
        x0, noise = torch.randn(2, *shape, generator=generator)
        yield Case(words, Schedule(config), x0, noise, torch.tensor(t) if isinstance(t, list) else t)


def timesteps(generator: torch.Generator) -> Iterator[Case]:
    """One timestep, or several."""
    for words, config, t in (
        ("scaled_linear, t = 350", SCALED, 350),
        ("linear, several t, [12, 480, 77, 903]", LINEAR, [12, 480, 77, 903]),
        ("cosine, two t, [3, 800]", COSINE, [3, 800]),
        ("scaled_linear, t = 0, the first step", SCALED, 0),
        ("scaled_linear, the first and the last step, t = [0, 999]", SCALED, [0, 999]),
        ("a schedule of 7 steps, t = 6, its last", SHORT, 6),
    ):
        yield Case(words, Schedule(config), torch.tensor(t) if isinstance(t, list) else t)


def configs(generator: torch.Generator) -> Iterator[Case]:
    """Schedules of each kind, with odd numbers of timesteps and odd ends, some of them rescaled."""
    for words, T, kind, ends, zero_snr in (
        ("scaled_linear, 7 timesteps, from 0.003 to 0.05", 7, "scaled_linear", (0.003, 0.05), False),
        ("scaled_linear, 13 timesteps, rescaled to zero SNR", 13, "scaled_linear", (0.05, 0.3), True),
        ("linear, 5 timesteps, from 0.01 to 0.3", 5, "linear", (0.01, 0.3), False),
        ("linear, 2 timesteps, the fewest", 2, "linear", (0.2, 0.4), False),
        ("squaredcos_cap_v2, 11 timesteps", 11, "squaredcos_cap_v2", (0.0001, 0.02), False),
        ("squaredcos_cap_v2, 4 timesteps, rescaled to zero SNR", 4, "squaredcos_cap_v2", (0.1, 0.2), True),
    ):
        start, end = ends
        config = ScheduleConfig(
            num_train_timesteps=T,
            beta_schedule=kind,
            beta_start=start,
            beta_end=end,
            rescale_betas_zero_snr=zero_snr,
        )
        yield Case(words, config)


def betas(generator: torch.Generator) -> Iterator[Case]:
    """betas (T,) of several lengths."""
    for n in (3, 7, 20):
        yield Case(f"{n} random betas", torch.rand(n, generator=generator) * 0.3 + 0.02)
    yield Case("two equal betas, the fewest", torch.full((2,), 0.4))


EXERCISES = (
    Exercise("01.add_one_step", Schedule.add_one_step, steps, difficulty=1, minutes=4, box="noise"),
    Exercise("01.add_noise", Schedule.add_noise, jumps, difficulty=1, minutes=5, box="noise"),
    Exercise("01.snr", Schedule.snr, timesteps, difficulty=1, minutes=3, box="noise"),
    Exercise("01.make_betas", make_betas, configs, difficulty=2, minutes=10, box="noise", core=False),
    Exercise("01.rescale_zero_snr", rescale_zero_snr, betas, difficulty=2, minutes=8, box="noise", core=False),
)
