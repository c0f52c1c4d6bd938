"""Markov chain Monte Carlo: samples from a density that is known only up to a factor, or only by its score.

The score is the gradient of the log density with respect to x, ∇ log p(x). It points to where p grows fastest. A
constant factor of p does not change it, so p need not be normalised.

In all of them x is (B, ...): B chains that run in parallel, independent of each other. `score(x)` returns
(B, ...), `log_density(x)` returns (B,), up to a constant. A method is a generator and yields a Move after each
iteration. It draws from `generator`, a CPU torch.Generator, and raises ValueError for step sizes or counts that are not
positive:

    for move in langevin(score, x, step_size=0.01, steps=1000, generator=generator):
        ...

`step_size` of the Langevin methods is h, the variance of the noise that one step adds. Some papers and Diffusers use
h / 2 as the step size; then the noise has the factor sqrt(2 step_size).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sdlearn.config import check_count
from sdlearn.diffusion.samplers import draw_noise
from sdlearn.diffusion.schedule import Schedule

Score = Callable[[Tensor], Tensor]
LogDensity = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Move:
    """One iteration: its index i, x (B, ...) after it, and which of the chains took their step, (B,), bool."""

    i: int
    x: Tensor
    accepted: Tensor


class Point(NamedTuple):
    """Where the chains are, x (B, ...), with what is known there: log density (B,) and score (B, ...)."""

    x: Tensor
    log_density: Tensor
    score: Tensor


def to_score(prediction: Tensor, x: Tensor, t: int | Tensor, schedule: Schedule) -> Tensor:
    """The score of the noised data at x = x_t that the network's prediction means, (B, ...).

    It points against the noise. schedule.rates(t, x) gives the signal rate and the noise rate.
    Dhariwal & Nichol 2021 (arXiv 2105.05233), equation 11; the reason is Vincent 2011, section 4.2.
    """
    epsilon = schedule.to_epsilon(prediction, x, t)
    _, noise_rate = schedule.rates(t, x)
    return -epsilon / noise_rate


def score_of(log_density: LogDensity) -> Score:
    """The score of a density, by autograd. The log density of one chain must not depend on the others."""

    def score(x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(log_density(x).sum(), x)[0]

    return score


def langevin_step(x: Tensor, score: Tensor, step_size: float, generator: torch.Generator | None) -> Tensor:
    """One step of Langevin dynamics: along the arrow of the score, and a push at random.

    x and the score at x: (B, ...). The arrow is multiplied by half of step_size. The push is
    standard normal noise, scaled so that its variance is step_size. Song & Ermon 2019
    (arXiv 1907.05600), equation 4.
    """
    noise = draw_noise(x.shape, generator).to(x)
    drift = step_size / 2 * score
    return x + drift + math.sqrt(step_size) * noise


def langevin(
    score: Score, x: Tensor, step_size: float, steps: int, generator: torch.Generator | None = None
) -> Iterator[Move]:
    """Unadjusted Langevin dynamics: Song & Ermon 2019 (arXiv 1907.05600), equation 4. One score per step.

    Every step is accepted, so the chains end close to the density, not exactly on it: the error grows with the step
    size. A normal distribution with variance s² is sampled with variance s² / (1 - step_size / 4s²).
    """
    _check(steps=steps, step_size=step_size)
    for i in range(steps):
        x = langevin_step(x, score(x), step_size, generator)
        yield Move(i, x, _all(x))


def annealed_langevin(
    score: Callable[[Tensor, float], Tensor],
    x: Tensor,
    sigmas: Sequence[float],
    step_size: float,
    steps: int,
    generator: torch.Generator | None = None,
    step: Callable[..., Tensor] = langevin_step,
) -> Iterator[Move]:
    """Annealed Langevin dynamics: algorithm 1 of Song & Ermon 2019 (arXiv 1907.05600).

    Langevin dynamics for the density with much noise, then with less and less. score(x, sigma) is the score of the
    density of x_0 + sigma · noise. sigmas: decreasing; each gets `steps` steps of step_size · sigma² / (last sigma)²,
    so step_size is the last one's. One score per step. Raises ValueError unless sigmas are positive and decreasing.
    step(x, score, step_size, generator) is one step of Langevin dynamics.
    """
    _check(steps=steps, step_size=step_size)
    _check_levels(sigmas)
    for level, sigma in enumerate(sigmas):
        size = step_size * sigma**2 / sigmas[-1] ** 2
        for i in range(steps):
            x = step(x, score(x, sigma), size, generator)
            yield Move(level * steps + i, x, _all(x))


def random_walk_metropolis(
    log_density: LogDensity, x: Tensor, step_size: float, steps: int, generator: torch.Generator | None = None
) -> Iterator[Move]:
    """Metropolis et al. 1953: propose a step in a random direction, and accept it with probability p(new) / p(old).

    Needs no score. step_size is the variance of the proposal. One log density per step, and one at the start.
    """
    _check(steps=steps, step_size=step_size)
    here = log_density(x)
    for i in range(steps):
        proposal = x + math.sqrt(step_size) * draw_noise(x.shape, generator).to(x)
        there = log_density(proposal)
        accepted = _accept(there - here, generator)
        x, here = _choose(accepted, proposal, x), _choose(accepted, there, here)
        yield Move(i, x, accepted)


def mala_log_acceptance(start: Point, end: Point, step_size: float) -> Tensor:
    """Log of the probability with which MALA accepts to go from start to end, (B,), at most 0.

    The probability is p(end) q(start given end) / (p(start) q(end given start)), or 1 where that
    is more. q is the density of the proposal: normal, around the start plus step_size / 2 · its
    score, with variance step_size. Its constant factor cancels. start and end have x (B, ...),
    log_density (B,) and score (B, ...). Roberts & Tweedie 1996.
    """
    way_there = end.x - (start.x + step_size / 2 * start.score)
    way_back = start.x - (end.x + step_size / 2 * end.score)
    log_q_there = -(way_there**2).flatten(1).sum(1) / (2 * step_size)
    log_q_back = -(way_back**2).flatten(1).sum(1) / (2 * step_size)
    log_ratio = end.log_density - start.log_density + log_q_back - log_q_there
    return log_ratio.clamp(max=0)


def mala(
    log_density: LogDensity,
    score: Score,
    x: Tensor,
    step_size: float,
    steps: int,
    generator: torch.Generator | None = None,
) -> Iterator[Move]:
    """Metropolis-adjusted Langevin algorithm: Roberts & Tweedie 1996.

    Proposes a step of Langevin dynamics, and accepts it with the probability that preserves the density, for any step
    size. One score and one log density per step, and one of each at the start.
    """
    _check(steps=steps, step_size=step_size)
    start = _point(log_density, score, x)
    for i in range(steps):
        proposal = langevin_step(start.x, start.score, step_size, generator)
        end = _point(log_density, score, proposal)
        accepted = _accept(mala_log_acceptance(start, end, step_size), generator)
        start = Point(*(_choose(accepted, new, old) for new, old in zip(end, start, strict=True)))
        yield Move(i, start.x, accepted)


def leapfrog(score: Score, x: Tensor, momentum: Tensor, step_size: float, leapfrog_steps: int) -> tuple[Tensor, Tensor]:
    """Follow a ball that rolls over the landscape -log p, for the time step_size · leapfrog_steps.

    Half a step of the momentum, then full steps of x and momentum in turn, and half a step of the
    momentum at the end. The score is the force. x and momentum: (B, ...), both at the start;
    returns both at the end. Neal 2011 (arXiv 1206.1901), equations 5.18 to 5.20 of the handbook,
    with mass 1.
    """
    momentum = momentum + step_size / 2 * score(x)
    for _ in range(leapfrog_steps - 1):
        x = x + step_size * momentum
        momentum = momentum + step_size * score(x)
    x = x + step_size * momentum
    momentum = momentum + step_size / 2 * score(x)
    return x, momentum


def energy(log_density: LogDensity, x: Tensor, momentum: Tensor) -> Tensor:
    """The energy of the ball, (B,): height -log p(x) plus kinetic energy |momentum|² / 2."""
    return (momentum**2).flatten(1).sum(1) / 2 - log_density(x)


def hmc(
    log_density: LogDensity,
    score: Score,
    x: Tensor,
    step_size: float,
    leapfrog_steps: int,
    steps: int,
    generator: torch.Generator | None = None,
) -> Iterator[Move]:
    """Hamiltonian Monte Carlo: Neal 2011 (arXiv 1206.1901), section 5.3.2 of the handbook, with mass 1.

    Kicks the ball with a random momentum, follows it by `leapfrog`, and accepts its new position with the probability
    exp(energy before - energy after). leapfrog_steps + 1 scores and two log densities per step.
    """
    _check(steps=steps, step_size=step_size, leapfrog_steps=leapfrog_steps)
    for i in range(steps):
        momentum = draw_noise(x.shape, generator).to(x)
        proposal, momentum_there = leapfrog(score, x, momentum, step_size, leapfrog_steps)
        lost = energy(log_density, x, momentum) - energy(log_density, proposal, momentum_there)
        accepted = _accept(lost, generator)
        x = _choose(accepted, proposal, x)
        yield Move(i, x, accepted)


def _point(log_density: LogDensity, score: Score, x: Tensor) -> Point:
    return Point(x, log_density(x), score(x))


def _accept(log_acceptance: Tensor, generator: torch.Generator) -> Tensor:
    """True with probability exp(log_acceptance), (B,). A proposal whose density is NaN is refused."""
    if log_acceptance.ndim != 1:
        raise ValueError(f"log_density returns the shape {tuple(log_acceptance.shape)}, but it must return (B,)")
    uniform = torch.rand(log_acceptance.shape, generator=generator).to(log_acceptance)
    return uniform.log() < log_acceptance


def _choose(accepted: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """The new rows where accepted, else the old ones."""
    return torch.where(accepted.view(-1, *[1] * (new.ndim - 1)), new, old)  # (B,) -> (B, 1, ..., 1)


def _all(x: Tensor) -> Tensor:
    return torch.ones(len(x), dtype=torch.bool, device=x.device)


def _check_levels(sigmas: Sequence[float]) -> None:
    sigmas = [float(sigma) for sigma in sigmas]
    if not sigmas or sigmas != sorted(set(sigmas), reverse=True) or not 0 < sigmas[-1] <= sigmas[0] < math.inf:
        raise ValueError(f"sigmas = {sigmas}, but they must be positive and fall")


def _check(step_size: float, **counts: int) -> None:
    if not 0 < step_size < math.inf:
        raise ValueError(f"step_size = {step_size}, but it must be a positive number")
    for name, count in counts.items():
        check_count(name, count)
