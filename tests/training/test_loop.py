"""The training loop: what it writes, accumulation, averaging, the schedule of the learning rate, errors."""

import json
import math
import warnings
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from diffusers.optimization import get_linear_schedule_with_warmup
from diffusers.training_utils import EMAModel
from hypothesis import given, settings
from hypothesis import strategies as st
from small import LINEAR, LinearTask, assert_same, load, make, make_parts, read_log
from torch import Tensor, nn

import sdlearn.training.loop as loop
import sdlearn.training.run as runs
from sdlearn.config import read_table
from sdlearn.diffusion.schedule import simple_loss
from sdlearn.lessons.check import assert_parity, max_difference, randomize_
from sdlearn.lessons.show import source
from sdlearn.training.adapters import LoRARecipe, TextualInversionRecipe
from sdlearn.training.autoencoder import AutoencoderRecipe
from sdlearn.training.clip import CLIPRecipe
from sdlearn.training.diffusion import DiffusionRecipe, DiffusionTask, latent_loss
from sdlearn.training.dreambooth import DreamBoothRecipe, DreamBoothTask
from sdlearn.training.loop import Ema, State, TrainConfig, generator_for, precision_for, train
from sdlearn.training.run import Log, read_recipe, run

# --- the generator ---


def test_it_yields_after_each_step() -> None:
    """Anew or going on, it needs no folder."""
    config = TrainConfig(**LINEAR)
    steps = list(train(LinearTask(), config))
    assert [step.step for step in steps] == list(range(1, 12))
    assert [step.learning_rate for step in steps] == [config.learning_rate_at(step) for step in range(11)]
    assert all(step.numbers["twice"] > 0 and step.gradient_norm > 0 for step in steps)
    assert steps[-1].loss < steps[0].loss

    task = LinearTask()
    state = State(task, config)
    some = list(islice(train(task, config, state), 4))
    assert state.step == 4
    assert some + list(train(task, config, state)) == steps


def test_two_trainings_side_by_side() -> None:
    """A lesson may take a step of each in turn, whatever their settings."""
    configs = [TrainConfig(**LINEAR | {"accumulation": count}) for count in (1, 4)]
    alone = [list(train(LinearTask(), config)) for config in configs]
    together = zip(*(train(LinearTask(), config) for config in configs), strict=True)
    assert [list(steps) for steps in zip(*together, strict=True)] == alone


def test_the_tasks_own_network_stays_in_float32() -> None:
    """Half precision is the loop's: what the task draws with is left alone."""
    task = LinearTask()
    x = torch.randn(2, 5, generator=generator_for(0, 0))
    expected = task.network(x)
    next(train(task, TrainConfig(**LINEAR | {"mixed_precision": "bf16", "learning_rate": 1e-30, "weight_decay": 0.0})))
    assert max_difference(task.network(x), expected) <= 1e-6


def test_a_training_step_fits_on_a_screen() -> None:
    for function, words in {
        DiffusionTask.loss: ("noise = ", "t = ", "latents = ", "context = ", "self.latent_loss("),
        latent_loss: ("add_noise", "target = ", "unet(x, t, context)", "square().mean()"),
        loop.take_step: ("task.loss", "backward", "clip_grad_norm_", "optimizer.step", "ema.update"),
        train: ("yield take_step",),
    }.items():
        assert all(word in source(function) for word in words)


def test_the_diffusion_loss_is_the_simple_loss(tmp_path: Path) -> None:
    make_parts(tmp_path / "parts")
    task, _ = make("diffusion", tmp_path, tmp_path / "run")
    randomize_(task.unet, 1)
    seen = []

    def unet(x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        seen.append((x, t, context))
        return task.unet(x, t, context)

    unet.parameters = task.unet.parameters
    ours, _ = task.loss(unet, 3, slice(None))
    halves = [task.loss(unet, 3, slice(first, first + 1))[0] for first in range(2)]
    assert_parity("rows", sum(halves) / 2, ours, against="the whole batch")
    x, t, context = seen[0]
    assert x.shape == (2, 4, 16, 16) and t.shape == (2,) and len(context) == 2
    generator = generator_for(0, 3)
    index = torch.randint(6, (2,), generator=generator)
    torch.randint(1000, (2,), generator=generator), torch.rand(2, generator=generator)
    noise, latents = torch.randn(x.shape, generator=generator), task.pool.latents[index].float()
    expected = simple_loss(lambda x, t: task.unet(x, t, context), latents, noise, t, task.schedule)
    assert_parity("loss", ours, expected, against="simple_loss")


# --- runs ---


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    config = TrainConfig(**LINEAR)
    run(LinearTask(), config, tmp_path, progress=False)
    before, rows = load(tmp_path), read_log(tmp_path)
    task = LinearTask()
    run(task, config, tmp_path, progress=False)
    assert_same(load(tmp_path), before)
    assert read_log(tmp_path) == rows
    assert_same([p.detach() for p in task.network.parameters()], before["parameters"])


def test_a_longer_recipe_goes_on(tmp_path: Path) -> None:
    run(LinearTask(), TrainConfig(**LINEAR | {"steps": 3}), tmp_path, progress=False)
    run(LinearTask(), TrainConfig(**LINEAR | {"steps": 5}), tmp_path, progress=False)
    assert load(tmp_path)["step"] == 5
    assert [row["step"] for row in read_log(tmp_path)] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("kind", ["clip", "autoencoder", "diffusion"])
def test_a_run_of_another_recipe_is_refused(kind: str, tmp_path: Path) -> None:
    """Another network, seed, batch, loss or data: it says what differs, and leaves the run as it is."""
    make_parts(tmp_path / "parts")
    run(*make(kind, tmp_path, tmp_path / "run", training={"steps": 1}), tmp_path / "run", progress=False)
    before = load(tmp_path / "run")
    others: dict[str, dict[str, Any]] = {
        r"training.seed was 0 and is 1": {"training": {"seed": 1}},
        r"training.batch_size was (2|12) and is 4": {"training": {"batch_size": 4}},
    }
    others |= {
        "clip": {r"model.projection_dim was 6 and is 7": {"model": {"projection_dim": 7}}},
        "autoencoder": {
            r"loss.kl_weight was 0.001 and is 0.5": {"loss": {"kl_weight": 0.5}},
            r"model.layers_per_block was 1 and is 2": {"model": {"layers_per_block": 2}},
        },
        "diffusion": {
            r"checksum of the pool was '\w+' and is '\w+', data.pool_size was 6 and is 7": {"data": {"pool_size": 7}},
            r"data.caption_dropout was 0.3 and is 0.2": {"data": {"caption_dropout": 0.2}},
            r"schedule.prediction_type was 'v_pr.*' and is 'epsilon'": {"schedule": {"prediction_type": "epsilon"}},
        },
    }[kind]
    for message, changes in others.items():
        task, config = make(kind, tmp_path, tmp_path / "other", **changes)
        with pytest.raises(ValueError, match=rf"checkpoint.pt is from another recipe: .*{message}.*; use another"):
            run(task, config, tmp_path / "run", progress=False)
    assert_same(load(tmp_path / "run"), before)


@pytest.mark.parametrize("kind", ["diffusion", "dreambooth"])
def test_a_refused_recipe_changes_no_file(kind: str, tiny_folder: Path, tmp_path: Path) -> None:
    """The stored latents stay those of the run, so that it can resume at once."""
    make_parts(tmp_path / "parts")
    folder = tmp_path / "run"

    def task(**changes: Any) -> tuple[Any, TrainConfig]:
        if kind == "diffusion":
            return make(kind, tmp_path, folder, **changes)
        tables = {
            "training": {"steps": 1, "batch_size": 2, "learning_rate": 1e-3},
            "model": {"source": str(tiny_folder)},
        }
        tables["data"] = {"subjects": ["cat"], "pictures": 3, "prompts": ["a zwx cat"]}
        tables = {name: table | changes.get(name, {}) for name, table in tables.items()}
        recipe = read_table(DreamBoothRecipe, tables, kind)
        return DreamBoothTask(recipe, folder, progress=False), recipe.training

    run(*task(training={"steps": 1}), folder, progress=False)
    files = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    data = {"pool_size": 7} if kind == "diffusion" else {"pictures": 4}
    for changes in ({"training": {"seed": 1}}, {"data": data}, {"training": {"batch_size": 4}}):
        (table, changed), *_ = changes.items()
        with pytest.raises(
            ValueError, match=rf"checkpoint.pt is from another recipe: .*{table}.{next(iter(changed))} was"
        ):
            task(**changes)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == files
    with warnings.catch_warnings(action="error"):
        task(training={"steps": 1})
    damage = next(folder.glob("*.safetensors"))
    damage.write_bytes(b"damaged")  # the recipe is the same, so they are made anew
    with pytest.warns(UserWarning, match="is damaged"):
        task(training={"steps": 1})
    assert damage.read_bytes() == files[damage]


def test_another_optimizer_is_another_run(tmp_path: Path) -> None:
    run(LinearTask(), TrainConfig(**LINEAR | {"steps": 3}), tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"training.optimizer was 'adamw' and is 'muon'; use another folder"):
        run(LinearTask(), TrainConfig(**LINEAR | {"optimizer": "muon"}), tmp_path, progress=False)


def test_a_checkpoint_without_its_recipe(tmp_path: Path) -> None:
    run(LinearTask(), TrainConfig(**LINEAR | {"steps": 3}), tmp_path, progress=False)
    values = load(tmp_path)
    del values["settings"]
    torch.save(values, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"checkpoint.pt lacks its recipe, so nobody can say whether it is this one"):
        run(LinearTask(), TrainConfig(**LINEAR), tmp_path, progress=False)


def test_what_may_change_is_said(tmp_path: Path) -> None:
    run(LinearTask(), TrainConfig(**LINEAR | {"steps": 3}), tmp_path, progress=False)
    changes = {"steps": 5, "learning_rate": 0.2, "decay_steps": 1, "log_every": 2, "sample_every": 4}
    message = "training.decay_steps was 4 and is 1, .*learning_rate was 0.1 and is 0.2, .*training.steps was 3 and is 5"
    with pytest.warns(UserWarning, match=f"the recipe has changed since .*checkpoint.pt: .*{message}"):
        run(LinearTask(), TrainConfig(**LINEAR | changes | {"checkpoint_every": 1}), tmp_path, progress=False)
    assert load(tmp_path)["step"] == 5


def test_a_recipe_that_ends_before_the_checkpoint(tmp_path: Path) -> None:
    run(LinearTask(), TrainConfig(**LINEAR), tmp_path, progress=False)
    files = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(ValueError, match=r"checkpoint.pt is from step 11, but the recipe ends at step 5"):
        run(LinearTask(), TrainConfig(**LINEAR | {"steps": 5}), tmp_path, progress=False)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == files


# --- files ---


def test_what_is_written(tmp_path: Path) -> None:
    task, config = LinearTask(), TrainConfig(**LINEAR | {"log_every": 4})
    run(task, config, tmp_path, progress=False)
    rows = read_log(tmp_path)
    assert [row["step"] for row in rows] == ["4", "8", "11"]
    assert list(rows[0]) == ["step", "loss", "learning_rate", "gradient_norm", "images_per_second", "twice"]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert float(rows[-1]["learning_rate"]) == pytest.approx(config.learning_rate_at(10), rel=1e-2)
    assert sorted(file.name for file in (tmp_path / "samples").iterdir()) == [
        *("0000005.png", "0000010.png", "0000011.png")
    ]
    state = load(tmp_path)
    assert state.keys() == {"step", "parameters", "ema", "optimizer", "random", "settings"}
    # What is saved is the average; the parameters themselves are back in place afterwards.
    saved = json.loads((tmp_path / "model" / "linear.json").read_text())["weight"]
    assert torch.equal(torch.tensor(saved), state["ema"][0])
    assert not torch.equal(state["ema"][0], state["parameters"][0])
    assert torch.equal(task.network.linear.weight, state["parameters"][0])


def test_log_drops_what_comes_after_the_checkpoint(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.csv", 0)
    for step in (2, 4, 6):
        log.write({"step": step, "loss": step})
    resumed = Log(tmp_path / "log.csv", 5)
    resumed.write({"step": 6, "loss": 60})
    assert [(row["step"], row["loss"]) for row in read_log(tmp_path)] == [("2", "2"), ("4", "4"), ("6", "60")]
    Log(tmp_path / "log.csv", 0).write({"step": 2, "loss": 1})  # from the beginning
    assert [row["step"] for row in read_log(tmp_path)] == ["2"]


def as_a_spreadsheet(text: str) -> dict[str, str]:
    """What spreadsheets make of a log."""
    lines = text.splitlines()
    return {
        "semicolons": text.replace(",", ";"),
        "decimal commas": text.replace(",", ";").replace(".", ","),
        "quoted": "\n".join(
            [lines[0], *(",".join(f'"{cell.replace(".", ",")}"' for cell in line.split(",")) for line in lines[1:])]
        ),
        "a byte-order mark": "\ufeff" + text,
        "tabs": text.replace(",", "\t"),
        "steps with decimals": "\n".join([lines[0], *(line.replace(",", ".00,", 1) for line in lines[1:])]),
        "cut off": text[:-4],
        "a field that is too long": text + "4," + "1" * 200_000 + ",1,1,1,1\r\n",
        "a column more": "\n".join(line + "," for line in lines),
        "a row of a sum": text + "sum,1,1,1,1,1\n",
        "zeros": text + "\0\n",
        "empty": "",
    }


def test_a_log_that_a_spreadsheet_has_changed(tmp_path: Path) -> None:
    run(LinearTask(), TrainConfig(**LINEAR | {"steps": 3}), tmp_path, progress=False)
    file = tmp_path / "log.csv"
    text, before = file.read_bytes().decode(), (tmp_path / "checkpoint.pt").read_bytes()
    for name, changed in as_a_spreadsheet(text).items():
        file.write_bytes(changed.encode())
        with pytest.raises(ValueError, match=r"log.csv is not as the training wrote it; was it saved by a spreadsheet"):
            run(LinearTask(), TrainConfig(**LINEAR), tmp_path, progress=False)
        assert (file.read_bytes().decode(), (tmp_path / "checkpoint.pt").read_bytes()) == (changed, before), name
    file.write_bytes(text.replace("\r\n", "\n").encode("utf-8"))  # an editor's line ends change nothing
    run(LinearTask(), TrainConfig(**LINEAR), tmp_path, progress=False)
    assert [row["step"] for row in read_log(tmp_path)] == [str(step) for step in range(1, 12)]


# --- what is computed ---


@pytest.mark.parametrize("accumulation", [2, 4, 12])
def test_accumulation_equals_one_large_batch(accumulation: int, tmp_path: Path) -> None:
    ends = []
    for count in (1, accumulation):
        task, folder = LinearTask(), tmp_path / str(count)
        run(task, TrainConfig(**LINEAR | {"accumulation": count}), folder, progress=False)
        ends.append((nn.utils.parameters_to_vector(task.network.parameters()).detach(), read_log(folder)))
    (large, large_log), (small, small_log) = ends
    assert max_difference(small, large) <= 1e-6 * large.abs().max().item()
    for one, other in zip(small_log, large_log, strict=True):
        assert float(one["loss"]) == pytest.approx(float(other["loss"]), abs=2e-5)
        assert float(one["gradient_norm"]) == pytest.approx(float(other["gradient_norm"]), abs=2e-3)


def test_one_step_by_hand(tmp_path: Path) -> None:
    """AdamW (arXiv 1711.05101, algorithm 2) after clipping; the first step of its moments cancels their correction."""
    values = {"steps": 1, "batch_size": 12, "learning_rate": 0.1, "warmup_steps": 4, "weight_decay": 0.3}
    task, config = LinearTask(), TrainConfig(**values, max_grad_norm=0.01)
    linear = task.network.linear
    before = linear.weight.detach().clone()
    task.loss(task.network, 0, slice(None))[0].backward()
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in linear.parameters()))
    gradient = linear.weight.grad * min(1, 0.01 / (norm + 1e-6))
    linear.zero_grad(set_to_none=True)
    rate = 0.1 / 4
    expected = before * (1 - rate * 0.3) - rate * gradient / (gradient.abs() + 1e-8)
    run(task, config, tmp_path, progress=False)
    assert max_difference(linear.weight, expected) <= 1e-6
    assert float(read_log(tmp_path)[0]["gradient_norm"]) == pytest.approx(norm, abs=1e-3)


def test_ema() -> None:
    """average ← d·average + (1 − d)·parameter, d = min(decay, (1 + step) / (10 + step))."""
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    ema = Ema([parameter], decay=0.6)
    expected = parameter.detach().double()
    for step in range(30):
        with torch.no_grad():
            parameter.copy_(torch.randn(2, generator=generator_for(0, step)))
        ema.update(step)
        d = min(0.6, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * parameter.detach().double()
        assert max_difference(ema.average[0].double(), expected) <= 1e-6
    raw = parameter.detach().clone()
    with pytest.raises(KeyError), ema.applied():
        assert torch.equal(parameter, ema.average[0])
        raise KeyError("any")
    assert torch.equal(parameter, raw) and parameter.requires_grad


def test_average_and_rate_are_those_of_diffusers() -> None:
    """Theirs copies the parameters at the first step, and begins its warm-up with a rate of 0."""
    generator = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape, generator=generator).double()) for shape in ((3, 2), (4,))]
    theirs = EMAModel(parameters, decay=0.9)
    theirs.step(parameters)
    ours = [parameter.detach().clone() for parameter in parameters]
    for step in range(1, 100):
        with torch.no_grad():
            for parameter in parameters:
                parameter += torch.randn(parameter.shape, generator=generator)
            ours = loop.moving_average(ours, parameters, 0.9, step)
        theirs.step(parameters)
        for mine, their in zip(ours, theirs.shadow_params, strict=True):
            assert_parity("moving average", mine, their, 1e-9, against="EMAModel")

    optimizer = torch.optim.SGD(parameters, 0.3)
    rates = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=4, num_training_steps=20)
    config = TrainConfig(20, 1, 0.3, warmup_steps=4, decay_steps=16)
    for step in range(20):
        theirs_now = 0.3 * rates.lr_lambdas[0](step + 1 if step < 4 else step)
        pair = (torch.tensor(one, dtype=torch.float64) for one in (config.learning_rate_at(step), theirs_now))
        assert_parity("learning rate", *pair, 1e-9, against="get_linear_schedule_with_warmup")


def test_ema_of_a_run(tmp_path: Path, monkeypatch) -> None:
    """The loop takes the average once a step, also where gradients are accumulated."""
    states = []
    monkeypatch.setattr(runs, "save_checkpoint", lambda file, state: states.append(deepcopy(state)))
    task = LinearTask()
    expected = task.network.linear.weight.detach().clone()
    run(task, TrainConfig(**LINEAR | {"checkpoint_every": 1}), tmp_path, progress=False)
    for state in states:
        d = min(0.999, state["step"] / (9 + state["step"]))
        expected = d * expected + (1 - d) * state["parameters"][0]
        assert max_difference(state["ema"][0], expected) <= 1e-6
    assert [state["step"] for state in states] == list(range(1, 12))  # the last one too, and only once


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(0, 100), st.integers(0, 300), st.floats(1e-6, 1.0))
def test_learning_rate(steps: int, warmup: int, decay: int, base: float) -> None:
    config = TrainConfig(steps, 1, base, warmup_steps=warmup, decay_steps=decay)
    rates = [config.learning_rate_at(step) for step in range(steps)]
    assert all(0 < rate <= base for rate in rates)
    assert config.learning_rate_at(steps) == 0
    for step, rate in enumerate(rates):
        if step < warmup and step <= steps - decay:
            assert rate <= base * (step + 1) / warmup * (1 + 1e-12)
        if step + 1 >= warmup and step <= steps - max(1, decay):
            assert rate == base
        if step + 1 <= warmup and step <= steps - max(1, decay):
            assert rate == pytest.approx(base * (step + 1) / warmup)
        if step >= steps - decay and step + 1 >= warmup:
            assert rate == pytest.approx(base * (steps - step) / decay)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 2**31), st.integers(0, 5))
def test_generator_for(seed: int, step: int, purpose: int) -> None:
    def draw(*key: int) -> list[float]:
        return torch.rand(4, generator=generator_for(*key)).tolist()

    assert draw(seed, step, purpose) == draw(seed, step, purpose)
    others = [draw(seed + 1, step, purpose), draw(seed, step + 1, purpose), draw(seed, step, purpose + 1)]
    assert draw(seed, step, purpose) not in others


def test_mixed_precision_may_change_within_a_process(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    for precision in ("no", "bf16", "no"):
        config = TrainConfig(**LINEAR | {"mixed_precision": precision, "steps": 2})
        task = LinearTask()
        run(task, config, tmp_path / precision, progress=False)
        assert task.network.linear.weight.dtype == torch.float32
    assert read_log(tmp_path / "no")[0]["loss"] != read_log(tmp_path / "bf16")[0]["loss"]


def test_bfloat16_only_where_it_is_fast(monkeypatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    config = TrainConfig(**LINEAR | {"mixed_precision": "bf16"})
    for capability, expected in {"DEFAULT": "no", "AVX2": "no", "AVX512": "bf16"}.items():
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda found=capability: found)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            assert precision_for(config, cpu) == expected
            assert precision_for(config, gpu) == "bf16"
        assert [str(warning.message) for warning in seen] == (
            ["bfloat16 is slow on this processor; training in float32"] if expected == "no" else []
        )


def test_the_scaler_of_the_loss_is_kept(tmp_path: Path, monkeypatch) -> None:
    """Only float16 on a GPU has one, so here the accelerator gets one of the CPU's."""

    def make_accelerator(**values: Any) -> Accelerator:
        accelerator = Accelerator(**values)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
        return accelerator

    monkeypatch.setattr(loop, "Accelerator", make_accelerator)
    values = LINEAR | {"decay_steps": 0, "max_grad_norm": 1e9}  # clipping knows of no scaler but that of float16
    for folder, steps in (("once", 8), ("twice", 4), ("twice", 8)):
        run(LinearTask(), TrainConfig(**values | {"steps": steps}), tmp_path / folder, progress=False)
    assert load(tmp_path / "once")["scaler"]["scale"] == 8 * 2 * 2  # doubled after every third step
    assert_same(load(tmp_path / "twice"), load(tmp_path / "once"))


# --- errors ---


def test_a_checkpoint_of_other_networks(tmp_path: Path) -> None:
    config = TrainConfig(**LINEAR)
    run(LinearTask(), config, tmp_path, progress=False)
    task = LinearTask()
    task.network.linear = nn.Linear(5, 2)
    with pytest.raises(ValueError, match="the checkpoint is from another network than the recipe"):
        run(task, config, tmp_path, progress=False)


RECIPES = {
    "clip": CLIPRecipe,
    "autoencoder": AutoencoderRecipe,
    "diffusion": DiffusionRecipe,
    "dreambooth": DreamBoothRecipe,
    "lora": LoRARecipe,
    "textual_inversion": TextualInversionRecipe,
}


def test_the_recipes_of_the_package_are_read() -> None:
    files = sorted((Path(loop.__file__).parent / "recipes").glob("*.toml"))
    assert {file.stem for file in files} == set(RECIPES)
    for file in files:
        tables = read_recipe(file)
        recipe = read_table(RECIPES[file.stem], tables, str(file))
        assert recipe.training == TrainConfig(**tables["training"])
        for name, table in tables.items():
            for key, value in table.items():
                read = getattr(getattr(recipe, name), key)
                assert isinstance(value, dict) or read == (tuple(value) if isinstance(value, list) else value)
        if "model" in tables and hasattr(recipe.model, "from_dict"):
            assert recipe.model == type(recipe.model).from_dict(tables["model"])


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no recipe at"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "marked.toml").write_bytes("\ufeff[training]\nsteps = 1".encode())
    assert read_recipe(tmp_path / "marked.toml") == {"training": {"steps": 1}}
    for content in (b"[training\nsteps = 1", b"\xff", b"a = " + b"[" * 5000):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad.toml is not a TOML file"):
            read_recipe(tmp_path / "bad.toml")
