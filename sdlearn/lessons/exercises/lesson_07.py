"""The exercises of lesson 07."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sdlearn.lessons.exercises.exercise import Case, Exercise
from sdlearn.models.clip import contrastive_loss
from sdlearn.models.text import TextLayer, TransformerConfig, causal_mask
from sdlearn.tokenizer import Tokenizer, make_vocabulary, merge_pair, most_frequent_pair, train_bpe


def spellings(generator: torch.Generator) -> Iterator[Case]:
    """The tokens of a word, and a pair: once, several times, overlapping, never, and what only looks like it."""
    yield Case("the pair occurs once", ["c", "a", "t</w>"], ("a", "t</w>"))
    yield Case("it occurs twice", ["b", "a", "n", "a", "n", "a</w>"], ("a", "n"))
    yield Case("it fills the word", ["an", "an", "an", "an"], ("an", "an"))
    yield Case("it overlaps itself", ["a", "a", "a", "b", "a", "a", "a</w>"], ("a", "a"))
    yield Case("only the letters are right, the tokens aren't", ["xa", "b", "a", "bc", "ab</w>"], ("a", "b"))
    yield Case("it occurs only the other way round", ["t", "a", "c</w>"], ("a", "t"))
    yield Case("one token", ["cat</w>"], ("cat", "</w>"))
    yield Case("both halves occur, next to others", ["a", "c", "b", "a", "a", "b", "b</w>"], ("a", "b"))
    yield Case("at the beginning and at the end", ["a", "b", "c", "a", "b"], ("a", "b"))
    yield Case("the last token is the pair's left half", ["a", "a", "a"], ("a", "a"))
    yield Case("two other tokens that read the same when joined", ["ab", "c</w>"], ("a", "bc</w>"))


def counted_words(generator: torch.Generator) -> Iterator[Case]:
    """Words as tokens, each with how often it occurs: ties, pairs that occur twice in a word, and nothing to merge."""
    texts = {
        "the example of the paper": "low 5, lower 2, newest 6, widest 3",
        "a rare pair in a long list": "ab 1, cd 3, ce 1, cf 1, cg 1",
        "a tie": "ba 2, ca 2, ab 2",
        "a pair that occurs twice in a word": "xyxy 2, zw 3",
        "the same letter over and over": "aaaa 1, bc 2",
        "frequent at the end of words, less so within": "at 3, ate 2, tat 2",
        "both orders of two letters": "ab 2, ba 2, cd 3",
        "words that end and begin alike": "xa 2, ya 1, ax 1, ay 2, zz 2",
    }
    for words, text in texts.items():
        pairs = (one.split(" ") for one in text.split(", "))
        yield Case(words, [([*word[:-1], word[-1] + "</w>"], int(count)) for word, count in pairs])
    yield Case("tokens of several letters", [(["th", "e</w>"], 2), (["t", "h", "at</w>"], 1), (["th", "at</w>"], 3)])
    yield Case("a tie in which the joined texts have another order", [(["ab", "a</w>"], 1), (["a", "zz</w>"], 1)])
    yield Case("a tie of pairs with the same left token", [(["a", "c</w>"], 1), (["a", "b</w>"], 1)])
    yield Case("a tie of a long pair and a short one", [(["b", "c</w>"], 1), (["aa", "b</w>"], 1)])
    yield Case("a frequent word is one token, a rare one isn't", [(["a</w>"], 5), (["c", "a", "t</w>"], 1)])
    yield Case("every word is one token", [(["the</w>"], 7), (["cat</w>"], 2)])


def pair_of(part: Callable[[list[tuple[list[str], int]]], tuple[str, str] | None], words: list) -> Any:
    """What `part` finds. Raises ValueError where it is a list: no list is ever equal to a tuple of tokens."""
    found = part(words)
    if isinstance(found, list):
        raise ValueError(f"it returns the list {found}, but a pair is a tuple: (left, right)")
    return found


def words_to_merge(generator: torch.Generator) -> Iterator[Case]:
    """Tokenizers and words: known ones, unknown ones, some whose merges compete, letters outside ASCII."""
    small = train_bpe(["low " * 5 + "lower " * 2 + "newest " * 6 + "widest " * 3], 514 + 9)
    yield Case("a word of the training texts", small, "newest")
    yield Case("a new word of known pieces", small, "lowest")
    yield Case("a word of which nothing is merged", small, "dry")
    yield Case("one letter", small, "w")
    rivals = [("b", "c"), ("a", "b"), ("bc", "d</w>"), ("a", "a"), ("e", "e</w>"), ("f", "g"), ("h", "f"), ("c", "x")]
    rivals += [("h", "fg")]
    vocab = make_vocabulary(rivals)
    yield Case("two merges want the same letter, and the later letter's came first", Tokenizer(vocab, rivals), "abcd")
    yield Case("two merges want the same letter, and the earlier letter's came first", Tokenizer(vocab, rivals), "bcxy")
    yield Case("the pair that was learned last", Tokenizer(vocab, rivals), "acxa")
    yield Case("the same pair three times", Tokenizer(vocab, rivals), "aaaaaaab")
    yield Case("a pair that overlaps itself", Tokenizer(vocab, rivals), "aaae")
    yield Case("the first pair is at the right end", Tokenizer(vocab, rivals), "hfghee")
    short = {token: i for i, token in enumerate(token for token in vocab if token not in ("z", "x</w>"))}
    yield Case("the first pair stands between two letters, and all three become one", Tokenizer(vocab, rivals), "hfgh")
    yield Case("letters that the vocabulary lacks", Tokenizer(short, rivals), "zabcx")
    yield Case("a letter of two bytes", Tokenizer(vocab, rivals), "aéb")


def windows(generator: torch.Generator) -> Iterator[Case]:
    """How many tokens, and activations (B, T, C) of that many, or of more."""
    for batch, tokens, width in ((2, 5, 3), (1, 7, 4), (3, 2, 6), (2, 1, 5), (1, 12, 2)):
        many = f"{tokens} token{'s' * (tokens > 1)}"
        yield Case(many, tokens, torch.randn(batch, tokens, width, generator=generator))
    yield Case("4 tokens in float64", 4, torch.randn(2, 4, 3, generator=generator).double())
    yield Case("3 tokens, and `like` holds 5", 3, torch.randn(2, 5, 4, generator=generator))


def attention_with(part: Callable[[int, Tensor], Tensor], tokens: int, like: Tensor) -> Tensor:
    """The weights of attention under a mask: (B, T, T).

    Raises ValueError where the mask holds NaN, has another shape or dtype than asked for, or hides the future but holds
    other numbers than 0 for the past.
    """
    mask = torch.as_tensor(part(tokens, like))
    if mask.isnan().any():
        raise ValueError("the mask holds NaN: -inf times 0 is NaN, and not 0; fill the places instead")
    if mask.shape != (tokens, tokens):
        raise ValueError(f"the mask has the shape {tuple(mask.shape)}, but (T, T) is {(tokens, tokens)}")
    x = like[:, :tokens]
    weights = (x @ x.transpose(1, 2) * x.shape[-1] ** -0.5 + mask.to(like)).softmax(dim=-1)  # (B, T, T)
    past = mask.double().tril()
    if tokens > 1 and (weights.triu(1) == 0).all():  # else there is more to be said of it
        if past.isfinite().all() and past.any():
            raise ValueError("the future is hidden, but where a token may look the mask must be 0; it is added")
        if mask.dtype != like.dtype:
            raise ValueError(f"the mask is {mask.dtype}, but `like` is {like.dtype}: give the mask its dtype")
    return weights


def layers(generator: torch.Generator) -> Iterator[Case]:
    """Configurations of a layer, activations (B, T, C), and a mask or none."""
    cases = (
        ("a causal mask, two heads", (10, 18, 2, "quick_gelu", 1e-5), (2, 5), True),
        ("no mask, three heads, gelu", (12, 20, 3, "gelu", 1e-5), (1, 7), False),
        ("a causal mask, one head, a large eps", (6, 6, 1, "gelu", 0.5), (3, 4), True),
        ("a single token", (8, 5, 4, "quick_gelu", 1e-3), (2, 1), True),
    )
    for words, (width, inner, heads, activation, eps), (batch, tokens), masked in cases:
        config = TransformerConfig(
            hidden_size=width,
            intermediate_size=inner,
            num_hidden_layers=2,
            num_attention_heads=heads,
            hidden_act=activation,
            layer_norm_eps=eps,
        )
        x = torch.randn(batch, tokens, width, generator=generator) + 0.5
        yield Case(words, (config,), x, causal_mask(tokens, x) if masked else None)


def matches(generator: torch.Generator) -> Iterator[Case]:
    """Features (B, P) of pictures and texts, the logarithm of the scale, and which captions are true of which."""

    def features(batch: int, width: int) -> tuple[Tensor, Tensor]:
        return tuple(torch.randn(2, batch, width, generator=generator) * 3 + 0.3)

    yield Case("three pairs", *features(3, 5), torch.tensor(1.3), None)
    yield Case("five pairs, a scale below 1", *features(5, 2), torch.tensor(-0.4), None)
    equal = torch.tensor([[0, 1, 2, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]).bool() | torch.eye(4).bool()
    yield Case("four pairs, of which some captions fit other pictures, too", *features(4, 6), torch.tensor(0.7), equal)
    none = torch.eye(3, dtype=torch.bool)
    yield Case("`same` is given, but no caption fits another picture", *features(3, 4), torch.tensor(2.0), none)
    some = torch.tensor([[1, 0, 0, 1, 0], [0, 1, 0, 0, 0], [1, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 1, 0, 0, 1]]).bool()
    yield Case("five pairs, with `same`", *features(5, 7), torch.tensor(1.0), some)
    yield Case("two pairs", *features(2, 9), torch.tensor(2.7), None)


EXERCISES = (
    Exercise("07.merge_pair", merge_pair, spellings, difficulty=1, minutes=6, box="tokenizer"),
    Exercise("07.causal_mask", causal_mask, windows, difficulty=1, minutes=4, run=attention_with, box="text encoder"),
    Exercise(
        "07.text_layer",
        TextLayer,
        layers,
        difficulty=1,
        minutes=5,
        part="text_layer",
        box="text encoder",
        gradients=True,
    ),
    Exercise(
        "07.contrastive_loss",
        contrastive_loss,
        matches,
        difficulty=2,
        minutes=10,
        box="text encoder",
        gradients=True,
    ),
    Exercise(
        "07.most_frequent_pair",
        most_frequent_pair,
        counted_words,
        difficulty=2,
        minutes=8,
        run=pair_of,
        box="tokenizer",
        core=False,
    ),
    Exercise(
        "07.merge",
        Tokenizer.merge,
        words_to_merge,
        difficulty=2,
        minutes=10,
        part="tokenizer",
        box="tokenizer",
        core=False,
    ),
)
