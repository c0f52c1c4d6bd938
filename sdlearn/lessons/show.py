"""Figures in one style, tables of pictures, films, sliders and source: what the lessons show."""

import ast
import base64
import html
import inspect
import io
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sdlearn.pictures import image_grid, to_images

if TYPE_CHECKING:
    from ipywidgets import ValueWidget
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SOURCE_LINES = 40  # what fits on a screen

# The house style. All figures are as wide as the text, 8 inches, with letters of its size.
WIDTH = 8.0  # inches
SCREEN, SHARP = 96, 144  # pixels per inch of a figure: on the screen, and as stored
LETTERS = 10.5  # points: 14 pixels on the screen
LARGEST = 256  # pixels on the screen: no picture is enlarged beyond this width
GAP = 8  # pixels on the screen between two pictures
# Okabe & Ito's colors, which color-blind readers can tell apart; the pale ones are darkened, so that words are legible
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, GREY = "#0072B2", "#C84C09", "#00875F", "#A64D87", "#B87A00", "#6B6B6B"
INK, PALE = "#222222", "#E4E4E4"
HOUSE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that figures are alike on every machine
    "font.size": LETTERS,
    "axes.titlesize": LETTERS,
    "axes.labelsize": LETTERS,
    "xtick.labelsize": LETTERS - 1,
    "ytick.labelsize": LETTERS - 1,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.xmargin": 0.02,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "lines.linewidth": 2.2,
    "image.interpolation": "nearest",
    "mathtext.fontset": "dejavusans",
}


def whole_source(obj: Callable | type) -> str:
    """The source text of a function, method or class, without its outer indentation."""
    return textwrap.dedent(inspect.getsource(obj)).rstrip()


def source(obj: Callable | type) -> str:
    """What a function, method or class computes: its source text without its docstring.

    Raises ValueError if that is longer than SOURCE_LINES: then show its methods one by one.
    """
    text = without_docstring(whole_source(obj))
    lines = text.count("\n") + 1
    if lines > SOURCE_LINES:
        raise ValueError(
            f"{obj.__qualname__} has {lines} lines, more than {SOURCE_LINES}; show a part of it, one method"
        )
    return text


def without_docstring(text: str) -> str:
    """The source text of a definition without its docstring, and without the empty line after it."""
    (definition,) = ast.parse(text).body
    if ast.get_docstring(definition) is None or len(definition.body) == 1:
        return text
    docstring, lines = definition.body[0], text.split("\n")
    above, below = lines[: docstring.lineno - 1], lines[docstring.end_lineno :]
    return "\n".join(above + (below[1:] if not below[0] else below))


def to_png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True)
    return data.getvalue()


def few_colors(image: Image.Image, colors: int = 256) -> Image.Image:
    """The image with at most so many colors, as files of a third of the size hold it. White stays white."""
    few = image.quantize(colors, dither=Image.Dither.NONE)
    palette = np.array(few.getpalette()).reshape(-1, 3)
    darkest = palette.min(axis=1)  # channel of each color: large where it is nearly white
    if darkest.max() > 240:
        palette[darkest >= min(darkest.max(), 247)] = 255
        few.putpalette(palette.flatten().tolist())
    return few


def display_png(data: bytes, alt: str, width: int | None = None, **others: Any) -> None:
    """Show a PNG file in a notebook, `width` screen pixels wide. `alt` describes it in words.

    others: the same in further formats, by MIME type; a viewer picks the richest that it supports.
    Raises ValueError when alt is empty.
    """
    from IPython.display import display

    if not alt.strip():
        raise ValueError("alt is empty, must describe the picture in words")
    about = {"alt": alt} | ({"width": width} if width else {})
    bundle = {"image/png": base64.b64encode(data).decode(), "text/plain": alt}
    display(bundle | others, metadata={"image/png": about}, raw=True)


def picture(image: Image.Image, alt: str) -> None:
    """Show one picture in a notebook, as `pictures` does."""
    pictures([[image]], alt=alt)


def axes(height: float = 3.2, columns: int = 1, rows: int = 1, **others: Any) -> tuple["Figure", Any]:
    """An empty figure in the house style, `height` inches high, and its axes: `fig, ax = show.axes()`.

    With several columns or rows, the axes come as an array. others: further arguments of `plt.subplots`.
    The style stays set, so that it also holds for what is drawn into the figure later.
    """
    import matplotlib.pyplot as plt

    plt.rcParams.update(HOUSE)
    return plt.subplots(rows, columns, figsize=(WIDTH, height), layout="constrained", **others)


def numbers(values: Any) -> np.ndarray:
    """A tensor, also one with gradients, or a sequence of numbers -> an array of float64."""
    return torch.as_tensor(values, dtype=torch.float64).detach().cpu().numpy()


def curve(ax: "Axes", x: Any, y: Any, label: str = "", color: str = BLUE, **style: Any) -> None:
    """A line with its name at its right end. Names that would overlap move apart when the figure is shown.

    x, y: (n,). style: further arguments of `ax.plot`, such as linestyle="--".
    """
    x, y = numbers(x), numbers(y)
    ax.plot(x, y, color=color, **style)
    if label:
        last = np.flatnonzero(np.isfinite(y))[-1]
        beside = {"textcoords": "offset points", "xytext": (6, 0), "va": "center", "annotation_clip": False}
        ax.annotate(label, (x[last], y[last]), color=color, gid="curve", **beside)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places from low to high, at least `gap` apart, ordered as the wanted ones and as near to them as possible."""
    order = np.argsort(wanted, kind="stable")
    groups: list[tuple[float, int]] = []  # names that touch share one mean, less what keeps them apart; and how many
    for rank, i in enumerate(order):
        groups.append((wanted[i] - rank * gap, 1))
        while len(groups) > 1 and groups[-2][0] >= groups[-1][0]:
            (mean, count), (other, more) = groups.pop(-2), groups.pop()
            groups.append(((mean * count + other * more) / (count + more), count + more))
    means = [min(max(mean, low), high - gap * (len(order) - 1)) for mean, count in groups for _ in range(count)]
    return [means[rank] + gap * rank for rank in np.argsort(order)]


def part_names(fig: "Figure") -> None:
    """Move the names of curves that would overlap up or down, and those outside their axes inside."""
    fig.draw_without_rendering()  # only now is it known where everything is
    for ax in fig.axes:
        names = [one for one in ax.texts if one.get_gid() == "curve"]
        if not names:
            continue
        box, unit = ax.get_window_extent(), fig.dpi / 72  # pixels per point
        ends = [ax.transData.transform(one.xy)[1] for one in names]
        high = max(one.get_window_extent().height for one in names)
        places = spread(ends, 0.95 * high, box.y0 + high / 2, box.y1 - high / 2)
        for one, end, place in zip(names, ends, places, strict=True):
            one.xyann = (6, (place - end) / unit)


def bars(
    ax: "Axes",
    names: Sequence[str],
    values: Any,
    marks: Any = None,
    marked: str = "",
    color: str | Sequence[str] = BLUE,
    form: str = "{:.0%}",
    largest: float | None = None,
) -> None:
    """Horizontal bars from top to bottom, each with its name at the left and its value at its end.

    values: (n,), not negative. marks: (n,) what each should be, drawn as a black line across its bar; `marked` is
    what a mark means, written once, below the last. form: how a value is written. largest: the value that fills the
    width, to be given where panels are compared.
    """
    values, places = numbers(values), np.arange(len(names))
    targets = None if marks is None else numbers(marks)
    if largest is None:
        largest = max(values.max(), values.max() if targets is None else targets.max())
    ax.barh(places, values, color=color, height=0.62)
    if targets is not None:
        ax.vlines(targets, places - 0.42, places + 0.42, color="black", linewidth=2.5)
    ax.set_yticks(places, names)
    ax.tick_params("y", length=0, labelsize=LETTERS, labelcolor=INK)
    panel = ax.get_window_extent().width * SCREEN / ax.figure.dpi
    room = largest * 50 / max(panel - 50, 50)  # 50 pixels for a value beside the longest bar
    for i, words in enumerate(map(form.format, values)):
        end, needed = values[i], (text_size(words) + 12) * (largest + room) / panel
        if targets is not None and end < targets[i] + 4 * room / 50 and targets[i] < end + needed:
            end = targets[i]  # beyond a mark that would cross it
        beside = {"textcoords": "offset points", "xytext": (5, 0), "va": "center"}
        ax.annotate(words, (end, places[i]), **beside)
    if marked:
        below = {"textcoords": "offset points", "xytext": (0, -2), "ha": "center", "va": "top"}
        ax.annotate(marked, (targets[-1], places[-1] + 0.42), fontsize=LETTERS - 1, **below)
    ax.set(ylim=(len(names) - (0 if marked else 0.45), -0.55), xlim=(0, largest + room))
    ax.xaxis.set_visible(False)
    ax.spines["bottom"].set_visible(False)
    ax.grid(visible=False)


def image(ax: "Axes", shown: Tensor | Image.Image, title: str = "") -> None:
    """A picture with hard pixel edges in one of the axes. shown: (3, H, W) in [−1, 1], or a PIL image."""
    ax.imshow(to_images(shown[None])[0] if isinstance(shown, Tensor) else shown, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.set_title(title)
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)


Row = Tensor | Sequence[Image.Image]


def text_size(words: str) -> float:
    """The width of a text in pixels on the screen."""
    from matplotlib.textpath import TextPath

    lines = [line for line in words.split("\n") if line]
    points = max((TextPath((0, 0), line, size=LETTERS).get_extents().width for line in lines), default=0.0)
    return points * SCREEN / 72


def wrapped(words: str, width: float) -> str:
    """The words in lines of at most `width` pixels, if they allow."""
    lines: list[str] = []
    for word in words.split(" "):
        if lines and text_size(f"{lines[-1]} {word}".split("\n")[-1]) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


def table(
    rows: Sequence[Row], rows_named: Sequence[str] = (), columns: Sequence[str] = (), dpi: int = SHARP
) -> Image.Image:
    """A table of pictures as one picture: for example a frame of a film. What `pictures` shows; see there.

    dpi: SCREEN for films, which are large as it is. The result's info["width"] is its width in pixels on the screen.
    Raises ValueError when rows differ in length, or there are too many or too few names.
    """
    import matplotlib.pyplot as plt

    plt.rcParams.update(HOUSE)
    cells = [to_images(row) if isinstance(row, Tensor) else list(row) for row in rows]
    count = len(cells[0])
    if any(len(row) != count for row in cells):
        raise ValueError(f"rows of {', '.join(str(len(row)) for row in cells)} pictures, must have the same number")
    for what, names, number in (("row", rows_named, len(cells)), ("column", columns, count)):
        if len(names) not in (0, number):
            raise ValueError(f"{len(names)} names for {number} {what}s")
    left = (
        max((text_size(name) for name in rows_named), default=-2 * GAP) + 2 * GAP
    )  # all lengths: pixels on the screen
    width, height = cells[0][0].size
    side = min(max(LARGEST, width), (WIDTH * SCREEN - left - GAP * (count - 1)) / count)
    unit = dpi / SCREEN  # stored pixels per pixel on the screen
    if width <= side * unit:  # a whole number of stored pixels for each pixel, so that all are equally large
        unit = round(side * unit / width) * width / side
    heads = [wrapped(name, side) for name in columns]
    line = 1.35 * LETTERS * SCREEN / 72
    top = max((head.count("\n") + 1 for head in heads), default=0) * line + (4 if heads else 0)
    tall = side * height / width
    size = (left + count * (side + GAP) - GAP, top + len(cells) * (tall + GAP) - GAP)
    whole = tuple(round(length * unit) for length in size)
    sheet = Image.new("RGB", whole, "white")
    sheet.info["width"] = round(size[0])
    if heads or rows_named:
        fig = plt.figure(figsize=(size[0] / SCREEN, size[1] / SCREEN))
        put = {"fontsize": LETTERS, "linespacing": 1.2}
        for j, head in enumerate(heads):
            fig.text(
                (left + j * (side + GAP) + side / 2) / size[0],
                1 - (top - 4) / size[1],
                head,
                ha="center",
                va="bottom",
                **put,
            )
        for i, name in enumerate(rows_named):
            middle = top + i * (tall + GAP) + tall / 2
            fig.text((left - GAP) / size[0], 1 - middle / size[1], name, ha="right", va="center", **put)
        sheet.paste(render(fig, SCREEN * unit).resize(whole))
    box = (round(side * unit), round(tall * unit))
    for i, row in enumerate(cells):
        for j, one in enumerate(row):
            resample = Image.Resampling.NEAREST if one.width <= box[0] else Image.Resampling.LANCZOS
            corner = (left + j * (side + GAP)) * unit, (top + i * (tall + GAP)) * unit
            sheet.paste(one.convert("RGB").resize(box, resample), (round(corner[0]), round(corner[1])))
    return sheet


def pictures(rows: Sequence[Row], rows_named: Sequence[str] = (), columns: Sequence[str] = (), *, alt: str) -> None:
    """Show a table of pictures in a notebook, all enlarged alike until they fill the width, with hard pixel edges.

    rows: each a tensor (B, 3, H, W) in [−1, 1] or a list of B PIL images. rows_named: a name for the left of each row.
    columns: a name for the top of each column. Names may hold formulas, "$x_0$", and line breaks.
    """
    sheet = table(rows, rows_named, columns)
    display_png(to_png(few_colors(sheet)), alt, width=sheet.info["width"])


def render(fig: "Figure", dpi: int = SCREEN, tight: bool = False) -> Image.Image:
    """A matplotlib figure as a picture, for example as one frame of a film. Closes the figure.

    tight: crop the margins to what is drawn. The size then depends on what is drawn; in a film it must not.
    """
    import matplotlib.pyplot as plt

    part_names(fig)
    data = io.BytesIO()
    margins = {"bbox_inches": "tight", "pad_inches": 0.05} if tight else {}
    fig.savefig(data, format="png", dpi=dpi, facecolor="white", **margins)
    plt.close(fig)
    return Image.open(data).convert("RGB")


def _figure_png(fig: "Figure", tight: bool) -> tuple[bytes, int]:
    """A figure as a PNG file of few colors, and its width on the screen. It has more pixels than the screen needs."""
    image = few_colors(render(fig, SHARP, tight))
    return to_png(image), image.width * SCREEN // SHARP


def figure(fig: "Figure", alt: str) -> None:
    """Show a matplotlib figure in a notebook and close it. Its margins are cropped to what is drawn."""
    data, width = _figure_png(fig, tight=True)
    display_png(data, alt, width)


def film(
    frames: Sequence[Image.Image], still: Image.Image, milliseconds: int = 150, colors: int | None = None
) -> bytes:
    """An animated PNG that loops over the frames. `still` is shown where animations are not supported.

    colors: keep only this many, the same in all frames. 64 are enough for a film of figures, and halve its size.
    Raises ValueError when there are no frames, or one differs in size from the still.
    """
    if not frames or any(frame.size != still.size for frame in frames):
        raise ValueError(f"a film needs frames, all of the still's size {still.size}")
    if colors:
        images = [image.convert("RGB") for image in (still, *frames)]
        palette = few_colors(image_grid(images), colors)
        still, *frames = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    durations = [milliseconds] * (len(frames) - 1) + [2000]
    data = io.BytesIO()
    still.save(
        *(data, "PNG"),
        save_all=True,
        default_image=True,
        append_images=frames,
        duration=durations,
        loop=0,
        optimize=True,
    )
    return data.getvalue()


def stops(control: "ValueWidget", most: int = 9) -> list[Any]:
    """Values that a control can take, from one end to the other, at most as many as that."""
    if hasattr(control, "options"):
        values = [one[1] if isinstance(one, tuple) else one for one in control.options]
    elif isinstance(control.value, bool):
        values = [False, True]
    else:
        count = round((control.max - control.min) / control.step) + 1
        values = [type(control.value)(control.min + i * control.step) for i in range(count)]
    chosen = np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)
    return [values[i] for i in chosen]


def interact(draw: Callable[..., "Image.Image | Figure"], alt: str, **controls: "ValueWidget") -> None:
    """Controls in a notebook, and below them what draw(**values) returns, redrawn whenever a value changes.

    draw returns a picture, which is shown as by `picture`, or a matplotlib figure, such as one from `axes`, which is
    closed; its size must be the same for all values. Viewers without widgets show a film instead, stored in the same
    output: the first control moves from one end to the other.
    """
    import ipywidgets

    def drawn(dpi: int, **changed: Any) -> Image.Image:
        result = draw(**{name: control.value for name, control in controls.items()} | changed)
        if isinstance(result, Image.Image):
            return table([[result]], dpi=dpi)
        shown = render(result, dpi)
        shown.info["width"] = shown.width * SCREEN // dpi
        return shown

    def to_html() -> str:
        shown = drawn(SHARP)
        width = shown.info["width"]
        data = base64.b64encode(to_png(few_colors(shown))).decode()
        return f'<img alt="{html.escape(alt)}" width="{width}" src="data:image/png;base64,{data}">'

    shown = ipywidgets.HTML(to_html())
    for control in controls.values():
        control.observe(lambda change: setattr(shown, "value", to_html()), "value")
    box = ipywidgets.VBox([*controls.values(), shown])
    view = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}  # as ipywidgets 7 and 8 both write it
    name, control = next(iter(controls.items()))
    frames, still = [drawn(SCREEN, **{name: value}) for value in stops(control)], drawn(SCREEN)
    width = still.info["width"]
    data = film(frames, still, milliseconds=600, colors=128)
    display_png(data, alt, width=width, **{"application/vnd.jupyter.widget-view+json": view})
