"""The samplers against Diffusers' schedulers as they are, in float32: the same dtypes, and the same to 1e-4.

What they compute is compared in float64, in test_samplers.py.
"""

import diffusers
import pytest
import torch
from side_by_side import CLASSES
from torch import Tensor

from sdlearn.diffusion.samplers import draw_noise, get_sampler, last
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.lessons.check import assert_parity


def denoise(x: Tensor, t: float) -> Tensor:
    """A v that keeps x the size of pictures."""
    return torch.sin(x + t / 1000)


@pytest.mark.parametrize("name", list(CLASSES))
def test_ten_steps_equal_diffusers(name):
    config = ScheduleConfig(prediction_type="v_prediction", timestep_spacing="trailing")
    options = {"clip_sample": False, "use_karras_sigmas": name == "dpmpp_2m_karras"}
    theirs = getattr(diffusers, CLASSES[name]).from_config(config.to_dict() | options)
    theirs.set_timesteps(10)
    random = {"generator": torch.Generator().manual_seed(1)} if name in ("ddpm", "euler_ancestral") else {}
    noise = draw_noise((3, 4, 5, 7), torch.Generator().manual_seed(0))
    expected = noise * theirs.init_noise_sigma
    for t in theirs.timesteps:
        prediction = denoise(theirs.scale_model_input(expected, t), t.item())
        expected = theirs.step(prediction, t, expected, **random).prev_sample

    schedule, sampler = Schedule(config), get_sampler(name)
    grid = sampler.make_grid(schedule, 10)
    x = noise * sampler.initial_scale(schedule, grid)
    end = last(sampler.loop(denoise, x, grid, schedule, torch.Generator().manual_seed(1)))
    assert end.dtype == expected.dtype == torch.float32
    assert_parity(f"sampler {name}, whole trajectory", end, expected, against=CLASSES[name])
