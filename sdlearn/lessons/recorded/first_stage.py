"""Lesson 06: small autoencoders with the factors 2, 4 and 8; then that with 4 trained further, with three losses.

    make recorded RUN=first_stage

Takes twenty minutes on one core, and resumes where it was stopped. All learn from the same crops, of 32 × 32
pixels, of scenes with 20 subjects. First each factor is trained equally long with the absolute difference of pixels.
Then the autoencoder of factor 4 goes on in three ways: with the same loss, with a perceptual distance added, and with a
discriminator added to both. How good their reconstructions of new scenes are, whole ones, is measured in four ways.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from safetensors.torch import save_file
from torch import Tensor

from sdlearn.data import SUBJECTS, Scene, Scenes
from sdlearn.evaluation.sharpness import edge_agreement, psnr
from sdlearn.files import atomic_write
from sdlearn.lessons.recorded import FOLDER, write_rows
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig
from sdlearn.pictures import image_grid, to_images, to_pixels, to_unit
from sdlearn.storage.folder import load_part
from sdlearn.training.autoencoder import AutoencoderLoss, AutoencoderParts, AutoencoderRecipe, AutoencoderTask
from sdlearn.training.first_stage import PerceptualFeatures, load_features, perceptual_distance
from sdlearn.training.loop import TrainConfig
from sdlearn.training.run import run

WIDTHS = (12, 24, 48, 64)
PIXELS = AutoencoderLoss(kl_weight=1e-4, mse_weight=0.0)
LOSSES = {
    "pixels": PIXELS,
    "perceptual": replace(PIXELS, perceptual_weight=0.2),
    "adversarial": replace(PIXELS, perceptual_weight=0.2, adversarial_weight=0.1, adversarial_start=200),
}
FIRST, MORE = 1200, 800  # steps
TRAINING = TrainConfig(
    steps=FIRST,
    batch_size=16,
    learning_rate=3e-3,
    warmup_steps=50,
    decay_steps=400,
    ema_decay=0.99,
    sample_every=FIRST,
    checkpoint_every=50,
)
PICTURES = 64  # that are measured
CROP = 32  # pixels: Stable Diffusion's autoencoder, too, has learned from crops smaller than what it is used for
SHOWN = (8, 11, 12, 14, 16, 33, 47, 60)  # of these, reconstructions are kept; of all, the originals


@dataclass(frozen=True)
class Crops:
    """Pieces of scenes, each a pure function of its index."""

    scenes: Scenes

    def __getitem__(self, index: int) -> Scene:
        scene = self.scenes[index]
        y, x = np.random.default_rng([self.scenes.seed, index]).integers(0, scene.image.shape[-1] - CROP + 1, 2)
        return replace(scene, image=scene.image[:, y : y + CROP, x : x + CROP])


def make_task(factor: int, loss: AutoencoderLoss, training: TrainConfig, init: Path | None = None) -> AutoencoderTask:
    """A new autoencoder of this factor or, trained further, the one in the folder `init`."""
    widths = WIDTHS[: factor.bit_length()]
    model = AutoencoderConfig(
        block_out_channels=widths, layers_per_block=1, norm_num_groups=4, sample_size=64, mid_block_add_attention=False
    )
    parts = None if init is None else AutoencoderParts(str(init))
    task = AutoencoderTask(AutoencoderRecipe(training, loss, None if parts else model, parts))
    task.scenes = Crops(Scenes(training.seed, subjects=SUBJECTS[::8]))
    return task


def plan(training: TrainConfig, more: int) -> dict[str, tuple[int, AutoencoderLoss, TrainConfig]]:
    """What is trained, by name: the factor, the losses, and how. The last three start from factor 4."""
    first = {f"factor {factor}": (factor, PIXELS, training) for factor in (2, 4, 8)}
    further = replace(training, steps=more, decay_steps=more // 2, learning_rate=training.learning_rate / 2)
    return first | {name: (4, loss, further) for name, loss in LOSSES.items()}


def train_one(work: Path, name: str, factor: int, loss: AutoencoderLoss, training: TrainConfig) -> None:
    """Train one of the plan in the folder `work`, unless it has been."""
    init = work / "factor 4" / "model" if name in LOSSES else None
    if not (work / name / "model").exists():
        run(make_task(factor, loss, training, init), training, work / name)


@torch.no_grad()
def measure(autoencoder: Autoencoder, features: PerceptualFeatures, pictures: Tensor) -> tuple[dict[str, str], Tensor]:
    """Scores of the reconstructions of pictures (B, 3, 64, 64) uint8, and the reconstructions."""
    image = to_unit(pictures)
    latents = autoencoder.encode(image).mode()
    again = autoencoder.decode(latents)
    distance = perceptual_distance(features, again, image).mean()
    drawn = to_pixels(again)
    edges = edge_agreement(drawn, pictures).mean()
    scores = {"numbers": str(latents[0].numel()), "l1": f"{(again - image).abs().mean():.4f}"}
    scores |= {"psnr": f"{psnr(pictures, drawn)[0].mean():.2f}", "perceptual": f"{distance:.4f}"}
    return scores | {"edges": f"{edges:.3f}"}, drawn


def record(work: Path, target: Path, training: TrainConfig, more: int, pictures: int) -> None:
    """Train all in the folder `work`, and write `target`.csv, `target`.png and the perceptual network's weights."""
    test = Scenes(training.seed, "test", subjects=SUBJECTS[::8])
    originals = torch.stack([test[index].image for index in range(pictures)])
    features = load_features()
    shown = [index % pictures for index in SHOWN]
    rows, sheet = [], to_images(to_unit(originals))
    for name, (factor, loss, how) in plan(training, more).items():
        train_one(work, name, factor, loss, how)
        autoencoder = load_part(work / name / "model" / "vae", Autoencoder, AutoencoderConfig)
        scores, drawn = measure(autoencoder, features, originals)
        rows.append({"name": name, "factor": str(factor)} | scores)
        print(rows[-1])
        sheet += to_images(to_unit(drawn[shown]))
    write_rows(target.with_suffix(".csv"), rows)
    with atomic_write(target.with_suffix(".png")) as temporary:
        image_grid(sheet, columns=len(SHOWN)).save(temporary, format="PNG", optimize=True)
    state = features.state_dict()
    weights = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    with atomic_write(target.with_suffix(".safetensors")) as temporary:
        save_file(weights, temporary)


def main(work: Annotated[Path, typer.Option(help="Where the training resumes.")] = Path("runs/first_stage")) -> None:
    """Make the recorded run."""
    record(work, FOLDER / "first_stage", TRAINING, MORE, PICTURES)


if __name__ == "__main__":
    typer.run(main)
