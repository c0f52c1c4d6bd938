"""Which sampler, how many steps and how much guidance the bundled model uses: chosen by measurement.

    make defaults

Every setting draws the same 96 pictures from the same noise. They are compared with the nearest true renderings, the
judge names their subjects, and for samplers that add no noise the latents are compared with those of 200 steps: what is
left of the solver's own error. Writes docs/defaults.md; takes about ten minutes.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import sdlearn
from sdlearn.data import caption
from sdlearn.evaluation.judge import judge_pictures, load_judge
from sdlearn.evaluation.scores import evaluating, matches, requests
from sdlearn.evaluation.sharpness import edge_agreement, nearest_renderings, psnr
from sdlearn.files import atomic_write
from sdlearn.pictures import to_pixels

PICTURES, BATCH = 96, 48
FINE = {"sampler": "dpmpp_2m_karras", "steps": 200}
HALF_AS_FINE = ({"sampler": "dpmpp_2m_karras", "steps": 100}, {"sampler": "dpmpp_2m", "steps": 100})
SAMPLERS = (
    *(("dpmpp_2m", steps) for steps in (12, 25)),
    *(("dpmpp_2m_karras", steps) for steps in (8, 10, 12, 16, 25)),
    *(("ddim", 25), ("euler_ancestral", 25), ("ddpm", 50)),
)
SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def sample(model: sdlearn.StableDiffusion, captions: list[str], **settings: Any) -> Tensor:
    """The latents (B, 4, 16, 16) of one picture for each caption; picture i has the seed i."""
    latents = []
    for first in range(0, len(captions), BATCH):
        steps = model.sample(captions[first : first + BATCH], seed=first, height=64, width=64, **settings)
        latents.append(sdlearn.last(steps))
    return torch.cat(latents)


def main() -> None:
    """Measure all settings and write the table."""
    model, judge = sdlearn.load(), load_judge()
    asked = requests("test", PICTURES // 2, seed=1) + requests("held_out_pairs", PICTURES // 2, seed=1)
    captions = [caption(*request) for request in asked]
    small = torch.tensor([size == "small" for _, _, size in asked])

    def error(latents: Tensor, fine: Tensor) -> float:
        return (latents - fine).square().mean().sqrt().item()

    def row(name: str, sampler: str, steps: int, scale: float, fine: Tensor | None) -> str:
        started = time.perf_counter()
        latents = sample(model, captions, sampler=sampler, steps=steps, guidance_scale=scale)
        pictures = to_pixels(model.decode(latents).cpu())
        seconds = (time.perf_counter() - started) / PICTURES
        nearest = nearest_renderings(pictures, asked)
        edges, decibel = edge_agreement(pictures, nearest), psnr(nearest, pictures)[0]
        named = matches(judge_pictures(judge, pictures)[0], [subject for subject, _, _ in asked])
        left = "" if fine is None else f"{error(latents, fine):.3f}"
        cells = (f"{edges.mean():.3f}", f"{edges[small].mean():.3f}", f"{decibel.mean():.1f} dB")
        text = f"| {name} | {' | '.join(cells)} | {np.mean(named):.1%} | {left} | {seconds:.2f} |"
        print(text)
        return text

    with evaluating(model):
        scale = model.defaults.guidance_scale
        fine = sample(model, captions, **FINE, guidance_scale=scale)
        check = [error(sample(model, captions, **one, guidance_scale=scale), fine) for one in HALF_AS_FINE]
        noisy = ("ddpm", "euler_ancestral")
        by_sampler = [
            row(f"{sampler}, {steps} steps", sampler, steps, scale, None if sampler in noisy else fine)
            for sampler, steps in SAMPLERS
        ]
        sampler, steps = model.defaults.sampler, model.defaults.steps
        by_scale = [row(f"guidance scale {scale:g}", sampler, steps, scale, None) for scale in SCALES]
    head = ("| | edges | edges, small | PSNR | subject | solver's error | seconds a picture |", "|---" * 7 + "|")
    text = "\n".join(
        (
            "# How the bundled model's defaults were chosen",
            "",
            f"Written by `make defaults`: {PICTURES} pictures for each row, always from the same noise, in batches of",
            f"{BATCH}, on a CPU (threads: {torch.get_num_threads()}). Edges and PSNR compare a picture with the",
            "nearest true rendering of what was requested, as in the card. The solver's error is the distance of its",
            f"latents, whose standard deviation is 1, to those of {FINE['steps']} steps of {FINE['sampler']};",
            f"a sampler that adds noise has none. 100 steps on the same grid end {check[0]:.3f} from there, 100",
            f"evenly spaced steps {check[1]:.3f}: an even grid's last step is too long for a yardstick.",
            "",
            "The samplers that add fresh noise draw the sharpest",
            "pictures. The default adds none: it takes half their time or less, and the same start gives the same",
            "picture with every number of steps, which the lessons need.",
            "",
            f"## Sampler and steps, at guidance scale {model.defaults.guidance_scale:g}",
            "",
            *head,
            *by_sampler,
            "",
            f"## Guidance, with {sampler} and {steps} steps",
            "",
            *head,
            *by_scale,
            "",
            f"The defaults are {sampler}, {steps} steps and guidance scale {model.defaults.guidance_scale:g}.",
            "",
        )
    )
    with atomic_write(Path("docs/defaults.md")) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
