"""The complete map of Stable Diffusion: its parts, the shapes that flow between them, and what is the reader's own."""

import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from sdlearn.diffusion.guidance import combine
from sdlearn.diffusion.samplers import draw_noise
from sdlearn.lessons.show import BLUE, GREY, HOUSE, INK, LETTERS, SCREEN, VERMILLION

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sdlearn.pipeline import StableDiffusion


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


# The map's parts: centre, in pixels from the upper left corner, what the part does, and the lesson that builds it.
MAP = {
    "tokenizer": (76, 82, "words to ids", "lesson 07"),
    "text encoder": (230, 82, "ids to vectors", "lesson 07"),
    "noise": (76, 244, "drawn from a seed", "lesson 01"),
    "UNet": (230, 244, "predicts", "lesson 09"),
    "guidance": (384, 244, "joins the two", "lesson 10"),
    "sampler": (538, 244, "removes noise", "lesson 04"),
    "decoder": (692, 244, "latents to pixels", "lesson 06"),
}
NETWORKS = ("text encoder", "UNet", "decoder")
YOURS, NETWORK = "#7FD1B9", "#CFE8F7"  # pale green and pale blue


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
    plt.rcParams.update(HOUSE)
    width, height = 768, 346  # pixels on the screen, in which all places are given
    fig = plt.figure(figsize=(width / SCREEN, height / SCREEN))
    ax = fig.add_axes((0, 0, 1, 1))

    def box(left: float, top: float, right: float, bottom: float, **style: Any) -> None:
        shape = "round,pad=0,rounding_size=8"
        ax.add_patch(FancyBboxPatch((left, top), right - left, bottom - top, boxstyle=shape, **style))

    def text(x: float, y: float, words: str, size: float = 9, **style: Any) -> None:
        ax.text(x, y, words, fontsize=size, **{"ha": "center", "va": "center"} | style)

    def arrow(*points: tuple[float, float]) -> None:
        ax.plot(*zip(*points[:-1], strict=True), color=INK, lw=1.6)
        head = {"arrowstyle": "-|>,head_width=0.28,head_length=0.5", "lw": 1.6, "color": INK}
        ax.annotate("", points[-1], points[-2], arrowprops=head | {"shrinkA": 0, "shrinkB": 0})

    def flow(x: float, y: float, words: str, name: str, **style: Any) -> None:
        text(x, y, words, **style)
        text(x, y + 15, "×".join(map(str, shapes[name])), color=BLUE, weight="bold", **style)

    box(152, 188, 616, 340, facecolor="#F5F5F5", edgecolor=GREY, linestyle="--")
    text(14, 14, f"“{textwrap.shorten(prompt, 80, placeholder=' …')}”", LETTERS, style="italic", ha="left")
    arrow((76, 24), (76, 42))
    arrow((138, 82), (166, 82))
    flow(76, 133, "ids", "ids")
    arrow((276, 120), (276, 204))
    flow(286, 146, "context", "context", ha="left")
    arrow((138, 244), (166, 244))
    flow(76, 296, "latents", "noise")
    arrow((292, 244), (320, 244))
    flow(240, 296, "two predictions", "predictions")
    arrow((446, 244), (474, 244))
    flow(384, 296, "one prediction", "guided")
    arrow((588, 282), (588, 328), (180, 328), (180, 284))
    text(384, 328, f"round and round, {steps} times", bbox={"facecolor": "#F5F5F5", "edgecolor": "none", "pad": 4})
    flow(532, 296, "latents", "latents")
    arrow((600, 244), (628, 244))
    if pictures:
        arrow((692, 206), (692, 170))
    flow(692, 296, "picture", "picture")

    for name, (x, y, does, lesson) in MAP.items():
        done, count = own.get(name, (0, 0))
        complete = 0 < count == done
        color = YOURS if complete else NETWORK if name in NETWORKS else "white"
        edge, thick = (VERMILLION, 3.5) if name == here else (INK, 1.3)
        box(x - 62, y - 38, x + 62, y + 38, facecolor=color, edgecolor=edge, linewidth=thick)
        text(x, y - 19, name + (" ✔" if complete else ""), LETTERS, weight="bold")
        text(x, y + 1, does)
        text(x, y + 18, f"yours: {done} of {count}" if count else lesson, color="#555555")
        if 0 < done < count:
            ax.plot((x - 46, x - 46 + 92 * done / count), (y + 30, y + 30), color=YOURS, lw=5, solid_capstyle="butt")
        if name == here:
            behind = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            text(x - 14, y - 40, "you are here", weight="bold", color=VERMILLION, bbox=behind)
    for shown, x, words in zip(pictures, (538, 692), ("the noise, decoded", f"after {steps} steps"), strict=False):
        ax.imshow(shown, extent=(x - 62, x + 62, 166, 42), interpolation="nearest", zorder=3)
        text(x, 31, words)
    ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    ax.axis("off")
    return fig
