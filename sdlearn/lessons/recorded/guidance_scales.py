"""Lesson 10: the same 200 pictures of the bundled model at eight guidance scales, and what the scale changes.

    make recorded RUN=guidance_scales

Takes about ten minutes on one core. What is drawn stays in the folder `work`, so that a stopped run goes on with the
next piece. 40 requests, 5 pictures of each, and every scale begins with the same noise. Measured are:

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
PIECE = 25


def draw_all(model: StableDiffusion, captions: list[str], scales: tuple[float, ...], work: Path) -> dict[float, Tensor]:
    """The decoder's numbers at each scale, (B, 3, 64, 64), not clipped.

    Pieces of 25 pictures are kept in the folder `work`; those that are there aren't drawn again.
    """
    pieces: dict[float, list[Tensor]] = {scale: [] for scale in scales}
    for first in range(0, len(captions), PIECE):
        for scale in scales:
            file = work / f"{scale:g}_{first}.pt"
            if not file.exists():
                with evaluating(model):
                    steps = model.sample(captions[first : first + PIECE], seed=first, guidance_scale=scale)
                    raw = model.decode_latents(model.autoencoder, last(steps))
                with atomic_write(file) as temporary:
                    torch.save(raw.half(), temporary)
            pieces[scale].append(torch.load(file, weights_only=True).float())
    return {scale: torch.cat(parts) for scale, parts in pieces.items()}


def measure(pictures: Tensor, asked: list[tuple[str, str, str]], judge: Judge, each: int) -> dict[str, float]:
    """A row of the table, for pictures (B, 3, 64, 64) that may exceed −1 and 1, `each` adjacent ones of a request."""
    clipped = pictures.clamp(-1, 1)
    pixels = ((clipped + 1) * 127.5).round().to(torch.uint8)
    named, features = judge_pictures(judge, pixels)
    subjects = matches(named, [subject for subject, _, _ in asked])
    colors = matches(background_colors(pixels), [color for _, color, _ in asked])
    groups = features.unflatten(0, (-1, each))  # (requests, each, F)
    return {
        "pictures": len(pictures),
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
    for scale, pictures in draw_all(model, captions, scales, work).items():
        row = measure(pictures, asked, judge, each)
        rows.append({"scale": f"{scale:g}"} | {name: f"{value:.4g}" for name, value in row.items()})
        print(rows[-1])
        sheet += to_images(pictures[:each].clamp(-1, 1))
    real = measure(to_unit(as_tensor(scenes_of(asked, seed=0, turn=0))), asked, judge, each)
    rows.append({"scale": ""} | {name: f"{value:.4g}" for name, value in real.items()})
    write_rows(target.with_suffix(".csv"), rows)
    with atomic_write(target.with_suffix(".png")) as temporary:
        image_grid(sheet, columns=each).save(temporary, format="PNG", optimize=True)


def main(
    work: Annotated[Path, typer.Option(help="Where pictures are kept.")] = Path("runs/guidance_scales"),
    number: Annotated[int, typer.Option(help="How many requests.")] = REQUESTS,
) -> None:
    """Make the recorded run."""
    record(work, FOLDER / "guidance_scales", SCALES, number, EACH, load_judge())


if __name__ == "__main__":
    typer.run(main)
