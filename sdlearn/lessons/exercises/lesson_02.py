"""The exercises of lesson 02."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sdlearn.diffusion.grids import make_grid
from sdlearn.diffusion.samplers import ddpm
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig, simple_loss
from sdlearn.lessons.exercises.compare import is_number
from sdlearn.lessons.exercises.exercise import Case, Exercise


def pairs(generator: torch.Generator) -> Iterator[Case]:
    """x_0 and x_t (B, ...), a timestep and an earlier one: one step, long strides, both ends, and zero SNR."""
    plain, zero_snr = ScheduleConfig(), ScheduleConfig(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    cases = (
        ("one step", plain, (2, 3, 5, 4), 500, 499),
        ("a stride of 40", zero_snr, (3, 7), 981, 941),
        ("a long stride", plain, (4, 1, 2), 300, 20),
        ("the end, from t = 40", zero_snr, (2, 5), 40, -20),
        ("a stride that stops at t = 0, where noise is left", plain, (2, 3), 20, 0),
        ("the end, from t = 0", zero_snr, (1, 6), 0, -1),
        ("all the way, from the last t to the first", plain, (3, 2, 2), 999, 0),
        ("a schedule whose last ᾱ is 0", zero_snr, (2, 2), 999, 500),
    )
    for words, config, shape, t, previous in cases:
        x0, x = torch.randn(2, *shape, generator=generator)
        yield Case(f"{words} (t = {t}, previous = {previous})", Schedule(config), x0, x, t, previous)


def predictions(generator: torch.Generator) -> Iterator[Case]:
    """A prediction and x_t (B, ...), and the rates at t, for all or one for each, for each kind of prediction."""
    cases = (
        ("epsilon", (2, 3, 5, 4), 700),
        ("v_prediction", (3, 7), [0, 300, 999]),
        ("sample", (1, 2, 3), 500),
        ("epsilon", (2, 5), [40, 999]),
        ("v_prediction", (1, 4, 2), 850),
        ("sample", (2, 3), [0, 999]),
    )
    for kind, shape, t in cases:
        schedule = Schedule(ScheduleConfig(prediction_type=kind))
        prediction, x = torch.randn(2, *shape, generator=generator)
        words = f"{kind}, the rates of t = {t}"
        yield Case(words, schedule, prediction, x, *schedule.rates(torch.tensor(t) if isinstance(t, list) else t, x))


def curve(x: Tensor, t: Tensor) -> Tensor:
    """Stands for a network that gets a t for each picture, (B,): smooth in x, and different at every timestep.

    Raises TypeError if it gets anything else for x or t.
    """
    if not isinstance(t, Tensor) or t.ndim != 1 or x.ndim < 2:
        raise TypeError("denoise takes x and then t, one for each example: denoise(x, t)")
    return torch.sin(2 * x + t.view(-1, *[1] * (x.ndim - 1)) / 300)


def batches(generator: torch.Generator) -> Iterator[Case]:
    """x_0 and noise (B, ...), t (B,), and schedules that ask for each kind of prediction."""
    cases = (
        ("epsilon", (3, 4, 5, 2), None),
        ("v_prediction", (5, 2), None),
        ("sample", (2, 7, 3), None),
        ("v_prediction", (3, 3), (0, 400, 999)),
        ("epsilon", (1, 6), None),
    )
    for kind, shape, given in cases:
        x0, noise = torch.randn(2, *shape, generator=generator)
        t = torch.randint(50, 1000, shape[:1], generator=generator) if given is None else torch.tensor(given)
        words = f"the network predicts {kind}, {shape[0]} examples, t = {t.tolist()}"
        yield Case(words, curve, x0, noise, t, Schedule(ScheduleConfig(prediction_type=kind)))


def loss_to_learn_from(
    part: Callable[..., Tensor],
    denoise: Callable[[Tensor, Tensor], Tensor],
    x0: Tensor,
    noise: Tensor,
    t: Tensor,
    schedule: Schedule,
) -> Tensor:
    """The loss of a network with a weight. Raises TypeError or ValueError if the weight can't learn from it."""
    weight = torch.ones((), requires_grad=True)
    loss = part(lambda x, t: denoise(weight * x, t), x0, noise, t, schedule)
    if is_number(loss):
        raise TypeError("the loss is a number, so the network can't learn from it; return a tensor, without .item()")
    if weight.grad is not None:
        raise ValueError("it calls backward(), but that is for the training loop to do; return the loss")
    if isinstance(loss, Tensor) and not loss.requires_grad:
        raise ValueError("the network can't learn: its answer isn't used, or no_grad or detach() cuts it off")
    if (
        isinstance(loss, Tensor)
        and torch.autograd.grad(loss.sum(), weight, retain_graph=True, allow_unused=True)[0] is None
    ):
        raise ValueError("the network can't learn: the loss became a new tensor, which knows nothing of the network")
    return loss


def wave(x: Tensor, t: float) -> Tensor:
    """Stands for a network that gets one t for all pictures."""
    return torch.sin(x + t / 300)


def nudge(x: Tensor, i: int) -> Tensor:
    """Stands for inpainting's `project`, which changes x after every network call; changing the mean isn't the same."""
    return 0.9 * x + 0.01 * (i + 1)


def starts(generator: torch.Generator) -> Iterator[Case]:
    """Noise (B, ...), grids of each spacing, each kind of prediction, generators with some seed, with `project` or not.

    A "linspace" grid ends at t = 0: the step that goes there still adds noise.
    """
    cases = (
        ((2, 3, 5), 4, "epsilon", "trailing", nudge),
        ((3, 2), 7, "v_prediction", "linspace", nudge),
        ((1, 4, 3, 2), 3, "sample", "leading", nudge),
        ((2, 2), 1, "sample", "trailing", nudge),
        ((2, 3), 6, "epsilon", "linspace", None),
    )
    for i, (shape, count, kind, spacing, project) in enumerate(cases):
        schedule = Schedule(ScheduleConfig(prediction_type=kind, timestep_spacing=spacing))
        x, own = torch.randn(shape, generator=generator), torch.Generator().manual_seed(i)
        grid = make_grid(schedule, count)
        steps = f"{count} step{'s' * (count > 1)}, the last from t = {grid.timesteps[-1]}"
        words = f"{steps}, the network predicts {kind}, {'with' if project else 'without'} project"
        yield Case(words, wave, x, grid, schedule, own, project)


EXERCISES = (
    Exercise(
        "02.posterior",
        Schedule.posterior,
        pairs,
        difficulty=3,
        minutes=10,
        part="schedule",
        sampler="ddpm",
        box="sampler",
        core=False,
    ),
    Exercise(
        "02.x0_at", Schedule.x0_at, predictions, difficulty=1, minutes=5, part="schedule", box="sampler", core=False
    ),
    Exercise("02.simple_loss", simple_loss, batches, difficulty=1, minutes=5, run=loss_to_learn_from),
    Exercise("02.ddpm", ddpm, starts, difficulty=2, minutes=10, part="ddpm", box="sampler"),
)
