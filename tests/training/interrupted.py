"""Very small trainings, and processes that are killed in the middle of them.

`python interrupted.py FOLDER` starts, in FOLDER, the run of every scenario in KILLED, which ends by SIGKILL.
"""

import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sdlearn.training.loop as loop
from sdlearn.checkpoints import save_part, write_json
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig
from sdlearn.models.text import TextConfig, TextEncoder
from sdlearn.models.unet import UNetConfig
from sdlearn.tokenizer import train_bpe
from sdlearn.training.autoencoder import AutoencoderTask
from sdlearn.training.diffusion import DiffusionTask
from sdlearn.training.loop import Task, TrainConfig, generator_for, train


class LinearObjective(nn.Module):
    """(Wx + b − y)². The dropout draws from the global generator, as a network may."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(5, 3), nn.Dropout(dropout)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = (self.linear(self.dropout(x)) - y).square().mean()
        return loss, {"twice": 2 * loss.detach()}


class LinearTask:
    """The smallest thing that can be trained."""

    def __init__(self, batch_size: int = 12, dropout: float = 0.0) -> None:
        self.batch_size = batch_size
        torch.manual_seed(0)  # the first weights
        self.objective = LinearObjective(dropout)
        self.truth = torch.randn(5, 3, generator=generator_for(0, 0, purpose=1))

    def batch(self, step: int, rows: slice) -> dict[str, Tensor]:
        generator = generator_for(0, step)
        x = torch.randn(self.batch_size, 5, generator=generator)
        y = x @ self.truth + 0.1 * torch.randn(self.batch_size, 3, generator=generator)
        return {"x": x[rows], "y": y[rows]}

    def samples(self) -> Tensor:
        return self.objective.linear.weight.detach().expand(4, 3, 3, 5)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "linear.json", {"weight": self.objective.linear.weight.tolist()})


LINEAR: dict[str, Any] = {"steps": 11, "batch_size": 12, "learning_rate": 0.1, "warmup_steps": 3, "decay_steps": 4}
LINEAR |= {"accumulation": 2, "log_every": 1, "checkpoint_every": 2, "sample_every": 5}
SMALL: dict[str, Any] = {"steps": 5, "batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 2}
SMALL |= {"log_every": 1, "checkpoint_every": 2}
AUTOENCODER = {"block_out_channels": [8, 8, 8], "layers_per_block": 1, "norm_num_groups": 4}
AUTOENCODER |= {"sample_size": 64, "mid_block_add_attention": False}
UNET = {"sample_size": 16, "block_out_channels": [8, 16], "layers_per_block": 1, "cross_attention_dim": 8}
UNET |= {"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "attention_head_dim": 2, "norm_num_groups": 4}
UNET |= {"up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]}


def make_parts(folder: Path) -> None:
    """Random parts for the diffusion task to stand on."""
    torch.manual_seed(0)
    tokenizer = train_bpe(["a small red apple on a blue background"], 540)
    tokenizer.save(folder / "tokenizer")
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    text_config = TextConfig(vocab_size=len(tokenizer), eos_token_id=len(tokenizer) - 1, **text)
    save_part(folder / "text_encoder", text_config, TextEncoder(text_config).state_dict())
    config = AutoencoderConfig.from_dict(AUTOENCODER)
    save_part(folder / "vae", config, Autoencoder(config).state_dict())


def make(kind: str, root: Path, folder: Path) -> tuple[Task, TrainConfig]:
    """A task and how to train it."""
    if kind == "linear":
        return LinearTask(LINEAR["batch_size"], dropout=0.5), TrainConfig(**LINEAR)
    recipe: dict[str, Any] = {"training": SMALL, "loss": {"kl_weight": 1e-3}, "model": AUTOENCODER}
    if kind == "autoencoder":
        return AutoencoderTask(recipe), TrainConfig(**SMALL)
    recipe |= {"model": UNetConfig(**{k: _tuple(v) for k, v in UNET.items()}).to_dict(), "loss": {"snr_gamma": 5.0}}
    recipe |= {"parts": {"clip": str(root / "parts"), "autoencoder": str(root / "parts")}}
    recipe |= {"data": {"pool_size": 6, "caption_dropout": 0.3}, "schedule": {"prediction_type": "v_prediction"}}
    return DiffusionTask(recipe, folder), TrainConfig(**SMALL)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_step(kind: str, step: int) -> Callable[[Path, Path], None]:
    """Dies when the batch of this step, counted from 0, is asked for."""

    def run(root: Path, folder: Path) -> None:
        task, config = make(kind, root, folder)
        batch = task.batch
        task.batch = lambda now, rows: die() if now == step else batch(now, rows)
        train(task, config, folder, progress=False)

    return run


def in_checkpoint(kind: str, step: int) -> Callable[[Path, Path], None]:
    """Dies when half of the checkpoint of this step is written."""

    def run(root: Path, folder: Path) -> None:
        task, config = make(kind, root, folder)
        save = torch.save

        def save_half(state: dict[str, Any], stream: io.BufferedWriter) -> None:
            whole = io.BytesIO()
            save(state, whole)
            stream.write(whole.getvalue()[: len(whole.getvalue()) // 2 if state["step"] == step else None])
            if state["step"] == step:
                stream.flush()
                die()

        loop.torch.save = save_half
        train(task, config, folder, progress=False)

    return run


# name: what is trained, how it dies, the step of the checkpoint that it leaves
KILLED: dict[str, tuple[str, Callable[[Path, Path], None], int]] = {
    "before the first checkpoint": ("linear", in_step("linear", 1), 0),
    "in a step": ("linear", in_step("linear", 7), 6),
    "while a checkpoint is written": ("linear", in_checkpoint("linear", 8), 6),
    "autoencoder": ("autoencoder", in_step("autoencoder", 3), 2),
    "diffusion": ("diffusion", in_step("diffusion", 3), 2),
}


def main(root: Path) -> None:
    """Each run is a process of its own, forked since starting PyTorch takes seconds. Prints what they died of."""
    torch.set_num_threads(1)
    died = {}
    for name, (_, run, _) in KILLED.items():
        child = os.fork()
        if child == 0:
            run(root, root / name)
            os._exit(0)
        died[name] = os.WTERMSIG(os.waitpid(child, 0)[1])
    print(json.dumps(died))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
