"""Scores: the Fréchet distance against its formula, PSNR by hand, and a whole evaluation of a small untrained model."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import sdlearn
from sdlearn.data import SUBJECTS, caption, pairs
from sdlearn.data.scenes import unseen_colors
from sdlearn.evaluation.card import write_card
from sdlearn.evaluation.judge import Judge, JudgeConfig, background_colors, judge_pictures, train_judge
from sdlearn.evaluation.scores import (
    Report,
    as_tensor,
    draw,
    evaluate,
    frechet_distance,
    requests,
    scenes_of,
)
from sdlearn.evaluation.sharpness import Sharpness, edge_agreement, nearest_renderings, psnr


def gaussian(mean: torch.Tensor, covariance_root: torch.Tensor, number: int, seed: int) -> torch.Tensor:
    """Samples (number, F) whose mean and covariance are exactly those asked for: mean and root·rootᵀ."""
    x = torch.randn(number, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x -= x.mean(0)
    x = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(x.T)), x.T, upper=False)  # covariance 1
    return (covariance_root @ x).T + mean


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 10**6),
    st.lists(st.tuples(*[st.floats(-3, 3)] * 2, *[st.floats(0.01, 3)] * 2), min_size=2, max_size=6),
)
def test_frechet_distance_of_gaussians_with_common_axes(seed: int, axes: list[tuple[float, ...]]) -> None:
    """Σ (μ_a − μ_b)² + (σ_a − σ_b)² when the covariances have the same eigenvectors: a random rotation's."""
    mean_a, mean_b, deviation_a, deviation_b = torch.tensor(axes, dtype=torch.float64).T
    size = len(mean_a)
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    a = gaussian(rotation @ mean_a, rotation * deviation_a, 40, seed)
    b = gaussian(rotation @ mean_b, rotation * deviation_b, 50, seed + 1)
    expected = ((mean_a - mean_b).square() + (deviation_a - deviation_b).square()).sum().item()
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-8)
    assert frechet_distance(b, a) == pytest.approx(expected, abs=1e-8)


def test_frechet_distance_when_the_axes_differ() -> None:
    """For two dimensions tr (AB)^½ = (tr AB + 2·(det AB)^½)^½."""
    root_a, root_b = torch.tensor([[2.0, 0.0], [1.0, 0.5]]).double(), torch.tensor([[1.0, 0.7], [0.0, 3.0]]).double()
    a, b = root_a @ root_a.T, root_b @ root_b.T
    cross = math.sqrt(torch.trace(a @ b).item() + 2 * math.sqrt(torch.linalg.det(a @ b).item()))
    expected = 1.0 + (torch.trace(a) + torch.trace(b)).item() - 2 * cross
    zero, one = torch.zeros(2).double(), torch.tensor([0.6, 0.8]).double()
    assert frechet_distance(gaussian(zero, root_a, 30, 0), gaussian(one, root_b, 20, 1)) == pytest.approx(expected)


@pytest.mark.parametrize(("number", "features"), [(500, 64), (10, 64), (2, 1)])
def test_frechet_distance_of_a_set_to_itself_is_zero(number: int, features: int) -> None:
    x = 5 * torch.randn(number, features, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 4), (5, 3), (5,)])
def test_frechet_distance_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="accepted"):
        frechet_distance(torch.zeros(6, 4), torch.zeros(shape))


@pytest.mark.parametrize("split", ["test", "held_out_pairs"])
def test_requests_are_of_the_split_balanced_and_repeatable(split: str) -> None:
    asked = requests(split, 330, seed=5)
    assert asked == requests(split, 330, seed=5) != requests(split, 330, seed=6)
    assert {(subject, color) for subject, color, _ in asked} <= set(pairs(split))
    held_out = [unseen_colors()[subject] == color for subject, color, _ in asked]
    assert all(held_out) if split == "held_out_pairs" else not any(held_out)
    counts = Counter(subject for subject, _, _ in asked)
    assert set(counts) == set(SUBJECTS) and set(counts.values()) == {2, 3}
    assert {size for _, _, size in asked} == {"small", "medium", "large"}


def test_real_scenes_show_what_was_asked_and_the_second_turn_shows_it_otherwise() -> None:
    asked = requests("test", 40, seed=0)
    one, again, other = (scenes_of(asked, 0, turn) for turn in (0, 0, 1))
    assert [(s.subject, s.color, s.size) for s in one] == asked == [(s.subject, s.color, s.size) for s in other]
    assert torch.equal(as_tensor(one), as_tensor(again)) and not torch.equal(as_tensor(one), as_tensor(other))
    assert background_colors(as_tensor(one)) == [color for _, color, _ in asked]


@pytest.fixture(scope="module")
def judge() -> Judge:
    return train_judge(JudgeConfig(widths=(8, 16, 16, 32), features=8, steps=3, batch_size=8), progress=False)[0]


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> sdlearn.StableDiffusion:
    return sdlearn.load(tiny_folder)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def report(model: sdlearn.StableDiffusion, judge: Judge, written: Path) -> Report:
    return evaluate(model, images=7, seed=2, steps=2, judge=judge, output=written, progress=False)


def test_report_holds_what_was_measured(report: Report, model: sdlearn.StableDiffusion, judge: Judge) -> None:
    assert (report.images, report.seed, report.steps) == (7, 2, 2)
    assert (report.sampler, report.guidance_scale) == (model.defaults.sampler, model.defaults.guidance_scale)
    asked = requests("test", 4, 2) + requests("held_out_pairs", 3, 2)
    drawn = draw(model, [caption(*request) for request in asked], 2, {"steps": 2}, progress=False)
    names, features = judge_pictures(judge, drawn)
    right = [name == request[0] for name, request in zip(names, asked, strict=True)]
    colors = [name == request[1] for name, request in zip(background_colors(drawn), asked, strict=True)]
    assert report.subject_seen == sum(right[:4]) / 4 and report.subject_held_out == sum(right[4:]) / 3
    assert report.color_seen == sum(colors[:4]) / 4 and report.color_held_out == sum(colors[4:]) / 3
    real, again = (judge_pictures(judge, as_tensor(scenes_of(asked, 2, turn)))[1] for turn in (0, 1))
    assert report.frechet == frechet_distance(features, real)
    assert report.frechet_real == frechet_distance(again, real)
    original = as_tensor(scenes_of(asked, 2, 0))
    with torch.no_grad():
        decoded = model.decode(model.encode(original.float() / 127.5 - 1))
    each, of_mean = psnr(original, ((decoded + 1) * 127.5).round().to(torch.uint8))
    assert report.psnr == pytest.approx(each.mean().item()) and report.psnr_of_mean == pytest.approx(of_mean)


def test_report_holds_the_sharpness_of_each_group(report: Report, model: sdlearn.StableDiffusion) -> None:
    asked = requests("test", 4, 2) + requests("held_out_pairs", 3, 2)
    drawn = draw(model, [caption(*request) for request in asked], 2, {"steps": 2}, progress=False)
    nearest = nearest_renderings(drawn, asked)
    edges, decibel = edge_agreement(drawn, nearest), psnr(drawn, nearest)[0]
    rows = {row.group: row for row in report.sharpness}
    assert set(rows) == {size for _, _, size in asked} | {"seen pairs", "held-out pairs", "all"}
    assert rows["all"].edges == pytest.approx(edges.mean().item(), abs=0.01)
    assert rows["held-out pairs"].psnr == pytest.approx(decibel[4:].mean().item(), abs=0.01)
    first = asked[0][2]
    assert rows[first].edges == pytest.approx(edges[[size == first for _, _, size in asked]].mean().item(), abs=0.01)
    assert len(report.blurriest) == 7 and report.blurriest[0][1] == min(edges for _, edges in report.blurriest)


def test_a_model_that_draws_real_scenes_scores_as_the_judge_does(
    model: sdlearn.StableDiffusion, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requests("test", 3, 0) + requests("held_out_pairs", 3, 0)
    monkeypatch.setattr("sdlearn.evaluation.scores.draw", lambda *_: as_tensor(scenes_of(asked, 0, 0)))
    report = evaluate(model, images=6, judge=judge, progress=False)
    assert report.color_seen == report.color_held_out == 1
    assert report.frechet == pytest.approx(0, abs=1e-6) and report.frechet_real > report.frechet
    assert all(isinstance(row, Sharpness) and row.edges == 1 and row.psnr == math.inf for row in report.sharpness)


def test_pictures_do_not_depend_on_the_batches(model: sdlearn.StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = ["a cat", "a small owl on a pink background", "a red apple"]
    whole = draw(model, captions, 4, {"steps": 2}, progress=False)
    monkeypatch.setattr("sdlearn.evaluation.scores.BATCH", 2)
    parts = draw(model, captions, 4, {"steps": 2}, progress=False)
    assert (whole.int() - parts.int()).abs().max() <= 1  # rounding of the last bits


def test_table_and_files(report: Report, written: Path) -> None:
    table = report.table()
    assert f"{report.psnr:.2f} dB" in table and f"{report.frechet:.2f}" in table and "nan" not in table
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert [row.count("|") for row in rows] == 8 * [4] + (2 + len(report.sharpness)) * [6]
    best = replace(report, subject_seen=0.917, weakest=(("cat", 0.25),)).table()
    assert "| Subject, seen pairs | 91.7% |" in best and "cat 25%" in best
    assert json.loads((written / "report.json").read_text(encoding="utf-8")) == json.loads(json.dumps(report.to_dict()))
    assert sorted(file.name for file in written.iterdir()) == [
        "autoencoder.png",
        "report.json",
        "samples.png",
        "subjects.csv",
        "worst.png",
    ]
    assert len((written / "subjects.csv").read_text(encoding="utf-8").splitlines()) >= 5
    for name in ("autoencoder.png", "samples.png", "worst.png"):
        with Image.open(written / name) as image:
            assert min(image.size) > 100


def test_too_few_images_are_refused(model: sdlearn.StableDiffusion, judge: Judge) -> None:
    with pytest.raises(ValueError, match="2 and above"):
        evaluate(model, images=1, judge=judge, progress=False)


def test_card(report: Report, model: sdlearn.StableDiffusion, tmp_path: Path) -> None:
    sdlearn.save(model, tmp_path)
    (tmp_path / "recipe.toml").write_text("[training]\nsteps = 40\nbatch_size = 32\nlearning_rate = 1e-3\n")
    (tmp_path / "log.csv").write_text("step,loss,images_per_second\n20,1.0,0.16\n40,0.9,0.08\n")
    text = write_card(tmp_path, report, {"UNet": (tmp_path / "recipe.toml", tmp_path / "log.csv")})
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == text == sdlearn.load(tmp_path).card
    assert "| UNet | 40 | 32 | 1,280 | 3.3 |" in text  # 20·32/0.16 + 20·32/0.08 seconds
    for network, name in zip(model.networks, ("text_encoder", "vae", "unet"), strict=True):
        assert f"| {name} | {sum(p.numel() for p in network.parameters()):,} |" in text
    assert "CC BY-SA 4.0" in text and "OpenMoji" in text and report.table() in text
    with pytest.raises(FileNotFoundError, match="model_index"):
        write_card(tmp_path / "none", report, {})
    (tmp_path / "log.csv").write_text("step,loss\n")
    with pytest.raises(ValueError, match="not a log"):
        write_card(tmp_path, report, {"UNet": (tmp_path / "recipe.toml", tmp_path / "log.csv")})
