"""LoRA: each layer equals peft's, the networks Diffusers' with the same file, and the model comes back as it was."""

import copy
from pathlib import Path

import peft
import pytest
import torch
from adapted import random_lora
from diffusers import StableDiffusionPipeline
from side_by_side import both
from torch import Tensor, nn

from sdlearn.adapters.lora import (
    TARGETS,
    LoRALayer,
    Update,
    attach,
    attached,
    create,
    detach,
    layers,
    merge,
    restore,
    set_scale,
)
from sdlearn.lessons.check import assert_parity, randomize_
from sdlearn.pipeline import StableDiffusion
from sdlearn.storage.load import load
from sdlearn.storage.lora import save_lora
from sdlearn.storage.save import save

pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config`")  # peft warns of two adapters
ADAPTERS = {"one": (3, 2.0, 0.7), "two": (5, None, -1.5)}  # rank, alpha, scale


@pytest.fixture
def model(tiny_folder: Path) -> StableDiffusion:
    return load(tiny_folder, dtype=torch.float64)


def state(model: StableDiffusion) -> dict[str, Tensor]:
    """A copy of all weights that adapters may touch."""
    networks = nn.ModuleDict({"text_encoder": model.text_encoder, "unet": model.unet})
    return {name: value.clone() for name, value in networks.state_dict().items()}


def assert_same(model: StableDiffusion, before: dict[str, Tensor]) -> None:
    after = state(model)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def predict(model: StableDiffusion) -> Tensor:
    """What the UNet says of two prompts, at two times: text encoder and UNet both have a part in it."""
    x = torch.randn((2, 4, 8, 12), generator=torch.Generator().manual_seed(7)).to(model.dtype)
    return model.unet(x, torch.tensor([3, 700]), model.encode_prompt(["an owl", "a red apple"]))


def predict_theirs(pipeline: StableDiffusionPipeline, model: StableDiffusion) -> Tensor:
    x = torch.randn((2, 4, 8, 12), generator=torch.Generator().manual_seed(7)).double()
    context = pipeline.text_encoder(model.tokenizer(["an owl", "a red apple"])).last_hidden_state
    return pipeline.unet(x, torch.tensor([3, 700]), context).sample


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_layer_equals_peft(kind: str, bias: bool) -> None:
    shape = (2, 5, 3, 4) if kind == "convolution" else (2, 3, 5)
    layer = nn.Conv2d(5, 7, 1, bias=bias) if kind == "convolution" else nn.Linear(5, 7, bias=bias)
    randomize_(layer.double(), 1)
    ours, theirs = LoRALayer(copy.deepcopy(layer)), nn.Sequential(copy.deepcopy(layer))
    generator = torch.Generator().manual_seed(2)
    for name, (rank, alpha, scale) in ADAPTERS.items():
        config = peft.LoraConfig(r=rank, lora_alpha=alpha or rank, target_modules=["0"])
        peft.inject_adapter_in_model(config, theirs, adapter_name=name)
        ones = (1, 1) if kind == "convolution" else ()
        A = torch.randn((rank, 5, *ones), generator=generator).double()
        B = torch.randn((7, rank, *ones), generator=generator).double()
        theirs[0].lora_A[name].weight.data, theirs[0].lora_B[name].weight.data = A.clone(), B.clone()
        theirs[0].set_scale(name, scale)
        ours.updates.append(Update(A, B, alpha))
        ours.updates[-1].scale = scale
    theirs[0].set_adapter(list(ADAPTERS))

    x = torch.randn(shape, generator=generator).double()
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    out = [network(one) for network, one in zip((ours, theirs), inputs, strict=True)]
    assert_parity("LoRA layer", *out, against="peft.tuners.lora")
    for one in out:
        one.square().sum().backward()
    assert_parity("LoRA layer, gradient of x", inputs[0].grad, inputs[1].grad, against="peft.tuners.lora")
    for update, name in zip(ours.updates, ADAPTERS, strict=True):
        for mine, other in ((update.A, theirs[0].lora_A[name]), (update.B, theirs[0].lora_B[name])):
            assert_parity("LoRA layer, gradients", mine.grad, other.weight.grad, against="peft.tuners.lora")
    theirs[0].merge()
    merged = ours.layer.weight + sum(update.matrix() for update in ours.updates)
    assert_parity("LoRA layer, merged weight", merged, theirs[0].get_base_layer().weight, against="peft.tuners.lora")


def test_networks_equal_diffusers(tiny_folder: Path, tmp_path: Path) -> None:
    """Two adapters at once with a scale each, then one of them alone, then merged."""
    ours, theirs = both(tiny_folder, StableDiffusionPipeline, "ddim")
    loras = {}
    for i, (name, (rank, alpha, scale)) in enumerate(ADAPTERS.items()):
        loras[name] = random_lora(ours, rank, alpha, seed=i)
        save_lora(loras[name], tmp_path / f"{name}.safetensors", dtype=torch.float64)
        attach(ours, loras[name], scale)
        theirs.load_lora_weights(tmp_path, weight_name=f"{name}.safetensors", adapter_name=name)
    theirs.set_adapters(list(ADAPTERS), [scale for _, _, scale in ADAPTERS.values()])
    with torch.no_grad():
        plain = predict(load(tiny_folder, dtype=torch.float64))
        together = predict(ours)
        assert (together - plain).abs().max() > 1e-2
        assert_parity("LoRA, two at once", together, predict_theirs(theirs, ours), against="load_lora_weights")
        set_scale(loras["one"], 0.25)
        detach(ours, loras["two"])
        theirs.set_adapters("one", 0.25)
        assert_parity("LoRA, one again", predict(ours), predict_theirs(theirs, ours), against="set_adapters")
        theirs.fuse_lora()
        alone = predict(ours)
        merge(ours)
        assert_parity("LoRA, merged", predict(ours), predict_theirs(theirs, ours), against="fuse_lora")
        assert_parity("LoRA, merged or not", predict(ours), alone)


def test_gradients_reach_only_the_adapter(model: StableDiffusion) -> None:
    lora = random_lora(model)
    attach(model, lora)
    predict(model).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for update in lora.values() for parameter in update.parameters())
    for place in attached(model).values():
        assert place.layer.weight.grad is None


@torch.no_grad()
def test_a_new_adapter_changes_nothing_yet(model: StableDiffusion) -> None:
    before = predict(model)
    lora = create(model, 2, targets=list(TARGETS), generator=torch.Generator().manual_seed(1))
    attach(model, lora)
    assert torch.equal(predict(model), before)
    assert all(update.B.abs().max() == 0 and update.alpha == 2 for update in lora.values())
    drawn = torch.cat([update.A.flatten() for update in lora.values()])
    assert abs(drawn.std().item() - 0.5) < 0.02 and abs(drawn.mean().item()) < 0.02
    assert all(parameter.requires_grad for update in lora.values() for parameter in update.parameters())


def test_targets(model: StableDiffusion) -> None:
    count = {kind: len(create(model, 1, targets=[kind])) for kind in TARGETS}
    transformers, text_layers = 1 + 1 + 1 + 2 + 2, 2  # two levels down and up, and the middle
    assert count == {
        **{"attention": 8 * transformers, "feed_forward": 2 * transformers, "projections": 2 * transformers},
        **{"text": 6 * text_layers},
    }
    assert set(create(model, 1)) == set(create(model, 1, targets=["attention"]))
    assert all(name in layers(model) for name in create(model, 1, targets=list(TARGETS)))


@pytest.mark.parametrize("targets", [list(TARGETS), ["projections"]])
def test_detached_model_is_the_same_to_the_bit(model: StableDiffusion, targets: list[str]) -> None:
    before, modules = state(model), dict(model.unet.named_modules())
    first, second = random_lora(model, targets=targets), random_lora(model, targets=targets, seed=1)
    attach(model, first)
    attach(model, second, 0.5)
    with torch.no_grad():
        together = predict(model)
        detach(model, first)
        assert not torch.equal(predict(model), together)
    assert set(attached(model)) == set(second)
    detach(model)
    assert not attached(model)
    assert dict(model.unet.named_modules()) == modules
    assert_same(model, before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@torch.no_grad()
def test_restored_model_is_the_same_to_the_bit(tiny_folder: Path, dtype: torch.dtype) -> None:
    model = load(tiny_folder, dtype=dtype)
    before = state(model)
    attach(model, random_lora(model), 0.8)
    first = merge(model)
    assert state(model).keys() == before.keys() and not attached(model)
    attach(model, random_lora(model, seed=1, targets=["attention"]))
    second = merge(model)
    restore(model, second)
    restore(model, first)
    assert_same(model, before)


@torch.no_grad()
def test_merging_in_half_precision_rounds_once(tiny_folder: Path) -> None:
    half, exact = load(tiny_folder, dtype=torch.float16), load(tiny_folder)  # the same numbers
    for model in (half, exact):
        attach(model, random_lora(model), 0.7)
        merge(model)
    for name, layer in layers(half).items():
        assert torch.equal(layer.weight, layers(exact)[name].weight.half()), name


def test_merged_model_is_saved_and_an_attached_one_is_not(model: StableDiffusion, tmp_path: Path) -> None:
    attach(model, random_lora(model))
    with pytest.raises(ValueError, match="a LoRA is attached"):
        save(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with torch.no_grad():
        expected = predict(model)
        merge(model)
        save(model, tmp_path / "model", torch.float64)
        assert_parity("a saved merged model", predict(load(tmp_path / "model", dtype=torch.float64)), expected)


def test_an_adapter_follows_the_model(model: StableDiffusion) -> None:
    lora = random_lora(model)
    attach(model, lora)
    model.to(dtype=torch.bfloat16)
    assert {parameter.dtype for update in lora.values() for parameter in update.parameters()} == {torch.bfloat16}
    assert predict(model).dtype == torch.bfloat16


def test_refusals(model: StableDiffusion) -> None:
    lora = random_lora(model)
    attach(model, lora)
    with pytest.raises(ValueError, match="attached already"):
        attach(model, lora)
    with pytest.raises(ValueError, match="targets 'attn' are unknown; accepted: attention, feed_forward"):
        create(model, 2, targets=["attn"])
    with pytest.raises(ValueError, match="rank = 0"):
        create(model, 0)
