"""What is drawn with the learner's answers: pictures by the model, the map, and the passport's picture."""

import io
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from PIL import Image

import sdlearn
from sdlearn.lessons import maps, show
from sdlearn.lessons.exercises.judge import in_one_line
from sdlearn.lessons.exercises.parts import choose_sampler, join_parts, sampler_of
from sdlearn.lessons.exercises.passport import GREEN, in_a_process, remembered
from sdlearn.lessons.exercises.registry import EXERCISES, find
from sdlearn.lessons.exercises.source import run_source
from sdlearn.pictures import to_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sdlearn.pipeline import StableDiffusion

PROMPT = "a penguin on a yellow background"
SEED = 3
DRAWING = 600.0  # seconds for the process that draws the passport's picture


def see(id: str) -> None:
    """Show the same prompt and seed drawn with the package's part and with the learner's, if its last check was green.

    Raises:
        ValueError: there is no such exercise, or the model doesn't use its part to draw.
    """
    exercise = find(id)
    if exercise.part is None:
        raise ValueError(f"{id} plays no part when the model draws, so there is nothing to see")
    if id not in GREEN:
        print(f"{id} isn't right yet. Once its check is green, this draws a picture with your part.")
        return
    images = []
    for parts in ({}, join_parts({id: GREEN[id]})):
        model = sdlearn.load(parts=parts, device="auto")
        sampler = choose_sampler([id], model.defaults.sampler)
        images += model([PROMPT], **in_full(model, SEED, sampler), progress=False)
    names = ["the package's part", "your part"]
    said = "They are equal" if images[0] == images[1] else "They are equal up to rounding"
    show.pictures(
        [images],
        columns=names,
        alt=f"Two pictures for the prompt: {PROMPT}. Left {names[0]}, right {names[1]}. {said}.",
    )


def in_full(model: "StableDiffusion", seed: int, sampler: str) -> dict[str, Any]:
    """All settings of a drawing: a learner's own text_to_image knows nothing of the model's defaults."""
    defaults = model.defaults
    return {"steps": defaults.steps, "guidance_scale": defaults.guidance_scale, "sampler": sampler, "seed": seed}


def own_boxes(done: Collection[str]) -> dict[str, tuple[int, int]]:
    """For each box of the map how many of its exercises are among those done, and how many there are.

    Those in a lesson's section "Deeper" don't count.
    """
    boxes: dict[str, tuple[int, int]] = {}
    for id, exercise in EXERCISES.items():
        if exercise.box is not None and exercise.core:
            right, count = boxes.get(exercise.box, (0, 0))
            boxes[exercise.box] = (right + (id in done), count + 1)
    return boxes


def draw_map(model: "StableDiffusion", here: str | None = None) -> "Figure":
    """The complete map with measured shapes; a box shows how many of its exercises are in the passport.

    here: the box where the reader is. Raises ValueError when there is no such box.
    """
    fig, _ = draw_map_and_picture(model, PROMPT, SEED, model.defaults.sampler, remembered(), here)
    return fig


def draw_map_and_picture(
    model: "StableDiffusion", prompt: str, seed: int, sampler: str, done: Collection[str], here: str | None = None
) -> tuple["Figure", Image.Image]:
    """The map with the first and the last latents of a drawing, decoded, and the last picture by itself."""
    steps = list(model.sample([prompt], **in_full(model, seed, sampler)))
    noise, picture = (to_images(model.decode(step.x))[0] for step in (steps[0], steps[-1]))
    shapes = maps.measure_shapes(model, prompt, seed)
    return maps.pipeline_map(shapes, len(steps), prompt, (noise, picture), here, own_boxes(done)), picture


def draw_passport(
    own: Mapping[str, Any], prompt: str, seed: int, source: str | None = None
) -> tuple[Image.Image, list[str]]:
    """A picture drawn with all correct answers, next to the map; and the names of the parts that drew it.

    own: correct answers by id. source: the model, as for sdlearn.load.
    """
    model = sdlearn.load(source, parts=join_parts(own), device="auto")
    sampler = choose_sampler(own, model.defaults.sampler)
    fig, picture = draw_map_and_picture(model, prompt, seed, sampler, own)
    drawn = show.render(fig, tight=True)
    side = drawn.height
    sheet = Image.new("RGB", (side + drawn.width, side), "white")
    sheet.paste(picture.resize((side, side), Image.Resampling.LANCZOS))
    sheet.paste(drawn, (side, 0))
    used = {id: mine for id, mine in own.items() if sampler_of(find(id)) in (None, sampler)}
    return sheet, list(join_parts(used))


def draw_passport_apart(
    texts: Mapping[str, str], prompt: str, seed: int, source: str | None = None, seconds: float = DRAWING
) -> tuple[Image.Image, list[str]]:
    """`draw_passport` from the texts of the answers, in a process of its own.

    Raises RuntimeError if that fails or takes longer than `seconds`.
    """
    drawn = in_a_process(png_of_passport, dict(texts), prompt, seed, source, seconds=seconds)
    if drawn is None:
        raise RuntimeError("the picture can't be drawn: the process that runs the answers was stopped, or failed")
    if isinstance(drawn, str):
        raise RuntimeError(drawn)
    data, parts = drawn
    return Image.open(io.BytesIO(data)), parts


def png_of_passport(texts: dict[str, str], prompt: str, seed: int, source: str | None) -> tuple[bytes, list[str]] | str:
    """The picture as a PNG file, and the names of the parts; or what went wrong."""
    try:
        image, parts = draw_passport({id: run_source(text) for id, text in texts.items()}, prompt, seed, source)
    except Exception as error:
        return in_one_line(error)
    return show.to_png(image), parts
