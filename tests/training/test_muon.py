"""Muon for networks with convolutions, against torch's for matrices."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sdlearn.training.muon import MuonAdamW, orthogonalize

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def network(layout: torch.memory_format) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 6, 1), nn.Flatten(), nn.Linear(6 * 4 * 3, 5)]
    return nn.Sequential(*layers).to(memory_format=layout)


def muon(model: nn.Module) -> MuonAdamW:
    return MuonAdamW(model.named_parameters(), 0.01, (0.9, 0.99), weight_decay=0.1)


def backward(model: nn.Module, step: int) -> None:
    x = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(step)).to(next(model.parameters()).dtype)
    model.zero_grad()
    model(x).square().mean().backward()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_each_layer_moves_as_torch_moves_its_matrix(
    layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tensor, "bfloat16", Tensor.clone)  # torch's Muon rounds here; exact, it must be ours
    model = network(layout).double()
    optimizer = muon(model)
    weights = [model[i].weight for i in (0, 2, 4)]
    matrices = [nn.Parameter(weight.detach().flatten(1).clone()) for weight in weights]
    reference = torch.optim.Muon(matrices, 0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        backward(model, step)
        for matrix, weight in zip(matrices, weights, strict=True):
            matrix.grad = weight.grad.flatten(1).clone()
        reference.step()
        optimizer.step()
        for matrix, weight in zip(matrices, weights, strict=True):
            assert torch.allclose(weight.flatten(1), matrix, rtol=0, atol=1e-9)


@given(rows=st.integers(1, 12), columns=st.integers(1, 40), seed=st.integers(0, 1000))
def test_singular_values_come_near_one_and_the_vectors_stay(rows: int, columns: int, seed: int) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    after = (left.T @ orthogonalize(matrix) @ right.T).diagonal()
    assert torch.allclose(left @ after.diag() @ right, orthogonalize(matrix), rtol=0, atol=1e-9)
    clear = values > values.norm() / 50  # smaller ones need more iterations
    assert (after[clear] > 0.5).all() and (after < 1.25).all()


def test_a_gradient_of_zeros_moves_nothing() -> None:
    assert not orthogonalize(torch.zeros(3, 5)).any()


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
    assert [matrix.shape for matrix in optimizer.inside] == [(5, 4)]
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
