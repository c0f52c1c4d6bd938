"""`python -m sdlearn.data`: a sheet of scenes with their captions, to look at."""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from sdlearn.console import PathArgument, call, prepare
from sdlearn.data.scenes import PairScenes, Scenes
from sdlearn.files import atomic_write
from sdlearn.pictures import captioned_grid

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    output: Annotated[Path, PathArgument(help="The PNG file to write.")] = Path("out/scenes.png"),
    count: Annotated[int, typer.Option(min=1, help="How many scenes.")] = 64,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    split: Annotated[str, typer.Option(help="train, test or held_out_pairs.")] = "train",
    style: Annotated[str, typer.Option(help="color or line.")] = "color",
    two: Annotated[bool, typer.Option("--two", help="Two subjects in each scene.")] = False,
) -> None:
    """Write a sheet of scenes with their captions."""
    prepare(output)
    scenes = list(islice(PairScenes(seed, split) if two else Scenes(seed, split, style=style), count))
    images = [Image.fromarray(scene.image.permute(1, 2, 0).numpy()) for scene in scenes]
    drawn = captioned_grid(images, [scene.caption for scene in scenes], columns=8, side=128)
    with atomic_write(output) as temporary:
        drawn.save(temporary, format="PNG")
    print(output)


if __name__ == "__main__":
    call(app)
