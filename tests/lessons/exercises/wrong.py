"""Classic wrong answers as a learner types them, by the ids of their exercises: pieces of their hints, and the texts.

Unlike `different.py` they are wrong, and unlike a `Bug` they aren't made from the package's source.
"""

WRONG: dict[str, list[tuple[str, str]]] = {
    "01.snr": [
        (
            "this is ᾱ, the signal's variance",
            """
from sdlearn import Schedule


class Mine(Schedule):
    def snr(self, t):
        return self.alphas_cumprod[t]
""",
        ),
        (
            "upside down",
            """
from sdlearn import Schedule


class Mine(Schedule):
    def snr(self, t):
        return 1 / self.alphas_cumprod[t] - 1
""",
        ),
    ],
    "02.posterior": [
        (
            "counts from the end of the list",
            """
from sdlearn import Schedule


class Mine(Schedule):
    def posterior(self, x0, x, t, previous):
        now, before = self.alphas_cumprod[t], self.alphas_cumprod[previous]
        alpha = now / before
        mean = (before**0.5 * (1 - alpha) * x0 + alpha**0.5 * (1 - before) * x) / (1 - now)
        return mean, (1 - before) / (1 - now) * (1 - alpha)
""",
        ),
    ],
    "02.x0_at": [
        (
            "always taken for epsilon",
            """
from sdlearn import Schedule


class Mine(Schedule):
    def x0_at(self, prediction, x, signal_rate, noise_rate):
        return (x - noise_rate * prediction) / signal_rate
""",
        ),
    ],
    "02.ddpm": [
        (
            "off by one when the network is asked: x is at t, and not at t − 1",
            """
from sdlearn import Step, draw_noise


def mine(denoise, x, grid, schedule, generator=None, project=None):
    for i in range(len(grid)):
        t = grid.timesteps[i].item()
        x0 = schedule.to_x0(denoise(x, t - 1), x, t)
        previous = grid.timesteps[i + 1].item() if i + 1 < len(grid) else -1
        mean, variance = schedule.posterior(x0, x, t, previous)
        x = mean if previous < 0 else mean + variance**0.5 * draw_noise(x.shape, generator)
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)
""",
        ),
        (
            "the step ends at t − 1, but the grid leaves timesteps out",
            """
from sdlearn import Step, draw_noise


def mine(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = schedule.to_x0(denoise(x, t), x, t)
        x, variance = schedule.posterior(x0, x, t, t - 1)
        if i < len(grid) - 1:
            x = x + variance.sqrt() * draw_noise(x.shape, generator)
        if project:
            x = project(x, i)
        yield Step(i, t, x, x0)
""",
        ),
    ],
    "03.leapfrog": [
        (
            "Euler's rule",
            """
def mine(score, x, momentum, step_size, leapfrog_steps):
    for _ in range(leapfrog_steps):
        force = score(x)
        x = x + step_size * momentum
        momentum = momentum + step_size * force
    return x, momentum
""",
        ),
    ],
    "04.euler": [
        (
            "must be shrunk to VP",
            """
from sdlearn import Step


def mine(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        now, after = grid.sigmas[i], grid.sigmas[i + 1]
        x0 = schedule.x0_at_sigma(denoise(x, t), x, now)
        x = x0 + after / now * (x - x0)
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)
""",
        ),
        (
            "the raw answer is taken for the slope",
            """
from sdlearn import Step


def mine(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        epsilon = denoise(x, t)
        x0 = x - grid.sigmas[i] * epsilon
        x = x + (grid.sigmas[i + 1] - grid.sigmas[i]) * epsilon
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)
""",
        ),
        (
            "it yields nothing",
            """
def mine(denoise, x, grid, schedule, generator=None, project=None):
    return []
""",
        ),
    ],
    "04.adams_bashforth": [
        (
            "the order is turned round",
            """
import torch


def mine(n):
    s = torch.arange(1 - n, 1, dtype=torch.float64)
    k = torch.arange(n, dtype=torch.float64)
    return torch.linalg.solve(s ** k.view(-1, 1), 1 / (k + 1))
""",
        ),
    ],
}
