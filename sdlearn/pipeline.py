"""The parts put together: text in, pictures out.

    text -> tokens -> context;   noise + context -> UNet and sampler, step by step -> latents -> picture

Source: "High-Resolution Image Synthesis with Latent Diffusion Models" (arXiv 2112.10752).
"""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor, nn

from sdlearn.checkpoints import load_part, read_json, save_part, write_json
from sdlearn.diffusion.guidance import Condition, guide
from sdlearn.diffusion.samplers import SAMPLERS, Sampler, Step, draw_noise
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.files import whole_file
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig
from sdlearn.models.text import TextConfig, TextEncoder
from sdlearn.models.unet import UNet, UNetConfig
from sdlearn.show import to_images
from sdlearn.tokenizer import Tokenizer

BUNDLED = Path(__file__).parent / "weights" / "tiny"

PARTS: dict[str, tuple[str, ...]] = {
    "resnet_block": ("unet", "autoencoder"),
    "downsample": ("unet", "autoencoder"),
    "upsample": ("unet", "autoencoder"),
    "timestep_embedding": ("unet",),
    "spatial_transformer": ("unet",),
    "transformer_block": ("unet",),
    "attention": ("unet",),
    "feed_forward": ("unet",),
    "pixel_attention": ("autoencoder",),
    "text_layer": ("text_encoder",),
    **dict.fromkeys(SAMPLERS, ("samplers",)),
    "guide": ("pipeline",),
    "combine": ("guide",),
    "schedule": ("pipeline",),
    "tokenizer": ("pipeline",),
}
"""What `load(parts=...)` can swap, and where: loops (the samplers), functions (guide, combine), classes (the rest)."""

# The parts of a model folder, by the names that Diffusers gives them: the library and the class that read each.
FOLDERS = {
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "scheduler": ("diffusers", None),  # the class is the schedule's
}
OTHER_MODELS = {"StableDiffusionXL": "Stable Diffusion XL", "StableDiffusion3": "Stable Diffusion 3", "Flux": "Flux"}


@dataclass(frozen=True)
class Defaults:
    """What is used where the caller says nothing. height and width are in pixels. Stored in defaults.json."""

    height: int
    width: int
    sampler: str = "dpmpp_2m"
    steps: int = 25
    guidance_scale: float = 7.5


class StableDiffusion:
    """A text-to-image model: tokenizer, text encoder, UNet, schedule and autoencoder, and the loop that joins them.

    `samplers` and `guide` are what the loop is made of; `load(parts=...)` swaps them. `card` is the model card's text.

    Raises:
        ValueError: the parts don't fit each other.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        text_encoder: TextEncoder,
        autoencoder: Autoencoder,
        unet: UNet,
        schedule: Schedule,
        *,
        samplers: Mapping[str, Sampler] = SAMPLERS,
        guide: Callable[..., Callable[[Tensor, Any], Tensor]] = guide,
        defaults: Defaults | None = None,
        name: str = "",
        card: str | None = None,
    ) -> None:
        self.tokenizer, self.text_encoder, self.autoencoder, self.unet = tokenizer, text_encoder, autoencoder, unet
        self.schedule, self.samplers, self.guide = schedule, dict(samplers), guide
        self.name, self.card = name, card
        side = unet.config.sample_size * autoencoder.config.factor
        self.defaults = defaults or Defaults(height=side, width=side)
        for ours, value, theirs, other in (
            (
                "the UNet's in_channels",
                unet.config.in_channels,
                "the autoencoder's",
                autoencoder.config.latent_channels,
            ),
            (
                "the UNet's cross_attention_dim",
                unet.config.cross_attention_dim,
                "the text encoder's",
                text_encoder.config.hidden_size,
            ),
        ):
            if value != other:
                raise ValueError(f"{ours} is {value}, {theirs} width is {other}; they must be equal")
        if len(tokenizer) > text_encoder.config.vocab_size:
            vocab_size = text_encoder.config.vocab_size
            raise ValueError(f"the tokenizer has {len(tokenizer)} tokens, the text encoder only {vocab_size}")
        longest = text_encoder.config.max_position_embeddings
        if tokenizer.max_length > longest:
            raise ValueError(f"the tokenizer makes {tokenizer.max_length} tokens, the text encoder takes {longest}")

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return self.text_encoder, self.autoencoder, self.unet

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the networks compute in. Samplers and guidance compute in float32, whatever it is."""
        return next(self.unet.parameters()).dtype

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move the networks to a device, a dtype, or both."""
        for network in self.networks:
            network.to(device=device, dtype=dtype)
        return self

    @torch.no_grad()
    def encode_prompt(self, prompts: list[str]) -> Tensor:
        """Texts to what the UNet's cross-attention reads: (B, T, C). Warns where a text is too long: what was cut."""
        different = list(dict.fromkeys(prompts))  # equal texts are encoded once
        for text in different:
            if cut := self.tokenizer.truncated(text):
                longest = self.tokenizer.max_length - 2
                warnings.warn(
                    f"a prompt has more than {longest} tokens; this end of it is cut off: {cut!r}", stacklevel=2
                )
        context = self.text_encoder(self.tokenizer(different).to(self.device))  # (B, 77) -> (B, 77, C)
        return context[[different.index(text) for text in prompts]]

    @torch.no_grad()
    def predict(self, x: Tensor, t: Any, context: Tensor, **conditions: Any) -> Tensor:
        """Call the UNet without gradients, in its own dtype; the result has the dtype of x. (B, C, H, W), same out."""
        return self.unet(x.to(self.dtype), t, context, **conditions).to(x.dtype)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, H/f, W/f) to pictures (B, 3, H, W), clamped to [−1, 1].

        Raises:
            ValueError: the shape doesn't fit, or the latents hold NaN or infinity.
        """
        check_finite(latents)
        scaled = latents.to(self.device, self.dtype) / self.autoencoder.config.scaling_factor
        return self.autoencoder.decode(scaled).float().clamp(-1, 1)

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [−1, 1] to their most likely scaled latents (B, C, H/f, W/f).

        Raises:
            ValueError: the shape is another, or H or W is not divisible by f.
        """
        gaussian = self.autoencoder.encode(image.to(self.device, self.dtype))
        return gaussian.mode().float() * self.autoencoder.config.scaling_factor

    def sample(
        self,
        prompt: str | list[str],
        *,
        negative_prompt: str | list[str] = "",
        steps: int | None = None,
        sampler: str | None = None,
        guidance_scale: float | None = None,
        rescale: float = 0.0,
        count: int = 1,
        seed: int = 0,
        height: int | None = None,
        width: int | None = None,
        latents: Tensor | None = None,
        eta: float = 0.0,
    ) -> Iterator[Step]:
        """Sample latents, one Step for each call of the network; the x of the last one goes to `decode`.

        Everything is checked before the first step is asked for. What is None comes from `defaults`.

        Args:
            prompt: one text or several. Each makes `count` pictures, one after the other.
            negative_prompt: what guidance leads away from; one text, or one for each prompt.
            steps: from 1 to the schedule's num_train_timesteps.
            sampler: a name in `samplers`.
            guidance_scale: 1 is without guidance (arXiv 2207.12598).
            rescale: from 0 to 1, see `guide`.
            seed: picture i has its own random numbers, those of seed + i. So any of them can be repeated alone.
            height, width: in pixels.
            latents: noise to start from, (B, C, H/f, W/f), of standard deviation 1, in place of the seed's.
            eta: from 0 to 1, the noise that "ddim" adds in every step.

        Raises:
            ValueError: a value is not accepted; the message says which are.
        """
        prompts, negative_prompts = self._prompts(prompt, negative_prompt, count)
        if sampler is None:
            sampler = self.defaults.sampler
        if sampler not in self.samplers:
            raise ValueError(f"sampler {sampler!r} is not known, only {', '.join(self.samplers)}")
        if not 0 <= eta <= 1 or (eta > 0 and sampler != "ddim"):
            raise ValueError(
                f"eta = {eta} with sampler {sampler!r}: must be from 0 to 1 with 'ddim', and 0 with any other"
            )
        chosen = self.samplers[sampler]
        grid = chosen.make_grid(self.schedule, self.defaults.steps if steps is None else steps)

        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise ValueError(f"seed = {seed!r}, must be a whole number from 0 to 2^63 - 1")
        generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
        shape = self._latents_shape(len(prompts), height, width, latents)
        noise = draw_noise(shape, generators)  # drawn in any case, so that later draws don't depend on `latents`
        x = (noise if latents is None else latents).to(self.device, torch.float32)
        x = x * chosen.initial_scale(self.schedule, grid)

        condition = Condition(self.encode_prompt(prompts))
        unconditional = Condition(self.encode_prompt(negative_prompts))
        scale = self.defaults.guidance_scale if guidance_scale is None else guidance_scale
        denoise = self.guide(self.predict, condition, unconditional, scale, rescale=rescale)
        options = {"eta": eta} if eta > 0 else {}
        return chosen.loop(denoise, x, grid, self.schedule, generator=generators, **options)

    def __call__(self, prompt: str | list[str], *, progress: bool = True, **settings: Any) -> list[Image.Image]:
        """Draw pictures. Takes what `sample` takes; `progress` shows a bar."""
        from tqdm.auto import tqdm

        steps = self.sample(prompt, **settings)
        total = settings.get("steps") or self.defaults.steps
        for step in tqdm(steps, total=total, disable=not progress, unit="step"):  # noqa: B007
            pass
        return to_images(self.decode(step.x))

    def save(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Write a model folder in the Diffusers layout, which `load` and Diffusers' StableDiffusionPipeline read.

        The folder counts as a model once model_index.json is there; it is written last.
        """
        folder = Path(folder)
        (folder / "scheduler").mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(folder / "tokenizer")
        for name, network in zip(("text_encoder", "vae", "unet"), self.networks, strict=True):
            save_part(folder / name, network.config, network.state_dict(), dtype)
        schedule = self.schedule.config.to_dict()
        write_json(folder / "scheduler" / "scheduler_config.json", schedule)
        write_json(folder / "defaults.json", asdict(self.defaults))
        if self.card is not None:
            with whole_file(folder / "README.md") as temporary:
                temporary.write_text(self.card, encoding="utf-8")
        index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False}
        index |= {name: (library, kind or schedule["_class_name"]) for name, (library, kind) in FOLDERS.items()}
        index |= dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"), (None, None))
        write_json(folder / "model_index.json", index)

    def _prompts(self, prompt: str | list[str], negative: str | list[str], count: int) -> tuple[list[str], list[str]]:
        """One prompt and one negative prompt for each picture."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        negatives = [negative] * len(prompts) if isinstance(negative, str) else list(negative)
        if not prompts or not all(isinstance(text, str) for text in prompts + negatives):
            raise ValueError(
                f"prompt = {prompt!r}, negative_prompt = {negative!r}: must be a text or a list of texts, not empty"
            )
        if len(negatives) != len(prompts):
            raise ValueError(
                f"{len(negatives)} negative prompts for {len(prompts)} prompts; must be one, or one for each"
            )
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"count = {count!r}, must be a whole number of at least 1")
        return [text for text in prompts for _ in range(count)], [text for text in negatives for _ in range(count)]

    def _latents_shape(
        self, batch: int, height: int | None, width: int | None, latents: Tensor | None
    ) -> tuple[int, ...]:
        """(B, C, H/f, W/f), with sizes and given latents checked."""
        factor, channels = self.autoencoder.config.factor, self.autoencoder.config.latent_channels
        if latents is not None:
            if latents.ndim != 4 or not latents.is_floating_point():
                raise ValueError(
                    f"latents are {latents.dtype} of shape {tuple(latents.shape)}, must be floats (B, C, H, W)"
                )
            check_finite(latents)
            height = latents.shape[2] * factor if height is None else height
            width = latents.shape[3] * factor if width is None else width
        height = self.defaults.height if height is None else height
        width = self.defaults.width if width is None else width
        multiple = factor * 2 ** (
            len(self.unet.config.block_out_channels) - 1
        )  # the UNet halves the latents this often
        for name, size in (("height", height), ("width", width)):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1 or size % multiple:
                raise ValueError(f"{name} = {size!r}, must be a multiple of {multiple} pixels")
        shape = (batch, channels, height // factor, width // factor)
        if latents is not None and tuple(latents.shape) != shape:
            raise ValueError(f"latents have the shape {tuple(latents.shape)}, must have {shape}")
        return shape


def check_finite(latents: Tensor) -> None:
    """Raises ValueError when latents hold NaN or infinity."""
    if not torch.isfinite(latents).all():
        raise ValueError("latents hold NaN or infinity, must be finite")


def load(
    source: str | Path | None = None,
    *,
    parts: Mapping[str, Callable[..., Any]] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> StableDiffusion:
    """Load a model.

    Args:
        source: a model folder in the Diffusers layout. None: the one that the environment variable SDLEARN_MODEL names,
            else the bundled tiny model.
        parts: own classes and functions by name, such as {"resnet_block": MyBlock, "ddim": my_ddim}; `PARTS` lists the
            names. Weights are loaded strictly, so a class must have the parameters of ours.
        device, dtype: where the networks go, and what they compute in; float32 on the CPU unless said otherwise.

    Raises:
        FileNotFoundError: the folder or a part of it is missing.
        ValueError: it holds another kind of model, a setting that is not supported, damaged or unfitting weights; or a
            name in `parts` is unknown.
    """
    parts = dict(parts or {})
    if unknown := sorted(set(parts) - set(PARTS)):
        raise ValueError(f"parts {', '.join(unknown)} are not known, only {', '.join(PARTS)}")

    def parts_of(place: str) -> dict[str, Callable[..., Any]]:
        return {name: part for name, part in parts.items() if place in PARTS[name]}

    folder = Path(source or os.environ.get("SDLEARN_MODEL") or BUNDLED).expanduser()
    check_folder(folder)
    dtype = dtype or torch.float32
    schedule_file = folder / "scheduler" / "scheduler_config.json"
    schedule_config = ScheduleConfig.from_dict(read_json(schedule_file), str(schedule_file))
    own = parts_of("pipeline")
    model = StableDiffusion(
        tokenizer=own.get("tokenizer", Tokenizer).from_folder(folder / "tokenizer"),
        text_encoder=load_part(folder / "text_encoder", TextEncoder, TextConfig, dtype, **parts_of("text_encoder")),
        autoencoder=load_part(folder / "vae", Autoencoder, AutoencoderConfig, dtype, **parts_of("autoencoder")),
        unet=load_part(folder / "unet", UNet, UNetConfig, dtype, **parts_of("unet")),
        schedule=own.get("schedule", Schedule)(schedule_config),
        samplers=SAMPLERS | {name: replace(SAMPLERS[name], loop=loop) for name, loop in parts_of("samplers").items()},
        guide=partial(own.get("guide", guide), **parts_of("guide")),
        defaults=read_defaults(folder / "defaults.json"),
        name=folder.resolve().name,
        card=(folder / "README.md").read_text(encoding="utf-8") if (folder / "README.md").is_file() else None,
    )
    return model.to(device, dtype)


def check_folder(folder: Path) -> None:
    """Raises FileNotFoundError or ValueError unless the folder holds a StableDiffusionPipeline, with all its parts."""
    accepted = "accepted is a model folder in the Diffusers layout"
    if folder.is_file():
        raise ValueError(f"{folder} is a file; {accepted}")
    if not folder.is_dir():
        raise FileNotFoundError(f"no model at {folder}; {accepted}")
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(f"{folder} has no model_index.json; {accepted}")
    kind = str(read_json(folder / "model_index.json").get("_class_name"))
    if kind != "StableDiffusionPipeline":
        known = next((f" ({name})" for prefix, name in OTHER_MODELS.items() if kind.startswith(prefix)), "")
        raise ValueError(f"{folder} holds a {kind}{known}, which is not supported, only StableDiffusionPipeline")
    if missing := [name for name in FOLDERS if not (folder / name).is_dir()]:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}; {accepted}, with {', '.join(FOLDERS)}")


def read_defaults(file: Path) -> Defaults | None:
    """The defaults stored with a model, or None. Raises ValueError when a key is missing or unknown."""
    if not file.is_file():
        return None
    try:
        return Defaults(**read_json(file))
    except TypeError as error:
        raise ValueError(f"{file}: {error}") from error
