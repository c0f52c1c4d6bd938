"""Wrong answers to the exercises of lesson 08 as learners type them, and a piece of what they are told."""

import torch
import torch.nn.functional as F
from torch import nn

from sdlearn.models.attention import Attention, FeedForward


def scale_forgotten(query, key, mask=None):
    weights = query @ key.transpose(-2, -1)
    if mask is not None:
        weights += mask
    return torch.softmax(weights, -1)


def divided_by_d(query, key, mask=None):
    logits = query @ key.mT / query.shape[-1]
    return torch.softmax(logits if mask is None else logits + mask, -1)


def default_axis(query, key, mask=None):
    logits = query @ key.mT / query.shape[-1] ** 0.5
    logits = logits if mask is None else logits + mask
    return logits.softmax(1)


def over_the_queries(query, key, mask=None):
    logits = query @ key.mT / query.shape[-1] ** 0.5
    logits = logits if mask is None else logits + mask
    return logits.softmax(2)


def transposed_all_the_way(query, key, mask=None):
    return (query @ key.T / query.shape[-1] ** 0.5).softmax(-1)


def mask_forgotten(query, key, mask=None):
    return (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)


def mask_afterwards(query, key, mask=None):
    weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
    return weights if mask is None else weights * mask


def mask_as_in_other_courses(query, key, mask=None):
    logits = query @ key.mT / query.shape[-1] ** 0.5
    if mask is not None:
        logits = logits.masked_fill(mask == 0, float("-inf"))
    return logits.softmax(-1)


def query_in_place(query, key, mask=None):
    query /= query.shape[-1] ** 0.5
    logits = query @ key.mT
    return (logits if mask is None else logits + mask).softmax(-1)


def mask_is_needed(query, key, mask=None):
    return (query @ key.mT / query.shape[-1] ** 0.5 + mask).softmax(-1)


def without_return(query, key, mask=None):
    logits = query @ key.mT / query.shape[-1] ** 0.5
    logits.softmax(-1)


def of_width_64(query, key, mask=None):
    logits = query @ key.mT / 8
    return (logits if mask is None else logits + mask).softmax(-1)


def reshaped_at_once(attention, x):
    batch, tokens, channels = x.shape
    return x.reshape(batch, attention.heads, tokens, channels // attention.heads)


def never_transposed(attention, x):
    return x.view(*x.shape[:2], attention.heads, -1)


def width_first(attention, x):
    return x.reshape(*x.shape[:2], -1, attention.heads).permute(0, 3, 1, 2)


def for_bmm(attention, x):
    batch, tokens, channels = x.shape
    x = x.view(batch, tokens, attention.heads, -1).transpose(1, 2)
    return x.reshape(batch * attention.heads, tokens, -1)


def a_list_of_heads(attention, x):
    return list(x.chunk(attention.heads, dim=-1))


def heads_first(attention, x):
    return torch.stack(x.chunk(attention.heads, dim=-1))


def eight_heads(attention, x):
    return x.unflatten(-1, (8, -1)).transpose(1, 2)


def self_attention_only(attention, x, context=None):
    query, key, value = (attention.split_heads(layer(x)) for layer in (attention.to_q, attention.to_k, attention.to_v))
    return attention.to_out[0](attention.attend(query, key, value).transpose(1, 2).flatten(2))


def context_is_needed(attention, x, context=None):
    query = attention.split_heads(attention.to_q(x))
    key, value = attention.split_heads(attention.to_k(context)), attention.split_heads(attention.to_v(context))
    return attention.to_out[0](attention.attend(query, key, value).transpose(1, 2).flatten(2))


def the_words_ask(attention, x, context=None):
    context = x if context is None else context
    query = attention.split_heads(attention.to_q(context))
    key, value = attention.split_heads(attention.to_k(x)), attention.split_heads(attention.to_v(x))
    return attention.to_out[0](attention.attend(query, key, value).transpose(1, 2).flatten(2))


def values_before_keys(attention, x, context=None):
    context = x if context is None else context
    query = attention.split_heads(attention.to_q(x))
    key, value = attention.split_heads(attention.to_k(context)), attention.split_heads(attention.to_v(context))
    return attention.to_out[0](attention.attend(query, value, key).transpose(1, 2).flatten(2))


def out_forgotten(attention, x, context=None):
    context = x if context is None else context
    query = attention.split_heads(attention.to_q(x))
    key, value = attention.split_heads(attention.to_k(context)), attention.split_heads(attention.to_v(context))
    return attention.attend(query, key, value).transpose(1, 2).flatten(2)


def joined_at_once(attention, x, context=None):
    context = x if context is None else context
    query = attention.split_heads(attention.to_q(x))
    key, value = attention.split_heads(attention.to_k(context)), attention.split_heads(attention.to_v(context))
    return attention.to_out[0](attention.attend(query, key, value).reshape(x.shape))


def out_is_a_list(attention, x, context=None):
    context = x if context is None else context
    query = attention.split_heads(attention.to_q(x))
    key, value = attention.split_heads(attention.to_k(context)), attention.split_heads(attention.to_v(context))
    return attention.to_out(attention.attend(query, key, value).transpose(1, 2).flatten(2))


def added_already(attention, x, context=None):
    context = x if context is None else context
    query = attention.split_heads(attention.to_q(x))
    key, value = attention.split_heads(attention.to_k(context)), attention.split_heads(attention.to_v(context))
    return x + attention.to_out[0](attention.attend(query, key, value).transpose(1, 2).flatten(2))


class Block(nn.Module):
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


class NothingAdded(Block):
    def forward(self, x, context):
        x = self.attn1(self.norm1(x), context if self.only_cross_attention else None)
        x = self.attn2(self.norm2(x), context)
        return self.ff(self.norm3(x))


class NormsAfterwards(Block):
    def forward(self, x, context):
        x = self.norm1(x + self.attn1(x, context if self.only_cross_attention else None))
        x = self.norm2(x + self.attn2(x, context))
        return self.norm3(x + self.ff(x))


class NormalisedIsAdded(Block):
    def forward(self, x, context):
        x = self.norm1(x)
        x = x + self.attn1(x, context if self.only_cross_attention else None)
        x = self.norm2(x)
        x = x + self.attn2(x, context)
        x = self.norm3(x)
        return x + self.ff(x)


class FlagForgotten(Block):
    def forward(self, x, context):
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class WordsForgotten(Block):
    def forward(self, x, context):
        x = x + self.attn1(self.norm1(x), context if self.only_cross_attention else None)
        x = x + self.attn2(self.norm2(x))
        return x + self.ff(self.norm3(x))


class InPlace(Block):
    @torch.no_grad()
    def forward(self, x, context):
        x += self.attn1(self.norm1(x), context if self.only_cross_attention else None)
        x += self.attn2(self.norm2(x), context)
        x += self.ff(self.norm3(x))
        return x


class OwnNames(nn.Module):
    def __init__(self, channels, heads, context_channels, *, only_cross_attention=False, attention=Attention):
        super().__init__()
        self.self_attention = attention(channels, heads, context_channels if only_cross_attention else None)
        self.cross_attention = attention(channels, heads, context_channels)

    def forward(self, x, context):
        return x


class Gate(nn.Module):
    def __init__(self, channels, out_channels):
        super().__init__()
        self.proj = nn.Linear(channels, 2 * out_channels)


class HalvesSwapped(Gate):
    def forward(self, x):
        gate, hidden = self.proj(x).chunk(2, dim=-1)
        return hidden * F.gelu(gate)


class WithTanh(Gate):
    def forward(self, x):
        hidden, gate = self.proj(x).chunk(2, dim=-1)
        return hidden * F.gelu(gate, approximate="tanh")


class TokensHalved(Gate):
    def forward(self, x):
        hidden, gate = self.proj(x).chunk(2, dim=0)
        return hidden * F.gelu(gate)


class Plain(Gate):
    def forward(self, x):
        return F.gelu(self.proj(x))


class Sigmoid(Gate):
    def forward(self, x):
        return F.glu(self.proj(x))


WRONG = {
    "08.attention_weights": [
        ("the scale is missing", scale_forgotten),
        ("divided by D, but they must be divided by √D", divided_by_d),
        ("over the heads", default_axis),
        ("over the queries", over_the_queries),
        ("in the line", transposed_all_the_way),
        ("the mask is ignored", mask_forgotten),
        ("the mask is multiplied with the weights", mask_afterwards),
        ("0 is where a query *may* look", mask_as_in_other_courses),
        ("it changes query, one of its inputs, in place", query_in_place),
        ("NoneType", mask_is_needed),
        ("is a `return` missing", without_return),
        ("hard-coded as 64", of_width_64),
    ],
    "08.split_heads": [
        ("alone mixes tokens", reshaped_at_once),
        ("the head must come before the tokens", never_transposed),
        ("every N-th channel", width_first),
        ("pictures and heads are one dimension", for_bmm),
        ("it must return a tensor", a_list_of_heads),
        ("the heads come first", heads_first),
        ("hard-coded as 8", eight_heads),
    ],
    "08.cross_attention": [
        ("keys and values come from x", self_attention_only),
        ("its absence isn't looked after", context_is_needed),
        ("x asks, so the queries come from it", the_words_ask),
        ("keys and values are swapped", values_before_keys),
        ("to_out is missing", out_forgotten),
        ("which mixes up the tokens", joined_at_once),
        ("ModuleList", out_is_a_list),
        ("x is added to the result", added_already),
    ],
    "08.transformer_block": [
        ("nothing is added to its input", NothingAdded),
        ("the norms come after the sums", NormsAfterwards),
        ("the normalised x is what the results are added to", NormalisedIsAdded),
        ("only_cross_attention is ignored", FlagForgotten),
        ("the second attention gets no context", WordsForgotten),
        ("it changes x, one of its inputs, in place", InPlace),
        ("its parameters differ", OwnNames),
    ],
    "08.geglu": [
        ("the two halves are swapped", HalvesSwapped),
        ("approximated by a tanh", WithTanh),
        ("in the line", TokensHalved),
        ("it must be", Plain),
        ("the gate is a sigmoid here", Sigmoid),
    ],
}
