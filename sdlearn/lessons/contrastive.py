"""A CLIP small enough to learn in seconds, and its training, which fits on one screen."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from sdlearn.data import COLORS, Scene, Scenes, caption
from sdlearn.models.clip import CLIP, CLIPConfig, VisionConfig, contrastive_loss, similarity
from sdlearn.models.text import TextConfig
from sdlearn.pictures import to_unit
from sdlearn.tokenizer import EOS, Tokenizer

# Twenty of the 160 subjects: a network that learns for seconds can't tell more of them apart.
SUBJECTS = (
    *("penguin", "cat", "owl", "frog", "whale", "snail", "cactus", "tree", "banana", "pizza"),
    *("house", "rocket", "car", "moon", "umbrella", "guitar", "book", "key", "crown", "ghost"),
)
LONGEST = 20  # tokens, begin and end included: what comes after the end changes nothing, so it isn't computed


def small_clip(tokenizer: Tokenizer, width: int = 64, seed: int = 0) -> CLIP:
    """Two towers of two layers with random weights, for pictures of 64×64 pixels."""
    tower = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 2, "num_attention_heads": 4}
    end = tokenizer.vocab[EOS]
    text = TextConfig(**tower, vocab_size=len(tokenizer), bos_token_id=end - 1, eos_token_id=end, pad_token_id=end)
    vision = VisionConfig(**tower, image_size=64, patch_size=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIP(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))


def pictures_of(scenes: list[Scene]) -> Tensor:
    """(B, 3, H, W) in [−1, 1]."""
    return to_unit(torch.stack([scene.image for scene in scenes]))


def train_clip(
    clip: CLIP,
    tokenizer: Tokenizer,
    scenes: Scenes,
    steps: int,
    loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = contrastive_loss,
    batch_size: int = 64,
) -> Iterator[float]:
    """Train on pictures with complete captions. Changes `clip`, and yields the loss of each step."""
    optimizer = torch.optim.AdamW(clip.parameters(), 2e-3, fused=True)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=20)
    for step in range(steps):
        batch = [scenes[i] for i in range(step * batch_size, (step + 1) * batch_size)]
        captions = [caption(scene.subject, scene.color) for scene in batch]
        same = torch.tensor([[one == other for other in captions] for one in captions])
        ids = tokenizer(captions)[:, :LONGEST]
        with torch.enable_grad():
            images, texts = clip.encode_image(pictures_of(batch)), clip.encode_text(ids)
            value = loss(images, texts, clip.logit_scale, same)
            value.backward()
        optimizer.step()
        optimizer.zero_grad()
        warm_up.step()
        yield value.item()


@torch.no_grad()
def zero_shot(clip: CLIP, tokenizer: Tokenizer, images: Tensor, texts: list[str]) -> Tensor:
    """For each picture (B, 3, H, W) the number of the text that is most like it: (B,)."""
    return similarity(clip.encode_image(images), clip.encode_text(tokenizer(texts)[:, :LONGEST])).argmax(dim=1)


def right_answers(
    clip: CLIP, tokenizer: Tokenizer, scenes: list[Scene], subjects: Sequence[str] = SUBJECTS
) -> tuple[float, float]:
    """Each scene's caption is chosen among those of all subjects on all colours. The shares of right ones of both."""
    texts = [caption(subject, color) for subject in subjects for color in COLORS]
    chosen = zero_shot(clip, tokenizer, pictures_of(scenes), texts).tolist()
    named = [(subjects[i // len(COLORS)], tuple(COLORS)[i % len(COLORS)]) for i in chosen]
    right = [(name == s.subject, color == s.color) for (name, color), s in zip(named, scenes, strict=True)]
    return tuple(sum(column) / len(scenes) for column in zip(*right, strict=True))
