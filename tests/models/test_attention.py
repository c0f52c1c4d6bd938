"""Attention and the transformer, against Diffusers and against what must hold for any attention. In float64."""

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU as ReferenceGEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention import FeedForward as ReferenceFeedForward
from diffusers.models.attention_processor import Attention as ReferenceAttention
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sdlearn.lessons.check import assert_gradients, assert_parity, randomize_
from sdlearn.models.attention import (
    GEGLU,
    Attention,
    FeedForward,
    SpatialTransformer,
    TransformerBlock,
    attention,
    attention_weights,
    record_attention,
)

quick = settings(max_examples=20, deadline=None)
sizes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(1, 8))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def share(ours: nn.Module, reference: nn.Module, std: float = 0.1) -> None:
    """The same random weights, in float64; `std` such that the outputs are of order one."""
    reference.eval().double().load_state_dict(randomize_(ours.double(), std=std).state_dict(), strict=True)


def compare(name: str, ours: nn.Module, reference: nn.Module, mine: Tensor, theirs: Tensor) -> None:
    against = type(reference).__name__
    assert 0.3 < theirs.std() < 5
    assert_parity(name, mine, theirs, against=against)
    (mine**2).mean().backward()
    (theirs**2).mean().backward()
    assert_gradients(ours, reference, name=f"{name}, gradients", against=against)


@quick
@given(sizes, st.booleans())
def test_rows_sum_to_one_and_open_equals_fused(size: tuple[int, ...], masked: bool) -> None:
    batch, heads, tokens, keys, width = size
    query, key, value = (normal(batch, heads, n, width, seed=i) for i, n in enumerate((tokens, keys, keys)))
    mask = None
    if masked:
        mask = torch.where(normal(tokens, keys, seed=9) > 0, 0.0, float("-inf")).double()
        mask[:, 0] = 0  # every query may look at something
    weights = attention_weights(query, key, mask)
    assert weights.shape == (batch, heads, tokens, keys) and (weights >= 0).all()
    assert_parity("rows", weights.sum(dim=-1), torch.ones(batch, heads, tokens))
    if masked:
        assert (weights[..., mask == float("-inf")] == 0).all()
    fused = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert_parity("open", weights @ value, fused)
    assert_parity("fused", attention(query, key, value, mask), fused)


@quick
@given(st.integers(1, 3), st.integers(2, 9), st.integers(1, 4), st.randoms(use_true_random=False))
def test_self_attention_is_permutation_equivariant(batch: int, tokens: int, heads: int, random) -> None:
    """Attention knows no order: permuted tokens give the permuted result."""
    layer, x = randomize_(Attention(4 * heads, heads).double(), std=0.5), normal(batch, tokens, 4 * heads)
    order = random.sample(range(tokens), tokens)
    assert_parity("equivariance", layer(x[:, order]), layer(x)[:, order])


@quick
@given(st.integers(1, 3), st.integers(1, 9), st.integers(2, 9), st.randoms(use_true_random=False))
def test_cross_attention_does_not_see_the_order_of_the_context(batch: int, tokens: int, words: int, random) -> None:
    layer = randomize_(Attention(6, 2, 5).double(), std=0.5)
    x, context = normal(batch, tokens, 6), normal(batch, words, 5, seed=1)
    order = random.sample(range(words), words)
    assert_parity("invariance", layer(x, context[:, order]), layer(x, context))


def test_equal_keys_give_the_mean_of_the_values() -> None:
    value = normal(1, 2, 7, 3)
    out = attention(normal(1, 2, 5, 4), torch.ones(1, 2, 7, 4).double(), value)
    assert_parity("mean", out, value.mean(dim=2, keepdim=True).expand(1, 2, 5, 3))


@pytest.mark.parametrize(("batch", "tokens", "words"), [(1, 7, 5), (3, 1, 3), (2, 5, 5)])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_weights(batch: int, tokens: int, words: int, masked: bool) -> None:
    query, key = (normal(batch, 3, n, 8, seed=i).requires_grad_() for i, n in enumerate((tokens, words)))
    mask = 3 * normal(tokens, words, seed=2) if masked else None
    ours = attention_weights(query, key, mask)
    theirs = ReferenceAttention(24, heads=3, dim_head=8).get_attention_scores(
        query.flatten(0, 1), key.flatten(0, 1), mask.expand(3 * batch, -1, -1) if masked else None
    )
    theirs = theirs.unflatten(0, (batch, 3))
    assert_parity("attention weights", ours, theirs, against="Attention.get_attention_scores")
    mine, reference = (torch.autograd.grad((one**2).sum(), (query, key)) for one in (ours, theirs))
    for one, other in zip(mine, reference, strict=True):
        assert_parity("attention weights, gradients", one, other, against="Attention.get_attention_scores")


@pytest.mark.parametrize(("batch", "tokens", "words"), [(1, 7, None), (3, 9, 5), (3, 1, 3)])
def test_attention(batch: int, tokens: int, words: int | None) -> None:
    context = None if words is None else normal(batch, words, 10, seed=1)
    width = None if words is None else 10
    ours, x = Attention(24, 3, width), normal(batch, tokens, 24)
    reference = ReferenceAttention(24, width, heads=3, dim_head=8)
    share(ours, reference, std=0.3)
    compare("attention", ours, reference, ours(x, context), reference(x, context))


def test_one_key_is_always_looked_at() -> None:
    """The weights are 1 whatever the logits are, so queries and keys have no gradient."""
    ours, reference = Attention(24, 3, 10), ReferenceAttention(24, 10, heads=3, dim_head=8)
    share(ours, reference, std=0.3)
    x, context = normal(3, 5, 24), normal(3, 1, 10, seed=1)
    out = ours(x, context)
    assert_parity("attention", out, reference(x, context), against="Attention")
    out.square().mean().backward()
    assert ours.to_q.weight.grad.abs().max() < 1e-12 < ours.to_v.weight.grad.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_upcast_changes_nothing_in_full_precision(dtype: torch.dtype) -> None:
    plain, upcast = Attention(24, 3), Attention(24, 3, upcast=True)
    upcast.load_state_dict(randomize_(plain, std=0.3).state_dict(), strict=True)
    plain, upcast, x = plain.to(dtype), upcast.to(dtype), normal(3, 7, 24).to(dtype)
    assert_parity("upcast", upcast(x), plain(x))


HALF = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", HALF)
def test_upcast_in_half_precision(dtype: torch.dtype) -> None:
    """Against Diffusers' AttnProcessor: its default, which calls the fused kernel, does not heed upcast_attention."""
    ours, reference = Attention(24, 3, upcast=True), ReferenceAttention(24, heads=3, dim_head=8, upcast_attention=True)
    reference.set_processor(AttnProcessor())
    share(ours, reference, std=0.5)
    ours, reference, x = ours.to(dtype), reference.to(dtype), normal(3, 9, 24).to(dtype)
    theirs = reference(x)
    one_rounding = torch.finfo(dtype).eps * theirs.abs().max()
    with record_attention(nn.ModuleDict({"attn2": ours})) as maps:
        recorded = ours(x)
    assert maps["attn2"][0].dtype == torch.float32
    for mine in (ours(x), recorded):
        assert mine.dtype == dtype
        name = f"attention, upcast, {str(dtype).removeprefix('torch.')}, in roundings"
        assert_parity(name, mine / one_rounding, theirs / one_rounding, 1.0, against="Attention")


@pytest.mark.parametrize("dtype", HALF)
def test_why_the_logits_are_upcast(dtype: torch.dtype) -> None:
    """Logits of 100 are rounded to halves in bfloat16, to sixteenths in float16; so are the differences that count."""
    query = (6 + 0.2 * normal(1, 2, 5, 8)).to(dtype)
    key = (6 + 0.2 * normal(1, 2, 7, 8, seed=1)).to(dtype)
    value = normal(1, 2, 7, 3, seed=2).to(dtype)
    truth = attention(query.double(), key.double(), value.double())
    precision = torch.finfo(dtype).eps * value.abs().max()
    assert (attention(query.float(), key.float(), value) - truth).abs().max() < precision
    assert (attention_weights(query, key) @ value - truth).abs().max() > 5 * precision


@pytest.mark.parametrize(("channels", "out", "batch", "tokens"), [(12, 5, 1, 7), (3, 12, 3, 1)])
def test_geglu(channels: int, out: int, batch: int, tokens: int) -> None:
    ours, reference, x = GEGLU(channels, out), ReferenceGEGLU(channels, out), normal(batch, tokens, channels)
    share(ours, reference, std=0.5)
    compare("GEGLU", ours, reference, ours(x), reference(x))


@pytest.mark.parametrize(("batch", "tokens"), [(1, 7), (3, 1)])
def test_feed_forward(batch: int, tokens: int) -> None:
    ours, reference, x = FeedForward(12), ReferenceFeedForward(12), normal(batch, tokens, 12)
    share(ours, reference, std=0.3)
    compare("feed-forward", ours, reference, ours(x), reference(x))


@pytest.mark.parametrize(("batch", "tokens", "words"), [(1, 7, 5), (3, 9, 3)])
@pytest.mark.parametrize("only_cross", [False, True])
def test_transformer_block(batch: int, tokens: int, words: int, only_cross: bool) -> None:
    ours = TransformerBlock(24, 3, 10, only_cross_attention=only_cross)
    reference = BasicTransformerBlock(24, 3, 8, cross_attention_dim=10, only_cross_attention=only_cross)
    share(ours, reference)
    x, context = normal(batch, tokens, 24), normal(batch, words, 10, seed=1)
    compare("transformer block", ours, reference, ours(x, context), reference(x, encoder_hidden_states=context))


def test_without_self_attention_pixels_do_not_see_each_other() -> None:
    x, context = normal(1, 7, 24), normal(1, 5, 10, seed=1)
    changed = x.clone()
    changed[:, 3] *= -1  # not a shift: the norm would take it out
    for only_cross in (False, True):
        block = randomize_(TransformerBlock(24, 3, 10, only_cross_attention=only_cross).double())
        others = (block(x, context) - block(changed, context))[:, [0, 1, 2, 4, 5, 6]].abs().max()
        assert others < 1e-12 if only_cross else others > 1e-6


@pytest.mark.parametrize(("batch", "height", "width", "words"), [(1, 3, 5, 7), (3, 5, 1, 3)])
@pytest.mark.parametrize("linear", [False, True])
def test_spatial_transformer(batch: int, height: int, width: int, words: int, linear: bool) -> None:
    ours = SpatialTransformer(24, 3, 10, groups=6, use_linear_projection=linear)
    reference = Transformer2DModel(3, 8, 24, cross_attention_dim=10, norm_num_groups=6, use_linear_projection=linear)
    share(ours, reference)
    x, context = normal(batch, 24, height, width), normal(batch, words, 10, seed=1)
    mine, theirs = ours(x, context), reference(x, encoder_hidden_states=context).sample
    compare("spatial transformer", ours, reference, mine, theirs)


def test_a_linear_layer_is_a_convolution_of_one_pixel() -> None:
    conv = randomize_(SpatialTransformer(24, 3, 10, groups=6).double())
    linear = SpatialTransformer(24, 3, 10, groups=6, use_linear_projection=True).double()
    linear.load_state_dict({name: w.flatten(1) if w.ndim == 4 else w for name, w in conv.state_dict().items()})
    x, context = normal(3, 24, 3, 5), normal(3, 7, 10, seed=1)
    assert_parity("projections", linear(x, context), conv(x, context))


def test_a_recording_inside_a_recording() -> None:
    """The inner one takes over while it lasts; the outer one goes on afterwards."""
    block, x, context = TransformerBlock(8, 2, 6).double(), normal(1, 3, 8), normal(1, 5, 6)
    model = nn.ModuleDict({"block": block})
    with record_attention(model) as outer:
        with record_attention(model) as inner:
            block(x, context)
        block(x, context)
        block(x, context)
    assert {name: len(calls) for name, calls in inner.items()} == {"block.attn2": 1}
    assert {name: len(calls) for name, calls in outer.items()} == {"block.attn2": 2}
    assert block.attn2.maps is None and block.attn1.maps is None
