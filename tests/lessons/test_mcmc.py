"""Markov chains against what is known of them: detailed balance, closed forms for Gaussians, torch.distributions."""

import itertools
import math
from collections.abc import Iterator

import diffusers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Independent, Normal

from sdlearn.diffusion.samplers import draw_noise
from sdlearn.diffusion.schedule import PREDICTION_TYPES, Schedule, ScheduleConfig
from sdlearn.lessons import mcmc
from sdlearn.lessons.check import assert_parity
from sdlearn.lessons.mcmc import Point
from sdlearn.lessons.toy import GaussianMixture

MEAN = torch.tensor([1.0, -2.0])
STD = torch.tensor([0.5, 1.5])
GAUSSIAN = Independent(Normal(MEAN, STD), 1)
MIXTURE = GaussianMixture(
    torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.0, -1.0]]), torch.full((3, 2), 0.4), torch.tensor([0.2, 0.5, 0.3])
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian_score(x: Tensor) -> Tensor:
    return (MEAN - x) / STD**2


def last(moves: Iterator[mcmc.Move]) -> mcmc.Move:
    *_, move = moves
    return move


METHODS = {
    "langevin": lambda x, h, steps, g: mcmc.langevin(MIXTURE.score, x, h, steps, g),
    "annealed": lambda x, h, steps, g: mcmc.annealed_langevin(
        lambda x, sigma: MIXTURE.noised(1, sigma).score(x), x, [2.0, 0.5, 0.1], h, steps, g
    ),
    "metropolis": lambda x, h, steps, g: mcmc.random_walk_metropolis(MIXTURE.log_density, x, h, steps, g),
    "mala": lambda x, h, steps, g: mcmc.mala(MIXTURE.log_density, MIXTURE.score, x, h, steps, g),
    "hmc": lambda x, h, steps, g: mcmc.hmc(MIXTURE.log_density, MIXTURE.score, x, h, 3, steps, g),
}
EXACT = {
    "metropolis": lambda x, g: mcmc.random_walk_metropolis(GAUSSIAN.log_prob, x, 1.0, 20, g),
    "mala": lambda x, g: mcmc.mala(GAUSSIAN.log_prob, gaussian_score, x, 0.4, 20, g),
    "hmc": lambda x, g: mcmc.hmc(GAUSSIAN.log_prob, gaussian_score, x, 0.4, 2, 20, g),
}


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_same_chain(name: str) -> None:
    x = draw_noise((7, 2), generator(1))
    one, two, other = (list(METHODS[name](x, 0.1, 5, generator(seed))) for seed in (0, 0, 1))
    assert [move.i for move in one] == list(range(15 if name == "annealed" else 5))
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.x, b.x) and torch.equal(a.accepted, b.accepted)
        assert a.x.shape == (7, 2) and a.accepted.shape == (7,) and a.accepted.dtype == torch.bool
    assert not torch.equal(one[-1].x, other[-1].x)


@pytest.mark.parametrize("name", METHODS)
def test_a_chain_moves_exactly_when_it_accepts(name: str) -> None:
    x = draw_noise((500, 2), generator(1))
    seen = 0
    for move in METHODS[name](x, 2.0 if name != "annealed" else 0.01, 5, generator()):
        assert torch.equal((move.x != x).any(1), move.accepted)
        seen += int((~move.accepted).sum())
        x = move.x
    assert (seen == 0) == (name in ("langevin", "annealed"))


@pytest.mark.parametrize("name", EXACT)
def test_the_density_stays_as_it_is(name: str) -> None:
    """Chains that start on the density stay on it: mean, variance, fourth moment, within 4.5 standard errors."""
    count = 40_000
    x = MEAN + STD * draw_noise((count, 2), generator(1))
    z = (last(EXACT[name](x, generator())).x - MEAN) / STD
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (4, 3, 96)):
        assert ((z**power).mean(0) - expected).abs().max() < 4.5 * math.sqrt(variance / count)


@pytest.mark.parametrize("name", EXACT)
def test_the_density_is_found_from_far_away(name: str) -> None:
    method = EXACT[name]
    x = torch.full((20_000, 2), 3.0)
    for seed in range(8):  # 160 steps
        x = last(method(x, generator(seed))).x
    z = (x - MEAN) / STD
    assert z.mean(0).abs().max() < 4.5 / math.sqrt(len(z))
    assert (z.var(0) - 1).abs().max() < 4.5 * math.sqrt(2 / len(z))


@pytest.mark.parametrize("name", ["metropolis", "mala", "hmc"])
def test_detailed_balance(name: str) -> None:
    """On the density, as many chains go from the left half to the right as back; and the shares of modes are kept."""
    x = MIXTURE.sample(100_000, generator(1))
    end = last(METHODS[name](x, 0.3, 1, generator())).x
    for axis, border in ((0, 0.0), (1, -0.4), (0, 0.8)):
        there = ((x[:, axis] < border) & (end[:, axis] >= border)).sum().item()
        back = ((x[:, axis] >= border) & (end[:, axis] < border)).sum().item()
        assert there > 1000
        assert abs(there - back) < 4.5 * math.sqrt(there + back)


def test_plain_metropolis_ratio_would_fail_for_mala() -> None:
    """Without the proposal's densities the balance is visibly broken: the test above can see it."""
    count, h = 40_000, 0.4
    x = MEAN + STD * draw_noise((count, 2), generator(1))
    g = generator()
    for _ in range(20):
        proposal = mcmc.langevin_step(x, gaussian_score(x), h, g)
        log_ratio = GAUSSIAN.log_prob(proposal) - GAUSSIAN.log_prob(x)
        x = torch.where((torch.rand(count, generator=g).log() < log_ratio)[:, None], proposal, x)
    assert (((x - MEAN) / STD).var(0) - 1).abs().max() > 10 * math.sqrt(2 / count)


@settings(deadline=None, max_examples=25)
@given(st.floats(0.01, 1.5), st.integers(1, 4), st.integers(0, 1000))
def test_mala_acceptance_is_the_ratio_of_joint_densities(h: float, d: int, seed: int) -> None:
    """p(end) q(start given end) / (p(start) q(end given start)), with torch.distributions."""
    g = generator(seed)
    mean, spread, start, end = torch.randn(4, 9, d, generator=g, dtype=torch.float64)
    target = Independent(Normal(mean, 0.5 + spread.abs()), 1)  # nine chains, each with a density of its own
    score = mcmc.score_of(target.log_prob)

    def joint(a: Tensor, b: Tensor) -> Tensor:
        return target.log_prob(a) + Independent(Normal(a + h / 2 * score(a), math.sqrt(h)), 1).log_prob(b)

    points = [Point(x, target.log_prob(x), score(x)) for x in (start, end)]
    ours = mcmc.mala_log_acceptance(*points, h)
    back = mcmc.mala_log_acceptance(*points[::-1], h)
    assert_parity("MALA", ours, (joint(end, start) - joint(start, end)).clamp(max=0), 1e-10)
    assert (ours <= 0).all() and ((ours == 0) | (back == 0)).all()  # one of the two ways is always taken


def test_score_of_is_the_closed_form() -> None:
    x = torch.randn(11, 2, generator=generator())
    assert_parity("score_of", mcmc.score_of(MIXTURE.log_density)(x), MIXTURE.score(x), 1e-5)
    assert_parity("score_of", mcmc.score_of(GAUSSIAN.log_prob)(x), gaussian_score(x), 1e-5)
    with torch.no_grad():
        assert not mcmc.score_of(GAUSSIAN.log_prob)(x).requires_grad


@pytest.mark.parametrize("h", [0.1, 1.0, 3.0])
def test_langevin_bias_is_the_closed_form(h: float) -> None:
    """x ← (1 − h / 2s²) x + √h z keeps the variance V when V = (1 − h / 2s²)² V + h: V = s² / (1 − h / 4s²)."""
    s, count = 1.2, 200_000
    x = s * draw_noise((count, 1), generator(1))
    var = last(mcmc.langevin(lambda x: -x / s**2, x, h, 100, generator())).x.var().item()
    expected = s**2 / (1 - h / (4 * s**2))
    assert abs(var / expected - 1) < 4.5 * math.sqrt(2 / count)
    assert expected / s**2 - 1 > 4.5 * math.sqrt(2 / count)  # so that no bias would be seen


def test_langevin_is_deterministic_given_the_noise() -> None:
    x = torch.randn(3, 4, 5, generator=generator(2))
    ours = mcmc.langevin_step(x, -x, 0.25, generator())
    assert_parity("langevin_step", ours, x - x / 8 + 0.5 * draw_noise(x.shape, generator()), 1e-6)


@pytest.mark.parametrize("shape", [(3, 2), (2, 4, 5, 7)])
def test_langevin_step_is_the_corrector_of_diffusers(shape: tuple[int, ...]) -> None:
    scheduler = diffusers.ScoreSdeVeScheduler(snr=0.16)
    scheduler.set_timesteps(10)
    x, score = torch.randn(2, *shape, generator=generator(3))
    noise = draw_noise(shape, generator())
    lengths = [value.flatten(1).norm(dim=1).mean() for value in (noise, score)]
    step_size = 4 * (0.16 * lengths[0] / lengths[1]).item() ** 2  # theirs is half of ours
    theirs = scheduler.step_correct(score, x, generator=generator()).prev_sample
    ours = mcmc.langevin_step(x, score, step_size, generator())
    assert_parity("Langevin step", ours, theirs, 1e-5, against="ScoreSdeVeScheduler")


def test_annealed_langevin_is_algorithm_1() -> None:
    """Against the definition, spelled out: alpha_i = step_size · sigma_i² / sigma_L², so α / σ² is the same for all."""
    x, sigmas, seen = torch.randn(3, 2, generator=generator(4)), [3.0, 1.0, 0.2], []

    def score(x: Tensor, sigma: float) -> Tensor:
        seen.append(sigma)
        return -x / (1 + sigma**2)

    ours = last(mcmc.annealed_langevin(score, x, sigmas, 0.02, 4, generator())).x
    assert seen == [3.0] * 4 + [1.0] * 4 + [0.2] * 4
    g = generator()
    for sigma, _ in itertools.product(sigmas, range(4)):
        alpha = 0.02 * (sigma / 0.2) ** 2
        x = x + alpha / 2 * (-x / (1 + sigma**2)) + math.sqrt(alpha) * draw_noise(x.shape, g)
    assert_parity("annealed Langevin", ours, x, 1e-5)


def test_leapfrog_is_reversible() -> None:
    x, momentum = torch.randn(2, 9, 2, generator=generator(), dtype=torch.float64)
    end, momentum_there = mcmc.leapfrog(MIXTURE.score, x, momentum, 0.1, 13)
    back, momentum_back = mcmc.leapfrog(MIXTURE.score, end, -momentum_there, 0.1, 13)
    assert check_far(x, end)
    assert_parity("x", back, x, 1e-10)
    assert_parity("momentum", -momentum_back, momentum, 1e-10)


def check_far(a: Tensor, b: Tensor) -> bool:
    return (a - b).norm(dim=1).mean().item() > 0.3


def test_leapfrog_energy_error_falls_with_the_square_of_the_step() -> None:
    x, momentum = torch.randn(2, 50, 2, generator=generator(), dtype=torch.float64)
    before = mcmc.energy(MIXTURE.log_density, x, momentum)
    errors = []
    for steps in (20, 40, 80):
        end = mcmc.leapfrog(MIXTURE.score, x, momentum, 1.3 / steps, steps)
        errors.append((mcmc.energy(MIXTURE.log_density, *end) - before).abs().mean().item())
    assert errors[0] < 0.1
    for coarse, fine in itertools.pairwise(errors):
        assert 3.6 < coarse / fine < 4.4


def test_leapfrog_preserves_volume() -> None:
    """The determinant of its Jacobian is 1: HMC's acceptance needs no further factor."""
    state = torch.randn(4, generator=generator(), dtype=torch.float64)

    def move(state: Tensor) -> Tensor:
        x, momentum = state[None, :2], state[None, 2:]
        return torch.cat(mcmc.leapfrog(MIXTURE.score, x, momentum, 0.3, 5), dim=1)[0]

    jacobian = torch.autograd.functional.jacobian(move, state)
    assert not torch.allclose(jacobian, torch.eye(4, dtype=torch.float64), atol=0.1)
    assert abs(torch.linalg.det(jacobian).item() - 1) < 1e-10


def test_leapfrog_of_one_step_is_a_langevin_step() -> None:
    """With step size √h and the momentum as noise (Neal 2011, section 5.5.2), and HMC accepts it as MALA does."""
    x, h = torch.randn(9, 2, generator=generator(1), dtype=torch.float64), 0.3
    momentum = draw_noise(x.shape, generator()).to(x)
    end, there = mcmc.leapfrog(MIXTURE.score, x, momentum, math.sqrt(h), 1)
    assert_parity("x", end, mcmc.langevin_step(x, MIXTURE.score(x), h, generator()), 1e-12)
    gained = mcmc.energy(MIXTURE.log_density, x, momentum) - mcmc.energy(MIXTURE.log_density, end, there)
    points = [Point(a, MIXTURE.log_density(a), MIXTURE.score(a)) for a in (x, end)]
    assert_parity("acceptance", mcmc.mala_log_acceptance(*points, h), gained.clamp(max=0), 1e-10)


@pytest.mark.parametrize("name", ["metropolis", "mala", "hmc"])
def test_small_steps_are_accepted_and_large_ones_refused(name: str) -> None:
    x = MIXTURE.sample(2000, generator(1))
    rates = [last(METHODS[name](x, h, 1, generator())).accepted.float().mean().item() for h in (1e-6, 0.3, 30.0)]
    assert rates[0] > 0.995 and rates[0] > rates[1] > rates[2] and rates[2] < 0.2


def test_a_density_that_is_not_a_number_is_refused() -> None:
    def log_density(x: Tensor) -> Tensor:
        return x[:, 0].log()  # NaN left of 0

    x = torch.full((200, 1), 0.01)
    for move in mcmc.random_walk_metropolis(log_density, x, 1.0, 5, generator()):
        assert (move.x > 0).all()
    assert not move.accepted.all()


def test_proposals_cost_what_the_docstrings_say() -> None:
    calls = {"score": 0, "log_density": 0}

    def score(x: Tensor) -> Tensor:
        calls["score"] += 1
        return MIXTURE.score(x)

    def log_density(x: Tensor) -> Tensor:
        calls["log_density"] += 1
        return MIXTURE.log_density(x)

    x = torch.zeros(2, 2)
    for moves, expected in (
        (mcmc.langevin(score, x, 0.1, 10, generator()), (10, 0)),
        (mcmc.annealed_langevin(lambda x, sigma: score(x), x, [2, 1], 0.1, 10, generator()), (20, 0)),
        (mcmc.random_walk_metropolis(log_density, x, 0.1, 10, generator()), (0, 11)),
        (mcmc.mala(log_density, score, x, 0.1, 10, generator()), (11, 11)),
        (mcmc.hmc(log_density, score, x, 0.1, 3, 10, generator()), (40, 20)),
    ):
        calls.update(score=0, log_density=0)
        last(moves)
        assert (calls["score"], calls["log_density"]) == expected


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("t", [0, 371, 999])
def test_to_score_of_the_exact_prediction_is_the_score(prediction_type: str, t: int) -> None:
    schedule = Schedule(ScheduleConfig(prediction_type=prediction_type))
    signal_rate, noise_rate = (rate.item() for rate in schedule.rates(t, torch.zeros(1)))
    noised = MIXTURE.noised(signal_rate, noise_rate)
    x = noised.sample(9, generator()).double()
    x0 = MIXTURE.x0(x, signal_rate, noise_rate)
    epsilon = (x - signal_rate * x0) / noise_rate
    prediction = {"epsilon": epsilon, "sample": x0, "v_prediction": signal_rate * epsilon - noise_rate * x0}
    ours = mcmc.to_score(prediction[prediction_type], x, t, schedule)
    assert_parity("to_score", ours, noised.score(x), 1e-4)
    each = mcmc.to_score(prediction[prediction_type], x, torch.full((9,), t), schedule)
    assert_parity("to_score", each, ours, 1e-6)


@pytest.mark.parametrize("h", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("name", METHODS)
def test_bad_step_sizes(name: str, h: float) -> None:
    with pytest.raises(ValueError, match="step_size"):
        next(METHODS[name](torch.zeros(1, 2), h, 1, generator()))


@pytest.mark.parametrize("steps", [0, -1, 1.5])
@pytest.mark.parametrize("name", METHODS)
def test_bad_counts(name: str, steps: int) -> None:
    with pytest.raises(ValueError, match="steps"):
        next(METHODS[name](torch.zeros(1, 2), 0.1, steps, generator()))


@pytest.mark.parametrize("name", METHODS)
def test_noise_needs_a_generator(name: str) -> None:
    with pytest.raises(ValueError, match="generator"):
        next(METHODS[name](torch.zeros(1, 2), 0.1, 1, None))


@pytest.mark.parametrize("sigmas", [[], [1.0, 0.0], [1.0, 2.0], [1.0, 1.0], [math.inf, 1.0], [math.nan], [-1.0]])
def test_bad_sigmas(sigmas: list[float]) -> None:
    with pytest.raises(ValueError, match="sigmas"):
        next(mcmc.annealed_langevin(lambda x, sigma: -x, torch.zeros(1, 2), sigmas, 0.1, 1, generator()))


def test_bad_leapfrog_steps_and_densities() -> None:
    with pytest.raises(ValueError, match="leapfrog_steps"):
        next(mcmc.hmc(MIXTURE.log_density, MIXTURE.score, torch.zeros(1, 2), 0.1, 0, 1, generator()))
    with pytest.raises(ValueError, match="log_density"):
        next(mcmc.random_walk_metropolis(lambda x: -(x**2), torch.zeros(3, 2), 0.1, 1, generator()))
