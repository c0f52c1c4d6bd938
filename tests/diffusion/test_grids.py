"""The grids against the set_timesteps of Diffusers' schedulers, for all numbers of steps."""

import diffusers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdlearn.diffusion import grids
from sdlearn.diffusion.schedule import SPACINGS, Schedule, ScheduleConfig

CLASSES = {
    "make_grid": "DDIMScheduler",
    "make_grid_plms": "PNDMScheduler",
    "make_grid_euler": "EulerDiscreteScheduler",
    "make_grid_heun": "HeunDiscreteScheduler",
    "make_grid_dpmpp": "DPMSolverMultistepScheduler",
    "make_grid_karras": "DPMSolverMultistepScheduler",
}
# With this steps_offset Diffusers may go beyond t = 999, or have equal timesteps, which divide 0 by 0 in DPM-Solver++.
# What ours does there is in test_every_grid_goes_down_to_zero.
MAY_FAIL = {("make_grid", "leading", 1, 1000), ("make_grid_plms", "leading", 1, 1000)}
MAY_FAIL |= {("make_grid_dpmpp", "leading", 1, 999), ("make_grid_dpmpp", "leading", 1, 1000)}
MAY_FAIL |= {("make_grid_dpmpp", "leading", 0, 1000), ("make_grid_dpmpp", "linspace", 1, 1000)}


def calls(name: str, steps: int) -> int:
    """The number of network calls."""
    return {"make_grid_plms": steps + (steps > 1), "make_grid_heun": 2 * steps - 1}.get(name, steps)


@pytest.mark.parametrize(
    ("spacing", "steps_offset"), [("leading", 0), ("leading", 1), ("trailing", 1), ("linspace", 1)]
)
@pytest.mark.parametrize("name", list(CLASSES))
def test_grids_equal_diffusers(name, spacing, steps_offset):
    config = ScheduleConfig(timestep_spacing=spacing, steps_offset=steps_offset)
    options = {"use_karras_sigmas": name == "make_grid_karras"}
    schedule, scheduler = Schedule(config), getattr(diffusers, CLASSES[name]).from_config(config.to_dict() | options)
    stride = {"make_grid_plms": 13, "make_grid_heun": 13, "make_grid_karras": 1000}.get(name, 3)  # the last is slow
    for steps in (*range(1, 51), *range(51, 999, stride), 999, 1000):
        grid = getattr(grids, name)(schedule, steps)
        scheduler.set_timesteps(steps)
        theirs = scheduler.timesteps
        if (name, spacing, steps_offset, steps) in MAY_FAIL:
            continue
        if theirs[-1] == -1:  # a rounding error in Diffusers, with 61 steps for example: one timestep too many
            assert spacing == "trailing" and torch.equal(grid.timesteps, theirs[theirs >= 0])
        else:
            assert torch.equal(grid.timesteps, theirs) and grid.timesteps.dtype == theirs.dtype
            if hasattr(scheduler, "sigmas"):
                torch.testing.assert_close(grid.sigmas, scheduler.sigmas)


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(list(CLASSES)),
    spacing=st.sampled_from(SPACINGS),
    timesteps=st.sampled_from([10, 200, 1000]),
    zero_snr=st.booleans(),
    data=st.data(),
)
def test_every_grid_goes_down_to_zero(name, spacing, timesteps, zero_snr, data):
    schedule = Schedule(ScheduleConfig(num_train_timesteps=timesteps, rescale_betas_zero_snr=zero_snr))
    steps = data.draw(st.integers(1, timesteps))
    grid = getattr(grids, name)(schedule, steps, spacing)
    assert (grid.steps, grid.stride, grid.spacing) == (steps, timesteps // steps, spacing)
    assert len(grid) == calls(name, steps) == len(grid.timesteps) == len(grid.sigmas) - 1
    # With all timesteps and an offset of 1, Euler's "leading" begins beyond the last timestep, with the same sigma.
    beyond = name in ("make_grid_euler", "make_grid_heun") and (spacing, steps) == ("leading", timesteps)
    repeated = len(grid) - steps  # by Heun and PLMS
    assert (grid.sigmas.diff() <= 0).all() and (grid.sigmas.diff() == 0).sum() == repeated + beyond
    assert (grid.timesteps.diff() <= 0).all() and grid.sigmas[-1] == 0
    assert (grid.timesteps.diff() == 0).sum() == repeated or name == "make_grid_karras"
    assert grid.timesteps.min() >= 0 and grid.timesteps.max() <= timesteps - 1 + beyond

    k = data.draw(st.integers(1, steps))
    tail = grid.tail(k)
    assert len(tail) == (k + (steps > 1) if name == "make_grid_plms" else calls(name, k))
    assert tail.timesteps.tolist() == grid.timesteps.tolist()[-len(tail) :]
    assert tail.sigmas.tolist() == grid.sigmas.tolist()[-len(tail) - 1 :]
    assert (tail.steps, tail.stride, tail.spacing, tail.order) == (k, grid.stride, grid.spacing, grid.order)
    assert tail.tail(1).timesteps.tolist() == grid.tail(1).timesteps.tolist()
    if name == "make_grid_plms" and len(tail) > 1:  # the second call goes back by one stride
        assert tail.timesteps[1] + tail.stride < timesteps


@pytest.mark.parametrize("name", list(CLASSES))
def test_bad_arguments_are_refused(name):
    make_grid, schedule = getattr(grids, name), Schedule(ScheduleConfig())
    for steps in (0, -3, 1001, 2.5, True):
        with pytest.raises(ValueError, match="whole number from 1 to 1000"):
            make_grid(schedule, steps)
    with pytest.raises(ValueError, match="'log' is unknown; accepted: leading, trailing, linspace"):
        make_grid(schedule, 4, "log")
    for k in (0, 5):
        with pytest.raises(ValueError, match="from 1 to 4"):
            make_grid(schedule, 4).tail(k)
