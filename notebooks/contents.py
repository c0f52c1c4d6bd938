"""README's table of lessons, and its small pictures, from the lessons' facts and stored outputs: `make notebooks`."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import facts
import host
import nbformat
from PIL import Image

from sdlearn.files import atomic_write

WIDTH = 160  # pixels
PLACE = re.compile(r"<!-- lessons -->\n.*<!-- end of lessons -->\n", re.DOTALL)


def picture(notebook: Any, cell: str) -> Image.Image:
    """A cell's stored picture, on white, 160 pixels wide. Of a film it is the still."""
    (found,) = (one for one in notebook.cells if one.id == cell)
    data = next(output.data["image/png"] for output in found.outputs if "image/png" in output.get("data", {}))
    image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    return image.resize((WIDTH, round(WIDTH * image.height / image.width)), Image.Resampling.LANCZOS)


def row(file: Path, notebook: Any, address: str) -> str:
    """A lesson's row: picture, title, what is built, minutes, seconds; and badges once the course is hosted."""
    lesson = facts.read(notebook)
    name = facts.heading(lesson).removeprefix("# ")
    badges = host.badges(address, file.name)
    cells = [
        f"![{name}](docs/img/{lesson['number']}.png)",
        f"[{name}](notebooks/{file.name})" + (f"<br>{badges}" if badges else ""),
        lesson["builds"],
        str(lesson["minutes"]),
        str(lesson["seconds"]),
    ]
    return f"| {' | '.join(cells)} |"


def table(notebooks: dict[Path, Any], address: str) -> str:
    head = "| | lesson | what you build | minutes | seconds |\n|---|---|---|---:|---:|\n"
    return head + "".join(row(file, notebook, address) + "\n" for file, notebook in notebooks.items())


def readme(root: Path) -> str:
    """README's text with the table as it should be."""
    notebooks = {file: nbformat.read(file, as_version=4) for file in host.lessons(root)}
    new = f"<!-- lessons -->\n{table(notebooks, host.read_address(root))}<!-- end of lessons -->\n"
    return PLACE.sub(lambda found: new, (root / "README.md").read_text(encoding="utf-8"))


def write(root: Path) -> None:
    with atomic_write(root / "README.md") as temporary:
        temporary.write_text(readme(root), encoding="utf-8")
    (root / "docs" / "img").mkdir(parents=True, exist_ok=True)
    for file in host.lessons(root):
        notebook = nbformat.read(file, as_version=4)
        small = picture(notebook, facts.read(notebook)["picture"])
        with atomic_write(root / "docs" / "img" / f"{file.name[:2]}.png") as temporary:
            small.save(temporary, "PNG", optimize=True)


if __name__ == "__main__":
    write(host.ROOT)
