"""Lesson 10: the same 200 pictures of the bundled model at eight guidance scales, and what the scale changes.

    make recorded RUN=guidance_scales

Takes about ten minutes on one core. The pictures of each scale stay in the folder `work`, so that a stopped run goes on
with the next scale. 40 requests, 5 pictures of each, and every scale begins with the same noise. Measured are:

- subject, color, both: in how many pictures the judge recognises the requested subject, how many have the requested
  background colour, how many both;
- diversity: the mean distance of the judge's features between two pictures of one request;
- clipped: the share of the decoder's numbers beyond −1 and 1, which a picture can't hold;
- contrast: the standard deviation of a picture's numbers, after clipping.

The last row, without a scale, is for 200 real scenes of the same requests.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

import sdlearn
from sdlearn import StableDiffusion, last
from sdlearn.data import caption
from sdlearn.evaluation.judge import Judge, background_colors, judge_pictures, load_judge
from sdlearn.evaluation.scores import as_tensor, evaluating, matches, requests, scenes_of
from sdlearn.files import atomic_write
from sdlearn.lessons.recorded import FOLDER, write_rows
from sdlearn.pictures import image_grid, to_images, to_unit

SCALES = (0.0, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0)
REQUESTS, EACH = 40, 5


def drawn(model: StableDiffusion, captions: list[str], scale: float, work: Path) -> Tensor:
    """The decoder's numbers at this scale, (B, 3, 64, 64), not clipped; from the folder `work` if they are there."""
    file = work / f"{scale:g}.pt"
    if not file.exists():
        parts = []
        with evaluating(model):
            for first in range(0, len(captions), 50):
                steps = model.sample(captions[first : first + 50], seed=first, guidance_scale=scale)
                parts.append(model.decode_latents(model.autoencoder, last(steps)))
        with atomic_write(file) as temporary:
            torch.save(torch.cat(parts).half(), temporary)
    return torch.load(file, weights_only=True).float()


def measure(pictures: Tensor, asked: list[tuple[str, str, str]], judge: Judge, each: int) -> dict[str, float]:
    """A row of the table, for pictures (B, 3, 64, 64) that may exceed −1 and 1, `each` adjacent ones of a request."""
    clipped = pictures.clamp(-1, 1)
    pixels = ((clipped + 1) * 127.5).round().to(torch.uint8)
    named, features = judge_pictures(judge, pixels)
    subjects = matches(named, [subject for subject, _, _ in asked])
    colors = matches(background_colors(pixels), [color for _, color, _ in asked])
    groups = features.unflatten(0, (-1, each))  # (requests, each, F)
    return {
        "subject": subjects.mean(),
        "color": colors.mean(),
        "both": (subjects & colors).mean(),
        "diversity": (torch.cdist(groups, groups).sum((1, 2)) / (each * (each - 1))).mean().item(),
        "clipped": (pictures.abs() > 1).float().mean().item(),
        "contrast": clipped.flatten(1).std(dim=1).mean().item(),
    }


def record(work: Path, target: Path, scales: tuple[float, ...], number: int, each: int, judge: Judge) -> None:
    """Draw into the folder `work`, and write `target`.csv and `target`.png: a row of pictures for each scale."""
    work.mkdir(parents=True, exist_ok=True)
    model = sdlearn.load(sdlearn.BUNDLED)
    asked = [request for request in requests("test", number, seed=0) for _ in range(each)]
    captions = [caption(*request) for request in asked]
    rows, sheet = [], []
    for scale in scales:
        pictures = drawn(model, captions, scale, work)
        row = measure(pictures, asked, judge, each)
        rows.append({"scale": f"{scale:g}"} | {name: f"{value:.4f}" for name, value in row.items()})
        print(rows[-1])
        sheet += to_images(pictures[:each].clamp(-1, 1))
    real = measure(to_unit(as_tensor(scenes_of(asked, seed=0, turn=0))), asked, judge, each)
    rows.append({"scale": ""} | {name: f"{value:.4f}" for name, value in real.items()})
    write_rows(target.with_suffix(".csv"), rows)
    with atomic_write(target.with_suffix(".png")) as temporary:
        image_grid(sheet, columns=each).save(temporary, format="PNG", optimize=True)


def main(work: Annotated[Path, typer.Option(help="Where pictures are kept.")] = Path("runs/guidance_scales")) -> None:
    """Make the recorded run."""
    record(work, FOLDER / "guidance_scales", SCALES, REQUESTS, EACH, load_judge())


if __name__ == "__main__":
    typer.run(main)
