"""The exercises of lesson 08."""

from collections.abc import Iterator

import torch
from torch import Tensor

from sdlearn.lessons.check import randomize_
from sdlearn.lessons.exercises.exercise import Case, Exercise
from sdlearn.models.attention import GEGLU, Attention, TransformerBlock, attention_weights


def look_ups(generator: torch.Generator) -> Iterator[Case]:
    """Queries (B, N, T, D) and keys (B, N, S, D), with a mask (T, S), (B, 1, 1, S) or (N, 1, 1), or without."""
    for words, (batch, heads, tokens, keys, width), size in (
        ("pictures, heads, keys and D are all 3", (3, 3, 5, 3, 3), 1.5),  # the key can be transposed in any way
        ("5 queries, 5 keys", (2, 3, 5, 5, 4), 1.5),
        ("7 queries, 5 keys, 3 pictures", (3, 2, 7, 5, 6), 1.0),
        ("vectors of one number", (1, 4, 3, 2, 1), 1.0),
        ("one key, which every query looks at", (2, 1, 4, 1, 3), 1.0),
        ("one query, wide vectors", (1, 2, 1, 9, 64), 2.0),
        ("logits near 200", (2, 2, 3, 5, 4), 10.0),
    ):
        query = size * torch.randn(batch, heads, tokens, width, generator=generator)
        yield Case(f"{words}, no mask", query, size * torch.randn(batch, heads, keys, width, generator=generator))
    query, key = torch.randn(2, 2, 3, 6, 5, generator=generator)
    causal = torch.full((6, 6), -torch.inf).triu(1)
    yield Case("a causal mask: each token looks at itself and those before it", query, key, causal)
    query, key = torch.randn(1, 3, 4, 2, generator=generator), torch.randn(1, 3, 7, 2, generator=generator)
    one_column = torch.zeros(4, 7)
    one_column[:, 2] = -torch.inf
    yield Case("a mask that hides the third key from all", query, key, one_column)
    bias = torch.randn(4, 7, generator=generator)
    yield Case("a mask of ordinary numbers: some keys are preferred", query.clone(), key.clone(), bias)
    query, key = torch.randn(3, 2, 2, 4, generator=generator), torch.randn(3, 2, 5, 4, generator=generator)
    for_each = torch.zeros(3, 1, 1, 5)
    for_each[[0, 1, 1, 2], ..., [4, 0, 3, 2]] = -torch.inf
    yield Case("a mask (B, 1, 1, S): other keys are hidden in each of 3 pictures", query, key, for_each)
    query, common = 100 * torch.randn(2, 1, 2, 3, 4, generator=generator).double()
    key = common[:, :, :1] + 0.01 * torch.randn(1, 2, 6, 4, generator=generator).double()
    yield Case("float64, which must be kept: the logits are near 20,000 and differ by 1", query, key)


def splits(generator: torch.Generator) -> Iterator[Case]:
    """An attention layer, which knows the number of heads, and x (B, T, C)."""
    for heads, width, shape in (
        *((3, 32, (2, 4)), (8, 3, (2, 5)), (5, 2, (1, 3))),
        *((2, 2, (2, 2)), (1, 6, (3, 4)), (4, 1, (2, 7))),
    ):
        x = torch.randn(*shape, heads * width, generator=generator)
        words = f"{heads} heads of width {width}, {shape[1]} tokens" if heads > 1 else f"one head, {shape[1]} tokens"
        yield Case(words, layer(heads * width, heads), x)


class Open(Attention):
    """Attention without the fused kernel, which takes as many values as there are keys without looking.

    It can't be called: that is what the learner writes.
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        raise RuntimeError("the layer is called itself; what it computes is what you are to write")

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attention_weights(query, key) @ value


def layer(channels: int, heads: int, context_channels: int | None = None) -> Attention:
    """With random parameters, large enough that the weights of attention are far from even."""
    return randomize_(Open(channels, heads, context_channels), seed=channels, std=0.5).requires_grad_(False)


def looks(generator: torch.Generator) -> Iterator[Case]:
    """An attention layer, pixels x (B, T, C), and words (B, S, K) or none."""

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    yield Case("one pixel, one word, and each is one number", layer(1, 1, 1), random(1, 1, 1), random(1, 1, 1))
    yield Case("one pixel, one word, one head", layer(5, 1), random(2, 1, 5), random(2, 1, 5))
    yield Case("4 pixels, 4 words, one head", layer(7, 1), random(2, 4, 7), random(2, 4, 7))
    yield Case("words as wide as the pixels, and as many", layer(12, 3), random(2, 5, 12), random(2, 5, 12))
    yield Case("7 words for 4 pixels, as wide as they", layer(6, 2), random(1, 4, 6), random(1, 7, 6))
    yield Case("no words: self-attention", layer(12, 4), random(2, 6, 12))
    yield Case("wider words, 3 pictures", layer(8, 2, 10), random(3, 5, 8), random(3, 7, 10))
    yield Case("narrower words, one head", layer(10, 1, 6), random(1, 9, 10), random(1, 3, 6))
    yield Case("one word, one pixel, heads of width 1", layer(4, 4, 3), random(2, 1, 4), random(2, 1, 3))


def blocks(generator: torch.Generator) -> Iterator[Case]:
    """A block's arguments, pixels x (B, T, C) and words (B, S, K)."""

    def random(*shape: int) -> Tensor:
        return 2 * torch.randn(shape, generator=generator)

    yield Case("words as wide as the pixels", (6, 2, 6), random(2, 5, 6), random(2, 7, 6))
    only = {"channels": 6, "heads": 3, "context_channels": 6, "only_cross_attention": True}
    yield Case("only_cross_attention, words as wide as the pixels", only, random(1, 4, 6), random(1, 3, 6))
    yield Case("wider words, 3 pictures", (8, 4, 10), random(3, 6, 8), random(3, 5, 10))
    narrow = {"channels": 10, "heads": 5, "context_channels": 4, "only_cross_attention": True}
    yield Case("only_cross_attention, narrower words", narrow, random(2, 3, 10), random(2, 2, 4))
    yield Case("one word, one pixel", (4, 1, 3), random(1, 1, 4), random(1, 1, 3))


def gates(generator: torch.Generator) -> Iterator[Case]:
    """Widths in and out, and x (B, T, C)."""
    for words, arguments, shape in (
        ("3 channels in, 2 out", (3, 2), (2, 2, 3)),
        ("5 channels in, 7 out", (5, 7), (2, 3, 5)),
        ("as many out as in", (4, 4), (1, 6, 4)),
        ("one channel out", (3, 1), (3, 2, 3)),
        ("four times as many out, as in the block", (6, 24), (2, 5, 6)),
    ):
        yield Case(words, arguments, 6 * torch.randn(shape, generator=generator))


EXERCISES = (
    Exercise("08.attention_weights", attention_weights, look_ups, difficulty=1, minutes=6, box="UNet"),
    Exercise("08.split_heads", Attention.split_heads, splits, difficulty=1, minutes=5, part="attention", box="UNet"),
    Exercise(
        "08.cross_attention",
        Attention.forward,
        looks,
        difficulty=2,
        minutes=8,
        part="attention",
        box="UNet",
        called="cross_attention",
    ),
    Exercise(
        "08.transformer_block",
        TransformerBlock,
        blocks,
        difficulty=2,
        minutes=8,
        part="transformer_block",
        box="UNet",
    ),
    Exercise("08.geglu", GEGLU, gates, difficulty=1, minutes=4, box="UNet", core=False),
)
