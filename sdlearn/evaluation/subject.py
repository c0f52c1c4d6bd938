"""Has a model learned a new subject, and what has it forgotten for it?

The judge has never seen the new subject either. But its features of it lie together, apart from all others: a picture
shows the subject whose mean real features are nearest. 98 of 100 scenes of new subjects are named rightly so, and 99.8
of 100 of the subjects that the judge knows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sdlearn.data import COLORS, SUBJECTS, Scenes
from sdlearn.data.scenes import SIZES, caption, with_article
from sdlearn.evaluation.judge import Judge, background_colors, judge_pictures
from sdlearn.evaluation.scores import draw, matches, requests
from sdlearn.evaluation.sharpness import edge_agreement, nearest_renderings
from sdlearn.pipeline import StableDiffusion

EXAMPLES = 12  # real scenes of each subject


@dataclass(frozen=True)
class Likeness:
    """The mean features of every known subject and of the new ones."""

    judge: Judge
    names: tuple[str, ...]
    means: Tensor  # (subjects, features)

    @classmethod
    def with_new(cls, judge: Judge, *new: str) -> "Likeness":
        """All subjects of training, and the new ones."""
        names, means = (*SUBJECTS, *new), []
        for name in names:
            scenes = Scenes(1, subjects=(name,))
            pictures = torch.stack([scenes[index].image for index in range(EXAMPLES)])
            means.append(judge_pictures(judge, pictures)[1].mean(0))
        return cls(judge, names, torch.stack(means))

    def name(self, pictures: Tensor) -> list[str]:
        """The subject that each picture shows, (B, 3, 64, 64) uint8."""
        _, features = judge_pictures(self.judge, pictures)
        return [self.names[i] for i in torch.cdist(features, self.means).argmin(1).tolist()]


@dataclass(frozen=True)
class Learned:
    """Shares, from 0 to 1."""

    subject: float  # of pictures of the new subject: shown as such
    edges: float  # agreement of their edges with the nearest true rendering
    color: float  # with the background that was asked for
    size: float  # with the size that was asked for
    known: float  # of pictures of the class: still shown as the class
    others: float  # of pictures of other subjects: still shown as those


def measure(
    model: StableDiffusion, likeness: Likeness, subject: str, said: str, known: str, each: int = 20
) -> tuple[Learned, Tensor]:
    """Ask for the new subject by what is `said`, on all colours and in all sizes; for its class; and for others.

    Returns the scores, and the pictures that were drawn: `each` of the three kinds, (3 · each, 3, 64, 64) uint8.
    """
    colors, sizes = list(COLORS), list(SIZES)
    asked = [(subject, colors[i % len(colors)], sizes[i % len(sizes)]) for i in range(each)]
    others = requests("test", each, seed=5)
    prompts = [say(said, color, size) for _, color, size in asked]
    prompts += [caption(known, color, size) for _, color, size in asked] + [caption(*one) for one in others]
    drawn = draw(model, prompts, 0, {}, progress=False)
    new, names = drawn[:each], likeness.name(drawn)
    longer, slack = sides(new), 3  # pixels; captions never say "medium", so there any size is right
    bounds = SIZES | {"medium": (min(SIZES.values())[0], max(SIZES.values())[1])}
    allowed = [range(bounds[size][0] - slack, bounds[size][1] + slack + 1) for *_, size in asked]
    scores = Learned(
        subject=matches(names[:each], [subject] * each).mean().item(),
        edges=edge_agreement(new, nearest_renderings(new, asked)).mean().item(),
        color=matches(background_colors(new), [color for _, color, _ in asked]).mean().item(),
        size=sum(n in some for n, some in zip(longer, allowed, strict=True)) / each,
        known=matches(names[each : 2 * each], [known] * each).mean().item(),
        others=matches(names[2 * each :], [one for one, *_ in others]).mean().item(),
    )
    return scores, drawn


def say(words: str, color: str, size: str) -> str:
    """A caption for something that has no name among the subjects, as in "a small zwx on a blue background"."""
    words = words if size == "medium" else f"{size} {words}"
    return f"{with_article(words)} on {with_article(color)} background"


def sides(pictures: Tensor) -> list[int]:
    """The longer side in pixels of what stands out from each picture's background, (B, 3, H, W) uint8."""
    frame = torch.cat([pictures[..., :2, :].flatten(2), pictures[..., -2:, :].flatten(2)], dim=2).float()
    away = (pictures.float() - frame.median(dim=2).values[..., None, None]).norm(dim=1) > 90  # (B, H, W)
    lengths = []
    for one in away:
        rows, columns = one.any(1).nonzero().flatten(), one.any(0).nonzero().flatten()
        lengths.append(max((int(line.max() - line.min()) + 1 for line in (rows, columns) if len(line)), default=0))
    return lengths
