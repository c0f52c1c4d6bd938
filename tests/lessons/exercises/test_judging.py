"""How answers are judged: what is said of wrong ones, and what is never held against right ones."""

import contextlib
import functools
import linecache
import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from examples import EXAMPLES, METHOD, MODULE, SAMPLER, add_noise_cases, written
from torch import Tensor, nn

from sdlearn.diffusion.guidance import combine
from sdlearn.diffusion.samplers import Step, denoised, draw_noise
from sdlearn.diffusion.schedule import Schedule
from sdlearn.lessons import exercises as ex
from sdlearn.lessons.exercises import compare, registry, source
from sdlearn.lessons.exercises.bugs import with_bug
from sdlearn.lessons.exercises.exercise import Exercise
from sdlearn.lessons.exercises.hints import Bug
from sdlearn.lessons.exercises.judge import CORRECT, NOT_WRITTEN, THE_PACKAGE_S, assess
from sdlearn.lessons.exercises.running import GLOBAL_SEEDS, Clock, TimeIsUp, run_cases
from sdlearn.tokenizer import merge_pair

COMBINE, EULER = EXAMPLES["00.combine"], EXAMPLES["04.euler"]


def in_a_cell(text: str) -> Any:
    """What a notebook's cell defines: its source is known to linecache only."""
    file = f"<cell {hash(text)}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    return source.run_source(text, file)


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
        (lambda u, c, s: None, "it returns None, but it must return a tensor: is a `return` missing?"),
        (lambda u, c, s: (u, c), "it returns 2 values (a tensor, a tensor), but it must return a tensor"),
        (lambda u, c, s: [1, 2, 3, 4], "it returns 4 values (each a number), but it must return a tensor"),
        (lambda u, c, s: 1.0, "the shape is (), but it must be (3, 4, 5, 6) (case 1: guidance_scale = 3.5)"),
        (lambda u, c, s: "u", "it returns 'u', but it must return a tensor"),
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


class TestNotWritten:
    """Only what the stub holds is not written yet: an answer above its last line is named."""

    HEAD = "def combine(unconditional, conditional, guidance_scale):\n"

    @pytest.mark.parametrize("body", ["    raise NotImplementedError", "    # later\n    raise NotImplementedError()"])
    def test_nothing_is_written(self, body: str) -> None:
        assert assess(COMBINE, in_a_cell(self.HEAD + body)) == NOT_WRITTEN
        assert assess(COMBINE, source.run_source(self.HEAD + body)) == NOT_WRITTEN  # without a source text

    def test_code_above_the_last_line(self) -> None:
        answer = in_a_cell(f"{self.HEAD}    x = conditional - unconditional\n    raise NotImplementedError")
        assert (
            without(COMBINE, answer) == "your code runs into the stub's `raise NotImplementedError`; delete that line"
        )

    def test_another_error(self) -> None:
        def answer(unconditional: Tensor, conditional: Tensor, guidance_scale: float) -> Tensor:
            raise NotImplementedError("torch has no kernel for it")

        assert without(COMBINE, answer).startswith(
            "NotImplementedError: torch has no kernel for it, in the line `raise"
        )


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


def looped(step: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Any]:
    """A sampler from one of its steps: the rest is as it should be."""

    def euler(denoise, x, grid, schedule, generator=None, project=None):  # type: ignore[no-untyped-def]
        for i, t in enumerate(grid.timesteps.tolist()):
            x, x0 = step(denoise, x, t, grid.sigmas[i], grid.sigmas[i + 1], schedule)
            x = project(x, i) if project else x
            yield Step(i, t, x, x0)

    return euler


def right(denoise, x, t, now, ahead, schedule):  # type: ignore[no-untyped-def]
    x0 = denoised(denoise, x, t, now, schedule)
    return x0 + ahead / now * (x - x0), x0


class TestRightAnswers:
    """What never counts against an answer."""

    @pytest.mark.parametrize(
        "answer",
        [
            lambda u, c, s: torch.lerp(u.double(), c.double(), s),
            lambda u, c, s: u.numpy() + s * (c.numpy() - u.numpy()),
            torch.no_grad()(lambda u, c, s: torch.lerp(u, c, s)),
            lambda u, c, s: u.clone().add_(s * (c - u)),
            lambda u, c, s: torch.tensor((u + s * (c - u)).tolist()),
            functools.partial(torch.lerp),
        ],
    )
    def test_values_are_all_that_counts(self, answer: Any) -> None:
        assert assess(COMBINE, answer) == CORRECT

    @pytest.mark.parametrize(
        "answer",
        [
            lambda schedule, t: 1 / (1 / schedule.alphas_cumprod[t] - 1),
            lambda schedule, t: (lambda a: a / (1 - a))((1 - schedule.betas.double()).cumprod(0)[t]),
            lambda schedule, t: (schedule.alphas_cumprod / (1 - schedule.alphas_cumprod)).numpy()[t],
            lambda schedule, t: (schedule.sigmas[t] ** -2).tolist() if isinstance(t, int) else schedule.sigmas[t] ** -2,
        ],
    )
    def test_other_rounding_and_numbers(self, answer: Any) -> None:
        assert assess(EXAMPLES["01.snr"], answer) == CORRECT

    def test_a_number_for_a_tensor_of_one_element(self) -> None:
        def posterior(schedule, x0, x, t, previous):  # type: ignore[no-untyped-def]
            mean, variance = Schedule.posterior(schedule, x0, x, t, previous)
            return (x0, 0) if previous < 0 else (mean, variance.item())

        assert assess(EXAMPLES["02.posterior"], posterior) == CORRECT

    def test_in_place_on_a_copy(self) -> None:
        def step(denoise, x, *others):  # type: ignore[no-untyped-def]
            after, x0 = right(denoise, x, *others)
            return x.clone().mul_(0).add_(after), x0

        assert assess(EULER, looped(step)) == CORRECT


class TestMisdeeds:
    """What is wrong though the values are right, or what explains why they aren't; each is named."""

    @pytest.mark.parametrize(
        ("id", "answer", "said"),
        [
            ("00.combine", lambda u, c, s: u.add_(s * (c - u)), "it changes unconditional, one of its inputs, in"),
            ("00.combine", lambda u, c, s: torch.lerp(u, c, s) + 0 * c.zero_(), "it changes conditional"),
            ("01.add_one_step", lambda schedule, x, noise, t: schedule.betas.add_(1), "it changes schedule.betas, one"),
            ("00.combine", lambda u, c, s: print(torch.lerp(u, c, s)), "it prints its result, but it must return it"),
            ("00.combine", lambda u, c: u, "its inputs are (u, c), but they must be (unconditional, conditional, gui"),
            (
                "02.posterior",
                lambda *inputs: Schedule.posterior(*inputs)[::-1],
                "the values are right, but they are returned in another order than the task asks for",
            ),
            (
                "01.add_noise",
                lambda schedule, x0, noise, t: schedule.alphas_cumprod[t].sqrt() * x0,
                "one number for each picture, shape (3,), multiplies pictures of shape (3, 7) only as (3, 1)",
            ),
            ("00.to_pixels", lambda x: ((x.clip(-1, 1) + 1) * 127.5).round().int(), "the dtype is torch.int32, but it"),
            ("00.combine", lambda u, c, s: torch.lerp(u, c, s).to("meta"), "it is on the device meta, but it must"),
            (
                "03.langevin_step",
                lambda x, score, h, generator: x + h / 2 * score + h**0.5 * torch.randn_like(x),
                "it draws random numbers of its own; draw them from `generator`",
            ),
            (
                "03.langevin_step",
                lambda x, score, h, generator: x + h / 2 * score + h**0.5 * torch.tensor(np.random.randn(*x.shape)),
                "it draws random numbers of its own; draw them from `generator`",
            ),
            (
                "03.langevin_step",
                lambda x, score, h, g: x + h / 2 * score + h**0.5 * draw_noise(x.shape, torch.Generator()),
                "it draws nothing from `generator`",
            ),
            (
                "02.simple_loss",
                lambda denoise, x0, noise, t, schedule: (torch.rand_like(x0) - x0).square().mean(),
                "it draws random numbers of its own, or a part",
            ),
            (
                "02.simple_loss",
                lambda denoise, x0, noise, t, s: (s.target(x0, noise, t) - twice(denoise)(s.add_noise(x0, noise, t), t))
                .square()
                .mean(),
                "it calls the network 2 times, but 1 is enough",
            ),
        ],
    )  # fmt: skip
    def test_functions(self, id: str, answer: Any, said: str) -> None:
        assert said in without(EXAMPLES[id], answer)

    def test_a_network_that_is_called_twice(self) -> None:
        def step(denoise, *others):  # type: ignore[no-untyped-def]
            return right(twice(denoise), *others)

        assert without(EULER, looped(step)).startswith("it calls the network 8 times, but 4 is enough")

    def test_in_place(self) -> None:
        def spoils(denoise, x, *others):  # type: ignore[no-untyped-def]
            after, x0 = right(denoise, x, *others)
            return x.copy_(after), x0

        assert without(EULER, looped(spoils)).startswith("it changes x, one of its inputs, in place")

    def test_a_list_in_place(self) -> None:
        def spoils(tokens, pair):  # type: ignore[no-untyped-def]
            tokens[:] = merge_pair(tokens, pair)
            return tokens

        said = "it changes tokens, one of its inputs, in place; work on a copy: list(tokens)"
        assert without(registry.EXERCISES["07.merge_pair"], spoils) == said

    def test_an_input_changed_in_place_comes_before_a_bug(self) -> None:
        """The bug would be true of the values, but they are wrong because the input is."""

        def answer(schedule, x0, noise, t):  # type: ignore[no-untyped-def]
            signal_rate, noise_rate = schedule.rates(t, x0)
            return noise_rate * x0 + signal_rate * noise.clone() + 0 * x0.zero_()

        assert without(METHOD, answer).startswith("it changes x0, one of its inputs, in place")

    def test_a_loop_that_goes_on_is_named_by_its_steps(self) -> None:
        def loop(denoise, x, grid, *others, **named):  # type: ignore[no-untyped-def]
            i = 0
            while True:
                yield Step(i, 0.0, x, denoise(x, i))
                i += 1

        assert "it yields more than 4 steps, but there is one step for each entry" in without(EULER, loop)

    def test_yielded_tensors_that_share_memory(self) -> None:
        def euler(denoise, x, grid, schedule, generator=None, project=None):  # type: ignore[no-untyped-def]
            x = x.clone()
            for i, t in enumerate(grid.timesteps.tolist()):
                x0 = denoised(denoise, x, t, grid.sigmas[i], schedule)
                x += (grid.sigmas[i + 1] / grid.sigmas[i] - 1) * (x - x0)
                if project:
                    x.copy_(project(x, i))
                yield Step(i, t, x, x0)

        assert without(EULER, euler).startswith("a step changes a tensor that was yielded before")

    @pytest.mark.parametrize(
        ("last", "said"),
        [
            (-1, "it yields 3 of 4 steps (case 1: "),
            (5, "it yields more than 4 steps, but there is one step for each entry of the grid (case 1: "),
        ],
    )
    def test_too_few_and_too_many_steps(self, last: int, said: str) -> None:
        def euler(denoise, x, grid, schedule, generator=None, project=None):  # type: ignore[no-untyped-def]
            steps = list(looped(right)(denoise, x, grid, schedule, generator, project))
            yield from steps[:last]
            while last > 0:
                yield steps[-1]

        assert said in without(EULER, euler)

    def test_a_step_that_is_no_step(self) -> None:
        def euler(denoise, x, grid, schedule, generator=None, project=None):  # type: ignore[no-untyped-def]
            yield from ((one.i, one.t, one.x, one.x0) for one in looped(right)(denoise, x, grid, schedule))

        assert "each step must be handed out by: yield Step(i, t, x, x0)" in without(EULER, euler)


def twice(network: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *inputs: (network(*inputs) + network(*inputs)) / 2


class TestTimeLimit:
    @pytest.mark.parametrize("catches", [False, True])
    def test_an_endless_loop(self, catches: bool) -> None:
        ended = []

        def combine(unconditional: Tensor, conditional: Tensor, guidance_scale: float) -> None:
            i = 0
            try:
                while i < 3:
                    with contextlib.suppress(Exception) if catches else contextlib.nullcontext():
                        conditional = conditional + 1
            finally:
                ended.append(True)

        verdict = assess(COMBINE, combine, seconds=0.3)
        assert verdict.text == "it was stopped after 0.3 seconds: does each of its loops come to an end?"
        assert ended == [True]
        time.sleep(0.1)  # nothing strikes later
        assert assess(COMBINE, torch.lerp) == CORRECT

    def test_only_the_answer_s_own_time_counts(self) -> None:
        """The search for a hint takes long in a process that runs the bugs for the first time."""
        swapped, root = METHOD.bugs
        slow = "(__import__('time').sleep(0.2), noise_rate)[1] * x0"
        exercise = replace(METHOD, bugs=(replace(swapped, changes=(("signal_rate * x0", slow),)), root))
        assert (
            assess(exercise, with_bug(METHOD, swapped), seconds=0.5).text
            == "signal and noise are swapped; read equation (2)"
        )

    def test_all_runs_of_an_answer_count_together(self) -> None:
        clock = Clock(0.5)
        assert clock.run(lambda: time.sleep(0.3) or "done") == "done"
        time.sleep(0.3)
        assert clock.run(lambda: "done") == "done"
        with pytest.raises(TimeIsUp):
            clock.run(lambda: time.sleep(0.3))

    def test_a_loop_that_is_endless_with_some_seeds_only(self) -> None:
        """Values that are wrong are computed again with other global random numbers."""

        def combine(unconditional: Tensor, conditional: Tensor, guidance_scale: float) -> Tensor:
            while torch.initial_seed() != GLOBAL_SEEDS[0]:
                pass
            return conditional + 10

        said = "it was stopped after 0.3 seconds: does each of its loops come to an end?"
        assert assess(COMBINE, combine, seconds=0.3).text == said

    def test_an_interrupt_by_the_user_passes(self) -> None:
        ended = []

        def combine(unconditional: Tensor, conditional: Tensor, guidance_scale: float) -> None:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                while True:
                    pass
            finally:
                ended.append(True)

        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        try:
            with pytest.raises(KeyboardInterrupt):
                assess(COMBINE, combine)
        finally:
            signal.signal(signal.SIGINT, before)
        assert ended == [True]

    def test_exit(self) -> None:
        for stop in (exit, sys.exit):
            assert without(COMBINE, lambda u, c, s, stop=stop: stop()) == "it ends the program: remove exit() or quit()"


def test_nothing_stays_behind(capsys: pytest.CaptureFixture[str]) -> None:
    def combine(unconditional: Tensor, conditional: Tensor, guidance_scale: float) -> Tensor:
        torch.manual_seed(1), np.random.seed(1), random.seed(1)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(threads + 1)
        torch.set_grad_enabled(False)
        warnings.simplefilter("error")
        print("hello")
        return torch.lerp(unconditional, conditional, guidance_scale)

    def state() -> list[Any]:
        arrays = [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()]
        return [
            *arrays,
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            warnings.filters[:],
        ]

    threads = torch.get_num_threads()
    before = state()
    verdict = assess(COMBINE, combine)
    assert verdict == CORRECT and state() == before
    assert verdict.printed == "hello\n"
    assert capsys.readouterr().out == ""


def test_what_is_printed_is_shown_once(registered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = tuple(next(iter(registry.find("00.combine").cases(torch.Generator()))).inputs[0].shape)
    ex.check("00.combine", lambda u, c, s: print("shape", tuple(u.shape)) or u)
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"shape {shape}" and second.startswith("✘ 00.combine: ")


def test_a_bug_that_ends_in_an_error_is_named() -> None:
    """If it fails in the same case in the same way, and computes the same before."""
    late = Bug("it looks one step ahead", "here", (("self.rates(t, x0)", "self.rates(t + 400, x0)"),))
    exercise = replace(METHOD, bugs=(late,), cases=lambda generator: list(add_noise_cases(generator))[::-1])
    assert without(exercise, with_bug(exercise, late)).endswith(
        "(case 2: shape (2, 1, 7)): it looks one step ahead; read here"
    )


def test_an_error_is_named_only_if_its_message_is_that_of_the_bug() -> None:
    """Both fail in case 2 with a RuntimeError and are right in case 1, but for different reasons."""
    shape = Bug("the shape is hard-coded", "the task", (("unconditional +", "unconditional.view(3, 4, 5, 6) +"),))
    exercise = replace(COMBINE, bugs=(shape,))

    def hard_coded(unconditional, conditional, guidance_scale):
        return torch.lerp(unconditional.view(3, 4, 5, 6), conditional.view(3, 4, 5, 6), guidance_scale)

    def broadcast(unconditional, conditional, guidance_scale):
        return torch.lerp(unconditional + torch.zeros(5, 6), conditional, guidance_scale)

    assert without(exercise, hard_coded).endswith("the shape is hard-coded; read the task")
    text = without(exercise, broadcast)
    assert text.startswith("RuntimeError") and "case 2" in text and "hard-coded" not in text


def test_lists_inside_an_output_are_counted() -> None:
    """As in "a map, and the list of skips": it isn't enough to say that both answers hold lists."""
    x = torch.zeros(2)
    text = compare.difference((x, [x, x]), (x, [x, x, x]))
    assert text == "it returns 2 values (a tensor, a list of 2), but it must return 2 values (a tensor, a list of 3)"
