"""Scenes: OpenMoji subjects on a plain background, with a caption. Endless, and every scene can be reproduced.

A scene is a pure function of (seed, split, index): no state is kept between calls, so a resumed or sharded run sees
the same pictures, in whatever order it requests them.
"""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sdlearn.data.openmoji import SUBJECTS, TABLE, drawings, find_subject

# Soft tones, so that OpenMoji's black outlines and strong fills stand out; any two are at least 68 apart in RGB.
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (222, 82, 82),
    "orange": (242, 150, 66),
    "yellow": (248, 224, 108),
    "green": (122, 190, 110),
    "blue": (104, 158, 224),
    "purple": (150, 98, 196),
    "pink": (246, 176, 206),
    "brown": (142, 100, 70),
    "gray": (162, 164, 168),
    "white": (248, 248, 248),
}
# The subject's longer side in pixels, of 64, both ends inclusive. What varies must be learned, so it varies little.
SIZES: dict[str, tuple[int, int]] = {"small": (28, 32), "medium": (40, 44), "large": (54, 58)}
SPLITS: dict[str, int] = {"train": 0, "held_out_pairs": 1, "test": 2}
RELATIONS: tuple[str, ...] = ("in front of", "behind", "to the left of", "to the right of")
JITTER = 2  # of 64 pixels: how far the subject can be from the centre, in either direction
DROP = 0.1  # how often the caption leaves out the size word, and how often the background


@dataclass(frozen=True)
class Scene:
    """A picture, what it shows, and what the conditioned models need to know about it."""

    image: Tensor  # (3, H, W) uint8
    caption: str
    subject: str
    color: str  # of the background
    size: str  # "small", "medium" or "large"
    box: tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels; the subject fills [x0, x1) × [y0, y1)
    alpha: Tensor  # (H, W) uint8: how much of each pixel the subject covers

    @cached_property
    def mask(self) -> Tensor:
        """(1, H, W) float in [0, 1]: 1 where the subject is."""
        return self.alpha[None].float() / 255

    @cached_property
    def outline(self) -> Tensor:
        """(1, H, W) float in [0, 1]: the image's edges."""
        return edges(self.image)

    @cached_property
    def low_res(self) -> Tensor:
        """(3, H/4, W/4) uint8: the mean of each square of 4 × 4 pixels."""
        return torch.nn.functional.avg_pool2d(self.image[None].float(), 4)[0].round().to(torch.uint8)


class Scenes:
    """Endless scenes: `scenes[index]` is a `Scene`, a pure function of (seed, split, index).

    split: "train" shows the seen (subject, colour) pairs, "held_out_pairs" only those that training never shows, "test"
    the seen pairs in other scenes. size: height and width in pixels, a multiple of 4. style: "color" or "line"
    (the same drawings without fills). Raises ValueError for an unknown split, subject or style or another size, and
    RuntimeError when the packages that draw are missing.
    """

    def __init__(
        self,
        seed: int = 0,
        split: str = "train",
        size: int = 64,
        subjects: Sequence[str] = SUBJECTS,
        style: str = "color",
    ) -> None:
        self.seed, self.split, self.size, self.style = seed, split, _checked_size(size), style
        self.pairs = pairs(split, subjects)
        self.stickers = Stickers(subjects, style)

    def __getitem__(self, index: int) -> Scene:
        rng = _generator(self.seed, SPLITS[self.split], index)
        subject, color = self.pairs[rng.integers(len(self.pairs))]
        return self.make(subject, color, tuple(SIZES)[rng.integers(len(SIZES))], rng)

    def make(self, subject: str, color: str, size: str = "medium", rng: np.random.Generator | None = None) -> Scene:
        """The scene of this subject, colour and size word.

        rng varies the exact size and place and drops parts of the caption; without it the subject is in the centre,
        has its size's mean and the caption is complete. Raises ValueError for an unknown subject, colour or size.
        """
        for value, accepted in ((subject, self.stickers.subjects), (color, COLORS), (size, SIZES)):
            if value not in accepted:
                raise ValueError(f"{value!r} can't be drawn; accepted: {', '.join(accepted)}")
        low, high = SIZES[size]
        side = (low + high) // 2 if rng is None else int(rng.integers(low, high + 1))
        sticker = self.stickers.shrunk(subject, side * self.size // 64)  # (h, w, 4)
        height, width = sticker.shape[:2]
        x0, y0 = self._place(width, rng), self._place(height, rng)
        says_size, says_color = (True, True) if rng is None else rng.random(2) >= DROP

        canvas = np.full((self.size, self.size, 3), COLORS[color], np.uint8)
        paste(canvas, sticker, x0, y0)
        alpha = np.zeros((self.size, self.size), np.uint8)
        alpha[y0 : y0 + height, x0 : x0 + width] = sticker[..., 3]
        return Scene(
            image=_to_tensor(canvas),
            caption=caption(subject, color if says_color else None, size if says_size else None, self.style),
            subject=subject,
            color=color,
            size=size,
            box=(x0, y0, x0 + width, y0 + height),
            alpha=torch.from_numpy(alpha),
        )

    def _place(self, side: int, rng: np.random.Generator | None) -> int:
        """Where a subject of this width (or height) begins: the centre, moved a little, never over the edge."""
        middle, jitter = placement(side, self.size)
        return middle if rng is None else middle + int(rng.integers(-jitter, jitter + 1))


@dataclass(frozen=True)
class PairScene:
    """A picture of two subjects: the first one is `relation` the second one."""

    image: Tensor  # (3, H, W) uint8
    caption: str  # "a cat in front of a tree on a blue background"
    subjects: tuple[str, str]
    color: str
    relation: str  # one of RELATIONS
    boxes: tuple[tuple[int, int, int, int], tuple[int, int, int, int]]  # like Scene.box, in the subjects' order
    depth: Tensor  # (1, H, W) float, larger is nearer: background 0, what stands behind 0.5, everything else 1


class PairScenes:
    """Endless scenes of two subjects: `scenes[index]` is a `PairScene`, a pure function of (seed, split, index).

    Made for layouts and depth. split: "train" or "test"; no subject is on the colour that training holds out for it.
    Raises ValueError for an unknown split or subject, fewer than two subjects or a size that isn't a multiple of 4.
    """

    def __init__(self, seed: int = 0, split: str = "train", size: int = 64, subjects: Sequence[str] = SUBJECTS) -> None:
        if split not in ("train", "test"):
            raise ValueError(f"split={split!r}; accepted: train, test")
        if len(set(subjects)) < 2:
            raise ValueError(f"{len(set(subjects))} subjects; accepted: two or more different ones")
        self.seed, self.split, self.size = seed, split, _checked_size(size)
        self.stickers = Stickers(subjects)

    def __getitem__(self, index: int) -> PairScene:
        rng = _generator(self.seed, len(SPLITS) + SPLITS[self.split], index)  # not the same numbers as Scenes
        one, two = (self.stickers.subjects[i] for i in rng.choice(len(self.stickers.subjects), 2, replace=False))
        seen = [color for color in COLORS if color not in (unseen_colors()[one], unseen_colors()[two])]
        color = seen[rng.integers(len(seen))]
        relation = RELATIONS[rng.integers(len(RELATIONS))]
        told_backwards = relation in ("behind", "to the right of")  # the same picture, described from the other subject
        drawn = (two, one) if told_backwards else (one, two)
        places = self._in_depth(rng) if relation in RELATIONS[:2] else self._side_by_side(rng)

        canvas = np.full((self.size, self.size, 3), COLORS[color], np.uint8)
        depth = np.zeros((self.size, self.size), np.float32)
        boxes = {}
        for subject, (x, bottom, side, near) in reversed([*zip(drawn, places, strict=True)]):  # far first
            sticker = self.stickers.shrunk(subject, side * self.size // 64)
            height, width = sticker.shape[:2]
            x0, y0 = x * self.size // 64 - width // 2, bottom * self.size // 64 - height
            boxes[subject] = (x0, y0, x0 + width, y0 + height)
            paste(canvas, sticker, x0, y0)
            inside = depth[y0 : y0 + height, x0 : x0 + width]
            inside += (near - inside) * (sticker[..., 3] / np.float32(255))
        return PairScene(
            image=_to_tensor(canvas),
            caption=f"{caption(one)} {relation} {caption(two, color)}",
            subjects=(one, two),
            color=color,
            relation=relation,
            boxes=(boxes[one], boxes[two]),
            depth=torch.from_numpy(depth)[None],
        )

    # Places are (middle x, bottom, longer side, nearness), lengths in pixels of 64. The near or left subject is first.
    def _in_depth(self, rng: np.random.Generator) -> list[tuple[int, int, int, float]]:
        """As on a floor: nearer things stand lower."""
        front = (int(rng.integers(18, 47)), int(rng.integers(59, 64)), int(rng.integers(26, 33)), 1.0)
        back = (int(rng.integers(29, 36)), int(rng.integers(50, 54)), int(rng.integers(44, 49)), 0.5)
        return [front, back]

    def _side_by_side(self, rng: np.random.Generator) -> list[tuple[int, int, int, float]]:
        left = (int(rng.integers(15, 18)), int(rng.integers(42, 54)), int(rng.integers(24, 29)), 1.0)
        right = (int(rng.integers(47, 50)), int(rng.integers(42, 54)), int(rng.integers(24, 29)), 1.0)
        return [left, right]


class Stickers:
    """The subjects' drawings, cut out and shrunk; each size is made once and kept."""

    def __init__(self, subjects: Sequence[str], style: str = "color") -> None:
        self.subjects = tuple(subjects)
        self._drawings = dict(zip(self.subjects, drawings(self.subjects, style), strict=True))
        self._shrunk: dict[tuple[str, int], np.ndarray] = {}

    def shrunk(self, subject: str, side: int) -> np.ndarray:
        """(h, w, 4) uint8 with premultiplied alpha; the longer of h and w is `side` pixels."""
        if (subject, side) not in self._shrunk:
            self._shrunk[subject, side] = shrink(self._drawings[subject], side)
        return self._shrunk[subject, side]


def pairs(split: str, subjects: Sequence[str] = SUBJECTS) -> list[tuple[str, str]]:
    """All (subject, colour) pairs that a split shows. Each subject has one colour that only "held_out_pairs" shows.

    Raises ValueError for an unknown split or subject.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; accepted: {', '.join(SPLITS)}")
    every = [(find_subject(name).name, color) for name in subjects for color in COLORS]
    return [(name, color) for name, color in every if (unseen_colors()[name] == color) == (split == "held_out_pairs")]


@functools.cache
def unseen_colors() -> dict[str, str]:
    """For each subject the background colour that training never shows, spread evenly over the ten colours."""
    shuffled = sorted(TABLE, key=lambda name: hashlib.sha256(name.encode()).digest())
    unseen = {}
    for names in ([n for n in shuffled if n in SUBJECTS], [n for n in shuffled if n not in SUBJECTS]):
        unseen |= {name: tuple(COLORS)[i % len(COLORS)] for i, name in enumerate(names)}
    return unseen


def caption(subject: str, color: str | None = None, size: str | None = None, style: str = "color") -> str:
    """("red apple", "blue", "small") -> "a small red apple on a blue background". The size "medium" isn't mentioned.

    Raises ValueError for an unknown subject.
    """
    words = subject if size in (None, "medium") else f"{size} {subject}"
    if find_subject(subject).article == "a":
        words = with_article(words)
    if style == "line":
        words = f"a line drawing of {words}"
    return words if color is None else f"{words} on {with_article(color)} background"


def with_article(words: str) -> str:
    """'owl' -> 'an owl'. By the first letter, except for 'unicorn' and 'ufo'."""
    return f"{'an' if words[0] in 'aeiou' and words[:3] not in ('uni', 'ufo') else 'a'} {words}"


def shrink(drawing: np.ndarray, side: int) -> np.ndarray:
    """Crops a drawing (H, W, 4) to what it shows and resizes that, its longer side to `side` pixels.

    Returns (h, w, 4) uint8 with premultiplied alpha: averaging straight colours would mix in those of empty pixels.
    """
    picture = Image.fromarray(drawing)
    picture = picture.crop(picture.getchannel("A").getbbox()).convert("RGBa")  # Pillow's "a": premultiplied
    scale = side / max(picture.size)
    return np.asarray(picture.resize([max(1, round(n * scale)) for n in picture.size], Image.Resampling.BOX))


def paste(canvas: np.ndarray, sticker: np.ndarray, x0: int, y0: int) -> None:
    """Lays a premultiplied sticker (h, w, 4) over part of the canvas (H, W, 3), in place: color + (1 - alpha)·below."""
    height, width = sticker.shape[:2]
    below = canvas[y0 : y0 + height, x0 : x0 + width]
    clear = 255 - sticker[..., 3:].astype(np.uint16)
    below[:] = sticker[..., :3] + ((below * clear + 127) // 255).astype(np.uint8)


def placement(side: int, size: int = 64) -> tuple[int, int]:
    """Where a subject of this width (or height) begins in a scene of this size: the centre, and how far from there."""
    middle = (size - side) // 2
    return middle, max(0, min(JITTER * size // 64, middle - 1))


def edges(image: Tensor) -> Tensor:
    """The edges of an image (3, H, W) uint8: (1, H, W) float in [0, 1], how steep the steepest channel is."""
    return steepness(image[:, None].float() / 255).amax(dim=0, keepdim=True).clamp(max=1)


def steepness(grey: Tensor) -> Tensor:
    """The length of the gradient of grey pictures (B, 1, H, W): (B, H, W).

    Sobel's two filters (the first step of Canny's edge detector), on the pictures with their borders repeated.
    """
    x = torch.nn.functional.pad(grey, (1, 1, 1, 1), mode="replicate")  # (B, 1, H+2, W+2)
    sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 4
    return torch.nn.functional.conv2d(x, torch.stack([sobel, sobel.T])[:, None]).norm(dim=1)


def _generator(seed: int, stream: int, index: int) -> np.random.Generator:
    if seed < 0:
        raise ValueError(f"seed={seed}; accepted: 0 and above")
    if index < 0:
        raise IndexError(f"index={index}; scenes are endless, accepted: 0 and above")
    return np.random.default_rng([seed, stream, index])


def _checked_size(size: int) -> int:
    if size < 16 or size % 4:
        raise ValueError(f"size={size}; accepted: a multiple of 4, at least 16")
    return size


def _to_tensor(canvas: np.ndarray) -> Tensor:
    return torch.from_numpy(canvas).permute(2, 0, 1).contiguous()  # (H, W, 3) -> (3, H, W)
