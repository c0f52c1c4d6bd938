"""What the doctor says of logs: real ones, of very small trainings, and made-up ones that show one sign each."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small import LINEAR, LinearTask, make, make_parts

from sdlearn.lessons.recorded import FOLDER, through_training
from sdlearn.training import doctor
from sdlearn.training.doctor import examine
from sdlearn.training.loop import TrainConfig
from sdlearn.training.run import run

HEADER = "step,loss,learning_rate,gradient_norm,images_per_second"
HEALTHY = "Nothing in this log looks wrong."


def write(folder: Path, changed: dict[str, Any] | None = None, rows: int = 60, **settings: Any) -> Path:
    """A run's folder. The log: a loss that falls from 1 to 0.5 and a little noise, unless other columns are given."""
    steps = 20 * np.arange(1, rows + 1)
    noise = 0.01 * np.random.default_rng(0).standard_normal(rows)
    columns = {"step": steps, "loss": 0.5 + 0.5 * np.exp(-steps / 200) + noise, "learning_rate": np.full(rows, 1e-3)}
    columns |= {"gradient_norm": np.full(rows, 0.3), "images_per_second": np.full(rows, 10.0)} | (changed or {})
    folder.mkdir(exist_ok=True)
    with (folder / "log.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    if settings:
        usual = {"steps": 2000, "batch_size": 16, "warmup_steps": 100, "decay_steps": 500, "max_grad_norm": 1.0}
        stored = {f"training.{name}": value for name, value in (usual | settings).items()}
        torch.save({"step": settings.pop("at", int(columns["step"][-1])), "settings": stored}, folder / "checkpoint.pt")
    return folder


def loss_with(start: int, values: Any, rows: int = 60) -> dict[str, Any]:
    """The loss of `write` up to row `start`; from there on these values are added."""
    steps = 20 * np.arange(1, rows + 1)
    loss = 0.5 + 0.5 * np.exp(-steps / 200) + 0.01 * np.random.default_rng(0).standard_normal(rows)
    loss[start:] += values
    return {"loss": loss}


def wrong(folder: Path) -> list[str]:
    """What looks wrong, without the mark."""
    return [line.removeprefix("! ") for line in examine(folder) if line.startswith("! ")]


# --- real logs ---


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that learns, stopped at step 60 of 100."""
    folder = tmp_path_factory.mktemp("linear")
    long = LINEAR | {"learning_rate": 0.02, "warmup_steps": 10, "decay_steps": 30, "max_grad_norm": 50.0}

    class Stopped(Exception):
        pass

    def samples() -> None:
        raise Stopped

    task = LinearTask()
    task.samples = samples
    with pytest.raises(Stopped):
        config = TrainConfig(**long | {"steps": 100, "sample_every": 60, "checkpoint_every": 50})
        run(task, config, folder, progress=False)
    return folder


def test_a_real_run_that_learns(linear: Path) -> None:
    said = examine(linear)
    assert said[0] == HEALTHY
    assert any(line.startswith("Step 60 of 100: 40 are left, about 0 seconds at the latest speed") for line in said)
    again = "if the run is stopped now and resumed, the 10 since then are done again."
    assert f"The checkpoint is from step 50: {again}" in said
    assert "The learning rate is 0.02. It falls from step 70 on." in said
    assert any(line.startswith("The loss has fallen from ") for line in said)
    assert said[-1] == "A log can't show whether the results are good. For that, look at what it makes."


def test_a_real_run_to_its_end(linear: Path, tmp_path: Path) -> None:
    shutil.copytree(linear, tmp_path / "run")
    values = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["settings"]
    training = {name.removeprefix("training."): value for name, value in values.items() if name[:9] == "training."}
    run(LinearTask(), TrainConfig(**training), tmp_path / "run", progress=False)
    said = examine(tmp_path / "run")
    assert HEALTHY in said and "The run is complete: all 100 steps." in said
    assert "The learning rate has fallen all the way." in said
    assert said[-1].endswith(f"look at what it draws: {tmp_path / 'run' / 'samples' / '0000100.png'}.")


def test_a_real_run_with_far_too_high_a_learning_rate(tmp_path: Path) -> None:
    config = LINEAR | {"steps": 100, "learning_rate": 30.0, "warmup_steps": 40, "decay_steps": 0}
    run(LinearTask(), TrainConfig(**config), tmp_path, progress=False)
    said = wrong(tmp_path)
    assert any("The loss rises: around step " in line and "A learning rate that is too high" in line for line in said)
    assert any(line.startswith("The gradient is clipped nearly always: in 100% of the rows") for line in said)


@pytest.mark.parametrize("kind", ["v_prediction", "epsilon", "sample"])
def test_a_real_unet_against_knowing_nothing(kind: str, tmp_path: Path) -> None:
    """The UNet of a new run answers 0 at first: for v that is knowing nothing, and its loss says what that costs."""
    make_parts(tmp_path / "parts")
    task, config = make("diffusion", tmp_path, tmp_path / "run", schedule={"prediction_type": kind})
    run(task, config, tmp_path / "run", progress=False)
    expected, latents = [], load_file(tmp_path / "run" / "pool.safetensors")["latents"].float()
    generator, schedule = torch.Generator().manual_seed(0), task.schedule
    for t in range(1000):
        noise = torch.randn(latents.shape, generator=generator)
        x = schedule.add_noise(latents, noise, t)
        s, n = schedule.rates(t, x)
        answer = {"v_prediction": 0 * x, "epsilon": n * x, "sample": s * x}[kind]
        expected.append((answer - schedule.target(latents, noise, t)).square().mean())
    nothing = doctor.read_run(tmp_path / "run")[0].nothing
    assert nothing == pytest.approx(torch.stack(expected).mean().item(), rel=5e-3)
    said = " ".join(examine(tmp_path / "run"))
    answer = {"v_prediction": "v = 0", "epsilon": "ε = n·x_t", "sample": "x_0 = s·x_t"}[kind]
    assert f"always answers {answer} has" in said and "There are only 5 rows: too few to say" in said
    (tmp_path / "run" / "pool.safetensors").unlink()
    assert "knows nothing" not in " ".join(examine(tmp_path / "run"))


# --- signs ---


def test_healthy(tmp_path: Path) -> None:
    said = examine(write(tmp_path, steps=2000))
    assert said[0] == HEALTHY
    assert "Step 1,200 of 2,000: 800 are left, about 21 minutes at the latest speed (10.0 pictures a second)." in said
    assert "The learning rate is 0.001. It falls from step 1,500 on." in said
    assert any(line.startswith("The loss has fallen from 0.") and "(last tenth) (" in line for line in said)


def test_without_a_recipe(tmp_path: Path) -> None:
    said = examine(write(tmp_path))
    assert said[:2] == [
        HEALTHY,
        "The log has 60 rows, up to step 1200; there is no checkpoint with the recipe yet, so "
        "how far it goes isn't known.",
    ]
    (tmp_path / "log.csv").rename(tmp_path / "another.csv")
    assert examine(tmp_path / "another.csv") == said


def test_loss_that_is_not_finite(tmp_path: Path) -> None:
    for value in ("nan", "inf"):
        (said,) = wrong(write(tmp_path, loss_with(30, float(value)), at=600, steps=2000))
        assert said == (
            f"The loss is {value} at step 620: from there on, nothing can be trusted. The checkpoint is older, so the "
            "run can resume from there."
        )
    assert "nan at step 20" in wrong(write(tmp_path, {"loss": np.full(60, np.nan)}))[0]


def test_gradient_that_is_not_finite(tmp_path: Path) -> None:
    norm = np.full(60, 0.3)
    norm[[20, 40]] = np.inf
    (said,) = wrong(write(tmp_path, {"gradient_norm": norm}, mixed_precision="fp16"))
    assert said.startswith("The gradient is infinite in 2 rows, first at step 420. In float16")
    assert wrong(write(tmp_path, {"gradient_norm": norm}, mixed_precision="no"))[0].endswith("at step 420.")


def test_no_gradient(tmp_path: Path) -> None:
    said = wrong(write(tmp_path, {"gradient_norm": np.zeros(60), "loss": np.full(60, 0.7)}))
    assert (
        said
        == [
            "The loss has not fallen: it was 0.7 in the first tenth and is 0.7 in the last.",
            "The gradient is 0 in the last rows: nothing is being learned.",
        ][::-1]
    )


def test_loss_that_never_falls(tmp_path: Path) -> None:
    noise = 0.02 * np.random.default_rng(1).standard_normal(60)
    (said,) = wrong(write(tmp_path, {"loss": 0.9 + noise}))
    assert said.startswith("The loss has not fallen: it was 0.")


def test_loss_that_rises(tmp_path: Path) -> None:
    (said,) = wrong(write(tmp_path, loss_with(40, 0.01 * np.arange(20))))
    assert said.startswith("The loss rises: around step ") and "and now it is 0.6" in said
    began = int(said.split("around step ")[1].split()[0])
    assert 600 <= began <= 900


def test_loss_that_has_begun_to_rise(tmp_path: Path) -> None:
    loss = 0.5 + np.exp(-np.arange(60) / 3) + 0.001 * np.random.default_rng(0).standard_normal(60)
    loss[40:] += 0.0004 * np.arange(20)
    (said,) = wrong(write(tmp_path, {"loss": loss}))
    assert said.startswith("The loss has begun to rise: by 0.00")


def test_loss_that_still_falls_or_is_flat(tmp_path: Path) -> None:
    falling = {"loss": 1 - 0.005 * np.arange(60) + 0.01 * np.random.default_rng(0).standard_normal(60)}
    assert any(line.startswith("The loss still falls: by 0.") for line in examine(write(tmp_path, falling)))
    said = [line for line in examine(write(tmp_path)) if "flat" in line]
    assert len(said) == 1 and "can't be told from chance" in said[0]


@pytest.mark.parametrize(("added", "ends"), [([0.6], "and comes back."), ([0.6] * 30, "and stays there.")])
def test_jumps(added: list[float], ends: str, tmp_path: Path) -> None:
    change = np.zeros(30)
    change[: len(added)] = added
    said = [line for line in wrong(write(tmp_path, loss_with(30, change))) if "jumps" in line]
    assert len(said) == 1 and said[0].startswith("The loss jumps at step 620, from 0.5") and said[0].endswith(ends)
    change[15] += 0.6
    assert "There are 2 such jumps." in " ".join(wrong(write(tmp_path, loss_with(30, change))))


def test_chance_alone_is_no_sign(tmp_path: Path) -> None:
    """Of 200 healthy logs with noise, hardly any is called ill."""
    ill = 0
    for seed in range(200):
        noise = 0.03 * np.random.default_rng(seed).standard_normal(60)
        loss = 0.5 + 0.5 * np.exp(-20 * np.arange(60) / 200) + noise
        ill += bool(wrong(write(tmp_path, {"loss": loss})))
    assert ill <= 4


def test_gradient_that_explodes(tmp_path: Path) -> None:
    norm = np.concatenate([np.full(50, 0.3), np.full(10, 12.0)])
    (said,) = wrong(write(tmp_path, {"gradient_norm": norm}))
    assert said == "The gradient explodes: its norm was 0.3 in the first half of the log and is 12 now."


def test_gradient_that_is_always_clipped(tmp_path: Path) -> None:
    (said,) = wrong(write(tmp_path, {"gradient_norm": np.full(60, 4.0)}, max_grad_norm=1.5))
    assert said.endswith("in 100% of the rows of the second half its norm is above max_grad_norm = 1.5, up to 4.")
    assert not wrong(write(tmp_path, {"gradient_norm": np.full(60, 1.0)}, max_grad_norm=1.5))
    (tmp_path / "checkpoint.pt").unlink()  # then the limit isn't known
    assert not wrong(write(tmp_path, {"gradient_norm": np.full(60, 4.0)}))


@pytest.mark.parametrize(
    ("rows", "settings", "said"),
    [
        (12, {"warmup_steps": 500}, "The learning rate still warms up (step 240, warm-up of 500 steps): what the loss "
         "does now says little."),
        (60, {"decay_steps": 0}, "The learning rate is 0.001, and stays so to the end: this recipe has no decay."),
        (60, {"decay_steps": 1000}, "The learning rate is falling: 0.001 now, of at most 0.001; it reaches 0 at step "
         "2,000."),
        (60, {"steps": 1200}, "The learning rate has fallen all the way."),
    ],
)  # fmt: skip
def test_learning_rate(rows: int, settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in examine(write(tmp_path, rows=rows, **settings))


def test_warm_up_is_seen_without_a_recipe(tmp_path: Path) -> None:
    said = examine(write(tmp_path, {"learning_rate": np.linspace(1e-5, 1e-3, 12), "loss": np.full(12, 0.9)}, rows=12))
    assert said[0] == HEALTHY and any("still warms up (step 240, warm-up of unknown length)" in line for line in said)


def test_knowing_nothing(tmp_path: Path) -> None:
    found, _ = doctor.read_run(write(tmp_path, **{"steps": 2000}))
    settings = found.settings | {"schedule.prediction_type": "v_prediction"}
    for nothing, said in ((0.5, "the network has not learned more than that"), (0.8, "That of the network is 6")):
        sentence = doctor.against_nothing(doctor.replace(found, nothing=nothing, settings=settings))
        assert f"always answers v = 0 has a loss of {nothing} on these latents" in sentence and said in sentence
        assert sentence.startswith("! ") == (nothing == 0.5)


def test_time_that_is_left(tmp_path: Path) -> None:
    for speed, said in ((0.5, "about 7.1 hours"), (200.0, "about 64 seconds"), (np.nan, "Step 1,200 of 2,000.")):
        assert any(
            said in line for line in examine(write(tmp_path, {"images_per_second": np.full(60, speed)}, at=1200))
        )


# --- logs that were interrupted ---


def test_rows_that_are_missing(tmp_path: Path) -> None:
    lines = (write(tmp_path) / "log.csv").read_text().splitlines(keepends=True)
    for left, said in (
        (lines[:1] + lines[20:], "The log begins at step 400: what was before that is missing."),
        (lines[:20] + lines[30:], "Rows are missing between the steps 380 and 600."),
    ):
        (tmp_path / "log.csv").write_text("".join(left))
        assert said in wrong(tmp_path)
    assert "The log ends at step 1200, but the checkpoint is from step 1500." in wrong(write(tmp_path, at=1500))


def test_the_log_of_a_resumed_run_is_healthy(tmp_path: Path) -> None:
    """It goes on where the checkpoint was made, with rows that were there before."""
    steps = np.concatenate([20 * np.arange(1, 31), [610], 20 * np.arange(31, 60)])  # it ended at 610, then went on
    assert wrong(write(tmp_path, {"step": steps}, at=int(steps[-1]))) == []
    every = np.concatenate([20 * np.arange(1, 31), 600 + 100 * np.arange(1, 31)])  # with another log_every
    assert wrong(write(tmp_path, {"step": every}, at=int(every[-1]), steps=4000)) == []
    assert wrong(write(tmp_path, {"step": np.array([10, 13])}, rows=2, at=13, steps=13)) == []  # a short run to its end


def test_a_line_that_is_cut_off(tmp_path: Path) -> None:
    file = write(tmp_path) / "log.csv"
    whole = file.read_text()
    file.write_text(whole.rstrip()[:-12])
    assert wrong(tmp_path) == ["The last line is cut off; it was left out."]
    file.write_text(whole.rstrip())
    assert wrong(tmp_path) == ["The last line has no end and may be cut off; it was left out."]


def test_a_damaged_checkpoint(linear: Path, tmp_path: Path) -> None:
    shutil.copytree(linear, tmp_path / "run")
    file = tmp_path / "run" / "checkpoint.pt"
    shutil.copy(file, file.with_name("checkpoint.previous.pt"))
    file.write_bytes(b"no checkpoint")
    assert wrong(tmp_path / "run") == [f"{file} is damaged."]
    assert any("of 100" in line for line in examine(tmp_path / "run"))
    for strange in ([1, 2], {"step": "x"}, {}):
        torch.save(strange, file)
        assert wrong(tmp_path / "run") == [f"{file} is damaged."]


# --- logs that a spreadsheet has changed ---


def as_a_spreadsheet(text: str, separator: str, comma: bool) -> str:
    text = text.replace(",", separator)
    return text.replace(".", ",") if comma else text


@pytest.mark.parametrize(("separator", "comma"), [(";", True), (";", False), ("\t", True), (",", False)])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_other_separators_and_a_byte_order_mark(separator: str, comma: bool, encoding: str, tmp_path: Path) -> None:
    file = write(tmp_path, at=1200) / "log.csv"
    expected = examine(tmp_path)
    text = as_a_spreadsheet(file.read_text(), separator, comma)
    file.write_text(text + separator * 4 + "\n", encoding=encoding)
    found = [line for line in examine(tmp_path) if "separated" not in line]
    assert found == expected or ["Nothing in this log looks wrong.", *found] == expected
    file.write_text(f"sep={separator}\n{text}", encoding=encoding)
    assert [line for line in examine(tmp_path) if "separated" not in line] == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\ufeff\n;;;\n", "is empty"),
        (f"{HEADER}\n", "has no complete row"),
        (f"{HEADER}\n20,0.5", "has no complete row"),
        ("a,b\n1,2\n", "has no column step and no column loss"),
        (f"{HEADER}\n20,0.5,1,1\n40,0.5,1,1,1\n", "line 2: it has 4 columns, the first line has 5"),
        (f"{HEADER}\n20,0.5,1,1,1\n\n20,0.5,1,1,1\n", "line 4: step 20 comes after step 20; were lines sorted"),
        (f"{HEADER}\n40,0.5,1,1,1\n20,0.5,1,1,1\n", "line 3: step 20 comes after step 40"),
        (f"{HEADER}\n20,01. Mai,1,1,1\n", "line 2: loss = '01. Mai' is not a number; was the file changed"),
        (f"{HEADER}\n20,,1,1,1\n", "line 2: loss = '' is not a number"),
        (f"{HEADER}\n1.000,0.5,1,1,1\n", "line 2: step = '1.000' is not a whole number"),
        (f"{HEADER}\n20,52113,1,1,1\n40,51220,1,1,1\n", "losses such as 52113 have lost their decimal point"),
        (f"{HEADER}\n20,\0,1,1,1\n", "holds zero bytes"),
    ],
)
def test_a_log_that_cannot_be_read(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"log\.csv") as error:
        examine(tmp_path)
    assert message in str(error.value)


def test_no_log(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no log\.csv: no training was run there"):
        examine(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no"):
        examine(tmp_path / "nowhere")
    (tmp_path / "log.csv").write_bytes(b"\x89PNG\xff\xff")
    with pytest.raises(ValueError, match="is not text"):
        examine(tmp_path)


@pytest.mark.skipif(not (FOLDER / "through_training_log.csv").exists(), reason="not recorded yet")
def test_the_recorded_log_of_lesson_12() -> None:
    said = examine(FOLDER / "through_training_log.csv")
    assert said[0] == HEALTHY
    assert any(line.startswith("The loss has fallen from ") for line in said)
    assert any(f"up to step {through_training.STEPS[-1]};" in line for line in said)
