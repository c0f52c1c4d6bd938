"""CLIP's task: which captions are true of which scenes."""

from pathlib import Path

import torch
from small import make

from sdlearn.data import caption
from sdlearn.lessons.check import assert_parity
from sdlearn.models.clip import contrastive_loss
from sdlearn.pictures import to_unit
from sdlearn.training.clip import every_caption


def test_the_loss_leaves_out_captions_that_are_true(tmp_path: Path) -> None:
    task, _ = make("clip", tmp_path, tmp_path)
    scenes = [task.scenes[index] for index in range(12)]
    same = torch.zeros(12, 12, dtype=torch.bool)
    for i, scene in enumerate(scenes):
        for j, other in enumerate(scenes):
            texts = [caption(scene.subject, c, s) for c in (None, scene.color) for s in (None, scene.size)]
            same[i, j] = other.caption in texts
    assert same.diagonal().all()
    assert same.sum() > 12  # some pairs are neither right nor wrong
    image = to_unit(torch.stack([scene.image for scene in scenes]))
    ids = task.tokenizer([scene.caption for scene in scenes])
    features = task.clip.encode_image(image), task.clip.encode_text(ids)
    expected = contrastive_loss(*features, task.clip.logit_scale, same)
    assert_parity("loss", task.loss(task.network, 0, slice(None))[0], expected, against="contrastive_loss")


def test_every_caption_is_known() -> None:
    captions = set(every_caption())
    assert {"an owl", "a small owl", "a large cat on an orange background"} <= captions
