"""What `make` and `pip` read: the versions agree with each other, and a second run installs nothing."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PINS = {
    canonicalize_name(pin.name): pin
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
    for pin in [Requirement(line)]
}


def direct_requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = sum(project["optional-dependencies"].values(), project["dependencies"])
    return [Requirement(line) for line in lines if not line.startswith("sdlearn[")]


@pytest.mark.parametrize("requirement", direct_requirements(), ids=str)
def test_every_range_holds_its_pin(requirement: Requirement) -> None:
    (pin,) = PINS[canonicalize_name(requirement.name)].specifier
    assert pin.operator == "=="
    assert requirement.specifier.contains(pin.version)


def test_a_wheel_holds_every_file(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "sdlearn", tmp_path / "sdlearn", ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys, setuptools.build_meta as backend; backend.build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, "out"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "out").iterdir()
    files = {file.relative_to(tmp_path).as_posix() for file in (tmp_path / "sdlearn").rglob("*") if file.is_file()}
    assert any(file.endswith(".toml") for file in files) and any(file.endswith(".safetensors") for file in files)
    assert {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("sdlearn/")} == files


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").mkdir()
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, env=environment)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
class TestMake:
    def test_first_run_installs_and_second_does_not(self, copy: Path) -> None:
        first = make(copy, "-n", "demo")
        assert "--editable ." in first.stdout and "[dev]" not in first.stdout
        (copy / ".venv" / "runtime").touch()
        second = make(copy, "-n", "demo")
        assert second.returncode == 0 and "sdlearn demo" in second.stdout
        assert "pip" not in second.stdout

    def test_tests_need_more(self, copy: Path) -> None:
        (copy / ".venv" / "runtime").touch()
        assert "[dev]" in make(copy, "-n", "test").stdout
        (copy / ".venv" / "dev").touch()
        assert "pip" not in make(copy, "-n", "test").stdout

    def test_new_pins_are_installed(self, copy: Path) -> None:
        (copy / ".venv" / "runtime").touch()
        os.utime(copy / ".venv" / "runtime", (0, 0))
        assert "--editable ." in make(copy, "-n", "demo").stdout

    def test_old_python_is_refused(self, copy: Path) -> None:
        result = make(copy, "demo", "PYTHON=false")
        assert result.returncode != 0
        assert "false is not Python 3.11 or newer" in result.stderr

    @pytest.fixture
    def echo(self, copy: Path) -> Path:
        """In place of the programs, one that prints its arguments."""
        (copy / ".venv" / "bin").mkdir()
        for name in ("sdlearn", "python"):
            command = copy / ".venv" / "bin" / name
            command.write_text('#!/bin/sh\nprintf "<%s>" "$@"\n')
            command.chmod(0o755)
        for name in ("runtime", "dev"):
            (copy / ".venv" / name).touch()
        return copy

    def test_prompt_reaches_the_command_as_it_is(self, echo: Path) -> None:
        assert make(echo, "demo").stdout == "<demo><--seed=0><-->"
        result = make(echo, "demo", """PROMPT=an owl's "nest"; -x""", "SEED=3")
        assert result.stdout == """<demo><--seed=3><--><an owl's "nest"; -x>"""

    @pytest.mark.parametrize(
        "text",
        [
            *(
                "costs $5",
                "$$",
                "$(shell touch harm)",
                "${SEED}",
                "$(MAKE)",
                "`touch harm`",
                "$(touch harm)",
                "#1 %",
                "--x",
            ),
            *("a\\b", "a\nb", "a\ttab", '"; touch harm; "', "'; touch harm; '", "*", "~", "$(error x)", "$(eval X=1)"),
        ],
    )
    def test_neither_make_nor_the_shell_reads_a_value(self, text: str, echo: Path) -> None:
        assert make(echo, "demo", f"PROMPT={text}").stdout == f"<demo><--seed=0><--><{text}>"
        assert make(echo, "demo", f"SEED={text}").stdout == f"<demo><--seed={text}><-->"
        assert f"<notebooks/host.py><--><{text}>" in make(echo, "host", f"REPO={text}").stdout
        assert f"<{text}>" in make(echo, "-s", "real", f"MODEL={text}").stdout
        result = make(echo, "recorded", f"RUN={text}")
        assert result.returncode == 2 and result.stderr.startswith("RUN must be one of:") and not result.stdout
        assert not (echo / "harm").exists()

    def test_a_recorded_run_is_named(self, echo: Path) -> None:
        (echo / "sdlearn" / "lessons" / "recorded").mkdir(parents=True)
        for name in ("__init__", "one", "two"):
            (echo / "sdlearn" / "lessons" / "recorded" / f"{name}.py").touch()
        assert "<-m><sdlearn.lessons.recorded.two>" in make(echo, "-s", "recorded", "RUN=two").stdout
        for name in ("", "three", "__init__"):
            assert make(echo, "recorded", f"RUN={name}").stderr.splitlines()[0] == "RUN must be one of: one two"
