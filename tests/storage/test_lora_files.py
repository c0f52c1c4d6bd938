"""LoRA files: Diffusers draws the same picture from ours, we from Diffusers', in both layouts; older spellings."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from adapted import random_lora
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import _collate_lora_metadata
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from side_by_side import both
from torch import Tensor

from sdlearn.adapters.lora import TARGETS, LoRA, attach, create, layers
from sdlearn.diffusion.samplers import last
from sdlearn.lessons.check import assert_parity
from sdlearn.models.text import TextEncoder
from sdlearn.models.unet import UNet
from sdlearn.pipeline import StableDiffusion
from sdlearn.storage.compvis import VERSIONS
from sdlearn.storage.load import BUNDLED, load
from sdlearn.storage.lora import METADATA, load_lora, save_lora, spellings

TO_Q = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
KOHYA_Q = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
Q_PROJ = "text_encoder.text_model.encoder.layers.1.self_attn.q_proj"


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> StableDiffusion:
    """Read only."""
    return load(tiny_folder)


@torch.no_grad()
def pictures(ours: StableDiffusion, theirs: Any, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """The same few steps, ours and Diffusers', both (1, 3, 64, 64) in [−1, 1]."""
    noise = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(3)).double()
    settings = {"guidance_scale": 3.0, "latents": noise}
    mine = ours.decode(last(ours.sample("a small owl on a pink background", steps=3, sampler="ddim", **settings)))
    options = {"num_inference_steps": 3, "output_type": "pt", "cross_attention_kwargs": {"scale": scale}}
    other = theirs("a small owl on a pink background", **settings, **options).images
    return mine, 2 * other - 1


def assert_same_lora(one: LoRA, other: LoRA) -> None:
    assert one.keys() == other.keys()
    for name, update in one.items():
        assert torch.equal(update.A.float(), other[name].A.float()), name
        assert torch.equal(update.B.float(), other[name].B.float()), name
        assert update.alpha == pytest.approx(other[name].alpha), name


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
def test_diffusers_draws_the_same_picture_from_our_file(layout: str, tmp_path: Path) -> None:
    """With the bundled model; alpha is not the rank, and the scale is not 1."""
    ours, theirs = both(BUNDLED, StableDiffusionPipeline, "ddim")
    (plain, _) = pictures(ours, theirs)
    save_lora(random_lora(ours, rank=4, alpha=6, std=0.15), tmp_path / "a.safetensors", layout)
    theirs.load_lora_weights(tmp_path, weight_name="a.safetensors")
    attach(ours, load_lora(tmp_path / "a.safetensors", ours), 0.7)
    mine, other = pictures(ours, theirs, scale=0.7)
    assert (mine - plain).abs().max() > 0.1
    assert_parity(f"picture with a LoRA, {layout}", mine, other, 1e-4, against="load_lora_weights")


@pytest.mark.parametrize("converted", [True, False])
@pytest.mark.parametrize("with_alpha", [True, False])
def test_we_draw_the_same_picture_from_their_file(with_alpha: bool, converted: bool, tmp_path: Path) -> None:
    """A file as Diffusers' training scripts write it: without its metadata, alpha is lost and the scale 1 for both.

    Some of the scripts convert the UNet's names, "to_q.lora_A" to "to_q.lora.down". That knows only the attention, and
    Diffusers itself reads a file wrong that has names of both kinds.
    """
    ours, theirs = both(BUNDLED, StableDiffusionPipeline, "ddim")
    config = {"r": 4, "lora_alpha": 6, "init_lora_weights": False}
    targets = ["to_q", "to_k", "to_v", "to_out.0", *([] if converted else ["proj_in", "ff.net.2"])]
    trained = StableDiffusionPipeline.from_pretrained(BUNDLED, local_files_only=True)
    torch.manual_seed(0)
    trained.unet.add_adapter(LoraConfig(**config, target_modules=targets))
    trained.text_encoder.add_adapter(LoraConfig(**config, target_modules=["q_proj", "k_proj", "v_proj", "out_proj"]))
    parts = {"unet": trained.unet, "text_encoder": trained.text_encoder}
    states = {f"{name}_lora_layers": get_peft_model_state_dict(part) for name, part in parts.items()}
    for name in ("unet", "text_encoder") if converted else ("text_encoder",):
        states[f"{name}_lora_layers"] = convert_state_dict_to_diffusers(states[f"{name}_lora_layers"])
    metadata = _collate_lora_metadata(parts) if with_alpha else {}
    StableDiffusionPipeline.save_lora_weights(tmp_path, **states, **metadata)

    file = tmp_path / "pytorch_lora_weights.safetensors"
    lora = load_lora(file, ours)
    assert {update.alpha for update in lora.values()} == {6 if with_alpha else 4}
    for prefix in ("text_encoder.", "text_encoder.text_model."):  # with Transformers 5 Diffusers writes the first
        tensors = load_file(file)
        for key in [key for key in tensors if key.startswith("text_encoder.")]:
            value = tensors.pop(key)
            tensors[prefix + key.removeprefix("text_encoder.").removeprefix("text_model.")] = value
        with safe_open(file, framework="pt") as opened:
            save_file(tensors, tmp_path / "renamed.safetensors", opened.metadata())
        assert_same_lora(load_lora(tmp_path / "renamed.safetensors", ours), lora)

    theirs.load_lora_weights(tmp_path, weight_name=file.name)
    attach(ours, lora)
    assert_parity("picture with Diffusers' LoRA", *pictures(ours, theirs), 1e-4, against="save_lora_weights")


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
@pytest.mark.parametrize("targets", [list(TARGETS), ["attention"], ["text"]])
def test_what_is_saved_is_loaded(model: StableDiffusion, layout: str, targets: list[str], tmp_path: Path) -> None:
    lora = random_lora(model, alpha=1.5, targets=targets)
    for name in list(lora)[::3]:  # other ranks and alphas in some layers
        lora[name] = random_lora(model, 2, 0.7, targets, seed=5)[name]
    file = tmp_path / "a.safetensors"
    save_lora(lora, file, layout)
    loaded = load_lora(file, model)
    assert_same_lora(loaded, lora)
    assert all(update.A.shape[2:] == layers(model)[name].weight.shape[2:] for name, update in loaded.items())
    assert not any(parameter.requires_grad for update in loaded.values() for parameter in update.parameters())
    assert {value.dtype for value in load_file(file).values() if value.ndim} == {torch.float16}
    assert not list(tmp_path.glob("*.partial"))


def test_diffusers_knows_the_ranks_and_alphas_of_single_layers(tiny_folder: Path, tmp_path: Path) -> None:
    ours, theirs = both(tiny_folder, StableDiffusionPipeline, "ddim")
    lora = random_lora(ours, alpha=1.5)
    other = random_lora(ours, 2, 0.7, seed=5)
    for name in list(lora)[::3]:
        lora[name] = other[name]
    save_lora(lora, tmp_path / "a.safetensors")
    theirs.load_lora_weights(tmp_path, weight_name="a.safetensors")
    attach(ours, lora)
    assert_parity("picture, ranks and alphas by layer", *pictures(ours, theirs), 1e-4, against="load_lora_weights")


def test_the_keys_of_our_files(model: StableDiffusion, tmp_path: Path) -> None:
    lora = {name: update for name, update in random_lora(model, 3, 2).items() if name in (TO_Q, Q_PROJ)}
    save_lora(lora, tmp_path / "a.safetensors")
    save_lora(lora, tmp_path / "b.safetensors", "kohya")
    assert set(load_file(tmp_path / "a.safetensors")) == {
        f"{name}.lora_{matrix}.weight" for name in (TO_Q, Q_PROJ) for matrix in "AB"
    }
    kohya = (KOHYA_Q, "lora_te_text_model_encoder_layers_1_self_attn_q_proj")
    assert set(load_file(tmp_path / "b.safetensors")) == {
        f"{name}.{end}" for name in kohya for end in ("lora_down.weight", "lora_up.weight", "alpha")
    }
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()[METADATA]) == {
            **{"unet.r": 3, "unet.lora_alpha": 2, "unet.target_modules": [TO_Q.removeprefix("unet.")]},
            **{"unet.rank_pattern": {}, "unet.alpha_pattern": {}},
            **{"text_encoder.r": 3, "text_encoder.lora_alpha": 2},
            "text_encoder.target_modules": ["encoder.layers.1.self_attn.q_proj"],
            **{"text_encoder.rank_pattern": {}, "text_encoder.alpha_pattern": {}},
        }


@pytest.mark.parametrize("version", [1, 2])
def test_the_names_of_full_size_models(version: int) -> None:
    """kohya's program has 192 modules in the UNet of both versions, and six in each layer of the text encoder."""
    text, unet = (VERSIONS[{1: 768, 2: 1024}[version]][name] for name in ("text_encoder", "unet"))
    with torch.device("meta"):
        full = SimpleNamespace(text_encoder=TextEncoder(text), unet=UNet(unet))
        lora = create(full, 4, targets=list(TARGETS))
    names = {spellings(name)[1] for name in lora}
    assert sum(name.startswith("lora_unet_") for name in names) == 192
    assert sum(name.startswith("lora_te_") for name in names) == {1: 72, 2: 138}[version]
    assert names >= {
        "lora_unet_down_blocks_0_attentions_0_proj_in",
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj",
        "lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_attn2_to_out_0",
        "lora_te_text_model_encoder_layers_11_mlp_fc2",
    }


OLD_NAMES = {  # Diffusers in 2023, and before
    "attn1.to_q.lora_A": "attn1.processor.to_q_lora.down",
    "attn1.to_q.lora_B": "attn1.processor.to_q_lora.up",
    "attn2.to_out.0.lora_A": "attn2.processor.to_out_lora.down",
    "attn2.to_out.0.lora_B": "attn2.processor.to_out_lora.up",
    "attn1.to_v.lora_A": "attn1.to_v.lora.down",  # still today
    "attn1.to_v.lora_B": "attn1.to_v.lora.up",
    "q_proj.lora_A": "q_proj.lora_linear_layer.down",
    "q_proj.lora_B": "q_proj.lora_linear_layer.up",
    "k_proj.lora_A": "to_k_lora.down",
    "k_proj.lora_B": "to_k_lora.up",
    "self_attn.out_proj.lora_A": "self_attn.to_out_lora.down",
    "self_attn.out_proj.lora_B": "self_attn.to_out_lora.up",
}


@pytest.mark.parametrize("prefix", ["unet.", ""])
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_older_names_are_read(model: StableDiffusion, prefix: str, suffix: str, tmp_path: Path) -> None:
    lora = random_lora(model, targets=["attention", "text"])
    save_lora(lora, tmp_path / "new.safetensors", dtype=torch.float32)
    tensors, changed = {}, 0
    for key, value in load_file(tmp_path / "new.safetensors").items():
        for new, old in OLD_NAMES.items():
            changed += new in key
            key = key.replace(new, old)
        tensors[prefix + key.removeprefix("unet.") if key.startswith("unet.") else key] = value
    assert changed > 40
    if suffix == ".bin":
        torch.save(tensors, tmp_path / "old.bin")
    else:
        save_file(tensors, tmp_path / f"old{suffix}")
    assert_same_lora(load_lora(tmp_path / f"old{suffix}", model), lora)


def test_every_spelling_leads_to_one_layer(model: StableDiffusion) -> None:
    every = [spelling for name in layers(model) for spelling in set(spellings(name))]
    assert len(set(every)) == len(every)


def test_matrices_of_another_form(model: StableDiffusion, tmp_path: Path) -> None:
    """Some programs store the matrices of linear layers as 1×1 convolutions, some the other way round."""
    lora = random_lora(model)
    save_lora(lora, tmp_path / "a.safetensors", "kohya", torch.float32)
    tensors = load_file(tmp_path / "a.safetensors")
    turned = {
        key: value if not value.ndim else value[..., 0, 0].clone() if value.ndim == 4 else value[..., None, None]
        for key, value in tensors.items()
    }
    save_file(turned, tmp_path / "b.safetensors")
    assert_same_lora(load_lora(tmp_path / "b.safetensors", model), lora)


def test_alpha_of_rank_stabilised_files(model: StableDiffusion, tmp_path: Path) -> None:
    lora = random_lora(model, rank=4)
    save_lora(lora, tmp_path / "a.safetensors")
    metadata = {METADATA: json.dumps({"unet.lora_alpha": 6, "unet.use_rslora": True})}
    save_file(load_file(tmp_path / "a.safetensors"), tmp_path / "a.safetensors", metadata)
    loaded = load_lora(tmp_path / "a.safetensors", model)
    assert loaded[TO_Q].alpha / 4 == 6 / 4**0.5
    assert loaded[Q_PROJ].alpha == 4  # nothing is said of the text encoder: scale 1


def drop(key: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda tensors: tensors.pop(key)


def add(key: str, *shape: int) -> Callable[[dict[str, Tensor]], Any]:
    return lambda tensors: tensors.update({key: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (add(f"{KOHYA_Q}.dora_scale", 32, 1), "holds a DoRA"),
        (add(f"{TO_Q}.lora_magnitude_vector", 32), "holds a DoRA"),
        (add(f"{KOHYA_Q}.hada_w1_a", 32, 4), "holds a LoHa"),
        (add(f"{KOHYA_Q}.lokr_w1", 4, 4), "holds a LoKr"),
        (add("lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha"), "holds a LoRA for Stable Diffusion XL"),
        (add("lora_unet_mid_block_resnets_0_conv1.lora_down.weight", 4, 32, 3, 3), "holds a LoCon"),
        (drop(f"{KOHYA_Q}.lora_up.weight"), rf"\(misfits: 1\); the first: {TO_Q} lacks its B"),
        (drop(f"{KOHYA_Q}.lora_down.weight"), f"{TO_Q} lacks its A"),
        (add(f"{KOHYA_Q}.lora_down.weight", 3, 40), rf"{KOHYA_Q}.lora_down.weight is \(3, 40\) .* of 32 × 32"),
        (add(f"{KOHYA_Q}.lora_up.weight", 32, 4), r"is \(32, 4\), for a layer of 32 × 32"),
        (add(f"{KOHYA_Q}.lora_down.weight", 0, 32), r"is \(0, 32\)"),
        (add(f"{KOHYA_Q}.lora_down.weight"), r"is \(\)"),
        (add(f"{KOHYA_Q}.alpha", 3), "misfits"),
        (add("lora_unet_down_blocks_7_attentions_0_proj_in.alpha"), "no layer for lora_unet_down_blocks_7_attentions"),
        (add("something.weight", 3, 3), "no layer for something.weight"),
        (dict.clear, "it holds no tensors"),
    ],
)
def test_refusals(
    model: StableDiffusion, spoil: Callable[[dict[str, Tensor]], Any], message: str, tmp_path: Path
) -> None:
    save_lora(random_lora(model), tmp_path / "a.safetensors", "kohya")
    tensors = load_file(tmp_path / "a.safetensors")
    spoil(tensors)
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=rf"a\.safetensors .*{message}"):
        load_lora(tmp_path / "a.safetensors", model)


def test_a_file_for_another_model_is_refused_with_its_keys(model: StableDiffusion, tmp_path: Path) -> None:
    save_lora(random_lora(load(BUNDLED)), tmp_path / "a.safetensors", "kohya")
    with pytest.raises(
        ValueError, match=r"is for another model, or is no LoRA \(misfits: \d+\); the first: .*lora_(unet|te)_"
    ):
        load_lora(tmp_path / "a.safetensors", model)
    weights = BUNDLED / "unet" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(ValueError, match="is for another model, or is no LoRA"):
        load_lora(weights, model)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("{", "is not JSON"),
        ('{"unet.lora_alpha": "6"}', "must be numbers"),
        ('{"unet.alpha_pattern": {"to_q": null}}', "must be numbers"),
        ('{"text_encoder.alpha_pattern": [6]}', "must be numbers"),
        ("[]", "is list, must be an object"),
        ('{"unet.use_dora": true}', "holds a DoRA"),
    ],
)
def test_refused_metadata(model: StableDiffusion, metadata: str, message: str, tmp_path: Path) -> None:
    save_lora(random_lora(model), tmp_path / "a.safetensors")
    save_file(load_file(tmp_path / "a.safetensors"), tmp_path / "a.safetensors", {METADATA: metadata})
    with pytest.raises(ValueError, match=message):
        load_lora(tmp_path / "a.safetensors", model)


def test_files_that_cannot_be_read_or_written(model: StableDiffusion, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no LoRA file"):
        load_lora(tmp_path / "none.safetensors", model)
    (tmp_path / "bad.safetensors").write_text("no tensors")
    with pytest.raises(ValueError, match="damaged"):
        load_lora(tmp_path / "bad.safetensors", model)
    torch.save({"a": print}, tmp_path / "code.bin")
    with pytest.raises(ValueError, match="refused, nothing was run"):
        load_lora(tmp_path / "code.bin", model)
    lora = random_lora(model)
    with pytest.raises(ValueError, match=r"must end with \.safetensors"):
        save_lora(lora, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="must have layers"):
        save_lora({}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="accepted: diffusers, kohya"):
        save_lora(lora, tmp_path / "a.safetensors", "civitai")
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize(
    ("spoil", "message"), [(Tensor.int, "holds int32, must hold floats"), (Tensor.log, "NaN or inf")]
)
def test_numbers_that_can_be_no_weights(
    spoil: Callable[[Tensor], Tensor], message: str, model: StableDiffusion, tmp_path: Path
) -> None:
    file = tmp_path / "a.safetensors"
    save_lora(random_lora(model), file)
    stored = load_file(file)
    key = next(iter(stored))
    save_file(stored | {key: spoil(-stored[key].abs() - 1)}, file)
    with pytest.raises(ValueError, match=rf"a\.safetensors: .*{message}"):
        load_lora(file, model)
