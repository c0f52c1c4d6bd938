"""Lesson 10: the same 200 pictures of the bundled model at eight guidance scales, and what the scale changes.

    make recorded RUN=guidance_scales

The two largest scales are drawn again with rescaling. Takes about ten minutes on one core. What is drawn stays in the
folder `work`, so that a stopped run goes on with the next piece. 40 requests, 5 pictures of
each, and every scale begins with the same noise. Measured are:

- subject, color, both: in how many pictures the judge recognises the requested subject, how many have the requested
  background colour, how many both;
- diversity: the mean distance of the judge's features between two pictures of one request;
- clipped: the share of the decoder's numbers beyond −1 and 1, which a picture can't hold;
- contrast: the standard deviation of a picture's numbers, after clipping.

The last row, without a scale, is for 200 real scenes of the same requests. The picture has a row for each plain
scale.
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
RESCALED = ((10.0, 0.7), (15.0, 0.7))  # scale, rescale
REQUESTS, EACH = 40, 5
PIECE = 25


Guidance = tuple[float, float]  # scale, rescale


def draw_all(model: StableDiffusion, captions: list[str], kinds: list[Guidance], work: Path) -> dict[Guidance, Tensor]:
    """The decoder's numbers for each scale and rescale, (B, 3, 64, 64), not clipped.

    Pieces of 25 pictures are kept in the folder `work`; those that are there aren't drawn again.
    """
    pieces: dict[Guidance, list[Tensor]] = {kind: [] for kind in kinds}
    for first in range(0, len(captions), PIECE):
        for scale, rescale in kinds:
            file = work / (f"{scale:g}_{first}.pt" if rescale == 0 else f"{scale:g}_{rescale:g}_{first}.pt")
            if not file.exists():
                some, how = captions[first : first + PIECE], {"guidance_scale": scale, "rescale": rescale}
                with evaluating(model):
                    raw = model.decode_latents(model.autoencoder, last(model.sample(some, seed=first, **how)))
                with atomic_write(file) as temporary:
                    torch.save(raw.half(), temporary)
            pieces[scale, rescale].append(torch.load(file, weights_only=True).float())
    return {kind: torch.cat(parts) for kind, parts in pieces.items()}


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


def record(work: Path, target: Path, kinds: list[Guidance], number: int, each: int, judge: Judge) -> None:
    """Draw into the folder `work`, and write `target`.csv and `target`.png: a row of pictures for each scale."""
    work.mkdir(parents=True, exist_ok=True)
    model = sdlearn.load(sdlearn.BUNDLED)
    asked = [request for request in requests("test", number, seed=0) for _ in range(each)]
    captions = [caption(*request) for request in asked]
    rows, sheet = [], []
    for (scale, rescale), pictures in draw_all(model, captions, kinds, work).items():
        row = {"rescale": rescale} | measure(pictures, asked, judge, each)
        rows.append({"scale": f"{scale:g}"} | {name: f"{value:.4g}" for name, value in row.items()})
        print(rows[-1])
        sheet += to_images(pictures[:each].clamp(-1, 1)) if rescale == 0 else []
    real = measure(to_unit(as_tensor(scenes_of(asked, seed=0, turn=0))), asked, judge, each)
    rows.append({"scale": "", "rescale": ""} | {name: f"{value:.4g}" for name, value in real.items()})
    write_rows(target.with_suffix(".csv"), rows)
    with atomic_write(target.with_suffix(".png")) as temporary:
        image_grid(sheet, columns=each).save(temporary, format="PNG", optimize=True)


def main(
    work: Annotated[Path, typer.Option(help="Where pictures are kept.")] = Path("runs/guidance_scales"),
    number: Annotated[int, typer.Option(help="How many requests.")] = REQUESTS,
) -> None:
    """Make the recorded run."""
    kinds = [(scale, 0.0) for scale in SCALES]
    record(work, FOLDER / "guidance_scales", [*kinds, *RESCALED], number, EACH, load_judge())


if __name__ == "__main__":
    typer.run(main)
