"""Right answers to the exercises of lesson 08 that are written in another way than the package's."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU as ReferenceGEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention as ReferenceAttention
from torch import nn

from sdlearn.models.attention import Attention, FeedForward


def by_einsum(query, key, mask=None):
    logits = torch.einsum("bntd, bnsd -> bnts", query, key) / math.sqrt(query.size(-1))
    return F.softmax(logits if mask is None else logits + mask, dim=3)


def pixel_by_pixel(query, key, mask=None):
    batch, heads, tokens, width = query.shape
    weights = query.new_zeros(batch, heads, tokens, key.shape[2])
    mask = None if mask is None else mask.expand_as(weights)
    for b in range(batch):
        for n in range(heads):
            for i in range(tokens):
                logits = torch.stack([query[b, n, i] @ one for one in key[b, n]]) / width**0.5
                if mask is not None:
                    logits = logits + mask[b, n, i]
                exponentials = (logits - logits.max()).exp()
                weights[b, n, i] = exponentials / exponentials.sum()
    return weights


def by_numpy(query, key, mask=None):
    query, key = query.numpy(), key.numpy()
    logits = query @ np.swapaxes(key, 2, 3) / np.sqrt(query.shape[-1])
    if mask is not None:
        logits = logits + mask.numpy()
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


@torch.no_grad()
def in_float64(query, key, mask=None):
    logits = (query.double() / query.shape[-1] ** 0.5) @ key.double().mT
    if mask is not None:
        logits += mask
    return torch.exp(logits - logits.logsumexp(-1, keepdim=True))


def values_are_unit_vectors(query, key, mask=None):
    unit = torch.eye(key.shape[2], dtype=key.dtype).expand(*key.shape[:2], -1, -1)
    return F.scaled_dot_product_attention(query, key, unit, attn_mask=mask)


def with_diffusers(query, key, mask=None):
    batch, heads, _, width = query.shape
    layer = ReferenceAttention(heads * width, heads=heads, dim_head=width)
    if mask is not None:
        mask = mask.expand(batch, heads, query.shape[2], key.shape[2]).flatten(0, 1)
    weights = layer.get_attention_scores(query.flatten(0, 1), key.flatten(0, 1), mask)
    return weights.unflatten(0, (batch, heads))


def exponentials_of_differences(query, key, mask=None):
    logits = torch.bmm(query.flatten(0, 1), key.flatten(0, 1).mT).view(*query.shape[:3], -1) / query.shape[-1] ** 0.5
    logits += 0 if mask is None else mask
    logits.sub_(logits.amax(-1, keepdim=True)).exp_()
    return logits.div_(logits.sum(-1, keepdim=True))


def half_of_the_root_for_each(query, key, mask=None):
    scale = query.shape[-1] ** -0.25
    logits = ((query * scale).unsqueeze(-2) * (key * scale).unsqueeze(-3)).sum(-1)
    weights = F.softmax(logits, dim=-1)
    if mask is not None:  # hidden afterwards, and each row divided by its sum
        weights = weights * mask.exp()
    return weights / weights.sum(-1, keepdim=True)


def with_view(attention, x):
    batch, tokens, channels = x.shape
    return x.view(batch, tokens, attention.heads, channels // attention.heads).transpose(1, 2)


def with_permute(attention, x):
    return x.reshape(*x.shape[:2], attention.heads, -1).permute(0, 2, 1, 3).contiguous()


def stacked(attention, x):
    return torch.stack(x.chunk(attention.heads, dim=-1), dim=1)


def head_by_head(attention, x):
    width = x.shape[-1] // attention.heads
    out = torch.empty(len(x), attention.heads, x.shape[1], width)
    for n in range(attention.heads):
        out[:, n] = x[:, :, n * width : (n + 1) * width]
    return out


def unfolded(attention, x):
    width = x.shape[-1] // attention.heads
    return x.unfold(-1, width, width).transpose(1, 2)


def transposed_first(attention, x):
    return x.mT.reshape(len(x), attention.heads, -1, x.shape[1]).mT


def split_by_numpy(attention, x):
    return np.stack(np.split(x.numpy(), attention.heads, axis=-1), axis=1)


def split_by_diffusers(attention, x):
    layer = ReferenceAttention(x.shape[-1], heads=attention.heads, dim_head=x.shape[-1] // attention.heads)
    return layer.head_to_batch_dim(x, out_dim=4)


def with_weights(attention, x, context=None):
    if context is None:
        context = x
    query, key, value = (
        attention.split_heads(layer(one))
        for layer, one in ((attention.to_q, x), (attention.to_k, context), (attention.to_v, context))
    )
    found = by_einsum(query, key) @ value
    return attention.to_out[0](torch.cat(list(found.unbind(1)), dim=-1))


def with_einsum(attention, x, context=None):
    context = x if context is None else context
    query, key, value = attention.to_q(x), attention.to_k(context), attention.to_v(context)
    query, key, value = (one.unflatten(-1, (attention.heads, -1)) for one in (query, key, value))
    logits = torch.einsum("btnd, bsnd -> bnts", query, key) / query.shape[-1] ** 0.5
    out = torch.einsum("bnts, bsnd -> btnd", logits.softmax(-1), value)
    return attention.to_out[0](out.reshape(x.shape))


@torch.no_grad()
def a_loop_over_heads(attention, x, context=None):
    words = context if context is not None else x
    width = x.shape[-1] // attention.heads
    found = []
    for n in range(attention.heads):
        part = slice(n * width, (n + 1) * width)
        query, key, value = (
            one @ layer.weight[part].T
            for one, layer in ((x, attention.to_q), (words, attention.to_k), (words, attention.to_v))
        )
        found.append((query @ key.mT / width**0.5).softmax(-1) @ value)
    return attention.to_out[0](torch.cat(found, -1))


@torch.no_grad()
def looks_by_numpy(attention, x, context=None):
    context = (x if context is None else context).numpy()
    query, key, value = (
        split_by_numpy(attention, torch.from_numpy(one @ layer.weight.numpy().T))
        for one, layer in ((x.numpy(), attention.to_q), (context, attention.to_k), (context, attention.to_v))
    )
    found = by_numpy(torch.from_numpy(query), torch.from_numpy(key)) @ value
    found = found.transpose(0, 2, 1, 3).reshape(x.shape)
    return found @ attention.to_out[0].weight.numpy().T + attention.to_out[0].bias.numpy()


@torch.no_grad()
def looks_by_diffusers(attention, x, context=None):
    channels, wide = x.shape[-1], attention.to_k.in_features
    layer = ReferenceAttention(channels, wide, heads=attention.heads, dim_head=channels // attention.heads)
    layer.load_state_dict(attention.state_dict(), strict=True)
    return layer(x, context)


def a_piece_of_w_o_for_each_head(attention, x, context=None):
    context = x if context is None else context
    query, key, value = map(
        attention.split_heads, (attention.to_q(x), attention.to_k(context), attention.to_v(context))
    )
    found = attention.attend(query=query, key=key, value=value)
    pieces = attention.to_out[0].weight.unflatten(1, (attention.heads, -1))  # (C, N, D)
    return torch.einsum("bntd, cnd -> btc", found, pieces) + attention.to_out[0].bias


@torch.no_grad()
def looks_in_float64(attention, x, context=None):
    weights = {name: one.double() for name, one in attention.state_dict().items()}
    x = x.double()
    context = x if context is None else context.double()
    query, key, value = (
        attention.split_heads(F.linear(one, weights[f"to_{letter}.weight"]))
        for letter, one in (("q", x), ("k", context), ("v", context))
    )
    out = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(x.shape)
    return F.linear(out, weights["to_out.0.weight"], weights["to_out.0.bias"])


class InSteps(nn.Module):
    def __init__(
        self, channels, heads, context_channels, *, only_cross_attention=False, attention=Attention,
        feed_forward=FeedForward
    ):  # fmt: skip
        super().__init__()
        self.only_cross_attention = only_cross_attention
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = attention(channels, heads, context_channels if only_cross_attention else None)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = attention(channels, heads, context_channels)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = feed_forward(channels)

    def forward(self, x, context):
        if self.only_cross_attention:
            hidden = x + self.attn1(self.norm1(x), context)
        else:
            hidden = x + self.attn1(self.norm1(x))
        hidden = hidden + self.attn2(self.norm2(hidden), context=context)
        return hidden + self.ff(self.norm3(hidden))


class InPlaceOnACopy(InSteps):
    @torch.no_grad()
    def forward(self, x, context):
        x = x.clone()
        x += self.attn1(self.norm1(x), context if self.only_cross_attention else x * 0 + self.norm1(x))
        x += self.attn2(self.norm2(x), context)
        x += self.ff(self.norm3(x))
        return x


class ALoop(InSteps):
    def forward(self, x, context):
        first = context if self.only_cross_attention else None
        for norm, layer, more in (
            (self.norm1, self.attn1, (first,)),
            (self.norm2, self.attn2, (context,)),
            (self.norm3, self.ff, ()),
        ):
            x = layer(norm(x), *more) + x
        return x


class ItsOwnContext(InSteps):
    def forward(self, x, context):
        normed = self.norm1(x)
        first = x + self.attn1(normed, context=context if self.only_cross_attention else normed)
        second = torch.add(self.attn2(self.norm2(first), context), first)
        return torch.add(self.ff(self.norm3(second)), second)


class FromDiffusers(BasicTransformerBlock):
    def __init__(self, channels, heads, context_channels, *, only_cross_attention=False, attention=None, ff=None):
        super().__init__(
            *(channels, heads, channels // heads),
            cross_attention_dim=context_channels,
            only_cross_attention=only_cross_attention,
        )

    def forward(self, x, context):
        return super().forward(x, encoder_hidden_states=context)


class BlockInFloat64(InSteps):
    def forward(self, x, context):
        self.double()
        out = super().forward(x.double(), context.double())
        self.float()
        return out


class Sliced(nn.Module):
    def __init__(self, channels, out_channels):
        super().__init__()
        self.proj = nn.Linear(channels, 2 * out_channels)

    def forward(self, x):
        both = self.proj(x)
        width = both.shape[-1] // 2
        return both[..., :width] * nn.GELU()(both[..., width:])


class WithTheErrorFunction(Sliced):
    def forward(self, x):
        hidden, gate = self.proj(x).tensor_split(2, dim=2)
        return hidden * gate * (1 + torch.erf(gate / math.sqrt(2))) / 2


class WithNormalCdf(Sliced):
    def forward(self, x):
        hidden, gate = self.proj(x).unflatten(-1, (2, -1)).unbind(-2)
        return hidden * gate * torch.distributions.Normal(0, 1).cdf(gate)


class GatesByEinsum(Sliced):
    @torch.no_grad()
    def forward(self, x):
        weight, bias = self.proj.weight.double().chunk(2), self.proj.bias.double().chunk(2)
        hidden, gate = (torch.einsum("oi, bti -> bto", w, x.double()) + b for w, b in zip(weight, bias, strict=True))
        return hidden * F.gelu(gate)


class GatesByNumpy(Sliced):
    @torch.no_grad()
    def forward(self, x):
        both = x.numpy() @ self.proj.weight.numpy().T + self.proj.bias.numpy()
        hidden, gate = np.split(both, 2, axis=-1)
        error_function = np.vectorize(math.erf)
        return hidden * gate * (1 + error_function(gate / np.sqrt(2))) / 2


RIGHT = {
    "08.attention_weights": [
        *(by_einsum, pixel_by_pixel, by_numpy, in_float64, values_are_unit_vectors, with_diffusers),
        *(exponentials_of_differences, half_of_the_root_for_each),
    ],
    "08.split_heads": [
        *(with_view, with_permute, stacked, head_by_head, unfolded, transposed_first, split_by_numpy),
        split_by_diffusers,
    ],
    "08.cross_attention": [
        *(with_weights, with_einsum, a_loop_over_heads, looks_by_numpy, looks_by_diffusers, looks_in_float64),
        a_piece_of_w_o_for_each_head,
    ],
    "08.transformer_block": [InSteps, InPlaceOnACopy, ALoop, ItsOwnContext, FromDiffusers, BlockInFloat64],
    "08.geglu": [Sliced, WithTheErrorFunction, WithNormalCdf, GatesByEinsum, GatesByNumpy, ReferenceGEGLU],
}
