"""New words: the same ids and pictures as Diffusers', and nothing else in the model changes."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from hypothesis import example, given, settings
from hypothesis import strategies as st
from side_by_side import both
from torch import Tensor

from sdlearn.adapters.textual_inversion import WithWords, add_word, remove_words
from sdlearn.lessons.check import assert_parity
from sdlearn.pipeline import StableDiffusion
from sdlearn.storage.load import load
from sdlearn.storage.save import save
from sdlearn.storage.textual_inversion import save_embedding
from sdlearn.tokenizer import Tokenizer

PROMPTS = [
    "<Toy>",
    "a <toy> on a blue background",
    "a small<toy>s, <TOY>'s owl",
    "a sty-le of <toy2> and <toy>",
    "STY-LE apple " * 30,  # too long
    "no new word",
]


def vectors(count: int, width: int = 32, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn((count, width), generator=torch.Generator().manual_seed(seed)).double()


@pytest.fixture
def model(tiny_folder: Path) -> StableDiffusion:
    return load(tiny_folder, dtype=torch.float64)


@pytest.mark.filterwarnings("ignore:a prompt has more than")
def test_equals_diffusers(tiny_folder: Path, tmp_path: Path) -> None:
    """Words of one vector and of three, found in capitals, inside words, and where one begins like another."""
    ours, theirs = both(tiny_folder, StableDiffusionPipeline, "ddim")
    for i, (word, count) in enumerate({"<toy>": 1, "<toy2>": 1, "sty-le": 3}.items()):
        add_word(ours, word, vectors(count, seed=i))
        save_embedding(tmp_path / f"{i}.safetensors", word, vectors(count, seed=i), torch.float64)
        theirs.load_textual_inversion(tmp_path, weight_name=f"{i}.safetensors")
    # Diffusers writes the further words of a word into the prompt only where it is spelled as in the file.
    prompts = [prompt.replace("STY-LE", "sty-le") for prompt in PROMPTS]
    converted = theirs.maybe_convert_prompt(prompts, theirs.tokenizer)
    expected = theirs.tokenizer(converted, padding="max_length", truncation=True, return_tensors="pt").input_ids
    assert torch.equal(ours.tokenizer(PROMPTS), expected)
    with torch.no_grad():
        context = theirs.encode_prompt(prompts, "cpu", 1, False)[0]
        assert_parity("new words, context", ours.encode_prompt(PROMPTS), context, against="load_textual_inversion")


def test_other_rows_and_ids_stay(model: StableDiffusion) -> None:
    tokenizer, config = model.tokenizer, model.text_encoder.config
    before = {name: value.clone() for name, value in model.text_encoder.state_dict().items()}
    ids = tokenizer(["an owl on a pink background"])
    add_word(model, "<a>", vectors(2))
    add_word(model, "<b>", vectors(1, seed=1)[0])
    embedding = model.text_encoder.text_model.embeddings.token_embedding.weight
    rows = len(before["text_model.embeddings.token_embedding.weight"])
    assert torch.equal(embedding[rows:], torch.cat([vectors(2), vectors(1, seed=1)]))
    assert not embedding.requires_grad
    assert model.text_encoder.config.vocab_size == len(model.tokenizer) == rows + 3
    assert torch.equal(model.tokenizer(["an owl on a pink background"]), ids)
    for name, value in model.text_encoder.state_dict().items():
        assert torch.equal(value[: len(before[name])], before[name]), name
    remove_words(model)
    assert model.tokenizer is tokenizer and model.text_encoder.config == config
    after = model.text_encoder.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    remove_words(model)  # nothing is left to remove


@settings(max_examples=100, deadline=None)
@given(st.text())
@example("<|endoftext|>\u0338 toy!")
def test_texts_without_new_words_have_the_ids_they_had(tiny_folder: Path, text: str) -> None:
    tokenizer = Tokenizer.from_folder(tiny_folder / "tokenizer")
    assert WithWords(tokenizer, {"<toy>": [600, 601], "<été>": [602]}).encode(text) == tokenizer.encode(text)


def test_ids_are_the_new_rows_even_if_there_were_more_rows_than_tokens(model: StableDiffusion) -> None:
    rows = model.text_encoder.config.vocab_size
    add_word(model, "<a>", vectors(1))
    model.tokenizer = model.tokenizer.tokenizer  # the row stays, unused
    add_word(model, "<b>", vectors(1))
    assert model.tokenizer.encode("<b>") == [rows + 1]


def test_decode_and_cut_off_text(model: StableDiffusion) -> None:
    add_word(model, "<été>", vectors(2))
    first = model.text_encoder.config.vocab_size - 2
    assert model.tokenizer.encode("<ÉTÉ> owl")[:2] == [first, first + 1]
    assert model.tokenizer.encode("<e\u0301te\u0301>") == [first, first + 1]  # another way to write the same letters
    assert model.tokenizer.decode(model.tokenizer.encode("<été> owl")) == "<été> <été>_1 owl"
    assert model.tokenizer.truncated("<été> " * 40) == "<été>_1 <été> <été>_1 <été> <été>_1"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("owl", "is in the vocabulary; choose one that isn't, such as '<owl>'"),
        ("OWL", "is in the vocabulary"),
        ("o", "is in the vocabulary"),
        ("<There>", "is there already"),
        ("", "must not be empty"),
        (" <x>", "nor begin or end with a space"),
        ("a<|endoftext|>", "must not contain '<|endoftext|>'"),
    ],
)
def test_refused_words(model: StableDiffusion, word: str, message: str) -> None:
    add_word(model, "<there>", vectors(1))
    tokenizer, rows = model.tokenizer, model.text_encoder.config.vocab_size
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        add_word(model, word, vectors(1))
    assert model.tokenizer is tokenizer and model.text_encoder.config.vocab_size == rows


def test_a_piece_of_a_word_is_refused(model: StableDiffusion) -> None:
    piece = next(token for token in model.tokenizer.vocab if len(token) > 1 and token.isalpha())
    with pytest.raises(ValueError, match=f"the word '{piece}' is in the vocabulary"):
        add_word(model, piece, vectors(1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(2, 48), r"have the shape \(2, 48\) and are torch.float32; .* floats \(32,\) or \(n, 32\)"),
        (torch.zeros(0, 32), "shape"),
        (torch.zeros(1, 1, 32), "shape"),
        (torch.zeros(1, 32, dtype=torch.long), "torch.int64"),
        (torch.full((1, 32), float("nan")), "NaN"),
    ],
)
def test_refused_vectors(model: StableDiffusion, values: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        add_word(model, "<x>", values)


def test_a_model_with_new_words_is_not_saved(model: StableDiffusion, tmp_path: Path) -> None:
    add_word(model, "<x>", vectors(1))
    with pytest.raises(ValueError, match="has new words, <x>"):
        save(model, tmp_path / "model")
    remove_words(model)
    save(model, tmp_path / "model")
