"""What a learner has written and got right: kept in the passport folder, shown on the map, and drawn with."""

import contextlib
import functools
import io
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

import sdlearn
from sdlearn.diffusion.samplers import SAMPLERS
from sdlearn.files import atomic_write
from sdlearn.lessons import show
from sdlearn.lessons.exercises.compare import Steps
from sdlearn.lessons.exercises.exercise import Exercise
from sdlearn.lessons.exercises.judge import NOT_WRITTEN, Verdict, assess, in_one_line, reference_of
from sdlearn.lessons.exercises.registry import EXERCISES, find
from sdlearn.lessons.exercises.source import own_source, run_source
from sdlearn.pictures import to_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sdlearn.pipeline import StableDiffusion

PROMPT = "a penguin on a yellow background"
SEED = 3

GREEN: dict[str, Any] = {}  # the answers whose last check in this session was green, by id


def passport_folder() -> Path:
    """Where correct answers are kept: $SDLEARN_PASSPORT, else sdlearn/passport in $XDG_DATA_HOME or ~/.local/share."""
    if folder := os.environ.get("SDLEARN_PASSPORT"):
        return Path(folder)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "sdlearn" / "passport"


def remembered() -> dict[str, Path]:
    """The files of the passport, by the ids of their exercises, in the registry's order."""
    folder = passport_folder()
    return {id: folder / f"{id}.py" for id in EXERCISES if (folder / f"{id}.py").is_file()}


def remember(exercise: Exercise, mine: Any) -> str:
    """Keep the source of a correct answer in the passport. Returns why that can't be done, or an empty text."""
    found = own_source(mine)
    if found is None:
        return "it has no source text; write it as a function or class with a name"
    text, missing = found
    verdict, _ = judge_source(exercise, text)
    if not verdict.green:
        uses = ", ".join(sorted(missing))
        return (
            f"it uses {uses}, which the cell doesn't define"
            if missing
            else f"run by itself, it isn't right: {verdict.text}"
        )
    folder = passport_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / f"{exercise.id}.py", shared=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        return f"it can't be written to {folder}: {error.strerror}"
    return ""


def judge_source(exercise: Exercise, text: str) -> tuple[Verdict, Any]:
    """Run a remembered source by itself and assess what it defines. What it prints is not shown."""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            mine = run_source(text)
        except Exception as error:
            return Verdict("✘", in_one_line(error)), None
        return assess(exercise, mine), mine


def recheck(exercise: Exercise, file: Path) -> tuple[Verdict, Any]:
    """Assess a file of the passport again."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return Verdict("✘", f"{file} can't be read: {in_one_line(error)}"), None
    return judge_source(exercise, text)


def recheck_all() -> Iterator[tuple[Exercise, Verdict, Any]]:
    """Each exercise, the verdict on the answer in the passport, and the answer."""
    files = remembered()
    for id, exercise in EXERCISES.items():
        verdict, mine = recheck(exercise, files[id]) if id in files else (NOT_WRITTEN, None)
        yield exercise, verdict, mine


def join_parts(own: Mapping[str, Any]) -> dict[str, Callable[..., Any] | type]:
    """The `parts` of sdlearn.load from correct answers by id.

    Functions that are methods of the package's become methods of a subclass, all those of one class of the same one.
    """
    parts: dict[str, Any] = {}
    for id, mine in own.items():
        exercise = find(id)
        if exercise.part is None:
            continue
        if exercise.owner is not None:
            owner = parts.get(exercise.part, exercise.owner)
            mine = type(f"My{exercise.owner.__name__}", (owner,), {exercise.reference.__name__: mine})
        parts[exercise.part] = mine
    return parts


def usable(exercise: Exercise, mine: Any) -> Any:
    """An answer that returns tensors of its input's dtype and device, even where it computes with something else.

    A class stays as it is. So do the steps of a generator.
    """
    if isinstance(exercise.reference, type):
        return mine

    @functools.wraps(mine)
    def part(*inputs: Any, **named: Any) -> Any:
        return like_the_package_s(exercise, mine(*inputs, **named), [*inputs, *named.values()])

    return part


def like_the_package_s(exercise: Exercise, output: Any, inputs: list[Any]) -> Any:
    """The values of an output as the package returns them: tensors, and floats of the dtype of the inputs."""
    expected = reference_of(exercise).runs[0].output
    if isinstance(expected, Steps):
        return output
    if isinstance(expected, tuple):
        return tuple(one_like(one, other, inputs) for one, other in zip(output, expected, strict=True))
    return one_like(output, expected, inputs)


def one_like(value: Any, expected: Any, inputs: list[Any]) -> Any:
    if not isinstance(expected, Tensor):
        return value.item() if isinstance(expected, int | float) and hasattr(value, "item") else value
    given = [one for one in inputs if isinstance(one, Tensor)]
    floats = [one for one in given if one.is_floating_point()]
    dtype = floats[0].dtype if floats and expected.is_floating_point() else expected.dtype
    return torch.as_tensor(value, dtype=dtype, device=given[0].device if given else None)


def sampler_of(exercise: Exercise) -> str | None:
    """The only sampler with which the answer takes part in a drawing; None if any does, or none."""
    return exercise.part if exercise.part in SAMPLERS else exercise.sampler


def choose_sampler(own: Collection[str], default: str) -> str:
    """The sampler to draw with: the one that most of these exercises need; on a tie the model's own, else the first.

    A drawing has one sampler. Answers that need another one are left out; all others take part.
    """
    needed = [sampler for id in own if (sampler := sampler_of(find(id)))]
    return max([default, *needed], key=needed.count)


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
    for parts in ({}, join_parts({id: usable(exercise, GREEN[id])})):
        model = sdlearn.load(parts=parts, device="auto")
        sampler = choose_sampler([id], model.defaults.sampler)
        images += model(PROMPT, seed=SEED, sampler=sampler, progress=False)
    names = ["the package's part", "your part"]
    said = "They are equal" if images[0] == images[1] else "They are equal up to rounding"
    fig = show.image_table([images], rows=[""], columns=names, side=2)
    show.figure(fig, alt=f"Two pictures for the prompt: {PROMPT}. Left {names[0]}, right {names[1]}. {said}.")


def own_boxes(done: Collection[str]) -> dict[str, tuple[int, int]]:
    """For each box of the map how many of its exercises are among those done, and how many there are."""
    boxes: dict[str, tuple[int, int]] = {}
    for id, exercise in EXERCISES.items():
        if exercise.box is not None:
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
    steps = list(model.sample(prompt, seed=seed, sampler=sampler))
    noise, picture = (to_images(model.decode(step.x))[0] for step in (steps[0], steps[-1]))
    shapes = show.measure_shapes(model, prompt, seed)
    return show.pipeline_map(shapes, len(steps), prompt, (noise, picture), here, own_boxes(done)), picture


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
