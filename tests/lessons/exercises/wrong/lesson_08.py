"""Wrong answers to the exercises of lesson 08 as learners type them, and a piece of what they are told."""

import math

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


def mask_of_two_dimensions(query, key, mask=None):
    logits = query @ key.mT / query.shape[-1] ** 0.5
    if mask is not None:
        logits = logits + mask[None, None]
    return logits.softmax(-1)


def mask_unsqueezed(query, key, mask=None):
    logits = query @ key.mT / query.shape[-1] ** 0.5
    return (logits if mask is None else logits + mask.unsqueeze(0)).softmax(-1)


def mask_viewed(query, key, mask=None):
    logits = query @ key.mT / query.shape[-1] ** 0.5
    return (logits if mask is None else logits + mask.view(1, 1, *mask.shape)).softmax(-1)


def mask_cut(query, key, mask=None):
    logits = query @ key.mT / query.shape[-1] ** 0.5
    return (logits if mask is None else logits + mask[: query.shape[2], : key.shape[2]]).softmax(-1)


def head_by_head_with_one_mask(query, key, mask=None):
    out = []
    for b in range(query.shape[0]):
        for n in range(query.shape[1]):
            logits = query[b, n] @ key[b, n].T / query.shape[-1] ** 0.5
            out.append((logits if mask is None else logits + mask).softmax(-1))
    return torch.stack(out).unflatten(0, query.shape[:2])


def mask_exponentials(query, key, mask=None):
    weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
    return weights if mask is None else weights * mask.exp()


def mask_true_or_false(query, key, mask=None):
    logits = query @ key.mT / query.shape[-1] ** 0.5
    return (logits + mask if mask else logits).softmax(-1)


def overflowing(query, key, mask=None):
    logits = query @ key.mT / query.shape[-1] ** 0.5
    exponentials = torch.exp(logits if mask is None else logits + mask)
    return exponentials / exponentials.sum(-1, keepdim=True)


def over_everything(query, key, mask=None):
    logits = query @ key.mT / query.shape[-1] ** 0.5
    exponentials = torch.exp(logits if mask is None else logits + mask)
    return exponentials / exponentials.sum()


def of_width_32(query, key, mask=None):
    logits = query @ key.mT / math.sqrt(32)
    return (logits if mask is None else logits + mask).softmax(-1)


def in_float32(query, key, mask=None):
    logits = query.float() @ key.float().mT / query.shape[-1] ** 0.5
    return (logits if mask is None else logits + mask).softmax(-1)


def never_transposed_key(query, key, mask=None):
    return (query @ key / query.shape[-1] ** 0.5).softmax(-1)


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


def transposed_and_reshaped(attention, x):
    batch, tokens, channels = x.shape
    return x.transpose(1, 2).reshape(batch, attention.heads, tokens, channels // attention.heads)


def the_first_channels_for_all(attention, x):
    width = x.shape[-1] // attention.heads
    return torch.stack([x[..., :width] for _ in range(attention.heads)], 1)


def heads_of_width_32(attention, x):
    batch, tokens, channels = x.shape
    return x.view(batch, tokens, channels // 32, 32).transpose(1, 2)


def projected_as_well(attention, x):
    return attention.to_q(x).unflatten(-1, (attention.heads, -1)).transpose(1, 2)


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


def weight_as_it_is(attention, x, context=None):
    context = x if context is None else context
    query = attention.split_heads(attention.to_q(x))
    key, value = attention.split_heads(attention.to_k(context)), attention.split_heads(attention.to_v(context))
    out = attention.attend(query, key, value).transpose(1, 2).flatten(2)
    return out @ attention.to_out[0].weight + attention.to_out[0].bias


def mean_of_the_heads(attention, x, context=None):
    context = x if context is None else context
    query = attention.split_heads(attention.to_q(x))
    key, value = attention.split_heads(attention.to_k(context)), attention.split_heads(attention.to_v(context))
    return attention.to_out[0](attention.attend(query, key, value).mean(1))


def sum_of_the_heads(attention, x, context=None):
    context = x if context is None else context
    query = attention.split_heads(attention.to_q(x))
    key, value = attention.split_heads(attention.to_k(context)), attention.split_heads(attention.to_v(context))
    return attention.to_out[0](attention.attend(query, key, value).sum(1))


def flattened_at_once(attention, x, context=None):
    context = x if context is None else context
    query = attention.split_heads(attention.to_q(x))
    key, value = attention.split_heads(attention.to_k(context)), attention.split_heads(attention.to_v(context))
    return attention.to_out[0](attention.attend(query, key, value).flatten(2))


def one_or_the_other(attention, x, context=None):
    context = context or x
    query = attention.split_heads(attention.to_q(x))
    key, value = attention.split_heads(attention.to_k(context)), attention.split_heads(attention.to_v(context))
    return attention.to_out[0](attention.attend(query, key, value).transpose(1, 2).flatten(2))


def never_projected(attention, x, context=None):
    context = x if context is None else context
    query, key, value = (attention.split_heads(one) for one in (x, context, context))
    return attention.to_out[0](attention.attend(query, key, value).transpose(1, 2).flatten(2))


def values_not_split(attention, x, context=None):
    context = x if context is None else context
    query, key = attention.split_heads(attention.to_q(x)), attention.split_heads(attention.to_k(context))
    out = attention.attend(query, key, attention.to_v(context))
    return attention.to_out[0](out.transpose(1, 2).flatten(2))


def viewed(attention, x, context=None):
    context = x if context is None else context
    query = attention.split_heads(attention.to_q(x))
    key, value = attention.split_heads(attention.to_k(context)), attention.split_heads(attention.to_v(context))
    return attention.to_out[0](attention.attend(query, key, value).transpose(1, 2).view(x.shape))


def the_layer_itself(attention, x, context=None):
    return attention(x, context)


def out_twice(attention, x, context=None):
    context = x if context is None else context
    query = attention.split_heads(attention.to_q(x))
    key, value = attention.split_heads(attention.to_k(context)), attention.split_heads(attention.to_v(context))
    out = attention.to_out[0](attention.attend(query, key, value).transpose(1, 2).flatten(2))
    return attention.to_out[0](out)


def out_alone_without_words(attention, x, context=None):
    if context is None:
        return attention.to_out[0](x)
    query = attention.split_heads(attention.to_q(x))
    key, value = attention.split_heads(attention.to_k(context)), attention.split_heads(attention.to_v(context))
    return attention.to_out[0](attention.attend(query, key, value).transpose(1, 2).flatten(2))


def by_hand_without_the_root(attention, x, context=None):
    context = x if context is None else context
    query = attention.split_heads(attention.to_q(x))
    key, value = attention.split_heads(attention.to_k(context)), attention.split_heads(attention.to_v(context))
    out = (query @ key.mT).softmax(-1) @ value
    return attention.to_out[0](out.transpose(1, 2).flatten(2))


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


class NormsSwapped(Block):
    def forward(self, x, context):
        x = x + self.attn1(self.norm1(x), context if self.only_cross_attention else None)
        x = x + self.attn2(self.norm3(x), context)
        return x + self.ff(self.norm2(x))


class SecondLooksAtTheFirst(Block):
    def forward(self, x, context):
        a = x + self.attn1(self.norm1(x), context if self.only_cross_attention else None)
        b = a + self.attn2(self.norm2(x), context)
        return b + self.ff(self.norm3(b))


class ThirdLooksAtTheSecond(Block):
    def forward(self, x, context):
        a = x + self.attn1(self.norm1(x), context if self.only_cross_attention else None)
        b = a + self.attn2(self.norm2(a), context)
        return b + self.ff(self.norm3(a))


class FirstTwice(Block):
    def forward(self, x, context):
        x = x + self.attn1(self.norm1(x), context if self.only_cross_attention else None)
        x = x + self.attn1(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class OneSumForAll(Block):
    def forward(self, x, context):
        hidden = self.attn1(self.norm1(x), context if self.only_cross_attention else None)
        hidden = self.attn2(self.norm2(hidden), context)
        return x + self.ff(self.norm3(hidden))


class WordsNormalised(Block):
    def forward(self, x, context):
        x = x + self.attn1(self.norm1(x), context if self.only_cross_attention else None)
        x = x + self.attn2(self.norm2(x), F.layer_norm(context, context.shape[-1:]))
        return x + self.ff(self.norm3(x))


class FirstLeftOut(Block):
    def forward(self, x, context):
        if not self.only_cross_attention:
            x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


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


class DistributionAlone(Gate):
    def forward(self, x):
        hidden, gate = self.proj(x).chunk(2, dim=-1)
        return hidden * torch.special.ndtr(gate)


class WithoutBias(Gate):
    def forward(self, x):
        hidden, gate = (x @ self.proj.weight.T).chunk(2, dim=-1)
        return hidden * F.gelu(gate)


class GateAlone(Gate):
    def forward(self, x):
        _, gate = self.proj(x).chunk(2, dim=-1)
        return F.gelu(gate)


class ErfOfZ(Gate):
    def forward(self, x):
        hidden, gate = self.proj(x).chunk(2, dim=-1)
        return hidden * gate * 0.5 * (1 + torch.erf(gate))


class MiddleHalved(Gate):
    def forward(self, x):
        hidden, gate = self.proj(x).chunk(2, 1)
        return hidden * F.gelu(gate)


class PiecesOfTwo(Gate):
    def forward(self, x):
        hidden, gate = self.proj(x).split(2, -1)
        return hidden * F.gelu(gate)


class Sigmoid(Gate):
    def forward(self, x):
        return F.glu(self.proj(x))


WRONG = {
    "08.attention_weights": [
        ("the scale is missing", scale_forgotten),
        ("divided by D, but they must be divided by √D", divided_by_d),
        ("over the heads", default_axis),
        ("over the queries", over_the_queries),
        ("exchange its last two, key.mT", transposed_all_the_way),
        ("key isn't transposed", never_transposed_key),
        ("the mask is ignored", mask_forgotten),
        ("the mask is multiplied with the weights", mask_afterwards),
        ("0 is where a query *may* look", mask_as_in_other_courses),
        ("it changes query, one of its inputs, in place", query_in_place),
        ("NoneType", mask_is_needed),
        ("is a `return` missing", without_return),
        ("hard-coded as 64", of_width_64),
        ("hard-coded as 32", of_width_32),
        ("leave their dtype", in_float32),
        ("the mask gets two more dimensions", mask_of_two_dimensions),
        ("the mask gets one more dimension", mask_unsqueezed),
        ("the mask gets two more dimensions", mask_viewed),
        ("the mask is cut", mask_cut),
        ("a mask (B, 1, 1, S)", head_by_head_with_one_mask),
        ("a row no longer adds up to 1", mask_exponentials),
        ("ask `if mask is not None`", mask_true_or_false),
        ("the exponentials overflow", overflowing),
        ("the sum of all of them", over_everything),
    ],
    "08.split_heads": [
        ("alone mixes tokens", reshaped_at_once),
        ("the head must come before the tokens", never_transposed),
        ("every N-th channel", width_first),
        ("pictures and heads are one dimension", for_bmm),
        ("it must return a tensor", a_list_of_heads),
        ("the heads come first", heads_first),
        ("hard-coded as 8", eight_heads),
        ("x is transposed, and then", transposed_and_reshaped),
        ("every head gets the first D channels", the_first_channels_for_all),
        ("hard-coded as 32", heads_of_width_32),
        ("only split what you are given", projected_as_well),
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
        ("which must be transposed", weight_as_it_is),
        ("here only D are left", mean_of_the_heads),
        ("here only D are left", sum_of_the_heads),
        ("aren't exchanged before the heads are joined", flattened_at_once),
        ("ask `if context is None`", one_or_the_other),
        ("x and the context are used as they are", never_projected),
        ("applied twice", out_twice),
        ("flatten(2))` (case 2: one pixel, one word, one head)", values_not_split),  # and no hint: it would be a guess
        ("`view` can't join them", viewed),
        ("the layer is called itself", the_layer_itself),
        ("x goes to to_out[0] at once", out_alone_without_words),
        ("divided by √D; read equation (4)", by_hand_without_the_root),
    ],
    "08.transformer_block": [
        ("nothing is added to its input", NothingAdded),
        ("the norms come after the sums", NormsAfterwards),
        ("the normalised x is what the results are added to", NormalisedIsAdded),
        ("only_cross_attention is ignored", FlagForgotten),
        ("the second attention gets no context", WordsForgotten),
        ("it changes x, one of its inputs, in place", InPlace),
        ("its parameters differ", OwnNames),
        ("norm2 and norm3 are swapped", NormsSwapped),
        ("the second attention looks at the first x", SecondLooksAtTheFirst),
        ("the feed-forward layer looks at an older x", ThirdLooksAtTheSecond),
        ("attn1 is used twice", FirstTwice),
        ("x is added once, at the end", OneSumForAll),
        ("by a norm without weights", WordsNormalised),
        ("the first attention is left out", FirstLeftOut),
    ],
    "08.geglu": [
        ("the two halves are swapped", HalvesSwapped),
        ("approximated by a tanh", WithTanh),
        ("the pictures are halved", TokensHalved),
        ("the tokens are halved", MiddleHalved),
        ("`split` takes the size of a piece", PiecesOfTwo),
        ("GELU of all channels", Plain),
        ("the z in GELU(z)", DistributionAlone),
        ("the biases b and d are missing", WithoutBias),
        ("only the gate comes out", GateAlone),
        ("the 1/√2 is missing", ErfOfZ),
        ("the gate is a sigmoid here", Sigmoid),
    ],
}
