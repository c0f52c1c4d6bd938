"""DreamBooth, LoRA and textual inversion: the loss is Diffusers', and only what should learn does."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from PIL import Image
from small import SMALL
from torch import Tensor, nn

from sdlearn.adapters.lora import attach
from sdlearn.adapters.textual_inversion import add_word
from sdlearn.config import read_table
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.lessons.check import assert_parity
from sdlearn.models.unet import UNet, UNetConfig
from sdlearn.storage.load import load
from sdlearn.storage.lora import load_lora
from sdlearn.storage.textual_inversion import load_embedding
from sdlearn.training.adapters import LoRARecipe, LoRATask, TextualInversionRecipe, TextualInversionTask
from sdlearn.training.dreambooth import (
    DreamBoothRecipe,
    DreamBoothTask,
    checkpoint_blocks,
    dreambooth_loss,
    read_pictures,
)
from sdlearn.training.loop import train
from sdlearn.training.memory import advice, check, estimate, kept_for_gradients, readable
from sdlearn.training.run import run

KINDS = {
    "dreambooth": (DreamBoothRecipe, DreamBoothTask),
    "lora": (LoRARecipe, LoRATask),
    "word": (TextualInversionRecipe, TextualInversionTask),
}
DATA = {"subjects": ["robot"], "pictures": 3, "prompts": ["a zwx toy", "one zwx"]}
PRIOR = {"class_prompts": ["a present", "a balloon"], "class_pictures": 3}


def make(kind: str, source: Path, folder: Path, **changes: Any) -> DreamBoothTask:
    """A task that learns a robot."""
    recipe, task = KINDS[kind]
    tables = {
        "training": SMALL | {"weight_decay": 0.1, "ema_decay": 0.0},
        "data": DATA,
        "model": {"source": str(source)},
    }
    if kind == "word":
        tables |= {"word": {"word": "zwx", "begins_as": "owl", "vectors": 2}}
    tables = {name: tables.get(name, {}) | changes.get(name, {}) for name in tables | changes}
    return task(read_table(recipe, tables, kind), folder, progress=False)


def weights(task: DreamBoothTask) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in task.network.state_dict().items()}


def learn(task: DreamBoothTask, steps: int = 3) -> dict[str, tuple[Tensor, Tensor]]:
    """What a few steps change: the weights before and after, by name."""
    before = weights(task)
    for step in train(task, task.recipe.training):
        if step.step == steps:
            break
    return {name: (before[name], now) for name, now in weights(task).items() if not torch.equal(before[name], now)}


# --- the loss ---


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("prior_weight", [None, 1.0, 0.3])
def test_the_loss_is_that_of_diffusers_example(prediction_type: str, prior_weight: float | None) -> None:
    """As in its examples/dreambooth/train_dreambooth.py: the batch is cut in two, and each half has its mean."""
    settings = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    theirs = DDPMScheduler(**settings, prediction_type=prediction_type)
    theirs.alphas_cumprod = torch.linspace(0.99, 0.01, 1000, dtype=torch.float64)
    schedule = Schedule(ScheduleConfig(prediction_type=prediction_type))
    schedule.alphas_cumprod = theirs.alphas_cumprod
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 6, 4, 5, 3, generator=generator, dtype=torch.float64)
    t = torch.tensor([0, 999, 500, 1, 77, 998])
    predict = lambda x, t: x.sin() * (1 + t[:, None, None, None] / 1000)  # noqa: E731

    pred = predict(theirs.add_noise(latents, noise, t), t)
    target = noise if prediction_type == "epsilon" else theirs.get_velocity(latents, noise, t)
    if prior_weight is None:
        expected = F.mse_loss(pred, target)
    else:
        (pred, pred_prior), (target, target_prior) = pred.chunk(2), target.chunk(2)
        expected = F.mse_loss(pred, target) + prior_weight * F.mse_loss(pred_prior, target_prior)
    ours = dreambooth_loss(predict, latents, noise, t, schedule, prior_weight)
    assert_parity("DreamBooth's loss", ours, expected, 1e-9, against="examples/dreambooth")


def test_a_step_sees_pictures_and_class_pictures(tiny_folder: Path, tmp_path: Path) -> None:
    """Each row is a picture with one of its prompts and a class picture with one of the class; rows can be split."""
    task = make("dreambooth", tiny_folder, tmp_path, data=PRIOR, training={"batch_size": 4})
    calls = []

    def record(x: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        calls.append((x, t, ids))
        return x

    for rows in (slice(0, 4), slice(0, 2), slice(2, 4)):
        task.loss(record, 5, rows)  # type: ignore[arg-type]
    (x, t, ids), *halves = calls
    said = task.model.tokenizer
    assert len(x) == 8 and {*map(tuple, ids[:4].tolist())} <= {*map(tuple, said(DATA["prompts"]).tolist())}
    assert {*map(tuple, ids[4:].tolist())} <= {*map(tuple, said(PRIOR["class_prompts"]).tolist())}
    for number, whole in enumerate((x, t, ids)):
        new, known = zip(*(half[number].chunk(2) for half in halves), strict=True)
        assert torch.equal(torch.cat(new + known), whole)


# --- what learns ---


def test_dreambooth_trains_the_unet(tiny_folder: Path, tmp_path: Path) -> None:
    changed = learn(make("dreambooth", tiny_folder, tmp_path, data=PRIOR))
    assert changed and all(name.startswith("unet.") for name in changed)


def test_dreambooth_trains_the_text_encoder_if_told(tiny_folder: Path, tmp_path: Path) -> None:
    changed = learn(make("dreambooth", tiny_folder, tmp_path, model={"text_encoder": True}))
    assert {name.partition(".")[0] for name in changed} == {"unet", "text_encoder"}


def test_a_lora_trains_its_updates_alone(tiny_folder: Path, tmp_path: Path) -> None:
    task = make("lora", tiny_folder, tmp_path, lora={"rank": 2, "targets": ["attention", "text"]})
    changed = learn(task)
    assert changed and all(name.endswith((".A", ".B")) for name in changed)


def test_textual_inversion_trains_a_word_alone(tiny_folder: Path, tmp_path: Path) -> None:
    """The other rows are the same bits, whatever the weight decay."""
    task = make("word", tiny_folder, tmp_path)
    assert [*learn(task)] == ["text_encoder.text_model.embeddings.token_embedding.vectors"]
    before = load(tiny_folder).text_encoder.text_model.embeddings.token_embedding.weight
    after = task.model.text_encoder.text_model.embeddings.token_embedding.known
    assert torch.equal(after, before)


def test_a_word_begins_as_another(tiny_folder: Path, tmp_path: Path) -> None:
    task = make("word", tiny_folder, tmp_path)
    embedding = task.model.text_encoder.text_model.embeddings.token_embedding
    known = task.model.tokenizer.tokenizer.encode("owl")
    assert_parity("vectors", embedding.vectors, embedding.known[known].mean(0).expand(2, -1))
    ids = task.model.tokenizer("a zwx")
    assert torch.equal(embedding(ids)[0, 2:4], embedding.vectors)  # after the beginning and "a"


# --- what is stored ---


def test_what_is_stored_is_what_was_trained(tiny_folder: Path, tmp_path: Path) -> None:
    """A model folder, a LoRA file and an embedding: loaded anew, each predicts what the trained model predicts."""
    x, t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    for kind in KINDS:
        task = make(kind, tiny_folder, tmp_path / kind)
        run(task, task.recipe.training, tmp_path / kind, progress=False)
        stored, model = tmp_path / kind / "model", load(tiny_folder)
        if kind == "dreambooth":
            model = load(stored)
        elif kind == "lora":
            attach(model, load_lora(stored / "lora.safetensors", model))
        else:
            add_word(model, *load_embedding(stored / "embedding.safetensors"))
        with torch.no_grad():
            ours, expected = (one.unet(x, t, one.encode_prompt("a zwx")) for one in (model, task.model))
        assert_parity(kind, ours, expected, 2e-3)  # the files are in half precision


@pytest.mark.filterwarnings("ignore:the recipe has changed")  # only its last step
def test_a_stopped_run_goes_on(tiny_folder: Path, tmp_path: Path) -> None:
    ends = []
    for stops in ((5,), (2, 5)):
        folder = tmp_path / str(len(stops))
        for steps in stops:
            task = make("lora", tiny_folder, folder, data=PRIOR, training={"steps": steps})
            run(task, task.recipe.training, folder, progress=False)
        ends.append(weights(task))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


# --- pictures ---


def test_ones_own_pictures(tiny_folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for number in range(3):
        Image.new("RGB", (70, 90), (80 * number, 0, 0)).save(own / f"{number}.png")
    changes = {"subjects": None, "folder": str(own)}
    task = make("lora", tiny_folder, tmp_path / "run", data=changes)
    assert task.latents.shape[0] == 3 and task.prompts == [tuple(DATA["prompts"])] * 3
    (own / "1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"1 problems in .*own: 1\.png \(can't be read"):
        make("lora", tiny_folder, tmp_path / "run", data=changes)
    (own / "1.png").unlink()
    with pytest.raises(ValueError, match="holds 2 pictures; at least 3 are needed"):
        make("lora", tiny_folder, tmp_path / "run", data=changes)


def test_a_prompt_can_hold_the_pictures_caption(tiny_folder: Path) -> None:
    data = {"subjects": ["cat", "owl"], "pictures": 3, "prompts": ["zwx: {caption}"], "style": "line"}
    _, prompts = read_pictures(read_table(DreamBoothRecipe, {"data": data, "training": SMALL}, "x").data, 64, 0)
    assert all(one.startswith("zwx: a line drawing of ") for (one,) in prompts)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("lora", {"data": {"folder": "x"}}, "either folder or subjects"),
        ("lora", {"data": {"pictures": 2}}, "pictures = 2, must be a whole number of at least 3"),
        ("lora", {"data": {"prompts": []}}, "at least one is needed"),
        ("lora", {"data": {"class_prompts": ["a cat"]}}, "belong together"),
        ("lora", {"data": {"prior_weight": -1.0}}, "prior_weight must be at least 0"),
        ("lora", {"data": {"subjects": ["sphinx"]}}, "unknown subject 'sphinx'"),
        ("lora", {"lora": {"rank": 0}}, "rank = 0"),
        ("lora", {"lora": {"rank": 10**6}}, "rank = 1000000, must be a whole number from 1 to 4096"),
        ("lora", {"lora": {"alpha": 0.0}}, "alpha must be above 0"),
        ("lora", {"lora": {"targets": ["all"]}}, "'all' are unknown"),
        ("lora", {"lora": {"targets": []}}, "targets must name at least one kind of layer"),
        ("lora", {"training": {"seed": 2**63}}, "seed = 9223372036854775808 is not supported; accepted: whole numbers"),
        ("lora", {"model": {"text_encoder": True}}, 'add "text" to the targets'),
        ("word", {"word": {"word": "abc"}}, "lacks the word 'abc'"),
        ("word", {"word": {"vectors": 0}}, "vectors = 0"),
        ("word", {"word": {"vectors": 76}}, "vectors = 76, must be a whole number from 1 to 75"),
        ("word", {"word": {"begins_as": " "}}, "begins_as must be a word"),
        ("word", {"model": {"text_encoder": True}}, "only the word's vectors learn"),
    ],
)
def test_recipes_that_are_refused(
    kind: str, changes: dict[str, Any], message: str, tiny_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        make(kind, tiny_folder, tmp_path, **changes)


# --- memory ---


def test_checkpointing_changes_no_gradient(tiny_folder: Path) -> None:
    """And the network keeps far less."""
    unets: list[nn.Module] = [load(tiny_folder, dtype=torch.float64).unet.requires_grad_(True) for _ in range(2)]
    checkpoint_blocks(unets[1])
    x, context = torch.randn(2, 4, 8, 8).double(), torch.randn(2, 7, unets[0].config.cross_attention_dim).double()
    for unet in unets:
        unet(x, torch.tensor([3, 900]), context).square().sum().backward()
    for (name, plain), again in zip(unets[0].named_parameters(), unets[1].parameters(), strict=True):
        assert_parity(name, again.grad, plain.grad, 1e-9)
    assert kept_for_gradients(unets[1], 2, 7) < kept_for_gradients(unets[0], 2, 7) / 3


def test_stable_diffusion_1_needs_what_people_report() -> None:
    """Two rows at 512 × 512: 3.5 GB besides the weights, and a tenth of that with checkpointing."""
    with torch.device("meta"):
        unet = UNet(UNetConfig())
    one, two = (kept_for_gradients(unet, rows, 77) for rows in (1, 2))
    assert 1.5 * 2**30 < one < 2.0 * 2**30 and 1.9 < two / one < 2.1
    checkpoint_blocks(unet)
    assert kept_for_gradients(unet, 1, 77) < one / 10


def test_the_estimate_counts_what_learns(tiny_folder: Path, tmp_path: Path) -> None:
    every = {kind: make(kind, tiny_folder, tmp_path) for kind in KINDS}
    needs = {kind: estimate(task, task.recipe.training) for kind, task in every.items()}
    unet = sum(weight.nbytes for weight in every["dreambooth"].model.unet.parameters())
    assert needs["dreambooth"].learning == 4 * unet
    vectors = every["word"].model.text_encoder.text_model.embeddings.token_embedding.vectors
    assert needs["word"].learning == 4 * vectors.nbytes
    with_prior = make("dreambooth", tiny_folder, tmp_path, data=PRIOR)
    assert 1.9 < estimate(with_prior, with_prior.recipe.training).step / needs["dreambooth"].step < 2.1
    assert readable(3 * 2**29) == "1.5 GB" and readable(2**20) == "1 MB"


def test_a_gpu_that_is_too_small_gets_advice(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make("dreambooth", tiny_folder, tmp_path, model={"text_encoder": True})
    memory, recipe = estimate(task, task.recipe.training), task.recipe
    check(memory, torch.device("cpu"), recipe)  # a CPU has a disk to fall back on
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (memory.total, 2**40))
    check(memory, torch.device("cuda"), recipe)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**20, 2**40))
    with pytest.raises(
        RuntimeError, match=r"cuda has 1 MB free, but this needs about .*checkpointing = true in .* LoRA"
    ):
        check(memory, torch.device("cuda"), recipe)
    sparing = {"model": {"gradient_checkpointing": True}, "training": {"mixed_precision": "bf16", "accumulation": 2}}
    assert advice(make("lora", tiny_folder, tmp_path, **sparing).recipe) == "what would help: a smaller model"
