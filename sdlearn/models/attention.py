"""Attention, and the transformer that lets the text steer the picture.

Sources: "Attention Is All You Need" (arXiv 1706.03762, equation 1) for attention itself; "High-Resolution Image
Synthesis with Latent Diffusion Models" (arXiv 2112.10752, section 3.3 and figure 3) for attention from latents to text.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(QKᵀ / √D): how much each query looks at each key. Rows sum to 1.

    (B, N, T, D), (B, N, S, D) -> (B, N, T, S). `mask`, (T, S) or of a shape that broadcasts with the
    logits, is added to them: 0 where a query may look, −inf where it must not.
    """
    logits = query @ key.mT * query.shape[-1] ** -0.5  # (B, N, T, S)
    if mask is not None:
        logits = logits + mask
    return logits.softmax(dim=-1)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(QKᵀ / √D) V. (B, N, T, D), (B, N, S, D), (B, N, S, D) -> (B, N, T, D), in the dtype of `value`.

    PyTorch's fused kernel never stores the weights. Query and key can have a higher precision than `value`: then the
    weights are computed in it.
    """
    return F.scaled_dot_product_attention(query, key, value.to(query.dtype), attn_mask=mask).to(value.dtype)


class Attention(nn.Module):
    """Multi-head attention: Q from `x`, K and V from `context`, or from `x` itself without a context.

    Q, K and V are activations; the matrices `to_q`, `to_k`, `to_v` and `to_out` are learned. With `upcast` the weights
    are computed in float32 even if the rest is in half precision, for which the logits of Stable Diffusion 2.1 grow too
    large. In float32 it changes nothing.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        context_channels: int | None = None,
        bias: bool = False,
        upcast: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.upcast = heads, upcast
        self.maps: list[Tensor] | None = None  # filled while record_attention() is on
        self.to_q = nn.Linear(channels, channels, bias=bias)
        self.to_k = nn.Linear(context_channels or channels, channels, bias=bias)
        self.to_v = nn.Linear(context_channels or channels, channels, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, N, T, D), C = N·D. Head 0 gets the first D channels, head 1 the next D, and so on."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, T, C), (B, S, K) -> (B, T, C). Without a context, x itself takes its place."""
        context = x if context is None else context
        query = self.split_heads(self.to_q(x))  # (B, T, C) -> (B, N, T, D)
        key = self.split_heads(self.to_k(context))  # (B, S, K) -> (B, N, S, D)
        value = self.split_heads(self.to_v(context))  # (B, S, K) -> (B, N, S, D)
        out = self.attend(query, key, value)  # (B, N, T, D)
        return self.to_out[0](out.transpose(1, 2).flatten(2))  # (B, N, T, D) -> (B, T, C)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`attention`, step by step while the weights are recorded: the fused kernel never returns them."""
        if self.upcast:
            query, key = (one.to(torch.promote_types(one.dtype, torch.float32)) for one in (query, key))
        if self.maps is None:
            return attention(query, key, value)
        weights = attention_weights(query, key)  # (B, N, T, S)
        self.maps.append(weights.detach())
        return weights.to(value.dtype) @ value


class GEGLU(nn.Module):
    """A linear layer, half of its output gated by GELU of the rest.

    Source: "GLU Variants Improve Transformer" (arXiv 2002.05202, equation 5).
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, out_channels)."""
        hidden, gate = self.proj(x).chunk(2, dim=-1)
        return hidden * F.gelu(gate)


class FeedForward(nn.Module):
    """The transformer's two-layer network, four times as wide inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Entry 1 is dropout in Diffusers. It has no parameters, but the numbers in the parameters' names count it.
        self.net = nn.ModuleList([GEGLU(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        for layer in self.net:
            x = layer(x)
        return x


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the text, feed-forward: each is x + layer(norm(x)).

    With `only_cross_attention` the first attention looks at the text as well, in place of the picture
    itself: the upscaler has far too many pixels to compare each with every other.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        context_channels: int,
        *,
        only_cross_attention: bool = False,
        attention: Callable[..., nn.Module] = Attention,
        feed_forward: Callable[..., nn.Module] = FeedForward,
    ) -> None:
        super().__init__()
        self.only_cross_attention = only_cross_attention
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = attention(channels, heads, context_channels if only_cross_attention else None)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = attention(channels, heads, context_channels)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = feed_forward(channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(B, T, C), (B, S, K) -> (B, T, C)."""
        x = x + self.attn1(self.norm1(x), context if self.only_cross_attention else None)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


def pixels_to_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H*W, C)."""
    return x.flatten(2).transpose(1, 2)


def tokens_to_pixels(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H*W, C) -> (B, C, H, W), with `size` = (H, W)."""
    return x.transpose(1, 2).unflatten(2, size)


class SpatialTransformer(nn.Module):
    """A transformer over the pixels of a feature map: flatten, attend, fold back, add (2112.10752, app. E.2.1).

    `proj_in` and `proj_out` are 1×1 convolutions in Stable Diffusion 1, and linear layers, which compute the same, in
    Stable Diffusion 2 (`use_linear_projection`).
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        context_channels: int,
        groups: int = 32,
        *,
        use_linear_projection: bool = False,
        transformer_block: Callable[..., nn.Module] = TransformerBlock,
    ) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)  # 1e-6 here, 1e-5 in the UNet's ResnetBlocks
        self.use_linear_projection = use_linear_projection
        self.proj_in = nn.Linear(channels, channels) if use_linear_projection else nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([transformer_block(channels, heads, context_channels)])
        self.proj_out = nn.Linear(channels, channels) if use_linear_projection else nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(B, C, H, W), (B, S, K) -> (B, C, H, W)."""
        hidden = self.norm(x)
        if self.use_linear_projection:
            hidden = self.proj_in(pixels_to_tokens(hidden))
        else:
            hidden = pixels_to_tokens(self.proj_in(hidden))
        for block in self.transformer_blocks:
            hidden = block(hidden, context)  # (B, H*W, C)
        if self.use_linear_projection:
            hidden = tokens_to_pixels(self.proj_out(hidden), x.shape[-2:])
        else:
            hidden = self.proj_out(tokens_to_pixels(hidden, x.shape[-2:]))
        return x + hidden


@contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Record the weights of every cross-attention of `model` while the block runs.

    Yields a dictionary: name of the module -> one tensor (B, N, H*W, S) for each call. Rows sum to 1.
    """
    recorded = {name: m for name, m in model.named_modules() if isinstance(m, Attention) and name.endswith("attn2")}
    before = {name: module.maps for name, module in recorded.items()}  # not None inside another recording
    for module in recorded.values():
        module.maps = []
    try:
        yield {name: module.maps for name, module in recorded.items()}
    finally:
        for name, module in recorded.items():
            module.maps = before[name]
