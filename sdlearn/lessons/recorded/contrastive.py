"""Lesson 07: the small CLIP of `sdlearn.lessons.contrastive`, trained five times as long as the lesson does.

    make recorded RUN=contrastive

Takes three minutes on one core. Every 20 steps: the mean loss since the last row, and of 500 scenes that it hasn't seen
the share whose subject (one of 20) is named rightly, and the share whose background colour (one of 10) is.
"""

from pathlib import Path

from tqdm.auto import tqdm

import sdlearn
from sdlearn.data import Scenes
from sdlearn.lessons.contrastive import SUBJECTS, right_answers, small_clip, train_clip
from sdlearn.lessons.recorded import FOLDER, write_rows

STEPS, EVERY, SCENES = 1000, 20, 500


def record(target: Path, steps: int, every: int, scenes: int) -> None:
    """Train, and write `target`.csv."""
    tokenizer = sdlearn.load().tokenizer
    clip, unseen = small_clip(tokenizer), Scenes(0, "test", subjects=SUBJECTS)
    shown, rows, losses = [unseen[i] for i in range(scenes)], [], []
    learning = train_clip(clip, tokenizer, Scenes(0, subjects=SUBJECTS), steps)
    for step, loss in enumerate(tqdm(learning, total=steps, unit="step"), 1):
        losses.append(loss)
        if step % every == 0:
            subject, color = right_answers(clip, tokenizer, shown)
            mean = sum(losses[-every:]) / every
            scores = {"subject": f"{subject:.4f}", "color": f"{color:.4f}"}
            rows.append({"step": str(step), "loss": f"{mean:.4f}", **scores})
    write_rows(target.with_suffix(".csv"), rows)


if __name__ == "__main__":
    record(FOLDER / "contrastive", STEPS, EVERY, SCENES)
