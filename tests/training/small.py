"""Very small trainings, one of each kind, and what they leave."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from sdlearn.config import read_table
from sdlearn.data import Scenes
from sdlearn.files import write_json
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig
from sdlearn.models.text import TextConfig, TextEncoder
from sdlearn.storage.folder import save_part
from sdlearn.tokenizer import train_bpe
from sdlearn.training import autoencoder, diffusion
from sdlearn.training.autoencoder import AutoencoderRecipe, AutoencoderTask
from sdlearn.training.clip import CLIPRecipe, CLIPTask
from sdlearn.training.diffusion import DiffusionRecipe, DiffusionTask
from sdlearn.training.loop import Task, TrainConfig, generator_for


class LinearNetwork(nn.Module):
    """Wx + b. The dropout draws from the global generator, as a network may."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(5, 3), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.dropout(x))


class LinearTask:
    """The smallest thing that can be trained, with the loss (Wx + b − y)²."""

    def __init__(self, batch_size: int = 12, dropout: float = 0.0) -> None:
        self.batch_size = batch_size
        torch.manual_seed(0)  # the first weights
        self.network = LinearNetwork(dropout)
        self.settings: dict[str, Any] = {"model": {"inputs": 5, "sizes": (5, 3)}}
        self.truth = torch.randn(5, 3, generator=generator_for(0, 0, purpose=1))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        generator = generator_for(0, step)
        x = torch.randn(self.batch_size, 5, generator=generator)
        y = x @ self.truth + 0.1 * torch.randn(self.batch_size, 3, generator=generator)
        return x, y

    def loss(self, network: nn.Module, step: int, rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        x, y = self.batch(step)
        loss = (network(x[rows]) - y[rows]).square().mean()
        return loss, {"twice": 2 * loss.detach()}

    def samples(self) -> Tensor:
        return self.network.linear.weight.detach().expand(4, 3, 3, 5)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "linear.json", {"weight": self.network.linear.weight.tolist()})


LINEAR: dict[str, Any] = {"steps": 11, "batch_size": 12, "learning_rate": 0.1, "warmup_steps": 3, "decay_steps": 4}
LINEAR |= {"accumulation": 2, "log_every": 1, "checkpoint_every": 2, "sample_every": 5}
SMALL: dict[str, Any] = {"steps": 5, "batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 2}
SMALL |= {"log_every": 1, "checkpoint_every": 2}
CONTRASTIVE = SMALL | {"batch_size": 12, "accumulation": 2}
TOWER = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
CLIP = {"projection_dim": 6, "text_config": TOWER, "vision_config": TOWER | {"image_size": 64, "patch_size": 16}}
AUTOENCODER = {"block_out_channels": [8, 8, 8], "layers_per_block": 1, "norm_num_groups": 4}
AUTOENCODER |= {"sample_size": 64, "mid_block_add_attention": False}
UNET = {"sample_size": 16, "block_out_channels": [8, 16], "layers_per_block": 1, "cross_attention_dim": 8}
UNET |= {"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "attention_head_dim": 2, "norm_num_groups": 4}
UNET |= {"up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]}


@contextmanager
def few_scenes_and_samples() -> Iterator[None]:
    """At the end of a training: 16 scenes, not 1024, measure the latents' scale, and 2 prompts, not 16, are drawn."""
    measure = partial(autoencoder.measure_scaling_factor, count=16)
    with (
        patch.object(autoencoder, "measure_scaling_factor", measure),
        patch.object(diffusion, "SAMPLE_PROMPTS", diffusion.SAMPLE_PROMPTS[:2]),
    ):
        yield


def make_parts(folder: Path) -> None:
    """Random parts for the diffusion task to stand on."""
    torch.manual_seed(0)
    tokenizer = train_bpe(["a small red apple on a blue background"], 540)
    tokenizer.save(folder / "tokenizer")
    text_config = TextConfig(vocab_size=len(tokenizer), eos_token_id=len(tokenizer) - 1, **TOWER)
    save_part(folder / "text_encoder", text_config, TextEncoder(text_config).state_dict())
    config = AutoencoderConfig.from_dict(AUTOENCODER)
    save_part(folder / "vae", config, Autoencoder(config).state_dict())


def make(kind: str, root: Path, folder: Path, **changes: dict[str, Any]) -> tuple[Task, TrainConfig]:
    """A task and how to train it. For "diffusion" there must be `make_parts(root / "parts")`.

    changes: values of the recipe's tables, in place of the usual ones.
    """
    if kind == "linear":
        return LinearTask(LINEAR["batch_size"], dropout=0.5), TrainConfig(**LINEAR | changes.get("training", {}))
    tables: dict[str, dict[str, Any]] = {
        "clip": {"training": CONTRASTIVE, "tokenizer": {"vocab_size": 540}, "model": CLIP},
        "autoencoder": {"training": SMALL, "loss": {"kl_weight": 1e-3}, "model": AUTOENCODER},
        "diffusion": {
            "training": SMALL,
            "model": UNET,
            "schedule": {"prediction_type": "v_prediction"},
            "parts": {"clip": str(root / "parts"), "autoencoder": str(root / "parts")},
            "data": {"pool_size": 6, "caption_dropout": 0.3},
        },
    }[kind]
    tables = {name: tables.get(name, {}) | changes.get(name, {}) for name in tables | changes}
    kinds = {"clip": CLIPRecipe, "autoencoder": AutoencoderRecipe, "diffusion": DiffusionRecipe}
    recipe = read_table(kinds[kind], tables, kind)
    if kind == "clip":
        task = CLIPTask(recipe)
        task.scenes = Scenes(subjects=("cat", "owl"))  # equal captions in nearly every batch
    else:
        task = AutoencoderTask(recipe) if kind == "autoencoder" else DiffusionTask(recipe, folder)
    return task, recipe.training


def read_log(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def load(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def assert_same(ours: Any, expected: Any, where: str = "checkpoint") -> None:
    """Equal to the last bit, all the way down."""
    assert type(ours) is type(expected), where
    if isinstance(expected, Tensor):
        assert torch.equal(ours, expected), where
    elif isinstance(expected, dict):
        assert ours.keys() == expected.keys(), where
        for key in expected:
            assert_same(ours[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(ours) == len(expected), where
        for i, (one, other) in enumerate(zip(ours, expected, strict=True)):
            assert_same(one, other, f"{where}[{i}]")
    else:
        assert ours == expected, where


def assert_same_end(folder: Path, expected: Path) -> None:
    """Two runs left the same: checkpoint, model and pictures to the last bit, and the log but for the speed."""
    assert_same(load(folder), load(expected))
    assert not list(folder.rglob("*.partial"))
    for file in [*(expected / "model").rglob("*"), *(expected / "samples").glob("*")]:
        if file.is_file():
            assert (folder / file.relative_to(expected)).read_bytes() == file.read_bytes(), file
    rows, expected_rows = read_log(folder), read_log(expected)
    for row in rows + expected_rows:
        del row["images_per_second"]
    assert rows == expected_rows
