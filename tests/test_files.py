"""Files are written whole or not at all."""

import math
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sdlearn.files import atomic_write, read_json, remove_leftovers


def test_atomic_write(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with atomic_write(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError("strange")])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    error: BaseException | type[BaseException], tmp_path: Path
) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with (
        pytest.raises((error if isinstance(error, type) else type(error),)),
        atomic_write(file) as temporary,
    ):
        temporary.write_text("half")
        raise error
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@contextmanager
def limited(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: it fails as a full disk does, in the midst of writing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def save_through_stream(file: Path) -> None:
    with file.open("wb") as stream:
        torch.save({"a": torch.zeros(100_000)}, stream)


WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda file: file.write_text("x" * 100_000),
    "torch": save_through_stream,
    "safetensors": lambda file: save_file({"a": torch.zeros(100_000)}, file),
    "picture": lambda file: Image.effect_noise((300, 300), 50).save(file, format="PNG"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk(writer: str, tmp_path: Path) -> None:
    """Whatever the library makes of it, the error says what happened, and to which file."""
    file = tmp_path / "a.bin"
    file.write_text("old")
    with pytest.raises(OSError) as caught, limited(50_000), atomic_write(file) as temporary:
        WRITERS[writer](temporary)
    assert str(caught.value) == f"[Errno 27] File too large: '{file}'"
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "none" / "a.txt"
    with pytest.raises(FileNotFoundError) as caught, atomic_write(file) as temporary:
        temporary.write_text("new")
    assert caught.value.filename == str(file)


def test_another_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, atomic_write(tmp_path / "a.txt"):
        (tmp_path / "other").read_text()
    assert caught.value.filename == str(tmp_path / "other")


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    own, left = tmp_path / "notes.partial", tmp_path / "model" / "a.0123abcd.partial"
    left.parent.mkdir()
    for file in (own, left):
        file.write_text("x")
    remove_leftovers(tmp_path)
    assert own.exists() and not left.exists()


def test_two_writers_of_one_file(tmp_path: Path) -> None:
    """Each has a temporary file of its own: the last to end wins, and both write whole files."""
    file = tmp_path / "a.txt"
    with atomic_write(file) as one:
        one.write_text("one")
        with atomic_write(file) as other:
            assert other != one
            other.write_text("other")
        assert file.read_text() == "other"
    assert file.read_text() == "one"


def test_a_users_own_partial_file_stays(tmp_path: Path) -> None:
    own = tmp_path / "a.partial"
    own.write_text("mine")
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert own.read_text() == "mine"


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_new_files_honour_the_umask(mask: int, tmp_path: Path) -> None:
    """Also those that safetensors writes, which makes its files for the owner alone."""
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "a.safetensors") as temporary:
            save_file({"x": torch.zeros(1)}, temporary)
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask


def test_json_with_a_byte_order_mark_and_json_that_is_too_deep(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"a": 1}', encoding="utf-8-sig")
    assert read_json(file) == {"a": 1}
    file.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"a\.json is not a JSON file"):
        read_json(file)


def test_numbers_that_are_too_large(tmp_path: Path) -> None:
    """As sizes of tensors they would end in an error deep inside; tokenizers say "no limit" with one of 31 digits."""
    file = tmp_path / "a.json"
    file.write_text(f'{{"a": 5, "b": {10**30}, "c": -{10**400}}}')
    assert read_json(file) == {"a": 5, "b": 1e30, "c": -math.inf}
    assert type(read_json(file)["b"]) is float
