"""Pictures out: ranges, grids, files; and what the lessons show."""

import base64
import importlib
import inspect
import io
import math
import pkgutil
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image, ImageChops, ImageFont

from sdlearn.lessons import show
from sdlearn.pictures import captioned_grid, image_grid, save_image_grid, to_images, wrap
from sdlearn.pipeline import StableDiffusion


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


def test_captioned_grid() -> None:
    images = [Image.new("RGB", (8, 4), (i * 50, 0, 0)) for i in range(3)]
    sheet = np.asarray(captioned_grid(images, ["a", "b", "c"], columns=2, side=64))
    assert sheet.shape[1] == 2 * (64 + 12) + 12
    step = (len(sheet) - 12) // 2
    for i in range(3):
        x, y = 12 + i % 2 * 76, 12 + i // 2 * step
        assert (sheet[y : y + 32, x : x + 64] == (i * 50, 0, 0)).all()  # as wide as asked, and as high as that makes it
        assert (sheet[y + 32 : y + step - 12, x : x + 64] < 64).any()  # the caption, black on white
    assert (sheet[12 + step :, 76:] == 255).all()  # the empty place


def test_a_long_caption_stays_on_the_sheet() -> None:
    sheet = np.asarray(captioned_grid([Image.new("RGB", (64, 64))], ["word " * 50], side=128))
    assert (sheet[-12:] == 255).all() and (sheet[:, -12:] == 255).all()
    font = ImageFont.load_default(11)
    lines = wrap("one two incomprehensibilities", font, 60).split("\n")
    assert lines == ["one two", "incomprehensibilities"]


@pytest.mark.parametrize(("count", "captions"), [(0, []), (2, ["a"])])
def test_every_picture_needs_a_caption(count: int, captions: list[str]) -> None:
    with pytest.raises(ValueError, match=f"{count} pictures and {len(captions)} captions"):
        captioned_grid([Image.new("RGB", (4, 4))] * count, captions)


@cache
def double(x):
    """One line.

    And another.
    """
    return x * 2  # kept


class Documented:
    """Words."""

    number = 1

    def only_words(self):
        """Nothing else."""

    def plain(self):
        return 2


def functions(place: str) -> Iterator[Callable]:
    """Every function and method that a module defines, or that the modules of a package define."""
    found = importlib.import_module(place)
    inside = pkgutil.iter_modules(getattr(found, "__path__", []), place + ".")
    for name in [place, *(one.name for one in inside)]:
        module = importlib.import_module(name)
        for owner in (module, *(one for one in vars(module).values() if inspect.isclass(one))):
            for one in vars(owner).values():
                one = inspect.unwrap(getattr(one, "__func__", one)) if callable(one) else one
                if inspect.isfunction(one) and one.__module__ == name and one.__code__.co_filename == module.__file__:
                    yield one


ROAD = ("diffusion", "models", "tasks", "pipeline", "storage.load", "training.loop")
"""What a reader walks through."""


@pytest.mark.parametrize("place", ROAD)
def test_all_that_a_reader_walks_through_can_be_shown(place: str) -> None:
    shown = [show.source(one) for one in functions(f"sdlearn.{place}")]
    assert len(shown) > 1


def test_source() -> None:
    function = show.source(double)
    assert function == "@cache\ndef double(x):\n    return x * 2  # kept"
    assert show.whole_source(double).count('"""') == 2
    assert show.source(Documented).split("\n")[:2] == ["class Documented:", "    number = 1"]
    assert show.source(Documented.only_words) == show.whole_source(Documented.only_words)
    assert show.source(Documented.plain) == "def plain(self):\n    return 2"
    assert show.whole_source(StableDiffusion).startswith("class StableDiffusion")
    with pytest.raises(ValueError, match=r"StableDiffusion has \d+ lines, more than 40"):
        show.source(StableDiffusion)


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict, dict]]:
    """What the notebook is given to show: data and metadata by MIME type."""
    shown = []

    def display(data: dict, metadata: dict, raw: bool) -> None:
        assert raw
        shown.append((data, metadata))

    monkeypatch.setattr("IPython.display.display", display)
    return shown


def test_pictures_and_figures_carry_their_alt_text(displayed: list) -> None:
    import matplotlib.pyplot as plt

    show.picture(Image.new("RGB", (4, 2), "red"), alt="red")
    fig, _ = show.axes()
    show.figure(fig, alt="two")
    assert [about["image/png"]["alt"] for _, about in displayed] == ["red", "two"]
    assert [data["text/plain"] for data, _ in displayed] == ["red", "two"]
    assert displayed[0][1]["image/png"]["width"] == 256
    with Image.open(io.BytesIO(base64.b64decode(displayed[0][0]["image/png"]))) as image:
        assert image.size == (384, 192) and image.convert("RGB").getpixel((0, 0)) == (255, 0, 0)
    assert not plt.get_fignums()
    with pytest.raises(ValueError, match="alt is empty"):
        show.picture(Image.new("RGB", (4, 4)), alt=" ")


def test_the_house_style_is_as_wide_as_the_text() -> None:
    fig, ax = show.axes(height=3)
    assert tuple(fig.get_size_inches()) == (8, 3) and not ax.spines["top"].get_visible()
    assert show.render(fig).size == (768, 288)
    fig, panels = show.axes(2, columns=3, rows=2, sharey=True)
    assert panels.shape == (2, 3)
    panels[1, 2].set_title("a title, set later")
    assert panels[1, 2].title.get_fontsize() == show.LETTERS
    show.render(fig)


def ends(ax: Any) -> dict[str, tuple[float, float]]:
    """The lower and the upper edge of each curve's name, in pixels."""
    shown = {one.get_text(): one.get_window_extent() for one in ax.texts if one.get_gid() == "curve"}
    return {name: (box.y0, box.y1) for name, box in shown.items()}


def test_names_of_curves_stand_at_their_ends_and_do_not_overlap() -> None:
    import matplotlib.pyplot as plt

    fig, ax = show.axes()
    x = torch.linspace(0, 1, 5)
    for i, name in enumerate("abcd"):
        show.curve(ax, x, (0.02 * x * (i - 5)).requires_grad_(), name, show.GREEN, linestyle="--")
    show.curve(ax, x, x, "apart", show.BLUE)
    show.curve(ax, x, [0.0, 1.0, 0.5, 0.5, math.nan], "ends earlier", show.GREY)
    show.curve(ax, x, -x / 10)  # without a name
    assert {line.get_color() for line in ax.lines} == {show.GREEN, show.BLUE, show.GREY}
    show.part_names(fig)
    found = ends(ax)
    assert len(found) == 6 and sorted(found, key=lambda name: found[name]) == [*"abcd", "ends earlier", "apart"]
    edges = sorted(found.values())
    assert all(upper[0] >= lower[1] - 0.1 * (lower[1] - lower[0]) for lower, upper in pairwise(edges))
    box = ax.get_window_extent()
    assert edges[0][0] >= box.y0 - 1 and edges[-1][1] <= box.y1 + 1
    end = ax.transData.transform((1, 1))[1]
    assert sum(found["apart"]) / 2 == pytest.approx(end, abs=fig.dpi / 8)  # what does not overlap stays
    plt.close(fig)


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        ([10, 50], [10, 50]),
        ([50, 10], [50, 10]),
        ([20, 20, 20], [10, 20, 30]),
        ([20, 24, 60], [17, 27, 60]),
        ([0, 1], [5, 15]),
        ([99, 100, 40], [85, 95, 40]),
    ],
)
def test_spread(wanted: list[float], places: list[float]) -> None:
    assert show.spread(wanted, gap=10, low=5, high=95) == pytest.approx(places)


def test_bars_carry_their_names_values_and_marks() -> None:
    import matplotlib.pyplot as plt

    fig, panels = show.axes(2, columns=2)
    for ax, values in zip(panels, ([0.1, 0.5], [0.25, 0.3]), strict=True):
        show.bars(ax, ["left", "right"], values, torch.tensor([0.2, 0.4]), "true", largest=0.5)
    ax = panels[0]
    assert [bar.get_width() for bar in ax.patches] == [0.1, 0.5]
    assert [one.get_text() for one in ax.texts] == ["10%", "50%", "true"]
    assert [one.get_text() for one in ax.get_yticklabels()] == ["left", "right"] and ax.yaxis_inverted()
    (marks,) = ax.collections
    assert [float(line[0, 0]) for line in marks.get_segments()] == pytest.approx([0.2, 0.4])
    assert panels[0].get_xlim() == panels[1].get_xlim()
    plt.close(fig)
    fig, ax = show.axes()
    show.bars(ax, list("abc"), [0.1, 0.2, 0.19], [0.4, 0.1, 0.2], largest=0.5)
    assert [one.xy[0] for one in ax.texts] == [0.1, 0.2, 0.2]  # at the bar's end, or beyond a mark that is too near
    plt.close(fig)
    fig, ax = show.axes()
    show.bars(ax, ["a"], [3.14159], form="{:.2f}")
    assert [one.get_text() for one in ax.texts] == ["3.14"] and ax.get_xlim()[1] > 3.14159
    plt.close(fig)


def test_a_picture_among_axes_keeps_its_pixels() -> None:
    import matplotlib.pyplot as plt

    fig, (left, right) = show.axes(columns=2)
    show.image(left, torch.ones(3, 4, 4), "t = 0")
    show.image(right, Image.new("RGB", (4, 4)))
    assert left.get_title(loc="center") == "t = 0" and left.images[0].get_interpolation() == "nearest"
    assert np.asarray(left.images[0].get_array()).tolist() == np.full((4, 4, 3), 255).tolist()
    plt.close(fig)


def test_a_table_of_pictures_fills_the_width_with_equal_pixels(displayed: list) -> None:
    pixels = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    contents = ([pixels, to_images(-pixels)], ["as drawn", "$-x$"], ["one", "two", "three", "and\nfour"])
    show.pictures(*contents, alt="eight")
    ((data, about),) = displayed
    assert about == {"image/png": {"alt": "eight", "width": 768}}
    image = show.table(*contents)
    with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as stored:  # of 256 colors
        assert stored.size == image.size and ImageChops.difference(image, stored.convert("RGB")).getextrema()[0][1] < 64
    sheet = np.asarray(image).astype(int)
    first = np.asarray(to_images(pixels)[0]).astype(int)
    places = np.argwhere((sheet == first[0, 0]).all(-1))
    (y, x), (bottom, right) = places[0], places[-1]
    k = right - x + 1
    assert bottom - y + 1 == k > 8  # one pixel has become a square
    assert (sheet[y : y + 16 * k, x : x + 16 * k] == first.repeat(k, 0).repeat(k, 1)).all()
    assert (sheet[:y, :x] == 255).all() and (sheet[:y, x:] < 128).any() and (sheet[y:, :x] < 128).any()  # the names


@pytest.mark.parametrize(
    ("size", "count", "width", "screen"),
    [
        ((64, 64), 1, 384, 256),
        ((64, 64), 3, None, 768),
        ((8, 8), 8, None, 768),
        ((900, 300), 1, 900, 768),
        ((3000, 500), 1, 1152, 768),
    ],
)
def test_sizes_of_tables(size: tuple[int, int], count: int, width: int | None, screen: int) -> None:
    sheet = show.table([[Image.new("RGB", size)] * count])
    assert sheet.info["width"] == pytest.approx(screen, abs=1)
    assert width in (None, sheet.width) and sheet.width >= screen
    assert sheet.height / sheet.width == pytest.approx(
        (screen - 8 * (count - 1)) / count * size[1] / size[0] / screen, rel=0.02
    )
    frame = show.table([[Image.new("RGB", size)] * count], dpi=show.SCREEN)
    assert frame.width <= sheet.width and frame.info["width"] == sheet.info["width"]


def test_a_table_refuses_what_does_not_fit() -> None:
    pictures = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ValueError, match="rows of 2, 1 pictures"):
        show.table([pictures, pictures[:1]])
    with pytest.raises(ValueError, match="1 names for 2 columns"):
        show.table([pictures], columns=["a"])
    with pytest.raises(ValueError, match="3 names for 1 rows"):
        show.table([pictures], rows_named=["a", "b", "c"])


def test_long_names_of_columns_are_wrapped() -> None:
    assert show.wrapped("a name of many words", 60).count("\n") >= 1
    assert show.wrapped("two\nlines", 500) == "two\nlines"
    assert show.text_size("longer words") > show.text_size("words") > show.text_size("") == 0
    assert show.text_size("a\nlonger words") == show.text_size("longer words")


def test_film_plays_all_frames_and_its_still_stands_alone() -> None:
    frames = [Image.new("RGB", (6, 4), (i * 80, 0, 0)) for i in range(3)]
    still = Image.new("RGB", (6, 4), "blue")
    with Image.open(io.BytesIO(show.film(frames, still, milliseconds=100))) as film:
        assert film.default_image and film.n_frames == 4 and film.info["loop"] == 0
        assert film.convert("RGB").getpixel((0, 0)) == (0, 0, 255)
        for i, milliseconds in enumerate([100, 100, 2000]):
            film.seek(i + 1)
            assert film.convert("RGB").getpixel((0, 0)) == (i * 80, 0, 0)
            assert film.info["duration"] == milliseconds


def test_a_film_of_few_colors_keeps_those_of_all_frames() -> None:
    still = Image.new("RGB", (60, 40), "blue")
    still.paste("red", (0, 0, 30, 40))
    frames = [still, Image.new("RGB", (60, 40), "red"), Image.new("RGB", (60, 40), "#00ff00")]
    with Image.open(io.BytesIO(show.film(frames, still, colors=8))) as film:
        seen = []
        for i in range(film.n_frames):
            film.seek(i)
            seen.append([film.convert("RGB").getpixel((x, 0)) for x in (0, 50)])
    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    assert seen == [[red, blue], [red, blue], [red, red], [green, green]]


def test_a_film_of_noise_is_shown_on_white() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    frames = [Image.new("RGB", (128, 80), "white") for _ in range(3)]
    for i, frame in enumerate(frames):
        frame.paste(noise.rotate(90 * i), (0, 0))
    with Image.open(io.BytesIO(show.film(frames, frames[0], colors=64))) as film:
        for i in range(film.n_frames):
            film.seek(i)
            assert film.convert("RGB").getpixel((100, 70)) == (255, 255, 255)


def test_white_stays_white_among_few_colors() -> None:
    image = Image.fromarray(np.arange(200, 256, dtype=np.uint8).repeat(64).reshape(56, 64)).convert("RGB")
    few = show.few_colors(image, 4).convert("RGB")
    assert len(few.getcolors()) == 4 and few.getpixel((0, 55)) == (255, 255, 255)
    assert ImageChops.difference(image, few).getextrema()[0][1] < 20
    black = show.few_colors(Image.new("RGB", (4, 4))).convert("RGB")
    assert black.getcolors() == [(16, (0, 0, 0))]


def test_a_film_needs_frames_of_one_size() -> None:
    still = Image.new("RGB", (6, 4))
    with pytest.raises(ValueError, match=r"size \(6, 4\)"):
        show.film([Image.new("RGB", (4, 4))], still)
    with pytest.raises(ValueError):
        show.film([], still)


def test_interact_draws_again_when_a_control_moves(displayed: list) -> None:
    drawn = []

    def draw(red: int, green: int) -> Image.Image:
        drawn.append((red, green))
        return Image.new("RGB", (4, 4), (red, green, 0))

    sliders = {"red": ipywidgets.IntSlider(7, 0, 100, 50), "green": ipywidgets.IntSlider(3, 0, 255)}
    show.interact(draw, "a <b>", **sliders)
    assert set(drawn) == {(7, 3), (0, 3), (50, 3), (100, 3)}
    sliders["red"].value, sliders["green"].value = 50, 9
    assert drawn[-2:] == [(50, 3), (50, 9)]
    ((data, about),) = displayed
    assert about == {"image/png": {"alt": "a <b>", "width": 256}} and data["text/plain"] == "a <b>"
    assert {"application/vnd.jupyter.widget-view+json", "image/png"} <= set(data)
    with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as twin:  # a film for viewers without widgets
        assert twin.default_image and twin.n_frames == 4 and twin.width == 256  # the still, and three stops


@pytest.mark.parametrize(
    ("control", "values"),
    [
        (ipywidgets.IntSlider(3, 1, 5), [1, 2, 3, 4, 5]),
        (ipywidgets.IntSlider(0, 0, 999), [0, 125, 250, 375, 500, 624, 749, 874, 999]),
        (ipywidgets.FloatSlider(0.5, min=0, max=1, step=0.25), [0, 0.25, 0.5, 0.75, 1]),
        (ipywidgets.SelectionSlider(options=[2, 4, 25]), [2, 4, 25]),
        (ipywidgets.Dropdown(options=[("linear", 7), ("cosine", 8)]), [7, 8]),
        (ipywidgets.Checkbox(True), [False, True]),
    ],
)
def test_a_film_stops_at_values_of_the_control(control: ipywidgets.ValueWidget, values: list) -> None:
    found = show.stops(control)
    assert found == values and {type(value) for value in found} == {type(control.value)}


def test_a_figure_becomes_a_picture_of_its_size_and_is_closed() -> None:
    import matplotlib.pyplot as plt

    sizes = []
    for title in ("a", "a far longer title\nof two lines"):
        fig, ax = plt.subplots(figsize=(3, 2), layout="constrained")
        ax.set_title(title)
        sizes.append(show.render(fig).size)
    assert sizes == [(288, 192)] * 2 and not plt.get_fignums()
    fig, ax = plt.subplots(figsize=(3, 2))
    ax.axis("off")
    ax.text(0.5, 0.5, "in the middle")
    assert show.render(fig, dpi=120, tight=True).width < 360


def test_interact_shows_figures_as_large_as_they_are(displayed: list, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot as plt

    below, make = [], ipywidgets.HTML
    monkeypatch.setattr(ipywidgets, "HTML", lambda text: below.append(make(text)) or below[0])

    def draw(height: int) -> "plt.Figure":
        fig, ax = show.axes(2)
        ax.plot([0, height])
        return fig

    slider = ipywidgets.IntSlider(3, 1, 9)
    show.interact(draw, "a line", height=slider)
    before = below[0].value
    assert '<img alt="a line" width="768" src="data:image/png;base64,' in before
    slider.value = 5
    assert below[0].value != before and not plt.get_fignums()
    with Image.open(io.BytesIO(base64.b64decode(before.partition("base64,")[2].rstrip('">')))) as image:
        assert image.size == (1152, 288)  # more pixels than are shown, for sharp screens
    ((data, about),) = displayed
    assert about == {"image/png": {"alt": "a line", "width": 768}}
    with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as twin:
        assert twin.size == (768, 192) and twin.n_frames == 10
    with pytest.raises(ValueError, match="all of the still's size"):
        show.interact(lambda inches: plt.figure(figsize=(inches, 1)), "grows", inches=slider)
    plt.close("all")
