"""Right answers to the exercises of lesson 07 that are written in another way than the package's."""

from collections import Counter, defaultdict

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPTextConfig
from transformers.models.clip import modeling_clip

from sdlearn.models.text import MLP, SelfAttention
from sdlearn.tokenizer import EOS, SYMBOL_OF_BYTE, spell

# Transformers calls it by this name, or by an older one
CLIP_LOSS = getattr(modeling_clip, "image_text_contrastive_loss", None) or modeling_clip.clip_loss


def with_an_index(tokens, pair):
    merged, i = [], 0
    while i < len(tokens):
        if i + 1 < len(tokens) and tokens[i] == pair[0] and tokens[i + 1] == pair[1]:
            merged.append(pair[0] + pair[1])
            i += 2
        else:
            merged.append(tokens[i])
            i += 1
    return merged


def in_place_on_a_copy(tokens, pair):
    tokens, i = list(tokens), 0
    while i < len(tokens) - 1:
        if (tokens[i], tokens[i + 1]) == pair:
            tokens[i] += tokens.pop(i + 1)
        i += 1
    return tokens


def by_recursion(tokens, pair):
    if len(tokens) < 2:
        return [*tokens]
    if tuple(tokens[:2]) == pair:
        return ["".join(pair), *by_recursion(tokens[2:], pair)]
    return [tokens[0], *by_recursion(tokens[1:], pair)]


def with_separators(tokens, pair):
    text = "\n" + "\n\n".join(tokens) + "\n"  # each token between its own line breaks
    return text.replace(f"\n{pair[0]}\n\n{pair[1]}\n", f"\n{pair[0]}{pair[1]}\n").strip("\n").split("\n\n")


def as_a_tuple(tokens, pair):
    merged = ()
    for token in tokens:
        merged = (*merged[:-1], merged[-1] + token) if merged and (merged[-1], token) == pair else (*merged, token)
    return merged


def a_very_low_number(tokens, like):
    return torch.full((tokens, tokens), -1e9, dtype=like.dtype).triu(1)


def by_rows_and_columns(tokens, like):
    place = torch.arange(tokens)
    return torch.zeros(tokens, tokens, dtype=like.dtype).masked_fill(place[None, :] > place[:, None], float("-inf"))


def by_numpy(tokens, like):
    return torch.from_numpy(np.triu(np.full((tokens, tokens), -np.inf), k=1)).to(like)


def with_two_loops(tokens, like):
    mask = torch.zeros(tokens, tokens).to(like)
    for i in range(tokens):
        for j in range(i + 1, tokens):
            mask[i, j] = -torch.inf
    return mask


def the_lowest_number_there_is(tokens, like):
    return torch.full_like(like[0, :1, :1], torch.finfo(like.dtype).min).expand(tokens, tokens).triu(diagonal=1)


def pytorch_s_own(tokens, like):
    return nn.Transformer.generate_square_subsequent_mask(tokens, dtype=like.dtype)


def logarithm_of_what_is_allowed(tokens, like):
    return torch.ones(tokens, tokens, dtype=like.dtype, device=like.device).tril().log()


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.self_attn = SelfAttention(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class WithResiduals(Layer):
    def forward(self, x, mask=None):
        residual = x
        x = self.layer_norm1(x)
        x = self.self_attn(x, mask=mask)
        x = residual + x
        residual = x
        x = self.mlp(self.layer_norm2(x))
        return residual + x


class TextByText(Layer):
    def forward(self, x, mask=None):
        rows = []
        for one in x.split(1):
            one = torch.add(one, self.self_attn(self.layer_norm1(one), mask))
            rows.append(torch.add(one, self.mlp(self.layer_norm2(one))))
        return torch.cat(rows)


class FromItsParts(Layer):
    """In float64, with the attention and the norms written out."""

    @staticmethod
    def normalized(x, norm):
        centered = x - x.mean(-1, keepdim=True)
        std = (centered.square().mean(-1, keepdim=True) + norm.eps).sqrt()
        return centered / std * norm.weight.double() + norm.bias.double()

    @staticmethod
    def linear(x, layer):
        return torch.einsum("...c,oc->...o", x, layer.weight.double()) + layer.bias.double()

    def forward(self, x, mask=None):
        x, at = x.double(), self.self_attn
        h = self.normalized(x, self.layer_norm1)
        q, k, v = (self.linear(h, one).unflatten(-1, (at.heads, -1)) for one in (at.q_proj, at.k_proj, at.v_proj))
        logits = torch.einsum("bind,bjnd->bnij", q, k) / q.shape[-1] ** 0.5
        weights = (logits if mask is None else logits + mask.double()).softmax(-1)
        x = x + self.linear(torch.einsum("bnij,bjnd->bind", weights, v).flatten(2), at.out_proj)
        h = self.mlp.activation(self.linear(self.normalized(x, self.layer_norm2), self.mlp.fc1))
        return x + self.linear(h, self.mlp.fc2)


class TransformersOwn(modeling_clip.CLIPEncoderLayer):
    def __init__(self, config):
        names = ("hidden_size", "intermediate_size", "num_attention_heads", "hidden_act", "layer_norm_eps")
        super().__init__(CLIPTextConfig(**{name: getattr(config, name) for name in names}, attn_implementation="eager"))

    def forward(self, x, mask=None):
        result = super().forward(x, attention_mask=None if mask is None else mask[None, None])
        return result[0] if isinstance(result, tuple) else result


def with_log_softmax(image_features, text_features, logit_scale, same=None):
    images = image_features / image_features.norm(dim=-1, keepdim=True)
    texts = text_features / text_features.norm(dim=-1, keepdim=True)
    logits = torch.exp(logit_scale) * images @ texts.T
    if same is not None:
        logits = logits.masked_fill(same.clone().fill_diagonal_(False), -torch.inf)
    both = logits.log_softmax(1).diagonal() + logits.log_softmax(0).diagonal()
    return -both.mean() / 2


def pair_by_pair(image_features, text_features, logit_scale, same=None):
    count, losses = len(image_features), []
    logits = logit_scale.exp() * F.cosine_similarity(image_features[:, None], text_features[None], dim=-1)
    for i in range(count):
        row = [j for j in range(count) if j == i or same is None or not same[i, j]]
        column = [j for j in range(count) if j == i or same is None or not same[j, i]]
        losses += [logits[i, row].logsumexp(0) - logits[i, i], logits[column, i].logsumexp(0) - logits[i, i]]
    return sum(losses) / len(losses)


def by_einsum_in_float64(image_features, text_features, logit_scale, same=None):
    images, texts = (F.normalize(one.double(), dim=1) for one in (image_features, text_features))
    odds = (logit_scale.double().exp() * torch.einsum("ip,jp->ij", images, texts)).exp()
    kept = torch.ones_like(odds) if same is None else 1 - same.double() + torch.eye(len(odds))
    rows, columns = (odds * kept).sum(1), (odds * kept).sum(0)
    return ((rows.log() + columns.log()) / 2 - odds.diagonal().log()).mean()


def with_nll_loss(image_features, text_features, logit_scale, same=None):
    logits = F.normalize(text_features, dim=-1) @ F.normalize(image_features, dim=-1).T * logit_scale.exp()
    if same is not None:
        own = torch.eye(len(same), dtype=torch.bool)
        logits = torch.where(same.T & ~own, torch.tensor(-1e9), logits)
    right = torch.arange(len(logits))
    return 0.5 * F.nll_loss(F.log_softmax(logits, 1), right) + 0.5 * F.nll_loss(F.log_softmax(logits.T, 1), right)


def with_transformers_loss(image_features, text_features, logit_scale, same=None):
    logits = F.normalize(text_features, dim=-1) @ F.normalize(image_features, dim=-1).T * logit_scale.exp()
    if same is not None:
        logits = logits.masked_fill((same & ~torch.eye(len(same), dtype=torch.bool)).T, float("-inf"))
    return CLIP_LOSS(logits)


def sorted_twice(words):
    counts = defaultdict(int)
    for tokens, count in words:
        for left, right in zip(tokens, tokens[1:], strict=False):
            counts[left, right] += count
    ordered = sorted(counts)
    return max(ordered, key=counts.__getitem__) if ordered else None


def with_an_update(words):
    counts = Counter()
    for tokens, count in words:
        counts.update([*zip(tokens[:-1], tokens[1:], strict=True)] * count)
    if not counts:
        return None
    most = max(counts.values())
    return min(pair for pair, count in counts.items() if count == most)


def in_one_loop(words):
    counts, best = {}, None
    for tokens, count in words:
        for i in range(len(tokens) - 1):
            pair = (tokens[i], tokens[i + 1])
            counts[pair] = counts.get(pair, 0) + count
    for pair, count in counts.items():
        if best is None or count > counts[best] or (count == counts[best] and pair < best):
            best = pair
    return best


def sorted_by_count_and_name(words):
    counts = Counter()
    for tokens, count in words:
        for i in range(1, len(tokens)):
            counts[tokens[i - 1], tokens[i]] += count
    return sorted(counts.items(), key=lambda one: (-one[1], one[0]))[0][0] if counts else None


def counted_by_numpy(words):
    every = [pair for tokens, count in words for pair in [*zip(tokens[:-1], tokens[1:], strict=True)] * count]
    if not every:
        return None
    names, counts = np.unique(np.array([f"{left}\n{right}" for left, right in every]), return_counts=True)
    left, right = names[counts == counts.max()].tolist()[0].split("\n")
    return left, right


def merge_by_merge(tokenizer, word):
    tokens = [one if one in tokenizer.vocab else EOS for one in spell(word)]
    for left, right in tokenizer.merges:
        i = 0
        while i < len(tokens) - 1:
            if tokens[i] == left and tokens[i + 1] == right:
                tokens = [*tokens[:i], left + right, *tokens[i + 2 :]]
            i += 1
    return tokens


def from_openai(tokenizer, word):
    symbols = [SYMBOL_OF_BYTE[byte] for byte in word.encode()]
    symbols[-1] += "</w>"
    tokens = tuple(one if one in tokenizer.vocab else EOS for one in symbols)
    while len(tokens) > 1:
        pairs = set(zip(tokens, tokens[1:], strict=False))
        best = min(pairs, key=lambda pair: tokenizer.rank.get(pair, float("inf")))
        if best not in tokenizer.rank:
            break
        merged, i = [], 0
        while i < len(tokens):
            if tokens[i : i + 2] == best:
                merged.append("".join(best))
                i += 2
            else:
                merged.append(tokens[i])
                i += 1
        tokens = tuple(merged)
    return tokens


def until_nothing_is_left(tokenizer, word):
    tokens, rank = [one if one in tokenizer.vocab else EOS for one in spell(word)], tokenizer.rank
    while True:
        pairs = list(zip(tokens, tokens[1:], strict=False))
        ranked = sorted((rank[pair], i) for i, pair in enumerate(pairs) if pair in rank)
        if not ranked:
            return tokens
        i = ranked[0][1]
        tokens[i] = tokens[i] + tokens.pop(i + 1)


def by_recursion_on_tokens(tokenizer, word):
    def further(tokens):
        ranks = [tokenizer.rank.get(pair) for pair in zip(tokens, tokens[1:], strict=False)]
        known = [rank for rank in ranks if rank is not None]
        if not known:
            return tokens
        i = ranks.index(min(known))
        return further([*tokens[:i], tokens[i] + tokens[i + 1], *tokens[i + 2 :]])

    return further([one if one in tokenizer.vocab else EOS for one in spell(word)])


RIGHT = {
    "07.merge_pair": [with_an_index, in_place_on_a_copy, by_recursion, with_separators, as_a_tuple],
    "07.causal_mask": [
        *(a_very_low_number, by_rows_and_columns, by_numpy, with_two_loops, the_lowest_number_there_is),
        *(pytorch_s_own, logarithm_of_what_is_allowed),
    ],
    "07.text_layer": [WithResiduals, TextByText, FromItsParts, TransformersOwn],
    "07.contrastive_loss": [
        *(with_log_softmax, pair_by_pair, by_einsum_in_float64, with_nll_loss, with_transformers_loss),
    ],
    "07.most_frequent_pair": [sorted_twice, with_an_update, in_one_loop, sorted_by_count_and_name, counted_by_numpy],
    "07.merge": [merge_by_merge, from_openai, until_nothing_is_left, by_recursion_on_tokens],
}
