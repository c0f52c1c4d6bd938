"""Grids: which noise levels a run of a sampler visits. Spacings as in Lin et al. 2023 (arXiv 2305.08891), table 2."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sdlearn.config import check_count
from sdlearn.diffusion.schedule import SPACINGS, Schedule


@dataclass(frozen=True)
class Grid:
    """The noise levels of one run: one entry for each network call, in the order of the calls.

    timesteps: what the network is given, (calls,). int64, or floating point if a level can lie between two timesteps.
    sigmas: noise rate / signal rate of x before each call, then 0, (calls + 1,), in the schedule's dtype.
    stride: how far DDIM goes back from one timestep to the next, num_train_timesteps // steps.
    steps: how many steps were requested. Heun calls the network twice in each but the last, PLMS in the first.
    spacing: one of SPACINGS. order: Heun's 2, from one step's start to the next in the list of calls.
    """

    timesteps: Tensor
    sigmas: Tensor
    stride: int
    steps: int
    spacing: str
    order: int = 1

    def __len__(self) -> int:
        """The number of network calls."""
        return len(self.timesteps)

    def tail(self, k: int) -> "Grid":
        """The last k steps, with the same stride, 1 <= k <= steps: image to image starts here, as in Diffusers."""
        check_count("k", k, 1, self.steps)
        start = (self.steps - k) * self.order
        return replace(self, timesteps=self.timesteps[start:], sigmas=self.sigmas[start:], steps=k)


def make_grid(schedule: Schedule, steps: int, spacing: str | None = None) -> Grid:
    """The grid of DDPM and DDIM: `steps` timesteps, spaced as Diffusers does.

    spacing: "leading", "trailing" or "linspace"; None means the schedule's timestep_spacing.
    Raises ValueError when steps is not from 1 to num_train_timesteps, or the spacing is unknown.
    """
    n, spacing = _check_grid(schedule, steps, spacing)
    if spacing == "leading":
        timesteps = _leading(np.arange(steps) * (n // steps), schedule)
    elif spacing == "trailing":
        timesteps = _trailing(n, steps)
    else:
        timesteps = np.linspace(0, n - 1, steps).round()
    return _grid(schedule, np.sort(timesteps)[::-1].astype(np.int64), steps, spacing)


def make_grid_plms(schedule: Schedule, steps: int, spacing: str | None = None) -> Grid:
    """The grid of PLMS: `make_grid` with its second timestep repeated, since the first step is made twice."""
    grid = make_grid(schedule, steps, spacing)
    timesteps, sigmas = grid.timesteps, grid.sigmas
    return replace(
        grid,
        timesteps=torch.cat([timesteps[:2], timesteps[1:]]),  # t_0, t_1, t_1, t_2, ...
        sigmas=torch.cat([sigmas[:-1][:2], sigmas[1:]]),
    )


def make_grid_dpmpp(schedule: Schedule, steps: int, spacing: str | None = None) -> Grid:
    """The grid of DPM-Solver++: `make_grid`, but "leading" and "linspace" add a timestep and drop the lowest."""
    n, spacing = _check_grid(schedule, steps, spacing)
    if spacing == "leading":
        timesteps = _leading(np.arange(1, steps + 1) * max(n // (steps + 1), 1), schedule)
    elif spacing == "trailing":
        timesteps = _trailing(n, steps)
    else:
        # With n steps there are only n timesteps, so none is dropped.
        timesteps = np.linspace(0, n - 1, min(steps + 1, n)).round()[-steps:]
    return _grid(schedule, np.sort(timesteps)[::-1].astype(np.int64), steps, spacing)


def make_grid_karras(schedule: Schedule, steps: int, spacing: str | None = None) -> Grid:
    """The sigmas of Karras et al. 2022 (arXiv 2206.00364), equation 5 with rho = 7, over the schedule's full range.

    The network is given the nearest timestep, so several sigmas can share one. Spacing makes no difference.
    """
    _, spacing = _check_grid(schedule, steps, spacing)
    low, high = schedule.sigmas[0].item() ** (1 / 7), schedule.sigmas[-1].item() ** (1 / 7)
    sigmas = (high + np.linspace(0, 1, steps) * (low - high)) ** 7
    timesteps = np.interp(np.log(sigmas), np.log(schedule.sigmas.numpy()), np.arange(len(schedule.sigmas)))
    if schedule.config.beta_schedule != "squaredcos_cap_v2":  # Diffusers truncates those
        timesteps = timesteps.round()
    return _grid(schedule, timesteps.astype(np.int64), steps, spacing, sigmas)


def make_grid_euler(schedule: Schedule, steps: int, spacing: str | None = None) -> Grid:
    """The grid of Euler's method: `make_grid`, but "linspace" doesn't round; sigma is interpolated between timesteps.

    Also as in Diffusers, "leading" with all 1000 steps and an offset of 1 begins at t = 1000, with the sigma of 999.
    """
    n, spacing = _check_grid(schedule, steps, spacing)
    if spacing == "leading":
        timesteps = np.arange(steps)[::-1] * (n // steps) + schedule.config.steps_offset
    elif spacing == "trailing":
        timesteps = _trailing(n, steps)
    else:
        timesteps = np.linspace(0, n - 1, steps)[::-1]
    sigmas = schedule.sigmas.numpy()
    timesteps = timesteps.astype(sigmas.dtype)
    return _grid(schedule, timesteps, steps, spacing, np.interp(timesteps, np.arange(n), sigmas))


def make_grid_heun(schedule: Schedule, steps: int, spacing: str | None = None) -> Grid:
    """The grid of Heun's method: Euler's, with every timestep but the first twice: steps end where others begin."""
    grid = make_grid_euler(schedule, steps, spacing)
    timesteps = grid.timesteps.repeat_interleave(2)[1:]  # t_0, t_1, t_1, t_2, t_2, ...
    return replace(grid, timesteps=timesteps, sigmas=grid.sigmas.repeat_interleave(2)[1:-1], order=2)


def _check_grid(schedule: Schedule, steps: int, spacing: str | None) -> tuple[int, str]:
    n = schedule.config.num_train_timesteps
    check_count("steps", steps, 1, n)
    spacing = schedule.config.timestep_spacing if spacing is None else spacing
    if spacing not in SPACINGS:
        raise ValueError(f"spacing = {spacing!r} is unknown; accepted: {', '.join(SPACINGS)}")
    return n, spacing


def _leading(timesteps: np.ndarray, schedule: Schedule) -> np.ndarray:
    """Add steps_offset, or less if that would pass the last timestep (with n or n - 1 steps; there Diffusers fails)."""
    room = schedule.config.num_train_timesteps - 1 - timesteps.max()
    return timesteps + min(schedule.config.steps_offset, room)


def _trailing(n: int, steps: int) -> np.ndarray:
    """From n - 1 down. Rounding can make arange one entry too long; the slice drops Diffusers' t = -1."""
    return np.arange(n, 0, -n / steps)[:steps].round() - 1


def _grid(
    schedule: Schedule, timesteps: np.ndarray, steps: int, spacing: str, sigmas: np.ndarray | None = None
) -> Grid:
    """One call for each timestep; sigmas are those of the timesteps unless given."""
    timesteps = torch.from_numpy(timesteps.copy())
    sigmas = schedule.sigmas[timesteps] if sigmas is None else torch.from_numpy(sigmas).to(schedule.sigmas)
    stride = schedule.config.num_train_timesteps // steps
    return Grid(timesteps, torch.cat([sigmas, sigmas.new_zeros(1)]), stride, steps, spacing)
