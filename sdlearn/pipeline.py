"""The parts put together: text in, pictures out.

    text -> tokens -> context;   noise + context -> UNet and sampler, step by step -> latents -> picture

Source: "High-Resolution Image Synthesis with Latent Diffusion Models" (arXiv 2112.10752).
"""

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sdlearn.diffusion.guidance import Condition, guide
from sdlearn.diffusion.samplers import SAMPLERS, Grid, Sampler, Step, draw_noise
from sdlearn.diffusion.schedule import Schedule
from sdlearn.models.attention import remember_text
from sdlearn.models.autoencoder import Autoencoder
from sdlearn.models.text import TextEncoder
from sdlearn.models.unet import UNet
from sdlearn.pictures import to_images
from sdlearn.storage.checkpoints import (
    FOLDERS,
    NETWORKS,
    SINGLE_FILES,
    build,
    describe_folder,
    describe_single_file,
    find_model,
    is_version_2,
    load_weights,
    map_file,
    save_part,
    save_single_file,
    stored_prediction_type,
    weight_file,
    weight_format,
)
from sdlearn.storage.compvis import OPEN_CLIP, PIPELINES, CompVis, check_kind, kinds
from sdlearn.storage.files import atomic_write, read_json, write_json
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


@dataclass(frozen=True)
class Defaults:
    """What is used where the caller says nothing. height and width are in pixels. Stored in defaults.json.

    Raises ValueError when a number is out of range.
    """

    height: int
    width: int
    sampler: str = "dpmpp_2m"
    steps: int = 25
    guidance_scale: float = 7.5

    def __post_init__(self) -> None:
        for key in ("height", "width", "steps"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{key} = {value!r}, must be a whole number of at least 1")
        if not math.isfinite(self.guidance_scale):
            raise ValueError(f"guidance_scale = {self.guidance_scale}, must be finite")


class StableDiffusion:
    """A text-to-image model: tokenizer, text encoder, UNet, schedule and autoencoder, and the loop that joins them.

    `samplers` and `guide` are what the loop is made of; `load(parts=...)` swaps them. `card` is the model card's text,
    `kind` the pipeline of Diffusers that the model belongs to, one of PIPELINES.

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
        latent = autoencoder.config.latent_channels
        known = kinds(latent)
        if unet.config.in_channels not in known:
            accepted = ", ".join(f"{channels} ({PIPELINES[kind]})" for channels, kind in known.items())
            raise ValueError(
                f"the UNet's in_channels is {unet.config.in_channels}; with an autoencoder of {latent} latent_channels "
                f"it must be {accepted}"
            )
        self.kind = known[unet.config.in_channels]
        if unet.config.cross_attention_dim != text_encoder.config.hidden_size:
            raise ValueError(
                f"the UNet's cross_attention_dim is {unet.config.cross_attention_dim}, the text encoder's width is "
                f"{text_encoder.config.hidden_size}; they must be equal"
            )
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
            if dtype is not None:
                network.to(memory_format=weight_format(dtype))
        return self

    @torch.no_grad()
    def encode_prompt(self, prompts: str | list[str], clip_skip: int = 0) -> Tensor:
        """Texts to what the UNet's cross-attention reads: (B, T, C). Warns where a text is too long: what was cut.

        clip_skip: how many of the text encoder's last layers are left out.
        """
        prompts = [prompts] if isinstance(prompts, str) else prompts
        different = list(dict.fromkeys(prompts))  # equal texts are encoded once
        for text in different:
            if cut := self.tokenizer.truncated(text):
                longest = self.tokenizer.max_length - 2
                warnings.warn(
                    f"a prompt has more than {longest} tokens; this end of it is cut off: {cut!r}", stacklevel=2
                )
        ids = self.tokenizer(different).to(self.device)
        context = self.text_encoder(ids, skip=clip_skip)  # (B, 77) -> (B, 77, C)
        return context[[different.index(text) for text in prompts]]

    @torch.no_grad()
    def predict(self, x: Tensor, t: Any, context: Tensor, **conditions: Any) -> Tensor:
        """Call the UNet without gradients, in its own dtype; the result has the dtype of x. (B, C, H, W), same out.

        Where both halves of x are equal, as under guidance, what doesn't depend on the text is computed once.
        """
        noisy, half = x.to(self.dtype), len(x) // 2
        same_time = not torch.as_tensor(t).ndim and conditions.get("class_labels") is None
        if self.unet.takes_several_texts and same_time and half and torch.equal(noisy[:half], noisy[half:]):
            noisy = noisy[:half]
        return self.unet(noisy, t, context, **conditions).to(x.dtype)

    def reader(self) -> Callable[..., Tensor]:
        """`predict` for sampling: the text stays the same from step to step, so its keys and values are kept.

        Weights that change between two calls with the same context are not seen.
        """
        read, carrying = None, None

        def predict(x: Tensor, t: Any, context: Tensor, **conditions: Any) -> Tensor:
            nonlocal read, carrying
            if context is not read:
                read, carrying = context, remember_text(self.unet, context)
            return self.predict(x, t, carrying, **conditions)

        return predict

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, H/f, W/f) to pictures (B, 3, H, W), clamped to [−1, 1].

        Raises:
            ValueError: the shape doesn't fit, or the latents are no floats, or hold NaN or infinity.
        """
        check_floats("latents", latents, "(B, C, H, W)")
        return decode_latents(self.autoencoder, latents.to(self.device, self.dtype)).float().clamp(-1, 1)

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [−1, 1] to their most likely scaled latents (B, C, H/f, W/f).

        Raises:
            ValueError: the shape is another, H or W is not divisible by f, the pictures are no floats, or not finite.
        """
        check_floats("pictures", image, "(B, 3, H, W) from −1 to 1")
        return encode_pictures(self.autoencoder, image.to(self.device, self.dtype)).float()

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
        clip_skip: int = 0,
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
            clip_skip: how many of the text encoder's last layers are left out; some models were trained so.

        Raises:
            ValueError: a value is not accepted, the message says which are; or the model draws not from text alone.
        """
        if self.kind != "StableDiffusionPipeline":
            raise ValueError(f"this model is made for {PIPELINES[self.kind]}; it can't draw from text alone")
        prompts, negative_prompts = self._prompts(prompt, negative_prompt, count)
        sampler, grid = self._plan(sampler, steps)
        if not 0 <= eta <= 1 or (eta > 0 and sampler.name != "ddim"):
            raise ValueError(
                f"eta = {eta} with sampler {sampler.name!r}: must be from 0 to 1 with 'ddim', and 0 with any other"
            )
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise ValueError(f"seed = {seed!r}, must be a whole number from 0 to 2^63 - 1")
        generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
        shape = self._latents_shape(len(prompts), height, width, latents)
        noise = draw_noise(shape, generators)  # drawn in any case, so that later draws don't depend on `latents`
        x = (noise if latents is None else latents).to(self.device, torch.float32)
        x = x * sampler.initial_scale(self.schedule, grid)

        condition = Condition(self.encode_prompt(prompts, clip_skip))
        unconditional = Condition(self.encode_prompt(negative_prompts, clip_skip))
        scale = self.defaults.guidance_scale if guidance_scale is None else guidance_scale
        denoise = self.guide(self.reader(), condition, unconditional, scale, rescale=rescale)
        options = {"eta": eta} if eta > 0 else {}
        return sampler.loop(denoise, x, grid, self.schedule, generator=generators, **options)

    def __call__(self, prompt: str | list[str], *, progress: bool = True, **settings: Any) -> list[Image.Image]:
        """Draw pictures. Takes what `sample` takes; `progress` shows a bar."""
        from tqdm.auto import tqdm

        steps = self.sample(prompt, **settings)
        _, grid = self._plan(settings.get("sampler"), settings.get("steps"))
        for step in tqdm(steps, total=len(grid), disable=not progress, unit="step"):  # noqa: B007
            pass
        return to_images(self.decode(step.x))

    def save(self, destination: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Write a model folder in the Diffusers layout, or one .safetensors file in the CompVis layout.

        `load` reads both, and so does Diffusers. The folder counts as a model once model_index.json is there; it is
        written last. The file holds the weights alone: no tokenizer, no schedule, no configuration.

        Raises:
            OSError: it can't be written; an old file stays whole.
            ValueError: the destination is another kind of file, or the dtype not one of floats.
        """
        check_dtype(dtype)
        folder = Path(destination)
        if folder.suffix == ".safetensors":
            networks = dict(zip(NETWORKS, self.networks, strict=True))
            return save_single_file(networks, folder, dtype, self.schedule.config.prediction_type)
        if folder.suffix in SINGLE_FILES or folder.is_file():
            raise ValueError(f"{folder} must be a folder, or a file that ends with .safetensors")
        (folder / "scheduler").mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(folder / "tokenizer")
        for name, network in zip(NETWORKS, self.networks, strict=True):
            save_part(folder / name, network.config, network.state_dict(), dtype)
        schedule = self.schedule.config.to_dict()
        write_json(folder / "scheduler" / "scheduler_config.json", schedule)
        write_json(folder / "defaults.json", asdict(self.defaults))
        if self.card is not None:
            with atomic_write(folder / "README.md") as temporary:
                temporary.write_text(self.card, encoding="utf-8")
        index: dict[str, Any] = {"_class_name": self.kind, "requires_safety_checker": False}
        index |= {name: (library, kind or schedule["_class_name"]) for name, (library, kind) in FOLDERS.items()}
        index |= dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"), (None, None))
        write_json(folder / "model_index.json", index)

    def _plan(self, name: str | None, steps: int | None) -> tuple[Sampler, Grid]:
        """The sampler and its grid; what is None comes from the defaults."""
        name = self.defaults.sampler if name is None else name
        if name not in self.samplers:
            raise ValueError(f"sampler {name!r} is not known, only {', '.join(self.samplers)}")
        sampler = self.samplers[name]
        return sampler, sampler.make_grid(self.schedule, self.defaults.steps if steps is None else steps)

    def _prompts(self, prompt: str | list[str], negative: str | list[str], count: int) -> tuple[list[str], list[str]]:
        """One prompt and one negative prompt for each picture."""
        several = [isinstance(texts, Iterable) and not isinstance(texts, str) for texts in (prompt, negative)]
        prompts = list(prompt) if several[0] else [prompt]
        negatives = list(negative) if several[1] else [negative] * len(prompts)
        if not prompts or not all(isinstance(text, str) for text in prompts + negatives):
            raise ValueError(
                f"prompt = {prompt!r}, negative_prompt = {negative!r}: must be a text or a list of texts, not empty"
            )
        if len(negatives) != len(prompts):
            raise ValueError(
                f"{len(negatives)} negative prompts for {len(prompts)} prompts; must be one text, or a list of as many"
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
            check_floats("latents", latents, "(B, C, H, W)")
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


def check_floats(name: str, values: Tensor, accepted: str) -> None:
    """Raises ValueError unless the values are floats with four dimensions, all of them finite."""
    if not isinstance(values, Tensor) or values.ndim != 4 or not values.is_floating_point():
        kind = f"{values.dtype} of shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"{name} are {kind}, must be floats {accepted}")
    if not torch.isfinite(values).all():
        raise ValueError(f"{name} hold NaN or infinity, must be finite")


def check_dtype(dtype: torch.dtype) -> None:
    """Raises ValueError for a dtype that holds no floats: weights would be rounded to whole numbers."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype = {dtype!r}, must be one of floats, such as torch.float32 or torch.float16")


def load(
    source: str | Path | None = None,
    *,
    parts: Mapping[str, Callable[..., Any]] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    config: str | Path | None = None,
    ema: bool = False,
    prediction_type: str | None = None,
) -> StableDiffusion:
    """Load a model.

    Args:
        source: a model folder in the Diffusers layout; a .safetensors or .ckpt file of Stable Diffusion 1 or 2 in the
            CompVis layout; or the name of a model on the Hugging Face hub, "owner/name", which is fetched into
            huggingface_hub's cache. None: what the environment variable SDLEARN_MODEL names, else the bundled model.
        parts: own classes and functions by name, such as {"resnet_block": MyBlock, "ddim": my_ddim}; `PARTS` lists the
            names. Weights are loaded strictly, so a class must have the parameters of ours.
        device, dtype: where the networks go, and what they compute in; float32 on the CPU unless said otherwise. The
            device "auto" is an NVIDIA GPU if there is one, else the CPU.
        config: for a single file, a model folder whose configurations, tokenizer and schedule are taken. Without it
            they are those of Stable Diffusion 1 or 2, as the file's names and shapes tell.
        ema: for a single file that holds plain weights of the UNet and their moving averages: take the averages.
        prediction_type: "epsilon" or "v_prediction", in place of what is stored or found; see `find_prediction_type`.

    Raises:
        FileNotFoundError: there is no such model, or a part of it is missing.
        ValueError: it holds another kind of model, a setting that is not supported, damaged or unfitting weights; or a
            name in `parts` is unknown; or the dtype is not one of floats.
    """
    check_dtype(dtype or torch.float32)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    parts = dict(parts or {})
    if unknown := sorted(set(parts) - set(PARTS)):
        raise ValueError(f"parts {', '.join(unknown)} are not known, only {', '.join(PARTS)}")

    def parts_of(place: str) -> dict[str, Callable[..., Any]]:
        return {name: part for name, part in parts.items() if place in PARTS[name]}

    path, name = find_model(source or os.environ.get("SDLEARN_MODEL") or BUNDLED)
    if path.is_dir() and (config is not None or ema):
        raise ValueError(f"{path} is a folder; config and ema are for single files")
    own = parts_of("pipeline")
    make_tokenizer = own.get("tokenizer", Tokenizer)
    folder = path if path.is_dir() else None if config is None else Path(config).expanduser()
    if folder is None:
        about, defaults, card = describe_single_file(path, make_tokenizer), None, None
    else:
        about, defaults = describe_folder(folder, make_tokenizer), read_defaults(folder / "defaults.json")
        card = read_card(path)

    networks = nn.ModuleDict(
        {part: build(about.configs[part], kind, parts_of(place)) for part, (kind, _, place) in NETWORKS.items()}
    )
    if path.is_dir():
        for part, network in networks.items():
            load_weights(network, weight_file(path / part), dtype or torch.float32)
    else:
        keys, _ = map_file(path)
        check_kind(keys, path)
        layout = CompVis(**about.configs, open_clip=any(key.startswith(OPEN_CLIP) for key in keys), ema=ema)
        load_weights(networks, path, dtype or torch.float32, layout)
    networks.to(device=device, dtype=dtype)

    schedule = about.schedule
    if folder is None:
        prediction_type = prediction_type or find_prediction_type(path, about.tokenizer, **networks)
        if prediction_type == "v_prediction" and is_version_2(about.configs["unet"]):
            networks["unet"].config = replace(networks["unet"].config, sample_size=96)  # 768 pixels
    if prediction_type is not None:
        schedule = replace(schedule, prediction_type=prediction_type)
    return StableDiffusion(
        about.tokenizer,
        networks["text_encoder"],
        networks["vae"],
        networks["unet"],
        own.get("schedule", Schedule)(schedule),
        samplers=SAMPLERS | {name: replace(SAMPLERS[name], loop=loop) for name, loop in parts_of("samplers").items()},
        guide=partial(own.get("guide", guide), **parts_of("guide")),
        defaults=defaults,
        name=name,
        card=card,
    )


def find_prediction_type(
    file: Path, tokenizer: Tokenizer, text_encoder: TextEncoder, vae: Autoencoder, unet: UNet
) -> str:
    """What the UNet of a single file predicts, "epsilon" or "v_prediction"; no name and no shape tells.

    What the file's metadata say counts. Where they say nothing, it is epsilon, save for the text-to-image models of
    Stable Diffusion 2, which exist with both: there the network is asked.
    """
    if stored := stored_prediction_type(file):
        return stored
    if not is_version_2(unet.config) or unet.config.in_channels != vae.config.latent_channels:
        return "epsilon"
    return "epsilon" if predicts_noise(tokenizer, text_encoder, unet) else "v_prediction"


@torch.no_grad()
def predicts_noise(tokenizer: Tokenizer, text_encoder: TextEncoder, unet: UNet) -> bool:
    """Whether the UNet predicts epsilon, found by asking it.

    At the last timestep x is almost pure noise. So a prediction of epsilon resembles x, and one of v, which is there
    almost −x_0, doesn't.
    """
    like = next(unet.parameters())
    x = torch.randn((1, unet.config.in_channels, 16, 16), generator=torch.Generator().manual_seed(0)).to(like)
    prediction = unet(x, 999, text_encoder(tokenizer("").to(like.device)))
    return F.cosine_similarity(prediction.float().flatten(), x.float().flatten(), dim=0).item() > 0.5


def read_defaults(file: Path) -> Defaults | None:
    """The defaults stored with a model, or None. Raises ValueError for a missing or unknown key, or a bad value."""
    if not file.is_file():
        return None
    try:
        return Defaults(**read_json(file))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from error


def read_card(folder: Path) -> str | None:
    """The text of a model's card, or None."""
    return (folder / "README.md").read_text(encoding="utf-8") if (folder / "README.md").is_file() else None


def encode_pictures(
    autoencoder: Autoencoder, pictures: Tensor, generator: torch.Generator | list[torch.Generator] | None = None
) -> Tensor:
    """Pictures (B, 3, H, W) in [−1, 1] to latents (B, C, H/f, W/f), scaled to a standard deviation of about 1.

    They are the most likely ones, or with a generator a sample of those that are likely; a list has one generator for
    each picture, which then depends on no other. This is the only place where the scaling factor goes in.
    """
    if isinstance(generator, list):
        alone = zip(pictures.split(1), generator, strict=True)
        return torch.cat([encode_pictures(autoencoder, one, its) for one, its in alone])
    gaussian = autoencoder.encode(pictures)
    latents = gaussian.mode() if generator is None else gaussian.sample(generator)
    return latents * autoencoder.config.scaling_factor


def decode_latents(autoencoder: Autoencoder, latents: Tensor) -> Tensor:
    """Scaled latents (B, C, H/f, W/f) to pictures (B, 3, H, W) in about [−1, 1], not clipped.

    This is the only place where the scaling factor goes out.
    """
    return autoencoder.decode(latents / autoencoder.config.scaling_factor)
