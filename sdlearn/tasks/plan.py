"""A task's plan: the caller's settings, checked once, and the grid, noise and conditions made from them."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdlearn.config import check_count, is_count
from sdlearn.diffusion.grids import Grid
from sdlearn.diffusion.guidance import Condition
from sdlearn.diffusion.samplers import Project, Sampler, Step, draw_noise
from sdlearn.diffusion.schedule import Schedule
from sdlearn.pictures import check_floats
from sdlearn.tasks.inputs import Pictures, picture_size, read_masks, read_pictures, spread
from sdlearn.tasks.kinds import KINDS

if TYPE_CHECKING:
    from sdlearn import StableDiffusion

NEEDS = {"text to image": (), "image to image": ("picture",), "inpainting": ("picture", "mask")}
"""What each task needs in addition to a prompt."""


@dataclass(frozen=True)
class Defaults:
    """A model's default settings, stored in defaults.json. height and width are in pixels.

    Raises ValueError when a number is out of range.
    """

    height: int
    width: int
    sampler: str = "dpmpp_2m"
    steps: int = 25
    guidance_scale: float = 7.5

    def __post_init__(self) -> None:
        for key in ("height", "width", "steps"):
            check_count(key, getattr(self, key))
        if not math.isfinite(self.guidance_scale):
            raise ValueError(f"guidance_scale = {self.guidance_scale}, must be finite")


class Run(Iterator[Step]):
    """The Steps of one run of a sampler, each made on demand. len() is their total number."""

    def __init__(self, steps: Iterator[Step], count: int) -> None:
        self.steps, self.count = steps, count

    def __next__(self) -> Step:
        return next(self.steps)

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True)
class Plan:
    """What a task is made of. B pictures, with latents of C channels, H/f high and W/f wide.

    noise: (B, C, H/f, W/f), of standard deviation 1. generators: one for each picture, for the noise of later steps.
    known: the given pictures' latents (B, C, H/f, W/f). mask: (B, 1, H/f, W/f), 1 where to draw, else 0. rest: the
    latents of the pictures with grey under the mask. These three are None in a task without them.
    """

    schedule: Schedule
    sampler: Sampler
    grid: Grid
    generators: list[torch.Generator]
    noise: Tensor
    condition: Condition
    unconditional: Condition
    guidance_scale: float
    rescale: float
    eta: float
    known: Tensor | None = None
    mask: Tensor | None = None
    rest: Tensor | None = None

    def run(self, denoise: Callable[[Tensor, Any], Tensor], x: Tensor, project: Project | None = None) -> Run:
        """The sampler's loop, starting from x."""
        options: dict[str, Any] = {"generator": self.generators, "project": project}
        options |= {"eta": self.eta} if self.eta > 0 else {}
        return Run(self.sampler.loop(denoise, x, self.grid, self.schedule, **options), len(self.grid))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that every task accepts. Where one is None, the model's default is used.

    negative_prompt: what guidance steers away from; one text, or one for each prompt.
    steps: from 1 to the schedule's num_train_timesteps. sampler: a name in the model's `samplers`.
    guidance_scale: 1 means no guidance (arXiv 2207.12598). rescale: from 0 to 1, see `guide`.
    count: how many pictures of each prompt; they are adjacent in the result.
    seed: picture i uses the random numbers of seed + i, so each can be repeated on its own.
    height, width: in pixels. A given picture is resized to them, or keeps its size if they are None.
    latents: noise to start from, (B, C, H/f, W/f), of standard deviation 1, instead of the seed's.
    eta: from 0 to 1, the noise that "ddim" adds in every step.
    clip_skip: how many of the text encoder's last layers are left out; some models were trained like that.
    """

    negative_prompt: str | list[str] = ""
    steps: int | None = None
    sampler: str | None = None
    guidance_scale: float | None = None
    rescale: float = 0.0
    count: int = 1
    seed: int = 0
    height: int | None = None
    width: int | None = None
    latents: Tensor | None = None
    eta: float = 0.0
    clip_skip: int = 0


def make_plan(
    task: str,
    model: "StableDiffusion",
    prompt: str | list[str],
    picture: Pictures | None = None,
    mask: Pictures | None = None,
    strength: float = 1.0,
    /,
    **settings: Any,
) -> Plan:
    """Check a task's arguments, and make its grid, noise and conditions.

    task: one of NEEDS. prompt: one text or several. picture, mask, strength: see `image_to_image` and `inpaint`.
    settings: see `Settings`.

    Raises ValueError when a value is not accepted (the message names those that are) or when the model is made for
    another task.
    """
    asked = Settings(**settings)
    check_task(task, model.kind, picture=picture, mask=mask)
    prompts, negatives = check_prompts(prompt, asked.negative_prompt)
    check_count("count", asked.count)
    batch = len(prompts) * asked.count
    sampler, grid = check_sampler(model, asked, None if picture is None else strength)
    shape, size = check_sizes(model, batch, asked, picture)
    generators = make_generators(asked.seed, batch)
    pictures = None if picture is None else spread("pictures", read_pictures(picture, size), batch, len(prompts))
    hidden = None if mask is None else spread("masks", read_masks(mask, size), batch, len(prompts))
    latents = draw_latents(model, shape, generators, pictures, hidden, strength, asked.latents)
    encode = partial(model.encode_prompt, clip_skip=asked.clip_skip)
    condition, unconditional = make_conditions(encode, prompts, negatives, asked.count)
    return Plan(
        schedule=model.schedule,
        sampler=sampler,
        grid=grid,
        generators=generators,
        condition=condition,
        unconditional=unconditional,
        guidance_scale=model.defaults.guidance_scale if asked.guidance_scale is None else asked.guidance_scale,
        rescale=asked.rescale,
        eta=asked.eta,
        **latents,
    )


def make_conditions(
    encode: Callable[[list[str]], Tensor], prompts: list[str], negatives: list[str], count: int
) -> tuple[Condition, Condition]:
    """What the UNet is told in the two halves of guidance: the prompts, and the negative prompts.

    encode: N texts -> (N, T, C). prompts: P texts, for `count` pictures of each; those of one prompt are adjacent.
    negatives: P texts, or one for all. Both conditions are for all B = P · count pictures, (B, T, C).
    """
    context, negative = encode(prompts), encode(negatives)  # (P, T, C), (P or 1, T, C)
    context = context.repeat_interleave(count, dim=0)  # (P, T, C) -> (B, T, C)
    negative = negative.repeat_interleave(len(context) // len(negative), dim=0)  # -> (B, T, C)
    return Condition(context), Condition(negative)


def draw_latents(
    model: "StableDiffusion",
    shape: tuple[int, ...],
    generators: list[torch.Generator],
    pictures: Tensor | None,
    hidden: Tensor | None,
    strength: float,
    given: Tensor | None,
) -> dict[str, Tensor | None]:
    """The Plan's noise, known, mask and rest.

    The order decides which random numbers are used where: the pictures' latents, the noise, the rest's latents. It is
    Diffusers' order. Diffusers samples the rest's latents even for a model that doesn't read them, but skips the
    latents of pictures that aren't used.
    """
    reads_rest = model.unet.config.in_channels > shape[1]
    known = None if pictures is None or (reads_rest and strength == 1) else model.encode(pictures, generators)
    noise = draw_noise(shape, generators)  # even if latents are given, so that later draws don't depend on them
    noise = (noise if given is None else given).to(model.device, model.sampling_dtype)
    if hidden is None:
        return {"noise": noise, "known": known}
    rest = model.encode(pictures * (1 - hidden.to(pictures)), generators)
    factor = model.autoencoder.config.factor
    mask = hidden[..., ::factor, ::factor].to(noise)  # the first of each f × f pixels, as in Diffusers
    return {"noise": noise, "known": known, "mask": mask, "rest": rest}


def check_task(task: str, kind: str, **given: Any) -> None:
    """Raises ValueError unless a model of this kind can do the task and everything the task needs is given.

    A text-to-image model can do all of NEEDS; any other only what it is made for.
    """
    made_for = KINDS[kind]
    missing = [name for name in NEEDS[task] if given[name] is None]
    if made_for != "text to image" and all(value is None for value in given.values()):
        raise ValueError(f"this model is made for {made_for}; it can't draw from text alone")
    if made_for not in ("text to image", task):
        raise ValueError(f"this model is made for {made_for}, not for {task}")
    if missing:
        raise ValueError(f"{task} needs a {' and a '.join(missing)}")


def check_prompts(prompt: str | list[str], negative: str | list[str]) -> tuple[list[str], list[str]]:
    """The prompts, and the negative prompts: one for all, or one for each."""
    prompts, negatives = (
        list(texts) if isinstance(texts, Iterable) and not isinstance(texts, str | bytes) else [texts]
        for texts in (prompt, negative)
    )
    if not prompts or not negatives or not all(isinstance(text, str) for text in prompts + negatives):
        raise ValueError(
            f"prompt = {prompt!r}, negative_prompt = {negative!r}: must be a text or a list of texts, not empty"
        )
    if len(negatives) != len(prompts) and not isinstance(negative, str):
        raise ValueError(
            f"{len(negatives)} negative prompts for {len(prompts)} prompts; must be one text, or a list of as many"
        )
    return prompts, negatives


def check_sampler(model: "StableDiffusion", asked: Settings, strength: float | None) -> tuple[Sampler, Grid]:
    """The sampler and its grid, or only the grid's end if there is a strength."""
    name = model.defaults.sampler if asked.sampler is None else asked.sampler
    if name not in model.samplers:
        raise ValueError(f"sampler {name!r} is unknown; accepted: {', '.join(model.samplers)}")
    if not 0 <= asked.eta <= 1 or (asked.eta > 0 and name != "ddim"):
        raise ValueError(
            f"eta = {asked.eta} with sampler {name!r}: must be from 0 to 1 with 'ddim', and 0 with any other"
        )
    sampler, steps = model.samplers[name], model.defaults.steps if asked.steps is None else asked.steps
    grid = sampler.make_grid(model.schedule, steps)
    return sampler, grid if strength is None else grid.tail(check_strength(strength, steps))


def check_strength(strength: float, steps: int) -> int:
    """How many of the steps are made: the last int(steps · strength), as in Diffusers."""
    if not 0 <= strength <= 1:
        raise ValueError(f"strength = {strength}, must be a number above 0, and at most 1")
    made = int(steps * strength)
    if made == 0:
        enough = math.ceil(1000 / steps) / 1000
        raise ValueError(f"strength = {strength} leaves none of {steps} steps; raise it to {enough}, or the steps")
    return made


def make_generators(seed: int, batch: int) -> list[torch.Generator]:
    if not is_count(seed, 0, 2**63 - 1):
        raise ValueError(f"seed = {seed!r}, must be a whole number from 0 to 2^63 - 1")
    return [torch.Generator().manual_seed(seed + i) for i in range(batch)]


def check_sizes(
    model: "StableDiffusion", batch: int, asked: Settings, picture: Pictures | None
) -> tuple[tuple[int, ...], tuple[int, int]]:
    """The shape of the latents (B, C, H/f, W/f), and the size of the pictures (H, W)."""
    factor, channels, latents = model.autoencoder.config.factor, model.autoencoder.config.latent_channels, asked.latents
    own = (model.defaults.height, model.defaults.width)
    if latents is not None:
        check_floats("latents", latents, "(B, C, H, W)")
        own = (latents.shape[2] * factor, latents.shape[3] * factor)
    elif picture is not None:
        own = picture_size(picture)
    size = (own[0] if asked.height is None else asked.height, own[1] if asked.width is None else asked.width)
    multiple = factor * 2 ** (len(model.unet.config.block_out_channels) - 1)  # the UNet halves the latents this often
    for name, side in zip(("height", "width"), size, strict=True):
        if not is_count(side) or side % multiple:
            raise ValueError(f"{name} = {side!r}, must be a multiple of {multiple} pixels")
    shape = (batch, channels, size[0] // factor, size[1] // factor)
    if latents is not None and tuple(latents.shape) != shape:
        raise ValueError(f"latents have the shape {tuple(latents.shape)}, must have {shape}")
    return shape, size
