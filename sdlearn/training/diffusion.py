"""Training the UNet: predict the noise, or v, in the latents of scenes, given the time and the caption."""

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from sdlearn.config import check_counts
from sdlearn.data import COLORS, SIZES, SUBJECTS, ImageFolder, Scenes
from sdlearn.data.scenes import DROP, JITTER
from sdlearn.diffusion.guidance import Condition, drop_captions, guide
from sdlearn.diffusion.samplers import draw_noise, get_sampler, last
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.files import atomic_write, write_json
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig
from sdlearn.models.text import TextConfig, TextEncoder
from sdlearn.models.unet import UNet, UNetConfig
from sdlearn.paths import expand
from sdlearn.pictures import to_unit
from sdlearn.pipeline import decode_latents, encode_pictures
from sdlearn.storage.folder import load_part, save_part
from sdlearn.tokenizer import Tokenizer
from sdlearn.training.attention import OpenAttention
from sdlearn.training.checkpoint import check_recipe
from sdlearn.training.loop import TrainConfig, checksum, generator_for, processes

SAMPLE_PROMPTS = (
    "a cat on a blue background",
    "a large red apple on a white background",
    "a small owl on a pink background",
    "a guitar on a yellow background",
    "a penguin on an orange background",
    "a large sailboat on a purple background",
    "a cactus on a gray background",
    "a small bicycle on a green background",
    "a frog on a red background",
    "a large fox on a brown background",
    "a castle on a yellow background",
    "a pineapple on a pink background",
    "a large butterfly on a white background",
    "a key on a green background",
    "a rocket on a blue background",
    "a small tiger on an orange background",
)


@dataclass(frozen=True)
class DiffusionParts:
    """The `[parts]` table: folders with a trained `text_encoder/` and `vae/`; `init`, a model folder with a `unet/`."""

    clip: str
    autoencoder: str
    init: str | None = None


@dataclass(frozen=True)
class DiffusionData:
    """The `[data]` table: what fraction of the pictures loses its caption, and which pictures there are.

    They are either the first `pool_size` scenes, or those in `folder`, the user's own, as `ImageFolder` reads them.
    """

    caption_dropout: float
    pool_size: int | None = None
    folder: str | None = None

    def __post_init__(self) -> None:
        if (self.pool_size is None) == (self.folder is None):
            raise ValueError("there must be either pool_size or folder")
        if self.pool_size is not None:
            check_counts(self, "pool_size")
        if not 0 <= self.caption_dropout <= 1:
            raise ValueError(f"caption_dropout must be from 0 to 1, not {self.caption_dropout}")


@dataclass(frozen=True)
class DiffusionRecipe:
    """The tables of a UNet's recipe. `[model]` is left out if `[parts]` has an `init`."""

    training: TrainConfig
    parts: DiffusionParts
    schedule: ScheduleConfig
    data: DiffusionData
    model: UNetConfig | None = None

    def __post_init__(self) -> None:
        if (self.model is None) == (self.parts.init is None):
            raise ValueError("there must be either a table model, or init in parts")


@dataclass(frozen=True)
class Pool:
    """Pictures that were encoded once, so that no training step waits for the autoencoder or the text encoder."""

    latents: Tensor  # (N, C, H, W) float16, scaled to unit standard deviation
    caption: Tensor  # (N,) which row of `context` belongs to a picture
    context: Tensor  # (captions, T, C) float16; row 0 is the empty caption


@torch.no_grad()
def make_pool(
    autoencoder: Autoencoder,
    text_encoder: TextEncoder,
    tokenizer: Tokenizer,
    pictures: Scenes | ImageFolder,
    size: int,
    seed: int,
    progress: bool = True,
) -> Pool:
    """Encode the first `size` pictures, and each different caption once. `progress` shows a bar."""
    rows: dict[str, int] = {"": 0}
    latents, captions = [], []
    for first in tqdm(range(0, size, 64), desc="encoding pictures", leave=False, disable=not progress):
        batch = [pictures[index] for index in range(first, min(size, first + 64))]
        images = to_unit(torch.stack([one.image for one in batch]))
        latents.append(encode_pictures(autoencoder, images, generator_for(seed, first, purpose=1)).half())
        captions += [rows.setdefault(one.caption, len(rows)) for one in batch]
    texts = list(rows)
    context = [text_encoder(tokenizer(texts[first : first + 256])).half() for first in range(0, len(texts), 256)]
    return Pool(torch.cat(latents), torch.tensor(captions), torch.cat(context))


def fingerprint(
    autoencoder: Autoencoder,
    text_encoder: TextEncoder,
    tokenizer: Tokenizer,
    pictures: ImageFolder | None,
    size: int,
    seed: int,
) -> str:
    """A checksum of everything that a pool depends on: networks, words, pictures. It is stored with the pool.

    pictures: the user's own; None for scenes.
    """
    described = [size, seed, SUBJECTS, COLORS, SIZES, JITTER, DROP]
    if pictures is not None:
        described = [seed, *([one.caption, hashlib.sha256(one.image.numpy()).hexdigest()] for one in pictures)]
    configs = [autoencoder.config.to_dict(), text_encoder.config.to_dict(), tokenizer.merges]
    weights = [checksum(network) for network in (autoencoder.encoder, autoencoder.quant_conv, text_encoder)]
    return hashlib.sha256(json.dumps(described + configs + weights).encode()).hexdigest()


def fits(file: Path, source: str) -> bool:
    """Was this pool made from that source? Warns if it exists and wasn't."""
    if not file.exists():
        return False
    try:
        with safe_open(file, framework="pt") as pool:
            stored = (pool.metadata() or {}).get("source")
    except SafetensorError as error:
        warnings.warn(f"{file} is damaged ({error}); it is rebuilt", stacklevel=2)
        return False
    if stored != source:
        warnings.warn(f"{file} was made from other networks, pictures or settings; it is rebuilt", stacklevel=2)
    return stored == source


def latent_loss(
    unet: Callable[[Tensor, Tensor, Tensor], Tensor],
    latents: Tensor,
    context: Tensor,
    noise: Tensor,
    t: Tensor,
    schedule: Schedule,
) -> Tensor:
    """The mean of (target - prediction)², which a UNet learns with. DDPM, eq. 14, in latents.

    latents and noise (B, C, H, W), t a LongTensor (B,). context (B, T, K): the captions, as
    the text encoder reads them. unet(x, t, context) returns the prediction (B, C, H, W).
    """
    x = schedule.add_noise(latents, noise, t)
    target = schedule.target(latents, noise, t)  # the noise, x_0 or v
    return (unet(x, t, context) - target).square().mean()


class DiffusionTask:
    """The UNet on pictures, with a trained autoencoder and text encoder that stay as they are.

    The recipe's `[parts]` names the folders that hold them. The UNet is new, as `[model]` says, or that of the folder
    `init`, trained further. The encoded pictures are stored in `folder`; `progress` shows a bar while they are encoded.
    """

    latent_loss = staticmethod(latent_loss)

    def __init__(self, recipe: DiffusionRecipe, folder: Path, progress: bool = True) -> None:
        self.progress = progress
        self.seed, self.batch_size = recipe.training.seed, recipe.training.batch_size
        self.dropout, parts = recipe.data.caption_dropout, recipe.parts
        clip, autoencoder = expand(parts.clip), expand(parts.autoencoder)
        self.tokenizer = Tokenizer.from_folder(clip / "tokenizer")
        self.text_encoder = load_part(clip / "text_encoder", TextEncoder, TextConfig)
        self.autoencoder = load_part(autoencoder / "vae", Autoencoder, AutoencoderConfig)
        for frozen in (self.text_encoder, self.autoencoder):
            frozen.requires_grad_(False)
        self.schedule = Schedule(recipe.schedule)
        if recipe.model is None:
            unet = load_part(expand(parts.init) / "unet", UNet, UNetConfig, attention=OpenAttention)
            self.unet = unet.requires_grad_(True)
        else:
            torch.manual_seed(self.seed)  # the first weights
            self.unet = UNet(recipe.model, attention=OpenAttention)
            nn.init.zeros_(self.unet.conv_out.weight)  # the first prediction is 0: the mean of every target
        self.network = self.unet
        side = self.unet.config.sample_size * self.autoencoder.config.factor  # pixels
        self.pictures = ImageFolder(recipe.data.folder, side) if recipe.data.folder else None
        size = len(self.pictures) if self.pictures else recipe.data.pool_size
        networks = self.autoencoder, self.text_encoder, self.tokenizer
        source = fingerprint(*networks, self.pictures, size, self.seed)
        self.settings = {name: asdict(getattr(recipe, name)) for name in ("schedule", "data")}
        self.settings |= {"model": asdict(self.unet.config), "checksum of the pool": source[:12]}
        if recipe.model is None:
            self.settings |= {"checksum of init": checksum(self.unet)[:12]}
        check_recipe({"training": asdict(recipe.training)} | self.settings, folder)
        self.pool = self.load_pool(folder / "pool.safetensors", size, source)

    def load_pool(self, file: Path, size: int, source: str) -> Pool:
        """Read the stored latents. If there are none from this source, one process makes them; the others wait."""
        with processes().main_process_first():
            if not fits(file, source):
                networks = self.autoencoder, self.text_encoder, self.tokenizer
                pool = make_pool(*networks, self.pictures or Scenes(self.seed), size, self.seed, self.progress)
                file.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(file) as temporary:
                    save_file(vars(pool), temporary, {"source": source})
        return Pool(**load_file(file))

    def loss(self, unet: nn.Module, step: int, rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        """(target − prediction)² at random times (DDPM, arXiv 2006.11239, equation 14).

        With v as the target, an error in x_0 has the weight 1 + SNR (arXiv 2202.00512, section 4), never small.
        With epsilon it is, at the high noise levels that decide the background's colour.
        """
        generator = generator_for(self.seed, step)  # draws for the complete batch; these are some rows of it
        index = torch.randint(len(self.pool.latents), (self.batch_size,), generator=generator)
        t = torch.randint(self.schedule.config.num_train_timesteps, (self.batch_size,), generator=generator)[rows]
        context = self.pool.context[self.pool.caption[index]]  # (B, T, K)
        context = drop_captions(context, self.pool.context[0], self.dropout, generator)[rows].float()
        latents = self.pool.latents[index[rows]].float()  # (B, C, H, W)
        noise = torch.randn((self.batch_size, *latents.shape[1:]), generator=generator)[rows]
        device = next(unet.parameters()).device
        latents, noise, t, context = (value.to(device) for value in (latents, noise, t, context))
        return self.latent_loss(unet, latents, context, noise, t, self.schedule), {}

    def samples(self) -> Tensor:
        device = next(self.unet.parameters()).device
        context = self.text_encoder(self.tokenizer(list(SAMPLE_PROMPTS))).to(device)
        empty = self.text_encoder(self.tokenizer([""])).to(device).expand_as(context)
        denoise = guide(self.unet, Condition(context), Condition(empty), guidance_scale=3.0)
        sampler = get_sampler("dpmpp_2m")
        grid = sampler.make_grid(self.schedule, 20)
        x = draw_noise((len(context), *self.pool.latents.shape[1:]), torch.Generator().manual_seed(0)).to(device)
        latents = last(sampler.loop(denoise, x, grid, self.schedule)).cpu()
        return decode_latents(self.autoencoder, latents)

    def save(self, folder: Path) -> None:
        """Write `unet/` and `scheduler/`."""
        save_part(folder / "unet", self.unet.config, self.unet.state_dict())
        (folder / "scheduler").mkdir(parents=True, exist_ok=True)
        write_json(folder / "scheduler" / "scheduler_config.json", self.schedule.config.to_dict())
