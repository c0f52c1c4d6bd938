"""How answers are judged: what is said of wrong ones, and what is never held against right ones."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from examples import METHOD, MODULE, SAMPLER, written
from torch import Tensor, nn

from sdlearn.diffusion.guidance import combine
from sdlearn.diffusion.schedule import Schedule
from sdlearn.lessons import exercises as ex
from sdlearn.lessons.exercises import registry, source
from sdlearn.lessons.exercises.exercise import Exercise
from sdlearn.lessons.exercises.hints import Bug
from sdlearn.lessons.exercises.judge import CORRECT, NOT_WRITTEN, THE_PACKAGE_S, assess, with_bug
from sdlearn.lessons.exercises.running import run_cases

COMBINE = registry.find("00.combine")


def without(exercise: Exercise, mine: Any) -> str:
    """The verdict's text, for an answer that is not right."""
    verdict = assess(exercise, mine)
    assert verdict.mark == "✘"
    return verdict.text


def test_one_plain_line_is_printed(registered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.get_rng_state()
    ex.check("00.combine", torch.lerp)
    ex.check("00.combine", with_bug(COMBINE, Bug("", "", (("unconditional +", "conditional +"),))))
    ex.check("97.add_noise", written(METHOD, emptied=True))
    out, err = capsys.readouterr()
    assert [line[:14] for line in out.splitlines()] == ["✔ 00.combine: ", "✘ 00.combine: ", "○ 97.add_noise"]
    assert out.splitlines()[2] == "○ 97.add_noise: not written yet; the lesson uses the package's"
    assert not err and "\x1b" not in out
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda u, c, s: None, "it returns None, but it must return a tensor: a `return` is missing"),
        (lambda u, c, s: (u, c), "it returns 2 values (a tensor, a tensor), but it must return a tensor"),
        (lambda u, c, s: [1, 2, 3, 4], "it returns 4 values (each a number), but it must return a tensor"),
        (lambda u, c, s: 1.0, "the shape is (), but it must be (3, 4, 5, 6) (case 1: guidance_scale = 3.5)"),
        (lambda u, c, s: "u", "it returns a value of type str, but it must return a tensor"),
        (lambda u, c, s: torch.lerp(u, c, s).mean(), "the shape is (), but it must be (3, 4, 5, 6) (case 1"),
        (lambda u, c, s: torch.lerp(u, c, s).int(), "the dtype is torch.int32, but it must be torch.float32 (case 1"),
        (lambda u, c, s: u[99], "IndexError: index 99 is out of bounds"),
        (3, "it is a value of type int, but it must be a function"),
        (Schedule, "it is the class Schedule, but it must be a function"),
    ],
)
def test_verdicts(answer: Any, said: str) -> None:
    assert said in without(COMBINE, answer)


def test_values_that_are_not_finite_are_wrong() -> None:
    assert "yours is nan" in without(COMBINE, lambda u, c, s: torch.lerp(u, c, s) / 0 * 0)


def test_the_bound() -> None:
    def off_by(difference: float) -> Callable:
        return lambda u, c, s: torch.lerp(u, c, s) + difference

    assert assess(COMBINE, off_by(2e-6)).green
    assert not assess(COMBINE, off_by(1e-3)).green


@pytest.mark.parametrize("error", [NotImplementedError(), NotImplementedError("torch has no kernel for it")])
def test_only_the_stub_s_error_means_not_written(error: NotImplementedError) -> None:
    def answer(unconditional: Tensor, conditional: Tensor, guidance_scale: float) -> Tensor:
        raise error

    verdict = assess(COMBINE, answer)
    assert verdict == NOT_WRITTEN if not str(error) else verdict.text.startswith("NotImplementedError: torch has")


def test_the_package_s_own_is_no_answer() -> None:
    for exercise in (METHOD, MODULE, SAMPLER, COMBINE):
        assert assess(exercise, exercise.reference) == THE_PACKAGE_S


def test_an_error_is_told_in_one_line_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'def combine(u, c, s):\n    u = u + c\n    raise ValueError("two\\nlines " + "x" * 300)\n'
    (tmp_path / "answer_that_fails.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    import answer_that_fails

    said = without(COMBINE, answer_that_fails.combine)
    assert said.startswith("ValueError: two lines xxx") and "\n" not in said and len(said) < 400
    assert 'in the line `raise ValueError("two\\nlines " + "x" * 300)`' in said


class TestHints:
    def test_each_kind(self) -> None:
        for exercise in (METHOD, MODULE, SAMPLER):
            for bug in exercise.bugs[: 1 if exercise is MODULE else 2]:
                assert without(exercise, with_bug(exercise, bug)) == f"{bug.name}; read {bug.read}"

    def test_two_bugs_that_fit_give_no_hint(self) -> None:
        swapped = Bug("the same in other words", "equation (2)", (("signal_rate *", "1 * noise_rate *"),))
        exercise = replace(METHOD, bugs=(METHOD.bugs[0], swapped))
        assert "(case 1: " in without(exercise, with_bug(METHOD, METHOD.bugs[0]))

    def test_a_bug_must_fit_all_cases(self) -> None:
        def sometimes(schedule: Schedule, x0: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
            signal_rate, noise_rate = schedule.rates(t, x0)
            return (signal_rate if x0.ndim == 2 else noise_rate) * x0 + noise_rate * noise

        assert "(case 1: " in without(METHOD, sometimes)

    def test_a_bug_that_stops_is_passed_over(self) -> None:
        (stops,) = MODULE.bugs[1:]
        with pytest.raises(NameError):
            run_cases(MODULE, with_bug(MODULE, stops))
        changed = Bug("", "", (("return x + hidden", "return x + 2 * hidden"),))
        assert "yours is" in without(MODULE, with_bug(MODULE, changed))
        assert "NameError" in without(MODULE, with_bug(MODULE, stops))

    def test_a_bug_of_the_gradient_alone(self) -> None:
        cut = Bug("the way back is cut", "here", (("signal_rate * x0", "signal_rate * x0.detach()"),))
        exercise = replace(METHOD, gradients=True, bugs=(*METHOD.bugs, cut))
        assert without(exercise, with_bug(exercise, cut)) == "the way back is cut; read here"
        other = Bug("", "", (("noise_rate * noise", "noise_rate * noise.detach()"),))
        assert "no gradient reaches noise" in without(exercise, with_bug(exercise, other))
        assert assess(METHOD, with_bug(METHOD, cut)) == CORRECT

    @pytest.mark.parametrize(("old", "count"), [("nowhere", 0), ("_rate", 4)])
    def test_a_change_that_doesn_t_fit_is_an_error(self, old: str, count: int) -> None:
        with pytest.raises(ValueError, match=f"'{old}' occurs {count} times in Schedule.add_noise, but it must occur"):
            with_bug(METHOD, Bug("", "", ((old, "x"),)))


class TestModules:
    def test_solution(self) -> None:
        assert assess(MODULE, written(MODULE)) == CORRECT

    def test_names_of_parameters(self) -> None:
        text = source.definition(MODULE, emptied=False)
        renamed = source.run_source(text.replace("norm1", "norm_one"))
        said = "norm1.weight is missing, norm1.bias is missing, norm_one.weight is not the package's and 1 more"
        assert without(MODULE, renamed) == f"its parameters differ: {said}"
        narrow = source.run_source(
            text.replace("out_channels, out_channels, 3, padding=1", "out_channels, out_channels, 1")
        )
        assert "conv2.weight has the shape (6, 6, 1, 1), but it must have (6, 6, 3, 3)" in without(MODULE, narrow)

    def test_no_module(self) -> None:
        assert "must inherit from nn.Module" in without(MODULE, type("Block", (), {"__init__": lambda self, *a: None}))
        assert without(MODULE, lambda x: x) == "it is a function, but it must be a class"

    def test_the_gradient_of_parameters(self) -> None:
        cut = "F.linear(F.silu(time), self.time_emb_proj.weight, self.time_emb_proj.bias.detach())"
        text = source.definition(MODULE, emptied=False).replace("self.time_emb_proj(F.silu(time))", cut)
        said = "the values are right, but no gradient reaches time_emb_proj.bias (case 1)"
        assert said in without(MODULE, source.run_source(text))

    def test_the_constructor_fails(self) -> None:
        class Block(nn.Module):
            def __init__(self) -> None:
                super().__init__()

        assert without(MODULE, Block).startswith("TypeError: ")


def test_values_are_printed_with_as_many_digits_as_it_takes() -> None:
    def answer(unconditional: Tensor, conditional: Tensor, guidance_scale: float) -> Tensor:
        result = torch.lerp(unconditional, conditional, guidance_scale)
        if len(result) == 2:  # case 3
            result[1, 0, 0, 4] += 0.0002
        return result

    unconditional, conditional, scale = list(COMBINE.cases(torch.Generator().manual_seed(0)))[2].inputs
    right = combine(unconditional, conditional, scale)[1, 0, 0, 4].item()
    said = without(COMBINE, answer)
    assert said.startswith(f"at index [1, 0, 0, 4] yours is {right + 0.0002:#.4g}")
    assert said.endswith("(case 3: guidance_scale = 0.25)")
