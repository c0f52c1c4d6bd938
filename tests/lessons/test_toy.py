"""Points in the plane: what is called exact is compared with autograd, with integration and with many samples."""

import math

import pytest
import torch

from sdlearn.diffusion.schedule import PREDICTION_TYPES, Schedule, ScheduleConfig
from sdlearn.lessons.check import assert_parity
from sdlearn.lessons.toy import (
    GaussianMixture,
    energy_distance,
    exact_denoiser,
    gaussian_grid,
    spiral,
    two_moons,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def mixture() -> GaussianMixture:
    means = torch.tensor([[-1.0, 0.5], [1.2, -0.3], [0.0, 1.0]])
    stds = torch.tensor([[0.3, 0.6], [0.5, 0.2], [0.4, 0.4]])
    return GaussianMixture(means, stds, torch.tensor([0.5, 0.2, 0.3]))


@pytest.mark.parametrize("draw", [two_moons, spiral, gaussian_grid().sample])
def test_points_are_pure_functions_of_the_generator_with_variance_near_one(draw):
    points = draw(20_000, generator(3))
    assert points.shape == (20_000, 2) and points.dtype == torch.float32
    assert torch.equal(points, draw(20_000, generator(3))) and not torch.equal(points, draw(20_000, generator(4)))
    assert points.mean(0).abs().max() < 0.03
    assert 0.9 < points.var(0).mean().item() ** 0.5 < 1.15


def test_the_density_is_that_of_torch_and_the_samples_follow_it(mixture):
    parts = torch.distributions.Independent(torch.distributions.Normal(mixture.means, mixture.stds), 1)
    reference = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(mixture.weights), parts)
    points = mixture.sample(40_000, generator())
    log_density = mixture.log_density(points)
    assert_parity("log density", log_density, reference.log_prob(points), 1e-5, against="MixtureSameFamily")
    mean, variance = reference.mean, reference.variance
    assert_parity("mean", points.mean(0), mean, 4 * variance.max().sqrt().item() / 200)
    assert_parity("variance", points.var(0), variance, 0.03)
    assert_parity("entropy", -log_density.mean(), -reference.log_prob(reference.sample((40_000,))).mean(), 0.03)


def test_the_score_is_the_gradient_of_the_log_density(mixture):
    x = 2 * torch.randn(50, 2, generator=generator(), dtype=torch.float64)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_density(x).sum(), x)
    assert_parity("score", mixture.score(x), gradient, 1e-10)


@pytest.mark.parametrize("signal_rate", [0.999, 0.7, 0.07])
def test_the_denoiser_is_the_mean_of_x0_by_integration_and_agrees_with_the_score(mixture, signal_rate):
    noise_rate = math.sqrt(1 - signal_rate**2)
    x = torch.randn(5, 2, generator=generator(), dtype=torch.float64)
    line = torch.linspace(-5, 5, 801, dtype=torch.float64)
    x0 = torch.cartesian_prod(line, line)
    errors = (x[:, None] - signal_rate * x0) / noise_rate  # (5, N, 2)
    weights = (mixture.log_density(x0) - errors.square().sum(2) / 2).softmax(1)  # Bayes' rule on a fine grid
    assert_parity("E[x0 | x]", mixture.x0(x, signal_rate, noise_rate), weights @ x0, 1e-6)
    tweedie = (x + noise_rate**2 * mixture.noised(signal_rate, noise_rate).score(x)) / signal_rate
    assert_parity("Tweedie", mixture.x0(x, signal_rate, noise_rate), tweedie, 1e-9)


def test_noised_is_the_distribution_of_noised_points(mixture):
    points = 0.6 * mixture.sample(4000, generator()) + 0.8 * torch.randn(4000, 2, generator=generator(1))
    noised = mixture.noised(0.6, 0.8)
    assert energy_distance(points, noised.sample(4000, generator(2))) < 0.005
    assert energy_distance(points, mixture.sample(4000, generator(2))) > 0.05


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_the_exact_denoiser_predicts_what_the_schedule_asks_for(mixture, prediction_type):
    schedule = Schedule(ScheduleConfig(prediction_type=prediction_type))
    denoise, x = exact_denoiser(mixture, schedule), torch.randn(7, 2, generator=generator())
    for t in (0, 1, 500, 999):
        x0 = mixture.x0(x, *schedule.rates(t, x))
        assert denoise(x, t).dtype == x.dtype
        assert_parity("x0", schedule.to_x0(denoise(x, t), x, t), x0, 1e-4)
        assert_parity("float t", denoise(x, float(t)), denoise(x, t), 1e-6)
    between = denoise(x, 500.5)
    assert_parity("between", between, (denoise(x, 500) + denoise(x, 501)) / 2, 1e-3)
    assert not torch.equal(between, denoise(x, 500))


def test_energy_distance_in_one_dimension_is_the_integral_over_the_difference_of_the_distributions():
    a, b = torch.randn(3000, 1, generator=generator()), 0.7 + torch.randn(3000, 1, generator=generator(1))
    line = torch.linspace(-6, 6, 4001)
    below = [(x <= line).float().mean(0) for x in (a, b)]
    integral = 2 * ((below[0] - below[1]) ** 2).sum() * (line[1] - line[0])
    assert_parity("energy distance", energy_distance(a, b), integral, 0.002)
    assert abs(energy_distance(a, torch.randn(3000, 1, generator=generator(2)))) < 0.002


def test_bad_mixtures_are_refused():
    means, stds = torch.zeros(2, 2), torch.ones(2, 2)
    for bad in ((means, stds[:, :1], torch.ones(2) / 2), (means, stds, torch.ones(3) / 3), (means[0], stds, means[0])):
        with pytest.raises(ValueError, match=r"must be \(K, D\)"):
            GaussianMixture(*bad)
    for bad in ((means, 0 * stds, torch.ones(2) / 2), (means, stds, torch.ones(2)), (means, stds, -means[0])):
        with pytest.raises(ValueError, match="positive"):
            GaussianMixture(*bad)
