"""Between a network's numbers and the bytes of a picture."""

import numpy as np
import torch

from sdlearn.pictures import from_bytes, from_images, to_bytes, to_images


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
