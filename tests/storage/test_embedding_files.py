"""Files of textual inversion: Diffusers' and A1111's are read, and Diffusers draws the same picture from ours."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from side_by_side import both
from torch import Tensor, nn

from sdlearn.adapters.textual_inversion import add_word
from sdlearn.diffusion.samplers import last
from sdlearn.lessons.check import assert_parity
from sdlearn.storage.load import BUNDLED
from sdlearn.storage.textual_inversion import load_embedding, save_embedding


def vectors(count: int, width: int = 8) -> Tensor:
    return torch.randn((count, width), generator=torch.Generator().manual_seed(count))


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", ["ours", "diffusers.bin", "a1111.pt"])
def test_the_same_picture_as_diffusers(kind: str, count: int, tmp_path: Path) -> None:
    ours, theirs = both(BUNDLED, StableDiffusionPipeline, "ddim")
    learned = 0.1 * vectors(count, ours.text_encoder.config.hidden_size)
    name = "learned_embeds.safetensors" if kind == "ours" else kind
    if kind == "ours":
        save_embedding(tmp_path / name, "<toy>", learned)
    elif kind == "diffusers.bin":
        torch.save({"<toy>": learned[0] if count == 1 else learned}, tmp_path / name)
    else:
        torch.save(a1111(learned, name="<toy>"), tmp_path / name)
    theirs.load_textual_inversion(tmp_path, weight_name=name)
    add_word(ours, *load_embedding(tmp_path / name))

    noise = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(3)).double()
    settings = {"guidance_scale": 3.0, "latents": noise}
    prompt = "a small <toy> on a pink background"
    mine = ours.decode(last(ours.sample(prompt, steps=3, sampler="ddim", **settings)))
    other = 2 * theirs(prompt, num_inference_steps=3, output_type="pt", **settings).images - 1
    assert_parity(f"picture with a new word, {kind}", mine, other, 1e-4, against="load_textual_inversion")


def a1111(values: Any, **more: Any) -> dict[str, Any]:
    return {"string_to_token": {"*": 265}, "string_to_param": {"*": values}, "step": 500, "sd_checkpoint": None} | more


def parameters(values: Tensor) -> nn.ParameterDict:
    return nn.ParameterDict({"*": nn.Parameter(values)})


def first_kind(values: Tensor) -> nn.ParameterDict:
    """As PyTorch wrote a ParameterDict in 2022."""
    old = nn.ParameterDict()
    old.__dict__.update({"_parameters": OrderedDict({"*": nn.Parameter(values)})})
    del old.__dict__["_keys"]
    return old


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({"<toy>": vectors(1)[0]}, "<toy>"),
        ({"<toy>": vectors(1)}, "<toy>"),
        ({"<toy>": vectors(3).half()}, "<toy>"),
        ({"<toy>": nn.Parameter(vectors(2))}, "<toy>"),
        (a1111(vectors(3), name="toy-style"), "toy-style"),
        (a1111(nn.Parameter(vectors(3)), name="*"), "file"),
        (a1111(vectors(3)), "file"),
        (a1111(vectors(3), name=None), "file"),
        ({"string_to_token": {"*": torch.tensor(265)}, "string_to_param": parameters(vectors(2))}, "file"),
        ({"string_to_token": {"*": torch.tensor(265)}, "string_to_param": first_kind(vectors(2))}, "file"),
        ({"emb_params": vectors(2)}, "file"),
    ],
)
def test_what_is_read(content: dict[str, Any], word: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file.pt")
    files = [tmp_path / "file.pt"]
    if all(isinstance(value, Tensor) for value in content.values()):
        save_file({name: value.detach() for name, value in content.items()}, tmp_path / "file.safetensors")
        files.append(tmp_path / "file.safetensors")
    for file in files:
        found, values = load_embedding(file)
        assert found == word
        expected = vectors(len(values))
        assert torch.equal(values, expected.half().float() if is_half(content) else expected)
        assert values.dtype == torch.float32 and not values.requires_grad


def is_half(content: dict[str, Any]) -> bool:
    return any(isinstance(value, Tensor) and value.dtype == torch.float16 for value in content.values())


@pytest.mark.parametrize("count", [1, 4])
def test_what_is_saved_is_loaded(count: int, tmp_path: Path) -> None:
    values = vectors(count).requires_grad_()
    save_embedding(tmp_path / "a.safetensors", "<été>", values)
    assert load_file(tmp_path / "a.safetensors").keys() == {"<été>"}
    word, loaded = load_embedding(tmp_path / "a.safetensors")
    assert word == "<été>" and torch.equal(loaded, values)
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def write(content: Any) -> Callable[[Path], None]:
    return lambda file: torch.save(content, file)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (write({"clip_l": vectors(1), "clip_g": vectors(1)}), "for Stable Diffusion XL"),
        (write({"a": vectors(1), "b": vectors(1)}), "holds 2 entries, a, b; accepted: one tensor whose name"),
        (write({}), "holds 0 entries"),
        (write([1]), "holds list, must hold a dictionary"),
        (write({"<toy>": 3}), "the vectors of '<toy>' are int"),
        (write({"<toy>": torch.zeros(2, 3, 4)}), r"are \(2, 3, 4\)"),
        (write({"<toy>": torch.zeros(2, 3, dtype=torch.long)}), r"accepted: floats \(C,\) or \(n, C\)"),
        (write(a1111(None)), "are NoneType"),
        (write({"string_to_param": 3}), "are int"),
        (write({"string_to_param": {}}), "are NoneType"),
        (write({"<toy>": vectors(2) * float("nan")}), r"file\.pt: <toy> holds NaN"),
        (write({"<toy>": torch.zeros(0, 8)}), r"the vectors of '<toy>' are \(0, 8\)"),
        (write({"<toy>": torch.zeros(0)}), r"the vectors of '<toy>' are \(0,\)"),
        (write({5: vectors(1)}), r"file\.pt is no embedding: its only entry is 5"),
        (write({"string_to_param": {"*": vectors(1).to_sparse()}}), "holds sparse_coo, must hold floats"),
        (write({"<toy>": print}), "refused, nothing was run"),
        (lambda file: file.write_bytes(b"nothing"), "damaged"),
    ],
)
def test_refusals(make: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    make(tmp_path / "file.pt")
    with pytest.raises(ValueError, match=message):
        load_embedding(tmp_path / "file.pt")


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no embedding file"):
        load_embedding(tmp_path / "none.pt")
    with pytest.raises(ValueError, match=r"must end with \.safetensors"):
        save_embedding(tmp_path / "a.pt", "<toy>", vectors(1))
    assert not list(tmp_path.iterdir())
