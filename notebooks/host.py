"""The setup cell of all lessons, and the badges: `make host REPO=owner/name` tells them where the course is hosted.

The address stands in pyproject.toml, `Repository`; nowhere else is it written by hand. While it is missing, no badge is
shown, and on Colab and Kaggle the setup cell only says that it knows no address. Stamping is repeatable: it changes the
setup cells and the badges, and nothing else in a notebook.
"""

import argparse
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import nbformat

from sdlearn.files import atomic_write

ROOT = Path(__file__).parents[1]
BRANCH = "main"
OWNER_NAME = r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}"  # what GitHub allows
GITHUB = re.compile(rf"https://github\.com/({OWNER_NAME}?)(\.git)?/?")
ADDRESS = re.compile(r"(https|file)://[A-Za-z0-9_.:/%+~-]+")  # it is written into code, so nothing that ends a text
BADGES = re.compile(r"^\[!\[Open in Colab\].*\n\n", re.MULTILINE)

SETUP = """\
# @title Set-up: where sdlearn is missing, Colab and Kaggle install it
# Their torch and numpy stay as they are.
import importlib.util
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

COURSE = ""  # where this course is hosted

if importlib.util.find_spec("sdlearn") is None:
    if not {"COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"} & set(os.environ):
        raise ModuleNotFoundError("sdlearn is missing. In the course's folder, run: pip install -e '.[reference]'")
    wheels = sorted({str(file.parent) for file in Path("/kaggle/input").rglob("sdlearn-*.whl")})
    if wheels:  # an attached folder with our wheels: no network is needed
        source = ["--no-index", *(f"--find-links={folder}" for folder in wheels)]
    elif COURSE:
        source = [f"git+{COURSE}"]
    else:
        raise RuntimeError("This copy of the lesson does not know where the course is hosted. Take it from there.")
    print("Installing sdlearn. This takes a minute or two.")
    stay = [f"{name}=={version(name)}" for name in ("torch", "numpy")]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *source, "sdlearn[reference]", *stay]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr)
        raise RuntimeError("pip could not install sdlearn. Is the Internet switched on in this notebook's settings?")
    importlib.invalidate_caches()

import sdlearn"""


def lessons(root: Path) -> list[Path]:
    return sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def setup_cell(address: str) -> str:
    if address and not ADDRESS.fullmatch(address):
        raise ValueError(f"{address} in pyproject.toml is no address such as https://host/name without a password")
    return SETUP.replace('COURSE = ""', f'COURSE = "{address}"')


def badges(address: str, name: str) -> str:
    """Links that open the notebook `name` on Colab and on Kaggle, in Markdown. Both open notebooks from GitHub only."""
    if not (found := GITHUB.fullmatch(address)):
        return ""
    file = f"{found[1]}/blob/{BRANCH}/notebooks/{name}"
    colab = f"https://colab.research.google.com/github/{file}"
    kaggle = f"https://kaggle.com/kernels/welcome?src=https://github.com/{file}"
    return (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}) "
        f"[![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)]({kaggle})"
    )


def read_address(root: Path) -> str:
    """Where the course is hosted, or "" while that is not known."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository", "")


def write_address(root: Path, address: str) -> None:
    file = root / "pyproject.toml"
    text = re.sub(r'\[project\.urls\]\nRepository = ".*"\n\n', "", file.read_text(encoding="utf-8"))
    if address:
        text = text.replace("[project.scripts]", f'[project.urls]\nRepository = "{address}"\n\n[project.scripts]')
    with atomic_write(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def full_address(repo: str) -> str:
    """owner/name on GitHub, or the whole address of another repository; "none" is no address.

    Raises ValueError when it is neither, or holds a user or a password.
    """
    if repo == "none":
        return ""
    if re.fullmatch(OWNER_NAME, repo):
        return f"https://github.com/{repo}"
    if not ADDRESS.fullmatch(repo):
        raise ValueError(f"REPO={repo}: must be owner/name, or an address such as https://host/name without a password")
    return repo


def stamped(notebook: Any, address: str, name: str) -> Any:
    """Set the setup cell's text, folded, and the badges below the title. Outputs and execution counts stay."""
    title, setup = notebook.cells[:2]
    if (title.id, setup.id) != ("title", "setup"):
        raise ValueError(f"{name} begins with the cells {title.id!r} and {setup.id!r}, must with 'title' and 'setup'")
    heading, _, rest = BADGES.sub("", title.source).partition("\n\n")
    title.source = "\n\n".join(part for part in (heading, badges(address, name), rest) if part)
    setup.source = setup_cell(address)
    setup.metadata["jupyter"] = {"source_hidden": True}
    return notebook


def stamp(root: Path, address: str, write: bool = True) -> list[str]:
    """Bring all lessons to the address; return the names of those that differed. write=False: only tell."""
    different = []
    for file in lessons(root):
        before = nbformat.read(file, as_version=4)
        after = stamped(nbformat.read(file, as_version=4), address, file.name)
        if after == before:
            continue
        different.append(file.name)
        if write:
            with atomic_write(file) as temporary:
                nbformat.write(after, temporary)
    return different


def main() -> int:
    parser = argparse.ArgumentParser(description="Tell the lessons where the course is hosted.")
    parser.add_argument("repo", nargs="?", help='owner/name on GitHub, or a whole address; "none" removes it')
    parser.add_argument("--check", action="store_true", help="change nothing, fail when a lesson's setup cell differs")
    options = parser.parse_args()
    try:
        if options.repo:
            write_address(ROOT, full_address(options.repo))
        address = read_address(ROOT)
        different = stamp(ROOT, address, write=not options.check)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"hosted at {address}" if address else "not hosted: no badges. make host REPO=owner/name changes that")
    if different:
        print("these differ:" if options.check else "changed:", ", ".join(different))
    return int(options.check and bool(different))


if __name__ == "__main__":
    sys.exit(main())
