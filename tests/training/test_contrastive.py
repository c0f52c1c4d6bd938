"""CLIP's task: which captions are true of which scenes."""

from pathlib import Path

import torch
from small import make

from sdlearn.data import caption
from sdlearn.models.clip import contrastive_loss
from sdlearn.training.clip import every_caption


def test_the_loss_leaves_out_captions_that_are_true(tmp_path: Path) -> None:
    task, _ = make("clip", tmp_path, tmp_path)
    objective = task.objective
    batch = task.batch(0, slice(None))
    scenes = [task.scenes[index] for index in range(12)]
    same = torch.zeros(12, 12, dtype=torch.bool)
    for i, scene in enumerate(scenes):
        for j, other in enumerate(scenes):
            texts = [caption(scene.subject, c, s) for c in (None, scene.color) for s in (None, scene.size)]
            same[i, j] = other.caption in texts
    assert same.diagonal().all()
    assert same.sum() > 12  # some pairs are neither right nor wrong
    features = objective.clip.encode_image(batch["image"]), objective.clip.encode_text(batch["ids"])
    expected = contrastive_loss(*features, objective.clip.logit_scale, same)
    assert torch.equal(objective(**batch)[0], expected)


def test_every_caption_is_known() -> None:
    captions = set(every_caption())
    assert {"an owl", "a small owl", "a large cat on an orange background"} <= captions
