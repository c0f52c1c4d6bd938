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
    with pytest.raises(ValueError, match="holds no pictures"):
        ImageFolder(tmp_path)
    with pytest.raises(ValueError, match="size=0"):
        ImageFolder(tmp_path, size=0)
