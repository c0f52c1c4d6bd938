"""Recorded runs: the stored ones are whole, and what made them still runs."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from sdlearn import last
from sdlearn.data import SUBJECTS, Scenes
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.evaluation import subject
from sdlearn.evaluation.judge import Judge, JudgeConfig
from sdlearn.lessons.recorded import (
    FOLDER,
    contrastive,
    epsilon_or_v,
    first_stage,
    guidance_scales,
    kl_weights,
    new_subject,
    pixels_or_latents,
    read_picture,
    read_pictures,
    read_rows,
    through_training,
)
from sdlearn.pictures import to_unit
from sdlearn.storage.load import BUNDLED, load
from sdlearn.storage.lora import load_lora
from sdlearn.storage.textual_inversion import load_embedding
from sdlearn.training import autoencoder
from sdlearn.training.diffusion import Pool
from sdlearn.training.first_stage import PERCEPTUAL, PerceptualFeatures, load_features

KINDS = ("epsilon", "v_prediction")


def test_the_stored_run_is_what_its_recipe_says() -> None:
    rows = read_rows("epsilon_or_v")
    batch = epsilon_or_v.make_recipe("epsilon", 1, 1).training.batch_size
    expected = [(kind, str(steps * batch)) for kind in KINDS for steps in epsilon_or_v.STEPS]
    assert [(row["prediction_type"], row["scenes"]) for row in rows] == expected
    assert all(0 <= float(row[score]) <= 1 for row in rows for score in ("subject", "color"))
    assert read_picture("epsilon_or_v").width > epsilon_or_v.SHOWN * 64


def test_an_unknown_run() -> None:
    with pytest.raises(FileNotFoundError, match="unknown"):
        read_rows("unknown")


def test_it_goes_on_where_it_was_stopped(tmp_path, monkeypatch) -> None:
    judge, trained = Judge(JudgeConfig()).eval(), []
    run = epsilon_or_v.run
    monkeypatch.setattr(epsilon_or_v, "run", lambda *args: trained.append(args[1].steps) or run(*args))
    for target, steps in (("stopped", (1,)), ("whole", (1, 2))):
        epsilon_or_v.record(tmp_path / "work", tmp_path / target, steps, pictures=2, pool_size=64, judge=judge)
    assert trained == [1, 1, 2, 2]
    stopped, whole = ((tmp_path / f"{name}.csv").read_text().splitlines() for name in ("stopped", "whole"))
    assert stopped == [whole[0], whole[1], whole[3]] and len(whole) == 5
    assert (tmp_path / "whole.png").stat().st_size > 1000


def test_single_pictures_of_a_sheet() -> None:
    """The scenes that are stored with the autoencoders' run are those of the package, to the last bit."""
    rows = read_pictures("first_stage")
    assert rows.shape == (14, 8, 3, 64, 64)
    scenes = Scenes(0, "test", subjects=SUBJECTS[::8])
    for index in (0, 43, 63):
        assert torch.equal(rows[index // 8, index % 8], to_unit(scenes[index].image))


def test_the_stored_autoencoders() -> None:
    rows = read_rows("first_stage")
    assert [row["name"] for row in rows] == ["factor 2", "factor 4", "factor 8", *first_stage.LOSSES]
    assert [int(row["numbers"]) for row in rows] == [4096, 1024, 256, 1024, 1024, 1024]
    quality = [float(row["psnr"]) for row in rows]
    assert quality[0] > quality[1] > quality[2] > 15
    assert all(0 < float(row["l1"]) < 1 and 0 <= float(row["edges"]) <= 1 for row in rows)
    features = load_features(FOLDER / "first_stage.safetensors")
    assert [one.shape[1] for one in features(torch.zeros(1, 3, 64, 64))] == list(PERCEPTUAL.widths)


def test_pixels_and_latents_cost_the_same() -> None:
    pixels, few, latents = read_rows("pixels_or_latents")
    assert [row["kind"] for row in (pixels, few, latents)] == list(pixels_or_latents.RUNS.values())
    assert few["steps"] == pixels["steps"] and few["operations"] == latents["operations"]
    recipes = [
        pixels_or_latents.make_recipe(row["kind"], 1, pixels_or_latents.BATCH_SIZE, 1) for row in (pixels, latents)
    ]
    for row, recipe in zip((pixels, latents), recipes, strict=True):
        assert int(row["operations"]) == pixels_or_latents.operations(recipe)
        assert int(row["memory"]) == pytest.approx(pixels_or_latents.memory(recipe), rel=0.05)
        assert int(row["scenes"]) == int(row["steps"]) * recipe.training.batch_size
    cost = [int(row["operations"]) * int(row["steps"]) for row in (pixels, latents)]
    assert cost[0] == pytest.approx(cost[1], rel=0.05)
    assert read_pictures("pixels_or_latents").shape == (3, 8, 3, 64, 64)


def test_autoencoders_go_on_where_they_were_stopped(tmp_path, monkeypatch) -> None:
    features = PerceptualFeatures(Judge(PERCEPTUAL)).eval().requires_grad_(False)
    for module in (first_stage, autoencoder):
        monkeypatch.setattr(module, "load_features", lambda: features)
    monkeypatch.setattr(autoencoder, "measure_scaling_factor", partial(autoencoder.measure_scaling_factor, count=2))
    training = replace(first_stage.TRAINING, steps=1, batch_size=2)
    first_stage.record(tmp_path / "work", tmp_path / "run", training, 1, pictures=2)
    before = (tmp_path / "run.csv").read_text()
    monkeypatch.setattr(first_stage, "run", lambda *_: pytest.fail("it trains again"))
    first_stage.record(tmp_path / "work", tmp_path / "run", training, 1, pictures=2)
    assert (tmp_path / "run.csv").read_text() == before and len(before.splitlines()) == 7
    assert (tmp_path / "run.png").exists()
    stored = load_features(tmp_path / "run.safetensors").state_dict()
    assert all(torch.allclose(stored[name], value, atol=1e-3) for name, value in features.state_dict().items())


def test_pixels_and_latents_are_trained(tmp_path) -> None:
    judge = Judge(JudgeConfig()).eval()
    pixels_or_latents.record(tmp_path / "work", tmp_path / "run", 2, batch_size=1, pool_size=2, pictures=2, judge=judge)
    assert [line.split(",")[0] for line in (tmp_path / "run.csv").read_text().splitlines()] == [
        "kind",
        "pixels",
        "latents",
        "latents",
    ]
    assert (tmp_path / "run.png").exists()


def test_the_stored_kl_weights_are_what_their_recipe_says() -> None:
    rows = read_rows("kl_weights")
    assert [float(row["kl_weight"]) for row in rows] == list(kl_weights.WEIGHTS)
    bits = [float(row["kl_bits"]) for row in rows]
    assert bits == sorted(bits, reverse=True) and all(0 <= float(row["used"]) <= kl_weights.NUMBERS for row in rows)
    picture = read_picture("kl_weights")
    assert picture.size == (kl_weights.SHOWN * 34 - 2, (1 + 2 * len(rows)) * 34 - 2)


def test_kl_weights_go_on_with_those_that_are_missing(tmp_path, monkeypatch) -> None:
    trained, train_scenes = [], kl_weights.train_scenes
    monkeypatch.setattr(kl_weights, "train_scenes", lambda *args: trained.append(args[2]) or train_scenes(*args))
    monkeypatch.setattr(kl_weights, "WEIGHTS", (0.1, 1.0))
    kl_weights.trained(0.1, tmp_path, steps=2, pool=32)
    kl_weights.record(tmp_path, tmp_path / "run", steps=2, pool=32, tested=16)
    assert trained == [0.1, 1.0]
    assert len((tmp_path / "run.csv").read_text().splitlines()) == 3 and (tmp_path / "run.png").stat().st_size > 1000


def test_the_contrastive_run_is_what_its_recipe_says() -> None:
    rows = read_rows("contrastive")
    every = contrastive.EVERY
    assert [int(row["step"]) for row in rows] == list(range(every, contrastive.STEPS + 1, every))
    assert all(0 <= float(row[score]) <= 1 for row in rows for score in ("subject", "color"))
    assert float(rows[0]["loss"]) > float(rows[4]["loss"]) > float(rows[-1]["loss"])


def test_the_contrastive_run_still_runs(tmp_path) -> None:
    contrastive.record(tmp_path / "short", steps=4, every=2, scenes=3)
    head, *rows = (tmp_path / "short.csv").read_text().splitlines()
    assert head == "step,loss,subject,color" and [row.split(",")[0] for row in rows] == ["2", "4"]


def test_the_stored_scales_are_what_their_recipe_says() -> None:
    *rows, scenes = read_rows("guidance_scales")
    kinds = [(scale, 0.0) for scale in guidance_scales.SCALES] + [*guidance_scales.RESCALED]
    assert [(float(row["scale"]), float(row["rescale"])) for row in rows] == kinds and not scenes["scale"]
    pictures = guidance_scales.REQUESTS * guidance_scales.EACH
    assert {row["pictures"] for row in [*rows, scenes]} == {str(pictures)}
    assert all(0 <= float(row[score]) <= 1 for row in rows for score in ("subject", "color", "both", "clipped"))
    assert read_pictures("guidance_scales").shape == (len(guidance_scales.SCALES), guidance_scales.EACH, 3, 64, 64)


def test_scales_go_on_with_those_that_are_missing(tmp_path, monkeypatch) -> None:
    judge, drawn = Judge(JudgeConfig()).eval(), []
    monkeypatch.setattr(guidance_scales, "last", lambda steps: drawn.append(1) or last(steps))
    guidance_scales.record(tmp_path / "work", tmp_path / "run", [(0.0, 0.0)], 2, 2, judge)
    guidance_scales.record(tmp_path / "work", tmp_path / "run", [(0.0, 0.0), (3.0, 0.0), (3.0, 0.5)], 2, 2, judge)
    lines = (tmp_path / "run.csv").read_text().splitlines()
    assert len(drawn) == 3
    assert [line.split(",")[:2] for line in lines] == [
        ["scale", "rescale"],
        ["0", "0"],
        ["3", "0"],
        ["3", "0.5"],
        ["", ""],
    ]
    assert (tmp_path / "run.png").stat().st_size > 1000


@pytest.mark.skipif(not (FOLDER / "through_training_log.csv").exists(), reason="not recorded yet")
def test_the_run_through_training_is_what_its_recipe_says() -> None:
    steps = [str(step) for step in through_training.STEPS]
    rows = read_rows("through_training")
    answers = [("", name) for name in ("nothing", "linear", "ideal", "ideal_any_caption")]
    answers += [(step, weights) for step in steps for weights in ("raw", "ema")] + [("", "bundled")]
    assert len(rows) == len(answers) * 2 * through_training.BANDS
    assert {(row["step"], row["answer"]) for row in rows} == set(answers)
    assert {row["scenes"] for row in rows} == {"training", "new"}

    def mean(answer: str, scenes: str, step: str = "") -> float:
        asked = {"answer": answer, "scenes": scenes, "step": step}
        return sum(float(row["v"]) for row in rows if row.items() >= asked.items()) / through_training.BANDS

    assert mean("ema", "new", "0") == pytest.approx(mean("nothing", "new"), rel=0.01)  # the first prediction is v = 0
    for scenes in ("training", "new"):
        trained, linear = mean("ema", scenes, steps[-1]), mean("linear", scenes)
        assert mean("bundled", scenes) < trained < linear < mean("nothing", scenes)
    assert mean("ideal", "training") < mean("ideal_any_caption", "training") < 0.5 * mean("bundled", "training")
    assert mean("ideal", "new") > mean("nothing", "new")  # it knows no other scenes than those of training

    scores = read_rows("through_training_scores")
    assert [(row["step"], row["weights"]) for row in scores] == answers[4:]
    assert all(0 <= float(row[score]) <= 1 for row in scores for score in ("subject", "color", "edges"))
    log = read_rows("through_training_log")
    assert [int(row["step"]) for row in log] == list(range(10, through_training.STEPS[-1] + 1, 10))
    assert read_pictures("through_training").shape == (2 * len(through_training.PROMPTS), len(steps) + 1, 3, 64, 64)


def test_the_run_through_training_goes_on_where_it_was_stopped(tmp_path, monkeypatch) -> None:
    for name, value in {"BANDS": 2, "SCENES": 3, "PICTURES": 2, "PROMPTS": ("a cat", "an owl")}.items():
        monkeypatch.setattr(through_training, name, value)
    judge, measured, measure = Judge(JudgeConfig()).eval(), [], through_training.measure
    monkeypatch.setattr(through_training, "measure", lambda *args: measured.append(args[0]) or measure(*args))
    steps = (0, 1, 3)

    def record(name: str) -> None:
        through_training.record(tmp_path / name, tmp_path / f"{name}_run", steps, 2, 32, judge)

    record("whole")
    assert len(measured) == 6
    measured.clear()

    def at_the_fourth(*args: object) -> dict:
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append(args[0])
        return measure(*args)

    monkeypatch.setattr(through_training, "measure", at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        record("stopped")
    assert len((tmp_path / "stopped_run_scores.csv").read_text().splitlines()) == 4  # two of step 0, and the bundled
    monkeypatch.setattr(through_training, "measure", lambda *args: measured.append(args[0]) or measure(*args))
    record("stopped")
    assert len(measured) == 7  # the one after one step again, then the others
    for name in (".csv", "_scores.csv", ".png"):
        files = [(tmp_path / f"{run}_run{name}").read_bytes() for run in ("stopped", "whole")]
        assert files[0] == files[1]


def test_the_learning_rate_through_training_is_that_of_the_whole() -> None:
    whole = through_training.make_recipe(1000, 32, 64).training
    values = {name: getattr(whole, name) for name in type(whole).__dataclass_fields__}
    part = through_training.Part(**values | {"steps": 700}, whole=1000)
    rates = [part.learning_rate_at(step) for step in range(700)]
    assert rates == [whole.learning_rate_at(step) for step in range(700)]
    assert rates[0] < rates[49] == rates[600] > rates[-1] > 0


def test_answers_that_need_no_network() -> None:
    """Of eight scenes with three captions: what is right, and what knows more is better."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(8, 4, 3, 2, generator=generator)
    captions = ["a", "b", "a", "c", "b", "a", "a", "c"]
    schedule = Schedule(ScheduleConfig(prediction_type="v_prediction"))
    pool = Pool(latents, torch.arange(8), torch.zeros(8, 1, 1))
    probe = through_training.Probe.of_pool(pool, [*captions[:7], "unknown"], schedule)
    known = through_training.answers(probe, pool, captions)
    errors = {name: [float(row["v"]) for row in probe.errors(answer)] for name, answer in known.items()}
    assert all(0.3 < error < 3 for error in errors["nothing"])
    assert sum(errors["ideal"]) < sum(errors["ideal_any_caption"]) < sum(errors["linear"]) < sum(errors["nothing"])
    assert errors["ideal"][0] < 1e-3  # what is hardly noisy is recognised
    for band in (0, 6):
        x, noise, t = probe.noised(band)
        assert (t // 100 == band).all() and torch.allclose(x, schedule.add_noise(latents, noise, t))
        answered = {name: answer(x, t) for name, answer in known.items()}
        for i, (s, n) in enumerate(zip(*schedule.rates(t, x), strict=True)):
            weights = torch.stack([-(x[i] - s * one).square().sum() / (2 * n**2) for one in latents]).flatten().double()
            same = torch.tensor([text == probe.captions[i] for text in captions])
            for name, possible in (("ideal", same if same.any() else ~same), ("ideal_any_caption", same | True)):
                shares = weights.masked_fill(~possible, -torch.inf).softmax(0)
                mean = torch.einsum("n,nchw->chw", shares, latents.double())
                assert torch.allclose(answered[name][i], ((s * x[i] - mean) / n).double(), atol=1e-4)


def test_a_new_subject_goes_on_with_the_runs_that_are_missing(tmp_path, monkeypatch) -> None:
    """Two runs of one step each; the second time nothing is trained."""
    trained, six = [], torch.zeros(60, 3, 64, 64, dtype=torch.uint8)
    scores = subject.Learned(0.5, 0.25, 1.0, 1.0, 0.75, 1.0)
    monkeypatch.setattr(new_subject, "measure", lambda *_: (scores, six))
    monkeypatch.setattr(new_subject, "train", lambda *_: trained.append(1) or ())
    alone = {"data": {"class_prompts": [], "class_pictures": 0}}
    runs = {
        "one": new_subject.Run("lora", (0, 1), alone),
        "two": new_subject.Run("textual_inversion", (1,), said="<mammoth>"),
    }
    for _ in range(2):
        new_subject.record(tmp_path / "work", tmp_path / "run", runs, None)
        assert len(trained) == 2
    lines = (tmp_path / "run.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines] == [["run", "step"], ["one", "0"], ["one", "1"], ["two", "1"]]
    assert lines[3].split(",")[2] == "128"  # numbers learn
    assert (tmp_path / "run.png").stat().st_size > 100


def test_the_stored_runs_of_a_new_subject_are_what_their_recipe_says() -> None:
    rows, runs = read_rows("new_subject"), new_subject.RUNS
    assert [(row["run"], row["step"]) for row in rows] == [
        (name, str(n)) for name, run in runs.items() for n in run.steps
    ]
    scores = ("subject", "edges", "color", "size", "known", "others")
    assert all(0 <= float(row[score]) <= 1 for row in rows for score in scores)
    ends = {row["run"]: row for row in rows}
    assert float(ends["prior"]["known"]) > float(ends["no prior"]["known"]) + 0.2  # what prior preservation is for
    assert [int(ends[f"rank {rank}"]["learns"]) for rank in (2, 4, 8, 16)] == [
        rank * int(ends["rank 1"]["learns"]) for rank in (2, 4, 8, 16)
    ]
    in_steps = sum(len(runs[name].steps) for name in new_subject.IN_STEPS)
    shape = (in_steps + len(runs) - len(new_subject.IN_STEPS), len(new_subject.SHOWN), 3, 64, 64)
    assert read_pictures("new_subject").shape == shape
    shares = [float(row["update"]) for row in read_rows("new_subject_spectrum")]
    assert shares == sorted(shares) and 0 < shares[0] < shares[-1] <= 1


def test_the_stored_adapters_fit_the_bundled_model() -> None:
    model = load(BUNDLED)
    for name in ("lora", "style"):
        lora = load_lora(FOLDER / f"new_subject_{name}.safetensors", model)
        assert {update.rank for update in lora.values()} == {4}
    word, vectors = load_embedding(FOLDER / "new_subject_word.safetensors")
    assert word == "<mammoth>" and vectors.shape == (1, 128)
