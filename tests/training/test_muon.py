"""Muon for networks with convolutions, against torch's for matrices."""

import copy

import pytest
import torch
from torch import Tensor, nn

from sdlearn.training.muon import MuonAdamW

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def network(layout: torch.memory_format) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 6, 1), nn.Flatten(), nn.Linear(6 * 4 * 3, 5)]
    return nn.Sequential(*layers).to(memory_format=layout)


def muon(model: nn.Module) -> MuonAdamW:
    return MuonAdamW(model.named_parameters(), 0.01, (0.9, 0.99), weight_decay=0.1)


def backward(model: nn.Module, step: int) -> None:
    x = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(step))
    model.zero_grad()
    model(x).square().mean().backward()


def rows(weight: Tensor, layout: torch.memory_format) -> Tensor:
    """A weight as the matrix that Muon sees, a copy."""
    if weight.ndim == 4 and layout == torch.channels_last:
        weight = weight.permute(0, 2, 3, 1)
    return weight.detach().flatten(1).clone()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_each_layer_moves_as_torch_moves_its_matrix(layout: torch.memory_format) -> None:
    model = network(layout)
    optimizer = muon(model)
    weights = [model[i].weight for i in (0, 2, 4)]
    matrices = [nn.Parameter(rows(weight, layout)) for weight in weights]
    reference = torch.optim.Muon(matrices, 0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        backward(model, step)
        for matrix, weight in zip(matrices, weights, strict=True):
            matrix.grad = rows(weight.grad, layout)
        reference.step()
        optimizer.step()
        for matrix, weight in zip(matrices, weights, strict=True):
            assert torch.equal(rows(weight, layout), matrix.detach())


def test_vectors_move_as_adamw_moves_them() -> None:
    model = network(torch.channels_last)
    other = copy.deepcopy(model)
    optimizer, reference = muon(model), torch.optim.AdamW(other.parameters(), 0.01, (0.9, 0.99), weight_decay=0.1)
    backward(model, 0)
    backward(other, 0)
    optimizer.step()
    reference.step()
    for name, value in model.named_parameters():
        same = torch.allclose(value, dict(other.named_parameters())[name], rtol=0, atol=1e-7)
        assert same == (value.ndim == 1), name


def test_the_first_and_the_last_layer_are_adamws() -> None:
    outer = {name: nn.Conv2d(4, 4, 1) for name in ("conv_in", "conv_out", "quant_conv", "post_quant_conv")}
    model = nn.ModuleDict(outer | {"middle": nn.Linear(4, 5)})
    optimizer = muon(model)
    assert [matrix.shape for matrix in optimizer.matrices] == [(5, 4)]
    assert len(optimizer.adamw.param_groups[0]["params"]) == 2 * 4 + 1


def test_it_goes_on_with_the_same_bits_from_its_state() -> None:
    model = network(torch.channels_last)
    optimizer = muon(model)
    for step in range(2):
        backward(model, step)
        optimizer.step()
    other = copy.deepcopy(model)
    resumed = muon(other)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for one, its in ((model, optimizer), (other, resumed)):
        backward(one, 2)
        its.step()
    for (name, mine), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs), name


def test_the_learning_rate_is_that_of_its_one_group() -> None:
    model = network(torch.channels_last)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = muon(model)
    optimizer.param_groups[0]["lr"] = 0.0
    backward(model, 0)
    optimizer.step()
    assert all(torch.equal(mine, old) for mine, old in zip(model.parameters(), before, strict=True))
