"""Points with captions, and the network that reads them."""

import torch

from sdlearn.diffusion.guidance import Condition, guide
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.lessons.captioned import CaptionedMLP, captioned_moons, encode_captions, is_upper, train_captioned
from sdlearn.lessons.check import assert_parity, randomize_


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_each_caption_has_a_vector_of_its_own() -> None:
    one, other, empty = encode_captions(["the upper moon", "the lower moon", ""])
    assert torch.equal(encode_captions(["the upper moon"])[0], one) and one.shape == (1, 8)
    assert all((a - b).norm() > 1 for a, b in ((one, other), (one, empty), (other, empty)))


def test_points_know_their_moon() -> None:
    points, caption = captioned_moons(2000, seeded(0))
    assert 0.45 < caption.double().mean() < 0.55
    assert (is_upper(-points) != caption.bool()).all()  # one moon is the other, turned by half
    assert points[caption == 1, 1].mean() > points[caption == 0, 1].mean() + 0.5


def test_the_network_reads_the_caption_and_goes_through_guidance() -> None:
    network = randomize_(CaptionedMLP(16, 2), std=0.3)
    x = torch.randn(3, 2, generator=seeded(1))
    upper, nothing = (encode_captions([text]).expand(3, -1, -1) for text in ("the upper moon", ""))
    with_words, without = network(x, 5, upper), network(x, 5, nothing)
    assert (with_words - without).abs().max() > 1e-3
    guided = guide(network, Condition(upper), Condition(nothing), 3.0)(x, 5)
    assert_parity("guided", guided, without + 3.0 * (with_words - without))


def test_training_lowers_the_loss_and_loses_captions() -> None:
    network, lost = CaptionedMLP(32, 2), []

    def drop(context, empty, share, generator):
        lost.append((context.shape, empty.shape, share))
        return context

    losses = train_captioned(network, Schedule(ScheduleConfig()), 0.3, steps=60, drop=drop, batch_size=64)
    assert lost == [(torch.Size([64, 1, 8]), torch.Size([1, 8]), 0.3)] * 60
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
