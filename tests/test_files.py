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

from sdlearn import files
from sdlearn.files import atomic_write, read_json, read_text, remove_leftovers, shown


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


def test_a_temporary_name_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is somebody's file: it stays, and nothing is written."""
    monkeypatch.setattr(files.secrets, "token_hex", lambda count: "0123abcd")
    taken = tmp_path / "a.0123abcd.partial"
    taken.write_text("theirs")
    with pytest.raises(FileExistsError) as caught, atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert taken.read_text() == "theirs" and list(tmp_path.iterdir()) == [taken]


def test_the_longest_name_that_a_file_can_have(tmp_path: Path) -> None:
    file = tmp_path / ("x" * 251 + ".txt")
    with atomic_write(file) as temporary:
        temporary.write_text("new")
    assert file.read_text() == "new"


def test_a_folder_that_knows_no_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some mounted drives refuse chmod. Where the mode is right already, nothing is asked of them."""

    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "chmod", refuse)
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a.txt").read_text() == "new"


def test_a_text_in_another_coding(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes("Bär".encode("latin-1"))
    for read in (read_text, read_json):
        with pytest.raises(ValueError, match=r"a\.md is not a text in UTF-8"):
            read(tmp_path / "a.md")


def test_values_in_messages() -> None:
    assert shown("unet.conv_in.weight") == "unet.conv_in.weight"
    assert shown("a\nb\x1b[31m") == "'a\\nb\\x1b[31m'"
    assert shown([1, None]) == "[1, None]"
    assert len(shown("x" * 10**6)) == len(shown(10**4000)) == 100
