"""The exercises of lesson 09."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from sdlearn.lessons.check import randomize_
from sdlearn.lessons.exercises.exercise import Case, Exercise
from sdlearn.models.attention import SpatialTransformer
from sdlearn.models.blocks import Downsample, ResnetBlock, Upsample
from sdlearn.models.unet import DownBlock, UpBlock, timestep_embedding

TIME, WORDS, GROUPS = 5, 3, 2  # widths of the time embedding and of the context, and the norms' groups, in all blocks


def times(generator: torch.Generator) -> Iterator[Case]:
    """Timesteps (B,) and the number of channels.

    Where angles are large the timesteps are floats, so that they can be shaken: what float32 rounds there is no error.
    """
    yield Case("three timesteps and three frequencies", torch.tensor([2, 0, 17]), 6)
    yield Case("two channels: a single frequency, 1", torch.tensor([0.0, 500.0, 999.0]), 2)
    yield Case("four timesteps, 6 channels", torch.tensor([0, 1, 9, 30]), 6)
    yield Case("one timestep, 64 channels", torch.tensor([981.0]), 64)
    yield Case("timesteps between whole numbers, as Euler's method has them", torch.tensor([946.42, 0.37]), 10)
    yield Case("320 channels", 999 * torch.rand(3, generator=generator), 320)
    yield Case("float64", torch.tensor([0.25, 1.5], dtype=torch.float64), 8)


def blocks(generator: torch.Generator) -> Iterator[Case]:
    """A block's arguments, x (B, C, H, W), and a time embedding (B, time_channels) or none."""

    def random(*shape: int) -> Tensor:
        return 2 * torch.randn(shape, generator=generator)

    same = (4, 4, 5, 2)  # here a shape that is forgotten ends in no error: 3 pictures of 3 × 4 pixels with 4 channels
    yield Case("as many channels out as in", same, random(3, 4, 3, 4), random(3, 5))
    yield Case("more channels out than in", (4, 6, 5, 2), random(2, 4, 3, 7), random(2, 5))
    yield Case("fewer channels out than in", (6, 4, 3, 2), random(1, 6, 5, 4), random(1, 3))
    bare = {"in_channels": 4, "out_channels": 6, "groups": 2}
    yield Case("no time, as in the autoencoder", bare, random(2, 4, 4, 3))
    yield Case("no time, as many channels out as in", {**bare, "out_channels": 4, "eps": 0.5}, random(1, 4, 2, 5))
    yield Case("one pixel, another eps, three groups", (6, 9, 2, 3, 0.5), random(2, 6, 1, 1), random(2, 2))


def resnet(in_channels: int, out_channels: int) -> nn.Module:
    return ResnetBlock(in_channels, out_channels, TIME, GROUPS)


def transformer(channels: int) -> Callable[[], nn.Module]:
    return lambda: SpatialTransformer(channels, 2, WORDS, GROUPS)


class Down(DownBlock):
    """It can't be called: that is what the learner writes."""

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> tuple[Tensor, list[Tensor]]:
        raise RuntimeError("the block is called itself; what it computes is what you are to write")


class Up(UpBlock):
    """It can't be called, either."""

    def forward(self, x: Tensor, skips: list[Tensor], time: Tensor, context: Tensor) -> Tensor:
        raise RuntimeError("the block is called itself; what it computes is what you are to write")


def down_block(channels: list[int], width: int, attends: bool, last: bool = False) -> DownBlock:
    """With random parameters, large enough that time and words make a difference."""
    block = Down(channels, width, resnet, transformer(width) if attends else None, None if last else Downsample)
    return randomize_(block, seed=width + len(channels), std=0.4).requires_grad_(False)


def up_block(channels: list[int], width: int, attends: bool, last: bool = False) -> UpBlock:
    block = Up(channels, width, resnet, transformer(width) if attends else None, None if last else Upsample)
    return randomize_(block, seed=width + len(channels), std=0.4).requires_grad_(False)


def ways_down(generator: torch.Generator) -> Iterator[Case]:
    """A block, a map x (B, C, H, W), a time embedding (B, time_channels) and words (B, T, C)."""
    for words, block, shape in (
        ("two ResnetBlocks, then half the size", down_block([4, 4], 4, False), (2, 4, 4, 6)),
        ("each with a transformer, then half the size", down_block([4, 4], 4, True), (2, 4, 4, 2)),
        ("more channels, one ResnetBlock with a transformer", down_block([4], 6, True), (1, 4, 2, 4)),
        ("the lowest level: no transformer, nothing is halved", down_block([6, 4], 4, False, last=True), (3, 6, 2, 3)),
        ("three, with transformers, nothing is halved", down_block([4, 6, 6], 6, True, last=True), (2, 4, 3, 1)),
        ("four ResnetBlocks, then half the size", down_block([4, 4, 4, 4], 4, False), (1, 4, 2, 6)),
    ):
        x, time = torch.randn(shape, generator=generator), torch.randn(shape[0], TIME, generator=generator)
        yield Case(words, block, x, time, torch.randn(shape[0], 4, WORDS, generator=generator))


def ways_up(generator: torch.Generator) -> Iterator[Case]:
    """A block, a map x (B, C, H, W), the skips that are left, the time embedding and words (B, T, C)."""
    for words, block, below, skips, size in (
        ("two ResnetBlocks, five skips, all of one width", up_block([8, 8], 4, False), 4, [4, 4, 4, 4, 4], (2, 2, 3)),
        ("each with a transformer, then twice the size", up_block([8, 8], 4, True), 4, [4, 4, 4, 4], (2, 3, 2)),
        ("one ResnetBlock with a transformer", up_block([6], 4, True), 4, [4, 2, 2], (1, 4, 2)),
        ("6 channels from below, 2 by the skip", up_block([8, 6], 4, False), 6, [4, 2, 2], (2, 3, 3)),
        ("four ResnetBlocks, six skips", up_block([6, 6, 6, 6], 4, False), 4, [2] * 6, (1, 2, 3)),
        ("the last level: it takes what is left", up_block([12, 8, 6], 4, True, last=True), 8, [2, 4, 4], (3, 2, 4)),
    ):
        batch, *size = size
        x = torch.randn(batch, below, *size, generator=generator)
        left = [torch.randn(batch, channels, *size, generator=generator) for channels in skips]
        time = torch.randn(batch, TIME, generator=generator)
        yield Case(words, block, x, left, time, torch.randn(batch, 4, WORDS, generator=generator))


def ask_first(error: AttributeError) -> None:
    """Raises ValueError, with the cure, if the error is about a layer that isn't in every block."""
    for name in ("time_emb_proj", "conv_shortcut", "attentions", "downsamplers", "upsamplers"):
        if f"no attribute '{name}'" in str(error):
            ask = "`if time is not None`" if name == "time_emb_proj" else "hasattr"
            raise ValueError(f"this block has no `{name}`: not every block needs it, so ask {ask} first") from error


def work(block: nn.Module, x: Tensor, time: Tensor | None = None) -> Tensor:
    """What a block returns. Raises ValueError if it calls a layer that it doesn't have."""
    try:
        return block(x, time)
    except AttributeError as error:
        ask_first(error)
        raise


def descend(
    part: Callable[..., tuple[Tensor, list[Tensor]]], downblock: DownBlock, x: Tensor, time: Tensor, context: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """The map and the skips. Raises ValueError if a layer is called that the block doesn't have."""
    try:
        return part(downblock, x, time, context)
    except AttributeError as error:
        ask_first(error)
        raise


def climb(
    part: Callable[..., Tensor], upblock: UpBlock, x: Tensor, skips: list[Tensor], time: Tensor, context: Tensor
) -> Tensor:
    """The map that comes out.

    Raises ValueError, which says why, if a ResnetBlock can't work with what it gets, or if the map is right but the
    list isn't left as the next block needs it.
    """
    left = list(skips)
    try:
        found = part(upblock, x, left, time, context)
    except AttributeError as error:
        ask_first(error)
        raise
    except RuntimeError as error:
        if "number of channels" in str(error):
            cure = "join x and the skip along the channels, torch.cat([x, skip], dim=1), before each of them"
            raise ValueError(f"a ResnetBlock gets another number of channels than it expects: {cure}") from error
        if "Sizes of tensors must match" in str(error):
            cure = "join them along the channels, dimension 1, and enlarge x only after the last ResnetBlock"
            raise ValueError(f"x and the skip differ in size: {cure}") from error
        raise
    right = UpBlock.forward(upblock, x, list(skips), time, context)
    there = skips[: len(skips) - len(upblock.resnets)]
    alike = isinstance(found, Tensor) and found.shape == right.shape
    alike = alike and torch.allclose(found.to(right), right, rtol=1e-3, atol=1e-3)  # else the wrong value tells more
    if alike and [*map(id, left)] != [*map(id, there)]:
        counts = f"{len(skips)} skips were in the list, {len(there)} must be left, and {len(left)} are"
        raise ValueError(f"the map is right, but {counts}; take them off the list itself, skips.pop()")
    return found


EXERCISES = (
    Exercise("09.timestep_embedding", timestep_embedding, times, 2, 6, part="sinusoids", box="UNet"),
    Exercise(
        "09.resnet_block", ResnetBlock, blocks, difficulty=2, minutes=8, run=work, part="resnet_block", box="UNet"
    ),
    Exercise(
        "09.way_down",
        DownBlock.forward,
        ways_down,
        difficulty=2,
        minutes=7,
        run=descend,
        part="down_block",
        box="UNet",
        called="way_down",
    ),
    Exercise(
        "09.way_up",
        UpBlock.forward,
        ways_up,
        difficulty=2,
        minutes=6,
        run=climb,
        part="up_block",
        box="UNet",
        called="way_up",
    ),
)
