"""The files of a tokenizer, in the layouts of Transformers: vocabulary, merges, special tokens, the length of a row."""

from pathlib import Path
from typing import Any

from sdlearn.files import read_json, read_text, shown
from sdlearn.tokenizer import SPECIAL_TOKENS, Pair


def read_tokenizer(folder: Path) -> tuple[dict[str, int], list[Pair], int, str]:
    """Vocabulary, merges, max_length and padding token of a `tokenizer/` folder; see `Tokenizer.from_folder`."""
    vocab, merges = read_vocabulary(folder)
    for merge in merges:
        if not isinstance(merge, list) or len(merge) != 2 or not all(isinstance(token, str) for token in merge):
            text = " ".join(map(str, merge)) if isinstance(merge, list) else merge
            raise ValueError(f"{folder}: the merge {shown(repr(text))} is not two tokens with a space between")
    ids = list(vocab.values())
    if not all(type(i) is int for i in ids) or set(ids) != set(range(len(ids))):
        raise ValueError(f"{folder}: the ids of its {len(ids)} tokens must be 0 to {len(ids) - 1}, each once")
    return vocab, [tuple(merge) for merge in merges], *read_settings(folder)


def read_vocabulary(folder: Path) -> tuple[dict[str, Any], list[Any]]:
    """Vocabulary and merges, not checked. In a tokenizer.json a merge is a text or a list of two."""
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        lines = read_text(folder / "merges.txt").split("\n")
        merges = [line.split() for line in lines if line.strip() and not line.startswith("#version")]
        return read_json(folder / "vocab.json"), merges
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} needs vocab.json and merges.txt, or tokenizer.json, and holds neither")
    model = read_json(file).get("model")
    model = model if isinstance(model, dict) else {}
    if missing := {"vocab", "merges"} - set(model):
        raise ValueError(f"{file} lacks {' and '.join(sorted(missing))} of its model")
    if not isinstance(model["vocab"], dict) or not isinstance(model["merges"], list):
        raise ValueError(f"{file}: vocab must be an object, and merges a list")
    return model["vocab"], [merge.split() if isinstance(merge, str) else merge for merge in model["merges"]]


def read_settings(folder: Path) -> tuple[int, str]:
    """max_length and the padding token. A special token is a text, or an object that holds it, or not given."""
    settings, tokens = folder / "tokenizer_config.json", folder / "special_tokens_map.json"  # may be missing
    config = read_json(settings) if settings.is_file() else {}
    if "added_tokens_decoder" not in config and tokens.is_file():  # the newer kind holds everything
        config |= read_json(tokens)
    special = {name: config.get(name) or usual for name, usual in SPECIAL_TOKENS.items()}
    special = {name: token.get("content") if isinstance(token, dict) else token for name, token in special.items()}
    for name, token in special.items():
        fixed = name in ("bos_token", "eos_token")
        if not isinstance(token, str) or (fixed and token != SPECIAL_TOKENS[name]):
            accepted = repr(SPECIAL_TOKENS[name]) if fixed else "a text"
            raise ValueError(f"{folder}: {name} = {shown(repr(token))} is not supported; accepted: {accepted}")
    length = config.get("model_max_length", 77)
    if type(length) not in (int, float) or not length >= 2:
        raise ValueError(f"{settings}: model_max_length = {shown(length)}, must be a number of 2 or more")
    return 77 if length > 10**6 else int(length), special["pad_token"]  # 10^30 stands for "not given"
