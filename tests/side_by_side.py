"""A model folder in ours and in a pipeline of Diffusers, so that whole trajectories can be compared in float64."""

from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from sdlearn.pipeline import StableDiffusion
from sdlearn.storage.load import load

# Each sampler's class in Diffusers, and the tolerance. The first three take float64 tables, and follow them. The steps
# of the others are made in float32 inside, or with tables that were rounded to it.
SCHEDULERS: dict[str, tuple[Any, float | None]] = {
    "ddim": (diffusers.DDIMScheduler, None),
    "ddpm": (diffusers.DDPMScheduler, None),
    "plms": (diffusers.PNDMScheduler, None),
    "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, 1e-6),
    "dpmpp_2m_karras": (diffusers.DPMSolverMultistepScheduler, 1e-6),
    "euler": (diffusers.EulerDiscreteScheduler, 1e-6),
    "euler_ancestral": (diffusers.EulerAncestralDiscreteScheduler, 1e-6),
    "heun": (diffusers.HeunDiscreteScheduler, 1e-6),
}
CLASSES = {name: kind.__name__ for name, (kind, _) in SCHEDULERS.items()}


def both(folder: Path, pipeline: Any, sampler: str) -> tuple[StableDiffusion, Any]:
    """The model in ours and in theirs, both in float64, with float64 tables."""
    ours = load(folder, dtype=torch.float64)
    for table in ("betas", "alphas", "alphas_cumprod"):
        setattr(ours.schedule, table, getattr(ours.schedule, table).double())
    theirs = pipeline.from_pretrained(folder, local_files_only=True).to(torch.float64)
    theirs.set_progress_bar_config(disable=True)
    options = {"use_karras_sigmas": sampler.endswith("karras")} if sampler.startswith("dpmpp") else {}
    theirs.scheduler = SCHEDULERS[sampler][0].from_pretrained(folder / "scheduler", **options)
    for table in ("betas", "alphas", "alphas_cumprod", "final_alpha_cumprod", "one"):
        if isinstance(value := getattr(theirs.scheduler, table, None), Tensor):
            setattr(theirs.scheduler, table, value.double())
    return ours, theirs
