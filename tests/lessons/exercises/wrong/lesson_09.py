"""Wrong answers to the exercises of lesson 09 as learners type them, and a piece of what they are told."""

import math

import torch
import torch.nn.functional as F
from torch import nn


def sines_first(t, channels):
    half = channels // 2
    w = torch.exp(-math.log(10_000) * torch.arange(half) / half)
    angles = t[:, None] * w[None]
    return torch.cat([torch.sin(angles), torch.cos(angles)], -1)


def as_in_ddpm(t, channels):
    half = channels // 2
    w = torch.exp(torch.arange(half) * -(math.log(10_000) / (half - 1 if half > 1 else 1)))
    angles = t.float()[:, None] * w[None, :]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def taking_turns(t, channels):
    half = channels // 2
    angles = t[:, None] * 10_000 ** (-torch.arange(half) / half)
    out = torch.zeros(len(t), channels)
    out[:, 0::2], out[:, 1::2] = angles.cos(), angles.sin()
    return out


def as_in_transformers(t, channels):
    half = channels // 2
    angles = t[:, None] * 10_000 ** (-torch.arange(half) / half)
    out = torch.zeros(len(t), channels)
    out[:, 0::2], out[:, 1::2] = angles.sin(), angles.cos()
    return out


def of_channels(t, channels):
    w = 10_000 ** (-torch.arange(channels // 2) / channels)
    return torch.cat([torch.cos(t[:, None] * w), torch.sin(t[:, None] * w)], dim=1)


def without_minus(t, channels):
    w = 10_000 ** (torch.arange(channels // 2) / (channels // 2))
    return torch.cat([torch.cos(t[:, None] * w), torch.sin(t[:, None] * w)], dim=1)


def t_as_a_row(t, channels):
    w = 10_000 ** (-torch.arange(channels // 2) / (channels // 2))
    return torch.cat([torch.cos(t * w), torch.sin(t * w)], dim=-1)


def from_0_to_1(t, channels):
    w = 10_000 ** (-torch.arange(channels // 2) / (channels // 2))
    return torch.cat([torch.cos(t[:, None] / 1000 * w), torch.sin(t[:, None] / 1000 * w)], dim=1)


def whole_turns(t, channels):
    w = 10_000 ** (-torch.arange(channels // 2) / (channels // 2))
    return torch.cat([torch.cos(2 * math.pi * t[:, None] * w), torch.sin(2 * math.pi * t[:, None] * w)], dim=1)


def whole_numbers(t, channels):
    w = 10_000 ** (-torch.arange(channels // 2) / (channels // 2))
    t = t.int()
    return torch.cat([torch.cos(t[:, None] * w), torch.sin(t[:, None] * w)], dim=1)


def counted_from_1(t, channels):
    w = 10_000 ** (-torch.arange(1, channels // 2 + 1) / (channels // 2))
    return torch.cat([torch.cos(t[:, None] * w), torch.sin(t[:, None] * w)], dim=1)


def one_for_each_channel(t, channels):
    w = 10_000 ** (-torch.arange(channels) / channels)
    return torch.cat([torch.cos(t[:, None] * w), torch.sin(t[:, None] * w)], dim=1)


def only_cosines(t, channels):
    w = 10_000 ** (-torch.arange(channels // 2) / (channels // 2))
    return torch.cos(t[:, None] * w)


def angles_alone(t, channels):
    w = 10_000 ** (-torch.arange(channels // 2) / (channels // 2))
    return torch.cat([t[:, None] * w, t[:, None] * w], dim=1)


def stacked(t, channels):
    w = 10_000 ** (-torch.arange(channels // 2) / (channels // 2))
    return torch.stack([torch.cos(t[:, None] * w), torch.sin(t[:, None] * w)], dim=1)


def for_64_channels(t, channels):
    w = 10_000 ** (-torch.arange(32) / 32)
    return torch.cat([torch.cos(t[:, None] * w), torch.sin(t[:, None] * w)], dim=1)


def no_return(t, channels):
    w = 10_000 ** (-torch.arange(channels // 2) / (channels // 2))
    torch.cat([torch.cos(t[:, None] * w), torch.sin(t[:, None] * w)], dim=1)


class Bare(nn.Module):
    def __init__(self, in_channels, out_channels, time_channels=None, groups=32, eps=1e-5):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        if time_channels is not None:
            self.time_emb_proj = nn.Linear(time_channels, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def shortcut(self, x):
        return self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x

    def offset(self, time):
        return 0 if time is None else self.time_emb_proj(F.silu(time))[:, :, None, None]


class AddedEarly(Bare):
    def forward(self, x, time=None):
        h = self.conv1(F.silu(self.norm1(x))) + self.offset(time)
        h = h + self.shortcut(x)
        return self.conv2(F.silu(self.norm2(h)))


class NothingAdded(Bare):
    def forward(self, x, time=None):
        h = self.conv1(F.silu(self.norm1(x))) + self.offset(time)
        return self.conv2(F.silu(self.norm2(h)))


class ShortcutForgotten(Bare):
    def forward(self, x, time=None):
        h = self.conv1(F.silu(self.norm1(x))) + self.offset(time)
        return x + self.conv2(F.silu(self.norm2(h)))


class ShortcutAlways(Bare):
    def forward(self, x, time=None):
        h = self.conv1(F.silu(self.norm1(x))) + self.offset(time)
        h = self.conv2(F.silu(self.norm2(h)))
        return self.conv_shortcut(x) + h


class TimeWithoutSilu(Bare):
    def forward(self, x, time=None):
        h = self.conv1(F.silu(self.norm1(x)))
        if time is not None:
            h = h + self.time_emb_proj(time)[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class TimeIsNeeded(Bare):
    def forward(self, x, time=None):
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time_emb_proj(F.silu(time))[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class TimeForgotten(Bare):
    def forward(self, x, time=None):
        h = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class TimeFlat(Bare):
    def forward(self, x, time=None):
        h = self.conv1(F.silu(self.norm1(x)))
        if time is not None:
            h = h + self.time_emb_proj(F.silu(time))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class TimeAtTheEnd(Bare):
    def forward(self, x, time=None):
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return self.shortcut(x) + h + self.offset(time)


class TimeAfterTheNorm(Bare):
    def forward(self, x, time=None):
        h = self.norm2(self.conv1(F.silu(self.norm1(x)))) + self.offset(time)
        return self.shortcut(x) + self.conv2(F.silu(h))


class ConvolutionsFirst(Bare):
    def forward(self, x, time=None):
        h = F.silu(self.norm1(self.conv1(x))) + self.offset(time)
        return self.shortcut(x) + F.silu(self.norm2(self.conv2(h)))


class Relu(Bare):
    def forward(self, x, time=None):
        h = self.conv1(F.relu(self.norm1(x))) + self.offset(time)
        return self.shortcut(x) + self.conv2(F.relu(self.norm2(h)))


class NoSilu(Bare):
    def forward(self, x, time=None):
        h = self.conv1(self.norm1(x)) + self.offset(time)
        return self.shortcut(x) + self.conv2(self.norm2(h))


class NormalisedIsAdded(Bare):
    def forward(self, x, time=None):
        x = self.norm1(x)
        h = self.conv1(F.silu(x)) + self.offset(time)
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class SecondNormForgotten(Bare):
    def forward(self, x, time=None):
        h = self.conv1(F.silu(self.norm1(x))) + self.offset(time)
        return self.shortcut(x) + self.conv2(F.silu(h))


class InPlace(Bare):
    def forward(self, x, time=None):
        h = self.conv1(F.silu(self.norm1(x))) + self.offset(time)
        h = self.conv2(F.silu(self.norm2(h)))
        if hasattr(self, "conv_shortcut"):
            x = self.conv_shortcut(x)
        x += h
        return x


class SiluInPlace(Bare):
    def forward(self, x, time=None):
        offset = 0 if time is None else self.time_emb_proj(F.silu(time, inplace=True))[:, :, None, None]
        h = self.conv1(F.silu(self.norm1(x))) + offset
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class OwnNames(nn.Module):
    def __init__(self, in_channels, out_channels, time_channels=None, groups=32, eps=1e-5):
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x, time=None):
        return self.first(x)


def skip_before_the_transformer(downblock, x, time, context):
    skips = []
    for i, resnet in enumerate(downblock.resnets):
        x = resnet(x, time)
        skips.append(x)
        if hasattr(downblock, "attentions"):
            x = downblock.attentions[i](x, context)
    if hasattr(downblock, "downsamplers"):
        x = downblock.downsamplers[0](x)
        skips.append(x)
    return x, skips


def halved_is_no_skip(downblock, x, time, context):
    skips = []
    for i, resnet in enumerate(downblock.resnets):
        x = resnet(x, time)
        if hasattr(downblock, "attentions"):
            x = downblock.attentions[i](x, context)
        skips.append(x)
    if hasattr(downblock, "downsamplers"):
        x = downblock.downsamplers[0](x)
    return x, skips


def skip_at_the_end_only(downblock, x, time, context):
    skips = []
    for i, resnet in enumerate(downblock.resnets):
        x = resnet(x, time)
        if hasattr(downblock, "attentions"):
            x = downblock.attentions[i](x, context)
    skips.append(x)
    if hasattr(downblock, "downsamplers"):
        x = downblock.downsamplers[0](x)
        skips.append(x)
    return x, skips


def no_time(downblock, x, time, context):
    skips = []
    for i, resnet in enumerate(downblock.resnets):
        x = resnet(x)
        if hasattr(downblock, "attentions"):
            x = downblock.attentions[i](x, context)
        skips.append(x)
    if hasattr(downblock, "downsamplers"):
        x = downblock.downsamplers[0](x)
        skips.append(x)
    return x, skips


def no_attention(downblock, x, time, context):
    skips = []
    for resnet in downblock.resnets:
        x = resnet(x, time)
        skips.append(x)
    if hasattr(downblock, "downsamplers"):
        x = downblock.downsamplers[0](x)
        skips.append(x)
    return x, skips


def always_attends(downblock, x, time, context):
    skips = []
    for resnet, attention in zip(downblock.resnets, downblock.attentions, strict=True):
        x = attention(resnet(x, time), context)
        skips.append(x)
    x = downblock.downsamplers[0](x)
    skips.append(x)
    return x, skips


def always_halves(downblock, x, time, context):
    skips = []
    for i, resnet in enumerate(downblock.resnets):
        x = resnet(x, time)
        if hasattr(downblock, "attentions"):
            x = downblock.attentions[i](x, context)
        skips.append(x)
    x = downblock.downsamplers[0](x)
    skips.append(x)
    return x, skips


def newest_first(downblock, x, time, context):
    x, skips = no_attention(downblock, x, time, context)
    if hasattr(downblock, "attentions"):
        skips = []
        x = x * 0
    return x, skips[::-1]


def reversed_at_the_end(downblock, x, time, context):
    skips = []
    for i, resnet in enumerate(downblock.resnets):
        x = resnet(x, time)
        if hasattr(downblock, "attentions"):
            x = downblock.attentions[i](x, context)
        skips.append(x)
    if hasattr(downblock, "downsamplers"):
        x = downblock.downsamplers[0](x)
        skips.append(x)
    skips.reverse()
    return x, skips


def swapped(downblock, x, time, context):
    x, skips = skip_before_the_transformer(downblock, x, time, context)
    return skips, x


def map_alone(downblock, x, time, context):
    for i, resnet in enumerate(downblock.resnets):
        x = resnet(x, time)
        if hasattr(downblock, "attentions"):
            x = downblock.attentions[i](x, context)
    if hasattr(downblock, "downsamplers"):
        x = downblock.downsamplers[0](x)
    return x


def one_transformer(downblock, x, time, context):
    skips = []
    for resnet in downblock.resnets:
        x = resnet(x, time)
        if hasattr(downblock, "attentions"):
            x = downblock.attentions[0](x, context)
        skips.append(x)
    if hasattr(downblock, "downsamplers"):
        x = downblock.downsamplers[0](x)
        skips.append(x)
    return x, skips


def the_block_itself(downblock, x, time, context):
    return downblock(x, time, context)


def oldest_first(upblock, x, skips, time, context):
    for i, resnet in enumerate(upblock.resnets):
        x = resnet(torch.cat([x, skips.pop(0)], dim=1), time)
        if hasattr(upblock, "attentions"):
            x = upblock.attentions[i](x, context)
    if hasattr(upblock, "upsamplers"):
        x = upblock.upsamplers[0](x)
    return x


def by_number(upblock, x, skips, time, context):
    for i, resnet in enumerate(upblock.resnets):
        x = resnet(torch.cat([x, skips[i]], dim=1), time)
        if hasattr(upblock, "attentions"):
            x = upblock.attentions[i](x, context)
    if hasattr(upblock, "upsamplers"):
        x = upblock.upsamplers[0](x)
    return x


def not_taken_off(upblock, x, skips, time, context):
    for i, resnet in enumerate(upblock.resnets):
        x = resnet(torch.cat([x, skips[-(i + 1)]], dim=1), time)
        if hasattr(upblock, "attentions"):
            x = upblock.attentions[i](x, context)
    if hasattr(upblock, "upsamplers"):
        x = upblock.upsamplers[0](x)
    return x


def from_a_copy(upblock, x, skips, time, context):
    skips = list(skips)
    for i, resnet in enumerate(upblock.resnets):
        x = resnet(torch.cat([x, skips.pop()], dim=1), time)
        if hasattr(upblock, "attentions"):
            x = upblock.attentions[i](x, context)
    if hasattr(upblock, "upsamplers"):
        x = upblock.upsamplers[0](x)
    return x


def always_the_last(upblock, x, skips, time, context):
    for i, resnet in enumerate(upblock.resnets):
        x = resnet(torch.cat([x, skips[-1]], dim=1), time)
        if hasattr(upblock, "attentions"):
            x = upblock.attentions[i](x, context)
    if hasattr(upblock, "upsamplers"):
        x = upblock.upsamplers[0](x)
    return x


def skip_first(upblock, x, skips, time, context):
    for i, resnet in enumerate(upblock.resnets):
        x = resnet(torch.cat([skips.pop(), x], dim=1), time)
        if hasattr(upblock, "attentions"):
            x = upblock.attentions[i](x, context)
    if hasattr(upblock, "upsamplers"):
        x = upblock.upsamplers[0](x)
    return x


def added(upblock, x, skips, time, context):
    for i, resnet in enumerate(upblock.resnets):
        x = resnet(x + skips.pop(), time)
        if hasattr(upblock, "attentions"):
            x = upblock.attentions[i](x, context)
    if hasattr(upblock, "upsamplers"):
        x = upblock.upsamplers[0](x)
    return x


def joined_afterwards(upblock, x, skips, time, context):
    for i, resnet in enumerate(upblock.resnets):
        x = resnet(x, time)
        if hasattr(upblock, "attentions"):
            x = upblock.attentions[i](x, context)
        x = torch.cat([x, skips.pop()], dim=1)
    if hasattr(upblock, "upsamplers"):
        x = upblock.upsamplers[0](x)
    return x


def larger_first(upblock, x, skips, time, context):
    if hasattr(upblock, "upsamplers"):
        x = upblock.upsamplers[0](x)
    for i, resnet in enumerate(upblock.resnets):
        x = resnet(torch.cat([x, skips.pop()], dim=1), time)
        if hasattr(upblock, "attentions"):
            x = upblock.attentions[i](x, context)
    return x


def batch_joined(upblock, x, skips, time, context):
    for i, resnet in enumerate(upblock.resnets):
        x = resnet(torch.cat([x, skips.pop()]), time)
        if hasattr(upblock, "attentions"):
            x = upblock.attentions[i](x, context)
    return x


def up_without_time(upblock, x, skips, time, context):
    for i, resnet in enumerate(upblock.resnets):
        x = resnet(torch.cat([x, skips.pop()], dim=1))
        if hasattr(upblock, "attentions"):
            x = upblock.attentions[i](x, context)
    if hasattr(upblock, "upsamplers"):
        x = upblock.upsamplers[0](x)
    return x


def up_without_attention(upblock, x, skips, time, context):
    for resnet in upblock.resnets:
        x = resnet(torch.cat([x, skips.pop()], dim=1), time)
    if hasattr(upblock, "upsamplers"):
        x = upblock.upsamplers[0](x)
    return x


def never_larger(upblock, x, skips, time, context):
    for i, resnet in enumerate(upblock.resnets):
        x = resnet(torch.cat([x, skips.pop()], dim=1), time)
        if hasattr(upblock, "attentions"):
            x = upblock.attentions[i](x, context)
    return x


def always_larger(upblock, x, skips, time, context):
    for i, resnet in enumerate(upblock.resnets):
        x = resnet(torch.cat([x, skips.pop()], dim=1), time)
        if hasattr(upblock, "attentions"):
            x = upblock.attentions[i](x, context)
    return upblock.upsamplers[0](x)


def in_a_comprehension(upblock, x, skips, time, context):
    own = [skips.pop(-len(upblock.resnets)) for _ in upblock.resnets][::1]
    for i, (resnet, skip) in enumerate(zip(upblock.resnets, own, strict=True)):
        x = resnet(torch.cat([x, skip], dim=1), time)
        if hasattr(upblock, "attentions"):
            x = upblock.attentions[i](x, context)
    if hasattr(upblock, "upsamplers"):
        x = upblock.upsamplers[0](x)
    return x


def of_the_way_down(upblock, x, skips, time, context):
    count = len(upblock.resnets)
    own = skips[-count:]
    del skips[-count:]
    for i, resnet in enumerate(upblock.resnets):
        x = resnet(torch.cat([x, own[i]], dim=1), time)
        if hasattr(upblock, "attentions"):
            x = upblock.attentions[i](x, context)
    if hasattr(upblock, "upsamplers"):
        x = upblock.upsamplers[0](x)
    return x


WRONG = {
    "09.timestep_embedding": [
        ("the sines come first", sines_first),
        ("divided by half − 1, so that the last frequency is 1/10,000", as_in_ddpm),
        ("cosines and sines take turns", taking_turns),
        ("as in the first Transformer", as_in_transformers),
        ("divided by the number of channels", of_channels),
        ("", without_minus),
        ("t must be a column", t_as_a_row),
        ("t is divided by 1000", from_0_to_1),
        ("", whole_turns),
        ("", whole_numbers),
        ("count i from 0", counted_from_1),
        ("the shape is (3, 12), but it must be (3, 6)", one_for_each_channel),
        ("only the cosines", only_cosines),
        ("take their cosines and sines", angles_alone),
        ("a dimension of their own", stacked),
        ("hard-coded as 32", for_64_channels),
        ("is a `return` missing", no_return),
    ],
    "09.resnet_block": [
        ("added before the second convolution", AddedEarly),
        ("the input isn't added", NothingAdded),
        ("must go through conv_shortcut", ShortcutForgotten),
        ("this block has no `conv_shortcut`", ShortcutAlways),
        ("SiLU is missing before the projection", TimeWithoutSilu),
        ("so ask `if time is not None` first", TimeIsNeeded),
        ("the time is left out", TimeForgotten),
        ("must become (B, out, 1, 1)", TimeFlat),
        ("after the second convolution", TimeAtTheEnd),
        ("the time is added after norm2", TimeAfterTheNorm),
        ("", ConvolutionsFirst),
        ("these are ReLUs before the convolutions", Relu),
        ("SiLU is missing before both", NoSilu),
        ("", NormalisedIsAdded),
        ("norm2 is missing", SecondNormForgotten),
        ("it changes x, one of its inputs, in place", InPlace),
        ("it changes time, one of its inputs, in place", SiluInPlace),
        ("its parameters differ", OwnNames),
    ],
    "09.way_down": [
        ("before the transformer", skip_before_the_transformer),
        ("the map of half the size is a skip as well", halved_is_no_skip),
        ("each one's is", skip_at_the_end_only),
        ("isn't told the time", no_time),
        ("the transformers are left out", no_attention),
        ("this block has no `attentions`", always_attends),
        ("this block has no `downsamplers`", always_halves),
        ("", newest_first),
        ("reverse order", reversed_at_the_end),
        ("", swapped),
        ("only the map is returned", map_alone),
        ("the first transformer is used in every round", one_transformer),
        ("the block is called itself", the_block_itself),
    ],
    "09.way_up": [
        ("the oldest skip is taken", oldest_first),
        ("the oldest skip is taken", by_number),
        ("take them off", not_taken_off),
        ("take them off", from_a_copy),
        ("the same skip is joined again", always_the_last),
        ("the skip stands before x", skip_first),
        ("another number of channels", added),
        ("another number of channels", joined_afterwards),
        ("differ in size", larger_first),
        ("another number of channels", batch_joined),
        ("isn't told the time", up_without_time),
        ("the transformers are left out", up_without_attention),
        ("isn't enlarged at the end", never_larger),
        ("this block has no `upsamplers`", always_larger),
        ("", in_a_comprehension),
        ("in the order of the way down", of_the_way_down),
    ],
}
