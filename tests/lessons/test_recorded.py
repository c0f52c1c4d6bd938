"""Recorded runs: the stored ones are whole, and what made them still runs."""

import pytest

from sdlearn.evaluation.judge import Judge, JudgeConfig
from sdlearn.lessons.recorded import epsilon_or_v, read_picture, read_rows

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
