"""Right answers to the exercises of lesson 09, written in other ways than the package's."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import Timesteps, get_timestep_embedding
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_blocks import CrossAttnDownBlock2D, DownBlock2D
from torch import nn

from sdlearn.models.blocks import ResnetBlock


def with_powers(t, channels):
    half = channels // 2
    angles = t.view(-1, 1) * 10_000 ** (-torch.arange(half) / half)
    return torch.cat((torch.cos(angles), torch.sin(angles)), 1)


def with_outer(t, channels):
    i = torch.arange(0, channels, 2)
    angles = torch.outer(t.float(), 1 / 10_000 ** (i / channels))
    return torch.hstack([angles.cos(), angles.sin()])


def hand_by_hand(t, channels):
    half = channels // 2
    out = torch.empty(len(t), channels)
    for i in range(half):
        w = math.exp(-math.log(10_000) * i / half)
        out[:, i] = torch.cos(w * t)
        out[:, half + i] = torch.sin(w * t)
    return out


def times_by_numpy(t, channels):
    half = channels // 2
    angles = t.numpy()[:, None] * 10_000.0 ** (-np.arange(half) / half)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def times_in_float64(t, channels):
    half = channels // 2
    w = torch.logspace(0, -4 * (half - 1) / half, half, dtype=torch.float64)
    waves = torch.polar(torch.ones(len(t), half, dtype=torch.float64), torch.einsum("b, i -> bi", t.double(), w))
    return torch.cat([waves.real, waves.imag], dim=-1)


def times_by_diffusers(t, channels):
    return get_timestep_embedding(t, channels, flip_sin_to_cos=True, downscale_freq_shift=0)


def times_by_diffusers_s_module(t, channels):
    return Timesteps(channels, flip_sin_to_cos=True, downscale_freq_shift=0)(t)


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


class InOneLine(Bare):
    def forward(self, x, time=None):
        offset = 0 if time is None else self.time_emb_proj(F.silu(time)).unsqueeze(-1).unsqueeze(-1)
        shortcut = getattr(self, "conv_shortcut", nn.Identity())
        return shortcut(x) + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))) + offset)))


class WithAModule(Bare):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x, time=None):
        h = self.conv1(self.act(self.norm1(x)))
        if time is not None:
            h += self.time_emb_proj(self.act(time.clone()))[..., None, None]
        h = self.conv2(self.act(self.norm2(h)))
        if x.shape[1] != h.shape[1]:
            x = self.conv_shortcut(x)
        return torch.add(h, x)


class ByHand(Bare):
    @torch.no_grad()
    def forward(self, x, time=None):
        def normalised(norm, h):
            groups = h.reshape(len(h), norm.num_groups, -1)
            groups = (groups - groups.mean(-1, keepdim=True)) / (
                groups.var(-1, keepdim=True, unbiased=False) + norm.eps
            ).sqrt()
            return groups.view_as(h) * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)

        def silu(h):
            return h * torch.sigmoid(h)

        h = F.conv2d(silu(normalised(self.norm1, x)), self.conv1.weight, self.conv1.bias, padding=1)
        if time is not None:
            p = silu(time) @ self.time_emb_proj.weight.T + self.time_emb_proj.bias
            h = h + p.reshape(*p.shape, 1, 1)
        h = F.conv2d(silu(normalised(self.norm2, h)), self.conv2.weight, self.conv2.bias, padding="same")
        if "conv_shortcut" in self._modules:
            w = self.conv_shortcut
            x = torch.einsum("oc, bchw -> bohw", w.weight[:, :, 0, 0], x) + w.bias[:, None, None]
        return x + h


class InFloat64(Bare):
    @torch.no_grad()
    def forward(self, x, time=None):
        self.double()
        out = ResnetBlock.forward(self, x.double(), None if time is None else time.double())
        self.float()
        return out


class BlockByNumpy(Bare):
    @torch.no_grad()
    def forward(self, x, time=None):
        def silu(h):
            return h / (1 + np.exp(-h))

        h = self.conv1(torch.from_numpy(silu(self.norm1(x).numpy()))).numpy()
        if time is not None:
            linear = self.time_emb_proj
            h = h + (silu(time.numpy()) @ linear.weight.numpy().T + linear.bias.numpy())[:, :, None, None]
        h = self.conv2(torch.from_numpy(silu(self.norm2(torch.from_numpy(h)).numpy()))).numpy()
        return h + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x).numpy()


class FromDiffusers(ResnetBlock2D):
    def __init__(self, in_channels, out_channels, time_channels=None, groups=32, eps=1e-5):
        super().__init__(
            in_channels=in_channels, out_channels=out_channels, temb_channels=time_channels, groups=groups, eps=eps
        )

    def forward(self, x, time=None):
        return super().forward(x, time)


def with_zip(downblock, x, time, context):
    attentions = getattr(downblock, "attentions", [None] * len(downblock.resnets))
    skips = []
    for resnet, attention in zip(downblock.resnets, attentions, strict=True):
        x = resnet(x, time)
        x = x if attention is None else attention(x, context)
        skips += [x]
    for smaller in getattr(downblock, "downsamplers", []):
        skips += [x := smaller(x)]
    return x, skips


def a_tuple_of_skips(downblock, x, time, context):
    maps = [x]
    for i in range(len(downblock.resnets)):
        h = downblock.resnets[i](maps[-1], time=time)
        maps.append(downblock.attentions[i](h, context=context) if hasattr(downblock, "attentions") else h)
    if hasattr(downblock, "downsamplers"):
        maps.append(downblock.downsamplers[0](maps[-1]))
    return maps[-1], tuple(maps[1:])


@torch.no_grad()
def by_recursion(downblock, x, time, context, i=0):
    if i == len(downblock.resnets):
        if not hasattr(downblock, "downsamplers"):
            return x, []
        x = downblock.downsamplers[0](x)
        return x, [x]
    x = downblock.resnets[i](x, time)
    if "attentions" in dict(downblock.named_children()):
        x = downblock.attentions[i](x, context)
    last, others = by_recursion(downblock, x, time, context, i + 1)
    return last, [x, *others]


def down_in_float64(downblock, x, time, context):
    downblock.double()
    skips, x = [], x.double()
    for i, resnet in enumerate(downblock.resnets):
        x = resnet(x, time.double())
        if hasattr(downblock, "attentions"):
            x = downblock.attentions[i](x, context.double())
        skips.append(x.clone())
    if hasattr(downblock, "downsamplers"):
        x = downblock.downsamplers[0](x)
        skips.append(x)
    downblock.float()
    return x, skips


def arrays(downblock, x, time, context):
    x, skips = with_zip(downblock, x, time, context)
    return x.numpy(), [skip.numpy() for skip in skips]


def attends(block):
    return hasattr(block, "attentions")


def down_by_diffusers(downblock, x, time, context):
    """Diffusers' blocks, with our layers in them."""
    kind = CrossAttnDownBlock2D if attends(downblock) else DownBlock2D
    more = {"cross_attention_dim": context.shape[-1], "num_attention_heads": 1} if attends(downblock) else {}
    resnets = downblock.resnets
    theirs = kind(
        in_channels=resnets[0].conv1.in_channels,
        out_channels=resnets[0].conv1.out_channels,
        temb_channels=time.shape[1],
        num_layers=len(resnets),
        resnet_groups=2,
        add_downsample=hasattr(downblock, "downsamplers"),
        downsample_padding=1,
        **more,
    )
    if attends(downblock):  # theirs returns what it makes in a tuple of one

        class InATuple(nn.Module):
            def __init__(self, layer):
                super().__init__()
                self.layer = layer

            def forward(self, x, encoder_hidden_states=None, **others):
                return (self.layer(x, encoder_hidden_states),)

        theirs.attentions = nn.ModuleList(map(InATuple, downblock.attentions))
    theirs.resnets = resnets
    if theirs.downsamplers is not None:
        theirs.downsamplers = nn.ModuleList([downblock.downsamplers[0].conv])
    return theirs(x, time, encoder_hidden_states=context) if attends(downblock) else theirs(x, time)


def with_zip_up(upblock, x, skips, time, context):
    attentions = getattr(upblock, "attentions", [None] * len(upblock.resnets))
    for resnet, attention in zip(upblock.resnets, attentions, strict=True):
        x = resnet(torch.concat((x, skips.pop(-1)), 1), time)
        x = x if attention is None else attention(x, context)
    for larger in getattr(upblock, "upsamplers", []):
        x = larger(x)
    return x


def all_at_once(upblock, x, skips, time, context):
    count = len(upblock.resnets)
    mine, skips[:] = skips[-count:], skips[:-count]
    for i in range(count):
        x = upblock.resnets[i](torch.hstack([x, mine[-1 - i]]), time)
        if hasattr(upblock, "attentions"):
            x = upblock.attentions[i](x, context)
    return upblock.upsamplers[0](x) if hasattr(upblock, "upsamplers") else x


@torch.no_grad()
def filled_in(upblock, x, skips, time, context):
    for i, resnet in enumerate(upblock.resnets):
        skip = skips[-1]
        del skips[-1]
        joined = torch.empty(len(x), x.shape[1] + skip.shape[1], *x.shape[2:])
        joined[:, : x.shape[1]] = x
        joined[:, x.shape[1] :] = skip
        x = resnet(joined, time=time)
        if "attentions" in upblock._modules:
            x = upblock.attentions[i](x, context=context)
    if "upsamplers" in upblock._modules:
        (larger,) = upblock.upsamplers
        x = larger.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    return x


def joined_by_numpy(upblock, x, skips, time, context):
    for i, resnet in enumerate(upblock.resnets):
        x = resnet(torch.from_numpy(np.concatenate([x.numpy(), skips.pop().numpy()], axis=1)), time)
        if hasattr(upblock, "attentions"):
            x = upblock.attentions[i](x, context)
    return (upblock.upsamplers[0](x) if hasattr(upblock, "upsamplers") else x).numpy()


def up_in_float64(upblock, x, skips, time, context):
    upblock.double()
    x = x.double()
    for i, resnet in enumerate(upblock.resnets):
        x = resnet(torch.cat([x, skips.pop().double()], dim=-3), time.double())
        if hasattr(upblock, "attentions"):
            x = upblock.attentions[i](x, context.double())
    if hasattr(upblock, "upsamplers"):
        x = upblock.upsamplers[0](x)
    upblock.float()
    return x


def from_the_newest(upblock, x, skips, time, context):
    i = 0
    while i < len(upblock.resnets):
        x = upblock.resnets[i](torch.cat([x, skips.pop()], 1), time)
        if getattr(upblock, "attentions", None) is not None:
            x = upblock.attentions[i](x, context)
        i += 1
    try:
        return upblock.upsamplers[0](x)
    except AttributeError:
        return x


RIGHT = {
    "09.timestep_embedding": [
        *(with_powers, with_outer, hand_by_hand, times_by_numpy, times_in_float64, times_by_diffusers),
        times_by_diffusers_s_module,
    ],
    "09.resnet_block": [InOneLine, WithAModule, ByHand, InFloat64, BlockByNumpy, FromDiffusers],
    "09.way_down": [with_zip, a_tuple_of_skips, by_recursion, down_in_float64, arrays, down_by_diffusers],
    "09.way_up": [with_zip_up, all_at_once, filled_in, joined_by_numpy, up_in_float64, from_the_newest],
}
