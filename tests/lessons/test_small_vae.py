"""The small autoencoder of lesson 05: its shapes, its loss, and that it learns, the same each time."""

import torch

from sdlearn.lessons.check import assert_parity
from sdlearn.lessons.small_vae import SIDE, SUBJECTS, SmallAutoencoder, small_scenes, train_scenes, vae_loss
from sdlearn.models.autoencoder import Gaussian


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(**settings: type[Gaussian]) -> SmallAutoencoder:
    torch.manual_seed(0)
    return SmallAutoencoder(numbers=3, width=16, **settings)


def test_shapes_are_those_of_the_autoencoder() -> None:
    network, image = small(), torch.rand(5, 3, SIDE, SIDE, generator=seeded(0)) * 2 - 1
    gaussian = network.encode(image)
    assert gaussian.mean.shape == gaussian.logvar.shape == (5, 3, 1, 1)
    assert gaussian.kl().shape == (5,) and network.decode(gaussian.mean).shape == image.shape


def test_logvar_is_clamped_as_in_the_autoencoder() -> None:
    network = small()
    with torch.no_grad():
        network.encoder[-2].bias[3:] = torch.tensor([100.0, -100.0, 0.0])
    logvar = network.encode(torch.zeros(1, 3, SIDE, SIDE)).logvar.flatten()
    assert logvar[0] == 20 and logvar[1] == -30


def test_the_loss_is_the_squared_error_and_the_weighted_kl() -> None:
    image, again = torch.rand(2, 4, 3, 5, 2, generator=seeded(1), dtype=torch.float64)
    gaussian = Gaussian(*torch.randn(2, 4, 6, 1, 1, generator=seeded(2), dtype=torch.float64))
    expected = sum(((again[i] - image[i]) ** 2).sum() + 0.7 * gaussian.kl()[i] for i in range(4)) / 4
    assert_parity("loss", vae_loss(image, again, gaussian, 0.7), expected)


def test_it_learns_and_repeats_itself() -> None:
    pictures = small_scenes(64)
    assert pictures.shape == (64, 3, SIDE, SIDE) and pictures.min() >= -1 and pictures.max() <= 1
    runs = [train_scenes(small(), pictures, kl_weight=1.0, steps=40, batch_size=16) for _ in range(2)]
    assert runs[0] == runs[1] and sum(runs[0][-5:]) < 0.9 * sum(runs[0][:5])


def test_without_a_weight_there_is_no_noise() -> None:
    """The loss is then that of the means, and the noise's generator is used alike."""
    network, pictures = small(), small_scenes(8)
    before = vae_loss(pictures[:1], network.decode(network.encode(pictures[:1]).mean), network.encode(pictures[:1]), 0)
    (loss,) = train_scenes(network, pictures[:1], kl_weight=0, steps=1, batch_size=1)
    assert abs(loss - before.item()) < 1e-3 * loss


def test_own_gaussian_and_loss_are_used() -> None:
    calls: list[str] = []

    class Mine(Gaussian):
        def at(self, noise: torch.Tensor) -> torch.Tensor:
            calls.append("at")
            return super().at(noise)

    def loss(*inputs: object) -> torch.Tensor:
        calls.append("loss")
        return vae_loss(*inputs)

    network = small(gaussian=Mine)
    train_scenes(network, small_scenes(4), kl_weight=1.0, steps=2, batch_size=2, loss=loss)
    assert calls == ["at", "loss"] * 2


def test_scenes_are_of_few_subjects_and_of_the_split() -> None:
    assert len(SUBJECTS) == 8
    assert not torch.equal(small_scenes(2), small_scenes(2, split="test"))
