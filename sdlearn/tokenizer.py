"""CLIP's tokenizer: text in, the numbers of word pieces out.

A word is spelled in bytes, and pairs of neighbours are merged in the order in which training found them useful. So
common words become one token, rare words several, and nothing is ever unknown.

Sources: "Neural Machine Translation of Rare Words with Subword Units" (byte-pair encoding, arXiv 1508.07909,
algorithm 1); bytes: "Language Models are Unsupervised Multitask Learners" (GPT-2, section 2.2); CLIP (arXiv 2103.00020,
section 2.4).
"""

import gzip
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from sdlearn.files import atomic_write, read_json

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
CLIP_MERGES = Path(__file__).with_name("clip_merges.txt.gz")  # OpenAI's, see NOTICE
Pair = tuple[str, str]


def byte_symbols() -> dict[int, str]:
    """A visible character for each byte, in the order of CLIP's vocabulary: visible bytes stand for themselves.

    The others (control characters, space and so on) come last and get the characters from U+0100 on.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + i) for i, byte in enumerate(others)}


SYMBOL_OF_BYTE = byte_symbols()
BYTES_OF_SYMBOL = {symbol: bytes([byte]) for byte, symbol in SYMBOL_OF_BYTE.items()}

# Unicode's white space. Python also counts U+001C to U+001F; CLIP's regular expressions don't.
WHITE_SPACE = {*"\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000", *map(chr, range(0x2000, 0x200B))}

# Letters, numbers and capitals added to Unicode since version 14, which Python 3.11 has. With them the ids don't
# depend on the version of Python.
NEW_LETTERS = """1C89-1C8A A7CB-A7CD A7DA-A7DC 105C0-105F3 10D4A-10D65 10D6F-10D85 10EC2-10EC4 1123F-11240 11380-11389
    1138B-1138B 1138E-1138E 11390-113B5 113B7-113B7 113D1-113D1 113D3-113D3 11BC0-11BE0 11F02-11F02 11F04-11F10
    11F12-11F33 1342F-1342F 13441-13446 13460-143FA 16100-1611D 16D40-16D6C 18CFF-18CFF 1B132-1B132 1B155-1B155
    1DF25-1DF2A 1E030-1E06D 1E4D0-1E4EB 1E5D0-1E5ED 1E5F0-1E5F0 2B739-2B739 2EBF0-2EE5D 31350-323AF"""
NEW_NUMBERS = """10D40-10D49 116D0-116E3 11BF0-11BF9 11F50-11F59 16130-16139 16D70-16D79 1CCF0-1CCF9 1D2C0-1D2D3
    1E4F0-1E4F9 1E5F1-1E5FA"""
NEW_KINDS = [
    (int(first, 16), int(last, 16), kind)
    for kind, ranges in (("L", NEW_LETTERS), ("N", NEW_NUMBERS))
    for first, last in (span.split("-") for span in ranges.split())
]
NEW_CAPITALS = (
    {0xA7CB: 0x264, 0xA7DC: 0x19B}
    | {capital: capital + 1 for capital in (0x1C89, 0xA7CC, 0xA7CE, 0xA7D2, 0xA7D4, 0xA7DA)}
    | {capital: capital + 32 for capital in range(0x10D50, 0x10D66)}
    | {capital: capital + 27 for capital in range(0x16EA0, 0x16EB9)}
)


def normalize(text: str) -> str:
    """Compose accents (NFC), then lowercase each character by itself.

    So "ΑΣ" becomes "ασ"; Python's `lower` looks at the whole word and returns "ας".
    """
    composed = unicodedata.normalize("NFC", text).translate(NEW_CAPITALS)
    return "".join(character.lower() for character in composed)


def kind(character: str) -> str:
    """ "S" for white space, "L" for a letter, "N" for a number, "O" for any other character."""
    if character in WHITE_SPACE:
        return "S"
    category = unicodedata.category(character)
    if category == "Cn":  # not known to this version of Python
        return next((kind for first, last, kind in NEW_KINDS if first <= ord(character) <= last), "O")
    return category[0] if category[0] in "LN" else "O"


LITERAL = re.compile(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d")
RUN = re.compile("L+|N|O+|S+")  # matches kinds, not characters


def split_words(text: str) -> Iterator[str]:
    """Cut normalised text into words: runs of letters, single digits, runs of other characters, endings such as 's."""
    kinds = "".join(map(kind, text))  # "it's 3!" -> "LLOLSNO"
    position = 0
    while position < len(text):
        match = LITERAL.match(text, position) or RUN.match(kinds, position)
        word = text[match.start() : match.end()]
        if kinds[position] == "S":
            pass  # white space only separates
        elif match.re is LITERAL and word.startswith("<"):
            yield from (
                word[:2],
                word[2:-2],
                word[-2:],
            )  # "<|", "startoftext", "|>": cut once more, as CLIPTokenizer does
        else:
            yield word
        position = match.end()


def spell(word: str) -> list[str]:
    """The word as one symbol for each byte of its UTF-8 form; the last one is marked as the end of the word."""
    *symbols, last = (SYMBOL_OF_BYTE[byte] for byte in word.encode())
    return [*symbols, last + END_OF_WORD]


def make_vocabulary(merges: Iterable[Pair]) -> dict[str, int]:
    """CLIP's vocabulary: the bytes, the bytes that end a word, one token for each merge, begin and end of the text."""
    symbols = list(SYMBOL_OF_BYTE.values())
    tokens = [*symbols, *(symbol + END_OF_WORD for symbol in symbols), *(left + right for left, right in merges)]
    return {token: i for i, token in enumerate(dict.fromkeys([*tokens, BOS, EOS]))}


class Tokenizer:
    """Byte-pair encoding with CLIP's rules. Returns the same ids as Transformers' CLIPTokenizer for the same files.

    One difference is intended: with SD 1's files on the hub it also finds `<|startoftext|>` in capitals; ours doesn't.

    Args:
        vocab: token -> id. Must hold `<|startoftext|>`, `<|endoftext|>` and `pad_token`.
        merges: pairs of tokens, the ones to merge first come first.
        max_length: number of ids in a row, begin and end included.
        pad_token: fills a row after its end. SD 1 and the bundled model pad with the end token, SD 2 with "!".
        pad_is_a_word: typed in a text, the padding token is a word like any other, as in OpenCLIP's program; else it
            stands for padding there too, as in Transformers.

    Raises:
        ValueError: the vocabulary lacks a special token or a token of a merge, or `max_length` is too small.
    """

    def __init__(
        self,
        vocab: dict[str, int],
        merges: list[Pair],
        max_length: int = 77,
        pad_token: str = EOS,
        pad_is_a_word: bool = False,
    ) -> None:
        needed = [BOS, EOS, pad_token, *(token for left, right in merges for token in (left, right, left + right))]
        missing = [token for token in needed if token not in vocab]
        if missing:
            raise ValueError(f"the vocabulary lacks {len(missing)} of the tokens it needs; the first is {missing[0]!r}")
        if max_length < 2:
            raise ValueError(f"max_length = {max_length} leaves no room for begin and end; accepted: 2 or more")
        self.vocab, self.merges, self.max_length, self.pad_token = vocab, merges, max_length, pad_token
        self.token_of_id = {i: token for token, i in vocab.items()}
        self.rank = {pair: rank for rank, pair in enumerate(merges)}
        self.specials = {BOS, EOS} if pad_is_a_word else {BOS, EOS, pad_token}
        self.split_specials = re.compile("(" + "|".join(map(re.escape, sorted(self.specials))) + ")").split
        self.cache: dict[str, list[int]] = {}  # word -> ids

    def __len__(self) -> int:
        """The number of tokens in the vocabulary."""
        return len(self.vocab)

    def merge(self, word: str) -> list[str]:
        """The tokens of one word: again and again, merge the two neighbours that training merged first."""
        tokens = [symbol if symbol in self.vocab else EOS for symbol in spell(word)]  # EOS also means "unknown"
        never = len(self.merges)
        while len(tokens) > 1:
            rank, i = min((self.rank.get(pair, never), i) for i, pair in enumerate(pairwise(tokens)))
            if rank == never:
                break
            tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
        return tokens

    def encode_word(self, word: str) -> list[int]:
        """The ids of one word, computed once."""
        if word not in self.cache:
            self.cache[word] = [self.vocab[token] for token in self.merge(word)]
        return self.cache[word]

    def encode(self, text: str) -> list[int]:
        """The ids of the text, not cut, without begin and end. Special tokens typed in the text are recognised."""
        ids: list[int] = []
        for piece in self.split_specials(text):
            if piece in self.specials:
                ids.append(self.vocab[piece])
            else:
                ids += [i for word in split_words(normalize(piece)) for i in self.encode_word(word)]
        return ids

    def __call__(self, texts: str | list[str]) -> Tensor:
        """Texts -> ids (B, max_length), a row for each."""
        rows = [self.row(text) for text in ([texts] if isinstance(texts, str) else texts)]
        return torch.stack(rows) if rows else torch.empty(0, self.max_length, dtype=torch.long)

    def row(self, text: str) -> Tensor:
        """A text -> ids (T,), where T is max_length: begin, the text (cut where it is too long), end, padding."""
        begin, end, padding = self.vocab[BOS], self.vocab[EOS], self.vocab[self.pad_token]
        ids = [begin, *self.encode(text)[: self.max_length - 2], end]
        return torch.tensor(ids + [padding] * (self.max_length - len(ids)))

    def truncated(self, text: str) -> str:
        """The end of the text, which exceeds `max_length` and is never seen by the model; "" if all of it fits."""
        return self.decode(self.encode(text)[self.max_length - 2 :])

    def decode(self, ids: Iterable[int] | Tensor) -> str:
        """The text of the ids: in lower case, a space after each word, without special tokens.

        Raises:
            ValueError: an id is not in the vocabulary.
        """
        ids = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        unknown = [i for i in ids if i not in self.token_of_id]
        if unknown:
            raise ValueError(f"the id {unknown[0]} is not in the vocabulary, which holds {len(self)} tokens")
        tokens = [self.token_of_id[i] for i in ids]
        symbols = "".join(token for token in tokens if token not in self.specials)
        text = b"".join(BYTES_OF_SYMBOL.get(symbol, symbol.encode()) for symbol in symbols).decode(errors="replace")
        return text.replace(END_OF_WORD, " ").strip()

    @classmethod
    def clip(cls, pad_token: str = EOS) -> Self:
        """CLIP's own vocabulary of 49,408 tokens, which Stable Diffusion 1 and 2 have. SD 2 pads with "!", id 0.

        That is the original programs' tokenizer: a "!" in a text is the word "!".
        """
        merges = [tuple(line.split()) for line in gzip.decompress(CLIP_MERGES.read_bytes()).decode().splitlines()]
        return cls(make_vocabulary(merges), merges, pad_token=pad_token, pad_is_a_word=True)

    @classmethod
    def from_folder(cls, folder: str | Path) -> Self:
        """Read the `tokenizer/` folder of a Diffusers model: vocab.json and merges.txt, or tokenizer.json alone.

        Raises:
            FileNotFoundError: the folder holds neither.
            ValueError: a file is not JSON, lacks a key, a line of merges.txt is broken, or begin and end don't have
                CLIP's names.
        """
        folder = Path(folder)
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            vocab = read_json(folder / "vocab.json")
            lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
            merges = [tuple(line.split()) for line in lines if line.strip() and not line.startswith("#version")]
        elif (folder / "tokenizer.json").is_file():
            model = read_json(folder / "tokenizer.json").get("model", {})
            if missing := {"vocab", "merges"} - set(model):
                raise ValueError(f"{folder / 'tokenizer.json'} lacks {' and '.join(sorted(missing))} of its model")
            vocab, merges = model["vocab"], [tuple(m.split() if isinstance(m, str) else m) for m in model["merges"]]
        else:
            raise FileNotFoundError(f"{folder} needs vocab.json and merges.txt, or tokenizer.json, and holds neither")
        for merge in merges:
            if len(merge) != 2:
                raise ValueError(f"{folder}: the merge {' '.join(merge)!r} is not two tokens with a space between")

        settings, tokens = folder / "tokenizer_config.json", folder / "special_tokens_map.json"  # may be missing
        config = read_json(settings) if settings.is_file() else {}
        if "added_tokens_decoder" not in config and tokens.is_file():  # the newer kind holds everything
            config |= read_json(tokens)
        special = {name: config.get(name) or usual for name, usual in SPECIAL_TOKENS.items()}
        special = {name: token.get("content") if isinstance(token, dict) else token for name, token in special.items()}
        if wrong := {name: token for name, token in special.items() if not isinstance(token, str)}:
            raise ValueError(f"{folder}: {wrong} in the settings of the tokenizer; accepted: texts")
        for name in ("bos_token", "eos_token"):
            if special[name] != SPECIAL_TOKENS[name]:
                raise ValueError(
                    f"{folder}: {name} = {special[name]!r} is not supported; accepted: {SPECIAL_TOKENS[name]!r}"
                )
        max_length = config.get("model_max_length", 77)
        if isinstance(max_length, bool) or not isinstance(max_length, int | float) or not max_length >= 2:
            raise ValueError(f"{settings}: model_max_length = {max_length!r}, must be a number of 2 or more")
        max_length = 77 if max_length > 10**6 else int(max_length)  # 10^30 stands for "not given"
        return cls(vocab, merges, max_length, special["pad_token"])

    def save(self, folder: str | Path) -> None:
        """Write the `tokenizer/` folder of a Diffusers model, which Transformers' CLIPTokenizer reads."""
        special = {**SPECIAL_TOKENS, "pad_token": self.pad_token}
        config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": self.max_length, **special}
        files = {
            "vocab.json": json.dumps(self.vocab, ensure_ascii=False),
            "merges.txt": "\n".join(["#version: 0.2", *map(" ".join, self.merges), ""]),
            "tokenizer_config.json": json.dumps(config, indent=2),
            "special_tokens_map.json": json.dumps(special, indent=2),
        }
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            with atomic_write(Path(folder) / name) as temporary:
                temporary.write_text(text, encoding="utf-8", newline="\n")


SPECIAL_TOKENS = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": EOS}


def train_bpe(texts: Iterable[str], vocab_size: int, max_length: int = 77) -> Tokenizer:
    """Learn merges from texts (arXiv 1508.07909, algorithm 1), and build the tokenizer.

    Starts with the bytes and merges the most frequent pair of neighbours inside words, until the vocabulary holds
    `vocab_size` tokens or every word is one token. Ties go to the first in alphabetical order,
    so the same texts give the same tokenizer.

    Raises:
        ValueError: `vocab_size` is below 514: the bytes, the bytes that end a word, begin and end.
    """
    vocab = make_vocabulary([])
    if vocab_size < len(vocab):
        raise ValueError(f"vocab_size = {vocab_size} is too small: bytes and special tokens alone are {len(vocab)}")
    counts = Counter(word for text in texts for word in split_words(normalize(text)))
    words = [(spell(word), count) for word, count in counts.items()]
    merges: list[Pair] = []
    while len(vocab) < vocab_size and (best := most_frequent_pair(words)):
        merges.append(best)
        vocab.setdefault("".join(best), len(vocab))
        words = [(merge_pair(tokens, best), count) for tokens, count in words]
    return Tokenizer(make_vocabulary(merges), merges, max_length)


def most_frequent_pair(words: Iterable[tuple[list[str], int]]) -> Pair | None:
    """The two neighbouring tokens that occur most often. None if every word is one token.

    words: tokens, and how often this word occurs. Of equally frequent pairs it is the first in alphabetical order.
    """
    frequency = Counter()
    for tokens, count in words:
        for pair in pairwise(tokens):
            frequency[pair] += count
    return min(frequency, key=lambda pair: (-frequency[pair], pair), default=None)


def merge_pair(tokens: list[str], pair: Pair) -> list[str]:
    """The tokens of a word in which every occurrence of `pair`, from left to right, has become one token."""
    merged = []
    for token in tokens:
        merged.append(token)
        if tuple(merged[-2:]) == pair:
            merged[-2:] = ["".join(pair)]
    return merged
