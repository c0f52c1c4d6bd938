"""The perceptual and the adversarial term: their values, where their gradients go, and training with them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small import AUTOENCODER, assert_same, load, make, read_log
from torch import Tensor

from sdlearn.evaluation.judge import Judge, JudgeConfig
from sdlearn.lessons.check import assert_parity, randomize_
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig
from sdlearn.models.discriminator import DiscriminatorConfig, PatchDiscriminator
from sdlearn.training import autoencoder as training
from sdlearn.training.autoencoder import AutoencoderLoss, AutoencoderTask
from sdlearn.training.first_stage import (
    PERCEPTUAL,
    PerceptualFeatures,
    adaptive_weight,
    adversarial_loss,
    discriminator_loss,
    fixed,
    perceptual_distance,
    scaling_factor,
)
from sdlearn.training.loop import train
from sdlearn.training.run import run

LOSS = {"kl_weight": 1e-3, "perceptual_weight": 0.5, "adversarial_weight": 0.7}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two_layers(x: Tensor) -> list[Tensor]:
    return [x, F.avg_pool2d(x, 2) - 0.3]


@pytest.fixture(autouse=True)
def small_features(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A random perceptual network in the place of a trained one."""
    torch.manual_seed(1)
    features = PerceptualFeatures(Judge(JudgeConfig(widths=(4, 6), features=4))).eval().requires_grad_(False)
    monkeypatch.setattr(training, "load_features", lambda: features)
    yield


def test_perceptual_distance_by_hand() -> None:
    """Pixel by pixel: 2 − 2·cos of the angle between both vectors of channels; averaged, and added over the layers."""
    one, other = normal(3, 5, 4, 6), normal(3, 5, 4, 6, seed=1)
    expected = torch.zeros(3, dtype=torch.float64)
    for mine, theirs in zip(two_layers(one), two_layers(other), strict=True):
        cosine = F.cosine_similarity(mine, theirs, dim=1)
        expected += (2 - 2 * cosine).mean(dim=(1, 2))
    assert_parity("perceptual distance", perceptual_distance(two_layers, one, other), expected)
    assert_parity("other way round", perceptual_distance(two_layers, other, one), expected)
    assert perceptual_distance(two_layers, one, one).abs().max() == 0
    brighter = perceptual_distance(lambda x: [x], one, 3 * one)  # the length of a vector doesn't count
    assert_parity("length", brighter, torch.zeros_like(brighter))


def test_pixels_that_see_nothing_have_a_gradient() -> None:
    x = torch.zeros(2, 3, 4, 4, requires_grad=True)
    perceptual_distance(lambda x: [F.relu(x)], x, torch.ones(2, 3, 4, 4)).sum().backward()
    assert x.grad.isfinite().all()


def test_features_are_those_after_each_relu() -> None:
    judge = Judge(replace(PERCEPTUAL, features=4)).eval()
    x = torch.randn(2, 3, 64, 64)
    seen = PerceptualFeatures(judge)(x)
    assert [tuple(one.shape) for one in seen] == [(2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8), (2, 96, 4, 4)]
    assert all(one.min() >= 0 for one in seen) and torch.equal(seen[-1], judge.blocks(x))


def test_hinge_loss_by_hand() -> None:
    real, fake = torch.tensor([2.0, 1.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0])
    assert discriminator_loss(real, fake).item() == pytest.approx(0.5 * ((0 + 0 + 0.5 + 2) / 4 + (0 + 1) / 2))
    assert adversarial_loss(fake).item() == 1.5
    real.requires_grad_(), fake.requires_grad_()
    discriminator_loss(real, fake).backward()
    assert real.grad[0] == 0 and fake.grad[0] == 0  # right by more than the margin
    assert real.grad[2] == real.grad[3] == -1 / 8 and fake.grad[1] == 1 / 4


def test_adaptive_weight() -> None:
    """It makes both gradients at the last layer equally long."""
    layer = normal(3, 4).requires_grad_()
    first, second = (layer * normal(3, 4, seed=1)).sum(), 5 * (layer * normal(3, 4, seed=2)).square().sum()
    weight = adaptive_weight(first, second, layer)
    assert not weight.requires_grad and layer.grad is None
    lengths = [torch.autograd.grad(loss, layer)[0].norm() for loss in (first, weight * second)]
    assert lengths[1] == pytest.approx(lengths[0].item(), rel=1e-3)
    assert adaptive_weight((layer * 1e9).sum(), (layer * 0).sum(), layer) == 1e4


def test_fixed_parameters() -> None:
    network = randomize_(PatchDiscriminator(DiscriminatorConfig(width=4))).double()
    x = normal(2, 3, 20, 20).requires_grad_()
    numbers = fixed(network, x)
    assert_parity("fixed", numbers, network(x))
    numbers.sum().backward()
    assert x.grad.abs().max() > 0 and all(parameter.grad is None for parameter in network.parameters())


def gradients(task: AutoencoderTask, loss: Tensor) -> dict[str, Tensor | None]:
    """Of all parameters, by name."""
    task.network.zero_grad()
    loss.backward()
    return {name: parameter.grad for name, parameter in task.network.named_parameters()}


def same(ours: Tensor | None, theirs: Tensor | None) -> bool:
    zeros = [one is None or one.eq(0).all() for one in (ours, theirs)]
    return all(zeros) or (not any(zeros) and torch.allclose(ours, theirs, rtol=1e-4, atol=1e-7))


def test_one_backward_gives_each_network_its_own_gradient(tmp_path: Path) -> None:
    """As two optimizers in turn would: one sees a fixed discriminator, the other one fixed reconstructions."""
    task, _ = make("autoencoder", tmp_path, tmp_path, loss=LOSS)
    ours = gradients(task, task.loss(task.network, 3, slice(0, 2))[0])
    with pytest.MonkeyPatch.context() as patch:  # what the discriminator learns from is left out
        patch.setattr(training, "discriminator_loss", lambda real, fake: 0 * (real.mean() + fake.mean()))
        theirs = gradients(task, task.loss(task.network, 3, slice(0, 2))[0])
    with pytest.MonkeyPatch.context() as patch:  # and what the autoencoder does
        patch.setattr(training, "adaptive_weight", lambda *_: 0.0)
        alone = gradients(task, task.loss(task.network, 3, slice(0, 2))[0])
    plain, _ = make("autoencoder", tmp_path, tmp_path, loss=LOSS | {"adversarial_weight": 0.0})
    without = gradients(plain, plain.loss(plain.network, 3, slice(0, 2))[0])
    assert any(name.startswith("discriminator") for name in ours)
    for name, gradient in ours.items():
        if name.startswith("discriminator"):
            assert gradient.abs().max() > 0 and same(gradient, alone[name]) and same(theirs[name], None), name
        else:
            assert same(gradient, theirs[name]) and same(alone[name], without[name]), name
            assert not same(gradient, without[name]) or gradient.eq(0).all(), name


def test_the_autoencoder_feels_it_from_the_start_on(tmp_path: Path) -> None:
    task, _ = make("autoencoder", tmp_path, tmp_path, loss=LOSS | {"adversarial_start": 2})
    felt = ["weight" in task.loss(task.network, step, slice(0, 2))[1] for step in range(4)]
    assert felt == [False, False, True, True]
    plain, _ = make("autoencoder", tmp_path, tmp_path, loss=LOSS | {"adversarial_weight": 0.0})
    early = gradients(task, task.loss(task.network, 1, slice(0, 2))[0])
    without = gradients(plain, plain.loss(plain.network, 1, slice(0, 2))[0])
    assert all(same(gradient, without[name]) for name, gradient in early.items() if name in without)


def test_both_learn(tmp_path: Path) -> None:
    changes = {"training": {"steps": 4, "learning_rate": 3e-3}, "loss": LOSS}
    changes |= {"discriminator": {"width": 8, "halvings": 2}}
    task, config = make("autoencoder", tmp_path, tmp_path, **changes)
    assert task.network.discriminator.conv_out.in_channels == 32
    before = {name: value.clone() for name, value in task.network.named_parameters()}
    steps = list(train(task, config))
    assert {"psnr", "kl", "perceptual", "discriminator", "real", "fake", "weight"} == steps[-1].numbers.keys()
    assert not any(
        torch.equal(value, before[name]) for name, value in task.network.named_parameters() if value.ndim > 1
    )


def test_it_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    for folder, ends in (("whole", [5]), ("parts", [2, 5])):
        for steps in ends:
            changes = {"training": {"steps": steps, "warmup_steps": 0}, "loss": LOSS}
            task, config = make("autoencoder", tmp_path, tmp_path, **changes)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("warnings.warn", lambda *_, **__: None)  # that the recipe is longer now
                run(task, config, tmp_path / folder, progress=False)
    whole, parts = (load(tmp_path / folder) for folder in ("whole", "parts"))
    assert_same(whole["parameters"], parts["parameters"])
    assert_same(whole["ema"], parts["ema"])
    assert len(read_log(tmp_path / "parts")) == 5
    assert not list((tmp_path / "whole" / "model").rglob("*discriminator*"))


@pytest.mark.parametrize("name", ["perceptual_weight", "adversarial_weight", "adversarial_start"])
def test_weights_below_0_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 0"):
        AutoencoderLoss(**LOSS | {name: -1})


def test_scaling_factor_is_that_of_all_numbers_together() -> None:
    torch.manual_seed(0)
    autoencoder = Autoencoder(AutoencoderConfig.from_dict(AUTOENCODER)).requires_grad_(False)
    batches = [torch.randn(3, 3, 16, 16), 4 * torch.randn(1, 3, 32, 16)]
    latents = torch.cat([autoencoder.encode(batch).mean.flatten() for batch in batches])
    assert scaling_factor(autoencoder, batches) == pytest.approx(1 / latents.std().item())
