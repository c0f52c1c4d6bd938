"""What is kept of right answers, and what is drawn with them."""

import functools
import linecache
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from examples import METHOD, MODULE, SAMPLER, written
from PIL import Image, ImageChops
from torch import Tensor

import sdlearn
from sdlearn.diffusion.samplers import ddim
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.lessons import exercises as ex
from sdlearn.lessons.exercises import drawing, parts, passport, registry, source
from sdlearn.lessons.exercises.exercise import Case, Exercise
from sdlearn.lessons.exercises.judge import CORRECT, NOT_WRITTEN
from sdlearn.storage.parts import PARTS

pytestmark = pytest.mark.usefixtures("registered")


def in_a_notebook(*cells: str) -> dict[str, Any]:
    """Run texts as a notebook's kernel runs cells: in one namespace, each with a file that only linecache knows."""
    namespace: dict[str, Any] = {"__name__": "__main__", "ex": ex}
    for i, text in enumerate(cells):
        file = f"<a notebook's cell {i} {hash(text)}>"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        exec(compile(text, file, "exec"), namespace)
    return namespace


class TestPassport:
    def test_round_trip(self, registered: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for id in ("00.combine", METHOD.id, MODULE.id, SAMPLER.id):
            exercise = registry.find(id)
            mine = in_a_notebook(source.solution(exercise))[exercise.name]
            assert capsys.readouterr().out == f"✔ {id}: correct\n"
            kept = (registered / f"{id}.py").read_text()
            assert (
                source.run_source(kept).__name__ == mine.__name__ and passport.judge_source(exercise, kept) == CORRECT
            )
        assert passport.remembered() == ["00.combine", METHOD.id, MODULE.id, SAMPLER.id]
        assert drawing.own_boxes(passport.remembered())["guidance"] == (1, 5)  # 00.combine, and four of lesson 10

    @pytest.mark.parametrize(("mark", "end"), [("\ufeff", "\n"), ("", "\r\n"), ("\ufeff", "\r\n")])
    def test_a_byte_order_mark_and_other_line_ends(self, mark: str, end: str, registered: Path) -> None:
        """As an editor on Windows leaves an answer."""
        registered.mkdir()
        text = mark + source.definition(registry.find("00.combine"), emptied=False).replace("\n", end)
        (registered / "00.combine.py").write_bytes(text.encode())
        verdicts = {exercise.id: verdict for exercise, verdict, _ in passport.judge_folder(registered)}
        assert verdicts["00.combine"].green
        assert passport.remembered() == ["00.combine"] and list(passport.kept()) == ["00.combine"]

    def test_answers_that_cannot_be_read(self, registered: Path) -> None:
        registered.mkdir()
        for data, said in ((b"\xff", "can't be read"), (b"#" * 1_000_001, "has more than 1,000,000 bytes")):
            (registered / "00.combine.py").write_bytes(data)
            verdicts = {exercise.id: verdict for exercise, verdict, _ in passport.judge_folder(registered)}
            assert verdicts["00.combine"].mark == "✘" and said in verdicts["00.combine"].text

    def test_a_list_of_judged_answers_that_is_damaged(self, registered: Path) -> None:
        registered.mkdir()
        for text in ("[" * 100_000, "[]", "null", '{"00.combine": ', "\ufeff{}"):
            (registered / "judged.json").write_text(text)
            assert passport.remembered() == []

    def test_the_folder_may_begin_with_the_home_folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("SDLEARN_PASSPORT", "~/mine")
        assert passport.passport_folder() == tmp_path / "mine"
        monkeypatch.delenv("SDLEARN_PASSPORT")
        monkeypatch.setenv("XDG_DATA_HOME", "~/data")
        assert passport.passport_folder() == tmp_path / "data" / "sdlearn" / "passport"

    def test_own_parts(self, registered: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Those of this session and of earlier ones, for `load`; what was edited since, or fails, is left out."""
        assert ex.own_parts() == {}
        for exercise in (registry.find("00.combine"), METHOD, SAMPLER):
            in_a_notebook(source.solution(exercise))
        passport.GREEN.clear()  # another session
        mine = in_a_notebook("def combine(u, c, s):\n    return c * s - u * (s - 1)")["combine"]
        ex.check("00.combine", mine)
        capsys.readouterr()
        own = ex.own_parts()
        assert capsys.readouterr().out == "parts of your own: combine, ddim\n"
        assert own["combine"].__wrapped__ is mine and own["ddim"].__name__ == "ddim"
        text = "raise RuntimeError\ndef ddim(): ..."
        (registered / f"{SAMPLER.id}.py").write_text(text)
        assert set(ex.own_parts()) == {"combine"}
        passport.set_judged(registered, SAMPLER.id, text.encode())
        assert set(ex.own_parts()) == {"combine"}

    def test_what_the_cell_needs_is_kept(self, registered: Path, capsys: pytest.CaptureFixture[str]) -> None:
        imports = "import math\nimport torch as T\nfrom torch import nn\nfrom sdlearn import Schedule as S\n"
        text = (
            "HALF = 0.5\nunused = [print]\n\n\ndef double(x):\n    return x / HALF\n\n\n"
            "def mine(u, c, s):\n    return T.lerp(double(u) / 2, c, s * math.cos(0))\n\n\n"
            "def late():\n    pass\n"
        )
        mine = in_a_notebook(imports, text)["mine"]
        ex.check("00.combine", mine)
        assert capsys.readouterr().out == "✔ 00.combine: correct\n"
        assert (registered / "00.combine.py").read_text() == (
            "import math\nimport torch as T\nHALF = 0.5\ndef double(x):\n    return x / HALF\n"
            "def mine(u, c, s):\n    return T.lerp(double(u) / 2, c, s * math.cos(0))\n"
        )

    def test_what_another_cell_defines_is_named(self, registered: Path, capsys: pytest.CaptureFixture[str]) -> None:
        text = "def mine(u, c, s):\n    return u + one * s * (c - u) + zero\n"
        mine = in_a_notebook("one = 1\nzero = 0\n", text)["mine"]
        ex.check("00.combine", mine)
        said = "correct; not in the passport: it uses one, zero, which the cell doesn't define"
        assert capsys.readouterr().out == f"✔ 00.combine: {said}\n"
        assert not registered.exists()

    def test_what_has_no_source(self, registered: Path, capsys: pytest.CaptureFixture[str]) -> None:
        namespace: dict[str, Any] = {}
        exec("def mine(u, c, s):\n    return u + s * (c - u)", namespace)
        for mine in (torch.lerp, namespace["mine"], in_a_notebook("f = lambda u, c, s: u + s * (c - u)")["f"]):
            ex.check("00.combine", mine)
            assert "correct; not in the passport: it has no source text" in capsys.readouterr().out
        assert not registered.exists()

    def test_a_module_of_the_learner_s(
        self, registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "own_schedules.py").write_text(source.definition(METHOD, emptied=False))
        monkeypatch.syspath_prepend(tmp_path)
        import own_schedules

        ex.check(METHOD.id, own_schedules.add_noise)
        assert capsys.readouterr().out == f"✔ {METHOD.id}: correct\n"

    def test_a_folder_that_can_t_be_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("SDLEARN_PASSPORT", str(tmp_path / "file" / "passport"))
        in_a_notebook(source.solution(registry.find("00.combine")))
        assert "correct; not in the passport: it can't be written to" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("spoilt", "said"),
        [
            ("def combine(u, c, s)", "SyntaxError"),
            ("", "it defines no function and no class"),
            ("raise RuntimeError('no')\ndef combine(): ...", "RuntimeError: no"),
            ("exit()\ndef combine(): ...", "it ends the program"),
            ("def combine(u, c, s):\n    return conditional", "NameError"),
            ("def combine(u, c, s):\n    print('!')\n    return u", "the words have no say"),
        ],
    )
    def test_a_spoilt_file_is_told(self, spoilt: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
        verdict = passport.judge_source(registry.find("00.combine"), spoilt)
        assert verdict.mark == "✘" and said in verdict.text
        assert capsys.readouterr().out == ""

    def test_only_what_was_judged_counts(self, registered: Path) -> None:
        """An empty file, a copied one, and one that was edited since don't, until they are judged."""
        right = "def combine(u, c, s):\n    return u + s * (c - u)\n"
        registered.mkdir()
        file = registered / "00.combine.py"
        for text in ("", right):
            file.write_text(text)
            assert passport.remembered() == [] and passport.answers_in(registered) == {"00.combine": file}
        verdicts = {exercise.id: verdict for exercise, verdict, _ in passport.judge_folder(registered)}
        assert verdicts.pop("00.combine") == CORRECT and set(verdicts.values()) == {NOT_WRITTEN}
        assert passport.remembered() == ["00.combine"]
        file.write_text(right + "# better\n")
        assert passport.remembered() == []
        (registered / "judged.json").write_text("[")
        assert passport.remembered() == []

    def test_each_answer_is_judged_in_a_process_of_its_own(self, registered: Path, tmp_path: Path) -> None:
        """With a time limit; what it prints, changes or ends stays there; a file that is no exercise's is never run."""
        registered.mkdir()
        trace = f"open({str(tmp_path / 'trace')!r}, 'a').write"
        for id, text in {
            "00.row": "import os\nos._exit(0)\ndef row(): ...",
            "00.to_pixels": "def to_pixels(pictures):\n    import torch\n    torch.add = None",
            "00.combine": "import time\ntime.sleep(600)\ndef combine(): ...",
            "01.snr": "print('!')\ndef snr(schedule, t):\n    return schedule.sigmas[t] ** -2",
            "00.nothing": f"{trace}('x')\ndef nothing(): ...",
            "../trace": f"{trace}('x')",
        }.items():
            (registered / f"{id}.py").write_text(text)
        (registered / "01.add_noise.py").write_bytes(b"\xff\xfe\x00")
        verdicts = {exercise.id: verdict for exercise, verdict, _ in passport.judge_folder(registered, seconds=8)}
        ended = "its process ended without a verdict, or ran for too long"
        assert verdicts["00.row"].text == verdicts["00.combine"].text == ended
        assert "it returns None" in verdicts["00.to_pixels"].text and torch.add is not None
        assert "can't be read" in verdicts["01.add_noise"].text
        assert verdicts["01.snr"] == CORRECT and passport.remembered() == ["01.snr"]
        assert not (tmp_path / "trace").exists()

    def test_where_it_is(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        assert passport.passport_folder() == tmp_path / "passport"
        monkeypatch.delenv("SDLEARN_PASSPORT")
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        assert passport.passport_folder() == tmp_path / "data" / "sdlearn" / "passport"
        monkeypatch.delenv("XDG_DATA_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert passport.passport_folder() == tmp_path / ".local" / "share" / "sdlearn" / "passport"

    def test_functions_become_methods_of_one_class(self, monkeypatch: pytest.MonkeyPatch) -> None:
        owns = {}
        for name in ("to_x0", "to_epsilon"):
            exercise = Exercise(f"97.{name}", getattr(Schedule, name), to_x0_cases, 1, 1, part="schedule")
            monkeypatch.setitem(registry.EXERCISES, exercise.id, exercise)
            owns[exercise.id] = written(exercise)
        owns[SAMPLER.id] = ddim
        made = parts.join_parts(owns)
        assert made["ddim"].__wrapped__ is ddim and issubclass(made["schedule"], Schedule)
        assert all(getattr(made["schedule"], id[3:]).__wrapped__ is own for id, own in list(owns.items())[:2])
        x = torch.randn(2, 3)
        expected = Schedule(ScheduleConfig()).to_x0(x, x, 500)
        assert torch.equal(made["schedule"](ScheduleConfig()).to_x0(x, x, 500), expected)


def to_x0_cases(generator: torch.Generator) -> list[Case]:
    return [Case("one", Schedule(ScheduleConfig()), *torch.randn(2, 2, 3, generator=generator), 500)]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> Iterator[list[str]]:
    """The alt texts of figures that a lesson would show, drawn by the random model."""
    alts: list[str] = []
    monkeypatch.setattr("sdlearn.storage.load.BUNDLED", tiny_folder)
    monkeypatch.delenv("SDLEARN_MODEL", raising=False)
    monkeypatch.setattr(sdlearn.lessons.show, "display_png", lambda data, alt, width=None, **_: alts.append(alt))
    yield alts


def test_see(shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    ex.check("00.combine", torch.lerp)
    ex.check(SAMPLER.id, written(SAMPLER))
    capsys.readouterr()
    ex.see("00.combine")
    ex.see(SAMPLER.id)
    assert len(shown) == 2 and all("They are equal" in alt for alt in shown)
    assert capsys.readouterr().out == ""
    ex.check("00.combine", lambda u, c, s: u)
    ex.see("00.combine")
    assert len(shown) == 2 and "00.combine isn't right yet." in capsys.readouterr().out
    with pytest.raises(ValueError, match="plays no part when the model draws"):
        ex.see(METHOD.id)


@pytest.mark.parametrize(
    ("own", "sampler"),
    [
        ([], "euler"),
        (["00.combine", "01.add_noise"], "euler"),
        (["02.posterior"], "ddpm"),
        (["04.ddim", "04.heun"], "ddim"),
        (["02.posterior", "04.euler"], "euler"),
        (["04.heun", "02.posterior", "04.euler", "02.ddpm"], "ddpm"),
    ],
)
def test_the_sampler_is_the_one_that_most_answers_need(own: list[str], sampler: str) -> None:
    """Of equals the model's own, here euler, else the first."""
    assert parts.choose_sampler(own, "euler") == sampler


def test_see_draws_with_the_sampler_that_calls_the_part(shown: list[str]) -> None:
    calls = []

    def posterior(schedule: Schedule, x0: Tensor, x: Tensor, t: int, previous: int) -> tuple[Tensor, Tensor]:
        calls.append(t)
        return Schedule.posterior(schedule, x0, x, t, previous)

    ex.check("02.posterior", posterior)
    judging = len(calls)
    ex.see("02.posterior")
    assert len(calls) > judging > 0 and len(shown) == 1 and "They are equal" in shown[0]


def test_map(shown: list[str], registered: Path, tiny_folder: Path) -> None:
    model = sdlearn.load(tiny_folder)
    before = sdlearn.lessons.show.render(ex.draw_map(model, here="noise"))
    in_a_notebook(source.solution(registry.find("00.combine")))
    after = sdlearn.lessons.show.render(ex.draw_map(model, here="noise"))
    assert before.size == after.size and before != after
    with pytest.raises(ValueError, match="not on the map"):
        ex.draw_map(model, here="attic")


def test_passport_picture(shown: list[str]) -> None:
    own = {id: written(registry.find(id)) for id in ("00.combine", METHOD.id, MODULE.id, SAMPLER.id)}
    image, drew = drawing.draw_passport(own, "a cat", seed=1)
    assert drew == ["combine", "resnet_block", "ddim"]
    (expected,) = sdlearn.load()("a cat", seed=1, sampler="ddim", progress=False)
    side = image.height
    resized = expected.resize((side, side), Image.Resampling.LANCZOS)
    assert ImageChops.difference(image.crop((0, 0, side, side)), resized).getextrema() <= ((0, 2),) * 3
    assert image.width > 2 * side


def test_passport_picture_with_two_samplers(shown: list[str]) -> None:
    """One of them draws; what only the other one calls is not among the parts that drew."""
    ids = ("00.combine", "02.posterior", "02.x0_at", "02.ddpm", "04.euler")
    own = {id: written(registry.find(id)) for id in ids}
    assert drawing.draw_passport(own, "a cat", seed=1)[1] == ["combine", "schedule", "ddpm"]
    del own["02.ddpm"], own["02.x0_at"]
    assert drawing.draw_passport(own, "a cat", seed=1)[1] == ["combine", "schedule"]
    assert drawing.draw_passport({id: own[id] for id in ("04.euler", "02.posterior")}, "a cat", seed=1)[1] == ["euler"]


def used_by(own: dict[str, Any], used: set[str]) -> dict[str, Any]:
    """The same answers, which note down their ids when the drawing calls them, or makes an object of them."""

    def watched(id: str, mine: Any) -> Any:
        if isinstance(mine, type):

            def made(self: Any, *inputs: Any, **named: Any) -> None:
                used.add(id)
                mine.__init__(self, *inputs, **named)

            return type(mine.__name__, (mine,), {"__init__": made})

        @functools.wraps(mine)
        def called(*inputs: Any, **named: Any) -> Any:
            used.add(id)
            return mine(*inputs, **named)

        return called

    return {id: watched(id, mine) for id, mine in own.items()}


def test_everything_solved_draws_with_every_part(shown: list[str]) -> None:
    """All exercises right: each part that has one is the learner's and is used, and the picture is the package's."""
    used: set[str] = set()
    own = {id: written(exercise) for id, exercise in registry.EXERCISES.items() if not id.startswith("97.")}
    image, drew = drawing.draw_passport(used_by(own, used), "a cat", seed=1)
    sampler = parts.choose_sampler(own, sdlearn.load().defaults.sampler)
    drawing_now = {id for id in own if parts.sampler_of(registry.find(id)) in (None, sampler)}
    with_a_part = {id for id in drawing_now if registry.find(id).part}
    assert set(drew) == {registry.find(id).part for id in with_a_part}
    assert with_a_part <= used
    (expected,) = sdlearn.load()("a cat", seed=1, sampler=sampler, progress=False)
    side = image.height
    resized = expected.resize((side, side), Image.Resampling.LANCZOS)
    assert ImageChops.difference(image.crop((0, 0, side, side)), resized).getextrema() <= ((0, 2),) * 3


# What load(parts=...) can swap and no exercise up to lesson 11 replaces, and why.
NOT_REPLACED = {
    "upsample": "nearest neighbours and a convolution, which lesson 09 shows",
    "timestep_embedding": "two linear layers; what they are given is written in lesson 09",
    "spatial_transformer": "it lists the pixels and folds them back; lesson 08 shows it",
    "feed_forward": "two linear layers around 08.geglu",
    "pixel_attention": "the bundled autoencoder has none",
    "vision_layer": "the image tower isn't used to draw",
    "encode_pictures": "text to image encodes no picture",
    "plms": "its weights are written in lesson 04",
    "dpmpp_2m": "shown in lesson 04",
    "dpmpp_2m_karras": "shown in lesson 04",
    "euler_ancestral": "shown in lesson 04",
}


def test_what_no_exercise_replaces_is_known() -> None:
    """A part without an exercise is listed with a reason, and a listed one has none."""
    replaced = {exercise.part for id, exercise in registry.EXERCISES.items() if not id.startswith("97.")}
    replaced |= {"guide", "resnet_block", "sinusoids", "down_block", "up_block"}  # of lessons 09 and 10
    assert {name for name in PARTS if name not in replaced} == {name for name in NOT_REPLACED if name in PARTS}
    assert not replaced & set(NOT_REPLACED)


def test_it_needs_no_reference() -> None:
    """`import sdlearn` doesn't import the exercises, and they don't import Diffusers."""
    code = "import sdlearn; before = set(sys.modules); import sdlearn.lessons.exercises; after = set(sys.modules)"
    names = "('sdlearn.lessons.exercises' in before, 'sdlearn.lessons.exercises' in after, 'diffusers' in after)"
    command = [sys.executable, "-c", f"import sys; {code}; print(*{names})"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False True False\n"
