"""The exercises of lesson 10."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sdlearn.diffusion.guidance import Condition, drop_captions, guide, rescale_std
from sdlearn.lessons.exercises.compare import describe
from sdlearn.lessons.exercises.exercise import Case, Exercise
from sdlearn.tasks.plan import make_conditions


def batches(generator: torch.Generator) -> Iterator[Case]:
    """Contexts (B, T, C), the empty one (T, C), a share, and a generator for the draws."""
    for i, (words, shape, share) in enumerate(
        (
            ("as many captions as tokens and channels", (6, 6, 6), 0.4),
            ("2 captions", (2, 4, 2), 0.7),
            ("9 captions, half of them lost", (9, 3, 5), 0.5),
            ("40 captions, one in ten lost", (40, 2, 3), 0.1),
            ("30 captions, most of them lost", (30, 1, 4), 0.8),
            ("share = 0: all stay", (5, 2, 3), 0.0),
            ("share = 1: all are lost", (5, 3, 2), 1.0),
        )
    ):
        context, empty = torch.randn(shape, generator=generator), torch.randn(shape[1:], generator=generator)
        yield Case(words, context, empty, share, torch.Generator().manual_seed(10 + i))
    exactly = torch.rand(5, generator=torch.Generator().manual_seed(20))[2].item()
    context, empty = torch.randn(5, 2, 3, generator=generator), torch.randn(2, 3, generator=generator)
    yield Case("one number is exactly the share", context, empty, exactly, torch.Generator().manual_seed(20))
    context = torch.randn(12, 2, 3, generator=generator).double() + 1e-9
    empty = torch.randn(2, 3, generator=generator).double() + 1e-9
    yield Case("float64, which must be kept", context, empty, 0.25, torch.Generator().manual_seed(3))


def network(channels: int) -> Callable[..., Tensor]:
    """What stands for the UNet: it mixes everything that it is told, each picture by itself."""

    def unet(x: Tensor, t: Any, context: Tensor, class_labels: Tensor | None = None, residuals: Any = None) -> Tensor:
        if len(context) != len(x):
            raise ValueError(f"the UNet gets {len(x)} pictures, and a context for {len(context)}")
        each = context.flatten(1).mean(1) + torch.as_tensor(t).to(x) / 500
        each = (each if class_labels is None else each + class_labels).view(-1, 1, 1, 1)
        return torch.tanh(2 * x[:, :channels] * each) + each * x.mean((1, 2, 3), keepdim=True)

    return unet


def halves(generator: torch.Generator) -> Iterator[Case]:
    """A network, both conditions, guidance_scale, rescale, x, t and, in one case, another rule than `combine`."""

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def conditions(batch: int, tokens: int = 7, width: int = 6) -> tuple[Condition, Condition]:
        return Condition(0.5 + random(batch, tokens, width)), Condition(random(batch, tokens, width) - 0.5)

    yield Case("scale 1", network(4), *conditions(2), 1.0, 0.0, random(2, 4, 3, 3), 700)
    yield Case("scale 3.5, 3 pictures", network(4), *conditions(3), 3.5, 0.0, random(3, 4, 5, 2), 501)
    yield Case("scale −1.5, one picture, t = 0", network(2), *conditions(1), -1.5, 0.0, random(1, 2, 3, 7), 0)
    yield Case("scale 0: the words don't count", network(3), *conditions(2), 0, 0.0, random(2, 3, 4, 4), 999)
    words, _ = conditions(2)
    yield Case("scale 1, and unconditional is None", network(4), words, None, 1, 0.0, random(2, 4, 2, 5), 301)
    yield Case("scale 1 with rescale = 0.5", network(3), *conditions(2), 1.0, 0.5, random(2, 3, 2, 5), 20)
    yield Case("scale 7.5, rescale = 0.7", network(4), *conditions(3), 7.5, 0.7, random(3, 4, 5, 2), 250)
    each_t = torch.tensor([10, 500, 990])
    yield Case("scale 2, a timestep for each picture", network(4), *conditions(3), 2.0, 0.0, random(3, 4, 2, 3), each_t)
    words, without = conditions(2)
    words = Condition(words.context, random(2, 3, 4, 5), torch.tensor([4, 1]))
    yield Case("scale 4, with channels and class_labels", network(4), words, without, 4.0, 0.0, random(2, 4, 4, 5), 8)
    words, without = conditions(2)
    for scale in (0, 1):
        words = f"scale {scale}, with channels and class_labels"
        told, other = conditions(3)
        told = Condition(told.context, random(3, 2, 2, 5), torch.tensor([2, 0, 3]))
        yield Case(words, network(3), told, other, scale, 0.0, random(3, 3, 2, 5), 444)
    words, without = conditions(2)
    rule = {"combine": lambda without, conditional, scale: without.abs() + scale * conditional}
    yield Case("another rule than `combine`", network(3), words, without, 5.0, 0.0, random(2, 3, 2, 4), 77, rule)
    words, without = (Condition(one.context.double()) for one in conditions(2))
    x = random(2, 4, 3, 5).double() + 1e-9
    yield Case("float64, scale 10, rescale = 1", network(4), words, without, 10.0, 1.0, x, 999)


def guided(
    part: Callable[..., Any],
    unet: Callable[..., Tensor],
    condition: Condition,
    unconditional: Condition | None,
    guidance_scale: float,
    rescale: float,
    x: Tensor,
    t: Any,
    others: dict[str, Any] | None = None,
) -> Any:
    """What the function that `part` returns predicts. Raises ValueError for more looks than needed, or no function."""
    batches: list[int] = []

    def counted(x: Tensor, *told: Any, **named: Any) -> Tensor:
        batches.append(len(x))
        return unet(x, *told, **named)

    denoise = part(counted, condition, unconditional, guidance_scale, rescale, **(others or {}))
    if not callable(denoise):
        raise ValueError(f"it returns {describe(denoise)}, but it must return a function, denoise(x, t)")
    prediction = denoise(x, t)
    if len(batches) > 1:
        raise ValueError(f"denoise(x, t) calls the UNet {len(batches)} times; both halves go through it in one batch")
    if guidance_scale == 1 and sum(batches) > len(x):
        raise ValueError("at scale 1 only the prediction with the condition is needed, half of the batch")
    return prediction


def pairs(generator: torch.Generator) -> Iterator[Case]:
    """Guided and conditional predictions (B, C, H, W), of other means and spreads, and rescale."""
    for words, shape, rescale in (
        ("one picture, rescale = 1: all the way back", (1, 2, 7, 3), 1.0),
        ("3 pictures, rescale = 0.7", (3, 4, 5, 6), 0.7),
        ("2 pictures of one channel, rescale = 0.25", (2, 1, 3, 4), 0.25),
        ("as many pictures as channels, rows and columns, rescale = 0.4", (4, 4, 4, 4), 0.4),
        ("rescale = 0: nothing is changed", (2, 3, 4, 1), 0.0),
        ("2 pictures of two numbers each, rescale = 0.9", (2, 2, 1, 1), 0.9),
    ):
        each = 1 + torch.arange(shape[0]).view(-1, 1, 1, 1)  # another spread for each picture
        channels = torch.arange(shape[1]).view(-1, 1, 1)  # another mean for each channel
        guided = 3 * each * torch.randn(shape, generator=generator) + channels + 1
        yield Case(words, guided, torch.randn(shape, generator=generator) / each - 2 * channels, rescale)
    quiet, loud = torch.randn(2, 2, 3, 4, 5, generator=generator)
    yield Case("the conditional prediction is the louder one, rescale = 0.8", quiet / 4 + 1, 3 * loud, 0.8)
    guided, conditional = torch.randn(2, 2, 3, 4, 2, generator=generator).double()
    yield Case("float64, which must be kept, rescale = 0.5", 5 * guided + 1e-9, conditional + 1e-9, 0.5)


def encoder(dtype: torch.dtype = torch.float32) -> Callable[[list[str]], Tensor]:
    """What stands for `model.encode_prompt`: another context for each text, (N, 3, 2)."""

    def encode(texts: list[str] | str) -> Tensor:
        texts = [texts] if isinstance(texts, str) else texts
        seeds = [sum((i + 1) * byte for i, byte in enumerate(text.encode())) for text in texts]
        each = [torch.randn(3, 2, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(each).to(dtype)

    return encode


def prompts(generator: torch.Generator) -> Iterator[Case]:
    """An encoder, prompts, negative prompts, and how many pictures of each prompt."""
    three = ["a cat", "an owl", "a red apple"]
    yield Case("3 prompts, one negative prompt, 2 pictures of each", encoder(), three, ["snow"], 2)
    yield Case("2 prompts, 2 negative prompts, 3 pictures of each", encoder(), three[:2], ["snow", "rain"], 3)
    yield Case("3 prompts, 3 negative prompts, 3 pictures of each", encoder(), three, ["snow", "", "rain"], 3)
    yield Case("one prompt, one picture", encoder(), ["a fox"], ["blue"], 1)
    yield Case("one prompt, the empty negative prompt, 4 pictures", encoder(), ["a fox"], [""], 4)
    yield Case("4 prompts, one negative prompt, one picture of each", encoder(), [*three, "a fox"], ["snow"], 1)
    yield Case("the same negative prompt twice", encoder(), three[1:], ["snow", "snow"], 2)
    yield Case("float64", encoder(torch.float64), three, ["rain"], 2)


EXERCISES = (
    Exercise("10.drop_captions", drop_captions, batches, difficulty=1, minutes=6, box="guidance"),
    Exercise("10.guide", guide, halves, difficulty=2, minutes=10, run=guided, part="guide", box="guidance"),
    Exercise("10.make_conditions", make_conditions, prompts, difficulty=1, minutes=5, box="guidance"),
    Exercise("10.rescaled", rescale_std, pairs, difficulty=1, minutes=6, box="guidance", called="rescaled"),
)
