"""Files are written whole or not at all."""

from pathlib import Path

import pytest

from sdlearn.files import whole_file


@pytest.mark.parametrize("shared", [False, True])
def test_whole_file(shared: bool, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with whole_file(file, shared=shared) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("shared", [False, True])
def test_a_failure_leaves_the_old_file_and_nothing_else(shared: bool, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(file, shared=shared) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
