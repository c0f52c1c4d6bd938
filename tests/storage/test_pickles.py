"""Files of torch.save: what old programs left in them is read, and whatever could do harm is refused by name."""

import argparse
import codecs
import io
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sdlearn.storage.pickles import Empty, load_pickle, read_tensors
from sdlearn.storage.weights import is_safetensors, map_file


def stand_in(patch: pytest.MonkeyPatch, module: str, name: str, base: type = object) -> Any:
    """An object of another program's class, as far as a pickle shows it."""
    made = type(name, (base,), {"__module__": module})
    parts = module.split(".")
    for i in range(len(parts)):
        patch.setitem(sys.modules, ".".join(parts[: i + 1]), types.ModuleType(parts[i]))
    patch.setattr(sys.modules[module], name, made, raising=False)
    return made()


def test_harmless_objects_of_old_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy's numbers and arrays, and settings, which some training programs store beside the weights."""
    settings = stand_in(monkeypatch, "pytorch_lightning.utilities.parsing", "AttributeDict", dict)
    settings["learning_rate"] = 1e-4
    callback = stand_in(monkeypatch, "pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
    callback.best = 0.5
    content = {
        "global_step": np.int64(470_000),
        "loss": np.float32(0.25),
        "seen": np.arange(3),
        "done": np.bool_(True),
        "names": np.array(["a", "b"]),
        "anything": np.array([1, "a", None], dtype=object),
        "dtype": np.dtype("f4"),
        "callbacks": {callback: defaultdict(dict, a=OrderedDict(b=1))},
        "hyper_parameters": settings,
        "arguments": argparse.Namespace(steps=3),
        "config": stand_in(monkeypatch, "omegaconf.dictconfig", "DictConfig"),
        "state_dict": {"x": torch.ones(2), 5: torch.zeros(1), "note": "a text"},
    }
    torch.save(content, tmp_path / "a.ckpt")
    assert load_pickle(tmp_path / "a.ckpt")["hyper_parameters"] == {"learning_rate": 1e-4}
    assert list(read_tensors(tmp_path / "a.ckpt")) == ["x"]  # neither the text, nor the key that is no text


def test_the_names_of_numpy_1(tmp_path: Path) -> None:
    torch.save({"step": np.float64(2.5), "seen": np.ones(2), "x": torch.ones(2)}, tmp_path / "a.ckpt")
    old = zipfile.ZipFile(tmp_path / "a.ckpt")
    with zipfile.ZipFile(tmp_path / "b.ckpt", "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert list(read_tensors(tmp_path / "b.ckpt")) == ["x"]


def test_numpy_is_named_but_nothing_of_it_is_made(tmp_path: Path) -> None:
    """A dtype from a pickle could make NumPy read addresses from the file. So neither it nor an array is made."""
    torch.save({"a": np.arange(3), "b": np.dtype("f4"), "c": np.float64(1)}, tmp_path / "a.ckpt")
    assert [type(value) for value in load_pickle(tmp_path / "a.ckpt").values()] == [Empty] * 3


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.parts = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "posix.system"), (eval, "eval"), (codecs.decode, "codecs.decode"), (Path, "Path"), (print, "print")],
)
@pytest.mark.parametrize("plain", [False, True])
def test_functions_are_refused_by_name(
    plain: bool, function: Callable[..., Any], name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file, bomb = tmp_path / "a.ckpt", {"x": Calls(function, "echo boom")}
    if plain:
        file.write_bytes(pickle.dumps(bomb, protocol=2))
    else:
        torch.save(bomb, file)
    with pytest.raises(
        ValueError, match=rf"a\.ckpt needs \S*{name}, which is not on the list .* nothing was run"
    ) as error:
        load_pickle(file)
    assert "weights_only" not in str(error.value) and "trust" not in str(error.value)  # PyTorch's advice
    assert "boom" not in "".join(capfd.readouterr())


def test_a_dictionary_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, Any] = {"x": torch.zeros(1)}
    content["state_dict"] = content
    torch.save(content, tmp_path / "a.ckpt")
    assert list(read_tensors(tmp_path / "a.ckpt")) == ["x"]


def test_a_compressed_zip(tmp_path: Path) -> None:
    """Mapped into memory, its tensors would be garbage; and a few bytes could become gigabytes."""
    torch.save({"x": torch.zeros(1000)}, tmp_path / "a.ckpt")
    old = zipfile.ZipFile(tmp_path / "a.ckpt")
    with zipfile.ZipFile(tmp_path / "b.ckpt", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ValueError, match=r"b\.ckpt is a compressed zip, which torch\.save never writes"):
        load_pickle(tmp_path / "b.ckpt")


OLD = io.BytesIO()
torch.save({"x": torch.zeros(8)}, OLD, _use_new_zipfile_serialization=False)
CONTENTS = [b"", b"PK\x03\x04", b"no tensors", b"\x80\x02.", pickle.dumps([1, "a"]), bytes(99), bytes(10_000)]
CONTENTS += [OLD.getvalue()[:size] for size in (1, 20, 40, 60, 100, 200, 300)]


@pytest.mark.parametrize("content", CONTENTS)
def test_other_files(content: bytes, tmp_path: Path) -> None:
    """A file that is cut off, or of another kind: what PyTorch says about it, and advises, is not passed on."""
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.ckpt (is damaged|holds)") as error:
        read_tensors(tmp_path / "a.ckpt")
    assert "weights_only" not in str(error.value) and "\n" not in str(error.value)


def test_the_first_bytes_decide_and_not_the_name(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.ones(2)}, tmp_path / "a.ckpt")
    torch.save({"y": torch.ones(3)}, tmp_path / "b.PT")
    assert is_safetensors(tmp_path / "a.ckpt") and not is_safetensors(tmp_path / "b.PT")
    assert map_file(tmp_path / "a.ckpt")[0] == {"x": (2,)} and map_file(tmp_path / "b.PT")[0] == {"y": (3,)}
    stream = io.BytesIO()
    torch.save({"y": torch.ones(3)}, stream)
    (tmp_path / "c.safetensors").write_bytes(stream.getvalue())
    with pytest.raises(ValueError, match=r"c\.safetensors is damaged or not a safetensors file"):
        map_file(tmp_path / "c.safetensors")
