"""Pictures out: ranges, grids, files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdlearn.show import image_grid, save_image_grid, to_images


def test_every_value_of_a_pixel_comes_back() -> None:
    values = torch.arange(256).reshape(1, 1, 16, 16).expand(2, 3, 16, 16)
    images = to_images(values / 127.5 - 1)
    assert [(image.mode, image.size) for image in images] == [("RGB", (16, 16))] * 2
    for image in images:
        assert np.array_equal(np.asarray(image), values[0].permute(1, 2, 0).numpy())


def test_values_are_clipped_and_rounded() -> None:
    row = torch.tensor([-7.0, -1.0, -0.997, 0.999, 1.0, 40.0])
    picture = row.expand(1, 3, 1, 6).clone().requires_grad_()
    assert np.asarray(to_images(picture)[0])[0, :, 0].tolist() == [0, 0, 0, 255, 255, 255]
    assert np.asarray(to_images(picture.bfloat16())[0])[0, -1].tolist() == [255, 255, 255]


def test_channels_and_axes_keep_their_order() -> None:
    picture = -torch.ones(1, 3, 2, 5)
    picture[0, 1, 1, 4] = 1
    assert to_images(picture)[0].getpixel((4, 1)) == (0, 255, 0)


@pytest.mark.parametrize(
    ("count", "columns", "size"), [(1, 1, (4, 3)), (3, 2, (10, 8)), (4, 2, (10, 8)), (3, 3, (16, 3))]
)
def test_grid(count: int, columns: int, size: tuple[int, int]) -> None:
    images = [Image.new("RGB", (4, 3), (i, 0, 0)) for i in range(count)]
    sheet = image_grid(images, columns, gap=2)
    assert sheet.size == size
    for i in range(count):
        assert sheet.getpixel((i % columns * 6 + 3, i // columns * 5 + 2)) == (i, 0, 0)
    if count == 3 and columns == 2:
        assert sheet.getpixel((4, 0)) == sheet.getpixel((9, 7)) == (255, 255, 255)  # the gap, and the empty place


def test_file_is_whole_or_not_there(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "sheet.png"
    save_image_grid(-torch.ones(3, 3, 4, 4), file, columns=2)
    with Image.open(file) as image:
        assert image.size == (10, 10) and image.getpixel((0, 0)) == (0, 0, 0)
    before = file.read_bytes()

    def fail(self: Image.Image, target: Path, **options: str) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="no space"):
        save_image_grid(torch.ones(3, 3, 4, 4), file)
    assert file.read_bytes() == before
