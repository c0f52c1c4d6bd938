"""Training by two processes, started by torchrun, equals training by one."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import KINDS, STEPS, first_gradient, go_on
from small import load, make, make_parts

from sdlearn.lessons.check import max_difference


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("processes")
    make_parts(root / "parts")
    return root


@pytest.fixture(scope="module")
def reports(root: Path) -> list[dict[str, Any]]:
    """What two processes wrote down, after one trained the first steps."""
    for kind in KINDS:
        go_on(kind, root, root / f"{kind}, one two one", STEPS[0])
    launcher = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(Path(__file__).with_name("processes.py")), str(root)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    out = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert out.returncode == 0, out.stderr
    return [torch.load(root / f"report {rank}.pt", weights_only=True) for rank in range(2)]


def test_there_are_two(reports: list[dict[str, Any]]) -> None:
    assert [report["processes"] for report in reports] == [2, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_those_of_one_process(kind: str, root: Path, reports: list[dict[str, Any]]) -> None:
    expected = first_gradient(kind, root, root / f"{kind}, one")
    largest = max(gradient.abs().max().item() for gradient in expected)
    for report in reports:
        for ours, theirs in zip(report["gradients"][kind], expected, strict=True):
            # A key's bias has no gradient but rounding's: it is measured against the largest of all.
            assert max_difference(ours, theirs) <= 1e-5 * max(theirs.abs().max().item(), 1e-3 * largest)


def test_one_process_writes(root: Path, reports: list[dict[str, Any]]) -> None:
    first, second = (report["written"] for report in reports)
    assert second == []
    folders = {Path(file).relative_to(root).parts[0] for file in first}
    assert folders == {f"{kind}, {how}" for kind in KINDS for how in ("two", "one two one")}


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_by_another_number_of_processes(kind: str, root: Path, reports: list[dict[str, Any]]) -> None:
    folder, undisturbed = root / f"{kind}, one two one", root / f"{kind}, undisturbed"
    assert load(folder)["step"] == STEPS[1]
    go_on(kind, root, folder, STEPS[2])
    go_on(kind, root, undisturbed, STEPS[2])
    ours, expected = load(folder), load(undisturbed)
    assert ours["step"] == expected["step"] == STEPS[2]
    names = [name for name, _ in make(kind, root, folder)[0].network.named_parameters()]
    for part in ("parameters", "ema"):
        for name, one, other in zip(names, ours[part], expected[part], strict=True):
            # A key's bias has no gradient but rounding's, whose sign Adam follows. It changes no output: the softmax
            # cancels it.
            if not name.endswith("k_proj.bias"):
                assert (one - other).norm() <= 1e-5 * other.norm(), name
