"""The setup cell and the badges: the same in all lessons, stamped again and again, and what the cell does on a host.

Colab and Kaggle themselves can't be reached from a test. A fresh environment that holds torch and numpy, and the
variables that these hosts set, stand in for them.
"""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import contents
import host
import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what is stamped, while the course is not hosted."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    stamp(tmp_path, "")
    return tmp_path


def stamp(root: Path, address: str) -> list[str]:
    host.write_address(root, address)
    return host.stamp(root, host.read_address(root))


def content(root: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in [*host.lessons(root), root / "pyproject.toml"]}


def test_every_lesson_has_this_setup_cell() -> None:
    command = [sys.executable, ROOT / "notebooks" / "host.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_table_of_lessons_says_what_the_lessons_say() -> None:
    """`python notebooks/contents.py` brings README up to date."""
    assert contents.readme(ROOT) == (ROOT / "README.md").read_text(encoding="utf-8")
    for file in host.lessons(ROOT):
        with Image.open(ROOT / "docs" / "img" / f"{file.name[:2]}.png") as image:
            assert image.width == contents.WIDTH


def test_badges_stand_in_the_table_once_the_course_is_hosted() -> None:
    notebooks = {file: nbformat.read(file, as_version=4) for file in host.lessons(ROOT)}
    assert "Open in" not in contents.table(notebooks, "")
    assert contents.table(notebooks, "https://github.com/a/b").count("/a/b/blob/main/notebooks/") == 2 * len(notebooks)


def test_the_check_finds_a_setup_cell_that_differs(copy: Path) -> None:
    file = host.lessons(copy)[0]
    notebook = nbformat.read(file, as_version=4)
    notebook.cells[1].source += "\n"
    nbformat.write(notebook, file)
    assert host.stamp(copy, "", write=False) == [file.name]
    assert host.stamp(copy, "") == [file.name] and host.stamp(copy, "", write=False) == []


def test_learners_can_read_it() -> None:
    lines = host.setup_cell("https://github.com/someone/sdlearn").splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 120


def test_a_badge_is_there_only_after_stamping(copy: Path) -> None:
    names = [file.name for file in host.lessons(copy)]
    before = content(copy)
    assert not any(b"[Open in Colab]" in text for text in before.values())
    assert stamp(copy, "https://github.com/someone/sd.learn") == names
    for file in host.lessons(copy):
        title, setup, *rest = nbformat.read(file, as_version=4).cells
        assert title.source.splitlines()[2].count("someone/sd.learn/blob/main/notebooks/" + file.name) == 2
        assert 'COURSE = "https://github.com/someone/sd.learn"' in setup.source
        (old_title, old_setup, *old_rest) = nbformat.reads(before[file.name].decode(), as_version=4).cells
        assert rest == old_rest  # outputs and execution counts too
        assert (setup.execution_count, setup.outputs) == (old_setup.execution_count, old_setup.outputs)
        assert title.source.replace(host.badges("https://github.com/someone/sd.learn", file.name) + "\n\n", "") == (
            old_title.source
        )


def test_stamping_again_changes_nothing_and_another_name_replaces_the_first(copy: Path) -> None:
    before = content(copy)
    stamp(copy, "https://github.com/someone/course")
    once = content(copy)
    assert stamp(copy, "https://github.com/someone/course") == [] and content(copy) == once
    stamp(copy, "https://github.com/another/course")
    assert not any(b"github.com/someone" in text for text in content(copy).values())
    stamp(copy, "https://git.example.org/course")
    assert not any(b"[Open in Colab]" in text for text in content(copy).values())  # these badges open GitHub only
    stamp(copy, "")
    assert content(copy) == before


@pytest.mark.parametrize(
    ("repo", "address"),
    [
        ("some-one/sd.learn", "https://github.com/some-one/sd.learn"),
        ("https://git.example.org/a/b.git", "https://git.example.org/a/b.git"),
        ("file:///srv/course", "file:///srv/course"),
        ("none", ""),
    ],
)
def test_addresses(repo: str, address: str) -> None:
    assert host.full_address(repo) == address


@pytest.mark.parametrize(
    "repo",
    [
        *(
            "course",
            "https://me:secret@host/a",
            'a/b"+x',
            "https://host/a b",
            "a/b/c",
            "",
            "--check",
            "a/b\n",
            "/b",
            "a/",
        ),
        *("ä/b", "a/ｂ", "a_b/c", "-a/b", "a-/b", "a--b/c", "a/.", "a/..", "a" * 40 + "/b", "a/" + "b" * 101),
        *('https://host/"+x', "https://host/\\n", "https://hôst/a", "http://host/a", "$(x)/b", "a/b;c", "a/b`c`"),
    ],
)
def test_what_is_no_address_is_refused(repo: str) -> None:
    with pytest.raises(ValueError, match="must be owner/name"):
        host.full_address(repo)


def test_an_address_that_would_be_code_is_not_stamped(copy: Path) -> None:
    """Somebody may have written it into pyproject.toml by hand."""
    before = content(copy)
    address = 'https://host/"; print("harm"); "'
    file = copy / "pyproject.toml"
    text = file.read_text().replace(
        "[project.scripts]", f"[project.urls]\nRepository = '{address}'\n\n[project.scripts]"
    )
    file.write_text(text)
    with pytest.raises(ValueError, match=r"in pyproject.toml is no address"):
        host.stamp(copy, host.read_address(copy))
    file.write_bytes(before["pyproject.toml"])
    assert content(copy) == before


def run_setup(python: str | Path, source: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a setup cell as a host's kernel would, with nothing of this checkout on the path."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COLAB", "KAGGLE"))
    }
    code = source + "\nprint('from', sdlearn.__file__)\n"
    return subprocess.run(
        *([python, "-c", code],), cwd=folder, capture_output=True, text=True, env=inherited | environment
    )


def test_where_it_can_be_imported_nothing_is_installed(tmp_path: Path) -> None:
    for hosted in ({}, {"COLAB_RELEASE_TAG": "x"}):
        done = run_setup(sys.executable, host.setup_cell(""), tmp_path, **hosted)
        assert done.returncode == 0 and not done.stderr
        assert done.stdout.split() == ["from", str(ROOT / "sdlearn" / "__init__.py")]


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "sdlearn is missing. In the course's folder, run: pip install -e '.[reference]'"),
        ({"COLAB_RELEASE_TAG": "x"}, "This copy of the lesson does not know where the course is hosted."),
        (
            {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"},
            "This copy of the lesson does not know where the course is hosted.",
        ),
    ],
)
def test_where_it_cannot_be_installed_a_sentence_says_so(
    environment: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    source = host.setup_cell("").replace('find_spec("sdlearn")', 'find_spec("sdlearn_is_not_here")')
    done = run_setup(sys.executable, source, tmp_path, **environment)
    assert done.returncode == 1 and sentence in done.stderr.splitlines()[-1]


def test_wheels_of_others_are_left_alone(tmp_path: Path) -> None:
    """On Kaggle, whatever else is attached to a notebook lies in the same folder."""
    others = tmp_path / "input" / "something"
    others.mkdir(parents=True)
    (others / "torch-1.0-py3-none-any.whl").touch()
    (others / "not_sdlearn-1.0-py3-none-any.whl").touch()
    source = host.setup_cell("").replace('find_spec("sdlearn")', 'find_spec("sdlearn_is_not_here")')
    source = source.replace("/kaggle/input", str(tmp_path / "input"))
    done = run_setup(sys.executable, source, tmp_path, KAGGLE_KERNEL_RUN_TYPE="Batch")
    assert done.returncode == 1 and "does not know where the course is hosted" in done.stderr.splitlines()[-1]
    ours = tmp_path / "input" / "course" / "wheels"
    ours.mkdir(parents=True)
    (ours / "sdlearn-0.1.0-py3-none-any.whl").touch()
    source = source.replace("subprocess.run(command", "subprocess.run(['echo', *command]")
    done = run_setup(
        sys.executable,
        source.replace("if done.returncode:", "print(done.stdout)\n    if 0:"),
        tmp_path,
        KAGGLE_KERNEL_RUN_TYPE="Batch",
    )
    assert f"--no-index --find-links={ours} sdlearn[reference]" in done.stdout and str(others) not in done.stdout


def with_requirements(names: list[str]) -> dict[str, Distribution]:
    """These installed packages, and all that they need."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(name) for name in names]
    while waiting:
        need = waiting.pop()
        if need.marker and not any(need.marker.evaluate({"extra": extra}) for extra in ("", *need.extras)):
            continue
        if (name := canonicalize_name(need.name)) not in found:
            found[name] = distribution(need.name)
            waiting += map(Requirement, found[name].requires or [])
    return found


def files(package: Distribution) -> list[Path]:
    """A package's files, relative to site-packages. Its commands, which lie outside, are made anew by pip."""
    return [Path(file) for file in package.files if ".." not in file.parts and "__pycache__" not in file.parts]


def make_wheel(package: Distribution, folder: Path) -> None:
    """Pack an installed package into a wheel again, so that pip can install it elsewhere without a network."""
    tag = package.read_text("WHEEL").strip().rpartition("Tag: ")[2]
    name = canonicalize_name(package.name).replace("-", "_")
    with zipfile.ZipFile(folder / f"{name}-{package.version}-{tag}.whl", "w") as wheel:
        for file in files(package):
            if file.name == "RECORD":
                wheel.writestr(str(file), "".join(f"{other.as_posix()},,\n" for other in files(package)))
            elif file.name not in ("INSTALLER", "REQUESTED", "direct_url.json"):
                wheel.write(package.locate_file(file), str(file))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that sdlearn[reference] needs besides torch and numpy, as wheels, and setuptools, which builds sdlearn."""
    folder = tmp_path_factory.mktemp("wheels")
    there = with_requirements(["torch", "numpy"])
    needed = with_requirements([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["reference"], "setuptools"])
    for name, package in needed.items():
        if name not in there or name == "setuptools":
            make_wheel(package, folder)
    return folder


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with the files of this checkout as they are."""
    folder = tmp_path_factory.mktemp("hosted") / "course"
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "-A"], [*who, "commit", "-q", "-m", "The course"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return folder


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A new environment that holds pip, torch, numpy, and what these two need. Its files are links to ours."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "fresh"], check=True)
    (site,) = (tmp_path / "fresh").glob("lib/python*/site-packages")
    for package in with_requirements(["torch", "numpy"]).values():
        for file in files(package):
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(package.locate_file(file), site / file)
            except OSError:  # another disk
                shutil.copy2(package.locate_file(file), site / file)
    return site


def state(site: Path) -> dict[str, tuple[int, int]]:
    """Which files torch and numpy consist of: a file that was installed again is another one."""
    folders = [folder for pattern in ("torch", "torch-*", "numpy", "numpy-*") for folder in site.glob(pattern)]
    assert len(folders) == 4
    found = [file for folder in folders for file in folder.rglob("*") if "__pycache__" not in file.parts]
    return {str(file): (file.stat().st_ino, file.stat().st_mtime_ns) for file in found if file.is_file()}


USE = """
import diffusers, transformers
assert not sdlearn.load().card.startswith("# A random")
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="an environment has other folders there")
@pytest.mark.parametrize("hosted", ["Colab", "Kaggle, offline"])
def test_on_a_host_it_installs_the_course_and_leaves_torch_and_numpy_alone(
    hosted: str, fresh: Path, wheels: Path, repository: Path, tmp_path: Path
) -> None:
    python = tmp_path / "fresh" / "bin" / "python"
    environment = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "COLAB_RELEASE_TAG": "x"}
    source = host.setup_cell(f"file://{repository}")
    if hosted != "Colab":
        attached = tmp_path / "input" / "course"
        shutil.copytree(wheels, attached)
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", attached, repository]
        subprocess.run(command, check=True, env=os.environ | environment)
        source = host.setup_cell("").replace("/kaggle/input", str(tmp_path / "input"))
        environment = {"PIP_FIND_LINKS": "", "KAGGLE_KERNEL_RUN_TYPE": "Batch"}
    before = state(fresh)

    first = run_setup(python, source + USE, tmp_path, **environment)
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.splitlines()[0] == "Installing sdlearn. This takes a minute or two."
    assert first.stdout.split()[-2:] == ["from", str(fresh / "sdlearn" / "__init__.py")]
    assert state(fresh) == before

    second = run_setup(python, source, tmp_path, **environment)
    assert second.stdout.split() == ["from", str(fresh / "sdlearn" / "__init__.py")] and not second.stderr
