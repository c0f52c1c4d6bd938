"""What a lesson calls besides `check`: part, case, solution, predict, outcome."""

import pytest
import torch
from examples import METHOD

from sdlearn.diffusion.guidance import Condition, combine, guide
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.lessons import exercises as ex
from sdlearn.lessons.exercises.hints import Bug, Prediction, read_hints
from sdlearn.lessons.exercises.running import cases
from sdlearn.models.unet import DownBlock

pytestmark = pytest.mark.usefixtures("registered")


class TestPart:
    def test_the_package_s_until_the_check_is_green(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert ex.part("00.combine") is combine
        ex.check("00.combine", lambda u, c, s: u)
        assert ex.part("00.combine") is combine
        ex.check("00.combine", torch.lerp)
        assert ex.part("00.combine").__wrapped__ is torch.lerp
        ex.check("00.combine", lambda u, c, s: u)
        assert ex.part("00.combine") is combine
        lines = capsys.readouterr().out.splitlines()
        assert [line for line in lines if "from here on" in line] == [
            "00.combine: from here on the package's is used",
            "00.combine: from here on the package's is used",
            "00.combine: from here on yours is used",
            "00.combine: from here on the package's is used",
        ]

    def test_a_method_takes_its_object(self) -> None:
        x = torch.randn(2, 3)
        schedule = Schedule(ScheduleConfig())
        assert torch.equal(ex.part(METHOD.id)(schedule, x, x, 7), schedule.add_noise(x, x, 7))

    def test_what_it_returns_is_of_the_input_s_dtype(self) -> None:
        def in_numpy(u, c, s):  # type: ignore[no-untyped-def]
            return u.double().numpy() + s * (c - u).double().numpy()

        ex.check("00.combine", in_numpy)
        for dtype in (torch.float32, torch.float16):
            u, c = torch.randn(2, 3, 4, dtype=dtype)
            drawn = ex.part("00.combine")(u, c, 2.0)
            assert drawn.dtype == dtype and torch.allclose(drawn, combine(u, c, 2.0), atol=1e-2)

    def test_so_is_what_stands_in_a_list(self) -> None:
        def way_down(downblock, x, time, context):  # type: ignore[no-untyped-def]
            x, skips = DownBlock.forward(downblock, x, time, context)
            return x.double(), tuple(skip.double().numpy() for skip in skips)

        ex.check("09.way_down", way_down)
        block, *inputs = cases(ex.EXERCISES["09.way_down"])[0].inputs
        x, skips = ex.part("09.way_down")(block, *inputs)
        right = DownBlock.forward(block, *inputs)[1]
        assert x.dtype == torch.float32 and len(skips) == len(right)
        assert all(torch.allclose(one, other) for one, other in zip(skips, right, strict=True))

    def test_a_function_that_it_makes_returns_tensors(self) -> None:
        def with_numbers(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):  # type: ignore[no-untyped-def]
            denoise = guide(unet, condition, unconditional, guidance_scale, rescale, combine=combine)
            return lambda x, t: denoise(x, t).double().numpy()

        ex.check("10.guide", with_numbers)
        told = Condition(torch.randn(2, 3, 4))
        drawn = ex.part("10.guide")(lambda x, t, *_, **__: x + t, told, told, 2.0)(torch.zeros(2, 3, 4, 4), 5)
        assert torch.equal(drawn, torch.full((2, 3, 4, 4), 5.0)) and drawn.dtype == torch.float32

    def test_lists_keep_their_dtype(self) -> None:
        def moving_average(average, parameters, decay, step):  # type: ignore[no-untyped-def]
            decay = min(decay, (1 + step) / (10 + step))
            return [decay * old + (1 - decay) * new for old, new in zip(average, parameters, strict=True)]

        ex.check("12.moving_average", moving_average)
        for dtype in (torch.float32, torch.float64):
            old, new = torch.zeros(2, dtype=dtype), torch.ones(2, dtype=dtype)
            (average,) = ex.part("12.moving_average")([old], [new], 0.98, 5000)
            assert torch.equal(average, moving_average([old], [new], 0.98, 5000)[0])

    def test_a_number_becomes_a_tensor(self) -> None:
        ex.check("01.snr", lambda schedule, t: (schedule.alphas_cumprod / (1 - schedule.alphas_cumprod))[t].numpy())
        snr = ex.part("01.snr")(Schedule(ScheduleConfig()), 500)
        assert snr.dtype == torch.float32 and snr.shape == ()

    def test_a_number_among_several_results_becomes_a_tensor(self) -> None:
        def posterior(schedule, x0, x, t, previous):  # type: ignore[no-untyped-def]
            mean, variance = Schedule.posterior(schedule, x0, x, t, previous)
            return mean, 0 if previous < 0 else variance.item()

        ex.check("02.posterior", posterior)
        for previous in (20, -1):
            mean, variance = ex.part("02.posterior")(Schedule(ScheduleConfig()), *torch.randn(2, 3), 40, previous)
            assert mean.shape == (3,) and variance.dtype == torch.float32 and variance.shape == ()


def test_case(capsys: pytest.CaptureFixture[str]) -> None:
    inputs = ex.case("04.ddim", 2)
    assert list(inputs) == ["denoise", "x", "grid", "schedule", "generator", "project", "eta"]
    assert capsys.readouterr().out.startswith("04.ddim, case 2: 7 steps, v_prediction")
    assert list(ex.case(METHOD.id, 1)) == ["schedule", "x0", "noise", "t"]
    for number in (0, 13, "1"):
        with pytest.raises(ValueError, match="has the cases 1 to 12"):
            ex.case("04.ddim", number)


def test_solution(capsys: pytest.CaptureFixture[str]) -> None:
    assert ex.solution("00.combine") is None
    printed = capsys.readouterr().out
    assert printed.startswith("# 00.combine\ndef combine(unconditional, conditional, guidance_scale):\n")
    assert printed.endswith('\n\n\nex.check("00.combine", combine)\n')


@pytest.mark.parametrize("call", [ex.stub, ex.solution, ex.part, ex.see, lambda id: ex.case(id, 1)])
def test_an_unknown_id(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"there is no exercise '00.combin'; did you mean 00.combine"):
        call("00.combin")


class TestPredictions:
    @pytest.fixture(autouse=True)
    def colour(self, monkeypatch: pytest.MonkeyPatch) -> None:
        prediction = Prediction("97.colour", "b", {"a": "blue is darker", "c": "nothing is left"})
        monkeypatch.setitem(ex.PREDICTIONS, "97.colour", prediction)

    @pytest.mark.parametrize(
        ("letter", "printed"),
        [
            ("", "write a, b or c, then run this cell"),
            ("d", "write a, b or c, then run this cell"),
            ("b", "✔ 97.colour, b: that is right"),
            ("B", "✔ 97.colour, b: that is right"),
            (" b", "✔ 97.colour, b: that is right"),
            ("b)", "✔ 97.colour, b: that is right"),
            ("\ufeffB ", "✔ 97.colour, b: that is right"),
            ("A.", "✘ 97.colour, a: blue is darker"),
            ("c", "✘ 97.colour, c: nothing is left"),
        ],
    )
    def test_predict(self, letter: str, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert ex.predict("97.colour", letter) is None
        assert capsys.readouterr().out == printed + "\n"

    def test_outcome(self, capsys: pytest.CaptureFixture[str]) -> None:
        ex.outcome("97.colour", "b")
        assert capsys.readouterr().out == ""
        with pytest.raises(RuntimeError, match=r"the experiment says a, but the answer of prediction 97\.colour is b"):
            ex.outcome("97.colour", "a")

    def test_an_unknown_id(self) -> None:
        with pytest.raises(ValueError, match=r"there is no prediction '97.color'; did you mean 97.colour"):
            ex.predict("97.color", "a")


class TestHintsFiles:
    def test_bugs_and_predictions(self) -> None:
        text = (
            "# 01.one @ equation (1)\nno root\n    `x` → `x**2`\ntwo places\n    `a` → ``\n    `b\\n    c` → `d`\n\n"
            "# 01.one @ the film\nanother\n    `x` → `-x`\n\n# predict 01.colour\nb\na: it isn't\nc: nor: this\n"
        )
        bugs, predictions = read_hints(text)
        assert bugs == {
            "01.one": [
                Bug("no root", "equation (1)", (("x", "x**2"),)),
                Bug("two places", "equation (1)", (("a", ""), ("b\n    c", "d"))),
                Bug("another", "the film", (("x", "-x"),)),
            ]
        }
        assert predictions == {"01.colour": Prediction("01.colour", "b", {"a": "it isn't", "c": "nor: this"})}

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("no section", 1),
            ("# 01.one", 1),
            ("# 01.one @ here\n    `x` → `y`", 2),
            ("# 01.one @ here\nbug\n    x → y", 3),
            ("# predict 01.colour\nd: why\nsomething", 3),
        ],
    )
    def test_what_can_t_be_read(self, text: str, line: int) -> None:
        with pytest.raises(ValueError, match=f"line {line} of the hints can't be read"):
            read_hints(text)
