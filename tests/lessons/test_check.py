"""The checks themselves: what must pass passes, what must fail fails."""

import math

import pytest
import torch
from torch import Tensor, nn

from sdlearn.lessons import check
from sdlearn.lessons.check import (
    Measurement,
    assert_gradients,
    assert_parity,
    max_difference,
    measurements_table,
    randomize_,
    report_parity,
)


class Net(nn.Module):
    """Every kind of parameter: matrix, bias, norm, convolution, a number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.GroupNorm(2, 8)
        self.linear = nn.Linear(8, 50)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.linear(self.norm(self.conv(x)).mean(dim=(2, 3)))


def with_gradients(change: float = 0.0) -> Net:
    net = randomize_(Net())
    x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    (net(x) ** 2).mean().backward()
    net.linear.weight.grad[0, 0] += change * net.linear.weight.grad.abs().max()
    return net


def test_randomize() -> None:
    net = Net()
    before = {name: parameter.clone() for name, parameter in net.named_parameters()}
    state = torch.get_rng_state()
    assert randomize_(net, seed=1, std=0.1) is net
    assert torch.equal(state, torch.get_rng_state())  # takes nothing from the global generator
    for name, parameter in net.named_parameters():
        assert (parameter != before[name]).all(), name
        assert parameter.requires_grad and parameter.grad is None
    again, other, wide = randomize_(Net(), 1), randomize_(Net(), 2), randomize_(Net(), 1, std=0.5)
    assert torch.equal(net.conv.weight, again.conv.weight) and not torch.equal(net.conv.weight, other.conv.weight)
    assert net.linear.weight.std().item() == pytest.approx(0.1, rel=0.2)
    assert wide.linear.weight.std().item() == pytest.approx(0.5, rel=0.2)
    big = randomize_(nn.LayerNorm(1000))
    assert big.weight.mean().item() == pytest.approx(1, abs=0.02)
    assert big.bias.mean().item() == pytest.approx(0, abs=0.02)
    assert big.weight.std().item() == pytest.approx(0.1, rel=0.1)


def test_max_difference() -> None:
    a = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert max_difference(a, a) == 0
    assert max_difference(a, a - torch.tensor([[0.0, 0.5], [0.25, -1.5]])) == 1.5
    assert max_difference(a.requires_grad_(), a) == 0
    assert max_difference(torch.zeros(0, 3), torch.zeros(0, 3)) == 0
    assert max_difference(torch.tensor([1e-8]), torch.tensor([0.0])) == pytest.approx(1e-8)


@pytest.mark.parametrize("shape", [(2,), (3, 1), (1, 3), ()])
def test_shapes_must_be_equal(shape: tuple[int, ...]) -> None:
    """No broadcasting: (3, 1) and (3,) would silently be compared as (3, 3)."""
    with pytest.raises(ValueError, match=r"shapes differ: ours \(3,\), reference"):
        max_difference(torch.zeros(3), torch.zeros(shape))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_must_be_finite(value: float) -> None:
    """inf − inf is NaN, and NaN compares as False: neither may pass for equal."""
    bad, good = torch.tensor([0.0, value]), torch.zeros(2)
    for ours, reference, named in ((bad, good, "ours"), (good, bad, "reference"), (bad, bad, "ours")):
        with pytest.raises(ValueError, match=f"{named} holds values that are not finite"):
            max_difference(ours, reference)
        with pytest.raises(ValueError, match="not finite"):
            assert_parity("any", ours, reference, math.inf)


def test_assert_parity() -> None:
    reference = torch.tensor([0.5, -1.0])
    assert assert_parity("equal", reference, reference, 0.0) == 0
    assert assert_parity("at the tolerance", reference + 0.25, reference, 0.25) == 0.25
    with pytest.raises(AssertionError, match=r"decoder: \|Δ\| = 0.25 is above 0.2"):
        assert_parity("decoder", reference + 0.25, reference, 0.2)
    with pytest.raises(AssertionError):
        assert_parity("tolerance that is no number", reference, reference, math.nan)


def test_the_difference_is_relative_to_large_references_only() -> None:
    large, small = torch.tensor([0.5, -100.0]), torch.tensor([1e-3])
    assert assert_parity("large", large + 0.25, large, 0.0025) == pytest.approx(0.0025)
    with pytest.raises(AssertionError):
        assert_parity("large", large + 0.26, large, 0.0025)
    assert assert_parity("small", small + 1e-4, small, 1.0) == pytest.approx(1e-4, rel=1e-3)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_the_tolerance_is_that_of_the_dtype(dtype: torch.dtype, tolerance: float) -> None:
    reference = torch.zeros(3, dtype=dtype)
    assert_parity("below", reference + 0.9 * tolerance, reference)
    with pytest.raises(AssertionError, match=f"above {tolerance:g}"):
        assert_parity("above", reference + 1.1 * tolerance, reference)


def test_a_lost_dtype_does_not_loosen_the_tolerance() -> None:
    double = torch.tensor([0.1], dtype=torch.float64)
    for pair in ((double.float(), double), (double, double.float())):
        with pytest.raises(AssertionError, match="above 1e-09"):
            assert_parity("rounded on one side", *pair)


def test_the_table_has_the_worst_in_each_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    measurements: list[Measurement] = []
    monkeypatch.setattr(check, "MEASUREMENTS", measurements)
    zero = torch.zeros(2)
    assert_parity("decoder", zero + 2e-6, zero, against="AutoencoderKL")
    assert_parity("decoder", zero + 3e-6, zero, against="AutoencoderKL")
    assert_parity("decoder", zero.double() + 4e-12, zero.double(), against="AutoencoderKL")
    assert_gradients(with_gradients(), with_gradients(), name="attention", against="Attention")
    assert_parity("by hand", zero, zero)  # without a reference's name it is no measurement
    assert measurements_table(measurements).splitlines()[2:] == [
        "| attention | Attention | 1 |  | 0.0e+00 |",
        "| decoder | AutoencoderKL | 3 | 4.0e-12 | 3.0e-06 |",
    ]


def test_assert_gradients() -> None:
    assert assert_gradients(with_gradients(), with_gradients(), 0.0) == 0
    assert assert_gradients(with_gradients(1e-5), with_gradients()) == pytest.approx(1e-5, rel=0.1)
    with pytest.raises(AssertionError, match=r"gradient of linear.weight: relative .* is above 0.0001"):
        assert_gradients(with_gradients(2e-4), with_gradients())


@pytest.mark.parametrize("name", [name for name, _ in Net().named_parameters()])
def test_every_gradient_is_compared(name: str) -> None:
    ours, reference = with_gradients(), with_gradients()
    parameter = ours.get_parameter(name)
    parameter.grad = 1.01 * parameter.grad
    if name != "conv.bias":  # in front of a norm with one mean per group its gradient may be small
        with pytest.raises(AssertionError, match=f"gradient of {name}"):
            assert_gradients(ours, reference)
    parameter.grad = None
    for pair in ((ours, reference), (reference, ours)):
        with pytest.raises(AssertionError, match=f"{name}: only one side has a gradient"):
            assert_gradients(*pair)


def test_gradients_that_are_not_finite_or_not_there() -> None:
    ours, reference = with_gradients(), with_gradients()
    ours.scale.grad = torch.tensor(math.nan)
    with pytest.raises(ValueError, match="not finite"):
        assert_gradients(ours, reference)
    with pytest.raises(AssertionError, match="no gradient"):
        assert_gradients(Net(), Net())  # nothing was compared
    with pytest.raises(ValueError):
        assert_gradients(with_gradients(), nn.Sequential(with_gradients(), with_gradients()))


def test_report_is_the_same_on_every_machine(capsys: pytest.CaptureFixture[str]) -> None:
    reference = torch.zeros(3)
    assert report_parity("decoder", "AutoencoderKL", reference + 2e-6, reference) == pytest.approx(2e-6)
    assert capsys.readouterr().out == "decoder  AutoencoderKL  |Δ| ≤ 1e-05  ok\n"
    with pytest.raises(AssertionError):
        report_parity("decoder", "AutoencoderKL", reference + 2e-5, reference)
    assert capsys.readouterr().out == ""


def test_an_equation_has_two_equal_sides(capsys: pytest.CaptureFixture[str]) -> None:
    check.equal("equation (4)", torch.tensor([1.0, 200.0]), torch.tensor([1.0, 200.02]), 1e-3)
    check.equal("equation (5)", 2, 2.0)
    check.equal("equation (6)", torch.tensor(0.5), 0.5 + 2**-20)
    check.equal("equation (7)", torch.tensor(2), 2.0)
    assert capsys.readouterr().out.splitlines() == [
        "equation (4): the two sides differ by 1.0e-04",  # of 200.02
        "equation (5): the two sides differ by 0",
        "equation (6): the two sides differ by 9.5e-07",
        "equation (7): the two sides differ by 0",
    ]
    with pytest.raises(AssertionError):
        check.equal("whole numbers", torch.tensor(2), 2.5)
    with pytest.raises(AssertionError, match=r"equation \(7\)"):
        check.equal("equation (7)", 1.0, 1.001, 1e-4)
    with pytest.raises(AssertionError):
        check.equal("equation (8)", 1.0, 1.0 + 1e-8)  # float64: 1e-9
    with pytest.raises(ValueError, match="shapes differ"):
        check.equal("equation (9)", torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="not finite"):
        check.equal("equation (10)", math.nan, math.nan)
    assert capsys.readouterr().out == ""


def test_the_table_of_comparisons_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    zeros = torch.zeros(3)
    check.parity_table([
        ("add_noise", "DDPMScheduler.add_noise", zeros + 1.2e-7, zeros, 1e-5),
        ("snr", "compute_snr", zeros, zeros, 0),
    ])  # fmt: skip
    assert capsys.readouterr().out.splitlines() == [
        "ours       theirs                   allowed  differ by",
        "add_noise  DDPMScheduler.add_noise  1e-05    1.2e-07",
        "snr        compute_snr              0        0",
    ]
    with pytest.raises(AssertionError, match="snr and compute_snr"):
        check.parity_table([("snr", "compute_snr", zeros + 1, zeros, 1e-5)])
    assert capsys.readouterr().out == ""
