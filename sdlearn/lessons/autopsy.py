"""Text to image as one program in the open, and its classic bugs: each is a change of one of its lines.

Nothing here is stored: `spoilt(bug)` makes the program with that line changed, and it draws like any other.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdlearn.diffusion.samplers import draw_noise
from sdlearn.diffusion.schedule import Schedule
from sdlearn.lessons.show import whole_source
from sdlearn.pictures import to_pixels


def draw(model, combine, to_bytes, prompts, negative="", steps=16, scale=3.0, seed=3):
    """From prompts to the bytes of a picture for each, by Euler's method."""
    texts = [negative] * len(prompts) + prompts
    ids = model.tokenizer(texts).to(model.device)  # (2B, T)
    context = model.text_encoder(ids)  # (2B, T, C)

    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    side = model.unet.config.sample_size
    noise = draw_noise((len(prompts), model.unet.config.in_channels, side, side), generators)  # (B, C, H, W)
    euler = model.samplers["euler"]
    grid = euler.make_grid(model.schedule, steps)
    start = noise.to(model.device) * euler.initial_scale(model.schedule, grid)

    def denoise(x, t):
        both = model.unet(torch.cat([x, x]), t, context)  # (2B, C, H, W)
        without, with_words = both.chunk(2)
        guided = combine(without, with_words, scale)
        return guided

    for step in euler.loop(denoise, start, grid, model.schedule):
        latents = step.x
    pictures = model.decode_latents(model.autoencoder, latents)  # (B, 3, fH, fW)
    pixels = to_bytes(pictures)  # (B, fH, fW, 3)
    return pixels


@dataclass(frozen=True)
class Bug:
    """One wrong line. stage: it is "before", "in" or "behind" the loop. old, new: what is replaced in the line."""

    name: str
    stage: str
    old: str
    new: str


BUGS = (
    Bug("the prompts are in another order", "before", "+ prompts", "+ prompts[::-1]"),
    Bug("v is taken for noise", "in", "start, grid, model.schedule)", "start, grid, as_epsilon(model.schedule))"),
    Bug("t is told in thousandths", "in", "t, context)", "t / 1000, context)"),
    Bug("the two halves are swapped", "in", "without, with_words = both", "with_words, without = both"),
    Bug(
        "another model's scaling factor",
        "behind",
        "model.decode_latents(model.autoencoder, latents)",
        "model.autoencoder.decode(latents / 0.18215)",
    ),
    Bug("nothing is clipped", "behind", "to_bytes(pictures)", "unclipped(pictures)"),
    Bug(
        "reshape instead of permute",
        "behind",
        "to_bytes(pictures)",
        "to_pixels(pictures).reshape(to_bytes(pictures).shape)",
    ),
    Bug("blue, green, red", "behind", "to_bytes(pictures)", "to_bytes(pictures).flip(3)"),
)
"""The eight of the autopsy. The first four change what the loop does, the others what is done with its result."""

MORE_BUGS = (
    Bug("no prompt", "before", "len(prompts) + prompts", "len(prompts) * 2"),
    Bug("it is told 999 at every step", "in", "t, context)", "999, context)"),
    Bug("rows and columns are exchanged", "behind", "to_bytes(pictures)", "to_bytes(pictures).transpose(1, 2)"),
    Bug("the noise isn't scaled", "before", " * euler.initial_scale(model.schedule, grid)", ""),
)


def unclipped(pictures: Tensor) -> Tensor:
    """`to_bytes` without its clamp. A whole number that is too large for a byte wraps round: 256 becomes 0."""
    return ((pictures + 1) * 127.5).round().int().to(torch.uint8).permute(0, 2, 3, 1)


def as_epsilon(schedule: Schedule) -> Schedule:
    """The same schedule for a network that predicts the noise."""
    return type(schedule)(replace(schedule.config, prediction_type="epsilon"))


def spoilt(bug: Bug | None = None) -> Callable[..., Tensor]:
    """`draw` with one line changed, or as it is. Raises ValueError unless the line is there exactly once."""
    text = whole_source(draw)
    if bug is not None:
        if text.count(bug.old) != 1:
            raise ValueError(f"{bug.old!r} is {text.count(bug.old)} times in the program, must be there once")
        text = text.replace(bug.old, bug.new)
    space = globals() | {"to_pixels": to_pixels}  # which the lines of some bugs need
    exec(compile(text, f"<{bug.name if bug else 'right'}>", "exec"), space)
    return space["draw"]


def lines(bug: Bug) -> tuple[str, str]:
    """The line of the program, and what the bug makes of it."""
    right = next(line for line in whole_source(draw).splitlines() if bug.old.partition("\n")[0] in line)
    first = (bug.old.partition("\n")[0], bug.new.partition("\n")[0])
    return right.strip(), right.strip().replace(*first)
