"""The comparison on a checkpoint, run as a user runs it."""

import subprocess
import sys
from pathlib import Path

from PIL import Image

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "real.py"


def test_report_on_a_model_folder(tiny_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(tiny_folder), "--steps", "2", "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    for part in ("CLIPTokenizer", "CLIPTextModel", "UNet2DConditionModel", "AutoencoderKL", "StableDiffusionPipeline"):
        assert f"| {part} | 1 |" in report
    with Image.open(tmp_path / "out" / "pictures.png") as picture:
        assert picture.width >= 2 * 64  # two prompts side by side, ours above Diffusers'
