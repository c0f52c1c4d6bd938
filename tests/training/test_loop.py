"""The training loop: killed and resumed runs, accumulation, averaging, the schedule of the learning rate, errors."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interrupted import KILLED, LINEAR, LinearTask, make, make_parts
from torch import Tensor, nn

import sdlearn.training.autoencoder
import sdlearn.training.loop as loop
from sdlearn.check import max_difference
from sdlearn.training.loop import Ema, Log, TrainConfig, generator_for, read_recipe, save_checkpoint, train


@pytest.fixture(autouse=True)
def one_thread():
    """Sums are taken in the same order only with the same number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def read_log(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def load(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def assert_same(ours: Any, expected: Any, where: str = "checkpoint") -> None:
    """Equal to the last bit, all the way down."""
    assert type(ours) is type(expected), where
    if isinstance(expected, Tensor):
        assert torch.equal(ours, expected), where
    elif isinstance(expected, dict):
        assert ours.keys() == expected.keys(), where
        for key in expected:
            assert_same(ours[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(ours) == len(expected), where
        for i, (one, other) in enumerate(zip(ours, expected, strict=True)):
            assert_same(one, other, f"{where}[{i}]")
    else:
        assert ours == expected, where


# --- killed and resumed ---


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """A folder in which every run of KILLED lies as SIGKILL left it."""
    root = tmp_path_factory.mktemp("runs")
    make_parts(root / "parts")
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("interrupted.py")), str(root)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=600)
    assert json.loads(out.stdout.splitlines()[-1]) == dict.fromkeys(KILLED, signal.SIGKILL), out.stderr
    return root


@pytest.fixture(scope="module")
def undisturbed(killed: Path) -> dict[str, Path]:
    """The same trainings, each in one go: made when they are first asked for."""
    return {}


@pytest.mark.parametrize("name", KILLED)
def test_killed_and_resumed_ends_with_the_same_bits(
    name: str, killed: Path, undisturbed: dict[str, Path], monkeypatch
) -> None:
    measure = sdlearn.training.autoencoder.measure_scaling_factor
    monkeypatch.setattr(sdlearn.training.autoencoder, "measure_scaling_factor", partial(measure, count=16))
    kind, _, checkpoint = KILLED[name]
    if kind not in undisturbed:
        undisturbed[kind] = killed / f"undisturbed {kind}"
        task, config = make(kind, killed, undisturbed[kind])
        train(task, config, undisturbed[kind], progress=False)

    folder = killed / name
    assert not (folder / "model").exists()
    if checkpoint:
        assert load(folder)["step"] == checkpoint
    else:
        assert not (folder / "checkpoint.pt").exists()
    assert (folder / "checkpoint.partial").exists() == (name == "while a checkpoint is written")

    task, config = make(kind, killed, folder)
    steps, batch = set(), task.batch
    task.batch = lambda step, rows: steps.add(step) or batch(step, rows)
    torch.manual_seed(99)  # the random state must come from the checkpoint
    if not checkpoint:
        torch.manual_seed(0)
        task, config = make(kind, killed, folder)
    train(task, config, folder, progress=False)

    assert not checkpoint or steps == set(range(checkpoint, config.steps))  # nothing is done twice
    assert_same(load(folder), load(undisturbed[kind]))
    assert not list(folder.rglob("*.partial"))
    for file in (undisturbed[kind] / "model").rglob("*"):
        if file.is_file():
            assert (folder / file.relative_to(undisturbed[kind])).read_bytes() == file.read_bytes(), file
    rows, expected = read_log(folder), read_log(undisturbed[kind])
    for row in rows + expected:
        del row["images_per_second"]
    assert [int(row["step"]) for row in rows] == list(range(1, config.steps + 1))
    assert rows == expected


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    config = TrainConfig(**LINEAR)
    train(LinearTask(), config, tmp_path, progress=False)
    before, rows = load(tmp_path), read_log(tmp_path)
    task = LinearTask()
    train(task, config, tmp_path, progress=False)
    assert_same(load(tmp_path), before)
    assert read_log(tmp_path) == rows
    assert_same([p.detach() for p in task.objective.parameters()], before["parameters"])


def test_a_longer_recipe_goes_on(tmp_path: Path) -> None:
    train(LinearTask(), TrainConfig(**LINEAR | {"steps": 3}), tmp_path, progress=False)
    train(LinearTask(), TrainConfig(**LINEAR | {"steps": 5}), tmp_path, progress=False)
    assert load(tmp_path)["step"] == 5
    assert [row["step"] for row in read_log(tmp_path)] == ["1", "2", "3", "4", "5"]


# --- files ---


def test_checkpoints_are_atomic(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "checkpoint.pt"
    save_checkpoint(file, {"step": 1})

    def fail(state: dict[str, Any], stream: Any) -> None:
        stream.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(loop.torch, "save", fail)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(file, {"step": 2})
    assert torch.load(file, weights_only=True) == {"step": 1}


def test_what_is_written(tmp_path: Path) -> None:
    task, config = LinearTask(), TrainConfig(**LINEAR | {"log_every": 4})
    train(task, config, tmp_path, progress=False)
    rows = read_log(tmp_path)
    assert [row["step"] for row in rows] == ["4", "8", "11"]
    assert list(rows[0]) == ["step", "loss", "learning_rate", "gradient_norm", "images_per_second", "twice"]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert float(rows[-1]["learning_rate"]) == pytest.approx(config.learning_rate_at(10), rel=1e-2)
    assert sorted(file.name for file in (tmp_path / "samples").iterdir()) == [
        *("0000005.png", "0000010.png", "0000011.png")
    ]
    state = load(tmp_path)
    assert state.keys() == {"step", "parameters", "ema", "optimizer", "random"}
    # What is saved is the average; the parameters themselves are back in place afterwards.
    saved = json.loads((tmp_path / "model" / "linear.json").read_text())["weight"]
    assert torch.equal(torch.tensor(saved), state["ema"][0])
    assert not torch.equal(state["ema"][0], state["parameters"][0])
    assert torch.equal(task.objective.linear.weight, state["parameters"][0])


def test_log_drops_what_comes_after_the_checkpoint(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.csv", 0)
    for step in (2, 4, 6):
        log.write({"step": step, "loss": step})
    resumed = Log(tmp_path / "log.csv", 5)
    resumed.write({"step": 6, "loss": 60})
    assert [(row["step"], row["loss"]) for row in read_log(tmp_path)] == [("2", "2"), ("4", "4"), ("6", "60")]
    Log(tmp_path / "log.csv", 0).write({"step": 2, "loss": 1})  # from the beginning
    assert [row["step"] for row in read_log(tmp_path)] == ["2"]


# --- what is computed ---


@pytest.mark.parametrize("accumulation", [2, 4, 12])
def test_accumulation_equals_one_large_batch(accumulation: int, tmp_path: Path) -> None:
    ends = []
    for count in (1, accumulation):
        task, folder = LinearTask(), tmp_path / str(count)
        train(task, TrainConfig(**LINEAR | {"accumulation": count}), folder, progress=False)
        ends.append((nn.utils.parameters_to_vector(task.objective.parameters()).detach(), read_log(folder)))
    (large, large_log), (small, small_log) = ends
    assert max_difference(small, large) <= 1e-6 * large.abs().max().item()
    for one, other in zip(small_log, large_log, strict=True):
        assert float(one["loss"]) == pytest.approx(float(other["loss"]), abs=2e-5)
        assert float(one["gradient_norm"]) == pytest.approx(float(other["gradient_norm"]), abs=2e-3)


def test_one_step_by_hand(tmp_path: Path) -> None:
    """AdamW (arXiv 1711.05101, algorithm 2) after clipping; the first step of its moments cancels their correction."""
    values = {"steps": 1, "batch_size": 12, "learning_rate": 0.1, "warmup_steps": 4, "weight_decay": 0.3}
    task, config = LinearTask(), TrainConfig(**values, max_grad_norm=0.01)
    linear = task.objective.linear
    before = linear.weight.detach().clone()
    task.objective(**task.batch(0, slice(None)))[0].backward()
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in linear.parameters()))
    gradient = linear.weight.grad * min(1, 0.01 / (norm + 1e-6))
    linear.zero_grad(set_to_none=True)
    rate = 0.1 / 4
    expected = before * (1 - rate * 0.3) - rate * gradient / (gradient.abs() + 1e-8)
    train(task, config, tmp_path, progress=False)
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


def test_ema_of_a_run(tmp_path: Path, monkeypatch) -> None:
    """The loop takes the average once a step, also where gradients are accumulated."""
    states = []
    monkeypatch.setattr(loop, "save_checkpoint", lambda file, state: states.append(deepcopy(state)))
    task = LinearTask()
    expected = task.objective.linear.weight.detach().clone()
    train(task, TrainConfig(**LINEAR | {"checkpoint_every": 1}), tmp_path, progress=False)
    for state in states[:11]:
        d = min(0.999, state["step"] / (9 + state["step"]))
        expected = d * expected + (1 - d) * state["parameters"][0]
        assert max_difference(state["ema"][0], expected) <= 1e-6
    assert [state["step"] for state in states] == [*range(1, 12), 11]


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


def test_mixed_precision_may_change_within_a_process(tmp_path: Path) -> None:
    for precision in ("no", "bf16", "no"):
        config = TrainConfig(**LINEAR | {"mixed_precision": precision, "steps": 2})
        task = LinearTask()
        train(task, config, tmp_path / precision, progress=False)
        assert task.objective.linear.weight.dtype == torch.float32
    assert read_log(tmp_path / "no")[0]["loss"] != read_log(tmp_path / "bf16")[0]["loss"]


# --- errors ---


@pytest.mark.parametrize(("log_every", "checkpoint_every"), [(1, 2), (10, 4), (20, 7)])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops(log_every: int, checkpoint_every: int, bad: float, tmp_path: Path) -> None:
    """At the next row of the log or the next checkpoint, whichever comes first; the checkpoint before stays good."""
    task = LinearTask()
    batch = task.batch

    def poisoned(step: int, rows: slice) -> dict[str, Tensor]:
        values = batch(step, rows)
        return values | {"y": values["y"] + bad} if step == 8 else values

    task.batch = poisoned
    config = TrainConfig(**LINEAR | {"steps": 40, "log_every": log_every, "checkpoint_every": checkpoint_every})
    with pytest.raises(RuntimeError, match=r"not finite|the loss is (nan|inf)"):
        train(task, config, tmp_path, progress=False)
    state = load(tmp_path)
    assert state["step"] == 8 // checkpoint_every * checkpoint_every
    assert all(parameter.isfinite().all() for parameter in state["parameters"] + state["ema"])
    assert all(math.isfinite(float(row["loss"])) for row in (read_log(tmp_path) if log_every == 1 else []))
    assert not (tmp_path / "model").exists()
    task.batch = batch
    train(task, config, tmp_path, progress=False)  # can be resumed
    assert load(tmp_path)["step"] == 40


def test_recipes() -> None:
    values = {"steps": 10, "batch_size": 4, "learning_rate": 1e-3}
    assert TrainConfig.from_recipe({"training": values, "model": {}}) == TrainConfig(10, 4, 1e-3)
    with pytest.raises(ValueError, match=r"\[training\] has unknown keys learning_rat, stepps; known are steps, batch"):
        TrainConfig.from_recipe({"training": values | {"stepps": 1, "learning_rat": 2}})
    with pytest.raises(ValueError, match=r"\[training\].*learning_rate"):
        TrainConfig.from_recipe({"training": {"steps": 10, "batch_size": 4}})
    with pytest.raises(ValueError, match=r"\[training\]"):
        TrainConfig.from_recipe({})
    for key in ("steps", "batch_size", "accumulation", "log_every", "sample_every", "checkpoint_every"):
        with pytest.raises(ValueError, match=f"{key} must be at least 1, not 0"):
            TrainConfig.from_recipe({"training": values | {key: 0}})
    with pytest.raises(ValueError, match="batch_size 4 is not divisible by accumulation 3"):
        TrainConfig.from_recipe({"training": values | {"accumulation": 3}})
    with pytest.raises(ValueError, match="mixed_precision must be 'no', 'bf16' or 'fp16', not 'fp8'"):
        TrainConfig.from_recipe({"training": values | {"mixed_precision": "fp8"}})


def test_the_recipes_of_the_package_are_read() -> None:
    files = sorted((Path(loop.__file__).parents[1] / "recipes").glob("*.toml"))
    assert {file.stem for file in files} >= {"autoencoder", "clip"}
    for file in files:
        TrainConfig.from_recipe(read_recipe(file))


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no recipe at"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("[training\nsteps = 1")
    with pytest.raises(ValueError, match=r"bad.toml is not a TOML file"):
        read_recipe(tmp_path / "bad.toml")
