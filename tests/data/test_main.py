import subprocess
import sys

from PIL import Image


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "sdlearn.data", *arguments], capture_output=True, text=True)


def test_sheet(tmp_path):
    path = tmp_path / "new" / "sheet.png"
    done = run(str(path), "--count", "9", "--two")
    assert done.returncode == 0 and done.stdout.strip() == str(path), done.stderr
    with Image.open(path) as sheet:
        assert sheet.width == 8 * (128 + 12) + 12 and len(sheet.getcolors(1 << 20)) > 50
    assert [f.name for f in path.parent.iterdir()] == ["sheet.png"]


def test_an_error_is_one_line(tmp_path):
    done = run(str(tmp_path / "x.png"), "--split", "validation")
    assert done.returncode == 1
    assert done.stderr.strip() == "error: unknown split 'validation'; accepted: train, held_out_pairs, test"
