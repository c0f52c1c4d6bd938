"""`python -m sdlearn.data`: a sheet of scenes with their captions, to look at."""

import textwrap
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image, ImageDraw, ImageFont

from sdlearn.data.scenes import PairScene, PairScenes, Scene, Scenes

SCALE = 2  # pixels of the sheet for each pixel of a scene
GAP, TEXT = 8, 58  # pixels around a scene, and below it for the caption


def contact_sheet(scenes: list[Scene] | list[PairScene], columns: int = 8) -> Image.Image:
    """The scenes in rows, each with its caption below it."""
    side = scenes[0].image.shape[-1] * SCALE
    width, height = side + GAP, side + GAP + TEXT
    sheet = Image.new("RGB", (columns * width + GAP, -(-len(scenes) // columns) * height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for i, scene in enumerate(scenes):
        x, y = i % columns * width + GAP, i // columns * height + GAP
        picture = Image.fromarray(scene.image.permute(1, 2, 0).numpy())
        sheet.paste(picture.resize((side, side), Image.Resampling.NEAREST), (x, y))
        text = "\n".join(textwrap.wrap(scene.caption, side // 6))
        draw.multiline_text((x, y + side + 2), text, "black", ImageFont.load_default(11), spacing=2)
    return sheet


def main(
    path: Annotated[Path, typer.Argument(help="The PNG file to write.")] = Path("out/scenes.png"),
    count: Annotated[int, typer.Option(min=1, help="How many scenes.")] = 64,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    split: Annotated[str, typer.Option(help="train, test or held_out_pairs.")] = "train",
    style: Annotated[str, typer.Option(help="color or line.")] = "color",
    two: Annotated[bool, typer.Option("--two", help="Two subjects in each scene.")] = False,
) -> None:
    """Writes a sheet of scenes with their captions."""
    try:
        scenes = PairScenes(seed, split) if two else Scenes(seed, split, style=style)
    except (ValueError, RuntimeError) as error:
        raise SystemExit(f"error: {error}") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    contact_sheet(list(islice(scenes, count))).save(temporary, format="PNG")
    temporary.replace(path)
    print(path)


if __name__ == "__main__":
    typer.run(main)
