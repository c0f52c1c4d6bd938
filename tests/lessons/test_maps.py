"""The map: it shows measured shapes, and how much of each part is the reader's own."""

from pathlib import Path

import pytest
from PIL import Image

from sdlearn.lessons import maps
from sdlearn.storage.load import load


@pytest.mark.parametrize("own", [{}, {"guidance": (1, 1), "sampler": (3, 3), "noise": (1, 3), "decoder": (0, 2)}])
def test_the_map_shows_the_measured_shapes(tiny_folder: Path, own: dict[str, tuple[int, int]]) -> None:
    import matplotlib.pyplot as plt

    model = load(tiny_folder)
    shapes = maps.measure_shapes(model, "an owl")
    assert shapes["ids"] == (1, 77) and shapes["context"] == (2, 77, 32)
    assert shapes["noise"] == shapes["guided"] == shapes["latents"] == (1, 4, 16, 16)
    assert shapes["both"] == shapes["predictions"] == (2, 4, 16, 16) and shapes["picture"] == (1, 3, 64, 64)

    pictures = [Image.new("RGB", (4, 4))] * 2
    fig = maps.pipeline_map(shapes, 25, "an owl", pictures, here="UNet", own=own)
    words = [text.get_text() for text in fig.axes[0].texts]
    plt.close(fig)
    assert words.count("1×4×16×16") == 3 and words.count("2×4×16×16") == 1 and "1×3×64×64" in words
    assert {"1×77", "2×77×32", "“an owl”", "you are here", "round and round, 25 times"} <= set(words)
    assert [word for word in words if "✔" in word] == ["guidance ✔", "sampler ✔"] * bool(own)
    yours = ["yours: 1 of 3", "yours: 1 of 1", "yours: 3 of 3", "yours: 0 of 2"]  # in place of the lesson
    assert [word for word in words if " of " in word] == yours * bool(own)
    assert sum(word.startswith("lesson ") for word in words) == 7 - len(own)
    with pytest.raises(ValueError, match="vae: not on the map"):
        maps.pipeline_map(shapes, 25, "an owl", here="vae")
