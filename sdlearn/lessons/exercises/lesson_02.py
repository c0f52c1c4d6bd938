"""The exercises of lesson 02."""

from collections.abc import Iterable

import torch
from torch import Tensor

from sdlearn.diffusion.grids import make_grid
from sdlearn.diffusion.samplers import Step, ddpm
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig, simple_loss
from sdlearn.lessons.exercises.exercise import Bug, Exercise


def pairs(generator: torch.Generator) -> list[tuple]:
    """x_0 and x_t (B, ...), a timestep and an earlier one: one step, long strides, and the end."""
    cases = (
        ((2, 3, 5, 4), 500, 499),
        ((3, 7), 981, 941),
        ((4, 1, 2), 300, 20),
        ((2, 5), 40, -20),
        ((2, 3), 20, 0),
        ((1, 6), 0, -1),
    )
    configs = (ScheduleConfig(), ScheduleConfig(rescale_betas_zero_snr=True, prediction_type="v_prediction"))
    return [
        ((configs[i % 2],), (*torch.randn(2, *shape, generator=generator), t, previous))
        for i, (shape, t, previous) in enumerate(cases)
    ]


def predictions(generator: torch.Generator) -> list[tuple]:
    """A prediction and x_t (B, ...), and t for all or one for each, for each kind of prediction."""
    cases = (
        ("epsilon", (2, 3, 5, 4), 700),
        ("v_prediction", (3, 7), torch.tensor([0, 300, 999])),
        ("sample", (1, 2, 3), 500),
        ("epsilon", (2, 5), torch.tensor([40, 999])),
        ("v_prediction", (1, 4, 2), 850),
    )
    return [
        ((ScheduleConfig(prediction_type=kind),), (*torch.randn(2, *shape, generator=generator), t))
        for kind, shape, t in cases
    ]


def at_time(part, prediction: Tensor, x: Tensor, t: int | Tensor) -> Tensor:
    """x_0 at a timestep: the rates are the schedule's."""
    return part(prediction, x, *part.__self__.rates(t, x))


def batches(generator: torch.Generator) -> list[tuple]:
    """x_0 and noise (B, ...), t (B,), and schedules that ask for each kind of prediction."""
    cases = (("epsilon", (3, 4, 5, 2)), ("v_prediction", (5, 2)), ("sample", (2, 7, 3)))
    return [
        (
            *torch.randn(2, *shape, generator=generator),
            torch.randint(50, 1000, shape[:1], generator=generator),
            Schedule(ScheduleConfig(prediction_type=kind)),
        )
        for kind, shape in cases
    ]


def loss_of_a_network(part, x0: Tensor, noise: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """The loss where the network is a curve that depends on x and t."""
    return part(lambda x, t: torch.sin(2 * x + t.view(-1, *[1] * (x.ndim - 1)) / 300), x0, noise, t, schedule)


def starts(generator: torch.Generator) -> list[tuple]:
    """Noise (B, ...), the number of steps, the kind of prediction, and the seed of the sampler."""
    cases = (((2, 3, 5), 4, "epsilon"), ((3, 2), 7, "v_prediction"), ((1, 4, 3, 2), 3, "sample"), ((2, 2), 1, "sample"))
    return [(torch.randn(shape, generator=generator), steps, kind, i) for i, (shape, steps, kind) in enumerate(cases)]


def nudge(x: Tensor, i: int) -> Tensor:
    """Stands for inpainting's `project`, which changes x after every network call."""
    return x + 0.01 * (i + 1)


def record(loop: Iterable[Step]) -> tuple[Tensor, Tensor, Tensor]:
    """What a sampler yields: x and x_0 of all steps, (steps, B, ...), and their i and t, (steps, 2).

    Raises TypeError when it yields anything but a Step, or nothing.
    """
    x, x0, places = [], [], []
    for step in loop or ():  # a function without yield returns None
        if not isinstance(step, Step):
            raise TypeError("each step must be handed out by: yield Step(i, t, x, x0)")
        x.append(step.x.clone())  # the next step may overwrite it
        x0.append(step.x0.clone())
        places.append([step.i, step.t])
    if not x:
        raise TypeError("it yields nothing; each step must be handed out by: yield Step(i, t, x, x0)")
    return torch.stack(x), torch.stack(x0), torch.tensor(places, dtype=torch.float32)


def walk(part, x: Tensor, steps: int, prediction_type: str, seed: int) -> tuple[Tensor, ...]:
    """Everything that the loop yields. The network is a curve that depends on x and t."""
    schedule = Schedule(ScheduleConfig(prediction_type=prediction_type, timestep_spacing="trailing"))
    grid, generator = make_grid(schedule, steps), torch.Generator().manual_seed(seed)
    return record(part(lambda x, t: torch.sin(x + t / 300), x, grid, schedule, generator, nudge))


# Mistakes of every loop that yields steps.
STEP_MISTAKES = (
    Bug("x and x_0 have changed places in Step", "the task: Step", (("Step(i, t, x, x0)", "Step(i, t, x0, x)"),)),
    Bug(
        "x is handed out before project has changed it",
        "the task: project",
        (
            (
                "        x = project(x, i) if project else x\n        yield Step(i, t, x, x0)",
                "        yield Step(i, t, x, x0)\n        x = project(x, i) if project else x",
            ),
        ),
    ),
    Bug("x isn't handed to project", "the task: project", (("x = project(x, i) if project else x", "pass"),)),
)

EXERCISES = (
    Exercise(
        id="02.posterior",
        reference=Schedule.posterior,
        cases=pairs,
        bugs=(
            Bug(
                "the variance is β, the noise of the forward step; β̃ is smaller, because x_0 is known as well",
                "equation (4)",
                (("variance = (1 - alphas_cumprod_previous) / (1 - alphas_cumprod) * beta", "variance = beta"),),
            ),
            Bug(
                "√β stands where β belongs: the second result is the standard deviation, must be the variance",
                "equation (4)",
                (("return mean, variance", "return mean, variance.sqrt()"),),
            ),
            Bug(
                "ᾱ at t is used in the factors of x_0 and x, where ᾱ at `previous` belongs",
                "equation (3)",
                (
                    ("alphas_cumprod_previous.sqrt() * beta", "alphas_cumprod.sqrt() * beta"),
                    ("+ alpha.sqrt() * (1 - alphas_cumprod_previous)", "+ alpha.sqrt() * (1 - alphas_cumprod)"),
                ),
            ),
            Bug(
                "α and β are those of a single step; between t and `previous` there may be many",
                "the line about strides below equation (4)",
                (("alpha = alphas_cumprod / alphas_cumprod_previous", "alpha = self.alphas[t]"),),
            ),
            Bug(
                "the roots are missing: √ᾱ belongs to x_0, and √α to x",
                "equation (3)",
                (("alphas_cumprod_previous.sqrt()", "alphas_cumprod_previous"), ("alpha.sqrt()", "alpha")),
            ),
            Bug(
                "the factors of x_0 and x have changed places",
                "equation (3)",
                (
                    ("/ (1 - alphas_cumprod) * x0", "/ (1 - alphas_cumprod) * X"),
                    ("/ (1 - alphas_cumprod) * x\n", "/ (1 - alphas_cumprod) * x0\n"),
                    ("* X\n", "* x\n"),
                ),
            ),
            Bug(
                "the step ends at t − 1, must end at `previous`",
                "the line about strides below equation (4)",
                (
                    (
                        "self._alphas_cumprod(previous) if previous >= 0 else",
                        "self._alphas_cumprod(t - 1) if t > 0 else",
                    ),
                ),
            ),
            Bug(
                "`previous` below 0 is the end; as an index it counts from the end of the list, where all is noise",
                "the task: what takes the place of ᾱ there",
                (
                    (
                        "self._alphas_cumprod(previous) if previous >= 0 else torch.tensor(1.0)",
                        "self.alphas_cumprod[previous]",
                    ),
                ),
            ),
            Bug(
                "ᾱ at t = 0 is used for the end; there ᾱ is 1",
                "the task: what takes the place of ᾱ there",
                (("torch.tensor(1.0)", "self.alphas_cumprod[0]"),),
            ),
            Bug(
                "t = 0 is taken for the end; it is a timestep like any other, the end lies below 0",
                "the task: what takes the place of ᾱ there",
                (("previous >= 0 else", "previous > 0 else"),),
            ),
            Bug(
                "β is that of a single step; between t and `previous` there may be many",
                "the line about strides below equation (4)",
                (("beta = 1 - alpha ", "beta = self.betas[t] "),),
            ),
            Bug(
                "α is upside down: ᾱ at t is the smaller one",
                "the line about strides below equation (4)",
                (
                    (
                        "alpha = alphas_cumprod / alphas_cumprod_previous",
                        "alpha = alphas_cumprod_previous / alphas_cumprod",
                    ),
                ),
            ),
            Bug(
                "the division by 1 − ᾱ is missing in the mean",
                "equation (3)",
                (
                    ("beta / (1 - alphas_cumprod) * x0", "beta * x0"),
                    (
                        "(1 - alphas_cumprod_previous) / (1 - alphas_cumprod) * x\n",
                        "(1 - alphas_cumprod_previous) * x\n",
                    ),
                ),
            ),
            Bug(
                "a root is missing in the factor of x_0: ᾱ is used where √ᾱ belongs",
                "equation (3)",
                (("alphas_cumprod_previous.sqrt()", "alphas_cumprod_previous"),),
            ),
            Bug(
                "a root is missing in the factor of x: α is used where √α belongs",
                "equation (3)",
                (("alpha.sqrt()", "alpha"),),
            ),
            Bug(
                "√ᾱ is used in the factor of x, where √α of the step belongs",
                "equation (3)",
                (("alpha.sqrt()", "alphas_cumprod.sqrt()"),),
            ),
            Bug(
                "the fraction in the variance is upside down: β̃ must be smaller than β",
                "equation (4)",
                (
                    (
                        "variance = (1 - alphas_cumprod_previous) / (1 - alphas_cumprod) * beta",
                        "variance = (1 - alphas_cumprod) / (1 - alphas_cumprod_previous) * beta",
                    ),
                ),
            ),
        ),
        difficulty=3,
        minutes=10,
        part="schedule",
        sampler="ddpm",
        box="sampler",
    ),
    Exercise(
        id="02.x0_at",
        reference=Schedule.x0_at,
        cases=predictions,
        bugs=(
            Bug(
                "the sign of v: its part is subtracted, since v points away from x_0",
                "equation (6)",
                (
                    (
                        "return signal_rate * x - noise_rate * prediction",
                        "return signal_rate * x + noise_rate * prediction",
                    ),
                ),
            ),
            Bug(
                "signal rate and noise rate have changed places in the answer for v",
                "equation (6)",
                (
                    (
                        "return signal_rate * x - noise_rate * prediction",
                        "return noise_rate * x - signal_rate * prediction",
                    ),
                ),
            ),
            Bug(
                "with epsilon the division by the signal rate is missing: it scales the noise back, too",
                "equation (6)",
                ((" / (signal_rate + 2**-12 * (signal_rate == 0))", ""),),
            ),
            Bug(
                "ᾱ is divided by where √ᾱ, the signal rate, belongs",
                "equation (6)",
                (("(signal_rate + 2**-12 * (signal_rate == 0))", "signal_rate**2"),),
            ),
            Bug(
                "epsilon is subtracted without its noise rate",
                "equation (6)",
                (("(x - noise_rate * prediction)", "(x - prediction)"),),
            ),
            Bug(
                "the prediction is always taken for epsilon; self.config.prediction_type says what it is",
                "equation (6)",
                (('if self.config.prediction_type == "epsilon":', "if True:"),),
            ),
            Bug(
                "the kind called sample is forgotten: there the prediction is x_0 already",
                "equation (6)",
                (('if self.config.prediction_type == "sample":', "if False:"),),
            ),
            Bug(
                "for the kind called sample x is returned, must be the prediction: it is x_0",
                "equation (6)",
                (("return prediction", "return x"),),
            ),
            Bug(
                "with epsilon the noise is added, must be subtracted",
                "equation (6)",
                (("(x - noise_rate * prediction)", "(x + noise_rate * prediction)"),),
            ),
            Bug(
                "with epsilon signal rate and noise rate have changed places",
                "equation (6)",
                (
                    (
                        "(x - noise_rate * prediction) / (signal_rate + 2**-12 * (signal_rate == 0))",
                        "(x - signal_rate * prediction) / noise_rate",
                    ),
                ),
            ),
            Bug(
                "with epsilon brackets are missing: x is to be divided, too",
                "equation (6)",
                (
                    (
                        "(x - noise_rate * prediction) / (signal_rate + 2**-12 * (signal_rate == 0))",
                        "x - noise_rate * prediction / signal_rate",
                    ),
                ),
            ),
            Bug(
                "x and v have changed places",
                "equation (6)",
                (
                    (
                        "return signal_rate * x - noise_rate * prediction",
                        "return signal_rate * prediction - noise_rate * x",
                    ),
                ),
            ),
        ),
        difficulty=2,
        minutes=5,
        run=at_time,
        part="schedule",
        box="sampler",
    ),
    Exercise(
        id="02.simple_loss",
        reference=simple_loss,
        cases=batches,
        bugs=(
            Bug(
                "the target is always the noise; the schedule says what the network predicts",
                "the sentence above equation (8)",
                (("schedule.target(x0, noise, t)", "noise"),),
            ),
            Bug(
                "the network sees x_0, and not x_t",
                "equation (8)",
                (("x = schedule.add_noise(x0, noise, t)", "x = x0"),),
            ),
            Bug(
                "x_0 and the noise have changed places in x_t",
                "equation (8)",
                (("add_noise(x0, noise, t)", "add_noise(noise, x0, t)"),),
            ),
            Bug("the squares are summed, not averaged", "equation (8)", ((".mean()", ".sum()"),)),
            Bug("the difference isn't squared", "equation (8)", ((".square()", ".abs()"),)),
            Bug(
                "the target is always x_0; the schedule says what the network predicts",
                "the sentence above equation (8)",
                (("schedule.target(x0, noise, t)", "x0"),),
            ),
            Bug(
                "x_0 and the noise have changed places in the target",
                "equation (8)",
                (("target(x0, noise, t)", "target(noise, x0, t)"),),
            ),
            Bug(
                "the target is made from x_t, must be made from x_0",
                "equation (8)",
                (("target(x0, noise, t)", "target(x, noise, t)"),),
            ),
            Bug(
                "the mean is taken before the square, so that differences cancel",
                "equation (8)",
                ((".square().mean()", ".mean().square()"),),
            ),
            Bug(
                "this is the root of the mean square",
                "equation (8)",
                ((".square().mean()", ".square().mean().sqrt()"),),
            ),
        ),
        difficulty=1,
        minutes=5,
        run=loss_of_a_network,
    ),
    Exercise(
        id="02.ddpm",
        reference=ddpm,
        cases=starts,
        bugs=(
            Bug(
                "the noise is multiplied by the variance; its standard deviation is the root",
                "the numbered list of the exercise",
                (("variance.sqrt()", "variance"),),
            ),
            Bug(
                "no noise is added: every step goes to the mean",
                "the numbered list of the exercise",
                ((" + variance.sqrt() * draw_noise(x.shape, generator).to(x)", ""),),
            ),
            Bug(
                "the network is asked for the next timestep, but x is still at t",
                "the numbered list of the exercise",
                (("denoise(x, t)", "denoise(x, timesteps[i + 1])"),),
            ),
            Bug(
                "the raw prediction is taken for x_0; the schedule has to convert it",
                "equation (6)",
                (("schedule.to_x0(denoise(x, t), x, t)", "denoise(x, t)"),),
            ),
            Bug(
                "t is off by one when the network is asked: x is at t, and not at t − 1",
                "the numbered list of the exercise",
                (("denoise(x, t)", "denoise(x, t - 1)"),),
            ),
            Bug(
                "t is off by one when the network is asked and its answer is converted",
                "the numbered list of the exercise",
                (("schedule.to_x0(denoise(x, t), x, t)", "schedule.to_x0(denoise(x, t - 1), x, t - 1)"),),
            ),
            Bug(
                "t is off by one when the network's answer is converted",
                "the numbered list of the exercise",
                (("denoise(x, t), x, t)", "denoise(x, t), x, t - 1)"),),
            ),
            Bug(
                "t is off by one in the posterior",
                "the numbered list of the exercise",
                (
                    (
                        "schedule.posterior(x0, x, t, timesteps[i + 1])",
                        "schedule.posterior(x0, x, t - 1, timesteps[i + 1])",
                    ),
                ),
            ),
            Bug(
                "t is off by one everywhere: a paper that counts from 1 has t + 1; the grid counts from 0",
                "the numbered list of the exercise",
                (("[*grid.timesteps.tolist(), -1]", "[*(t - 1 for t in grid.timesteps.tolist()), -1]"),),
            ),
            Bug(
                "the step ends at t − 1, but the grid leaves timesteps out",
                "the numbered list of the exercise",
                (("schedule.posterior(x0, x, t, timesteps[i + 1])", "schedule.posterior(x0, x, t, t - 1)"),),
            ),
            Bug(
                "all steps but the last end at t − 1, but the grid leaves timesteps out",
                "the numbered list of the exercise",
                (("timesteps[i + 1])", "t - 1 if i < len(grid) - 1 else -1)"),),
            ),
            Bug(
                "the last step ends at t = 0, where noise is left; −1 is the end",
                "the numbered list of the exercise",
                (("tolist(), -1]", "tolist(), 0]"),),
            ),
            Bug(
                "x_0 and x have changed places in the posterior",
                "the numbered list of the exercise",
                (("schedule.posterior(x0, x, t, timesteps[i + 1])", "schedule.posterior(x, x0, t, timesteps[i + 1])"),),
            ),
            Bug(
                "the noise is added to x, must be added to the mean",
                "the numbered list of the exercise",
                (("else mean +", "else x +"),),
            ),
            Bug(
                "the noise isn't scaled: its standard deviation is 1",
                "the numbered list of the exercise",
                (("variance.sqrt() * draw_noise", "draw_noise"),),
            ),
            *STEP_MISTAKES,
        ),
        difficulty=2,
        minutes=10,
        run=walk,
        part="ddpm",
        box="sampler",
    ),
)
