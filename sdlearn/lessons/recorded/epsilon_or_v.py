"""Lesson 02: the bundled model's UNet retrained, once to predict epsilon and once v, all else being equal.

    make recorded RUN=epsilon_or_v

Takes half an hour on two cores, and resumes where it was stopped. Text encoder and autoencoder are the bundled ones;
what is stored here was recorded with the autoencoder before today's.
After 50, 100, 200 and 400 steps of 64 scenes the averaged UNet draws 80 pictures, the same for both. How many have the
requested background colour, and in how many does the judge recognise the requested subject?
"""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from torch import Tensor

import sdlearn
from sdlearn.config import read_table
from sdlearn.data import caption
from sdlearn.diffusion.schedule import Schedule
from sdlearn.evaluation.judge import Judge, background_colors, judge_pictures, load_judge
from sdlearn.evaluation.scores import draw, matches, requests
from sdlearn.files import atomic_write
from sdlearn.lessons.recorded import FOLDER, write_rows
from sdlearn.models.unet import UNet, UNetConfig
from sdlearn.pictures import image_grid, to_images, to_unit
from sdlearn.storage.folder import load_part
from sdlearn.storage.load import BUNDLED
from sdlearn.training.diffusion import DiffusionParts, DiffusionRecipe, DiffusionTask
from sdlearn.training.run import read_recipe, run

STEPS = (50, 100, 200, 400)
PICTURES = 80
SHOWN = 10


def make_recipe(prediction_type: str, steps: int, pool_size: int) -> DiffusionRecipe:
    """The bundled UNet's recipe. Its learning rate stays constant to the end, so that any step can be the last."""
    file = FOLDER.parents[1] / "training" / "recipes" / "diffusion.toml"
    recipe = read_table(DiffusionRecipe, read_recipe(file), str(file))
    return replace(
        recipe,
        parts=DiffusionParts(clip=str(BUNDLED), autoencoder=str(BUNDLED)),
        schedule=replace(recipe.schedule, prediction_type=prediction_type),
        data=replace(recipe.data, pool_size=pool_size),
        training=replace(recipe.training, steps=steps, decay_steps=0, sample_every=steps + 1),
    )


def measure(recipe: DiffusionRecipe, model: Path, judge: Judge, pictures: int) -> tuple[dict[str, str], Tensor]:
    """What the UNet in a model folder draws: a row of the table, and the pictures (B, 3, 64, 64) uint8."""
    drawing = copy.copy(sdlearn.load(BUNDLED))
    drawing.unet = load_part(model / "unet", UNet, UNetConfig)
    drawing.schedule = Schedule(recipe.schedule)
    asked = requests("test", pictures, seed=0)
    drawn = draw(drawing, [caption(*request) for request in asked], seed=0, settings={}, progress=True)
    named, _ = judge_pictures(judge, drawn)
    subjects = matches(named, [subject for subject, _, _ in asked])
    colors = matches(background_colors(drawn), [color for _, color, _ in asked])
    scores = {"subject": f"{subjects.mean():.4f}", "color": f"{colors.mean():.4f}"}
    seen = recipe.training.steps * recipe.training.batch_size
    return {"prediction_type": recipe.schedule.prediction_type, "scenes": str(seen)} | scores, drawn


def record(work: Path, target: Path, steps: tuple[int, ...], pictures: int, pool_size: int, judge: Judge) -> None:
    """Train both in the folder `work`, and write `target`.csv and `target`.png, which shows what both finally draw."""
    rows, sheet = [], []
    for prediction_type in ("epsilon", "v_prediction"):
        for number in steps:
            recipe = make_recipe(prediction_type, number, pool_size)
            folder = work / prediction_type
            model = folder / f"model_{number}"
            if not model.exists():
                run(DiffusionTask(recipe, work), recipe.training, folder)  # both share the latents in `work`
                (folder / "model").rename(model)
            row, drawn = measure(recipe, model, judge, pictures)
            rows.append(row)
            print(row)
        sheet += to_images(to_unit(drawn[:SHOWN]))
    write_rows(target.with_suffix(".csv"), rows)
    with atomic_write(target.with_suffix(".png")) as temporary:
        image_grid(sheet, columns=SHOWN).save(temporary, format="PNG", optimize=True)


def main(work: Annotated[Path, typer.Option(help="Where the training resumes.")] = Path("runs/epsilon_or_v")) -> None:
    """Make the recorded run."""
    record(work, FOLDER / "epsilon_or_v", STEPS, PICTURES, 16_000, load_judge())


if __name__ == "__main__":
    typer.run(main)
