"""What the log of a training run shows, in sentences: is it healthy, and how far has it come?

Each sign is one function: it returns a sentence if the log shows it, which begins with "! " if it looks wrong, or else
None. A log holds nothing but losses, gradients and times. So none of them says that the network draws well, or why
something went wrong.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.training.checkpoint import DAMAGE, read_recipe_of
from sdlearn.training.log import COLUMNS, read_log

FEW = 10  # rows: with fewer, a loss that moves can't be told from chance
NOTHING = {"epsilon": "ε = n·x_t", "sample": "x_0 = s·x_t"}  # what v = 0 is there; s, n: the signal and noise rates


@dataclass(frozen=True)
class Run:
    """What a run's folder tells. Rows are those of the log; a number that the log doesn't have is NaN."""

    file: Path
    step: np.ndarray
    loss: np.ndarray  # the mean of all steps since the row before
    learning_rate: np.ndarray
    gradient_norm: np.ndarray  # of the row's step alone
    images_per_second: np.ndarray
    settings: dict[str, Any]  # of the checkpoint, such as "training.steps"; empty without one
    checkpoint: int | None  # its step
    nothing: float | None  # the loss of an answer that knows nothing, where that is known

    def rows(self, chosen: Any) -> "Run":
        """The run with some of its rows."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in COLUMNS})

    @property
    def noise(self) -> float:
        """How much the loss varies by chance, from row to row: a standard deviation that trends don't touch."""
        change = np.diff(self.loss)
        return float(1.4826 * np.median(np.abs(change - np.median(change))) / 2**0.5) if len(change) else 0.0


def examine(run: str | Path) -> list[str]:
    """Sentences on the run in a folder (or on its log alone). Those about what looks wrong come first, after a "!".

    Raises:
        FileNotFoundError: there is no log.
        ValueError: it can't be read; the message says what is wrong with it.
    """
    whole, remarks = read_run(Path(run))
    finite = whole.rows(np.isfinite(whole.loss))
    signs = [sign(finite) for sign in SIGNS] if len(finite.step) else []
    said = [sentence for sentence in (*remarks, not_finite(whole), *signs) if sentence]
    wrong = [sentence for sentence in said if sentence.startswith("! ")]
    plain = [sentence for sentence in said if sentence not in wrong]
    pictures = sorted((whole.file.parent / "samples").glob("*.png"))
    look = f"For that, look at what it {f'draws: {pictures[-1]}' if pictures else 'makes'}."
    last = f"A log can't show whether the results are good. {look}"
    return [*(wrong or ["Nothing in this log looks wrong."]), *plain, last]


# --- signs ---


def not_finite(run: Run) -> str | None:
    bad = ~np.isfinite(run.loss)
    if not bad.any():
        return None
    step, value = run.step[bad][0], run.loss[bad][0]
    more = " The checkpoint is older, so the run can resume from there." if (run.checkpoint or step) < step else ""
    return f"! The loss is {value} at step {step}: from there on, nothing can be trusted.{more}"


def gradient(run: Run) -> str | None:
    """Is it infinite, or 0?"""
    if len(bad := run.step[np.isinf(run.gradient_norm)]):
        half = run.settings.get("training.mixed_precision") == "fp16"
        why = " In float16 single such steps are normal: they are skipped." if half else ""
        return f"! The gradient is infinite in {count(len(bad), 'row')}, first at step {bad[0]}.{why}"
    if (run.gradient_norm[-FEW:] == 0).all():
        return "! The gradient is 0 in the last rows: nothing is being learned."
    return None


def gaps(run: Run) -> str | None:
    """Rows that are missing: at the beginning, in between, or at the end."""
    every = np.diff(run.step)
    if len(every) < 3:  # then what is usual isn't known
        return None
    usual = np.median(every)
    if run.step[0] > 2 * usual:
        return f"! The log begins at step {run.step[0]}: what was before that is missing."
    wide = np.flatnonzero(every > 3 * usual)
    if 0 < len(wide) <= 2:  # more of them: the recipe's log_every was changed
        return f"! Rows are missing between the steps {run.step[wide[0]]} and {run.step[wide[0] + 1]}."
    if run.checkpoint is not None and run.checkpoint - run.step[-1] > 2 * usual:
        return f"! The log ends at step {run.step[-1]}, but the checkpoint is from step {run.checkpoint}."
    return None


def level(run: Run) -> str | None:
    """Has the loss fallen?"""
    if len(run.step) < FEW:
        return f"There are only {count(len(run.step), 'row')}: too few to say how the loss moves."
    first, last, rows = tenths(run)
    if first - last <= 3 * run.noise * (2 / rows) ** 0.5 and not warming_up(run):
        return f"! The loss has not fallen: it was {first:.3g} in the first tenth and is {last:.3g} in the last."
    share = f" ({1 - last / first:.0%})" if first > 0 and last > 0 else ""
    return f"The loss has fallen from {first:.3g} (mean of the first tenth) to {last:.3g} (last tenth){share}."


def rising(run: Run) -> str | None:
    """Is the loss well above what it was before?"""
    if len(run.step) < 2 * FEW:
        return None
    width = max(3, len(run.loss) // 10)
    smooth = np.convolve(run.loss, np.ones(width) / width, mode="valid")
    lowest = int(smooth.argmin())
    if smooth[-1] - smooth[lowest] < 5 * run.noise * (2 / width) ** 0.5 or smooth[-1] < 1.02 * smooth[lowest]:
        return None  # the lowest of many means is low by chance, hence 5
    return (
        f"! The loss rises: around step {run.step[lowest + width // 2]} it was {smooth[lowest]:.3g}, and now it is "
        f"{smooth[-1]:.3g}. A learning rate that is too high often does this; so does a loss whose terms change."
    )


def trend(run: Run) -> str | None:
    """Does the loss still fall, as far as one can see?"""
    if (line := last_third(run)) is None or rising(run):
        return None
    change, chance = line
    by = f"by {abs(change):.3g} over the last third of the log, more than chance does."
    if abs(change) > chance:
        return f"! The loss has begun to rise: {by}" if change > 0 else f"The loss still falls: {by}"
    least = f"a change of less than about {chance:.3g} can't be told from chance"
    return f"Over the last third of the log the loss is flat, as far as one can see: {least}."


def jumps(run: Run) -> str | None:
    """Rows whose loss is far above that of the five before."""
    found: list[tuple[int, float, bool]] = []
    for i in range(5, len(run.loss)):
        before = float(np.median(run.loss[i - 5 : i]))
        high = max(8 * run.noise, 0.2 * abs(before))
        if run.loss[i] - before > high and not (found and i - found[-1][0] <= 5):
            after = run.loss[i + 1 : i + 6]
            found.append((i, before, len(after) > 0 and bool(np.median(after) - before < high / 2)))
    if not found:
        return None
    i, before, back = found[0]
    more = "" if len(found) == 1 else f" There are {len(found)} such jumps."
    ends = "and comes back" if back else "and stays there" if i < len(run.loss) - 5 else "near the end of the log"
    return f"! The loss jumps at step {run.step[i]}, from {before:.3g} to {run.loss[i]:.3g}, {ends}.{more}"


def exploding(run: Run) -> str | None:
    norm = run.gradient_norm[np.isfinite(run.gradient_norm)]
    if len(norm) < 2 * FEW:
        return None
    before, last = np.median(norm[: len(norm) // 2]), np.median(norm[-max(3, len(norm) // 10) :])
    if last <= 5 * before:
        return None
    return f"! The gradient explodes: its norm was {before:.3g} in the first half of the log and is {last:.3g} now."


def always_clipped(run: Run) -> str | None:
    limit, norm = run.settings.get("training.max_grad_norm"), run.gradient_norm[len(run.gradient_norm) // 2 :]
    if limit is None or len(norm) < FEW or np.isnan(norm).any() or (norm > limit).mean() < 0.9:
        return None
    share = f"in {np.mean(norm > limit):.0%} of the rows of the second half its norm is above max_grad_norm = {limit:g}"
    return f"! The gradient is clipped nearly always: {share}, up to {norm.max():.3g}."


def against_nothing(run: Run) -> str | None:
    """Is the network better than whoever knows nothing?"""
    if run.nothing is None or warming_up(run):
        return None
    last = tenths(run)[1]
    answers = NOTHING.get(run.settings["schedule.prediction_type"], "v = 0")
    known = f"Whoever knows nothing and always answers {answers} has a loss of {run.nothing:.3g} on these latents"
    if last >= 0.98 * run.nothing:
        return f"! The loss is {last:.3g}. {known}: the network has not learned more than that."
    return f"{known}. That of the network is {last / run.nothing:.0%} of it."


def progress(run: Run) -> str | None:
    step, ends = max(run.step[-1], run.checkpoint or 0), run.settings.get("training.steps")
    if ends is None:
        unknown = "there is no checkpoint with the recipe yet, so how far it goes isn't known"
        return f"The log has {count(len(run.step), 'row')}, up to step {run.step[-1]}; {unknown}."
    if step >= ends:
        return f"The run is complete: all {ends:,} steps."
    left, speed, batch = ends - step, recent_speed(run), run.settings["training.batch_size"]
    if speed is None:
        return f"Step {step:,} of {ends:,}."
    time = duration(left * batch / speed)
    return f"Step {step:,} of {ends:,}: {left:,} are left, {time} at the latest speed ({speed:.1f} pictures a second)."


def resumes(run: Run) -> str | None:
    """Steps that the log has, but not the checkpoint."""
    if run.checkpoint is None or run.checkpoint >= run.step[-1]:
        return None
    again = f"the {run.step[-1] - run.checkpoint} since then are done again"
    return f"The checkpoint is from step {run.checkpoint}: if the run is stopped now and resumed, {again}."


def learning_rate(run: Run) -> str | None:
    """Warm-up, or decay, or neither."""
    step, ends, rate = run.step[-1], run.settings.get("training.steps"), run.learning_rate
    warmup, decay = (run.settings.get(f"training.{name}_steps") for name in ("warmup", "decay"))
    if warming_up(run):
        of = f"{warmup} steps" if warmup else "unknown length"
        return f"The learning rate still warms up (step {step}, warm-up of {of}): what the loss does now says little."
    if ends is None or decay is None or np.isnan(rate).any():
        return None
    if not decay:
        return f"The learning rate is {rate[-1]:g}, and stays so to the end: this recipe has no decay."
    if step >= ends:
        return "The learning rate has fallen all the way."
    if step <= ends - decay:
        return f"The learning rate is {rate[-1]:g}. It falls from step {ends - decay:,} on."
    return f"The learning rate is falling: {rate[-1]:g} now, of at most {rate.max():g}; it reaches 0 at step {ends:,}."


SIGNS: tuple[Callable[[Run], str | None], ...] = (
    *(gradient, gaps, progress, resumes, learning_rate),
    *(level, rising, trend, jumps, exploding, always_clipped, against_nothing),
)

# --- what several signs need ---


def tenths(run: Run) -> tuple[float, float, int]:
    """The mean loss in the first and in the last tenth of the rows, and how many rows that is."""
    rows = max(1, len(run.loss) // 10)
    return float(run.loss[:rows].mean()), float(run.loss[-rows:].mean()), rows


def warming_up(run: Run) -> bool:
    """Is the warm-up still going on? Without the recipe: does the learning rate rise in every row?"""
    warmup = run.settings.get("training.warmup_steps")
    if warmup is not None:
        return bool(run.step[-1] < warmup)
    return len(run.step) > 1 and bool((np.diff(run.learning_rate) > 0).all())


def recent_speed(run: Run) -> float | None:
    """Pictures a second over the last tenth of the rows, with the time for checkpoints and samples."""
    speed = run.images_per_second[-max(1, len(run.step) // 10) :]
    if not (speed > 0).all():
        return None
    return float(len(speed) / (1 / speed).sum())


def last_third(run: Run) -> tuple[float, float] | None:
    """A straight line through the last third of the losses: its change, and what chance can do to that (3 sigma)."""
    last = run.rows(slice(-(len(run.step) // 3), None))
    if len(run.step) < 2 * FEW:
        return None
    x = last.step - last.step.mean()
    slope = (x @ last.loss) / (x @ x)
    rest = last.loss - last.loss.mean() - slope * x
    error = (rest @ rest / (len(x) - 2) / (x @ x)) ** 0.5
    span = last.step[-1] - last.step[0]
    least = 1e-4 * abs(last.loss.mean())  # the log is rounded
    return float(slope * span), max(float(3 * error * span), float(least))


def count(number: int, word: str) -> str:
    return f"{number:,} {word}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"about {seconds:.0f} seconds"
    return f"about {minutes} minutes" if minutes < 120 else f"about {seconds / 3600:.1f} hours"


# --- reading ---


def read_run(path: Path) -> tuple[Run, list[str]]:
    """The run in a folder, or of a log.csv; and remarks on how it was read.

    Raises FileNotFoundError if there is no log, ValueError if it can't be read.
    """
    file = path if path.is_file() else path / "log.csv"
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}")
    if not file.is_file():
        raise FileNotFoundError(f"{path} has no log.csv: no training was run there, or it hasn't written a row yet")
    table, remarks = read_log(file)
    alone = file.name != "log.csv"  # a log without its run
    settings, checkpoint, damaged = ({}, None, []) if alone else read_recipe_of(file.with_name("checkpoint.pt"))
    remarks = [f"! {remark}" for remark in (*remarks, *(f"{one} is damaged." for one in damaged))]
    return Run(
        file, **table, settings=settings, checkpoint=checkpoint, nothing=loss_of_nothing(file, settings)
    ), remarks


def loss_of_nothing(log: Path, settings: dict[str, Any]) -> float | None:
    """The loss of a UNet that always answers v = 0, from the latents in its run's folder: exact, nothing is drawn.

    There v² has the mean s² + n²·m, if m is the mean of x_0². An error of v is one of epsilon times 1/s, and one of x_0
    times 1/n. None for what isn't a UNet's run, and without its latents.
    """
    prefix, pool = "schedule.", log.with_name("pool.safetensors")
    values = {key.removeprefix(prefix): value for key, value in settings.items() if key.startswith(prefix)}
    if not values or not pool.is_file():
        return None
    try:
        schedule = Schedule(ScheduleConfig(**values))
        with safe_open(pool, framework="pt") as stored:
            latents = stored.get_tensor("latents")
    except (*DAMAGE, SafetensorError):
        return None
    signal = schedule.alphas_cumprod.double()  # s², at each t
    squared = signal + (1 - signal) * latents.float().square().mean().double()
    weight = {"v_prediction": torch.ones_like(signal), "epsilon": signal, "sample": 1 - signal}
    return (weight[schedule.config.prediction_type] * squared).mean().item()
