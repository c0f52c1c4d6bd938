"""Files are written whole or not at all."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sdlearn.files import atomic_write


@pytest.mark.parametrize("shared", [False, True])
def test_atomic_write(shared: bool, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with atomic_write(file, shared=shared) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError("strange")])
@pytest.mark.parametrize("shared", [False, True])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    shared: bool, error: BaseException | type[BaseException], tmp_path: Path
) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with (
        pytest.raises((error if isinstance(error, type) else type(error),)),
        atomic_write(file, shared=shared) as temporary,
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
