import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdlearn.data import ImageFolder


def save(path: Path, width: int = 40, height: int = 30, color=(200, 30, 60)) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (width, height), color).save(path)
    return path


def test_captions_from_a_table(tmp_path):
    save(tmp_path / "b.png", color=(0, 0, 255))
    save(tmp_path / "a.jpg")
    save(tmp_path / "more" / "c.webp")
    (tmp_path / "captions.csv").write_text(
        '\ufefffile,caption\nb.png,"blue, very"\na.jpg,red\nmore/c.webp, also red \n', encoding="utf-8"
    )
    pictures = ImageFolder(tmp_path, size=24)
    assert len(pictures) == 3
    assert [p.caption for p in pictures] == ["red", "blue, very", "also red"]
    assert [p.file.name for p in pictures] == ["a.jpg", "b.png", "c.webp"]
    assert pictures[1].image.shape == (3, 24, 24) and pictures[1].image.dtype == torch.uint8
    assert pictures[1].image[:, 5, 5].tolist() == [0, 0, 255]


def test_captions_beside_the_pictures(tmp_path):
    save(tmp_path / "cat.png")
    (tmp_path / "cat.txt").write_text("一只猫\n", encoding="utf-8")
    (tmp_path / ".hidden").write_text("not a picture")
    assert [p.caption for p in ImageFolder(tmp_path)] == ["一只猫"]


def test_the_middle_is_cut_out(tmp_path):
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255  # white in the middle third
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    (tmp_path / "wide.txt").write_text("white")
    assert (ImageFolder(tmp_path, size=20)[0].image == 255).all()


def test_turned_and_transparent_pictures(tmp_path):
    half = Image.new("RGB", (20, 20), "black")
    half.paste("white", (0, 0, 20, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn a quarter clockwise, so the white half comes to the right
    half.save(tmp_path / "a.png", exif=exif)
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(tmp_path / "b.png")
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(name)
    turned, clear = ImageFolder(tmp_path, size=20)
    assert (turned.image[:, :, 10:] == 255).all() and (turned.image[:, :, :10] == 0).all()
    assert (clear.image == 255).all()


def test_all_problems_are_named(tmp_path):
    save(tmp_path / "good.png")
    (tmp_path / "good.txt").write_text("good")
    save(tmp_path / "silent.png")
    save(tmp_path / "empty.png")
    (tmp_path / "empty.txt").write_text("  \n")
    whole = save(tmp_path / "cut.png", 300, 300).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.txt").write_text("cut")
    (tmp_path / "text.jpg").write_text("I'm no picture")
    (tmp_path / "text.txt").write_text("text")
    with pytest.raises(ValueError, match="4 problems") as error:
        ImageFolder(tmp_path)
    message = str(error.value)
    assert "cut.png (can't be read" in message and "text.jpg (can't be read" in message
    assert "empty.png (no caption)" in message and "silent.png (no caption)" in message
    assert "good.png" not in message


def test_table_that_does_not_fit(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    table = tmp_path / "captions.csv"
    table.write_text("file,caption\na.png,red\ngone.png,lost\n")
    with pytest.raises(ValueError, match=r"gone.png \(in captions.csv, but not in the folder\); b.png \(no caption\)"):
        ImageFolder(tmp_path)
    table.write_text("name,text\na.png,red\n")
    with pytest.raises(ValueError, match=r"columns \['name', 'text'\]; accepted: file, caption"):
        ImageFolder(tmp_path)
    table.write_text("file,caption\na.png,red\na.png,blue\nb.png,c\n")
    with pytest.raises(ValueError, match=r"names a.png twice"):
        ImageFolder(tmp_path)


def test_captions_in_another_encoding_are_named(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes("Bär".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a.txt can't be read; accepted: text in UTF-8"):
        ImageFolder(tmp_path)


def test_many_problems_are_counted(tmp_path):
    for i in range(23):
        save(tmp_path / f"{i:02d}.png", 8, 8)
    with pytest.raises(ValueError, match=r"23 problems.*19.png \(no caption\) and 3 more"):
        ImageFolder(tmp_path)


def test_no_folder_no_pictures_no_size(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        ImageFolder(tmp_path / "gone")
    with pytest.raises(ValueError, match="~nobody-has-this-name/x: there is no such home folder"):
        ImageFolder("~nobody-has-this-name/x")
    with pytest.raises(ValueError, match="holds no pictures"):
        ImageFolder(tmp_path)
    with pytest.raises(ValueError, match="size=0"):
        ImageFolder(tmp_path, size=0)


def captioned(path: Path) -> Path:
    save(path).with_suffix(".txt").write_text("a cat")
    return path


def test_linked_folders_are_read_and_loops_end(tmp_path):
    folder, elsewhere = tmp_path / "pictures", tmp_path / "elsewhere"
    folder.mkdir()
    for path in (folder / "a.png", elsewhere / "b.png", elsewhere / "more" / "c.png"):
        captioned(path)
    (folder / "linked").symlink_to(elsewhere)
    (folder / "d.png").symlink_to(elsewhere / "b.png")
    (folder / "d.txt").write_text("a linked cat")
    for place in (folder, elsewhere / "more"):  # links that lead back
        (place / "back").symlink_to(folder)
    (folder / "again").symlink_to(elsewhere)
    (elsewhere / "itself").symlink_to(elsewhere / "itself")
    with pytest.raises(ValueError, match=r"again/itself \(is a link that leads nowhere\)"):
        ImageFolder(folder)
    (elsewhere / "itself").unlink()
    found = [picture.file.relative_to(folder).as_posix() for picture in ImageFolder(folder)]
    assert found == ["a.png", "again/b.png", "again/more/c.png", "d.png"]  # each folder once


@pytest.mark.skipif(os.name == "nt", reason="there are no named pipes")
def test_links_to_nothing_and_pipes_are_named(tmp_path):
    captioned(tmp_path / "a.png")
    for name in ("gone.png", "pipe.png"):
        (tmp_path / name).with_suffix(".txt").write_text("a cat")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="2 problems") as error:
        ImageFolder(tmp_path)
    assert "gone.png (is a link that leads nowhere); pipe.png (is a pipe or a device; accepted: files)" in str(
        error.value
    )
    (tmp_path / "gone.png").unlink()
    (tmp_path / "pipe.png").unlink()
    for text in ("a.txt", "captions.csv"):
        (tmp_path / text).unlink(missing_ok=True)
        os.mkfifo(tmp_path / text)
        with pytest.raises(ValueError, match=rf"{text} is not a file"):
            ImageFolder(tmp_path)


@pytest.mark.parametrize("length", [10_001, 131_073, 3_000_000])
def test_captions_have_a_limit(length, tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("x" * length)
    with pytest.raises(ValueError, match=rf"a.png \(a caption of {length:,} signs, at most 10,000\)"):
        ImageFolder(tmp_path)
    (tmp_path / "captions.csv").write_text(f"file,caption\na.png,{'x' * length}\n")
    with pytest.raises(ValueError, match=r"a caption of 10,001 signs|captions.csv can't be read: field larger than"):
        ImageFolder(tmp_path)
    (tmp_path / "captions.csv").write_text(f"file,caption\na.png,{'x' * 10_000}\n")
    assert len(ImageFolder(tmp_path)[0].caption) == 10_000


def bitmap(width: int, height: int) -> bytes:
    """The head of a bitmap with one bit for a pixel."""
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 62, 0, 0, 62, 40, width, height, 1, 1, 0, 0, 0, 0, 2, 2) + bytes(8)


@pytest.mark.parametrize("side", [13_000, 30_000])
def test_pictures_have_a_limit(side, tmp_path):
    (tmp_path / "a.bmp").write_bytes(bitmap(side, side))
    (tmp_path / "a.txt").write_text("large")
    with pytest.raises(
        ValueError, match=rf"a.bmp \(can't be read: .*{side} × {side} pixels.*64 million|{side**2} pixels"
    ):
        ImageFolder(tmp_path)


def test_a_folder_that_may_not_be_read_is_no_empty_one(tmp_path, monkeypatch):
    captioned(tmp_path / "a.png")
    captioned(tmp_path / "locked" / "b.png")
    listed = Path.iterdir

    def iterdir(folder):
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(PermissionError, match="locked"):
        ImageFolder(tmp_path)
