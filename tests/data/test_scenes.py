from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdlearn.data import (
    COLORS,
    HELD_OUT_SUBJECTS,
    RELATIONS,
    SIZES,
    SUBJECTS,
    PairScenes,
    Scenes,
    caption,
    edges,
    pairs,
)
from sdlearn.data.scenes import with_article

INDICES = st.integers(0, 2**40)


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes(seed=3)


def background_of(image: torch.Tensor) -> str:
    """The colour of the image's corner, by name, the nearest one."""
    corner = image[:, 0, 0].double()
    return min(COLORS, key=lambda name: (corner - torch.tensor(COLORS[name])).norm().item())


def test_same_seed_and_index_same_bits(scenes):
    again = Scenes(seed=3)
    for index in [7, 0, 12345678, 3, 7]:  # another order, and 7 twice
        assert torch.equal(scenes[index].image, again[index].image)
        assert scenes[index].caption == again[index].caption
        assert scenes[index].box == again[index].box
    assert any(scenes[i].caption != Scenes(seed=4)[i].caption for i in range(5))
    assert any(scenes[i].caption != Scenes(seed=3, split="test")[i].caption for i in range(5))


def test_they_vary_and_all_is_shown(scenes):
    drawn = list(islice(scenes, 2500))
    assert {s.subject for s in drawn} == set(SUBJECTS)
    assert {s.color for s in drawn} == set(COLORS)
    assert {s.size for s in drawn} == set(SIZES)
    assert len({s.image.numpy().tobytes() for s in drawn}) > 2450
    full = sum(s.caption == caption(s.subject, s.color, s.size) for s in drawn)
    assert 0.80 < full / len(drawn) < 0.88  # (1 - DROP) for the colour, and the same for two sizes of three
    assert 0.85 < sum("background" in s.caption for s in drawn) / len(drawn) < 0.95


@settings(max_examples=150, deadline=None)
@given(index=INDICES)
def test_caption_image_box_and_mask_agree(scenes, index):
    scene = scenes[index]
    assert scene.image.shape == (3, 64, 64) and scene.image.dtype == torch.uint8 and scene.image.is_contiguous()
    accepted = {caption(scene.subject, c, s) for c in (scene.color, None) for s in (scene.size, None)}
    assert scene.caption in accepted
    assert background_of(scene.image) == scene.color

    x0, y0, x1, y1 = scene.box
    assert 0 <= x0 < x1 <= 64 and 0 <= y0 < y1 <= 64
    low, high = SIZES[scene.size]
    assert low <= max(x1 - x0, y1 - y0) <= high
    assert abs((x0 + x1) / 2 - 32) <= 4.5 and abs((y0 + y1) / 2 - 32) <= 4.5

    assert scene.mask.shape == (1, 64, 64) and scene.mask.min() >= 0 and scene.mask.max() <= 1
    rows, columns = (scene.mask[0] > 0).any(1).nonzero(), (scene.mask[0] > 0).any(0).nonzero()
    assert abs(int(rows.min()) - y0) <= 1 and abs(int(rows.max()) + 1 - y1) <= 1  # 1: a shrunk tip may round to nothing
    assert abs(int(columns.min()) - x0) <= 1 and abs(int(columns.max()) + 1 - x1) <= 1
    background = torch.tensor(COLORS[scene.color], dtype=torch.uint8)[:, None]
    assert (scene.image[:, scene.mask[0] == 0] == background).all()

    assert scene.outline.shape == (1, 64, 64) and scene.outline.min() >= 0 and 0.3 < scene.outline.max() <= 1
    assert scene.low_res.shape == (3, 16, 16) and scene.low_res.dtype == torch.uint8
    means = scene.image.float().unflatten(1, (16, 4)).unflatten(3, (16, 4)).mean((2, 4))
    assert (scene.low_res.float() - means).abs().max() <= 0.5


def test_colors_can_be_told_apart():
    table = np.array(list(COLORS.values()), float)
    distances = np.linalg.norm(table[:, None] - table[None], axis=-1) + 1000 * np.eye(len(table))
    assert len(COLORS) == 10 and distances.min() >= 68


def test_pairs_are_split():
    seen, unseen = set(pairs("train")), set(pairs("held_out_pairs"))
    assert not seen & unseen
    assert seen | unseen == {(subject, color) for subject in SUBJECTS for color in COLORS}
    assert seen == set(pairs("test"))
    assert Counter(subject for subject, _ in unseen) == dict.fromkeys(SUBJECTS, 1)
    assert Counter(color for _, color in unseen) == dict.fromkeys(COLORS, len(SUBJECTS) // len(COLORS))
    assert set(pairs("train", SUBJECTS[:7])) < seen  # fewer subjects change nothing for the others


@pytest.mark.parametrize("split", ["train", "held_out_pairs", "test"])
def test_scenes_keep_to_their_pairs(split):
    scenes, accepted = Scenes(split=split), set(pairs(split))
    assert all((s.subject, s.color) in accepted for s in islice(scenes, 300))


def test_held_out_subjects():
    assert not set(SUBJECTS) & set(HELD_OUT_SUBJECTS) and len(HELD_OUT_SUBJECTS) == 16
    assert {s.subject for s in islice(Scenes(subjects=HELD_OUT_SUBJECTS), 300)} == set(HELD_OUT_SUBJECTS)


def test_make(scenes):
    scene = scenes.make("owl", "pink", "small")
    assert scene.caption == "a small owl on a pink background"
    assert abs(sum(scene.box[::2]) - 64) <= 1 and abs(sum(scene.box[1::2]) - 64) <= 1
    assert torch.equal(scene.image, scenes.make("owl", "pink", "small").image)
    varied = {scenes.make("owl", "pink", "small", np.random.default_rng(i)).box for i in range(20)}
    assert len(varied) > 5
    with pytest.raises(ValueError, match="'beige' can't be drawn; accepted: red, orange"):
        scenes.make("owl", "beige")
    with pytest.raises(ValueError, match="'unicorn' can't be drawn"):
        scenes.make("unicorn", "red")
    with pytest.raises(ValueError, match="'huge' can't be drawn"):
        scenes.make("owl", "red", "huge")


def test_captions():
    assert caption("red apple", "blue", "small") == "a small red apple on a blue background"
    assert caption("orange", "orange", "medium") == "an orange on an orange background"
    assert caption("umbrella") == "an umbrella"
    assert caption("scissors", "white", "large") == "large scissors on a white background"
    assert caption("owl", style="line") == "a line drawing of an owl"
    assert with_article("unicorn") == "a unicorn" and with_article("ufo") == "a ufo"


def test_another_size():
    scene = Scenes(size=128).make("cat", "green", "large")
    assert scene.image.shape == (3, 128, 128) and scene.low_res.shape == (3, 32, 32)
    assert 104 <= max(scene.box[2] - scene.box[0], scene.box[3] - scene.box[1]) <= 120


def test_lines_have_the_place_but_not_the_fill(scenes):
    subjects = SUBJECTS[:40]
    color, line = Scenes(subjects=subjects), Scenes(subjects=subjects, style="line")
    for index in range(20):
        assert color[index].color == line[index].color and "a line drawing of" in line[index].caption
        assert line[index].mask.sum() < color[index].mask.sum()
        ink = line[index].image[:, line[index].mask[0] > 0.95]
        assert ink.numel() == 0 or ink.max() < 60  # black, and nothing else


@pytest.mark.parametrize("size", [16, 20, 64, 100])
def test_pair_scenes(size):
    scenes = PairScenes(seed=1, size=size)
    seen = Counter()
    for index in range(200):
        scene = scenes[index]
        seen[scene.relation] += 1
        (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = scene.boxes
        assert all(0 <= edge <= size for box in scene.boxes for edge in box)
        assert (
            scene.caption == f"{caption(scene.subjects[0])} {scene.relation} {caption(scene.subjects[1], scene.color)}"
        )
        assert all((subject, scene.color) in pairs("train") for subject in scene.subjects)
        assert scene.image.shape == (3, size, size) and scene.depth.shape == (1, size, size)
        assert scene.depth.min() == 0 and 0.9 < scene.depth.max() <= 1
        if scene.relation == "to the left of":
            assert ax1 <= bx0 + 1
        elif scene.relation == "to the right of":
            assert bx1 <= ax0 + 1
        elif scene.relation == "in front of":  # nearer: lower, smaller, and shown whole
            assert ay1 > by1 and max(ax1 - ax0, ay1 - ay0) < max(bx1 - bx0, by1 - by0)
        else:
            assert by1 > ay1 and max(bx1 - bx0, by1 - by0) < max(ax1 - ax0, ay1 - ay0)
    assert set(seen) == set(RELATIONS)


def test_pair_scenes_are_pure():
    one, two = PairScenes(seed=5), PairScenes(seed=5)
    for index in [4, 0, 4]:
        assert torch.equal(one[index].image, two[index].image) and torch.equal(one[index].depth, two[index].depth)
    assert one[0].caption != PairScenes(seed=6)[0].caption or one[1].caption != PairScenes(seed=6)[1].caption


def test_edges_of_a_step():
    image = torch.zeros(3, 5, 6, dtype=torch.uint8)
    image[1, :, 3:] = 255
    expected = torch.zeros(1, 5, 6)
    expected[:, :, 2:4] = 1
    assert torch.equal(edges(image), expected)
    assert torch.equal(edges(image.mT.contiguous()), expected.mT)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Scenes(split="validation"), "unknown split 'validation'; accepted: train, held_out_pairs, test"),
        (lambda: Scenes(size=30), "size=30; accepted: a multiple of 4"),
        (lambda: Scenes(subjects=("cat", "gryphon")), "unknown subject 'gryphon'"),
        (lambda: Scenes(style="oil"), "unknown style 'oil'; accepted: color, line"),
        (lambda: Scenes(seed=-1)[0], "seed=-1; accepted: 0 and above"),
        (lambda: PairScenes(split="held_out_pairs"), "accepted: train, test"),
        (lambda: PairScenes(subjects=("cat", "cat")), "1 subjects; accepted: two or more"),
        (lambda: PairScenes(size=10), "size=10; accepted: a multiple of 4"),
        (lambda: caption("gryphon"), "unknown subject 'gryphon'"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_negative_index_is_refused(scenes):
    with pytest.raises(IndexError, match="index=-1"):
        scenes[-1]
