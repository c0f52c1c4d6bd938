"""The judge: names what a picture shows, so that a generator can be scored.

It is a small classifier that has seen real scenes only, and shares no weights with what it judges. Its last hidden
layer gives the features of the Fréchet distance. The background's colour needs no network: it is measured.
"""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from sdlearn.data import COLORS, SIZES, SUBJECTS, Scenes
from sdlearn.data.openmoji import cache_folder, find_subject
from sdlearn.data.scenes import JITTER
from sdlearn.files import atomic_write
from sdlearn.pictures import to_unit

FRAME = 2  # pixels at each edge of a picture that count as its background


@dataclass(frozen=True)
class JudgeConfig:
    """How the judge is built and trained. Each setting has its own cached file."""

    seed: int = 0
    widths: tuple[int, ...] = (24, 48, 96, 192)
    features: int = 64  # few, so that a few hundred pictures give a good estimate of the covariance
    steps: int = 500
    batch_size: int = 96
    learning_rate: float = 4e-3
    augmentation: int = 1  # counted up when `augment` changes; 0 is none


class Judge(nn.Module):
    """Convolutions of stride 2, the mean over the remaining pixels, the features, a number for each subject."""

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        blocks, channels = [], 3
        for width in config.widths:
            blocks += [nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.to_features = nn.Sequential(nn.Linear(channels, config.features), nn.BatchNorm1d(config.features))
        self.to_subject = nn.Linear(config.features, len(SUBJECTS))

    def features(self, pictures: Tensor) -> Tensor:
        """(B, 3, 64, 64) in [−1, 1] -> (B, features)."""
        hidden = self.blocks(pictures)  # (B, 192, 4, 4)
        return self.to_features(hidden.mean(dim=(2, 3)))

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 3, 64, 64) in [−1, 1] -> (B, subjects): logits in the order of `sdlearn.data.SUBJECTS`."""
        return self.to_subject(F.relu(self.features(pictures)))


def augment(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Move, scale, recolour, blur or sharpen, and add noise: what a generator can do without changing the subject.

    (B, 3, H, W) in [−1, 1] -> the same shape, not clipped. Each picture is changed by different random amounts.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(len(pictures), *shape, generator=generator)

    affine = torch.zeros(len(pictures), 2, 3)
    scale = uniform(0.9, 1.15)
    affine[:, 0, 0] = affine[:, 1, 1] = scale
    affine[:, :, 2] = uniform(-0.1, 0.1, 2)  # of half the width: 3 pixels of 64
    grid = F.affine_grid(affine, list(pictures.shape), align_corners=False)
    pictures = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)

    blurred = pictures
    for _ in range(2):
        blurred = F.avg_pool2d(blurred, 3, stride=1, padding=1, count_include_pad=False)
    pictures = pictures.lerp(blurred, uniform(-0.4, 1.0, 1, 1, 1))

    pictures = pictures * uniform(0.8, 1.2, 3, 1, 1) + uniform(-0.15, 0.15, 3, 1, 1)
    return pictures + uniform(0.0, 0.12, 1, 1, 1) * torch.randn(pictures.shape, generator=generator)


def train_judge(config: JudgeConfig, progress: bool = True) -> tuple[Judge, list[float]]:
    """Train a judge on the training split of the scenes. Returns it in evaluation mode, and the loss of each step.

    On one machine with one number of threads the same settings give the same bits. Raises RuntimeError when the
    packages that draw scenes are missing.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # the first weights
        judge = Judge(config).to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(config.seed)
    number = {subject: i for i, subject in enumerate(SUBJECTS)}
    scenes = Scenes(config.seed)
    optimizer = torch.optim.AdamW(judge.parameters(), config.learning_rate, weight_decay=0.02)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, config.steps, pct_start=0.15)
    losses = []
    for step in tqdm(range(config.steps), desc="training the judge (once)", unit="step", disable=not progress):
        batch = [scenes[i] for i in range(step * config.batch_size, (step + 1) * config.batch_size)]
        pictures = to_unit(torch.stack([scene.image for scene in batch]))
        labels = torch.tensor([number[scene.subject] for scene in batch])
        pictures = augment(pictures, generator) if config.augmentation else pictures
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(judge(pictures), labels, label_smoothing=0.05)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
        losses.append(loss.item())
    return judge.eval().requires_grad_(False), losses


def load_judge(config: JudgeConfig | None = None, progress: bool = True) -> Judge:
    """The judge for these settings, from the cache folder; the first time it is trained (minutes) and kept there.

    Raises RuntimeError when it must be trained and the packages that draw scenes are missing.
    """
    config = config or JudgeConfig()
    file = judge_file(config)
    if file.exists():
        judge = Judge(config)
        try:
            judge.load_state_dict(load_file(file))
            return judge.eval().requires_grad_(False)
        except (SafetensorError, RuntimeError, OSError) as error:
            warnings.warn(f"{file} is damaged ({error}); the judge is trained anew", stacklevel=2)
    judge, _ = train_judge(config, progress)
    try:
        _write(file, judge.state_dict())
    except OSError as error:  # a read-only home only means training again next time
        warnings.warn(f"can't keep the judge in {file}: {error}", stacklevel=2)
    return judge


def judge_file(config: JudgeConfig) -> Path:
    """Where the judge for these settings is kept: its name depends on the settings and on what the scenes show."""
    key = [config, COLORS, SIZES, JITTER, *(find_subject(subject) for subject in SUBJECTS)]
    return cache_folder() / f"judge-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.safetensors"


def _write(file: Path, state: dict[str, Tensor]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary:  # two runs might train it at the same time
        save_file({name: value.contiguous() for name, value in state.items()}, temporary)


@torch.no_grad()
def judge_pictures(judge: Judge, pictures: Tensor, batch_size: int = 128) -> tuple[list[str], Tensor]:
    """What the judge sees in pictures (B, 3, 64, 64) uint8: the subjects' names, and the features (B, features).

    Raises ValueError for pictures of another shape or type.
    """
    _check(pictures)
    if pictures.shape[2:] != (64, 64):
        raise ValueError(f"the judge can't judge pictures of {tuple(pictures.shape[2:])} pixels; accepted: (64, 64)")
    features = torch.cat([judge.features(to_unit(part)) for part in pictures.split(batch_size)])
    best = judge.to_subject(F.relu(features)).argmax(dim=1)
    return [SUBJECTS[i] for i in best.tolist()], features


def background_colors(pictures: Tensor) -> list[str]:
    """The background of each picture (B, 3, H, W) uint8: the name in `COLORS` that is nearest (in RGB) to the median,
    channel by channel, of the pixels in a frame 2 pixels wide along the edges.

    Raises ValueError for pictures of another shape or type.
    """
    _check(pictures)
    inside = torch.zeros(pictures.shape[2:], dtype=torch.bool)
    inside[FRAME:-FRAME, FRAME:-FRAME] = True
    median = pictures[:, :, ~inside].float().median(dim=2).values  # (B, 3, P) -> (B, 3)
    nearest = torch.cdist(median, torch.tensor(list(COLORS.values())).float()).argmin(dim=1)
    return [tuple(COLORS)[i] for i in nearest.tolist()]


def _check(pictures: Tensor) -> None:
    if pictures.ndim != 4 or pictures.shape[1] != 3 or pictures.dtype != torch.uint8:
        raise ValueError(f"pictures of {tuple(pictures.shape)} {pictures.dtype}; accepted: (B, 3, H, W) torch.uint8")
