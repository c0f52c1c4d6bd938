import math

import pytest
import torch

from sdlearn.lessons.toy import gaussian_grid
from sdlearn.lessons.toy_gan import PointMLP, train_gan


def points(networks: list[PointMLP], count: int = 1000) -> torch.Tensor:
    with torch.no_grad():
        return networks[0](torch.randn(count, 2, generator=torch.Generator().manual_seed(5)))


def trained(seed: int, steps: int = 200) -> list[PointMLP]:
    torch.manual_seed(0)
    networks = [PointMLP(2), PointMLP(1, waves=True)]
    train_gan(*networks, gaussian_grid(side=1, std=0.5).sample, steps, seed=seed)
    return networks


def test_it_finds_one_gaussian() -> None:
    x = points(trained(0))
    assert x.mean(0).abs().max() < 0.4
    assert 0.2 < x.std() < 0.9


def test_training_is_a_function_of_the_seed() -> None:
    a, b, c = (points(trained(seed, 3)) for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize("waves", [False, True])
def test_shapes_and_gradients(waves: bool) -> None:
    network = PointMLP(1, dimensions=3, width=7, waves=waves)
    x = torch.randn(5, 3, requires_grad=True)
    y = network(x)
    assert y.shape == (5, 1)
    y.sum().backward()
    assert x.grad is not None and x.grad.abs().min() > 0


def test_waves_tell_near_points_apart() -> None:
    """Of one size at the start, the network with waves changes faster from place to place."""
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 201)[:, None]
    slopes = []
    for waves in (False, True):
        values = torch.stack([PointMLP(1, dimensions=1, waves=waves)(x)[:, 0] for _ in range(20)])
        slopes.append((values.diff(dim=1).abs().mean() / values.std()).item())
    assert slopes[1] > 1.5 * slopes[0] and math.isfinite(slopes[1])
