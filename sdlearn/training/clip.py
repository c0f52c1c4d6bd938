"""Training CLIP: a text tower and an image tower that agree on which caption belongs to which scene."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather
from torch import Tensor, nn

from sdlearn.config import check_counts
from sdlearn.data import COLORS, SIZES, SUBJECTS, Scene, Scenes, caption
from sdlearn.models.clip import CLIP, CLIPConfig, contrastive_loss
from sdlearn.pictures import to_unit
from sdlearn.storage.folder import save_part
from sdlearn.tokenizer import train_bpe
from sdlearn.training.loop import TrainConfig, processes


@dataclass(frozen=True)
class TokenizerTable:
    """The `[tokenizer]` table."""

    vocab_size: int

    def __post_init__(self) -> None:
        check_counts(self, "vocab_size")


@dataclass(frozen=True)
class CLIPRecipe:
    """The tables of CLIP's recipe. The token ids in `[model]` are those of the tokenizer, which is trained first."""

    training: TrainConfig
    tokenizer: TokenizerTable
    model: CLIPConfig


def every_caption() -> list[str]:
    """All captions that a scene can have."""
    return [caption(subject, color, size) for subject in SUBJECTS for color in (None, *COLORS) for size in SIZES]


class GatheredRows(torch.autograd.Function):
    """The rows of all processes, in order: (B of one process, P) -> (B of all, P). Each computes the complete loss.

    So each has the complete gradient of its own rows. It is multiplied by the number of processes, since
    DistributedDataParallel takes the mean over the processes instead of the sum.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.count = len(rows)
        return gather(rows.contiguous())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        state = processes()
        first = state.process_index * ctx.count
        return state.num_processes * gradient[first : first + ctx.count]


class Towers(nn.Module):
    """Both of CLIP's towers in one call."""

    def __init__(self, clip: CLIP) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, image: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) in [−1, 1] and (B, T) -> the features of both, (B, P), and the logarithm of their scale."""
        return self.clip.encode_image(image), self.clip.encode_text(ids), self.clip.logit_scale


class CLIPTask:
    """CLIP on scenes, with a tokenizer trained on their captions."""

    def __init__(self, recipe: CLIPRecipe) -> None:
        self.seed, self.batch_size = recipe.training.seed, recipe.training.batch_size
        captions = every_caption()
        self.number = {text: number for number, text in enumerate(captions)}
        self.tokenizer = train_bpe(captions, recipe.tokenizer.vocab_size)
        vocabulary = len(self.tokenizer)
        ids = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1}
        text = replace(recipe.model.text_config, vocab_size=vocabulary, **ids)
        torch.manual_seed(self.seed)  # the first weights
        self.clip = CLIP(replace(recipe.model, text_config=text))
        self.network = Towers(self.clip)
        self.settings = {"tokenizer": asdict(recipe.tokenizer), "model": asdict(recipe.model)}
        self.scenes = Scenes(self.seed)

    def loss(self, towers: nn.Module, step: int, rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        """The contrastive loss: the pictures and captions of all processes are compared with each other.

        Captions that are true of a scene, but not its own, are neither correct nor wrong.
        """
        indices = range(step * self.batch_size, (step + 1) * self.batch_size)[rows]
        scenes = [self.scenes[index] for index in indices]
        image = to_unit(torch.stack([scene.image for scene in scenes]))  # (B, 3, H, W)
        ids = self.tokenizer([scene.caption for scene in scenes])  # (B, 77)
        # The mask is causal and the loss reads the first end-of-text token, so what comes after it changes nothing.
        ids = ids[:, : int((ids == ids[:, -1:]).int().argmax(dim=1).max()) + 1]
        said = torch.tensor([self.number[scene.caption] for scene in scenes])  # (B,)
        true = torch.tensor([[self.number[text] for text in true_captions(scene)] for scene in scenes])  # (B, 4)
        device = next(towers.parameters()).device
        image, ids, said, true = (value.to(device) for value in (image, ids, said, true))

        image_features, text_features, scale = towers(image, ids)  # (B, P), (B, P)
        image_features, text_features = GatheredRows.apply(image_features), GatheredRows.apply(text_features)
        same = (gather(true)[:, None] == gather(said)[:, None]).any(dim=-1)  # (B, B): is caption j true of scene i?
        loss = contrastive_loss(image_features, text_features, scale, same)
        return loss, {"logit_scale": scale.detach().exp()}

    def samples(self) -> None:
        return None

    def save(self, folder: Path) -> None:
        """Write `clip/` (both towers), `text_encoder/` (the text tower as SD has it) and `tokenizer/`."""
        state = self.clip.state_dict()
        save_part(folder / "clip", self.clip.config, state)
        text = {name: value for name, value in state.items() if name.startswith("text_model.")}
        save_part(folder / "text_encoder", self.clip.config.text_config, text)
        self.tokenizer.save(folder / "tokenizer")


def true_captions(scene: Scene) -> list[str]:
    """The four captions of a scene: each can leave out the size or the colour, and then fits other scenes too."""
    return [caption(scene.subject, color, size) for color in (None, scene.color) for size in (None, scene.size)]
