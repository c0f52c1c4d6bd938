"""Wrong answers to the exercises of lesson 07 as learners type them, and a piece of what they are told."""

from collections import Counter

import torch
import torch.nn.functional as F
from torch import nn

from sdlearn.models.text import MLP, SelfAttention
from sdlearn.tokenizer import spell


def only_once(tokens, pair):
    for i in range(len(tokens) - 1):
        if (tokens[i], tokens[i + 1]) == pair:
            return [*tokens[:i], pair[0] + pair[1], *tokens[i + 2 :]]
    return tokens


def in_place(tokens, pair):
    i = 0
    while i < len(tokens) - 1:
        if (tokens[i], tokens[i + 1]) == pair:
            tokens[i : i + 2] = [pair[0] + pair[1]]
        i += 1
    return tokens


def by_replacing_text(tokens, pair):
    return " ".join(tokens).replace(" ".join(pair), "".join(pair)).split(" ")


def past_the_end(tokens, pair):
    merged, i = [], 0
    while i < len(tokens):
        if (tokens[i], tokens[i + 1]) == pair:
            merged.append(pair[0] + pair[1])
            i += 2
        else:
            merged.append(tokens[i])
            i += 1
    return merged


def a_tuple_stays(tokens, pair):
    merged, i = [], 0
    while i < len(tokens):
        if tuple(tokens[i : i + 2]) == pair:
            merged.append(pair)
            i += 2
        else:
            merged.append(tokens[i])
            i += 1
    return merged


def skips_only_one(tokens, pair):
    merged = []
    for i, token in enumerate(tokens):
        if i + 1 < len(tokens) and (token, tokens[i + 1]) == pair:
            merged.append(token + tokens[i + 1])
        else:
            merged.append(token)
    return merged


def joined_texts(tokens, pair):
    merged, i = [], 0
    while i < len(tokens):
        if "".join(tokens[i : i + 2]) == "".join(pair):
            merged.append("".join(pair))
            i += 2
        else:
            merged.append(tokens[i])
            i += 1
    return merged


def one_by_one(tokens, pair):
    merged, i = [], 0
    while i < len(tokens):
        if tokens[i] == pair[0] and tokens[i + 1] == pair[1]:
            merged.append(pair[0] + pair[1])
            i += 2
        else:
            merged.append(tokens[i])
            i += 1
    return merged


def ends_too_early(tokens, pair):
    merged, i = [], 0
    while i < len(tokens) - 1:
        if (tokens[i], tokens[i + 1]) == pair:
            merged.append(tokens[i] + tokens[i + 1])
            i += 2
        else:
            merged.append(tokens[i])
            i += 1
    return merged


def in_either_order(tokens, pair):
    merged, i = [], 0
    while i < len(tokens):
        if i + 1 < len(tokens) and sorted(tokens[i : i + 2]) == sorted(pair):
            merged.append(tokens[i] + tokens[i + 1])
            i += 2
        else:
            merged.append(tokens[i])
            i += 1
    return merged


def without_a_return(tokens, pair):
    merged = list(tokens)
    for i in range(len(merged) - 2, -1, -1):
        if (merged[i], merged[i + 1]) == pair:
            merged[i : i + 2] = ["".join(pair)]


def a_list_is_no_tuple(tokens, pair):
    merged, i = [], 0
    while i < len(tokens):
        if tokens[i : i + 2] == pair:
            merged.append(pair[0] + pair[1])
            i += 2
        else:
            merged.append(tokens[i])
            i += 1
    return merged


def ones_and_zeros(tokens, like):
    return torch.tril(torch.ones(tokens, tokens))


def with_the_diagonal(tokens, like):
    return torch.triu(torch.full((tokens, tokens), float("-inf")))


def infinity_times_zero(tokens, like):
    return torch.triu(torch.ones(tokens, tokens), 1) * float("-inf")


def lower_triangle(tokens, like):
    return torch.full((tokens, tokens), float("-inf")).tril(-1)


def one_too_far(tokens, like):
    return torch.full((tokens, tokens), float("-inf")).triu(2)


def true_where_hidden(tokens, like):
    return torch.ones(tokens, tokens, dtype=torch.bool).triu(1)


def true_where_seen(tokens, like):
    return torch.ones(tokens, tokens, dtype=torch.bool).tril()


def too_small_a_number(tokens, like):
    return torch.full((tokens, tokens), -1.0).triu(1)


def without_the_dtype(tokens, like):
    return torch.full((tokens, tokens), float("-inf")).triu(1)


def in_half_precision(tokens, like):
    return torch.full((tokens, tokens), float("-inf"), dtype=torch.float16).triu(1)


def as_many_as_like(tokens, like):
    return torch.full((like.shape[1], like.shape[1]), float("-inf"), dtype=like.dtype).triu(1)


def one_dimension_more(tokens, like):
    return torch.full((1, tokens, tokens), float("-inf"), dtype=like.dtype).triu(1)


def not_zero_where_allowed(tokens, like):
    return (1 - torch.ones(tokens, tokens, dtype=like.dtype).tril()) * -1e9 + 3


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.self_attn = SelfAttention(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class NoResidual(Layer):
    def forward(self, x, mask=None):
        x = self.self_attn(self.layer_norm1(x), mask)
        return self.mlp(self.layer_norm2(x))


class NoMask(Layer):
    def forward(self, x, mask=None):
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class PostNorm(Layer):
    def forward(self, x, mask=None):
        x = self.layer_norm1(x + self.self_attn(x, mask))
        return self.layer_norm2(x + self.mlp(x))


class OldResidual(Layer):
    def forward(self, x, mask=None):
        y = x + self.self_attn(self.layer_norm1(x), mask)
        return x + self.mlp(self.layer_norm2(y))


class InPlaceOnACopy(Layer):
    """The values are right, but the norm's gradient needs the x that is overwritten."""

    def forward(self, x, mask=None):
        x = x.clone()
        x += self.self_attn(self.layer_norm1(x), mask)
        x += self.mlp(self.layer_norm2(x))
        return x


class InPlace(Layer):
    @torch.no_grad()
    def forward(self, x, mask=None):
        x += self.self_attn(self.layer_norm1(x), mask)
        x += self.mlp(self.layer_norm2(x))
        return x


class TransposedMask(Layer):
    def forward(self, x, mask=None):
        x = x + self.self_attn(self.layer_norm1(x), None if mask is None else mask.T)
        return x + self.mlp(self.layer_norm2(x))


class WithoutGradient(Layer):
    @torch.no_grad()
    def forward(self, x, mask=None):
        x = x + self.self_attn(self.layer_norm1(x), mask)
        return x + self.mlp(self.layer_norm2(x))


class ANewLayer(Layer):
    def __init__(self, config):
        super().__init__(config)
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, x, mask=None):
        x = x + self.self_attn(self.norm(x), mask)
        return x + self.mlp(self.layer_norm2(x))


def one_way(image_features, text_features, logit_scale, same=None):
    images, texts = F.normalize(image_features, dim=-1), F.normalize(text_features, dim=-1)
    logits = images @ texts.T * logit_scale.exp()
    if same is not None:
        logits = logits.masked_fill(same & ~torch.eye(len(same), dtype=torch.bool), float("-inf"))
    return F.cross_entropy(logits, torch.arange(len(logits)))


def same_forgotten(image_features, text_features, logit_scale, same=None):
    images, texts = F.normalize(image_features, dim=-1), F.normalize(text_features, dim=-1)
    logits = images @ texts.T * logit_scale.exp()
    labels = torch.arange(len(logits))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def not_an_exponential(image_features, text_features, logit_scale, same=None):
    images, texts = F.normalize(image_features, dim=-1), F.normalize(text_features, dim=-1)
    logits = images @ texts.T * logit_scale
    if same is not None:
        logits = logits.masked_fill(same & ~torch.eye(len(same), dtype=torch.bool), float("-inf"))
    labels = torch.arange(len(logits))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def not_normalised(image_features, text_features, logit_scale, same=None):
    logits = image_features @ text_features.T * logit_scale.exp()
    if same is not None:
        logits = logits.masked_fill(same & ~torch.eye(len(same), dtype=torch.bool), float("-inf"))
    labels = torch.arange(len(logits))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def the_own_ones_too(image_features, text_features, logit_scale, same=None):
    images, texts = F.normalize(image_features, dim=-1), F.normalize(text_features, dim=-1)
    logits = images @ texts.T * logit_scale.exp()
    if same is not None:
        logits = logits.masked_fill(same, float("-inf"))
    labels = torch.arange(len(logits))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def a_sum(image_features, text_features, logit_scale, same=None):
    images, texts = F.normalize(image_features, dim=-1), F.normalize(text_features, dim=-1)
    logits = images @ texts.T * logit_scale.exp()
    if same is not None:
        logits = logits.masked_fill(same & ~torch.eye(len(same), dtype=torch.bool), float("-inf"))
    labels = torch.arange(len(logits))
    return F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)


def soft_targets(image_features, text_features, logit_scale, same=None):
    images, texts = F.normalize(image_features, dim=-1), F.normalize(text_features, dim=-1)
    logits = images @ texts.T * logit_scale.exp()
    target = torch.eye(len(logits)) if same is None else same.float() / same.float().sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def as_siglip_does(image_features, text_features, logit_scale, same=None):
    images, texts = F.normalize(image_features, dim=-1), F.normalize(text_features, dim=-1)
    logits = images @ texts.T * logit_scale.exp()
    if same is not None:
        logits = logits.masked_fill(same & ~torch.eye(len(same), dtype=torch.bool), float("-inf"))
    return F.binary_cross_entropy_with_logits(logits, torch.eye(len(logits)))


def a_number(image_features, text_features, logit_scale, same=None):
    images, texts = F.normalize(image_features, dim=-1), F.normalize(text_features, dim=-1)
    logits = images @ texts.T * logit_scale.exp()
    if same is not None:
        logits = logits.masked_fill(same & ~torch.eye(len(same), dtype=torch.bool), float("-inf"))
    labels = torch.arange(len(logits))
    return ((F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2).item()


def swapped(text_features, image_features, logit_scale, same=None):
    images, texts = F.normalize(image_features, dim=-1), F.normalize(text_features, dim=-1)
    logits = images @ texts.T * logit_scale.exp()
    if same is not None:
        logits = logits.masked_fill(same & ~torch.eye(len(same), dtype=torch.bool), float("-inf"))
    labels = torch.arange(len(logits))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def each_word_once(words):
    counts = {}
    for tokens, _ in words:
        for pair in zip(tokens, tokens[1:], strict=False):
            counts[pair] = counts.get(pair, 0) + 1
    return min(counts, key=lambda pair: (-counts[pair], pair)) if counts else None


def first_seen(words):
    counts = {}
    for tokens, count in words:
        for pair in zip(tokens, tokens[1:], strict=False):
            counts[pair] = counts.get(pair, 0) + count
    return max(counts, key=counts.get) if counts else None


def last_by_name(words):
    counts = {}
    for tokens, count in words:
        for pair in zip(tokens, tokens[1:], strict=False):
            counts[pair] = counts.get(pair, 0) + count
    return max((count, pair) for pair, count in counts.items())[1] if counts else None


def nothing_to_merge_forgotten(words):
    counts = {}
    for tokens, count in words:
        for pair in zip(tokens, tokens[1:], strict=False):
            counts[pair] = counts.get(pair, 0) + count
    return min(counts, key=lambda pair: (-counts[pair], pair))


def joined(words):
    counts = {}
    for tokens, count in words:
        for pair in zip(tokens, tokens[1:], strict=False):
            counts[pair] = counts.get(pair, 0) + count
    return "".join(min(counts, key=lambda pair: (-counts[pair], pair))) if counts else ""


def as_a_list(words):
    counts = {}
    for tokens, count in words:
        for pair in zip(tokens, tokens[1:], strict=False):
            counts[pair] = counts.get(pair, 0) + count
    return list(min(counts, key=lambda pair: (-counts[pair], pair))) if counts else None


def by_joined_texts(words):
    counts = {}
    for tokens, count in words:
        for pair in zip(tokens, tokens[1:], strict=False):
            counts[pair] = counts.get(pair, 0) + count
    return min(counts, key=lambda pair: (-counts[pair], "".join(pair))) if counts else None


def by_left_tokens(words):
    counts = {}
    for tokens, count in words:
        for pair in zip(tokens, tokens[1:], strict=False):
            counts[pair] = counts.get(pair, 0) + count
    return min(counts, key=lambda pair: (-counts[pair], pair[0])) if counts else None


def by_length(words):
    counts = {}
    for tokens, count in words:
        for pair in zip(tokens, tokens[1:], strict=False):
            counts[pair] = counts.get(pair, 0) + count
    return min(counts, key=lambda pair: (-counts[pair], len("".join(pair)), pair)) if counts else None


def none_if_one_word_is_a_token(words):
    counts = {}
    for tokens, count in words:
        if len(tokens) < 2:
            return None
        for pair in zip(tokens, tokens[1:], strict=False):
            counts[pair] = counts.get(pair, 0) + count
    return min(counts, key=lambda pair: (-counts[pair], pair)) if counts else None


def most_common(words):
    counts = Counter()
    for tokens, count in words:
        for pair in zip(tokens, tokens[1:], strict=False):
            counts[pair] += count
    return counts.most_common(1)[0] if counts else None


def longest_match(tokenizer, word):
    letters, tokens = spell(word), []
    while letters:
        for size in range(len(letters), 0, -1):
            if "".join(letters[:size]) in tokenizer.vocab:
                tokens.append("".join(letters[:size]))
                break
        else:
            size = 1
            tokens.append("<|endoftext|>")
        letters = letters[size:]
    return tokens


def rank_0_is_lost(tokenizer, word):
    tokens = [one if one in tokenizer.vocab else "<|endoftext|>" for one in spell(word)]
    while len(tokens) > 1:
        ranks = [tokenizer.rank.get(pair) or 1e9 for pair in zip(tokens, tokens[1:], strict=False)]
        i = ranks.index(min(ranks))
        if ranks[i] == 1e9:
            break
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
    return tokens


def characters(tokenizer, word):
    tokens = [one if one in tokenizer.vocab else "<|endoftext|>" for one in [*word[:-1], word[-1] + "</w>"]]
    while len(tokens) > 1:
        ranks = [tokenizer.rank.get(pair, 1e9) for pair in zip(tokens, tokens[1:], strict=False)]
        i = ranks.index(min(ranks))
        if ranks[i] == 1e9:
            break
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
    return tokens


def left_to_right(tokenizer, word):
    tokens, i = [one if one in tokenizer.vocab else "<|endoftext|>" for one in spell(word)], 0
    while i < len(tokens) - 1:
        if (tokens[i], tokens[i + 1]) in tokenizer.rank:
            tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
            i = 0
        else:
            i += 1
    return tokens


def ids(tokenizer, word):
    return tokenizer.encode_word(word)


def no_unknown_letters(tokenizer, word):
    tokens = spell(word)
    while True:
        ranks = [tokenizer.rank.get(pair, 1e9) for pair in zip(tokens, tokens[1:], strict=False)]
        if not ranks or min(ranks) == 1e9:
            return tokens
        i = ranks.index(min(ranks))
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]


def never_ends(tokenizer, word):
    tokens = spell(word)
    while len(tokens) > 1:
        ranks = [tokenizer.rank.get(pair, 1e9) for pair in zip(tokens, tokens[1:], strict=False)]
        i = ranks.index(min(ranks))
        if ranks[i] < 1e9:
            tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
    return tokens


WRONG = {
    "07.merge_pair": [
        ("only the first occurrence is merged", only_once),
        ("it changes tokens, one of its inputs, in place", in_place),
        ("looked for in one long text", by_replacing_text),
        ("list index out of range", past_the_end),
        ("the new token is a tuple", a_tuple_stays),
        ("comes a second time", skips_only_one),
        ("the joined texts are compared", joined_texts),
        ("ask for tokens[i + 1] only where", one_by_one),
        ("is lost unless it is merged", ends_too_early),
        ("in either order", in_either_order),
        ("is a `return` missing", without_a_return),
        ("nothing is ever merged", a_list_is_no_tuple),
    ],
    "07.causal_mask": [
        ("the future is only less likely", ones_and_zeros),
        ("a token can't see itself", with_the_diagonal),
        ("-inf times 0 is NaN", infinity_times_zero),
        ("the past is hidden", lower_triangle),
        ("one token too far ahead", one_too_far),
        ("draws its eye there", true_where_hidden),
        ("the future is only less likely", true_where_seen),
        ("the future is only less likely", too_small_a_number),
        ("but `like` is torch.float64", without_the_dtype),
        ("the mask is torch.float16", in_half_precision),
        ("the mask has the shape (5, 5), but (T, T) is (3, 3)", as_many_as_like),
        ("the mask has the shape (1, 5, 5)", one_dimension_more),
        ("the mask must be 0", not_zero_where_allowed),
    ],
    "07.text_layer": [
        ("nothing is added", NoResidual),
        ("the mask isn't passed on", NoMask),
        ("the norms come after the sums", PostNorm),
        ("the layer's input is added in the second sum", OldResidual),
        ("write x = x + …, not x += …", InPlaceOnACopy),
        ("the mask is transposed", TransposedMask),
        ("in place", InPlace),
        ("no gradient reaches", WithoutGradient),
        ("norm.weight is not the package's", ANewLayer),
    ],
    "07.contrastive_loss": [
        ("only the pictures choose a caption", one_way),
        ("`same` is ignored", same_forgotten),
        ("logit_scale is the logarithm of the scale", not_an_exponential),
        ("the features aren't normalised", not_normalised),
        ("the own captions are left out, too", the_own_ones_too),
        ("the two halves are added", a_sum),
        ("no gradient reaches", a_number),
        ("`same` is transposed", swapped),
        ("count as right there, too", soft_targets),
        ("as SigLIP does", as_siglip_does),
    ],
    "07.most_frequent_pair": [
        ("each word counts once", each_word_once),
        ("the first one that was seen", first_seen),
        ("the last in alphabetical order", last_by_name),
        ("return None there", nothing_to_merge_forgotten),
        ("the joined text is returned", joined),
        ("a pair is a tuple", as_a_list),
        ("not of the joined texts", by_joined_texts),
        ("only the left tokens are compared", by_left_tokens),
        ("(case 12: a tie of a long pair and a short one)", by_length),
        ("ends it all", none_if_one_word_is_a_token),
        ("the number comes along with the pair", most_common),
    ],
    "07.merge": [
        ("whatever its rank", left_to_right),
        ("ids are returned", ids),
        ("as WordPiece does", longest_match),
        ("takes 0 for nothing", rank_0_is_lost),
        ("each byte must be one", characters),
        ("must become EOS", no_unknown_letters),
        ("does each of its loops come to an end", never_ends),
    ],
}
