"""Lesson 12: a UNet like the bundled model's, trained from nothing, and measured again and again on the way.

    make recorded RUN=through_training

Takes three quarters of an hour on one core, and resumes where it was stopped. The recipe is the bundled UNet's, with
fewer scenes and steps; text encoder and autoencoder are the bundled ones. After 0, 10, 20, 40 … steps, the weights
("raw") and their moving average ("ema") are measured, and at the end the bundled UNet, which was trained far longer:

- `through_training.csv`: the squared errors of v and of x_0 in ten bands of t, for scenes that training showed and for
  new ones. Beside them four answers that need no network:
  "nothing": v is 0;
  "linear": the best answer that is linear in each number of x_t, from that number's mean and variance in training;
  "ideal": the mean of all training latents with this caption, weighted by how likely each is to have become x_t: no
  other answer has a smaller squared error where nothing but the training scenes exists. Where no training scene has the
  caption, it is the same as the next one;
  "ideal_any_caption": the same over all training latents, as if the caption were unknown.
- `through_training_scores.csv`: of pictures that were drawn, the share with the requested subject (as the judge sees
  it), that with the requested background colour, and how well the edges agree with the nearest right picture's.
- `through_training_log.csv`: the log that the training wrote.
- `through_training.png`: the same prompts, from the same noise. A row each with "ema" and with "raw" for each of
  PROMPTS; a column for each of STEPS, and one for the bundled model.
"""

import copy
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

import sdlearn
from sdlearn.config import read_table
from sdlearn.data import Scenes, caption
from sdlearn.diffusion.ideal import ideal_denoiser
from sdlearn.diffusion.schedule import Schedule
from sdlearn.evaluation.judge import Judge, background_colors, judge_pictures, load_judge
from sdlearn.evaluation.scores import draw, matches, requests
from sdlearn.evaluation.sharpness import edge_agreement, nearest_renderings
from sdlearn.files import atomic_write
from sdlearn.lessons.recorded import FOLDER, write_rows
from sdlearn.pictures import image_grid, to_images, to_unit
from sdlearn.pipeline import StableDiffusion
from sdlearn.storage.load import BUNDLED
from sdlearn.training.diffusion import DiffusionParts, DiffusionRecipe, DiffusionTask, Pool, make_pool
from sdlearn.training.loop import TrainConfig, generator_for
from sdlearn.training.run import read_recipe, run

STEPS = (0, 10, 20, 40, 80, 160, 320, 640, 1000)
BATCH_SIZE, POOL = 32, 16_000
BANDS, SCENES, PICTURES = 10, 48, 48  # of t; scenes in each band; pictures that are judged
PROMPTS = ("a penguin on a blue background", "a large red apple on a yellow background", "an owl on a pink background")
FILM_SEED = 3
Answer = Callable[[Tensor, Tensor], Tensor]  # x_t (S, C, H, W) and t (S,) -> a prediction of v


@dataclass(frozen=True)
class Part(TrainConfig):
    """The first `steps` of a training that has `whole` steps, and whose learning rate falls at the end of those."""

    whole: int = 1

    def learning_rate_at(self, step: int) -> float:
        return TrainConfig.learning_rate_at(replace(self, steps=self.whole), step)


class Training(DiffusionTask):
    """The UNet on scenes. What it draws is seen to here."""

    def samples(self) -> None:
        return None


def make_recipe(steps: int, batch_size: int, pool_size: int) -> DiffusionRecipe:
    """The bundled UNet's recipe with these numbers, a short warm-up, and a learning rate that falls in the last third.

    In full precision: most processors have no other that is fast.
    """
    file = FOLDER.parents[1] / "training" / "recipes" / "diffusion.toml"
    recipe = read_table(DiffusionRecipe, read_recipe(file), str(file))
    training = replace(
        recipe.training,
        **{"steps": steps, "batch_size": batch_size, "warmup_steps": 50, "decay_steps": steps // 3},
        **{"mixed_precision": "no", "channels_last": True, "log_every": 10, "checkpoint_every": 50},
    )
    parts = DiffusionParts(clip=str(BUNDLED), autoencoder=str(BUNDLED))
    return replace(recipe, parts=parts, data=replace(recipe.data, pool_size=pool_size), training=training)


def train_until(step: int, task: Training, training: TrainConfig, work: Path) -> dict[str, list[Tensor]]:
    """Go on until this step of the training. Returns the UNet's parameters then, raw and averaged."""
    if step == 0:
        first = [parameter.detach().clone() for parameter in task.unet.parameters()]
        return {"raw": first, "ema": first}
    values = {field: getattr(training, field) for field in TrainConfig.__dataclass_fields__}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the recipe has changed")  # only the step at which it stops
        run(task, Part(**values | {"steps": step}, whole=training.steps), work)
    values = torch.load(work / "checkpoint.pt", weights_only=True)
    return {"raw": values["parameters"], "ema": values["ema"]}


@dataclass(frozen=True)
class Probe:
    """Scenes for measuring the loss: in each band of t, every scene has a time and noise, always the same ones."""

    latents: Tensor  # (S, C, H, W)
    context: Tensor  # (S, T, K)
    captions: list[str]
    schedule: Schedule

    @classmethod
    def of_pool(cls, pool: Pool, captions: list[str], schedule: Schedule) -> "Probe":
        """The first scenes of a pool, as many as there are captions."""
        first = slice(len(captions))
        return cls(pool.latents[first].float(), pool.context[pool.caption[first]].float(), captions, schedule)

    def noised(self, band: int) -> tuple[Tensor, Tensor, Tensor]:
        """x_t and the noise in it, (S, C, H, W), and t (S,), spread evenly over the band."""
        count, length = len(self.latents), self.schedule.config.num_train_timesteps // BANDS
        t = band * length + (2 * torch.arange(count) + 1) * length // (2 * count)
        noise = torch.randn(self.latents.shape, generator=generator_for(0, band, purpose=2))
        return self.schedule.add_noise(self.latents, noise, t), noise, t

    @torch.no_grad()
    def errors(self, answer: Answer) -> list[dict[str, str]]:
        """For each band the mean squared errors of an answer: of v, which is the loss, and of the x_0 that it means."""
        rows = []
        for band in range(BANDS):
            x, noise, t = self.noised(band)
            given = answer(x, t)
            v = (given - self.schedule.velocity(self.latents, noise, t)).square().mean()
            x0 = (self.schedule.to_x0(given, x, t) - self.latents).square().mean()
            rows.append({"band": str(band), "v": f"{v:.5g}", "x0": f"{x0:.5g}"})
        return rows


def answers(probe: Probe, pool: Pool, pool_captions: list[str]) -> dict[str, Answer]:
    """The four answers that need no network, by name. They know what is in the pool."""
    latents, schedule = pool.latents.double(), probe.schedule  # in float32, 1/n² would make rounding errors large
    mean, variance = latents.mean(0), latents.var(0)
    numbers: dict[str, list[int]] = {}  # the scenes with a caption
    for index, text in enumerate(pool_captions):
        numbers.setdefault(text, []).append(index)
    said = [latents[numbers[text]] if text in numbers else latents for text in probe.captions]

    def v_of(x0: Tensor, x: Tensor, t: Tensor) -> Tensor:
        signal_rate, noise_rate = schedule.rates(t, x0)
        return (signal_rate * x - x0) / noise_rate

    def linear(x: Tensor, t: Tensor) -> Tensor:
        s, n = schedule.rates(t, mean.expand_as(x))
        return v_of(mean + s * variance / (s**2 * variance + n**2) * (x - s * mean), x, t)

    def ideal(x: Tensor, t: Tensor) -> Tensor:
        one_by_one = zip(x.double().split(1), t.split(1), said, strict=True)
        return v_of(torch.cat([ideal_denoiser(*one, schedule) for one in one_by_one]), x, t)

    def ideal_any_caption(x: Tensor, t: Tensor) -> Tensor:
        return v_of(ideal_denoiser(x.double(), t, latents, schedule), x, t)

    known = {"linear": linear, "ideal": ideal, "ideal_any_caption": ideal_any_caption}
    return {"nothing": lambda x, t: torch.zeros_like(x)} | known


def measure(unet: nn.Module, probes: dict[str, Probe], model: StableDiffusion, judge: Judge) -> dict[str, Any]:
    """The errors of a UNet, the scores of what it draws with the other parts of `model`, and the film's pictures."""
    losses = []
    for scenes, probe in probes.items():
        errors = probe.errors(lambda x, t, context=probe.context: unet(x, t, context))
        losses += [{"scenes": scenes} | row for row in errors]
    drawing = copy.copy(model)
    drawing.unet = unet
    film = draw(drawing, list(PROMPTS), FILM_SEED, {}, progress=False)
    asked = requests("test", PICTURES, seed=0)
    drawn = draw(drawing, [caption(*request) for request in asked], 0, {}, progress=False)
    named, _ = judge_pictures(judge, drawn)
    subjects = matches(named, [subject for subject, _, _ in asked]).mean()
    colors = matches(background_colors(drawn), [color for _, color, _ in asked]).mean()
    edges = edge_agreement(drawn, nearest_renderings(drawn, asked)).mean()
    scores = {"subject": f"{subjects:.4f}", "color": f"{colors:.4f}", "edges": f"{edges:.4f}"}
    return {"losses": losses, "scores": scores, "film": film}


def kept(file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was made before and stored in a file, or else is made now."""
    if not file.exists():
        with atomic_write(file) as temporary:
            torch.save(make(), temporary)
    return torch.load(file, weights_only=True)


def write(target: Path, references: list[dict[str, str]], measured: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Write both tables, and the film; measured: by step and kind of weights."""
    losses, scores = [], []
    for (step, weights), values in measured.items():
        about = {"step": step, "answer": weights}
        losses += [about | row for row in values["losses"]]
        scores.append({"step": step, "weights": weights} | values["scores"])
    write_rows(target.with_suffix(".csv"), references + losses)
    write_rows(target.with_name(f"{target.name}_scores.csv"), scores)
    steps, sheet = dict.fromkeys(step for step, _ in measured), []
    for prompt in range(len(PROMPTS)):
        for weights in ("ema", "raw"):
            columns = [measured.get((step, weights)) or measured[step, "bundled"] for step in steps]
            sheet += to_images(to_unit(torch.stack([values["film"][prompt] for values in columns])))
    with atomic_write(target.with_suffix(".png")) as temporary:
        image_grid(sheet, columns=len(steps)).save(temporary, format="PNG", optimize=True)


def record(work: Path, target: Path, steps: tuple[int, ...], batch_size: int, pool_size: int, judge: Judge) -> None:
    """Train in the folder `work`, and write the files that begin with `target`, anew after each of the steps."""
    work.mkdir(parents=True, exist_ok=True)
    recipe = make_recipe(steps[-1], batch_size, pool_size)
    task, model = Training(recipe, work), sdlearn.load(BUNDLED)
    networks = task.autoencoder, task.text_encoder, task.tokenizer
    new = make_pool(*networks, Scenes(task.seed, "test"), SCENES, task.seed)
    shown, others = Scenes(task.seed), Scenes(task.seed, "test")
    captions = [shown[index].caption for index in range(pool_size)]
    probes = {
        "training": Probe.of_pool(task.pool, captions[:SCENES], task.schedule),
        "new": Probe.of_pool(new, [others[index].caption for index in range(SCENES)], task.schedule),
    }
    references = []
    for scenes, probe in probes.items():
        for name, answer in answers(probe, task.pool, captions).items():
            references += [{"step": "", "answer": name, "scenes": scenes} | row for row in probe.errors(answer)]

    bundled = kept(work / "bundled.pt", lambda: measure(model.unet, probes, model, judge))
    measured: dict[tuple[str, str], dict[str, Any]] = {}

    def both(step: int) -> dict[str, Any]:
        values = {}
        for weights, parameters in train_until(step, task, recipe.training, work).items():
            with torch.no_grad():
                for parameter, value in zip(task.unet.parameters(), parameters, strict=True):
                    parameter.copy_(value)
            values[weights] = measure(task.unet, probes, model, judge) if step or not values else values["raw"]
        return values

    for step in steps:
        values = kept(work / f"measured_{step}.pt", lambda step=step: both(step))
        measured |= {(str(step), weights): values[weights] for weights in ("raw", "ema")}
        print({weights: values[weights]["scores"] for weights in values})
        write(target, references, measured | {("", "bundled"): bundled})
        if step:
            shutil.copyfile(work / "log.csv", target.with_name(f"{target.name}_log.csv"))


def main(
    work: Annotated[Path, typer.Option(help="Where the training resumes.")] = Path("runs/through_training"),
) -> None:
    """Make the recorded run."""
    record(work, FOLDER / "through_training", STEPS, BATCH_SIZE, POOL, load_judge())


if __name__ == "__main__":
    typer.run(main)
