import pytest
import torch

from sdlearn.lessons.check import assert_parity, randomize_
from sdlearn.lessons.mlp import DenoisingMLP


@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_points_are_treated_alone_each_at_its_own_time(dimensions):
    network = randomize_(DenoisingMLP(dimensions, width=20, layers=2))
    x, t = torch.randn(3, dimensions, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 17, 999])
    together = network(x, t)
    assert together.shape == x.shape
    for i in range(3):
        assert_parity("alone", network(x[i : i + 1], int(t[i])), together[i : i + 1], 1e-5)
    assert (network(x, 17)[0] - together[0]).abs().max() > 1e-3


def test_the_first_prediction_is_zero_and_every_parameter_learns():
    network = DenoisingMLP(width=12)
    assert (network(torch.ones(2, 2), 5) == 0).all()
    randomize_(network)(torch.ones(2, 2), torch.tensor([3, 900])).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())
