"""Files of torch.save, which are pickles: reading what is harmless in them, and refusing all else by name.

A pickle can name any function, to be called when it is opened. PyTorch's reader (`weights_only=True`) calls none but
those of a short list. Old checkpoints hold a few objects more beside their tensors. They are named here, and not one of
them is made: something empty stands for each.
"""

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sdlearn.files import shown


class Empty:
    """Stands for an object that nothing here needs: whatever a file says about it is ignored."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class EmptyDict:
    """Stands for a dictionary of a class of its own, such as a defaultdict: it is made as a plain one."""

    def __new__(cls, *_: Any) -> dict[Any, Any]:
        return {}


# NumPy's numbers and arrays, under the names of NumPy 1 and of NumPy 2; what training programs keep of their settings.
OBJECTS = (
    *("numpy.dtype", "numpy.ndarray"),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint", "argparse.Namespace", "typing.Any"),
    *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig", "omegaconf.nodes.AnyNode"),
    *("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata"),
)
DICTIONARIES = (
    *("collections.defaultdict", "pytorch_lightning.utilities.parsing.AttributeDict"),
    *("lightning_fabric.utilities.data.AttributeDict", "lightning.fabric.utilities.data.AttributeDict"),
)
# `dict` and `list` are what defaultdicts and settings are made with.
HARMLESS = [(Empty, name) for name in OBJECTS] + [(EmptyDict, name) for name in DICTIONARIES] + [dict, list]

WANTED = re.compile(r"(?:GLOBAL|Unsupported class) (\S+)")
# What damaged pickles lead to. A RecursionError: data nested thousands of times.
DAMAGE = (
    *(RuntimeError, EOFError, KeyError, IndexError, AttributeError, TypeError, ValueError, AssertionError),
    *(OverflowError, MemoryError, zipfile.BadZipFile, struct.error, pickle.UnpicklingError),
)


def load_pickle(file: Path, allowed: Sequence[Any] = ()) -> Any:
    """What a file of torch.save holds, with its tensors memory-mapped: plain data, and objects of allowed classes.

    Nothing in the file is run. What PyTorch says about a file is not passed on: it advises to open it unsafely.

    Raises:
        ValueError: the file is damaged, of another kind, compressed, or needs something that isn't on the list.
    """
    check_zip(file)
    try:
        with torch.serialization.safe_globals([*HARMLESS, *allowed]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about other versions of the format
            return torch.load(file, map_location="cpu", mmap=zipfile.is_zipfile(file), weights_only=True)
    except DAMAGE as error:
        if wanted := WANTED.search(str(error)):
            name = shown(wanted[1].strip("`'\""))
            raise ValueError(
                f"{file} needs {name}, which is not on the list of harmless names; refused, nothing was run"
            ) from error
        raise ValueError(
            f"{file} is damaged, or no file of torch.save with tensors and plain values; nothing was run"
        ) from error


def check_zip(file: Path) -> None:
    """Raises ValueError for a zip whose entries are compressed: torch.save never does that, and reads garbage from it.

    Nor may they be larger than the file. Both together are how a small file fills the memory.
    """
    if not zipfile.is_zipfile(file):
        return
    try:
        entries = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise ValueError(f"{file} is damaged: its table of contents can't be read") from error
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
