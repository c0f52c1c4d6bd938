"""The exercises of lesson 11."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from sdlearn.diffusion.samplers import SAMPLERS, Sampler, ddpm
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.lessons.by_hand import text_to_image
from sdlearn.lessons.check import randomize_
from sdlearn.lessons.exercises.exercise import Case, Exercise
from sdlearn.lessons.xray import first_difference
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig
from sdlearn.models.text import TextConfig, TextEncoder
from sdlearn.models.unet import UNetConfig
from sdlearn.pictures import from_bytes, to_bytes
from sdlearn.pipeline import StableDiffusion
from sdlearn.tasks.plan import Defaults
from sdlearn.tokenizer import Tokenizer, train_bpe

CAPTIONS = ["a red apple on a blue background", "a green cat"]


def pixels(generator: torch.Generator) -> Iterator[Case]:
    """Bytes (B, H, W, 3): pictures that aren't square, a single pixel, all values, and sides of 3."""

    def random(*shape: int) -> Tensor:
        return torch.randint(256, shape, generator=generator, dtype=torch.uint8)

    yield Case("2 pictures, 5 high and 7 wide", random(2, 5, 7, 3))
    yield Case("3 pictures of 3×3 pixels", random(3, 3, 3, 3))
    yield Case("one pixel", random(1, 1, 1, 3))
    yield Case("a dark picture: no number is above 60", random(1, 4, 2, 3) // 5)
    yield Case("all 256 numbers", torch.arange(256, dtype=torch.uint8).repeat(3).reshape(1, 32, 8, 3))
    yield Case("a wide picture, red alone is bright", torch.tensor([250, 9, 2], dtype=torch.uint8).repeat(1, 2, 9, 1))


def pictures(generator: torch.Generator) -> Iterator[Case]:
    """Pictures (B, 3, H, W), also with numbers outside [−1, 1], and in float64."""
    for shape in ((2, 3, 5, 7), (3, 3, 3, 3), (1, 3, 1, 4)):
        x = torch.rand(shape, generator=generator) * 2.4 - 1.2
        yield Case(f"{shape[0]} pictures, {shape[2]} high and {shape[3]} wide, some numbers are outside", x)
    yield Case("numbers far outside, from −5 to 5", torch.linspace(-5, 5, 24).reshape(1, 3, 4, 2))
    bright = torch.arange(256).repeat(3).reshape(1, 3, 8, 32) + 1 / 3
    yield Case("all 256 whole numbers, each a third of a step too bright", bright / 127.5 - 1)
    yield Case("a grey picture: nothing is near black or white", torch.rand(2, 3, 2, 3, generator=generator) * 0.2)
    yield Case("float64", torch.rand(1, 3, 3, 2, generator=generator).double() * 2 - 1)


@cache
def words_network() -> tuple[Tokenizer, TextEncoder]:
    tokenizer = train_bpe(CAPTIONS, 530)
    end = len(tokenizer) - 1
    config = TextConfig(
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=8,
        vocab_size=len(tokenizer),
        bos_token_id=end - 1,
        eos_token_id=end,
        pad_token_id=end,
    )
    return tokenizer, at_random(TextEncoder(config))


class Painter(nn.Module):
    """Stands in for a UNet. What it predicts depends on all that it is told, and takes no time."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Parameter(torch.zeros(config.cross_attention_dim))

    def forward(self, x: Tensor, t: float, context: Tensor, **others: None) -> Tensor:
        told = torch.sin(3 * context @ self.words).mean(dim=1).view(-1, 1, 1, 1)  # (B, T, C) -> (B, 1, 1, 1)
        return torch.sin((1 + told) * x + t / 300) + 2 * told


@cache
def picture_networks(channels: int, side: int) -> tuple[Autoencoder, Painter]:
    config = AutoencoderConfig(
        block_out_channels=(4, 4),
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=2,
        sample_size=2 * side,
        scaling_factor=0.7,
        mid_block_add_attention=False,
    )
    painter = UNetConfig(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(4, 8),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=2,
    )
    return at_random(Autoencoder(config)), at_random(Painter(painter))


def at_random(network: nn.Module) -> nn.Module:
    return randomize_(network, std=0.3).double().requires_grad_(False).eval()


def small_model(
    kind: str = "v_prediction", channels: int = 4, side: int = 4, samplers: Mapping[str, Sampler] = SAMPLERS
) -> StableDiffusion:
    """A model with few weights, random ones, in float64. Its defaults are no case's settings."""
    autoencoder, painter = picture_networks(channels, side)
    schedule = Schedule(ScheduleConfig(prediction_type=kind, timestep_spacing="trailing"))
    defaults = Defaults(2 * side, 2 * side, sampler="heun", steps=5, guidance_scale=4.5)
    return StableDiffusion(*words_network(), autoencoder, painter, schedule, samplers=samplers, defaults=defaults)


def drawings(generator: torch.Generator) -> Iterator[Case]:
    """Models, prompts and settings: a negative prompt, steps, a scale, a sampler, a seed."""
    red, blue, cat = "a red apple", "a blue background", "a green cat"
    yield Case("one prompt, all settings at their defaults", small_model(), [red])
    yield Case("one prompt, 3 steps, euler starts from larger noise", small_model(), [cat], "", 3, 2.5, "euler", 7)
    yield Case("a negative prompt", small_model("epsilon"), [red], blue, 2, 3.5, "ddim", 1)
    yield Case("latents of 3 channels, 6 × 6", small_model(channels=3, side=6), [blue], cat, 2, 1.5, "dpmpp_2m", 4)
    yield Case("ddpm draws noise in each step", small_model(), [red], "", 4, 2.0, "ddpm", 11)
    yield Case("two prompts, one negative prompt", small_model(), [red, cat], blue, 3, 2.5, "dpmpp_2m", 3)
    yield Case("the same prompt three times", small_model("epsilon"), [cat] * 3, "", 2, 1.5, "ddim", 20)
    yield Case("two prompts, fresh noise in each step", small_model(), [cat, red], red, 3, -1.5, "euler_ancestral", 6)
    yield Case("guidance_scale = 1, one step", small_model("epsilon"), [blue, cat], cat, 1, 1, "ddim", 2)
    yield Case("guidance_scale = 0", small_model(), [blue, cat], red, 2, 0, "euler", 9)
    own = SAMPLERS | {"ddim": replace(SAMPLERS["ddim"], loop=ddpm)}  # as if a learner had written it
    yield Case("the model has a ddim of its own", small_model(samplers=own), [red], cat, 3, 2.0, "ddim", 5)


def x_rays(generator: torch.Generator) -> Iterator[Case]:
    """Two x-rays of one program, and a tolerance: they agree, or differ in one of the ways in which programs do."""

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).clamp(-3, 3)

    def seen() -> dict[str, Tensor]:
        return {"ids": torch.tensor([[7, 3, 9], [7, 9, 9]]), "words": random(2, 3, 4), "noise": random(1, 2, 3, 3)}

    theirs = seen()
    yield Case("the last one differs", theirs | {"noise": theirs["noise"] + 1}, theirs, 0.01)
    theirs = seen()
    yield Case("they agree", {name: one.clone() for name, one in theirs.items()}, theirs)
    theirs = seen()
    yield Case("they are equal, and the tolerance is 0", theirs, theirs, 0.0)
    theirs = seen()
    yield Case("the first two differ", theirs | {"words": -theirs["words"], "ids": theirs["ids"] + 1}, theirs, 0.1)
    theirs = seen()
    yield Case("the last two differ", theirs | {"words": -theirs["words"], "noise": random(1, 2, 3, 3)}, theirs)
    theirs = seen()
    yield Case("a few of the numbers are too small", theirs | {"words": theirs["words"].clamp(max=0.2)}, theirs)
    theirs = {"zeta": torch.tensor([[1.0, -2.0], [0.5, 0.3], [2.0, -1.0]]), "alpha": random(4)}
    smaller = {"zeta": theirs["zeta"].clamp(max=0.1), "alpha": theirs["alpha"] + 3}
    yield Case("some are too small, and names in no alphabetical order", smaller, theirs, 1e-3)
    theirs = seen()
    off = theirs["noise"].clone()
    off[0, 1, 2, 0] += 0.02
    yield Case("one number differs by twice the tolerance", theirs | {"noise": off}, theirs, 0.01 / 3.5)
    theirs = {"large": 1000 * random(5), "next": random(2)}
    yield Case("large numbers, all within the tolerance", theirs | {"large": theirs["large"] * 1.005}, theirs, 0.02)
    theirs = {"negative": -1000 - 100 * random(5).abs(), "next": random(2)}
    yield Case("large negative ones, within it", theirs | {"negative": theirs["negative"] * 1.005}, theirs, 0.02)
    theirs = {"small": 0.001 * random(6), "next": random(2)}
    yield Case("small numbers, less apart than the tolerance", theirs | {"small": 2 * theirs["small"]}, theirs, 0.01)
    theirs = seen()
    broken = theirs["words"].clone()
    broken.view(-1)[broken.abs().argmin()] = torch.nan  # where even 0 would be within the tolerance
    yield Case("one number is NaN", theirs | {"words": broken}, theirs, 0.5)
    broken = theirs["words"].clone()
    broken.view(-1)[broken.abs().argmax()] = torch.nan
    yield Case("the largest number is NaN", theirs | {"words": broken}, theirs, 0.2)
    endless = theirs["words"].clone()
    endless[0, 2, 1] = torch.inf
    yield Case("one number is infinite", theirs | {"words": endless}, theirs, 0.5)
    theirs = {"row": torch.full((1, 4), 0.5), "next": random(2)}
    wide = {"row": torch.full((3, 4), 0.5), "next": theirs["next"] + 9}
    yield Case("three equal rows for one: they fit, but the shape is another", wide, theirs)
    theirs = {"row": torch.full((1, 4), 0.5), "next": random(2)}
    flat = {"row": torch.full((4,), 0.5), "next": theirs["next"] + 9}
    yield Case("a dimension less, the numbers are the same", flat, theirs)
    theirs = {"column": torch.full((2, 3), 0.5), "next": random(2)}
    thin = {"column": torch.full((2, 1), 0.5), "next": theirs["next"] + 9}
    yield Case("one column for three, the numbers are the same", thin, theirs)
    theirs = {"start": random(2, 3), "picture": random(3, 1)}
    yield Case("the shape is turned, the numbers are the same", theirs | {"start": theirs["start"].T}, theirs, 0.1)
    theirs = {"pixels": torch.tensor([[5, 200], [90, 7]], dtype=torch.uint8), "next": random(2)}
    near = {"pixels": torch.tensor([[3, 202], [91, 5]], dtype=torch.uint8), "next": theirs["next"]}
    yield Case("bytes that differ by 2", near, theirs, 0.015)
    theirs = {"pixels": torch.tensor([[5, 200], [90, 7]], dtype=torch.uint8), "next": random(2)}
    yield Case("bytes that wrapped round", theirs | {"pixels": theirs["pixels"] + 60}, theirs, 0.1)
    theirs = {"exact": torch.tensor([[0.7, -1.3], [2.1, 0.4]], dtype=torch.float64), "next": random(2)}
    yield Case("float64, a difference of 1e-9", theirs | {"exact": theirs["exact"] + 1e-9}, theirs, 1e-11)
    theirs = {"guided": 2 + random(3, 3).abs(), "next": random(2)}
    yield Case("ours are three times as large", theirs | {"guided": 3 * theirs["guided"]}, theirs, 0.8)
    theirs = {"guided": torch.tensor([10.0, 5.0]), "next": random(2)}
    yield Case("ours are a little smaller", theirs | {"guided": torch.tensor([9.0, 5.0])}, theirs, 0.105)
    theirs = {"guided": random(5), "next": random(2)}
    yield Case("all numbers are too small", theirs | {"guided": theirs["guided"] - 1}, theirs, 0.01)
    theirs = {"guided": torch.tensor([1.0, -0.5]), "next": random(2)}
    yield Case("the largest is 1", theirs | {"guided": torch.tensor([1.0, -0.485])}, theirs, 0.01)
    theirs = {"guided": torch.tensor([100.0, 0.5]), "next": random(2)}
    yield Case("a small number beside a large one", theirs | {"guided": torch.tensor([100.0, 0.9])}, theirs, 0.01)
    theirs = {"guided": torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]), "next": random(2)}
    most = theirs["guided"] + torch.tensor([0.0, 0.3, 0.3, 0.0, 0.3])
    yield Case("three of five numbers differ", theirs | {"guided": most}, theirs, 0.05)
    theirs = {"guided": torch.linspace(-1, 1, 9), "next": random(2)}
    slight = theirs["guided"] + 0.006 * torch.tensor([1.0, -1, 1, 1, -1, 1, -1, 1, 1])
    yield Case("nine small differences, each within the tolerance", theirs | {"guided": slight}, theirs, 0.01)
    theirs = {"guided": torch.tensor([0.5, -1.0, 0.2, 0.7]), "next": random(2)}
    slight = theirs["guided"] + torch.tensor([0.006, 0.0, -0.006, 0.0])
    yield Case("two small differences, each within the tolerance", theirs | {"guided": slight}, theirs, 0.01)
    theirs = {"guided": torch.tensor([[2.0, -1.0], [0.5, 1.0]]), "next": random(2)}
    same_top = torch.tensor([[2.0, -1.0], [-0.5, 1.0]])
    yield Case("the largest numbers agree, another one has the wrong sign", theirs | {"guided": same_top}, theirs, 0.01)
    theirs = {"guided": random(2, 2), "next": random(2)}
    yield Case("0.00005 apart", theirs | {"guided": theirs["guided"] + 5e-5}, theirs, 0.001)


def name_found(
    part: Callable[..., str | None], ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float = 1e-4
) -> str:
    """What `part` finds, as it is printed: None is an answer here, and no sign of a missing `return`."""
    return repr(part(ours, theirs, tolerance))


EXERCISES = (
    Exercise("11.from_bytes", from_bytes, pixels, difficulty=1, minutes=4),
    Exercise("11.to_bytes", to_bytes, pictures, difficulty=1, minutes=4, box="decoder"),
    Exercise(
        "11.text_to_image", text_to_image, drawings, difficulty=3, minutes=12, part="text_to_image", box="sampler"
    ),
    Exercise("11.first_difference", first_difference, x_rays, difficulty=2, minutes=7, run=name_found),
)
