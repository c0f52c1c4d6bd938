"""The exercises of lesson 00."""

from collections.abc import Iterator

import torch

from sdlearn.diffusion.guidance import combine
from sdlearn.lessons.exercises.exercise import Case, Exercise
from sdlearn.pictures import to_pixels
from sdlearn.tokenizer import EOS, Tokenizer, train_bpe


def texts(generator: torch.Generator) -> Iterator[Case]:
    """Tokenizers of several lengths and paddings, and texts that are empty, short, just fit, or are too long."""
    small = train_bpe(["a red apple on a blue background"], 540)  # each of these words is one token

    def tokenizer(length: int, padding: str) -> Tokenizer:
        return Tokenizer(small.vocab, small.merges, length, padding)

    yield Case("max_length = 9, a text of 3 tokens", tokenizer(9, EOS), "a red apple")
    yield Case("max_length = 6, a text of 1 token, and another pad_token", tokenizer(6, "!"), "red")
    yield Case("the empty text", tokenizer(4, "!"), "")
    yield Case("max_length = 77, a text of exactly 75 tokens: it just fits", tokenizer(77, "!"), "a red blue " * 25)
    yield Case("max_length = 77, a text of 76 tokens: one too many", tokenizer(77, EOS), "a red " * 38)
    yield Case("max_length = 77, a text of 91 tokens", tokenizer(77, "!"), "a " + "apple on a " * 29 + "red apple on")
    yield Case("max_length = 7, a text of 5 tokens: it just fits", tokenizer(7, "!"), "a red apple on blue")
    yield Case("max_length = 7, a text of 4 tokens", tokenizer(7, "!"), "apple on a background")
    yield Case("max_length = 15, words of several tokens", tokenizer(15, EOS), "a penguin")
    yield Case(
        "max_length = 12, fewer words than places, but too many tokens", tokenizer(12, "!"), "penguin umbrella a"
    )
    yield Case("max_length = 7, a text of 7 tokens", tokenizer(7, "!"), "a blue apple on a red background")


def pictures(generator: torch.Generator) -> Iterator[Case]:
    """Pictures (B, 3, H, W): random, and those at the edges of what is allowed."""
    for shape in ((2, 3, 5, 7), (1, 3, 1, 9), (3, 3, 4, 2)):
        x = torch.rand(shape, generator=generator) * 2.2 - 1.1
        yield Case(f"{shape[0]} pictures of {shape[2]}×{shape[3]} pixels, with values from −1.1 to 1.1", x)
    yield Case("nothing but black, −1, and white, 1", torch.tensor([-1.0, 1.0]).repeat(1, 3, 4, 1))
    yield Case("values far outside, from −4 to 4", torch.linspace(-4, 4, 30).reshape(1, 3, 2, 5))
    bright = torch.arange(256).repeat(3).reshape(1, 3, 16, 16) + 1 / 3
    yield Case("all 256 whole numbers, each a third of a step too bright", bright / 127.5 - 1)


def predictions(generator: torch.Generator) -> Iterator[Case]:
    """Two predictions (B, C, H, W) and a guidance scale."""
    scales = (((3, 4, 5, 6), 3.5), ((1, 4, 7, 3), 12.5), ((2, 1, 1, 9), 0.25), ((1, 3, 2, 2), -1.5))
    for shape, scale in scales:
        yield Case(f"guidance_scale = {scale}", *torch.randn(2, *shape, generator=generator), scale)
    yield Case("guidance_scale = 0: the words don't count", *torch.randn(2, 1, 2, 3, 4, generator=generator), 0)
    yield Case("guidance_scale = 1: the prediction with words", *torch.randn(2, 2, 2, 3, 1, generator=generator), 1)


EXERCISES = (
    Exercise("00.row", Tokenizer.row, texts, difficulty=1, minutes=8, part="tokenizer", box="tokenizer", core=False),
    Exercise("00.to_pixels", to_pixels, pictures, difficulty=1, minutes=5, core=False),
    Exercise("00.combine", combine, predictions, difficulty=1, minutes=5, part="combine", box="guidance"),
)
