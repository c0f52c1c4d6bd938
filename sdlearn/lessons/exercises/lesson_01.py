"""The exercises of lesson 01."""

from collections.abc import Iterator

import torch

from sdlearn.diffusion.schedule import Schedule, ScheduleConfig, make_betas, rescale_zero_snr
from sdlearn.lessons.exercises.exercise import Case, Exercise

CONFIGS = {
    "the default schedule": ScheduleConfig(),
    "a linear schedule": ScheduleConfig(beta_schedule="linear", beta_start=0.0001, beta_end=0.02),
    "the cosine schedule": ScheduleConfig(beta_schedule="squaredcos_cap_v2"),
}
NAMES = tuple(CONFIGS)


def steps(generator: torch.Generator) -> Iterator[Case]:
    """x and noise (B, ...), and the number of the step, for each schedule."""
    cases = (((2, 3, 5, 4), 999), ((3, 7), 500), ((1, 4, 3, 5), 120), ((2, 1, 3), 0))
    for i, (shape, t) in enumerate(cases):
        name = NAMES[i % 3]
        special = {999: ", the last step", 0: ", the first step"}.get(t, "")
        x, noise = torch.randn(2, *shape, generator=generator)
        yield Case(f"{name}, t = {t}{special}", Schedule(CONFIGS[name]), x, noise, t)


def jumps(generator: torch.Generator) -> Iterator[Case]:
    """x_0 and noise (B, ...), and t, one for all or one for each picture."""
    cases = (((2, 3, 5, 4), 700), ((3, 7), [1, 250, 999]), ((2, 4, 3, 5), [40, 600]))
    for name, (shape, t) in zip(NAMES, cases, strict=True):
        x0, noise = torch.randn(2, *shape, generator=generator)
        each = isinstance(t, list)
        words = f"{name}, " + (f"a t for each picture, {t}" if each else f"t = {t} for all pictures")
        yield Case(words, Schedule(CONFIGS[name]), x0, noise, torch.tensor(t) if each else t)


def timesteps(generator: torch.Generator) -> Iterator[Case]:
    """One timestep, or several."""
    several = torch.randint(1, 1000, (5,), generator=generator)
    for name, t in zip(NAMES, (350, several, torch.tensor([3, 800])), strict=True):
        words = f"t = {t}" if isinstance(t, int) else f"several t, {t.tolist()}"
        yield Case(f"{name}, {words}", Schedule(CONFIGS[name]), t)


def configs(generator: torch.Generator) -> Iterator[Case]:
    """Schedules of each kind, with odd numbers of timesteps, one of them rescaled."""
    yield Case("scaled_linear, 7 timesteps", ScheduleConfig(num_train_timesteps=7))
    rescaled = ScheduleConfig(num_train_timesteps=13, rescale_betas_zero_snr=True)
    yield Case("scaled_linear, 13 timesteps, rescaled to zero SNR", rescaled)
    linear = ScheduleConfig(num_train_timesteps=5, beta_schedule="linear", beta_start=0.01, beta_end=0.3)
    yield Case("linear, 5 timesteps, from 0.01 to 0.3", linear)
    cosine = ScheduleConfig(num_train_timesteps=11, beta_schedule="squaredcos_cap_v2")
    yield Case("squaredcos_cap_v2, 11 timesteps", cosine)


def betas(generator: torch.Generator) -> Iterator[Case]:
    """betas (T,) of several lengths."""
    for n in (3, 7, 20):
        yield Case(f"{n} random betas", torch.rand(n, generator=generator) * 0.3 + 0.02)
    yield Case("two equal betas", torch.full((2,), 0.1))


EXERCISES = (
    Exercise("01.add_one_step", Schedule.add_one_step, steps, difficulty=1, minutes=4, box="noise"),
    Exercise("01.add_noise", Schedule.add_noise, jumps, difficulty=1, minutes=5, box="noise"),
    Exercise("01.snr", Schedule.snr, timesteps, difficulty=1, minutes=3, box="noise"),
    Exercise("01.make_betas", make_betas, configs, difficulty=2, minutes=10, box="noise"),
    Exercise("01.rescale_zero_snr", rescale_zero_snr, betas, difficulty=2, minutes=8, box="noise"),
)
