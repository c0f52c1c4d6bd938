"""Lesson 06: one small UNet, trained once on pixels and once on latents, with the same number of operations.

    make recorded RUN=pixels_or_latents

Takes ten minutes on one core, and resumes where it was stopped. Eight subjects on ten colours. The latents are
those of the bundled autoencoder, whose own training isn't counted. A step on pixels costs many times as much, so there
are so many fewer of them. A third run, on latents, has as few steps as the one on pixels. Then all draw the same
prompts. How many have the requested background colour, and in how many does the judge recognise the requested subject?
"""

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

import torch
import typer
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sdlearn.config import read_table
from sdlearn.data import Scenes, caption, pairs
from sdlearn.diffusion.guidance import Condition, guide
from sdlearn.diffusion.samplers import draw_noise, get_sampler, last
from sdlearn.evaluation.judge import Judge, background_colors, judge_pictures, load_judge
from sdlearn.evaluation.scores import matches
from sdlearn.files import atomic_write
from sdlearn.lessons.recorded import FOLDER, write_rows
from sdlearn.models.autoencoder import Autoencoder, Gaussian
from sdlearn.models.unet import UNet, UNetConfig
from sdlearn.pictures import image_grid, to_images, to_pixels, to_unit
from sdlearn.pipeline import decode_latents
from sdlearn.storage.folder import load_part
from sdlearn.storage.load import BUNDLED
from sdlearn.training.diffusion import DiffusionParts, DiffusionRecipe, DiffusionTask, Pool, make_pool
from sdlearn.training.loop import TrainConfig
from sdlearn.training.run import read_recipe, run

FEW = ("cat", "penguin", "red apple", "tree", "owl", "rocket", "castle", "guitar")
STEPS, BATCH_SIZE, SCENES, PICTURES = 240, 32, 800, 32  # steps on latents


class Pixels:
    """In the place of an autoencoder: factor 1, and nothing is changed but the scale."""

    config = SimpleNamespace(scaling_factor=2.0)  # pixels in [−1, 1] have a standard deviation of about a half

    def encode(self, pictures: Tensor) -> Gaussian:
        return Gaussian(pictures, torch.full_like(pictures, -30.0))

    def decode(self, pixels: Tensor) -> Tensor:
        return pixels


class LatentTask(DiffusionTask):
    """The UNet on the latents of scenes with few subjects."""

    def load_pool(self, file: Path, size: int, source: str) -> Pool:
        networks = self.code(), self.text_encoder, self.tokenizer
        return make_pool(*networks, Scenes(self.seed, subjects=FEW), size, self.seed)

    def code(self) -> Autoencoder | Pixels:
        """What makes pictures of what the UNet draws."""
        return self.autoencoder

    def samples(self) -> None:
        return None


class PixelTask(LatentTask):
    """The same on their pixels."""

    def code(self) -> Pixels:
        return Pixels()


TASKS = {"pixels": (PixelTask, 3, 64), "latents": (LatentTask, 4, 16)}  # channels and side of what the UNet sees
RUNS = {"pixels": "pixels", "few": "latents", "latents": "latents"}  # their names, and what they see


def make_recipe(kind: str, steps: int, batch_size: int, pool_size: int) -> DiffusionRecipe:
    """The bundled UNet's recipe with half of its channels."""
    file = FOLDER.parents[1] / "training" / "recipes" / "diffusion.toml"
    recipe = read_table(DiffusionRecipe, read_recipe(file), str(file))
    _, channels, side = TASKS[kind]
    shape = {"sample_size": side, "in_channels": channels, "out_channels": channels}
    training = TrainConfig(
        steps=steps,
        batch_size=batch_size,
        learning_rate=2e-3,
        warmup_steps=steps // 20,
        decay_steps=steps // 2,
        ema_decay=0.99,
        channels_last=True,
        log_every=10,
        sample_every=steps,
        checkpoint_every=2 if kind == "pixels" else 40,
    )
    return replace(
        recipe,
        parts=DiffusionParts(clip=str(BUNDLED), autoencoder=str(BUNDLED)),
        model=replace(recipe.model, block_out_channels=(32, 64, 96), norm_num_groups=16, **shape),
        data=replace(recipe.data, pool_size=pool_size),
        training=training,
    )


def operations(recipe: DiffusionRecipe) -> int:
    """Floating-point operations of one prediction, without the small ones: those of convolutions and matrices."""
    config = recipe.model
    unet = UNet(config).to("meta")  # shapes without numbers
    x = torch.empty(1, config.in_channels, config.sample_size, config.sample_size, device="meta")
    context = torch.empty(1, 77, config.cross_attention_dim, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        unet(x, torch.zeros(1, device="meta"), context)
    return counter.get_total_flops()


def memory(recipe: DiffusionRecipe) -> int:
    """Bytes of what the UNet keeps of one picture for the backward pass, without its own weights."""
    config = recipe.model
    unet, kept = UNet(config), {}
    weights = {one.untyped_storage().data_ptr() for one in unet.parameters()}

    def keep(one: Tensor) -> Tensor:
        storage = one.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return one

    x = torch.randn(1, config.in_channels, config.sample_size, config.sample_size)
    context = torch.randn(1, 77, config.cross_attention_dim)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        unet(x, torch.zeros(1), context)
    return sum(kept.values())


@torch.no_grad()
def draw(task: LatentTask, prompts: list[str], batch_size: int = 8) -> Tensor:
    """Pictures (B, 3, 64, 64) uint8 for prompts; picture i begins with the noise of seed i."""
    sampler, drawn = get_sampler("dpmpp_2m_karras"), []
    grid = sampler.make_grid(task.schedule, 12)
    empty = task.text_encoder(task.tokenizer([""]))
    for first in range(0, len(prompts), batch_size):
        context = task.text_encoder(task.tokenizer(prompts[first : first + batch_size]))
        denoise = guide(task.unet, Condition(context), Condition(empty.expand_as(context)), guidance_scale=2.0)
        seeds = range(first, first + len(context))
        shape = (1, *task.pool.latents.shape[1:])
        x = torch.cat([draw_noise(shape, torch.Generator().manual_seed(seed)) for seed in seeds])
        drawn.append(to_pixels(decode_latents(task.code(), last(sampler.loop(denoise, x, grid, task.schedule)))))
    return torch.cat(drawn)


def record(work: Path, target: Path, steps: int, batch_size: int, pool_size: int, pictures: int, judge: Judge) -> None:
    """Train both in the folder `work`, and write `target`.csv and `target`.png, which shows what both draw."""
    asked = pairs("test", FEW)[:: max(1, 72 // pictures)][:pictures]
    recipes = {kind: make_recipe(kind, steps, batch_size, pool_size) for kind in TASKS}
    cost = {kind: operations(recipe) for kind, recipe in recipes.items()}
    kept = {kind: memory(recipe) for kind, recipe in recipes.items()}
    fewer = max(1, round(steps * cost["latents"] / cost["pixels"]))
    rows, sheet = [], []
    for name, kind in RUNS.items():
        recipe = make_recipe(kind, steps if name == "latents" else fewer, batch_size, pool_size)
        task = TASKS[kind][0](recipe, work)
        run(task, recipe.training, work / name)  # resumes; the averaged network is in `model` afterwards
        task.unet = load_part(work / name / "model" / "unet", UNet, UNetConfig)
        started = time.monotonic()
        drawn = draw(task, [caption(*one) for one in asked])
        seconds = (time.monotonic() - started) / len(asked)
        named, _ = judge_pictures(judge, drawn)
        subjects = matches(named, [subject for subject, _ in asked]).mean()
        colors = matches(background_colors(drawn), [color for _, color in asked]).mean()
        row = {"kind": kind, "operations": str(cost[kind]), "memory": str(kept[kind])}
        row |= {"steps": str(recipe.training.steps)}
        row |= {"scenes": str(recipe.training.steps * recipe.training.batch_size), "seconds": f"{seconds:.2f}"}
        rows.append(row | {"subject": f"{subjects:.4f}", "color": f"{colors:.4f}"})
        print(rows[-1])
        sheet += to_images(to_unit(drawn[:: max(1, pictures // 8)][:8]))
    write_rows(target.with_suffix(".csv"), rows)
    with atomic_write(target.with_suffix(".png")) as temporary:
        image_grid(sheet, columns=8).save(temporary, format="PNG", optimize=True)


def main(work: Annotated[Path, typer.Option(help="Where the training resumes.")] = Path("runs/pixels")) -> None:
    """Make the recorded run."""
    record(work, FOLDER / "pixels_or_latents", STEPS, BATCH_SIZE, SCENES, PICTURES, load_judge())


if __name__ == "__main__":
    typer.run(main)
