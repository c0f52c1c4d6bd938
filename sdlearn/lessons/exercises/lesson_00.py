"""The exercises of lesson 00."""

from collections.abc import Iterator

import torch

from sdlearn.diffusion.guidance import combine
from sdlearn.lessons.exercises.exercise import Case, Exercise
from sdlearn.pictures import to_pixels
from sdlearn.tokenizer import EOS, Tokenizer, train_bpe


def texts(generator: torch.Generator) -> Iterator[Case]:
    """Tokenizers of several lengths and paddings, and texts that fit, fill the row, are too long, or empty."""
    small = train_bpe(["a red apple on a blue background"], 530)

    def tokenizer(length: int, padding: str) -> Tokenizer:
        return Tokenizer(small.vocab, small.merges, length, padding)

    yield Case("a text that is shorter than the row", tokenizer(9, EOS), "a red apple")
    yield Case("a text that is too long", tokenizer(7, "!"), "a blue apple on a red background")
    yield Case("one word", tokenizer(6, "!"), "red")
    yield Case("the empty text", tokenizer(4, "!"), "")


def pictures(generator: torch.Generator) -> Iterator[Case]:
    """Pictures (B, 3, H, W), most of their values in [−1, 1]. What lies outside must be clipped.

    Without clipping uint8 holds something else there, on most machines.
    """
    for shape in ((2, 3, 5, 7), (1, 3, 1, 9), (3, 3, 4, 2)):
        x = torch.rand(shape, generator=generator) * 2.2 - 1.1
        yield Case(f"{shape[0]} pictures of {shape[2]}×{shape[3]} pixels, with values from −1.1 to 1.1", x)


def predictions(generator: torch.Generator) -> Iterator[Case]:
    """Two predictions (B, C, H, W) and a guidance scale."""
    for shape, scale in (((3, 4, 5, 6), 3.5), ((1, 4, 7, 3), 7.5), ((2, 1, 1, 9), 0.25)):
        yield Case(f"guidance_scale = {scale}", *torch.randn(2, *shape, generator=generator), scale)


EXERCISES = (
    Exercise("00.row", Tokenizer.row, texts, difficulty=1, minutes=8, part="tokenizer", box="tokenizer"),
    Exercise("00.to_pixels", to_pixels, pictures, difficulty=1, minutes=5),
    Exercise("00.combine", combine, predictions, difficulty=1, minutes=5, part="combine", box="guidance"),
)
