"""The command line, as a user calls it: what it prints, what it writes, how it fails."""

import json
import os
import shutil
import struct
import subprocess
import sys
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from adapted import random_lora
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import sdlearn
from sdlearn import cli
from sdlearn.config import read_table
from sdlearn.lessons.check import randomize_
from sdlearn.lessons.exercises.registry import find
from sdlearn.lessons.exercises.source import definition
from sdlearn.models.clip import CLIP, CLIPConfig, VisionConfig
from sdlearn.models.text import TextConfig, TextEncoder
from sdlearn.storage.clip import load_clip
from sdlearn.storage.folder import load_part, save_part
from sdlearn.training.diffusion import DiffusionRecipe, DiffusionTask
from sdlearn.training.dreambooth import DreamBoothRecipe, DreamBoothTask


@dataclass
class Result:
    status: int
    out: str
    err: str


class Run:
    """Call `main` with a command line; `run(...)` demands success, `run.fails(...)` one line on stderr."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def result(self, *arguments: object) -> Result:
        self.monkeypatch.setattr(sys, "argv", ["sdlearn", *map(str, arguments)])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = self.capsys.readouterr()
        return Result(int(stop.value.code or 0), out, err)

    def __call__(self, *arguments: object) -> str:
        result = self.result(*arguments)
        assert result.status == 0, result.err
        return result.out

    def fails(self, *arguments: object, status: int = 1) -> str:
        result = self.result(*arguments)
        lines = [line for line in result.err.splitlines() if "step/s" not in line]
        assert result.status == status
        assert len(lines) == 1 and lines[0].startswith("error: "), result.err
        return lines[0]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(monkeypatch, capsys)


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in a folder of its own, with the random model in the bundled one's place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SDLEARN_MODEL", raising=False)
    monkeypatch.setattr("sdlearn.storage.load.BUNDLED", tiny_folder)


def pixels(file: str | Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def settings(file: str | Path) -> dict[str, object]:
    with Image.open(file) as image:
        return json.loads(image.info["sdlearn"])


def test_help_does_not_import_torch() -> None:
    code = "import sys, sdlearn.cli; print([name for name in ('torch', 'numpy', 'PIL') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    "command", [[], ["generate"], ["demo"], ["info"], ["train"], ["doctor"], ["assemble"], ["evaluate"], ["passport"]]
)
def test_help(run: Run, command: list[str]) -> None:
    assert "Usage: " in run(*command, "--help")


class TestGenerate:
    def test_picture_holds_its_settings(self, run: Run) -> None:
        out = run("generate", "a red apple – 苹果", "--negative-prompt", "blue", "--seed", 4, "--output", "new/a.png")
        assert out == "new/a.png\n"
        assert pixels("new/a.png").shape == (64, 64, 3)
        assert settings("new/a.png") == {
            **{"prompt": "a red apple – 苹果", "negative_prompt": "blue", "seed": 4, "model": None},
            **{"steps": 5, "sampler": "dpmpp_2m", "guidance_scale": 3.0},  # the model's defaults
        }
        assert [file.name for file in Path("new").iterdir()] == ["a.png"]

    def test_equals_the_pipeline(self, run: Run) -> None:
        run("generate", "a cat", "--seed", 2, "--steps", 3, "--sampler", "ddim", "--guidance-scale", 2.5)
        chosen = {"seed": 2, "steps": 3, "sampler": "ddim", "guidance_scale": 2.5}
        (expected,) = sdlearn.load()("a cat", progress=False, **chosen)
        assert np.array_equal(pixels("out/picture.png"), np.asarray(expected))

    def test_like_repeats(self, run: Run) -> None:
        options = ["--negative-prompt", "blue", "--seed", 7, "--steps", 4, "--sampler", "ddpm", "--guidance-scale", 2]
        run("generate", "a red apple", *options, "--output", "a.png")
        run("generate", "--like", "a.png", "--output", "b.png")
        assert np.array_equal(pixels("a.png"), pixels("b.png"))
        assert settings("a.png") == settings("b.png")

    def test_options_override_like(self, run: Run) -> None:
        run("generate", "a red apple", "--seed", 7, "--output", "a.png")
        run("generate", "--like", "a.png", "--seed", 0, "--output", "b.png")
        assert settings("b.png") == settings("a.png") | {"seed": 0}
        assert not np.array_equal(pixels("a.png"), pixels("b.png"))

    def test_each_of_several_is_repeated_alone(self, run: Run) -> None:
        out = run("generate", "a cat", "--seed", 3, "--count", 3, "--output", "a.png")
        assert out.split() == ["a-3.png", "a-4.png", "a-5.png"]
        run("generate", "--like", "a-4.png", "--output", "b.png")
        assert np.array_equal(pixels("a-4.png"), pixels("b.png"))
        assert not np.array_equal(pixels("a-3.png"), pixels("a-4.png"))

    def test_model_is_part_of_the_settings(
        self, run: Run, epsilon_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run("generate", "a cat", "--output", "bundled.png")
        run("generate", "a cat", "--model", epsilon_folder, "--output", "named.png")
        monkeypatch.setenv("SDLEARN_MODEL", str(epsilon_folder))
        run("generate", "a cat", "--output", "environment.png")
        assert settings("named.png")["model"] == settings("environment.png")["model"] == str(epsilon_folder)
        assert np.array_equal(pixels("named.png"), pixels("environment.png"))
        run("generate", "--like", "bundled.png", "--output", "again.png")  # not by the model in the environment
        assert np.array_equal(pixels("bundled.png"), pixels("again.png"))
        assert not np.array_equal(pixels("bundled.png"), pixels("named.png"))

    def test_a_picture_is_changed(self, run: Run) -> None:
        Image.effect_noise((80, 50), 90).convert("RGBA").save("photo.png")
        run("generate", "a cat", "--image", "photo.png", "--strength", 0.5, "--seed", 3, "--output", "a.png")
        assert pixels("a.png").shape == (64, 64, 3)
        assert {key: settings("a.png").get(key) for key in ("image", "strength", "seed", "mask")} == {
            **{"image": "photo.png", "strength": 0.5, "seed": 3, "mask": None},
        }
        options = {"picture": Image.open("photo.png"), "strength": 0.5, "seed": 3, "height": 64, "width": 64}
        (expected,) = sdlearn.load()("a cat", task=sdlearn.image_to_image, progress=False, **options)
        assert np.array_equal(pixels("a.png"), np.asarray(expected))
        run("generate", "--like", "a.png", "--output", "b.png")
        assert np.array_equal(pixels("a.png"), pixels("b.png"))
        assert settings("a.png") == settings("b.png")

    def test_a_part_is_drawn_anew(self, run: Run) -> None:
        Image.effect_noise((64, 64), 90).convert("RGB").save("photo.png")
        mask = Image.new("L", (64, 64), 0)
        mask.paste(255, (0, 0, 32, 64))
        mask.save("mask.png")
        run("generate", "a cat", "--image", "photo.png", "--mask", "mask.png", "--output", "a.png")
        options = {"picture": Image.open("photo.png"), "mask": mask}
        (expected,) = sdlearn.load()("a cat", task=sdlearn.inpaint, progress=False, **options)
        assert np.array_equal(pixels("a.png"), np.asarray(expected))
        run("generate", "--like", "a.png", "--output", "b.png")
        assert np.array_equal(pixels("a.png"), pixels("b.png"))

    def test_loras_and_words(self, run: Run, tiny_folder: Path) -> None:
        model = sdlearn.load()
        values = torch.randn((2, 32), generator=torch.Generator().manual_seed(0))
        sdlearn.save_embedding("toy.safetensors", "<toy>", values)
        for i, layout in enumerate(["kohya", "diffusers"]):
            sdlearn.save_lora(random_lora(model, seed=i), f"{layout}.safetensors", layout)
        given = ["--lora", "kohya.safetensors:0.5", "--lora", "diffusers.safetensors", "--embedding", "toy.safetensors"]
        run("generate", "a <toy>", *given, "--output", "a.png")
        assert settings("a.png")["lora"] == ["kohya.safetensors:0.5", "diffusers.safetensors"]
        assert settings("a.png")["embedding"] == ["toy.safetensors"]

        sdlearn.adapters.textual_inversion.add_word(model, "<toy>", values)
        for layout, scale in (("kohya", 0.5), ("diffusers", 1.0)):
            sdlearn.adapters.lora.attach(model, sdlearn.load_lora(f"{layout}.safetensors", model), scale)
        (expected,) = model("a <toy>", progress=False)
        assert np.array_equal(pixels("a.png"), np.asarray(expected))

        run("generate", "--like", "a.png", "--output", "b.png")
        assert np.array_equal(pixels("a.png"), pixels("b.png"))
        assert settings("a.png") == settings("b.png")
        run("generate", "--like", "a.png", "--lora", "kohya.safetensors:0.5", "--output", "c.png")
        assert settings("c.png") == settings("a.png") | {"lora": ["kohya.safetensors:0.5"]}
        assert not np.array_equal(pixels("a.png"), pixels("c.png"))

    def test_a_colon_in_a_files_name(self, run: Run) -> None:
        sdlearn.save_lora(random_lora(sdlearn.load()), "a.safetensors")
        Path("a.safetensors").rename("a:2")
        assert cli.split_scale("a:2") == (Path("a:2"), 1.0)
        assert cli.split_scale("a:2:-3") == (Path("a:2"), -3.0)

    def test_a_word_that_is_not_used_is_told(self, run: Run) -> None:
        sdlearn.save_embedding("toy.safetensors", "<Toy>", torch.zeros(32))
        result = run.result("generate", "a toy", "--embedding", "toy.safetensors", "--steps", 1)
        assert "warning: toy.safetensors is the word '<Toy>', which is not in the prompt\n" in result.err
        result = run.result("generate", "a cat", "--negative-prompt", "a <TOY>", "--embedding", "toy.safetensors")
        assert result.status == 0 and "warning" not in result.err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["a cat", "--lora", "nowhere.safetensors:0.5"], "no LoRA file nowhere.safetensors"),
            (["a cat", "--lora", "file:strong"], "the scale 'strong' must be a number, as in style.safetensors:0.8"),
            (["a cat", "--lora", "file:nan"], "the scale 'nan' must be a number"),
            (["a cat", "--lora", "file"], "file is damaged"),
            (["a cat", "--lora", "toy.safetensors"], "toy.safetensors is for another model, or is no LoRA"),
            (["a cat", "--embedding", "nowhere.pt"], "no embedding file nowhere.pt"),
            (["a cat", "--embedding", "toy.safetensors"], "'<toy>' have the shape (1, 33)"),
            (["a cat", "--embedding", "owl.safetensors"], "the word 'owl' is in the vocabulary"),
            (["--like", "number.png"], "lora = 3"),
            (["--like", "numbers.png"], "lora = [3], must be a list of texts"),
            (["--like", "gone.png"], "no LoRA file gone.safetensors"),
            (["a cat", "--mask", "plain.png"], "--mask and --strength need a picture: --image FILE"),
            (["a cat", "--strength", "0.5"], "--mask and --strength need a picture: --image FILE"),
            (["a cat", "--image", "file"], "cannot identify image file"),
            (["a cat", "--image", "nowhere.png"], "No such file or directory: nowhere.png"),
            (["a cat", "--image", "plain.png", "--strength", "0.1"], "leaves none of 5 steps; raise it to 0.2"),
            ([], "say what to draw"),
            (["a cat", "--sampler", "eular"], "ddpm, ddim, plms, euler"),
            (["a cat", "--steps", "5000"], "1000"),
            (["a cat", "--output", "a.jpg"], "must be a .png file"),
            (["a cat", "--output", "file/a.png"], "file"),
            (["a cat", "--output", "folder.png"], "can't write folder.png"),
            (["a cat", "--model", "nowhere"], "nowhere"),
            (["--like", "nowhere.png"], "No such file or directory: nowhere.png"),
            (["--like", "file"], "cannot identify image file"),
            (["--like", "plain.png"], "holds no settings"),
            (["--like", "broken.png"], "can't be read"),
            (["--like", "extra.png"], "can't be read"),
            (["--like", "wrong.png"], "seed = 'x'"),
            (["--like", "true.png"], "true.png holds seed = True"),
        ],
    )
    def test_error_is_one_line(self, run: Run, arguments: list[str], message: str) -> None:
        Path("file").write_text("no picture")
        Path("folder.png").mkdir()
        sdlearn.save_embedding("toy.safetensors", "<toy>", torch.zeros(33))
        sdlearn.save_embedding("owl.safetensors", "owl", torch.zeros(32))
        values = {"prompt": "a", "negative_prompt": "", "seed": 1, "steps": 3, "sampler": "ddim"}
        values |= {"guidance_scale": 1.0, "model": None}
        texts = {
            name: json.dumps(values | {"lora": lora})
            for name, lora in (("number", 3), ("numbers", [3]), ("gone", ["gone.safetensors"]))
        }
        texts |= {"plain": None, "broken": "{", "extra": '{"a": 1}', "wrong": json.dumps(values | {"seed": "x"})}
        texts |= {"true": json.dumps(values | {"seed": True})}
        for name, text in texts.items():
            info = PngInfo()
            if text is not None:
                info.add_text("sdlearn", text)
            Image.new("RGB", (8, 8)).save(f"{name}.png", pnginfo=info)
        before = sorted(Path().rglob("*"))
        assert message in run.fails("generate", *arguments)
        assert [file for file in sorted(Path().rglob("*")) if file not in before] in ([], [Path("out")])

    def test_long_prompt_warns_in_one_line(self, run: Run) -> None:
        result = run.result("generate", "apple " * 200, "--steps", 1)
        assert result.status == 0
        assert next(line for line in result.err.splitlines() if "cut" in line).startswith("warning: ")


def command(*arguments: str, shell: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own. shell: what a shell does with its streams, such as 2>&-"""
    line = [sys.executable, "-m", "sdlearn.cli", *arguments]
    line = ["sh", "-c", f'"$@" {shell}', "sh", *line]
    return subprocess.run(line, capture_output=True, encoding="utf-8", env=os.environ | environment)


def raises(error: BaseException) -> object:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


class TestConsole:
    """What all commands share."""

    @pytest.mark.parametrize(
        ("error", "line"),
        [
            (KeyError("x"), "KeyError: 'x' (this was not foreseen; with --debug you see where it happened)"),
            (AttributeError("a\nb"), "AttributeError: a b (this was not foreseen"),
            (ZeroDivisionError(), "ZeroDivisionError: (this was not foreseen"),
            (ValueError(), "ValueError: (this was not foreseen"),
            (MemoryError("Unable to allocate 9 TiB"), "the memory is not enough. Unable to allocate 9 TiB"),
            (OSError(28, "No space left on device", "a.png"), "No space left on device: a.png"),
            (OSError("no errno"), "no errno"),
        ],
    )
    def test_any_error_is_one_line(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, line: str
    ) -> None:
        monkeypatch.setattr(sdlearn, "load", raises(error))
        assert run.fails("demo").startswith(f"error: {line}")

    def test_ctrl_c_ends_it(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sdlearn, "load", raises(KeyboardInterrupt()))
        assert run.result("demo") == Result(130, "", "")

    def test_debug_shows_where(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sdlearn, "load", raises(KeyError("x")))
        for arguments in (["--debug", "demo"], ["demo", "--debug"], ["demo", "--debug", "--", "an owl"]):
            result = run.result(*arguments)
            assert "Traceback (most recent call last)" in result.err and "in fail" in result.err
            assert result.err.splitlines()[-1].startswith("error: KeyError: 'x'") and result.status == 1
        assert run.fails("demo", "--", "--debug")  # a prompt

    def test_a_warning_of_several_lines_is_one(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sdlearn, "load", lambda *_: warnings.warn("one\n  two", stacklevel=1) or 1 / 0)
        result = run.result("demo")
        assert result.err.startswith("warning: one two\nerror: ZeroDivisionError")

    def test_without_stderr_the_picture_is_drawn(self, tiny_folder: Path) -> None:
        options = ["--model", str(tiny_folder), "--output", "a.png"]
        for shell in ("2>&-", "2>/dev/full", "<&- 2>&-", ">&- 2>&-"):
            Path("a.png").unlink(missing_ok=True)
            done = command("generate", "an owl", *options, shell=shell)
            assert done.returncode == 0 and done.stdout in ("a.png\n", ""), shell
            assert pixels("a.png").shape == (64, 64, 3)
            assert sorted(file.name for file in Path().iterdir()) == ["a.png"]

    def test_a_full_stdout_is_one_line(self) -> None:
        done = command("--help", shell=">/dev/full")
        assert done.returncode == 1 and done.stderr == "error: [Errno 28] No space left on device\n"

    def test_a_console_without_our_signs(self, tmp_path: Path) -> None:
        Path("passport").mkdir()
        options = {"SDLEARN_PASSPORT": "passport", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
        done = command("passport", **options)
        assert done.returncode == 0 and "\no  00.combine" in done.stdout, done.stderr
        done = command("generate", "--like", "bär.png", **options)
        assert done.stderr == "error: No such file or directory: b\\xe4r.png\n" and done.returncode == 1


class TestHome:
    """~ is the home folder wherever a path is named: a shell leaves it alone in --output=~/a.png."""

    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        (tmp_path / "home").mkdir()
        return tmp_path / "home"

    def test_options_of_generate(self, run: Run, home: Path) -> None:
        for name in ("photo.png", "mask.png"):
            Image.effect_noise((64, 64), 90).convert("RGB").save(home / name)
        sdlearn.save_embedding(home / "toy.safetensors", "<toy>", torch.zeros(32))
        sdlearn.save_lora(random_lora(sdlearn.load()), home / "a.safetensors")
        pictures = ["--image=~/photo.png", "--mask=~/mask.png", "--embedding=~/toy.safetensors"]
        run("generate", "a <toy>", *pictures, "--lora=~/a.safetensors:0.5", "--output=~/new/a.png")
        run("generate", "--like=~/new/a.png", "--lora=~/a.safetensors:0.5", "--output=~/b.png")
        assert np.array_equal(pixels(home / "new" / "a.png"), pixels(home / "b.png"))
        assert not Path("~").exists()

    def test_other_commands_and_recipes(self, run: Run, home: Path, tiny_folder: Path) -> None:
        shutil.copytree(tiny_folder / "vae", home / "model" / "vae")
        (home / "a.toml").write_text(RECIPE.partition("[loss]")[1] + RECIPE.partition("[loss]")[2])
        (home / "a.toml").write_text((home / "a.toml").read_text() + "[parts]\ninit = '~/model'\n")
        assert run("train", "autoencoder", "--recipe=~/a.toml", "--output=~/run") == f"{home}/run/model\n"
        assert "The run is complete" in run("doctor", "~/run")
        assert f"{home}/none" in run.fails("assemble", "~/none", "--output=~/model")
        for line in (["doctor", "~nobody-has-this-name/x"], ["generate", "a cat", "--model=~nobody-has-this-name/x"]):
            assert "~nobody-has-this-name/x: there is no such home folder" in run.fails(*line, status=2)

    def test_recipes_that_name_folders(self, tiny_folder: Path, home: Path) -> None:
        (home / "parts").symlink_to(tiny_folder)
        (home / "pictures").mkdir()
        for name in "abc":
            Image.new("RGB", (8, 8)).save(home / "pictures" / f"{name}.png")
            (home / "pictures" / f"{name}.txt").write_text("a cat")
        parts = {"clip": "~/parts", "autoencoder": "~/parts", "init": "~/parts"}
        training = {"steps": 1, "batch_size": 2, "learning_rate": 1e-3}
        data = {"caption_dropout": 0.1, "folder": "~/pictures"}
        tables = {"training": training, "parts": parts, "schedule": {}, "data": data}
        DiffusionTask(read_table(DiffusionRecipe, tables, "recipe"), Path("run"), progress=False)
        tables = {"training": training, "model": {"source": "~/parts"}}
        tables |= {"data": {"folder": "~/pictures", "prompts": ["a cat"]}}
        DreamBoothTask(read_table(DreamBoothRecipe, tables, "recipe"), Path("other"), progress=False)


class TestStrangersPictures:
    """A picture from somebody else is not to be trusted: it may not make us ask the hub for anything."""

    def picture(self, **changes: object) -> Path:
        values = {"prompt": "a", "negative_prompt": "", "seed": 1, "steps": 1, "sampler": "ddim"}
        info = PngInfo()
        info.add_text("sdlearn", json.dumps(values | {"guidance_scale": 1.0, "model": None} | changes))
        Image.new("RGB", (8, 8)).save("theirs.png", pnginfo=info)
        return Path("theirs.png")

    def test_the_hub_is_not_asked(
        self, run: Run, tiny_folder: Path, epsilon_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []
        monkeypatch.setattr("sdlearn.storage.hub.fetch", lambda name, files: asked.append(name) or tiny_folder)
        self.picture(model="stranger/model")
        said = "error: theirs.png names the model stranger/model, which is not here; if you trust it, add --model"
        assert run.fails("generate", "--like", "theirs.png").startswith(said)
        assert asked == []
        run("generate", "--like", "theirs.png", "--model", epsilon_folder)
        run("generate", "--like", self.picture(model=str(epsilon_folder)))
        run("generate", "--like", self.picture(model=None))
        monkeypatch.setenv("SDLEARN_MODEL", "my/model")  # one's own choice, but the picture's comes first
        run.fails("generate", "--like", self.picture(model="stranger/model"))
        assert asked == []

    def test_settings_that_are_nested_too_deep(self, run: Run) -> None:
        info = PngInfo()
        info.add_text("sdlearn", "[" * 100_000)
        Image.new("RGB", (8, 8)).save("deep.png", pnginfo=info)
        assert "deep.png holds settings that can't be read" in run.fails("generate", "--like", "deep.png")

    def test_pictures_that_are_too_large(self, run: Run) -> None:
        large = b"\x89PNG\r\n\x1a\n" + b"".join(
            len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
            for kind, data in ((b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)), (b"IDAT", b""))
        )
        Path("large.png").write_bytes(large)
        for arguments in (["--like", "large.png"], ["a cat", "--image", "large.png"]):
            assert "large.png can't be read: Image size (900000000 pixels)" in run.fails("generate", *arguments)

    @pytest.mark.skipif(os.name == "nt", reason="there are no named pipes")
    def test_pipes(self, run: Run) -> None:
        os.mkfifo("pipe.png")
        for arguments in (["--like", "pipe.png"], ["a cat", "--image", "pipe.png"]):
            assert "pipe.png is a pipe or a device" in run.fails("generate", *arguments)


@pytest.mark.parametrize("arguments", [["draw"], ["generate", "--steps", "few"], ["generate", "--colour"], []])
def test_wrong_command_line_is_one_line(run: Run, arguments: list[str]) -> None:
    run.fails(*arguments, status=2)


def test_failed_write_keeps_the_old_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.png").write_bytes(b"old")

    def full_disk(self: Image.Image, file: Path, **options: object) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device", str(file))

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        cli.save_image(Image.new("RGB", (8, 8)), Path("a.png"))
    assert [(file.name, file.read_bytes()) for file in Path().iterdir()] == [("a.png", b"old")]


class TestDemo:
    def test_sheet_of_eight(self, run: Run) -> None:
        out = run("demo")
        assert out.startswith("out/demo.png  (loading ") and " s, sampling " in out
        sheet = pixels("out/demo.png")
        drawn = sdlearn.load()(list(cli.PROMPTS), seed=0, progress=False)
        for i, image in enumerate(drawn):
            x, y = 12 + i % 4 * 204, 12 + i // 4 * 244
            expected = np.asarray(image.resize((192, 192), Image.Resampling.LANCZOS))
            assert np.array_equal(sheet[y : y + 192, x : x + 192], expected)
            assert (sheet[y + 192 : y + 232, x : x + 192] < 64).any()  # the caption, black on white

    def test_own_prompt(self, run: Run) -> None:
        run("demo", "--seed", 3, "--", "an owl")
        (image,) = sdlearn.load()("an owl", seed=3, progress=False)
        expected = np.asarray(image.resize((384, 384), Image.Resampling.LANCZOS))
        assert np.array_equal(pixels("out/demo.png")[12:396, 12:396], expected)


class TestInfo:
    def test_prints(self, run: Run) -> None:
        out = run("info")
        assert f"torch {torch.__version__.split('+')[0]}" in out
        assert "cpu: works" in out
        assert "# A random model, for tests" in out
        parameters = sum(p.numel() for network in sdlearn.load().networks for p in network.parameters())
        assert f"{parameters:,} parameters" in out

    def test_the_card_is_for_people(self, run: Run, tiny_folder: Path) -> None:
        shutil.copytree(tiny_folder, "model")
        Path("model/README.md").write_text("---\nlicense: mit\ntags:\n- tiny\n---\n\n# A card\n\n---\n\nThe end.\n")
        out = run("info", "--model", "model")
        assert out.endswith("\n\n# A card\n\n---\n\nThe end.\n\n") and "license" not in out

    def test_notices_a_wrong_device(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        right = torch.Tensor.__matmul__
        wrong = lambda a, b: right(a, b) + (1 if a.is_floating_point() else 0)  # noqa: E731
        monkeypatch.setattr(torch.Tensor, "__matmul__", wrong)
        assert "cpu computes incorrectly" in run.fails("info")


class TestPassport:
    @pytest.fixture(autouse=True)
    def folder(self, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("SDLEARN_PASSPORT", "passport")
        Path("passport").mkdir()
        return Path("passport")

    def test_nothing_yet(self, run: Run) -> None:
        out = run("passport")
        assert "○  00.combine" in out and "✔" not in out
        assert "Nothing is yours yet. Begin with lesson 00" in out
        assert not Path("out/passport.png").exists()

    def test_a_picture_of_ones_own(self, run: Run, folder: Path, tiny_folder: Path) -> None:
        (folder / "00.combine.py").write_text(definition(find("00.combine"), emptied=False))
        out = run("passport", "--seed", 2, "--output", "own.png", "--model", tiny_folder)
        assert "✔  00.combine                     5  yours\n" in out
        assert f"Exercises that are yours: 1 of {len(sdlearn.lessons.exercises.EXERCISES)}.\n" in out
        assert out.endswith("Parts of your own that drew the picture: 1: combine.\nown.png\n")
        drawn = pixels("own.png")
        (expected,) = sdlearn.load()(cli.PROMPTS[0], seed=2, progress=False)
        side = drawn.shape[0]
        resized = np.asarray(expected.resize((side, side), Image.Resampling.LANCZOS)).astype(int)
        assert np.abs(drawn[:, :side].astype(int) - resized).max() <= 2

    def test_a_spoilt_answer_is_told_and_left_out(self, run: Run, folder: Path) -> None:
        (folder / "00.combine.py").write_text("def combine(u, c, s):\n    return u\n")
        out = run("passport")
        assert "✘  00.combine" in out and "left out, it no longer passes: this is the prediction without words" in out
        assert "Nothing is yours yet" in out

    def test_somebody_else_s_is_run_only_when_that_is_agreed_to(self, run: Run, tmp_path: Path) -> None:
        theirs, trace = tmp_path / "theirs", tmp_path / "trace"
        theirs.mkdir()
        text = f"open({str(trace)!r}, 'w')\ndef combine(u, c, s):\n    return u\n"
        (theirs / "00.combine.py").write_text(text)
        assert "nothing was run; with --run-their-code" in run.fails("passport", theirs)
        assert not trace.exists()
        out = run("passport", theirs, "--run-their-code")
        assert f"The answers in {theirs} are programs. Judging them runs them on this computer, with your rights" in out
        assert "✘  00.combine" in out and trace.exists()
        assert "no such folder" in run.fails("passport", "nowhere")

    def test_the_output_must_be_a_png(self, run: Run) -> None:
        assert "must be a .png file" in run.fails("passport", "--output", "a.jpg")


RECIPE = """
[model]
block_out_channels = [8, 8]
layers_per_block = 1
latent_channels = 4
norm_num_groups = 4
sample_size = 64
mid_block_add_attention = false
[loss]
kl_weight = 1e-3
[training]
steps = 2
batch_size = 2
learning_rate = 1e-3
"""


class TestTrain:
    def test_trains(self, run: Run) -> None:
        Path("a.toml").write_text(RECIPE)
        assert run("train", "autoencoder", "--recipe", "a.toml", "--output", "runs/a") == "runs/a/model\n"
        config = json.loads(Path("runs/a/model/vae/config.json").read_text())
        assert config["block_out_channels"] == [8, 8]

    @pytest.mark.parametrize(
        ("kind", "recipe", "message"),
        [
            ("autoencoder", None, "no recipe at a.toml"),
            ("autoencoder", "= 1", "not a TOML file"),
            ("autoencoder", RECIPE + "epochs = 1", "a.toml: training: epochs = 1 is unknown; accepted: steps"),
            ("clip", RECIPE, "a.toml lacks tokenizer"),
            ("diffusion", RECIPE, "a.toml lacks parts, schedule, data"),
        ],
    )
    def test_error_is_one_line(self, run: Run, kind: str, recipe: str | None, message: str) -> None:
        if recipe is not None:
            Path("a.toml").write_text(recipe)
        assert message in run.fails("train", kind, "--recipe", "a.toml", "--output", "runs/a")

    def test_missing_package_is_named(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("loop", "run"):
            monkeypatch.delitem(sys.modules, f"sdlearn.training.{name}", raising=False)
            monkeypatch.delattr(sdlearn.training, name, raising=False)
        monkeypatch.setitem(sys.modules, "accelerate", None)
        assert "pip install 'sdlearn[train]'" in run.fails("train", "clip", "--recipe", "a.toml", "--output", "runs/a")


def test_doctor(run: Run) -> None:
    Path("a.toml").write_text(RECIPE)
    run("train", "autoencoder", "--recipe", "a.toml", "--output", "runs/a")
    out = run("doctor", "runs/a")
    assert "The run is complete: all 2 steps.\n" in out and out.endswith(
        "look at what it draws: runs/a/samples/0000002.png.\n"
    )
    assert "nowhere" in run.fails("doctor", "nowhere")
    Path("runs/a/log.csv").write_text("")
    assert "is empty" in run.fails("doctor", "runs/a")


def test_assemble(run: Run, tiny_folder: Path) -> None:
    for kind, folders in {"clip": ("tokenizer", "text_encoder"), "autoencoder": ("vae",)}.items():
        for folder in folders:
            shutil.copytree(tiny_folder / folder, Path("run") / kind / "model" / folder)
    for folder in ("unet", "scheduler"):
        shutil.copytree(tiny_folder / folder, Path("run/diffusion/model") / folder)
    text = load_part(tiny_folder / "text_encoder", TextEncoder, TextConfig)
    vision = VisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    )
    clip = randomize_(CLIP(CLIPConfig(text.config, vision, projection_dim=8)), 5)
    clip.text_model = text.text_model
    save_part(Path("run/clip/model/clip"), clip.config, clip.state_dict())

    assert run("assemble", "run", "--output", "model", "--guidance-scale", 2, "--steps", 3) == "model\n"
    assert sdlearn.load("model").defaults == sdlearn.Defaults(64, 64, "dpmpp_2m_karras", 3, 2.0)
    again = load_clip("model").state_dict()
    assert again.keys() == clip.state_dict().keys()
    assert all(torch.equal(again[name], value.half().float()) for name, value in clip.state_dict().items())
    run("generate", "a cat", "--model", "model", "--output", "a.png")
    settings = {"sampler": "dpmpp_2m_karras", "steps": 3, "guidance_scale": 2.0}
    (expected,) = sdlearn.load(tiny_folder)("a cat", **settings, progress=False)
    assert np.array_equal(pixels("a.png"), np.asarray(expected))


def test_evaluate_passes_everything_on(run: Run, epsilon_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def measure(model: object, **options: object) -> SimpleNamespace:
        calls.append((model.name, options))
        return SimpleNamespace(table=lambda: "the table")

    monkeypatch.setitem(sys.modules, "sdlearn.evaluation.scores", SimpleNamespace(evaluate=measure))
    assert (
        run("evaluate", "--model", epsilon_folder, "--images", 20, "--sampler", "heun", "--output", "scores")
        == "the table\n"
    )
    options = {"images": 20, "seed": 0, "steps": None, "sampler": "heun", "guidance_scale": None}
    options |= {"output": Path("scores")}
    assert calls == [("epsilon", options)]
