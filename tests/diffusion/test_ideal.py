"""The ideal denoiser against the mean that follows from the score of a mixture of Gaussians, one for each example."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from sdlearn.diffusion.ideal import ideal_denoiser
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.lessons.check import assert_parity

SCHEDULE = Schedule(ScheduleConfig(), torch.float64)
ZERO_SNR = Schedule(ScheduleConfig(rescale_betas_zero_snr=True, prediction_type="v_prediction"), torch.float64)


def by_tweedie(x: Tensor, t: int, examples: Tensor) -> Tensor:
    """x_0 = (x + n² · score) / s (Efron 2011), the score by autograd."""
    s, n = SCHEDULE.rates(t, x)
    known = examples.flatten(1)
    parts = Independent(Normal(s * known, n), 1)
    density = MixtureSameFamily(Categorical(torch.ones(len(known), dtype=x.dtype)), parts)
    flat = x.flatten(1)
    flat = flat if flat.requires_grad else flat.requires_grad_()
    (score,) = torch.autograd.grad(density.log_prob(flat).sum(), flat, create_graph=True)
    return ((flat + n**2 * score) / s).view_as(x)


@pytest.mark.parametrize("t", [0, 30, 300, 700, 999])
@pytest.mark.parametrize(("shape", "count"), [((2, 3, 5), 4), ((1, 4, 3, 2), 9), ((5, 2), 1)])
def test_it_is_the_mean_that_the_score_tells(shape: tuple[int, ...], count: int, t: int) -> None:
    """Forward and backward: by the examples' noisy density, in torch.distributions, and Tweedie's formula."""
    generator = torch.Generator().manual_seed(t)
    examples = torch.randn(count, *shape[1:], generator=generator, dtype=torch.float64)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    x = SCHEDULE.add_noise(examples[torch.arange(shape[0]) % count], noise, t).requires_grad_()
    ours, theirs = ideal_denoiser(x, t, examples, SCHEDULE), by_tweedie(x, t, examples)
    assert_parity("ideal denoiser", ours, theirs, 1e-9, against="MixtureSameFamily (PyTorch)")
    up = torch.randn(shape, generator=generator, dtype=torch.float64)
    gradients = [torch.autograd.grad((side * up).sum(), x)[0] for side in (ours, theirs)]
    assert_parity("ideal denoiser, backward", *gradients, 1e-9)


def test_a_t_for_each() -> None:
    x, examples = torch.randn(3, 2, 4).double(), torch.randn(5, 2, 4).double()
    t = torch.tensor([999, 3, 400])
    together = ideal_denoiser(x, t, examples, SCHEDULE)
    alone = torch.cat([ideal_denoiser(x[i : i + 1], t[i].item(), examples, SCHEDULE) for i in range(3)])
    assert_parity("a t for each", together, alone, 1e-12)


def test_its_ends() -> None:
    """Without noise it is the example itself, with nothing but noise the mean of all."""
    generator = torch.Generator().manual_seed(0)
    examples = torch.randn(50, 4, 16, 16, generator=generator)
    noise = torch.randn(50, 4, 16, 16, generator=generator)
    for t in (0, 100, 300):  # 1,024 numbers: in float32 each exponential alone would be 0
        assert torch.allclose(ideal_denoiser(SCHEDULE.add_noise(examples, noise, t), t, examples, SCHEDULE), examples)
    mean = ideal_denoiser(noise, 999, examples, ZERO_SNR)
    assert torch.allclose(mean, examples.mean(0).expand_as(mean), atol=1e-6)
