"""Between a network's numbers and the bytes of a picture."""

import numpy as np
import pytest
import torch
from PIL import Image

from sdlearn.pictures import from_bytes, from_images, from_masks, on_white, to_bytes, to_images


def test_there_and_back() -> None:
    pixels = torch.randint(256, (2, 5, 7, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pictures = from_bytes(pixels)
    assert pictures.shape == (2, 3, 5, 7) and pictures.dtype == torch.float32
    assert pictures[1, 2, 3, 4] == pixels[1, 3, 4, 2] / 127.5 - 1
    assert torch.equal(to_bytes(pictures), pixels)


def test_images_hold_these_bytes() -> None:
    pictures = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(1)) * 3 - 1.5
    images = to_images(pictures)
    assert [image.size for image in images] == [(6, 4), (6, 4)]
    assert np.array_equal(np.stack([np.asarray(image) for image in images]), to_bytes(pictures).numpy())
    assert torch.equal(from_images(images, (4, 6)), from_bytes(to_bytes(pictures)))


def test_grey_pictures_of_16_bits() -> None:
    """Pillow alone would make all of them white."""
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    for mode in ("I;16", "I"):
        image = Image.fromarray(ramp) if mode == "I;16" else Image.fromarray(ramp.astype(np.int32))
        assert image.mode == mode
        assert np.array_equal(np.asarray(on_white(image))[..., 0], (ramp / 257).astype(np.uint8))
        assert torch.equal(from_masks([image], (16, 16))[0, 0], torch.from_numpy(ramp / 65535).float())
    for numbers in (np.ones((2, 2), np.float32), np.full((2, 2), 70_000, np.int32), np.full((2, 2), -1, np.int32)):
        with pytest.raises(ValueError, match=r"pixels of mode '[FI]', not of 8 or 16 bits"):
            on_white(Image.fromarray(numbers))
