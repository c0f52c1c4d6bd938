"""The machinery: what is said of wrong answers, stubs and solutions of every kind, sources, and the passport."""

import linecache
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops
from torch import Tensor, nn

import sdlearn
from sdlearn.diffusion.guidance import combine
from sdlearn.diffusion.samplers import ddim, plms
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.lessons import exercises as ex
from sdlearn.lessons.exercises import passport, registry, source
from sdlearn.lessons.exercises.engine import CORRECT, NOT_WRITTEN, assess, with_bug
from sdlearn.lessons.exercises.exercise import Bug, Exercise
from sdlearn.models.blocks import ResnetBlock

SCHEDULE = Schedule(ScheduleConfig())


def add_noise_cases(generator: torch.Generator) -> list[tuple]:
    """One timestep for all, one for each, and another schedule."""
    cases = []
    for shape, t in (((2, 3, 5), 700), ((2, 1, 7), torch.tensor([3, 998])), ((1, 9), 40)):
        x0, noise = torch.randn(2, *shape, generator=generator)
        cases.append(((ScheduleConfig(),), (x0, noise, t)))
    return cases


METHOD = Exercise(
    id="97.add_noise",
    reference=Schedule.add_noise,
    cases=add_noise_cases,
    bugs=(
        Bug("signal and noise have changed places", "equation (2)", (("signal_rate * x0", "noise_rate * x0"),)),
        Bug("no root", "equation (2)", (("signal_rate * x0", "signal_rate**2 * x0"),)),
    ),
    difficulty=1,
    minutes=5,
    box="noise",
)


def block_cases(generator: torch.Generator) -> list[tuple]:
    return [
        ((4, 6, 5, 2), (torch.randn(2, 4, 5, 3, generator=generator), torch.randn(2, 5, generator=generator))),
        ({"in_channels": 4, "out_channels": 4, "groups": 2}, (torch.randn(1, 4, 3, 7, generator=generator),)),
        ((6, 2, 3, 2), (torch.randn(3, 6, 2, 2, generator=generator), torch.randn(3, 3, generator=generator))),
    ]


MODULE = Exercise(
    id="97.resnet_block",
    reference=ResnetBlock,
    cases=block_cases,
    bugs=(
        Bug("the input isn't added", "the picture", (("return x + hidden", "return hidden"),)),
        Bug("this one stops", "nowhere", (("return x + hidden", "return x + unknown"),)),
    ),
    difficulty=2,
    minutes=10,
    part="resnet_block",
    box="UNet",
)


def ddim_cases(generator: torch.Generator) -> list[tuple]:
    return [(torch.randn(shape, generator=generator), n) for shape, n in (((2, 3), 4), ((1, 5), 7), ((3, 1, 2), 3))]


def run_sampler(sampler: Callable[..., Any], x: Tensor, n: int) -> Tensor:
    grid = sdlearn.make_grid(SCHEDULE, n)
    return torch.stack([step.x for step in sampler(lambda x, t: torch.sin(x), x, grid, SCHEDULE)])


SAMPLER = Exercise(
    id="97.ddim",
    reference=ddim,
    cases=ddim_cases,
    bugs=(
        Bug("it goes one timestep back", "equation (12)", (("t - grid.stride", "t - 1"),)),
        Bug("x_0 is handed on", "equation (12)", (("yield Step(i, t, x, x0)", "yield Step(i, t, x0, x0)"),)),
    ),
    difficulty=3,
    minutes=15,
    run=run_sampler,
    part="ddim",
    box="sampler",
)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """These exercises, besides the lessons', and an empty passport. Returns its folder."""
    for exercise in (METHOD, MODULE, SAMPLER):
        monkeypatch.setitem(registry.EXERCISES, exercise.id, exercise)
    monkeypatch.setenv("SDLEARN_PASSPORT", str(tmp_path / "passport"))
    return tmp_path / "passport"


def without(exercise: Exercise, mine: Any) -> str:
    """The verdict's text, for an answer that is not right."""
    verdict = assess(exercise, mine)
    assert verdict.mark == "✘"
    return verdict.text


def test_one_plain_line_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.get_rng_state()
    assert ex.check("00.combine", torch.lerp) is torch.lerp
    ours = with_bug(registry.find("00.combine"), Bug("", "", (("unconditional +", "conditional +"),)))
    assert ex.check("00.combine", ours) is combine
    assert ex.check("97.add_noise", source.run_source(ex.stub("97.add_noise"))) is Schedule
    out, err = capsys.readouterr()
    assert [line[:14] for line in out.splitlines()] == ["✔ 00.combine: ", "✘ 00.combine: ", "○ 97.add_noise"]
    assert out.splitlines()[2] == "○ 97.add_noise: not written yet; the lesson goes on with the package's"
    assert not err and "\x1b" not in out
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda u, c, s: None, "it returns None, must return a tensor"),
        (lambda u, c, s: (u, c), "it returns 2 values (a tensor, a tensor), must return a tensor"),
        (lambda u, c, s: [1, 2, 3, 4], "it returns 4 values (each a number), must return a tensor"),
        (lambda u, c, s: 1.0, "it returns a number, must return a tensor"),
        (lambda u, c, s: "u", "it returns of type str, must return a tensor"),
        (lambda u, c, s: torch.lerp(u, c, s).mean(), "the shape is (), must be (3, 4, 5, 6) (case 1)"),
        (lambda u, c, s: torch.lerp(u, c, s).double(), "the dtype is torch.float64, must be torch.float32 (case 1)"),
        (lambda u, c, s: torch.lerp(u, c, s).detach(), "no gradient reaches unconditional (case 1)"),
        (lambda u, c, s: torch.lerp(u.detach(), c, s), "no gradient reaches unconditional (case 1)"),
        (lambda u, c, s: torch.lerp(u, c.detach(), s), "no gradient reaches conditional (case 1)"),
        (lambda u, c, s: torch.lerp(u, c * 2 - c.detach(), s), "the values are right, but the gradients for cond"),
        (lambda u, c, s: torch.from_numpy(torch.lerp(u, c, s).numpy()), "the values are right, but the gradient fails"),
        (lambda u, c: u, "TypeError: "),
        (lambda u, c, s: u[99], "IndexError: index 99 is out of bounds"),
        (3, "it is of type int, must be a function"),
        (Schedule, "it is the class Schedule, must be a function"),
    ],
)
def test_verdicts(answer: Any, said: str) -> None:
    assert said in without(registry.find("00.combine"), answer)


def test_the_values_are_told_to_four_digits() -> None:
    def answer(unconditional: Tensor, conditional: Tensor, guidance_scale: float) -> Tensor:
        result = torch.lerp(unconditional, conditional, guidance_scale)
        if len(result) == 2:  # case 3
            result[1, 0, 0, 4] = 12.34567
        return result

    (unconditional, conditional, scale) = registry.find("00.combine").cases(torch.Generator().manual_seed(0))[2]
    right = combine(unconditional, conditional, scale)[1, 0, 0, 4].item()
    text = without(registry.find("00.combine"), answer)
    assert text == f"the values differ in case 3, at index [1, 0, 0, 4]: yours is 12.35, must be {right:.4g}"


def test_the_bound() -> None:
    def off_by(difference: float) -> Callable:
        return lambda u, c, s: torch.lerp(u, c, s) + difference

    assert assess(registry.find("00.combine"), off_by(8e-6)).green
    assert not assess(registry.find("00.combine"), off_by(1e-3)).green


def test_values_that_are_not_finite_are_wrong() -> None:
    text = without(registry.find("00.combine"), lambda u, c, s: torch.lerp(u, c, s) / 0 * 0)
    assert "yours is nan" in text


def test_an_answer_can_t_spoil_the_inputs_of_the_other_side() -> None:
    def spoils(u: Tensor, c: Tensor, s: float) -> Tensor:
        result = torch.lerp(u, c, s)
        u.zero_(), c.zero_()
        return result

    assert assess(registry.find("00.combine"), spoils) == CORRECT
    assert without(registry.find("00.combine"), lambda u, c, s: torch.lerp(u, c.zero_(), s))


@pytest.mark.parametrize("grad", [True, False])
def test_gradients_are_compared_wherever_the_lesson_has_turned_them(grad: bool) -> None:
    with torch.set_grad_enabled(grad):
        assert assess(registry.find("00.combine"), torch.lerp) == CORRECT
        assert "no gradient" in without(registry.find("00.combine"), lambda u, c, s: torch.lerp(u, c, s).detach())


@pytest.mark.parametrize("error", [NotImplementedError(), NotImplementedError("torch has no kernel for it")])
def test_only_the_stub_s_error_means_not_written(error: NotImplementedError) -> None:
    def answer(*_: Any) -> Tensor:
        raise error

    verdict = assess(registry.find("00.combine"), answer)
    assert verdict == NOT_WRITTEN if not str(error) else verdict.text.startswith("NotImplementedError: torch has")
    assert assess(registry.find("00.combine"), lambda *_: NotImplemented) == NOT_WRITTEN


def test_the_package_s_own_is_no_answer() -> None:
    for exercise, own in ((METHOD, Schedule), (MODULE, ResnetBlock), (SAMPLER, ddim)):
        assert assess(exercise, own) == NOT_WRITTEN
    assert assess(METHOD, type("MySchedule", (Schedule,), {})) == NOT_WRITTEN


def test_an_error_is_told_in_one_line_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'def my_combine(u, c, s):\n    u = u + c\n    raise ValueError("two\\nlines " + "x" * 300)\n'
    (tmp_path / "answer_that_fails.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    import answer_that_fails

    said = without(registry.find("00.combine"), answer_that_fails.my_combine)
    assert said.startswith("ValueError: two lines xxx") and "\n" not in said and len(said) < 400
    assert said.endswith('in the line `raise ValueError("two\\nlines " + "x" * 300)`')


class TestHints:
    def test_each_kind(self) -> None:
        for exercise in (METHOD, MODULE, SAMPLER):
            for bug in exercise.bugs[: 1 if exercise is MODULE else 2]:
                assert without(exercise, with_bug(exercise, bug)) == f"{bug.name}; read {bug.read}"

    def test_two_bugs_that_fit_give_no_hint(self) -> None:
        swapped = Bug("the same in other words", "equation (2)", (("signal_rate *", "1 * noise_rate *"),))
        exercise = Exercise(METHOD.id, METHOD.reference, METHOD.cases, (METHOD.bugs[0], swapped), 1, 5)
        assert "the values differ in case 1" in without(exercise, with_bug(METHOD, METHOD.bugs[0]))

    def test_a_bug_must_fit_all_cases(self) -> None:
        class Sometimes(Schedule):
            def add_noise(self, x0: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
                signal_rate, noise_rate = self.rates(t, x0)
                return (signal_rate if x0.ndim == 2 else noise_rate) * x0 + noise_rate * noise

        assert "the values differ in case 1" in without(METHOD, Sometimes)

    def test_a_bug_that_stops_is_passed_over(self) -> None:
        (stops,) = MODULE.bugs[1:]
        with pytest.raises(NameError):
            list(ex.engine.outputs(MODULE, with_bug(MODULE, stops)))
        changed = Bug("", "", (("return x + hidden", "return x + 2 * hidden"),))
        assert "the values differ" in without(MODULE, with_bug(MODULE, changed))
        assert "NameError" in without(MODULE, with_bug(MODULE, stops))

    def test_a_bug_of_the_gradient_alone(self) -> None:
        cut = Bug("the way back is cut", "here", (("signal_rate * x0", "signal_rate * x0.detach()"),))
        exercise = Exercise(METHOD.id, METHOD.reference, METHOD.cases, (*METHOD.bugs, cut), 1, 5)
        assert without(exercise, with_bug(exercise, cut)) == "the way back is cut; read here"
        other = Bug("", "", (("noise_rate * noise", "noise_rate * noise.detach()"),))
        assert "no gradient reaches noise" in without(exercise, with_bug(exercise, other))

    @pytest.mark.parametrize(("old", "count"), [("nowhere", 0), ("_rate", 4)])
    def test_a_change_that_doesn_t_fit_is_an_error(self, old: str, count: int) -> None:
        with pytest.raises(ValueError, match=f"'{old}' stands {count} times in Schedule.add_noise, must stand there"):
            with_bug(METHOD, Bug("", "", ((old, "x"),)))


class TestModules:
    def test_solution(self) -> None:
        assert assess(MODULE, source.run_source(ex.solution(MODULE.id))) == CORRECT

    def test_names_of_parameters(self) -> None:
        text = ex.solution(MODULE.id)
        renamed = source.run_source(text.replace("norm1", "norm_one"))
        said = "norm1.weight is missing, norm1.bias is missing, norm_one.weight is not the package's and 1 more"
        assert without(MODULE, renamed) == f"its parameters differ: {said}"
        narrow = source.run_source(
            text.replace("out_channels, out_channels, 3, padding=1", "out_channels, out_channels, 1")
        )
        assert "conv2.weight has the shape (6, 6, 1, 1), must have (6, 6, 3, 3)" in without(MODULE, narrow)

    def test_no_module(self) -> None:
        assert "must inherit from nn.Module" in without(MODULE, type("Block", (), {"__init__": lambda self, *a: None}))
        assert without(MODULE, lambda x: x) == "it is a function, must be a class"
        assert "it is the class Tensor, must be a class that inherits from Schedule" in without(METHOD, Tensor)

    def test_the_gradient_of_parameters(self) -> None:
        cut = "F.linear(F.silu(time), self.time_emb_proj.weight, self.time_emb_proj.bias.detach())"
        text = ex.solution(MODULE.id).replace("self.time_emb_proj(F.silu(time))", cut)
        said = "the values are right, but no gradient reaches time_emb_proj.bias (case 1)"
        assert said in without(MODULE, source.run_source(text))

    def test_the_constructor_fails(self) -> None:
        class Block(nn.Module):
            def __init__(self) -> None:
                super().__init__()

        assert without(MODULE, Block).startswith("TypeError: ")


def nothing(x: Tensor, *others: int, key: str = "é", **more: Any) -> "Tensor":
    # Not a shape (really).
    a: Tensor = x  # (B, C) -> (B,)
    return nothing(a) if key == "é" else a


def guarded(n: int, names: list[str]) -> int:
    """Twice n."""
    if n < 0:
        raise ValueError(f"n = {n}, must not be negative")
    if not names:
        names = ["é"]
        raise ValueError("no names")
    if n == 0:
        return 0
    return 2 * n


class TestStubs:
    def test_what_refuses_bad_input_stays(self) -> None:
        """Only where it stands at the beginning, and does nothing else."""
        exercise = Exercise("97.guarded", guarded, lambda g: [(1, ["a"])], (), 1, 1)
        given = '''# 97.guarded
def my_guarded(n, names):
    """Twice n."""
    if n < 0:
        raise ValueError(f"n = {n}, must not be negative")
    raise NotImplementedError'''
        assert source.stub(exercise) == given
        mine = source.run_source(source.stub(exercise))
        with pytest.raises(ValueError, match="n = -1, must not be negative"):
            mine(-1, [])
        assert assess(exercise, mine) == NOT_WRITTEN

    def test_method(self) -> None:
        assert ex.stub(METHOD.id) == (
            "# 97.add_noise\nfrom sdlearn import Schedule\n\n\nclass MySchedule(Schedule):\n"
            "    def add_noise(self, x0, noise, t):\n"
            '        """x_t, a sample of q(x_t given x_0). DDPM (Ho et al. 2020), equation 4."""\n'
            "        raise NotImplementedError"
        )

    def test_module(self) -> None:
        text = ex.stub(MODULE.id)
        assert "import torch.nn.functional as F\nfrom torch import nn\n" in text
        assert "\n\n\nclass MyResnetBlock(nn.Module):\n" in text
        assert "        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)\n" in text
        assert text.endswith("        # (B, out) -> (B, out, 1, 1)\n        raise NotImplementedError")
        assert assess(MODULE, source.run_source(text)) == NOT_WRITTEN

    def test_sampler(self) -> None:
        assert "def my_ddim(denoise, x, grid, schedule, generator=None, project=None, eta=0.0):\n" in ex.stub(
            SAMPLER.id
        )
        assert assess(SAMPLER, source.run_source(ex.stub(SAMPLER.id))) == NOT_WRITTEN
        assert assess(SAMPLER, source.run_source(ex.solution(SAMPLER.id))) == CORRECT

    def test_hints_go_and_the_name_changes(self) -> None:
        exercise = Exercise("97.nothing", nothing, lambda g: [], (), 1, 1)
        assert source.stub(exercise) == (
            '# 97.nothing\ndef my_nothing(x, *others, key="é", **more):\n    # (B, C) -> (B,)\n'
            "    raise NotImplementedError"
        )
        assert source.solution(exercise) == (
            '# 97.nothing\ndef my_nothing(x, *others, key="é", **more):\n    # Not a shape (really).\n'
            '    a = x  # (B, C) -> (B,)\n    return my_nothing(a) if key == "é" else a'
        )

    @pytest.mark.parametrize("reference", [plms, sdlearn.euler, sdlearn.make_grid, sdlearn.guide, sdlearn.UNet.forward])
    def test_whatever_the_package_holds(self, reference: Callable) -> None:
        exercise = Exercise("97.x", reference, lambda g: [], (), 1, 1)
        for text in (source.stub(exercise), source.solution(exercise)):
            assert source.run_source(text).__name__ == exercise.own_name
            assert "->" not in "".join(line.partition("#")[0] for line in text.splitlines() if "def " in line)


def in_a_notebook(*cells: str) -> dict[str, Any]:
    """Run texts as a notebook's kernel runs cells: in one namespace, each with a file that only linecache knows."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for i, text in enumerate(cells):
        file = f"<a notebook's cell {i} {hash(text)}>"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        exec(compile(text, file, "exec"), namespace)
    return namespace


class TestPassport:
    def test_round_trip(self, registered: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for id in ("00.combine", METHOD.id, MODULE.id, SAMPLER.id):
            text = ex.solution(id)
            mine = in_a_notebook(text)[registry.find(id).own_name]
            assert ex.check(id, mine) is mine
            assert capsys.readouterr().out == f"✔ {id}: correct\n"
            verdict, again = passport.recheck(registry.find(id), registered / f"{id}.py")
            assert verdict == CORRECT and again.__name__ == mine.__name__
        assert list(passport.remembered()) == ["00.combine", METHOD.id, MODULE.id, SAMPLER.id]
        assert passport.own_boxes(passport.remembered())["guidance"] == (1, 1)

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
        assert ex.check("00.combine", mine) is mine
        said = "correct; not in the passport: it uses one, zero, which the cell doesn't define"
        assert capsys.readouterr().out == f"✔ 00.combine: {said}\n"
        assert not registered.exists()

    def test_what_has_no_source(self, registered: Path, capsys: pytest.CaptureFixture[str]) -> None:
        namespace: dict[str, Any] = {}
        exec("def mine(u, c, s):\n    return u + s * (c - u)", namespace)
        for mine in (torch.lerp, namespace["mine"], in_a_notebook("f = lambda u, c, s: u + s * (c - u)")["f"]):
            assert ex.check("00.combine", mine) is mine
            assert "correct; not in the passport: it has no source text" in capsys.readouterr().out
        assert not registered.exists()

    def test_a_module_of_the_learner_s(
        self, registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "own_schedules.py").write_text(ex.solution(METHOD.id))
        monkeypatch.syspath_prepend(tmp_path)
        import own_schedules

        ex.check(METHOD.id, own_schedules.MySchedule)
        assert capsys.readouterr().out == f"✔ {METHOD.id}: correct\n"

    def test_a_folder_that_can_t_be_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("SDLEARN_PASSPORT", str(tmp_path / "file" / "passport"))
        mine = in_a_notebook(ex.solution("00.combine"))["my_combine"]
        assert ex.check("00.combine", mine) is mine
        assert "correct; not in the passport: it can't be written to" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("spoilt", "said"),
        [
            (b"def my_combine(u, c, s)", "SyntaxError"),
            (b"\xff\xfe\x00", "can't be read"),
            (b"", "IndexError"),
            (b"raise RuntimeError('no')", "RuntimeError: no"),
            (b"def my_combine(u, c, s):\n    return conditional", "NameError"),
            (b"def my_combine(u, c, s):\n    print('!')\n    return u", "the words have no say"),
        ],
    )
    def test_a_spoilt_file_is_told(
        self, registered: Path, spoilt: bytes, said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        registered.mkdir()
        (registered / "00.combine.py").write_bytes(spoilt)
        verdicts = {exercise.id: (verdict, mine) for exercise, verdict, mine in passport.recheck_all()}
        assert verdicts["00.combine"][0].mark == "✘" and said in verdicts["00.combine"][0].text
        assert verdicts[METHOD.id] == (NOT_WRITTEN, None)
        assert capsys.readouterr().out == ""

    def test_where_it_is(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        assert passport.passport_folder() == tmp_path / "passport"
        monkeypatch.delenv("SDLEARN_PASSPORT")
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        assert passport.passport_folder() == tmp_path / "data" / "sdlearn" / "passport"
        monkeypatch.delenv("XDG_DATA_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert passport.passport_folder() == tmp_path / ".local" / "share" / "sdlearn" / "passport"

    def test_methods_of_one_class_are_joined(self, monkeypatch: pytest.MonkeyPatch) -> None:
        owns = {}
        for name in ("to_x0", "to_epsilon"):
            exercise = Exercise(f"97.{name}", getattr(Schedule, name), lambda g: [], (), 1, 1, part="schedule")
            monkeypatch.setitem(registry.EXERCISES, exercise.id, exercise)
            owns[exercise.id] = source.run_source(ex.solution(exercise.id))
        owns[SAMPLER.id] = ddim
        parts = passport.join_parts(owns)
        assert parts["ddim"] is ddim and issubclass(parts["schedule"], Schedule)
        assert all(getattr(parts["schedule"], id[3:]) is getattr(own, id[3:]) for id, own in list(owns.items())[:2])


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> Iterator[list[str]]:
    """The alt texts of figures that a lesson would show, drawn by the random model."""
    alts: list[str] = []
    monkeypatch.setattr("sdlearn.storage.load.BUNDLED", tiny_folder)
    monkeypatch.delenv("SDLEARN_MODEL", raising=False)
    monkeypatch.setattr(sdlearn.lessons.show, "display_png", lambda data, alt, width=None, **_: alts.append(alt))
    yield alts


def test_see(shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    ex.see("00.combine", torch.lerp)
    ex.see(SAMPLER.id, source.run_source(ex.solution(SAMPLER.id)))
    assert len(shown) == 2 and all("They are equal" in alt for alt in shown)
    assert capsys.readouterr().out == ""
    ex.see("00.combine", lambda u, c, s: u)
    assert len(shown) == 2 and capsys.readouterr().out.startswith("00.combine isn't right yet.")
    with pytest.raises(ValueError, match="plays no part when the model draws"):
        ex.see(METHOD.id, Schedule)


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
    assert passport.choose_sampler(own, "euler") == sampler


def test_see_draws_with_the_sampler_that_calls_the_part(shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    calls = []

    class Counted(source.run_source(ex.solution("02.posterior"))):
        def posterior(self, *inputs: Any) -> tuple[Tensor, Tensor]:
            calls.append(inputs)
            return super().posterior(*inputs)

    assert assess(registry.find("02.posterior"), Counted) == CORRECT
    assessing = len(calls)
    ex.see("02.posterior", Counted)  # judges it once more, and draws
    assert len(calls) > 2 * assessing and len(shown) == 1 and "They are equal" in shown[0]


def test_map(shown: list[str], registered: Path, tiny_folder: Path) -> None:
    model = sdlearn.load(tiny_folder)
    before = sdlearn.lessons.show.render(ex.draw_map(model, here="noise"))
    ex.check("00.combine", in_a_notebook(ex.solution("00.combine"))["my_combine"])
    after = sdlearn.lessons.show.render(ex.draw_map(model, here="noise"))
    assert before.size == after.size and before != after
    with pytest.raises(ValueError, match="not on the map"):
        ex.draw_map(model, here="attic")


def test_passport_picture(shown: list[str]) -> None:
    own = {id: source.run_source(ex.solution(id)) for id in ("00.combine", METHOD.id, MODULE.id, SAMPLER.id)}
    image, parts = passport.draw_passport(own, "a cat", seed=1)
    assert parts == ["combine", "resnet_block", "ddim"]
    (expected,) = sdlearn.load()("a cat", seed=1, sampler="ddim", progress=False)
    side = image.height
    resized = expected.resize((side, side), Image.Resampling.LANCZOS)
    assert ImageChops.difference(image.crop((0, 0, side, side)), resized).getextrema() <= ((0, 2),) * 3
    assert image.width > 2 * side


def test_passport_picture_with_two_samplers(shown: list[str]) -> None:
    """One of them draws; what only the other one calls is not among the parts that drew."""
    ids = ("00.combine", "02.posterior", "02.x0_at", "02.ddpm", "04.euler")
    own = {id: source.run_source(ex.solution(id)) for id in ids}
    assert passport.draw_passport(own, "a cat", seed=1)[1] == ["combine", "schedule", "ddpm"]
    del own["02.ddpm"], own["02.x0_at"]
    assert passport.draw_passport(own, "a cat", seed=1)[1] == ["combine", "schedule"]
    assert passport.draw_passport({id: own[id] for id in ("04.euler", "02.posterior")}, "a cat", seed=1)[1] == ["euler"]


def test_it_needs_no_reference() -> None:
    """`import sdlearn` doesn't import the exercises, and they don't import Diffusers."""
    code = "import sdlearn; before = set(sys.modules); import sdlearn.lessons.exercises; after = set(sys.modules)"
    names = "('sdlearn.lessons.exercises' in before, 'sdlearn.lessons.exercises' in after, 'diffusers' in after)"
    command = [sys.executable, "-c", f"import sys; {code}; print(*{names})"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False True False\n"
