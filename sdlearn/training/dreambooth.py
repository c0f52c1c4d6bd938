"""DreamBooth: a model learns a thing or a style from a few pictures, under a word that meant nothing before.

All weights of the UNet learn, and those of the text encoder if the recipe says so. adapters.py in this folder teaches
the same with fewer numbers: LoRA, textual inversion.

Source: "DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation" (arXiv 2208.12242).
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from tqdm.auto import tqdm

from sdlearn.config import check_count
from sdlearn.data import ImageFolder, Scenes
from sdlearn.diffusion.samplers import last
from sdlearn.diffusion.schedule import Schedule
from sdlearn.files import atomic_write
from sdlearn.models.attention import SpatialTransformer
from sdlearn.models.blocks import ResnetBlock
from sdlearn.pictures import to_unit
from sdlearn.pipeline import StableDiffusion
from sdlearn.storage.load import BUNDLED, load
from sdlearn.storage.save import save
from sdlearn.training.checkpoint import check_recipe
from sdlearn.training.diffusion import fits
from sdlearn.training.loop import TrainConfig, checksum, generator_for, processes

FEWEST = 3  # pictures: with fewer, the model learns the picture and not the thing
CAPTION = "{caption}"  # in a prompt of a recipe: the picture's own caption


@dataclass(frozen=True)
class SubjectModel:
    """The `[model]` table: the model that learns (a folder, file or hub name; the bundled one if it's left out).

    With `gradient_checkpointing` the blocks of the UNet are computed twice, and what they compute isn't kept: it needs
    less memory, and a third more time.
    """

    source: str | None = None
    text_encoder: bool = False  # does it learn as well?
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class SubjectData:
    """The `[data]` table: what is learned, and what must not be forgotten.

    The pictures are those in `folder`, the user's own, or the first `pictures` scenes with OpenMoji's `subjects`, drawn
    in a `style`, "color" or "line". Each is shown with one of `prompts`, in which {caption} stands for its own caption.

    For prior preservation the model draws `class_pictures` with the `class_prompts` before it learns. They are shown
    beside the pictures, and their part of the loss has the weight `prior_weight`.
    """

    prompts: tuple[str, ...]
    folder: str | None = None
    subjects: tuple[str, ...] | None = None
    pictures: int = 5
    style: str = "color"
    class_prompts: tuple[str, ...] = ()
    class_pictures: int = 0
    prior_weight: float = 1.0
    samples: tuple[str, ...] = ()  # what the sheets of samples show; the prompts if it's left out

    def __post_init__(self) -> None:
        if (self.folder is None) == (self.subjects is None):
            raise ValueError("there must be either folder or subjects")
        if not self.prompts or not all(prompt.strip() for prompt in self.prompts):
            raise ValueError(f"prompts = {self.prompts!r}: at least one is needed, and none may be empty")
        check_count("pictures", self.pictures, least=FEWEST)
        check_count("class_pictures", self.class_pictures, least=0)
        if bool(self.class_prompts) != bool(self.class_pictures):
            raise ValueError("class_prompts and class_pictures belong together: give both, or neither")
        if not self.prior_weight >= 0:
            raise ValueError(f"prior_weight must be at least 0, not {self.prior_weight}")


@dataclass(frozen=True, kw_only=True)
class DreamBoothRecipe:
    """The tables of a recipe that teaches a model something new. The recipes of adapters have one more."""

    training: TrainConfig
    data: SubjectData
    model: SubjectModel = field(default_factory=SubjectModel)


def dreambooth_loss(
    predict: Callable[[Tensor, Tensor], Tensor],
    latents: Tensor,
    noise: Tensor,
    t: Tensor,
    schedule: Schedule,
    prior_weight: float | None = None,
) -> Tensor:
    """(target − prediction)² with prior preservation. DreamBooth, section 3.3.

    latents and noise (B, C, H, W), t a LongTensor (B,). The first half of the batch shows what is new; the second shows
    what the model drew before it learned, and counts `prior_weight` times. With None all of it is new.
    predict(x, t) returns the prediction (B, C, H, W).
    """
    x = schedule.add_noise(latents, noise, t)
    errors = (schedule.target(latents, noise, t) - predict(x, t)).square()  # (B, C, H, W)
    if prior_weight is None:
        return errors.mean()
    new, known = errors.chunk(2)
    return new.mean() + prior_weight * known.mean()


class Prompted(nn.Module):
    """Text encoder and UNet as one network, which reads prompts as token ids (B, T)."""

    def __init__(self, text_encoder: nn.Module, unet: nn.Module) -> None:
        super().__init__()
        self.text_encoder, self.unet = text_encoder, unet

    def forward(self, x: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        return self.unet(x, t, self.text_encoder(ids))


class DreamBoothTask:
    """A model and a few pictures of something that it has never seen.

    Latents of the pictures, and of the class pictures, are made once and stored in `folder`; `progress` shows bars.

    Raises:
        FileNotFoundError: the model or the folder of pictures doesn't exist.
        ValueError: there are too few pictures, some can't be read, or a subject is unknown.
    """

    def __init__(self, recipe: DreamBoothRecipe, folder: Path, progress: bool = True) -> None:
        self.recipe, self.progress = recipe, progress
        self.seed, self.batch_size = recipe.training.seed, recipe.training.batch_size
        self.model = load(recipe.model.source or BUNDLED, dtype=torch.float32)
        images, self.prompts = read_pictures(recipe.data, self.model.defaults.height, self.seed)
        source = fingerprint(self.model, recipe.data, images, self.seed)
        self.settings: dict[str, Any] = {"model": asdict(recipe.model), "data": asdict(recipe.data)}
        self.settings |= {"checksum of model and pictures": source[:12]}
        check_recipe({"training": asdict(recipe.training)} | self.settings, folder)
        self.latents, self.class_latents = self.load_latents(folder / "latents.safetensors", images, source)
        self.choose()
        self.network = Prompted(self.model.text_encoder, self.model.unet)
        if recipe.model.gradient_checkpointing:
            checkpoint_blocks(self.model.unet)

    def choose(self) -> None:
        """Decide what learns: nothing does until it is told to."""
        self.model.unet.requires_grad_(True)
        self.model.text_encoder.requires_grad_(self.recipe.model.text_encoder)

    def load_latents(self, file: Path, images: Tensor, source: str) -> tuple[Tensor, Tensor]:
        """Read the stored latents. If there are none from this source, one process makes them; the others wait."""
        with processes().main_process_first():
            if not fits(file, source):
                stored = {"pictures": encode(self.model, images, self.seed)}
                stored["class"] = draw_class(self.model, self.recipe.data, self.seed, self.progress)
                file.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(file) as temporary:
                    save_file(stored, temporary, {"source": source})
        stored = load_file(file)
        return stored["pictures"], stored["class"]

    def loss(self, network: nn.Module, step: int, rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        """`dreambooth_loss` at random times. A row is a picture and, with prior preservation, a class picture."""
        data, generator, count = self.recipe.data, generator_for(self.seed, step), self.batch_size
        latents, prompts = pick(self.latents, self.prompts, count, generator)
        latents, prompts = latents[rows], prompts[rows]
        halves = 2 if len(self.class_latents) else 1
        if halves == 2:
            known, said = pick(self.class_latents, [data.class_prompts] * len(self.class_latents), count, generator)
            latents, prompts = torch.cat([latents, known[rows]]), prompts + said[rows]
        t = torch.randint(self.model.schedule.config.num_train_timesteps, (halves, count), generator=generator)
        noise = torch.randn((halves, count, *latents.shape[1:]), generator=generator)
        t, noise = t[:, rows].flatten(), noise[:, rows].flatten(0, 1)
        device = self.model.device
        latents, noise, t, ids = (one.to(device) for one in (latents, noise, t, self.model.tokenizer(prompts)))
        prior_weight = data.prior_weight if halves == 2 else None
        predict = lambda x, t: network(x, t, ids).float()  # noqa: E731
        return dreambooth_loss(predict, latents, noise, t, self.model.schedule, prior_weight), {}

    def samples(self) -> Tensor:
        self.model.to(self.model.device)  # the autoencoder too
        prompts = list(self.recipe.data.samples or self.recipe.data.prompts)
        return self.model.decode(last(self.model.sample(prompts, seed=0))).cpu()

    def save(self, folder: Path) -> None:
        """Write the whole model, a folder in the Diffusers layout."""
        save(self.model, folder)


def read_pictures(data: SubjectData, side: int, seed: int) -> tuple[Tensor, list[tuple[str, ...]]]:
    """The pictures (N, 3, side, side) uint8, and for each the prompts that it may be shown with."""
    own = any(CAPTION in prompt for prompt in data.prompts)
    if data.folder is not None:
        pictures = list(ImageFolder(data.folder, side, caption=None if own else ""))
    else:
        scenes = Scenes(seed, size=side, subjects=data.subjects, style=data.style)
        pictures = [scenes[index] for index in range(data.pictures)]
    if len(pictures) < FEWEST:
        raise ValueError(f"{data.folder} holds {len(pictures)} pictures; at least {FEWEST} are needed")
    prompts = [tuple(prompt.replace(CAPTION, one.caption) for prompt in data.prompts) for one in pictures]
    return torch.stack([one.image for one in pictures]), prompts


def fingerprint(model: StableDiffusion, data: SubjectData, images: Tensor, seed: int) -> str:
    """A checksum of everything that the latents depend on."""
    weights = [checksum(network) for network in model.networks]
    described = [weights, hashlib.sha256(images.numpy()).hexdigest(), data.class_prompts, data.class_pictures, seed]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


@torch.no_grad()
def encode(model: StableDiffusion, images: Tensor, seed: int) -> Tensor:
    """The latents of pictures (N, 3, H, W) uint8, each a random sample of what the autoencoder says. -> (N, C, h, w)"""
    generators = [generator_for(seed, index, purpose=1) for index in range(len(images))]
    pairs = zip(to_unit(images).split(1), generators, strict=True)  # one by one: large pictures need much memory
    return torch.cat([model.encode(picture, generator) for picture, generator in pairs])


@torch.no_grad()
def draw_class(model: StableDiffusion, data: SubjectData, seed: int, progress: bool) -> Tensor:
    """What the model draws of the class: latents (class_pictures, C, h, w). A prompt each, in turn."""
    count = data.class_pictures
    prompts = [data.class_prompts[index % len(data.class_prompts)] for index in range(count)]
    side, channels = model.unet.config.sample_size, model.autoencoder.config.latent_channels
    latents = [torch.empty(0, channels, side, side)]
    for first in tqdm(range(0, count, 8), desc="drawing the class", leave=False, disable=not progress or not count):
        latents.append(last(model.sample(prompts[first : first + 8], seed=seed + first)))
    return torch.cat(latents)


def pick(
    latents: Tensor, prompts: list[tuple[str, ...]], count: int, generator: torch.Generator
) -> tuple[Tensor, list[str]]:
    """`count` random pictures (count, C, H, W), each with one of its prompts."""
    index = torch.randint(len(latents), (count,), generator=generator).tolist()
    which = torch.rand(count, generator=generator).tolist()
    return latents[index], [prompts[i][int(share * len(prompts[i]))] for i, share in zip(index, which, strict=True)]


def checkpoint_blocks(unet: nn.Module) -> None:
    """Let the blocks of a UNet forget what they computed: it is computed again when the gradients need it."""
    for block in unet.modules():
        if isinstance(block, ResnetBlock | SpatialTransformer):
            block.forward = Forgetful(block.forward)


class Forgetful:
    """A function whose results are kept, but nothing on the way to them. arXiv 1604.06174."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function

    def __call__(self, *inputs: Tensor) -> Tensor:
        return checkpoint(self.function, *inputs, use_reentrant=False)
