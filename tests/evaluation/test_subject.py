"""What a model has learned of a new subject, and what it has forgotten."""

import pytest
import torch

from sdlearn.data import SUBJECTS, Scenes, caption
from sdlearn.data.scenes import SIZES
from sdlearn.evaluation import subject as subjects
from sdlearn.evaluation.judge import Judge, JudgeConfig, judge_pictures
from sdlearn.evaluation.subject import Learned, Likeness, measure, say, sides


class Painter:
    """Stands for a model and its judge: it paints the scene that a prompt describes, and knows what it painted."""

    def __init__(self, wrong: str | None) -> None:
        self.wrong = wrong  # what it paints in place of elephants
        self.names: list[str] = []

    def draw(self, model: None, prompts: list[str], *_: object, **__: object) -> torch.Tensor:
        pictures = []
        for prompt in prompts:
            words, color = prompt.removesuffix(" background").rsplit(" on ", 1)
            words = words.removeprefix("an ").removeprefix("a ")
            size = next((size for size in SIZES if words.startswith(f"{size} ")), "medium")
            name = words.removeprefix(f"{size} ").replace("zwx elephant", "mammoth")
            self.names.append(self.wrong if self.wrong and name == "elephant" else name)
            scenes = Scenes(subjects=(self.names[-1],))
            pictures.append(scenes.make(self.names[-1], color.split(" ")[-1], size).image)
        return torch.stack(pictures)

    def name(self, pictures: torch.Tensor) -> list[str]:
        return self.names


def test_pictures_are_named_after_the_nearest_mean() -> None:
    torch.manual_seed(0)
    judge = Judge(JudgeConfig()).eval()
    pictures = torch.stack([Scenes(subjects=(name,)).make(name, "blue").image for name in ("owl", "mammoth", "key")])
    likeness = Likeness(judge, ("owl", "mammoth", "key"), judge_pictures(judge, pictures)[1] + 1e-4)
    assert likeness.name(pictures.flip(0)) == ["key", "mammoth", "owl"]
    every = Likeness.with_new(judge, "mammoth", "ufo")
    assert every.names == (*SUBJECTS, "mammoth", "ufo") and every.means.shape == (len(SUBJECTS) + 2, 64)


def test_sides_are_those_of_the_scenes() -> None:
    scenes = Scenes(3, "test", subjects=("mammoth", "owl", "key"))
    some = [scenes[index] for index in range(40)]
    longer = [max(one.box[2] - one.box[0], one.box[3] - one.box[1]) for one in some]
    found = sides(torch.stack([one.image for one in some]))
    assert all(abs(one - other) <= 2 for one, other in zip(found, longer, strict=True))
    assert sides(torch.full((1, 3, 64, 64), 200, dtype=torch.uint8)) == [0]


def test_captions_of_what_has_no_name() -> None:
    assert say("zwx elephant", "orange", "small") == "a small zwx elephant on an orange background"
    assert say("<owl>", "blue", "medium") == "a <owl> on a blue background"
    assert say("elephant", "blue", "medium").replace("a elephant", "an elephant") == caption("elephant", "blue")


@pytest.mark.parametrize("wrong", [None, "mammoth"])
def test_a_perfect_painter_and_a_forgetful_one(wrong: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    painter = Painter(wrong)
    monkeypatch.setattr(subjects, "draw", painter.draw)
    scores, drawn = measure(None, painter, "mammoth", "zwx elephant", "elephant", each=10)  # type: ignore[arg-type]
    assert drawn.shape == (30, 3, 64, 64)
    assert scores == Learned(subject=1, edges=1, color=1, size=1, known=0 if wrong else 1, others=1)
