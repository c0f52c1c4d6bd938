"""Stubs, solutions and cells: texts made from the package's source."""

from collections.abc import Callable
from typing import Any

import pytest
from examples import METHOD, MODULE, SAMPLER, written
from torch import Tensor

import sdlearn
from sdlearn.diffusion.samplers import plms
from sdlearn.lessons.exercises import source
from sdlearn.lessons.exercises.exercise import Case, Exercise
from sdlearn.lessons.exercises.judge import NOT_WRITTEN, assess


def _nothing(x: Tensor, *others: int, key: str = "é", **more: Any) -> "Tensor":
    # Not a shape (really).
    a: Tensor = x  # (B, C) -> (B,)
    return _nothing(a) if key == "é" else a


class Taken:
    def method(self, taken: int) -> int:
        return taken


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
        exercise = Exercise("97.guarded", guarded, lambda g: [Case("one", 1, ["a"])], 1, 1)
        given = '''# 97.guarded
def guarded(n, names):
    """Twice n."""
    if n < 0:
        raise ValueError(f"n = {n}, must not be negative")
    raise NotImplementedError


ex.check("97.guarded", guarded)'''
        assert source.stub(exercise) == given
        mine = written(exercise, emptied=True)
        with pytest.raises(ValueError, match="n = -1, must not be negative"):
            mine(-1, [])
        assert assess(exercise, mine) == NOT_WRITTEN

    def test_method(self) -> None:
        """It becomes a function of the object."""
        assert source.stub(METHOD) == (
            "# 97.add_noise\ndef add_noise(schedule, x0, noise, t):\n"
            '    """x_t, a sample of q(x_t given x_0). DDPM (Ho et al. 2020), equation 4."""\n'
            "    raise NotImplementedError\n\n\n"
            'ex.check("97.add_noise", add_noise)'
        )

    def test_self_is_renamed_where_it_is_refused_and_used(self) -> None:
        exercise = Exercise("97.step", sdlearn.Schedule.add_one_step, lambda g: [], 1, 1)
        assert "0 <= t < len(schedule.betas)" in source.stub(exercise)
        assert "    beta = schedule.betas[t]\n" in source.solution(exercise)
        assert "self" not in source.solution(exercise)

    def test_a_name_for_self_that_is_taken(self) -> None:
        with pytest.raises(ValueError, match=r"97\.x: taken can't stand for self"):
            source.stub(Exercise("97.x", Taken.method, lambda g: [], 1, 1))

    def test_module(self) -> None:
        text = source.stub(MODULE)
        assert "from torch import nn\n" in text and "functional" not in text
        assert "\n\n\nclass ResnetBlock(nn.Module):\n" in text
        assert "        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)\n" in text
        end = "        # (B, out) -> (B, out, 1, 1)\n        raise NotImplementedError"
        assert text.endswith(f'{end}\n\n\nex.check("97.resnet_block", ResnetBlock)')
        assert assess(MODULE, written(MODULE, emptied=True)) == NOT_WRITTEN

    def test_sampler(self) -> None:
        line = "def ddim(denoise, x, grid, schedule, generator=None, project=None, eta=0.0):\n"
        assert line in source.stub(SAMPLER)
        assert assess(SAMPLER, written(SAMPLER, emptied=True)) == NOT_WRITTEN
        assert assess(SAMPLER, written(SAMPLER)).green

    def test_hints_go_and_the_name_changes(self) -> None:
        exercise = Exercise("97.nothing", _nothing, lambda g: [], 1, 1)
        assert source.definition(exercise, emptied=True) == (
            'def nothing(x, *others, key="é", **more):\n    # (B, C) -> (B,)\n    raise NotImplementedError'
        )
        assert source.definition(exercise, emptied=False) == (
            'def nothing(x, *others, key="é", **more):\n    # Not a shape (really).\n'
            '    a = x  # (B, C) -> (B,)\n    return nothing(a) if key == "é" else a'
        )

    @pytest.mark.parametrize("reference", [plms, sdlearn.euler, sdlearn.make_grid, sdlearn.guide, sdlearn.UNet.forward])
    def test_whatever_the_package_holds(self, reference: Callable) -> None:
        exercise = Exercise("97.x", reference, lambda g: [], 1, 1)
        for emptied in (True, False):
            text = source.definition(exercise, emptied)
            assert source.run_source(text).__name__ == exercise.name
            assert "->" not in "".join(line.partition("#")[0] for line in text.splitlines() if "def " in line)
