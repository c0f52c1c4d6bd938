"""The parts put together: text in, pictures out.

    text -> tokens -> context;   noise + context -> UNet and sampler, step by step -> latents -> picture

Source: "High-Resolution Image Synthesis with Latent Diffusion Models" (arXiv 2112.10752).
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor, nn

from sdlearn.diffusion.guidance import guide
from sdlearn.diffusion.samplers import SAMPLERS, Sampler, Step
from sdlearn.diffusion.schedule import Schedule
from sdlearn.models.autoencoder import Autoencoder
from sdlearn.models.text import TextEncoder
from sdlearn.models.unet import UNet
from sdlearn.pictures import check_floats, to_images
from sdlearn.tasks import TASKS, text_to_image
from sdlearn.tasks.kinds import KINDS, kinds
from sdlearn.tasks.plan import Defaults
from sdlearn.tokenizer import Tokenizer


def encode_pictures(
    autoencoder: Autoencoder, pictures: Tensor, generator: torch.Generator | list[torch.Generator] | None = None
) -> Tensor:
    """Pictures (B, 3, H, W) in [−1, 1] to latents (B, C, H/f, W/f), scaled to a spread of about 1.

    They are the most likely ones or, with a generator, a random sample. A list has one generator
    for each picture, which then depends on no other. Only here is the scaling factor applied.
    """
    if isinstance(generator, list):
        alone = zip(pictures.split(1), generator, strict=True)
        return torch.cat([encode_pictures(autoencoder, one, its) for one, its in alone])
    gaussian = autoencoder.encode(pictures)
    latents = gaussian.mode() if generator is None else gaussian.sample(generator)
    return latents * autoencoder.config.scaling_factor


def decode_latents(autoencoder: Autoencoder, latents: Tensor) -> Tensor:
    """Scaled latents (B, C, H/f, W/f) to pictures (B, 3, H, W) in about [−1, 1], not clipped.

    This is the only place where the scaling factor is undone.
    """
    return autoencoder.decode(latents / autoencoder.config.scaling_factor)


class StableDiffusion:
    """A model: tokenizer, text encoder, autoencoder, UNet and schedule, and what the sampling loop needs.

    `samplers` and `guide` belong to the loop, `encode_pictures` and `decode_latents` to its ends, and `text_to_image`
    is the whole; `load(parts=...)` swaps them. `kind` is the Diffusers pipeline that the model belongs to, one of
    KINDS. `card` is the text of the model card.

    Raises:
        ValueError: the parts don't fit together.
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
        encode_pictures: Callable[..., Tensor] = encode_pictures,
        decode_latents: Callable[..., Tensor] = decode_latents,
        text_to_image: Callable[..., Iterator[Step]] = text_to_image,
        defaults: Defaults | None = None,
        name: str = "",
        card: str | None = None,
    ) -> None:
        check_fit(tokenizer, text_encoder, autoencoder, unet)
        self.tokenizer, self.text_encoder, self.autoencoder, self.unet = tokenizer, text_encoder, autoencoder, unet
        self.schedule, self.samplers, self.guide = schedule, dict(samplers), guide
        self.encode_pictures, self.decode_latents = encode_pictures, decode_latents
        self.text_to_image = text_to_image
        self.kind = kinds(autoencoder.config.latent_channels)[unet.config.in_channels]
        side = unet.config.sample_size * autoencoder.config.factor  # pixels
        self.defaults = defaults or Defaults(height=side, width=side)
        self.name, self.card = name, card

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return self.text_encoder, self.autoencoder, self.unet

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the networks compute in."""
        return next(self.unet.parameters()).dtype

    @property
    def sampling_dtype(self) -> torch.dtype:
        """The dtype of samplers and guidance: float64 if the networks have it, else float32, never half precision."""
        return torch.promote_types(self.dtype, torch.float32)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move the networks to a device, a dtype, or both."""
        for network in self.networks:
            network.to(device=device, dtype=dtype)
        return self

    def encode_prompt(self, prompts: str | list[str], clip_skip: int = 0) -> Tensor:
        """Texts to what the UNet's cross-attention reads: (B, T, C). Warns with what was cut off if a text is too long.

        clip_skip: how many of the text encoder's last layers are left out.
        """
        prompts = [prompts] if isinstance(prompts, str) else prompts
        for text in dict.fromkeys(prompts):
            if cut := self.tokenizer.truncated(text):
                longest = self.tokenizer.max_length - 2
                warnings.warn(
                    f"a prompt has more than {longest} tokens; this part at its end is cut off: {cut!r}", stacklevel=2
                )
        ids = self.tokenizer(prompts).to(self.device)  # (B, T)
        return self.text_encoder(ids, skip=clip_skip)  # (B, T) -> (B, T, C)

    def predict(self, x: Tensor, t: Any, context: Tensor, **conditions: Any) -> Tensor:
        """Call the UNet in its own dtype; the result has the dtype of x. (B, C, H, W) -> the same shape."""
        return self.unet(x.to(self.dtype), t, context, **conditions).to(x.dtype)

    def encode(self, pictures: Tensor, generator: torch.Generator | list[torch.Generator] | None = None) -> Tensor:
        """Pictures (B, 3, H, W) in [−1, 1] to scaled latents (B, C, H/f, W/f), as `encode_pictures` does.

        Raises:
            ValueError: the shape is wrong, H or W is not divisible by f, or the pictures are not floats or not finite.
        """
        check_floats("pictures", pictures, "(B, 3, H, W) from −1 to 1")
        latents = self.encode_pictures(self.autoencoder, pictures.to(self.device, self.dtype), generator)
        return latents.to(self.sampling_dtype)

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, H/f, W/f) to pictures (B, 3, H, W), clamped to [−1, 1].

        Raises:
            ValueError: the shape doesn't fit, or the latents are not floats, or hold NaN or infinity.
        """
        check_floats("latents", latents, "(B, C, H, W)")
        pictures = self.decode_latents(self.autoencoder, latents.to(self.device, self.dtype))
        return pictures.to(self.sampling_dtype).clamp(-1, 1)

    def sample(self, prompt: str | list[str], **settings: Any) -> Iterator[Step]:
        """Sample latents, one Step for each call of the network; the x of the last one is passed to `decode`.

        Accepts what the task of the model's kind accepts: `sdlearn.text_to_image`, unless it is made for another.
        Everything is checked before the first step.
        """
        tasks = TASKS | {"StableDiffusionPipeline": self.text_to_image}
        return tasks.get(self.kind, text_to_image)(self, prompt, **settings)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        *,
        task: Callable[..., Iterator[Step]] | None = None,
        progress: bool = True,
        **settings: Any,
    ) -> list[Image.Image]:
        """Draw pictures. Accepts what `sample` accepts, or what another `task` accepts; `progress` shows a bar."""
        from tqdm.auto import tqdm

        steps = self.sample(prompt, **settings) if task is None else task(self, prompt, **settings)
        for step in tqdm(steps, disable=not progress, unit="step"):  # noqa: B007
            pass
        return to_images(self.decode(step.x))


def check_fit(tokenizer: Tokenizer, text_encoder: TextEncoder, autoencoder: Autoencoder, unet: UNet) -> None:
    """Raises ValueError unless each part accepts the output of the one before it."""
    text, latent = text_encoder.config, autoencoder.config.latent_channels
    if unet.config.in_channels not in kinds(latent):
        accepted = ", ".join(f"{channels} ({KINDS[kind]})" for channels, kind in kinds(latent).items())
        raise ValueError(
            f"the UNet's in_channels is {unet.config.in_channels}; with an autoencoder of {latent} latent_channels "
            f"it must be {accepted}"
        )
    if unet.config.cross_attention_dim != text.hidden_size:
        raise ValueError(
            f"the UNet's cross_attention_dim is {unet.config.cross_attention_dim}, the text encoder's width is "
            f"{text.hidden_size}; they must be equal"
        )
    if len(tokenizer) > text.vocab_size:
        raise ValueError(f"the tokenizer has {len(tokenizer)} tokens, the text encoder only {text.vocab_size}")
    if tokenizer.max_length > text.max_position_embeddings:
        longest = text.max_position_embeddings
        raise ValueError(f"the tokenizer makes {tokenizer.max_length} tokens, the text encoder takes {longest}")
