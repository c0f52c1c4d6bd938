"""The exercises of lesson 12."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sdlearn.diffusion.ideal import ideal_denoiser
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.lessons.exercises.exercise import Case, Exercise
from sdlearn.lessons.exercises.lesson_02 import loss_to_learn_from
from sdlearn.training.diffusion import latent_loss
from sdlearn.training.loop import TrainConfig, moving_average


def reader(x: Tensor, t: Tensor, context: Tensor) -> Tensor:
    """Stands for a UNet: different for each noisy latent, timestep and caption.

    Raises TypeError if it gets anything else.
    """
    for name, value, dimensions in (("x", x, 4), ("t", t, 1), ("context", context, 3)):
        if not isinstance(value, Tensor) or value.ndim != dimensions:
            shape = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else "missing, or no tensor"
            raise TypeError(
                f"unet(x, t, context) takes x (B, C, H, W), t (B,), context (B, T, K), but {name} is {shape}"
            )
    place = torch.arange(1, context[0].numel() + 1).view(context.shape[1:]).sin().to(context)
    said = (context.cos() * place).sum((1, 2))  # (B,): the order of the tokens matters
    return 2 * torch.sin(2 * x + (t / 300 + said).to(x).view(-1, 1, 1, 1))


def captioned(generator: torch.Generator) -> Iterator[Case]:
    """A UNet, latents (B, C, H, W), context (B, T, K), noise, t (B,), and schedules of each kind of prediction."""
    cases = (
        ("v_prediction", (3, 4, 5, 2), (6, 3), None, torch.float32),
        ("epsilon", (5, 2, 3, 4), (2, 7), None, torch.float32),
        ("sample", (2, 4, 1, 7), (1, 5), None, torch.float32),
        ("v_prediction", (3, 1, 3, 3), (4, 4), (0, 400, 999), torch.float32),
        ("epsilon", (1, 4, 6, 2), (3, 2), (999,), torch.float32),
        ("v_prediction", (4, 3, 2, 5), (5, 2), None, torch.float64),
    )
    for kind, shape, tokens, given, dtype in cases:
        latents, noise = torch.randn(2, *shape, generator=generator, dtype=dtype)
        context = torch.randn(shape[0], *tokens, generator=generator, dtype=dtype)
        t = torch.randint(50, 1000, shape[:1], generator=generator) if given is None else torch.tensor(given)
        words = f"the UNet predicts {kind}, {shape[0]} picture{'s' * (shape[0] > 1)}, t = {t.tolist()}"
        schedule = Schedule(ScheduleConfig(prediction_type=kind))
        yield Case(words + ", float64" * (dtype == torch.float64), reader, latents, context, noise, t, schedule)


def loss_of_unet(
    part: Callable[..., Tensor],
    unet: Callable[[Tensor, Tensor, Tensor], Tensor],
    latents: Tensor,
    context: Tensor,
    noise: Tensor,
    t: Tensor,
    schedule: Schedule,
) -> Tensor:
    """The loss of a UNet with a weight. Raises TypeError or ValueError if the weight can't learn from it."""

    def with_context(scaled: Callable[[Tensor, Tensor], Tensor], latents: Tensor, *others: Any) -> Tensor:
        return part(lambda x, t, context=None: unet(scaled(x, t), t, context), latents, context, *others)

    return loss_to_learn_from(with_context, lambda x, t: x, latents, noise, t, schedule)


def rates(generator: torch.Generator) -> Iterator[Case]:
    """A TrainConfig and a step: warm-up, constant, decay, each of their edges, without one of them, and overlapping."""
    for words, steps, warmup, decay, step in (
        ("the first step of the warm-up", 20, 4, 5, 0),
        ("in the middle of the warm-up", 20, 4, 5, 1),
        ("the last step of the warm-up", 20, 4, 5, 3),
        ("the first step after the warm-up", 20, 4, 5, 4),
        ("in between", 20, 4, 5, 9),
        ("the step before the decay", 20, 4, 5, 14),
        ("the first step of the decay", 20, 4, 5, 15),
        ("in the middle of the decay", 20, 4, 5, 17),
        ("the last step", 20, 4, 5, 19),
        ("no warm-up, the first step", 7, 0, 3, 0),
        ("a warm-up of one step, the first step", 9, 1, 2, 0),
        ("no decay, the last step", 11, 3, 0, 10),
        ("neither, the last step", 5, 0, 0, 4),
        ("a decay of one step, the last step", 8, 2, 1, 7),
        ("warm-up and decay overlap, before they cross", 10, 8, 7, 4),
        ("warm-up and decay overlap, after they cross", 10, 8, 7, 6),
    ):
        config = TrainConfig(steps, 4, 3e-4 * (1 + step % 3), warmup_steps=warmup, decay_steps=decay)
        lengths = f"{steps} steps, warmup_steps = {warmup}, decay_steps = {decay}, step = {step}"
        yield Case(f"{words} ({lengths})", config, step)


def averages(generator: torch.Generator) -> Iterator[Case]:
    """Lists of tensors, the average and the parameters, a decay, and the number of steps before this one."""
    for shapes, decay, step, dtype in (
        (((2, 3), (4,)), 0.999, 0, torch.float32),
        (((3,),), 0.9, 1, torch.float32),
        (((5, 2), (3, 1, 2), (1,)), 0.9999, 7, torch.float32),
        (((2, 2), (6,)), 0.9, 71, torch.float32),
        (((4, 3), (4, 3)), 0.9, 72, torch.float32),
        (((3, 2),), 0.5, 5000, torch.float32),
        (((2,), (2, 5)), 0.0, 3, torch.float32),
        (((1, 7), (3,)), 0.99, 100, torch.float64),
        (((2, 3), (1,), (4,)), 0.999, 1_000_000, torch.float64),
    ):
        lists = [[torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes] for _ in range(2)]
        words = f"{len(shapes)} parameter{'s' * (len(shapes) > 1)}, decay = {decay}, {step} steps before"
        yield Case(words, *lists, decay, step)


def memories(generator: torch.Generator) -> Iterator[Case]:
    """x (B, ...), one t for all or one for each, examples (N, ...), and a schedule."""

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    plain, linear = Schedule(ScheduleConfig()), Schedule(ScheduleConfig(beta_schedule="linear", beta_end=0.02))
    yield Case("5 examples, half of it noise, t = 400", random(3, 2, 1, 3), 400, random(5, 2, 1, 3), plain)
    each = torch.tensor([150, 500, 800])
    yield Case("a t for each, 4 examples, t = [150, 500, 800]", random(3, 2, 2), each, random(4, 2, 2), linear)
    yield Case("as many examples as noisy ones, t = 600", random(4, 5), 600, random(4, 5), plain)
    yield Case("nearly pure noise, t = 999", 2 * random(2, 3, 1), 999, 3 * random(6, 3, 1), plain)
    yield Case("a single example, t = 300", random(2, 4), 300, random(1, 4), plain)
    examples = random(7, 4, 8, 13)
    x = plain.add_noise(examples[[5, 0]], random(2, 4, 8, 13), torch.tensor([20, 350]))
    yield Case("416 numbers each, t = [20, 350]", x, torch.tensor([20, 350]), examples, plain)
    yield Case("far from all examples, t = 0", 30 * random(1, 3, 4), 0, random(3, 3, 4), plain)
    near = random(1, 2, 3).double() + 0.2 * random(6, 2, 3).double()
    yield Case("much alike, in float64, t = 100", near[:2] + 0.1, 100, near, plain)


EXERCISES = (
    Exercise("12.latent_loss", latent_loss, captioned, difficulty=1, minutes=5, run=loss_of_unet),
    Exercise("12.learning_rate_at", TrainConfig.learning_rate_at, rates, difficulty=1, minutes=5),
    Exercise("12.moving_average", moving_average, averages, difficulty=1, minutes=5),
    Exercise("12.ideal_denoiser", ideal_denoiser, memories, difficulty=2, minutes=8),
)
