"""The small CLIP of lesson 07: the same seed trains the same network, and it learns."""

from math import log

import pytest
import torch

import sdlearn
from sdlearn.data import COLORS, Scenes, caption
from sdlearn.lessons.contrastive import SUBJECTS, pictures_of, right_answers, small_clip, train_clip, zero_shot


@pytest.fixture(scope="module")
def tokenizer() -> sdlearn.Tokenizer:
    return sdlearn.train_bpe([caption(subject, color) for subject in SUBJECTS for color in COLORS], 700)


def test_a_few_steps_bring_the_loss_below_guessing(tokenizer: sdlearn.Tokenizer) -> None:
    scenes, losses = Scenes(subjects=SUBJECTS[:3]), []
    clip = small_clip(tokenizer, width=32)
    with torch.no_grad():  # as in the lessons
        losses += train_clip(clip, tokenizer, scenes, 60, batch_size=16)
    assert len(losses) == 60 and sum(losses[-10:]) / 10 < 0.75 * log(16)
    unseen = Scenes(0, "test", subjects=SUBJECTS[:3])
    subject, color = right_answers(clip, tokenizer, [unseen[i] for i in range(40)], SUBJECTS[:3])
    assert 0 <= subject <= 1 and color > 0.3  # by chance it would be 0.1


def test_the_same_seed_trains_the_same_network(tokenizer: sdlearn.Tokenizer) -> None:
    scenes = Scenes(subjects=SUBJECTS[:3])
    runs = [list(train_clip(small_clip(tokenizer, 16, seed), tokenizer, scenes, 3, batch_size=8)) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_another_loss_is_used(tokenizer: sdlearn.Tokenizer) -> None:
    def counted(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
        assert images.shape == texts.shape == (8, 64) and same.shape == (8, 8) and same.diagonal().all()
        return (images * texts).sum() * scale

    assert len(list(train_clip(small_clip(tokenizer, 16), tokenizer, Scenes(), 2, counted, batch_size=8))) == 2


def test_zero_shot_takes_the_nearest_text(tokenizer: sdlearn.Tokenizer) -> None:
    clip, scenes = small_clip(tokenizer, 16), Scenes(0, "test", subjects=SUBJECTS)
    images, texts = pictures_of([scenes[i] for i in range(5)]), ["a cat", "an owl", "a key on a red background"]
    found = zero_shot(clip, tokenizer, images, texts)
    with torch.no_grad():
        u, v = clip.encode_image(images), clip.encode_text(tokenizer(texts))
    assert found.tolist() == torch.cosine_similarity(u[:, None], v[None], dim=-1).argmax(1).tolist()
