"""Teaching a model something new with few numbers: LoRA trains updates beside the weights, textual inversion a word.

Both are DreamBooth in all but what learns: see dreambooth.py in this folder.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdlearn.adapters.lora import attach, create
from sdlearn.adapters.textual_inversion import add_word
from sdlearn.config import check_count
from sdlearn.storage.lora import save_lora
from sdlearn.storage.textual_inversion import save_embedding
from sdlearn.training.dreambooth import DreamBoothRecipe, DreamBoothTask
from sdlearn.training.loop import generator_for


@dataclass(frozen=True)
class LoRATable:
    """The `[lora]` table: what `sdlearn.adapters.lora.create` takes. alpha is the rank if it is left out."""

    rank: int = 4
    alpha: float | None = None
    targets: tuple[str, ...] = ("attention",)

    def __post_init__(self) -> None:
        check_count("rank", self.rank, most=4096)
        if self.alpha is not None and not self.alpha > 0:
            raise ValueError(f"alpha must be above 0, not {self.alpha}")
        if not self.targets:
            raise ValueError("targets must name at least one kind of layer, such as 'attention'")


@dataclass(frozen=True, kw_only=True)
class LoRARecipe(DreamBoothRecipe):
    """The tables of a LoRA's recipe."""

    lora: LoRATable = LoRATable()

    def __post_init__(self) -> None:
        if self.model.text_encoder:
            raise ValueError('text_encoder = true is for DreamBooth; here, add "text" to the targets in [lora]')


class LoRATask(DreamBoothTask):
    """A LoRA: A and B of each layer learn, and the model's own weights stay as they are."""

    recipe: LoRARecipe

    def choose(self) -> None:
        table = self.recipe.lora
        self.settings["lora"] = asdict(table)
        self.lora = create(self.model, table.rank, table.alpha, table.targets, generator_for(self.seed, 0, purpose=3))
        attach(self.model, self.lora)

    def save(self, folder: Path) -> None:
        """Write `lora.safetensors`, in Diffusers' layout."""
        folder.mkdir(parents=True, exist_ok=True)
        save_lora(self.lora, folder / "lora.safetensors")


@dataclass(frozen=True)
class WordTable:
    """The `[word]` table: a new word, how many vectors it has, and the known words that they begin as."""

    word: str
    begins_as: str
    vectors: int = 1

    def __post_init__(self) -> None:
        check_count("vectors", self.vectors, most=75)  # as many tokens as a prompt has
        if not self.begins_as.strip():
            raise ValueError("begins_as must be a word, such as the class of what is learned")


@dataclass(frozen=True, kw_only=True)
class TextualInversionRecipe(DreamBoothRecipe):
    """The tables of a recipe for textual inversion."""

    word: WordTable

    def __post_init__(self) -> None:
        if self.model.text_encoder:
            raise ValueError("text_encoder = true is for DreamBooth; here only the word's vectors learn")
        if unsaid := [prompt for prompt in self.data.prompts if self.word.word.lower() not in prompt.lower()]:
            raise ValueError(f"the prompt {unsaid[0]!r} lacks the word {self.word.word!r}")


class NewRows(nn.Module):
    """An embedding whose last rows learn. No optimizer ever sees the others, so not even weight decay moves them."""

    def __init__(self, rows: Tensor, count: int) -> None:
        super().__init__()
        self.num_embeddings = len(rows)
        self.register_buffer("known", rows[:-count].detach().clone())  # (V, C)
        self.vectors = nn.Parameter(rows[-count:].detach().clone())  # (n, C)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, C)"""
        new = ids - len(self.known)  # below 0 for known tokens
        known = F.embedding(ids.clamp(max=len(self.known) - 1), self.known)
        return torch.where(new[..., None] < 0, known, F.embedding(new.clamp(min=0), self.vectors))


class TextualInversionTask(DreamBoothTask):
    """Textual inversion: the vectors of one new word learn, and nothing else does."""

    recipe: TextualInversionRecipe

    def choose(self) -> None:
        table, encoder = self.recipe.word, self.model.text_encoder
        self.settings["word"] = asdict(table)
        like = encoder.text_model.embeddings.token_embedding.weight[self.model.tokenizer.encode(table.begins_as)]
        add_word(self.model, table.word, like.mean(0).expand(table.vectors, -1))
        embeddings = encoder.text_model.embeddings
        embeddings.token_embedding = NewRows(embeddings.token_embedding.weight, table.vectors)

    def save(self, folder: Path) -> None:
        """Write `embedding.safetensors`, in Diffusers' layout."""
        folder.mkdir(parents=True, exist_ok=True)
        vectors = self.model.text_encoder.text_model.embeddings.token_embedding.vectors
        save_embedding(folder / "embedding.safetensors", self.recipe.word.word, vectors)
