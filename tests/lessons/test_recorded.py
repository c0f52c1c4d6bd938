"""Recorded runs: the stored ones are whole, and what made them still runs."""

import pytest

from sdlearn.evaluation.judge import Judge, JudgeConfig
from sdlearn.lessons.recorded import contrastive, epsilon_or_v, kl_weights, read_picture, read_rows

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
