"""Diffusers' schedulers in float64."""

import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from sdlearn.diffusion.samplers import draw_noise

FILES = ["ddpm", "ddim", "pndm", "euler_discrete", "euler_ancestral_discrete", "heun_discrete", "dpmsolver_multistep"]


class Wide:
    """A module in which float32 means float64."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, "float64" if name == "float32" else name)


@pytest.fixture(scope="module")
def float64_schedulers() -> Iterator[None]:
    """Let Diffusers' schedulers compute in float64 throughout, and draw the noise that we draw.

    Left alone they make betas, sigmas and Euler's timesteps in float32, round x to float32 within each step of Euler,
    Euler ancestral and DPM-Solver++, and get other random numbers from a seed when x is float64.
    """

    def same_noise(shape: tuple[int, ...], *, generator: Any, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        return draw_noise(tuple(shape), generator).to(device, dtype)

    with pytest.MonkeyPatch.context() as patch:
        for file in FILES:
            scheduling = importlib.import_module(f"diffusers.schedulers.scheduling_{file}")
            patch.setattr(scheduling, "torch", Wide(torch))
            patch.setattr(scheduling, "np", Wide(np))
            patch.setattr(scheduling, "randn_tensor", same_noise, raising=False)
        yield
