"""Training CLIP: a text tower and an image tower that agree on which caption belongs to which scene."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdlearn.checkpoints import save_part
from sdlearn.data import COLORS, SIZES, SUBJECTS, Scenes, caption, to_unit
from sdlearn.models.clip import CLIP, CLIPConfig, contrastive_loss
from sdlearn.tokenizer import Tokenizer, train_bpe


def train_tokenizer(vocab_size: int) -> Tokenizer:
    """Byte-pair merges learned from every caption that a scene can have."""
    words = [caption(subject, color, size) for subject in SUBJECTS for color in (None, *COLORS) for size in SIZES]
    return train_bpe(words, vocab_size)


class CLIPObjective(nn.Module):
    """The contrastive loss. Equal captions within a batch are neither right nor wrong pairs."""

    def __init__(self, clip: CLIP) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, image: Tensor, ids: Tensor, same: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(B, 3, H, W) in [−1, 1], (B, T), (B, B) bool."""
        image_features = self.clip.encode_image(image).float()
        text_features = self.clip.encode_text(ids).float()
        loss = contrastive_loss(image_features, text_features, self.clip.logit_scale, same)
        return loss, {"logit_scale": self.clip.logit_scale.detach().exp()}


class CLIPTask:
    """CLIP on scenes. Table `[model]` of the recipe is CLIP's configuration; `[tokenizer]` holds `vocab_size`."""

    def __init__(self, recipe: dict[str, Any]) -> None:
        self.seed, self.batch_size = recipe["training"].get("seed", 0), recipe["training"]["batch_size"]
        self.tokenizer = train_tokenizer(recipe["tokenizer"]["vocab_size"])
        vocabulary = len(self.tokenizer)
        ids = {"vocab_size": vocabulary, "bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1}
        text = {**recipe["model"]["text_config"], **ids, "pad_token_id": vocabulary - 1}
        torch.manual_seed(self.seed)  # the first weights
        self.clip = CLIP(CLIPConfig.from_dict({**recipe["model"], "text_config": text}, "[model]"))
        self.objective = CLIPObjective(self.clip)
        self.scenes = Scenes(self.seed)

    def batch(self, step: int, rows: slice) -> dict[str, Tensor]:
        indices = range(step * self.batch_size, (step + 1) * self.batch_size)[rows]
        scenes = [self.scenes[index] for index in indices]
        ids = self.tokenizer([scene.caption for scene in scenes])  # (B, 77)
        # The mask is causal and the loss reads the first end-of-text token, so what comes after it changes nothing.
        ids = ids[:, : int((ids == ids[:, -1:]).int().argmax(dim=1).max()) + 1]
        image = to_unit(torch.stack([scene.image for scene in scenes]))
        return {"image": image, "ids": ids, "same": describes([scene.caption for scene in scenes], scenes)}

    def samples(self) -> None:
        return None

    def save(self, folder: Path) -> None:
        """Write `clip/` (both towers), `text_encoder/` (the text tower as SD has it) and `tokenizer/`."""
        state = self.clip.state_dict()
        save_part(folder / "clip", self.clip.config, state)
        text = {name: value for name, value in state.items() if name.startswith("text_model.")}
        save_part(folder / "text_encoder", self.clip.config.text_config, text)
        self.tokenizer.save(folder / "tokenizer")


def describes(captions: list[str], scenes: list[Any]) -> Tensor:
    """(B, B) bool: is caption j also true of scene i? One that leaves out the size or the colour fits many scenes."""
    true_of = [
        {caption(s.subject, color, size) for color in (None, s.color) for size in (None, s.size)} for s in scenes
    ]
    return torch.tensor([[text in texts for text in captions] for texts in true_of])
