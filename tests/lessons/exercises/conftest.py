"""What the tests of the exercises share: more exercises than the lessons', and an empty passport."""

from pathlib import Path

import pytest
from examples import METHOD, MODULE, SAMPLER

from sdlearn.lessons.exercises import passport, registry


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The examples are among the exercises, and the passport is empty. Returns its folder."""
    for exercise in (METHOD, MODULE, SAMPLER):
        monkeypatch.setitem(registry.EXERCISES, exercise.id, exercise)
    monkeypatch.setenv("SDLEARN_PASSPORT", str(tmp_path / "passport"))
    passport.GREEN.clear()
    return tmp_path / "passport"
