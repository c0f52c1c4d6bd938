"""The judge: it learns, it is kept whole, and it measures colours rightly."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from sdlearn.data import COLORS, SUBJECTS, Scene, Scenes
from sdlearn.evaluation import judge as judge_module
from sdlearn.evaluation.judge import (
    Judge,
    JudgeConfig,
    augment,
    background_colors,
    judge_file,
    judge_pictures,
    load_judge,
    train_judge,
)

SMALL = JudgeConfig(widths=(8, 16, 16, 32), features=8, steps=6, batch_size=16)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [Scenes(3, split)[i] for split in ("test", "held_out_pairs") for i in range(100)]


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test's own, in which only the judge is kept."""
    monkeypatch.setattr(judge_module, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def stacked(scenes: list[Scene]) -> torch.Tensor:
    return torch.stack([scene.image for scene in scenes])


def test_backgrounds_of_real_scenes_are_measured_rightly(scenes: list[Scene]) -> None:
    assert background_colors(stacked(scenes)) == [scene.color for scene in scenes]
    assert {scene.color for scene in scenes} == set(COLORS)


def test_background_is_that_of_the_edges_not_of_the_middle() -> None:
    picture = torch.empty(1, 3, 64, 64, dtype=torch.uint8)
    for name, color in COLORS.items():
        for other in COLORS.values():
            picture[:] = torch.tensor(other, dtype=torch.uint8)[:, None, None]
            for edge in (picture[..., :2, :], picture[..., -2:, :], picture[..., :2], picture[..., -2:]):
                edge[:] = torch.tensor(color, dtype=torch.uint8)[:, None, None]
            assert background_colors(picture) == [name]


def test_training_lowers_the_loss_and_names_new_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    four = ("cat", "red apple", "penguin", "tree")  # enough to see in seconds that it learns
    monkeypatch.setattr(judge_module, "SUBJECTS", four)
    monkeypatch.setattr(judge_module, "Scenes", partial(Scenes, subjects=four))
    judge, losses = train_judge(replace(SMALL, steps=60, learning_rate=1e-2), progress=False)
    assert len(losses) == 60 and sum(losses[-5:]) < 0.85 * sum(losses[:5])
    assert not judge.training and not any(p.requires_grad for p in judge.parameters())
    new = [Scenes(9, "test", subjects=four)[i] for i in range(60)]
    names, _ = judge_pictures(judge, stacked(new))
    assert sum(name == scene.subject for name, scene in zip(names, new, strict=True)) > 30  # chance: 15


def test_cached_judge_has_equal_bits_and_global_randomness_is_untouched(empty_cache: Path) -> None:
    state = torch.get_rng_state()
    trained = load_judge(SMALL, progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    (file,) = empty_cache.iterdir()  # and no temporary file beside it
    assert file == judge_file(SMALL)
    before = file.read_bytes()
    loaded = load_judge(SMALL, progress=False)
    assert file.read_bytes() == before
    assert trained.state_dict().keys() == loaded.state_dict().keys()
    for name, value in trained.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    again, _ = train_judge(SMALL, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), loaded.parameters(), strict=True))


def test_each_setting_has_its_own_file() -> None:
    files = {judge_file(SMALL), judge_file(JudgeConfig()), judge_file(JudgeConfig(seed=1))}
    assert len(files) == 3


def test_a_cache_that_cannot_be_written_is_only_a_warning(empty_cache: Path) -> None:
    empty_cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="can't keep the judge"):
        load_judge(SMALL, progress=False)


def test_augmentation_is_repeatable_and_keeps_the_subject_in_the_picture(scenes: list[Scene]) -> None:
    pictures = stacked(scenes[:8]).float() / 127.5 - 1
    one, other, third = (augment(pictures, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, other) and not torch.equal(one, third)
    assert one.shape == pictures.shape and one.isfinite().all()
    flat, changed = pictures.flatten(1), one.flatten(1)
    for i in range(len(flat)):  # each is still most like itself
        assert torch.corrcoef(torch.stack([changed[i], *flat]))[0, 1:].argmax() == i


def test_what_the_judge_sees_does_not_depend_on_the_batch(scenes: list[Scene]) -> None:
    judge, _ = train_judge(SMALL, progress=False)
    pictures = stacked(scenes[:5])
    names, features = judge_pictures(judge, pictures)
    other_names, other_features = judge_pictures(judge, pictures, batch_size=2)
    assert names == other_names and set(names) <= set(SUBJECTS)
    assert features.shape == (5, SMALL.features)
    torch.testing.assert_close(features, other_features, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "pictures",
    [
        torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
        torch.zeros(2, 3, 64, 64),
        torch.zeros(3, 64, 64, dtype=torch.uint8),
    ],
)
def test_other_pictures_are_refused(pictures: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="accepted"):
        judge_pictures(Judge(SMALL).eval(), pictures)


def test_augmentation_0_trains_on_scenes_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_module, "augment", lambda *_: pytest.fail("a scene was changed"))
    train_judge(replace(SMALL, steps=1, augmentation=0), progress=False)
    assert judge_file(SMALL) != judge_file(replace(SMALL, augmentation=0))
