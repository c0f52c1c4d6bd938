"""Files of torch.save, which are pickles: reading what is harmless in them, and refusing all else by name.

A pickle can name any function, to be called when it is opened. PyTorch's reader (`weights_only=True`) calls none but
those of a short list. Old checkpoints hold a few harmless objects more, which are added to it here.
"""

import codecs
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray  # what NumPy's own pickles name

# NumPy's numbers and arrays, under the names of NumPy 1 and of NumPy 2.
NUMPY = [np.dtype, np.ndarray, *{type(np.dtype(one)) for one in "?bhilqBHILQefdSU"}]
for one in (multiarray.scalar, multiarray._reconstruct):
    NUMPY += [(one, f"{module}.multiarray.{one.__name__}") for module in ("numpy.core", "numpy._core")]
# The files of SD 1 also hold a callback object from their training. It becomes an empty one.
WATCHER = type("ModelCheckpoint", (), {"__module__": "pytorch_lightning.callbacks.model_checkpoint"})


def plain_dict(*factory: type) -> dict[Any, Any]:
    """What stands for a defaultdict, which PyTorch's reader can't fill."""
    return {}


HARMLESS = [*NUMPY, codecs.encode, (plain_dict, "collections.defaultdict"), OrderedDict, dict, WATCHER]

GLOBAL = re.compile(r"(?:GLOBAL|Unsupported class|Can only build Tensor, .* got) (\S+)")


def load_pickle(file: Path, allowed: Sequence[Any] = ()) -> Any:
    """What a file of torch.save holds, with its tensors memory-mapped: data, and objects of harmless classes.

    Nothing in the file is run. allowed: further classes.

    Raises:
        ValueError: the file is damaged, of another kind, compressed, or needs something that isn't on the list.
    """
    check_zip(file)
    try:
        with torch.serialization.safe_globals([*HARMLESS, *allowed]):
            return torch.load(file, map_location="cpu", mmap=zipfile.is_zipfile(file), weights_only=True)
    except pickle.UnpicklingError as error:  # its text advises to open the file unsafely: it is not passed on
        if wanted := GLOBAL.search(str(error)):
            name = wanted[1].strip("`'\"")
            raise ValueError(
                f"{file} needs {name}, which is not on the list of harmless names; refused, nothing was run"
            ) from error
        raise ValueError(f"{file} is damaged, or holds more than tensors and plain values; nothing was run") from error
    except DAMAGE as error:
        raise ValueError(f"{file} is damaged, or not a torch.save file: {first_sentence(error)}") from error


# What damaged pickles lead to. A RecursionError: data nested thousands of times.
DAMAGE = (
    *(RuntimeError, EOFError, KeyError, IndexError, AttributeError, TypeError, ValueError, AssertionError),
    *(UnicodeDecodeError, OverflowError, MemoryError, struct.error, zipfile.BadZipFile),
)


def first_sentence(error: BaseException) -> str:
    """An error's text without what PyTorch adds about its own program, and without advice to read the file unsafely."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines and "weights_only" not in lines[0] else type(error).__name__)[:200]


def check_zip(file: Path) -> None:
    """Raises ValueError for a zip whose entries are compressed: torch.save never does that, and reads garbage from it.

    Nor may they be larger than the file. Both together are how a small file fills the memory.
    """
    if not zipfile.is_zipfile(file):
        return
    try:
        entries = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{file} is damaged, or not a torch.save file: {first_sentence(error)}") from error
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError(f"{file} is a compressed zip, which torch.save never writes; unpack and save it again")
    if sum(entry.file_size for entry in entries) > file.stat().st_size:
        raise ValueError(f"{file} is damaged: its entries are larger than the file")


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """The tensors in a file of torch.save, by name. They can be in a dictionary "state_dict"; all else is left out.

    Raises:
        ValueError: see `load_pickle`; or the file doesn't hold a dictionary.
    """
    content = load_pickle(file)
    for _ in range(3):  # in a hostile file, a dictionary can hold itself
        if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
            content = content["state_dict"]
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds {type(content).__name__}, must hold a dictionary of tensors")
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    return {name: value.detach() for name, value in tensors.items() if isinstance(name, str)}
