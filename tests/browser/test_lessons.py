"""The lessons in JupyterLab, in a real browser: all cells run, a slider is moved, the picture below it changes.

Run by `make browser`. Needs Debian's chromium, or another one that is on the path, and the extra `browser`. Where the
variable SCREENSHOTS names a folder, what was seen is kept there.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("jupyterlab")

pytestmark = pytest.mark.browser
FILES = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # else cells out of sight are not in the page
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
LESSON_S = 300  # a lesson may take 120 s; here the browser works besides


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """JupyterLab's address. It serves copies of the notebooks, without their outputs."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "notebooks").mkdir()
    for file in FILES:
        notebook = nbformat.read(file, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, folder / "notebooks" / file.name)
    for name, values in SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": folder / "notebooks",
        "IdentityProvider.token": "",
        "LabApp.user_settings_dir": folder / "settings",
        "LabApp.workspaces_dir": folder / "workspaces",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--{name}={value}" for name, value in options.items()]
    environment = os.environ | {"JUPYTER_CONFIG_DIR": str(folder / "config"), "SDLEARN_PASSPORT": str(folder / "own")}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        wait_for(f"http://127.0.0.1:{port}/api", server, folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(120):
        try:
            urllib.request.urlopen(address)
            return
        except urllib.error.URLError:
            assert server.poll() is None, log.read_text()
            time.sleep(0.5)
    raise AssertionError(f"JupyterLab doesn't answer: {log.read_text()}")


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def move_slider(cell: "playwright.Locator") -> None:
    """Move a cell's first slider by one step: its picture must be drawn again."""
    image = cell.locator(".widget-html img, .jupyter-widgets img").first
    image.wait_for(timeout=30_000)
    before = image.get_attribute("src")
    assert re.match("data:image/png;base64,", before) and image.get_attribute("alt")
    handle = cell.get_by_role("slider").first
    value = handle.get_attribute("aria-valuenow")
    key = "ArrowLeft" if value == handle.get_attribute("aria-valuemax") else "ArrowRight"
    handle.focus()
    handle.press(key)
    playwright.expect(image).not_to_have_attribute("src", before, timeout=60_000)
    assert handle.get_attribute("aria-valuenow") != value


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_lesson_runs_and_its_sliders_draw_again(
    file: Path, lab: str, browser: "playwright.Browser", tmp_path: Path
) -> None:
    cells = nbformat.read(file, as_version=4).cells
    # a folded cell has no number
    count = sum(
        cell.cell_type == "code" and not cell.metadata.get("jupyter", {}).get("source_hidden") for cell in cells
    )
    sliders = [i for i, cell in enumerate(cells) if "show.interact(" in cell.source]
    page = browser.new_page(viewport={"width": 1100, "height": 1400})
    page.goto(f"{lab}/doc/tree/{file.name}")
    page.locator(".jp-Cell").nth(len(cells) - 1).wait_for(state="attached", timeout=60_000)

    page.get_by_text("| Idle").wait_for(timeout=60_000)  # without a kernel, "Run All" does nothing

    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    done = "Array.from(document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')).filter(p => /\\d/.test(p.innerText))"
    idle = "document.body.innerText.includes('| Idle')"
    try:
        page.wait_for_function(f"{done}.length == {count} && {idle}", timeout=LESSON_S * 1000)
    except playwright.TimeoutError:
        page.screenshot(path=tmp_path / "stuck.png")
        raise AssertionError(
            f"{page.evaluate(done + '.length')} of {count} cells ran in {LESSON_S} s, see {tmp_path / 'stuck.png'}"
        ) from None
    failed = page.locator("[data-mime-type='application/vnd.jupyter.error'], [data-mime-type$='.stderr']")
    assert failed.all_inner_texts() == []
    assert page.locator("mjx-merror, .MathJax_Error").all_inner_texts() == []  # formulas that can't be read

    for place in sliders:
        move_slider(page.locator(".jp-Cell").nth(place))
    if folder := os.environ.get("SCREENSHOTS"):
        page.set_viewport_size({"width": 1100, "height": 12_000})
        for i, half in enumerate((0, len(cells) // 2)):
            page.locator(".jp-Cell").nth(half).evaluate("one => one.scrollIntoView()")
            page.screenshot(path=Path(folder) / f"{file.stem}-{i}.png")
    page.close()
