"""The exercises of lesson 04."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sdlearn.diffusion.grids import make_grid, make_grid_euler, make_grid_heun
from sdlearn.diffusion.samplers import Step, adams_bashforth, ddim, euler, heun
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.lessons.exercises.exercise import Bug, Exercise
from sdlearn.lessons.exercises.lesson_02 import STEP_MISTAKES, nudge, record

Loop = Callable[..., Iterator[Step]]


def predict(x: Tensor, t: float) -> Tensor:
    """Stands for the network: smooth in x, and different at every timestep."""
    return 0.7 * x + 0.2 * torch.sin(2 * x + t / 300)


def noise_and_steps(generator: torch.Generator) -> list[tuple]:
    """Noise (B, ...), how many steps, what the network predicts, and the spacing."""
    kinds = ((4, "epsilon", "leading"), (7, "v_prediction", "trailing"), (1, "epsilon", "trailing"))
    shapes = ((2, 3, 5), (1, 4, 3, 2), (3, 1))
    return [(torch.randn(shape, generator=generator), *kind) for shape, kind in zip(shapes, kinds, strict=True)]


def noise_steps_and_eta(generator: torch.Generator) -> list[tuple]:
    """The same, each with eta from 0 to 1."""
    etas = (0.0, 0.3, 0.7, 1.0)
    return [(*case, eta) for case, eta in zip(noise_and_steps(generator) * 2, etas, strict=False)]


def run_ddim(part: Loop, x: Tensor, steps: int, prediction_type: str, spacing: str, eta: float) -> tuple[Tensor, ...]:
    """Everything that the loop yields. Without eta there is no generator, and none is needed."""
    schedule = Schedule(ScheduleConfig(prediction_type=prediction_type, set_alpha_to_one=spacing == "trailing"))
    generator = torch.Generator().manual_seed(1) if eta > 0 else None
    grid = make_grid(schedule, steps, spacing)
    return record(part(predict, x, grid, schedule, generator=generator, project=nudge, eta=eta))


def run_euler(part: Loop, x: Tensor, steps: int, prediction_type: str, spacing: str) -> tuple[Tensor, ...]:
    """Everything that the loop yields."""
    schedule = Schedule(ScheduleConfig(prediction_type=prediction_type))
    return record(part(predict, x, make_grid_euler(schedule, steps, spacing), schedule, project=nudge))


def run_heun(part: Loop, x: Tensor, steps: int, prediction_type: str, spacing: str) -> tuple[Tensor, ...]:
    """Everything that the loop yields, once for every network call."""
    schedule = Schedule(ScheduleConfig(prediction_type=prediction_type))
    return record(part(predict, x, make_grid_heun(schedule, steps, spacing), schedule, project=nudge))


EXERCISES = (
    Exercise(
        id="04.euler",
        reference=euler,
        cases=noise_and_steps,
        run=run_euler,
        bugs=(
            Bug(
                "sigma itself is used where the difference of two sigmas belongs",
                "equation (3)",
                (("(sigmas[i + 1] - sigmas[i]) * slope", "sigmas[i + 1] * slope"),),
            ),
            Bug(
                "the sign is swapped: this leads towards more noise",
                "equation (3): the next sigma is the smaller one",
                (("sigmas[i + 1] - sigmas[i]", "sigmas[i] - sigmas[i + 1]"),),
            ),
            Bug(
                "every step is twice as long as it should be",
                "equation (3)",
                (("(sigmas[i + 1] - sigmas[i]) * slope", "2 * (sigmas[i + 1] - sigmas[i]) * slope"),),
            ),
            Bug(
                "x - x_0 isn't divided by sigma, so the slope is sigma times too steep",
                "equation (3), right side",
                (("(x - x0) / sigmas[i]", "x - x0"),),
            ),
            Bug(
                "the whole of epsilon is subtracted in every step",
                "equation (3): it says how much of it",
                (("x + (sigmas[i + 1] - sigmas[i]) * slope", "x - slope"),),
            ),
            Bug(
                "the network sees x as it is; it must be shrunk to VP before",
                "line c of the card, and `denoised` in the task",
                (
                    (
                        "denoised(denoise, x, t, sigmas[i], schedule)",
                        "schedule.x0_at_sigma(denoise(x, t), x, sigmas[i])",
                    ),
                ),
            ),
            Bug(
                "the raw answer is taken for the slope: the network sees x as it is, and need not predict epsilon",
                "line c of the card, and `denoised` in the task",
                (
                    ("x0 = denoised(denoise, x, t, sigmas[i], schedule)", "slope = denoise(x, t)"),
                    ("slope = (x - x0) / sigmas[i]", "x0 = x - sigmas[i] * slope"),
                ),
            ),
            Bug(
                "the network's raw answer is taken for x_0",
                "line c of the card, and `denoised` in the task",
                (("denoised(denoise, x, t, sigmas[i], schedule)", "denoise(x, t)"),),
            ),
            Bug(
                "the network is told the noise level after the step; x is still at the one before",
                "the task: sigmas[i] and sigmas[i + 1]",
                (("t, sigmas[i], schedule", "t, sigmas[i + 1], schedule"),),
            ),
            *STEP_MISTAKES,
        ),
        difficulty=1,
        minutes=6,
        part="euler",
        box="sampler",
    ),
    Exercise(
        id="04.ddim",
        reference=ddim,
        cases=noise_steps_and_eta,
        run=run_ddim,
        bugs=(
            Bug(
                "ᾱ is used where √ᾱ belongs: variance and standard deviation mixed up",
                "equation (4): what x_0 is multiplied with",
                (("previous.sqrt() * x0", "previous * x0"),),
            ),
            Bug(
                "the root is missing: epsilon is multiplied with a variance",
                "equation (4): what epsilon is multiplied with",
                ((".clamp(min=0).sqrt()", ".clamp(min=0)"),),
            ),
            Bug(
                "the step ends at t - 1, but the grid leaves timesteps out",
                "the task: where a step ends",
                (("t - grid.stride", "t - 1"),),
            ),
            Bug(
                "a double step: it ends two strides further down, but the network is called after every stride",
                "the task: where a step ends",
                (("t - grid.stride", "t - 2 * grid.stride"),),
            ),
            Bug(
                "the fresh noise comes on top of the old, so x has more noise than the next timestep says",
                "equation (4): what stands under the second root",
                (("(1 - previous - sigma**2)", "(1 - previous)"),),
            ),
            Bug(
                "the variance of the fresh noise is used as its standard deviation",
                "the task: σ_η",
                (("(1 - alphas_cumprod / previous)).sqrt()", "(1 - alphas_cumprod / previous))"),),
            ),
            Bug(
                "sigma is subtracted where sigma² belongs",
                "equation (4): what stands under the second root",
                (("- sigma**2", "- sigma"),),
            ),
            Bug(
                "the step ends at the list's next timestep, which is not always one stride further down",
                "the task: where a step ends",
                (("t - grid.stride", "[*grid.timesteps.tolist(), -1][i + 1]"),),
            ),
            Bug(
                "below 0 is the end; as an index it counts from the end of the list, where all is noise",
                "the task: where a step ends",
                (("alphas_cumprod_after(schedule, t - grid.stride)", "schedule.alphas_cumprod[t - grid.stride]"),),
            ),
            Bug(
                "ᾱ at t is used where ᾱ at the end of the step belongs: the noise stays",
                "equation (4)",
                (
                    (
                        "previous.sqrt() * x0 + (1 - previous - sigma**2)",
                        "alphas_cumprod.sqrt() * x0 + (1 - alphas_cumprod - sigma**2)",
                    ),
                ),
            ),
            Bug(
                "the raw prediction is taken for epsilon; the network may predict v",
                "the task: schedule.to_epsilon",
                (("schedule.to_epsilon(prediction, x, t)", "prediction"),),
            ),
            Bug(
                "the raw prediction is taken for x_0",
                "the task: schedule.to_x0",
                (("schedule.to_x0(prediction, x, t)", "prediction"),),
            ),
            Bug(
                "the fresh noise is missing: sigma took some noise away, and nothing comes in its place",
                "equation (4): the last term",
                (("x = x + sigma * draw_noise(x.shape, generator).to(x)", "pass"),),
            ),
            Bug(
                "the fresh noise isn't multiplied by sigma",
                "equation (4): the last term",
                (("sigma * draw_noise", "draw_noise"),),
            ),
            Bug(
                "eta stands under the root of sigma; it belongs before it",
                "the task: σ_η",
                (("sigma = eta * ((1 - previous)", "sigma = (eta * (1 - previous)"),),
            ),
            Bug(
                "the last step draws no fresh noise; where noise is left at its end it must",
                "the task: draw it whenever eta > 0",
                (("if eta > 0:\n", "if eta > 0 and i < len(grid) - 1:\n"),),
            ),
            Bug("eta is not in sigma", "the task: σ_η", (("eta * ((1", "((1"),)),
            *STEP_MISTAKES,
        ),
        difficulty=2,
        minutes=12,
        part="ddim",
        box="sampler",
    ),
    Exercise(
        id="04.heun",
        reference=heun,
        cases=noise_and_steps,
        run=run_heun,
        bugs=(
            Bug(
                "the slope at the end is used alone, not the mean of both",
                "equation (7)",
                (("(slope + slope_ahead) / 2", "slope_ahead"),),
            ),
            Bug(
                "the two slopes are added, not averaged: a double step",
                "equation (7)",
                (("(slope + slope_ahead) / 2", "(slope + slope_ahead)"),),
            ),
            Bug(
                "the second time the step goes on from where the first one ended, not from its start",
                "the sentence above equation (7)",
                (("x = start + h * (slope + slope_ahead) / 2", "x = x + h * (slope + slope_ahead) / 2"),),
            ),
            Bug(
                "the second call of the network still sees x at the start of the step",
                "equation (7): where the second slope is taken",
                (("denoised(denoise, x, timesteps[i + 1]", "denoised(denoise, start, timesteps[i + 1]"),),
            ),
            Bug(
                "the second call of the network is told the noise level at the start of the step",
                "equation (7): where the second slope is taken",
                (("timesteps[i + 1], sigmas[i + 1], schedule", "timesteps[i], sigmas[i], schedule"),),
            ),
            Bug(
                "the second slope is divided by the noise level at the start of the step",
                "equation (7): where the second slope is taken",
                (("(x - x0) / sigmas[i + 1]", "(x - x0) / sigmas[i]"),),
            ),
            Bug(
                "the second slope isn't used: this is Euler's step once more",
                "equation (7)",
                (("(slope + slope_ahead) / 2", "slope"),),
            ),
            Bug(
                "x isn't handed to project after each network call",
                "the task: project",
                (
                    ("x = project(x, i) if project else x", "pass"),
                    ("x = project(x, i + 1) if project else x", "pass"),
                ),
            ),
        ),
        difficulty=3,
        minutes=12,
        part="heun",
        box="sampler",
    ),
    Exercise(
        id="04.adams_bashforth",
        reference=adams_bashforth,
        cases=lambda generator: [(1,), (2,), (3,), (4,), (6,)],
        bugs=(
            Bug(
                "the old values lie behind, at s = 0, -1, -2, and the step ahead: not both on one side",
                "the task: where the values lie",
                (("(-power)", "power"),),
            ),
            Bug(
                "this extrapolates the value at the end of the step, not the mean over the step",
                "equation (8), right side",
                (("1 / (power + 1)", "torch.ones(n, dtype=torch.float64)"),),
            ),
            Bug(
                "this extrapolates the value in the middle of the step, not the mean over the step",
                "equation (8), right side",
                (("1 / (power + 1)", "0.5**power"),),
            ),
            Bug(
                "rows and columns are swapped: an equation belongs to a power, not to a value",
                "equation (8), left side",
                (("solve(values, means)", "solve(values.T, means)"),),
            ),
            Bug(
                "the order is turned round: the latest value comes first",
                "the first line of the docstring",
                (("return torch.linalg.solve(values, means)", "return torch.linalg.solve(values, means).flip(0)"),),
            ),
            Bug(
                "the latest value lies at s = 0, where the step begins, and not at -1",
                "equation (8), left side",
                (("(-power)", "(-power - 1)"),),
            ),
        ),
        difficulty=3,
        minutes=10,
        box="sampler",
    ),
)
