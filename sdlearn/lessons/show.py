"""Figures, grids, animations, widgets and source, for the lessons and the command line."""

import ast
import base64
import html
import inspect
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from sdlearn.diffusion.guidance import combine
from sdlearn.diffusion.samplers import draw_noise

if TYPE_CHECKING:
    from ipywidgets import ValueWidget
    from matplotlib.figure import Figure

    from sdlearn.pipeline import StableDiffusion

SOURCE_LINES = 40  # what fits on a screen
SCREEN, SHARP = 80, 120  # pixels per inch of a figure: on the screen, and as stored


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


def picture(image: Image.Image, alt: str, side: int = 256) -> None:
    """Show one picture in a notebook, enlarged to a width of `side` pixels."""
    height = round(side * image.height / image.width)
    display_png(to_png(image.resize((side, height), Image.Resampling.LANCZOS)), alt, width=side)


def render(fig: "Figure", dpi: int = SCREEN, tight: bool = False) -> Image.Image:
    """A matplotlib figure as a picture, for example as one frame of a film. Closes the figure.

    tight: crop the margins to what is drawn. The size then depends on what is drawn; in a film it must not.
    """
    import matplotlib.pyplot as plt

    data = io.BytesIO()
    margins = {"bbox_inches": "tight", "pad_inches": 0.05} if tight else {}
    fig.savefig(data, format="png", dpi=dpi, facecolor="white", **margins)
    plt.close(fig)
    return Image.open(data).convert("RGB")


def _figure_png(fig: "Figure", tight: bool) -> tuple[bytes, int]:
    """A figure as a PNG file of few colors, and its width on the screen. It has more pixels than the screen needs."""
    image = render(fig, SHARP, tight).quantize(256, dither=Image.Dither.NONE)
    return to_png(image), image.width * SCREEN // SHARP


def figure(fig: "Figure", alt: str) -> None:
    """Show a matplotlib figure in a notebook and close it. Its margins are cropped to what is drawn."""
    data, width = _figure_png(fig, tight=True)
    display_png(data, alt, width)


def image_table(
    images: Sequence[Sequence[Image.Image]], rows: Sequence[str], columns: Sequence[str], side: float = 1.15
) -> "Figure":
    """A figure with images[row][column], a name for each row at its left and one for each column on top.

    side: the width of a picture in inches. Raises ValueError when names and pictures don't match in number.
    """
    import matplotlib.pyplot as plt

    if len(images) != len(rows) or any(len(row) != len(columns) for row in images):
        raise ValueError(f"images must be {len(rows)} rows of {len(columns)}, as there are names")
    size = (len(columns) * side, len(rows) * side)
    fig, axes = plt.subplots(len(rows), len(columns), figsize=size, squeeze=False)
    fig.subplots_adjust(left=0, right=1, bottom=0, top=1, wspace=0.05, hspace=0.05)
    for i, row in enumerate(images):
        for j, image in enumerate(row):
            axes[i, j].imshow(image, interpolation="lanczos")
            axes[i, j].set(xticks=[], yticks=[])
            axes[i, j].spines[:].set_visible(False)
        axes[i, 0].set_ylabel(rows[i], rotation=0, ha="right", va="center", fontsize=10)
    for j, name in enumerate(columns):
        axes[0, j].set_title(name, fontsize=10)
    return fig


def film(
    frames: Sequence[Image.Image], still: Image.Image, milliseconds: int = 150, colors: int | None = None
) -> bytes:
    """An animated PNG that loops over the frames. `still` is shown where animations are not supported.

    colors: keep only this many colors, those of the still. 64 are enough for a film of figures, and halve its size.
    Raises ValueError when there are no frames, or one differs in size from the still.
    """
    if not frames or any(frame.size != still.size for frame in frames):
        raise ValueError(f"a film needs frames, all of the still's size {still.size}")
    if colors:
        still = still.convert("RGB").quantize(colors, dither=Image.Dither.NONE)
        frames = [frame.convert("RGB").quantize(palette=still, dither=Image.Dither.NONE) for frame in frames]
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


def interact(draw: Callable[..., "Image.Image | Figure"], alt: str, **controls: "ValueWidget") -> None:
    """Controls in a notebook, and below them what draw(**values) returns, redrawn whenever a value changes.

    draw returns a picture, which is enlarged to 256 pixels if it is smaller, or a matplotlib figure, which is shown at
    its own size (use layout="constrained" to keep everything inside) and closed. The same output holds the first one
    as PNG, for viewers without widgets.
    """
    import ipywidgets

    def png() -> tuple[bytes, int]:
        drawn = draw(**{name: control.value for name, control in controls.items()})
        if isinstance(drawn, Image.Image):
            return to_png(drawn), max(256, drawn.width)
        return _figure_png(drawn, tight=False)

    def to_html(data: bytes, width: int) -> str:
        source = "data:image/png;base64," + base64.b64encode(data).decode()
        return f'<img alt="{html.escape(alt)}" width="{width}" src="{source}">'

    first, width = png()
    shown = ipywidgets.HTML(to_html(first, width))
    for control in controls.values():
        control.observe(lambda change: setattr(shown, "value", to_html(*png())), "value")
    box = ipywidgets.VBox([*controls.values(), shown])
    view = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}  # as ipywidgets 7 and 8 both write it
    display_png(first, alt, width=width, **{"application/vnd.jupyter.widget-view+json": view})


@torch.no_grad()
def measure_shapes(model: "StableDiffusion", prompt: str, seed: int = 0) -> dict[str, tuple[int, ...]]:
    """The shapes on the complete map: runs each part of the model once, and records the shape of its output."""
    sampler = model.samplers[model.defaults.sampler]
    grid = sampler.make_grid(model.schedule, model.defaults.steps)
    factor, channels = model.autoencoder.config.factor, model.autoencoder.config.latent_channels
    size = (model.defaults.height // factor, model.defaults.width // factor)
    noise = draw_noise((1, channels, *size), torch.Generator().manual_seed(seed)).to(model.device)
    ids = model.tokenizer([prompt])
    context = model.encode_prompt(["", prompt])
    both = torch.cat([noise, noise])
    predictions = model.predict(both, int(grid.timesteps[0]), context)
    guided = combine(*predictions.chunk(2), model.defaults.guidance_scale)
    step = next(sampler.loop(lambda x, t: guided, noise, grid, model.schedule, generator=torch.Generator()))
    parts = {"ids": ids, "context": context, "noise": noise, "both": both, "predictions": predictions}
    parts |= {"guided": guided, "latents": step.x, "picture": model.decode(step.x)}
    return {name: tuple(value.shape) for name, value in parts.items()}


# The map's parts: centre, what the part does, and the lesson that builds it.
MAP = {
    "tokenizer": (44, 43, "words to numbers", "lesson 07"),
    "text encoder": (78, 43, "numbers to vectors", "lesson 07"),
    "noise": (10, 12, "drawn from a seed", "lesson 01"),
    "UNet": (44, 12, "makes a prediction", "lesson 09"),
    "guidance": (78, 12, "joins two predictions", "lesson 10"),
    "sampler": (112, 12, "removes some noise", "lesson 04"),
    "decoder": (148, 12, "latents to pixels", "lesson 06"),
}
NETWORKS = ("text encoder", "UNet", "decoder")
GREEN, SKY, VERMILLION, BLUE = "#7FD1B9", "#BFE3F7", "#D55E00", "#0072B2"  # Okabe & Ito's colours, two of them paler


def pipeline_map(
    shapes: Mapping[str, tuple[int, ...]],
    steps: int,
    prompt: str,
    pictures: Sequence[Image.Image] = (),
    here: str | None = None,
    own: Mapping[str, tuple[int, int]] = MappingProxyType({}),
) -> "Figure":
    """The complete map: the parts of Stable Diffusion, and the shapes that flow between them.

    shapes: from `measure_shapes`. steps: how often the loop runs. pictures: the noise, decoded, and the final picture.
    here: the part where the reader is. own: how many of a part's exercises the reader has solved, and out of how many:
    {"noise": (1, 3)}. A bar shows it; a part that is entirely the reader's own is green, with a tick. A part without
    exercises names its lesson.
    Raises ValueError when a part is not on the map.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import FancyBboxPatch

    if unknown := {*own, here or "UNet"} - set(MAP):
        raise ValueError(f"{', '.join(sorted(unknown))}: not on the map; accepted: {', '.join(MAP)}")
    fig, ax = plt.subplots(figsize=(13, 4.7), layout="constrained")

    def box(x: float, y: float, width: float, height: float, **style: Any) -> None:
        corner = (x - width / 2, y - height / 2)
        ax.add_patch(FancyBboxPatch(corner, width, height, boxstyle="round,pad=0,rounding_size=1.5", **style))

    def text(x: float, y: float, words: str, size: float = 9.5, **style: Any) -> None:
        ax.text(x, y, words, fontsize=size, ha="center", va="center", **style)

    def arrow(*points: tuple[float, float]) -> None:
        ax.plot(*zip(*points[:-1], strict=True), color="black", lw=1.8)
        head = {"arrowstyle": "-|>,head_width=0.3,head_length=0.6", "lw": 1.8, "color": "black"}
        ax.annotate("", points[-1], points[-2], arrowprops=head | {"shrinkA": 0, "shrinkB": 0})

    def flow(x: float, y: float, words: str, name: str) -> None:
        text(x, y + 2.6, words)
        text(x, y - 2.8, "×".join(map(str, shapes[name])), 9, color=BLUE, weight="bold")

    box(78, 11, 94, 32, facecolor="#F4F4F4", edgecolor="#777777", linestyle="--")
    text(10, 43, "\n".join(textwrap.wrap(f"“{prompt}”", 16)), 11.5, style="italic")
    arrow((19, 43), (34, 43))
    arrow((54, 43), (68, 43))
    flow(61, 43, "ids", "ids")
    arrow((78, 36), (78, 32.2), (44, 32.2), (44, 19))
    flow(61, 32.2, "context", "context")
    arrow((20, 12), (34, 12))
    flow(27, 12, "latents", "noise")
    arrow((54, 12), (68, 12))
    flow(60.8, 12, "two", "predictions")
    arrow((88, 12), (102, 12))
    flow(94.8, 12, "one", "guided")
    arrow((112, 5), (112, -0.5), (44, -0.5), (44, 5))
    text(78, -3, f"round and round, {steps} times")
    arrow((122, 12), (138, 12))
    flow(131.5, 12, "latents", "latents")
    arrow((158, 12), (163, 12))
    text(171, 1.5, "×".join(map(str, shapes["picture"])), 9, color=BLUE, weight="bold")

    for name, (x, y, does, lesson) in MAP.items():
        done, count = own.get(name, (0, 0))
        complete = 0 < count == done
        color = GREEN if complete else SKY if name in NETWORKS else "white"
        edge, width = (VERMILLION, 4) if name == here else ("black", 1.5)
        box(x, y, 20, 14, facecolor=color, edgecolor=edge, linewidth=width)
        text(x, y + 3.4, name + (" ✔" if complete else ""), 12, weight="bold")
        text(x, y - 0.4, does, 8.5)
        text(x, y - 4, f"yours: {done} of {count}" if count else lesson, 8.5, color="#555555")
        if 0 < done < count:
            ax.plot((x - 8, x - 8 + 16 * done / count), (y - 6, y - 6), color=GREEN, lw=5, solid_capstyle="butt")
        if name == here:
            behind = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            text(x, y + 9.3, "you are here", 10.5, weight="bold", color=VERMILLION, bbox=behind)
    for image, (x, y) in zip(pictures, ((10, -5), (171, 12)), strict=False):
        ax.imshow(image, extent=(x - 8, x + 8, y - 8, y + 8), interpolation="lanczos")
    ax.set(xlim=(-2, 181), ylim=(-14, 52), aspect="equal")
    ax.axis("off")
    return fig
