"""Textual inversion: a new word, whose vectors in the text encoder's first layer are all that was trained.

Source: "An Image is Worth One Word: Personalizing Text-to-Image Generation using Textual Inversion" (arXiv 2208.01618,
section 3).
"""

import re
import unicodedata
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sdlearn.tokenizer import END_OF_WORD, Tokenizer, normalize, spell

if TYPE_CHECKING:
    from sdlearn.pipeline import StableDiffusion


class WithWords(Tokenizer):
    """A tokenizer that also finds new words, each of which stands for one id or more.

    They are found in capitals and inside other words too, as in Diffusers. `tokenizer` is the one without them.
    """

    def __init__(self, tokenizer: Tokenizer, words: dict[str, list[int]]) -> None:
        pieces = {f"{word}_{i}" if i else word: ids[i] for word, ids in words.items() for i in range(len(ids))}
        vocab = tokenizer.vocab | {"".join(spell(piece)): i for piece, i in pieces.items()}
        super().__init__(vocab, tokenizer.merges, tokenizer.max_length, tokenizer.pad_token)
        self.tokenizer, self.words = tokenizer, words
        forms = {unicodedata.normalize(form, word) for word in words for form in ("NFC", "NFD")}  # é as one or as two
        longest_first = "|".join(map(re.escape, sorted(forms, key=len, reverse=True)))
        self.split = re.compile(f"({longest_first})", re.IGNORECASE).split

    def encode(self, text: str) -> list[int]:
        """The ids of the text: those of the new words, and what the tokenizer makes of the pieces between them."""
        pieces = self.split(text)
        return [i for piece in pieces for i in self.words.get(normalize(piece)) or self.tokenizer.encode(piece)]


def add_word(model: "StableDiffusion", word: str, vectors: Tensor) -> None:
    """Teach a model a word: vectors (C,) or (n, C), as wide as its text encoder, become new rows of the embedding.

    The other rows stay as they are. In a prompt a word takes as many of the 75 places as it has vectors.

    Raises:
        ValueError: the model knows the word already, it is empty, or the vectors don't fit.
    """
    check_word(model.tokenizer, word)
    embeddings, width = model.text_encoder.text_model.embeddings, model.text_encoder.config.hidden_size
    check_vectors(word, vectors, width)
    old = embeddings.token_embedding.weight  # (V, C)
    rows = torch.cat([old.detach(), vectors.reshape(-1, width).to(old)])  # (V + n, C)
    words = getattr(model.tokenizer, "words", {}) | {normalize(word): list(range(len(old), len(rows)))}
    set_rows(model, rows)
    model.tokenizer = WithWords(getattr(model.tokenizer, "tokenizer", model.tokenizer), words)


def remove_words(model: "StableDiffusion") -> None:
    """Take all new words off a model, which is then what it was."""
    if isinstance(model.tokenizer, WithWords):
        first = min(i for ids in model.tokenizer.words.values() for i in ids)
        set_rows(model, model.text_encoder.text_model.embeddings.token_embedding.weight.detach()[:first].clone())
        model.tokenizer = model.tokenizer.tokenizer


def set_rows(model: "StableDiffusion", rows: Tensor) -> None:
    """Give the text encoder these vectors (V, C), one for each token."""
    encoder = model.text_encoder
    trained = encoder.text_model.embeddings.token_embedding.weight.requires_grad
    encoder.text_model.embeddings.token_embedding = nn.Embedding.from_pretrained(rows, freeze=not trained)
    encoder.config = encoder.text_model.config = replace(encoder.config, vocab_size=len(rows))


def check_word(tokenizer: Tokenizer, word: str) -> None:
    """Raises ValueError unless this can be a new word."""
    known = normalize(word)
    if not known.strip() or known != known.strip():
        raise ValueError(f"the word {word!r} must not be empty, nor begin or end with a space")
    if known in getattr(tokenizer, "words", {}):
        raise ValueError(f"the word {word!r} is there already; give the file's vectors another one")
    symbols = "".join(spell(known))
    if symbols in tokenizer.vocab or symbols.removesuffix(END_OF_WORD) in tokenizer.vocab:
        raise ValueError(f"the word {word!r} is in the vocabulary; choose one that isn't, such as '<{word}>'")
    if special := next((token for token in tokenizer.specials if token in known), None):
        raise ValueError(f"the word {word!r} must not contain {special!r}, which has a meaning of its own")


def check_vectors(word: str, vectors: Tensor, width: int) -> None:
    """Raises ValueError unless these are finite floats, (width,) or (n, width)."""
    if not vectors.is_floating_point() or vectors.ndim not in (1, 2) or vectors.shape[-1] != width or not len(vectors):
        shape = tuple(vectors.shape)
        raise ValueError(
            f"the vectors of {word!r} have the shape {shape} and are {vectors.dtype}; this model's text encoder takes "
            f"floats ({width},) or (n, {width})"
        )
    if not vectors.isfinite().all():
        raise ValueError(f"the vectors of {word!r} hold NaN or infinity")
