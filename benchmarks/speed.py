"""Ours compared with Diffusers: time, memory, and how both grow. Writes docs/performance.md and its plot.

    make bench

With the same random weights, both sides are called alternately in one process; each pair gives one ratio. The
machine should do nothing else.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import diffusers
import torch
import transformers
import typer
from real import load_reference
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import sdlearn
from sdlearn.files import atomic_write
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig
from sdlearn.models.text import TextConfig, TextEncoder
from sdlearn.models.unet import UNet, UNetConfig
from sdlearn.storage.load import BUNDLED
from sdlearn.training.loop import fast_in_bfloat16

PROMPT = "a penguin on a yellow background"
DOCS = Path(__file__).parents[1] / "docs"


class Sides(NamedTuple):
    """The same work done by us and by Diffusers, and the dtype in which most of it is done."""

    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Work:
    """A row of the table: how the two sides are made, and how often both are called."""

    name: str
    make: Callable[[], Sides]
    pairs: int


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def share_weights(ours: nn.Module, theirs: nn.Module) -> None:
    """Both networks use the same memory for their weights."""
    theirs.load_state_dict(ours.state_dict(), strict=True, assign=True)
    ours.requires_grad_(False).eval()
    theirs.requires_grad_(False).eval()


def text_to_image(count: int) -> Sides:
    """The bundled model: 25 steps of DPM-Solver++ with guidance, from words to pictures."""
    ours = sdlearn.load(BUNDLED)
    theirs = load_reference(str(BUNDLED), None, torch.float32)
    scale = ours.defaults.guidance_scale
    return Sides(
        lambda: ours(PROMPT, count=count, steps=25, progress=False),
        lambda: theirs(PROMPT, num_images_per_prompt=count, num_inference_steps=25, guidance_scale=scale),
    )


def training_step(dtype: torch.dtype) -> Sides:
    """Forward and backward through the bundled UNet, batch 64; in bfloat16 as its recipe trains, by autocast."""
    config = sdlearn.load(BUNDLED).unet.config
    torch.manual_seed(0)
    ours, theirs = UNet(config), diffusers.UNet2DConditionModel.from_config(config.to_dict())
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x, t, context = noise(64, 4, 16, 16), torch.arange(64) * 15, noise(64, 77, config.cross_attention_dim)

    def step(predict: Callable[[], Tensor]) -> None:
        with torch.enable_grad():
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                prediction = predict()
            prediction.float().square().mean().backward()

    return Sides(lambda: step(lambda: ours(x, t, context)), lambda: step(lambda: theirs(x, t, context).sample), dtype)


def stable_diffusion_unet(dtype: torch.dtype) -> UNet:
    """Stable Diffusion 1.5's UNet with random weights."""
    torch.manual_seed(0)
    return UNet(UNetConfig()).to(dtype).requires_grad_(False)


def guided_step(dtype: torch.dtype) -> Sides:
    """Stable Diffusion 1.5's UNet, with and without words: 64×64 latents are a picture of 512×512 pixels."""
    ours = stable_diffusion_unet(dtype)
    with torch.device("meta"):
        theirs = diffusers.UNet2DConditionModel.from_config(ours.config.to_dict())
    share_weights(ours, theirs)
    x, context = noise(1, 4, 64, 64).to(dtype), noise(2, 77, ours.config.cross_attention_dim).to(dtype)
    both = torch.cat([x, x])
    return Sides(lambda: ours(both, 500, context), lambda: theirs(both, 500, context).sample, dtype)


def decode() -> Sides:
    """Stable Diffusion's autoencoder: 64×64 latents to 512×512 pixels."""
    config = AutoencoderConfig()
    torch.manual_seed(0)
    ours, theirs = Autoencoder(config), diffusers.AutoencoderKL.from_config(config.to_dict())
    share_weights(ours, theirs)
    latents = noise(1, 4, 64, 64)
    return Sides(lambda: ours.decode(latents), lambda: theirs.decode(latents).sample)


def encode_text() -> Sides:
    """CLIP ViT-L/14's text half: two prompts of 77 tokens."""
    config = TextConfig()
    torch.manual_seed(0)
    ours, theirs = TextEncoder(config), transformers.CLIPTextModel(transformers.CLIPTextConfig(**config.to_dict()))
    state = ours.state_dict()
    prefix = "" if "embeddings.token_embedding.weight" in theirs.state_dict() else "text_model."
    theirs.load_state_dict({prefix + key.removeprefix("text_model."): value for key, value in state.items()})
    theirs.eval()
    ids = torch.randint(0, config.vocab_size, (2, 77), generator=torch.Generator().manual_seed(0))
    return Sides(lambda: ours(ids), lambda: theirs(ids).last_hidden_state)


WORKS = {
    "image": Work("bundled model, 25 steps, one picture", lambda: text_to_image(1), 7),
    "images": Work("bundled model, 25 steps, eight pictures", lambda: text_to_image(8), 5),
    "train": Work("training step of the bundled UNet, batch 64", lambda: training_step(torch.float32), 5),
    "autocast": Work("the same step in bfloat16, as its recipe trains", lambda: training_step(torch.bfloat16), 5),
    "float32": Work("guided step of SD 1.5's UNet, 512×512, float32", lambda: guided_step(torch.float32), 5),
    "bfloat16": Work("the same step in bfloat16", lambda: guided_step(torch.bfloat16), 5),
    "decode": Work("SD's decoder, 512×512 pixels", decode, 3),
    "text": Work("CLIP ViT-L/14, two prompts", encode_text, 9),
}

IN_BFLOAT16 = ("autocast", "bfloat16")  # left out where they would take hours


def best_dtype() -> torch.dtype:
    """What SD 1.5 would run in on this processor."""
    return torch.bfloat16 if fast_in_bfloat16() else torch.float32


def seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def peak_rate(dtype: torch.dtype) -> float:
    """The machine's best rate of a matrix product, in operations per second; a multiplication and an addition are 2."""
    best = 0.0
    for n in (1024, 2048, 4096):
        a, b = noise(n, n).to(dtype), noise(n, n).to(dtype)
        best = max(best, *(2 * n**3 / seconds(lambda a=a, b=b: a @ b) for _ in range(6)))
    return best


def measure(work: Work) -> dict[str, Any]:
    """Both sides in turns: the medians of their times, and the median and the range of the ratios of the pairs."""
    sides = work.make()
    with FlopCounterMode(display=False) as counter:
        sides.theirs()  # also warms up
    sides.ours()
    pairs = [pair(sides, ours_first=i % 2 == 0) for i in tqdm(range(work.pairs), work.name, leave=False)]
    needed = working_memory(sides.ours), working_memory(sides.theirs)
    ratios = [theirs / ours for ours, theirs in pairs]
    ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    operations = counter.get_total_flops()
    tqdm.write(f"{work.name}: {ours:.2f} s, {theirs:.2f} s, {statistics.median(ratios):.2f} times as fast")
    return {
        "ours": ours,
        "theirs": theirs,
        "ratio": statistics.median(ratios),
        "range": (min(ratios), max(ratios)),
        "rates": (operations / ours, operations / theirs),
        "MB": needed,
        "dtype": sides.dtype,
    }


def pair(sides: Sides, ours_first: bool) -> tuple[float, float]:
    """The seconds of one call of each side. Who comes first can matter, so it changes from pair to pair."""
    if ours_first:
        return seconds(sides.ours), seconds(sides.theirs)
    theirs = seconds(sides.theirs)
    return seconds(sides.ours), theirs


def working_memory(run: Callable[[], Any]) -> float:
    """The most memory that the tensors of a call use at once, in MB, without those that existed before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        run()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        trace.export_chrome_trace(str(file))
        events = [event for event in json.loads(file.read_text())["traceEvents"] if event["name"] == "[memory]"]
    return max(accumulate(event["args"]["Bytes"] for event in sorted(events, key=lambda event: event["ts"]))) / 1e6


GROWTH: dict[str, tuple[str, tuple[int, ...]]] = {
    "side": ("pixels along a side", (256, 384, 512, 768)),
    "batch": ("pictures at once, 256×256", (1, 2, 4, 8)),
    "tokens": ("tokens of the text, 256×256", (77, 154, 308, 616)),
    "steps": ("steps of the bundled model", (5, 10, 25, 50)),
}


def growing(what: str, value: int) -> Callable[[], Any]:
    """One guided step of SD 1.5's UNet in `best_dtype`; for `steps`, a complete picture of the bundled model."""
    if what == "steps":
        model = sdlearn.load(BUNDLED)
        return lambda: model(PROMPT, steps=value, progress=False)
    side = value // 8 if what == "side" else 32
    batch, tokens = (value if what == name else default for name, default in (("batch", 1), ("tokens", 77)))
    unet = stable_diffusion_unet(best_dtype())
    x, context = noise(2 * batch, 4, side, side).to(best_dtype()), noise(2 * batch, tokens, 768).to(best_dtype())
    return lambda: unet(x, 500, context)


def plot(growth: dict[str, list[dict[str, float]]], file: Path) -> None:
    """Time above, memory below; one column for each quantity that grows."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(2, len(GROWTH), figsize=(13, 5.6), layout="constrained", sharex="col")
    for column, (what, (label, values)) in enumerate(GROWTH.items()):
        for row, (key, unit, color) in enumerate(
            (("seconds", "seconds", "#0072B2"), ("MB", "working memory, MB", "#D55E00"))
        ):
            ax = axes[row, column]
            heights = [point[key] for point in growth[what]]
            ax.plot(values, heights, "o-", color=color)
            for value, height in zip(values, heights, strict=True):
                ax.annotate(
                    f"{height:.3g}", (value, height), (0, 6), textcoords="offset points", ha="center", fontsize=8
                )
            middle = (min(heights) * max(heights)) ** 0.5  # at least a decade, or a change of 1 % would look like much
            reach = max(max(heights) / middle * 1.5, 10**0.5)
            ax.set(xscale="log", yscale="log", ylim=(middle / reach, middle * reach), ylabel="" if column else unit)
            ax.set_xticks(values, labels=[str(value) for value in values])
            ax.minorticks_off()
            ax.grid(alpha=0.3)
        axes[1, column].set_xlabel(label)
    with atomic_write(file) as temporary:
        fig.savefig(temporary, format="png", dpi=90)
    plt.close(fig)


def grow(what: str, value: int) -> dict[str, float]:
    """Time and working memory at one point of the plot."""
    run = growing(what, value)
    needed = working_memory(run)  # also warms up
    return {"MB": needed, "seconds": min(seconds(run) for _ in range(3))}  # other work on the machine only adds to it


def table(results: dict[str, dict[str, Any]], peaks: dict[torch.dtype, float]) -> list[str]:
    """The results as Markdown."""
    head = ("work", "ours, s", "Diffusers, s", "faster by (range)", "ours, of peak", "Diffusers")
    lines = ["| " + " | ".join((*head, "memory, MB", "Diffusers")) + " |", "|---" * (len(head) + 2) + "|"]
    for key, result in results.items():
        low, high = result["range"]
        mine, reference = (rate / peaks[result["dtype"]] for rate in result["rates"])
        needed, theirs = (f"{value:.0f}" for value in result["MB"])
        lines.append(
            f"| {WORKS[key].name} | {result['ours']:.2f} | {result['theirs']:.2f} | {result['ratio']:.2f} "
            f"({low:.2f} to {high:.2f}) | {mine:.0%} | {reference:.0%} | {needed} | {theirs} |"
        )
    return lines


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def report(rows: list[str], peaks: dict[torch.dtype, float]) -> str:
    """docs/performance.md."""
    rates = ", ".join(f"{rate / 1e9:.0f} Gflop/s in {name_of(dtype)}" for dtype, rate in peaks.items())
    left_out = ["", "This processor is slow in bfloat16, so the rows in bfloat16 are left out."]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers"))
    return "\n".join(
        [
            "# Speed and memory",
            "",
            "Written by `make bench`. Both sides have the same weights and are called in turns in one process; each",
            "pair of calls gives one ratio, Diffusers' time by ours, and the table has their median and range.",
            "*Of peak* is the rate of the operations, as counted in Diffusers' passes, by the machine's best rate of a",
            "matrix product, which convolutions can exceed. Memory is the most that the tensors of a call take at",
            "once, without the weights and the kernels' own scratch memory, which is the same on both sides.",
            "",
            "The package has no speed tricks: it computes what Diffusers computes, with the same kernels. So the",
            "ratios should be near 1. They scatter, by a few percent on a quiet machine and by far more on a virtual",
            "one that shares its processor. Where a picture takes less time, less is done around the networks.",
            "",
            f"Machine: {platform.machine()}, {torch.get_num_threads()} threads; matrix products reach {rates}.",
            f"Versions: Python {platform.python_version()}, {packages}.",
            "",
            *rows,
            *([] if fast_in_bfloat16() else left_out),
            "",
            "## How time and memory grow",
            "",
            "![Eight small plots with logarithmic axes: time above, working memory below, against picture size, batch, "
            "text length and steps](performance.png)",
            "",
            f"One guided step of Stable Diffusion 1.5's UNet in {name_of(best_dtype())}, the fastest of three; the",
            "last column is a complete picture of the bundled model.",
            "",
        ]
    )


@torch.no_grad()
def run(
    works: Annotated[str, typer.Option(help="Only these rows, and no files: " + ", ".join(WORKS))] = "",
) -> None:
    """Measure every row and the growth, print the table, and write docs/performance.md."""
    fast = [name for name in WORKS if fast_in_bfloat16() or name not in IN_BFLOAT16]
    names = works.split(",") if works else fast
    dtypes = (torch.float32, torch.bfloat16) if {*names} & {*IN_BFLOAT16} else (torch.float32,)
    peaks = {dtype: peak_rate(dtype) for dtype in dtypes}
    results = {name: measure(WORKS[name]) for name in tqdm(names, "rows", leave=False)}
    rows = table(results, peaks)
    print("\n".join(rows))
    if works:
        return
    points = [(what, value) for what, (_, values) in GROWTH.items() for value in values]
    growth: dict[str, list[dict[str, float]]] = {what: [] for what in GROWTH}
    for what, value in tqdm(points, "growth", leave=False):
        growth[what].append(grow(what, value))
    plot(growth, DOCS / "performance.png")
    with atomic_write(DOCS / "performance.md") as temporary:
        temporary.write_text(report(rows, peaks), encoding="utf-8")


if __name__ == "__main__":
    typer.run(run)
