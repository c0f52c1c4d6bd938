"""CLIP's text encoder: token ids in, one vector per token out. Those vectors are what the UNet's cross-attention reads.

Source: "Learning Transferable Visual Models From Natural Language Supervision" (CLIP, arXiv 2103.00020, section 2.4).
The architecture is GPT-2's: norms before the layers, learned positions, a token sees only itself and those before it.
Parameter names are those of Transformers' CLIPTextModel as stored on the hub (prefix `text_model.`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdlearn.config import Config, check_count, check_counts
from sdlearn.models.attention import attention

# Keys that Transformers writes into its configurations and that change nothing in a forward pass without dropout.
BOOKKEEPING: dict[str, Any] = dict.fromkeys(
    (
        *("architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "id2label", "label2id"),
        *("attention_dropout", "dropout", "initializer_factor", "initializer_range", "tie_word_embeddings"),
        *("return_dict", "use_cache", "max_length", "num_beams", "num_beam_groups", "num_return_sequences"),
        *("temperature", "top_k", "top_p", "typical_p", "length_penalty", "repetition_penalty"),
    ),
    ...,
)


def quick_gelu(x: Tensor) -> Tensor:
    """x·σ(1.702x), the approximation of GELU that OpenAI trained CLIP with. SD 1 has it, SD 2 the exact GELU."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


@dataclass(frozen=True)
class TransformerConfig(Config):
    """What the text tower and the image tower have in common."""

    neutral: ClassVar = BOOKKEEPING

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    projection_dim: int = 768  # width of the space that text and image share; used by CLIP only

    def __post_init__(self) -> None:
        check_counts(self, "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        check_counts(self, "projection_dim")
        if self.hidden_act not in ACTIVATIONS:
            raise ValueError(f"hidden_act = {self.hidden_act!r} is not supported; accepted: {' or '.join(ACTIVATIONS)}")
        if not self.layer_norm_eps > 0:
            raise ValueError(f"layer_norm_eps = {self.layer_norm_eps!r} is not supported; accepted: numbers above 0")
        if self.hidden_size % self.num_attention_heads:
            heads = self.num_attention_heads
            raise ValueError(f"hidden_size = {self.hidden_size} is not a multiple of num_attention_heads = {heads}")


@dataclass(frozen=True)
class TextConfig(TransformerConfig):
    """text_encoder/config.json. The defaults are those of Stable Diffusion 1."""

    vocab_size: int = 49408
    max_position_embeddings: int = 77
    bos_token_id: int | None = 49406  # the network doesn't use these two; programs that read the file do
    pad_token_id: int | None = 49407
    eos_token_id: int = 49407  # old files have 2, which is wrong; see TextTransformer.pool

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "vocab_size", "max_position_embeddings")

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json, as Transformers' CLIPTextModel reads it."""
        return {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model", **super().to_dict()}


class SelfAttention(nn.Module):
    """Multi-head self-attention ("Attention Is All You Need", arXiv 1706.03762, section 3.2), with biases."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, self.heads = config.hidden_size, config.num_attention_heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        for layer in (self.q_proj, self.k_proj, self.v_proj):
            initialize_(layer, width**-0.5)
        initialize_(self.out_proj, (2 * config.num_hidden_layers * width) ** -0.5)

    def split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, T, C) -> (B, N, T, D)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T, C), mask (T, T) that is added to the logits -> (B, T, C)."""
        query, key, value = (self.split_heads(proj(x)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        out = attention(query, key, value, mask)  # (B, N, T, D)
        return self.out_proj(out.transpose(1, 2).flatten(2))  # (B, N, T, D) -> (B, T, C)


class MLP(nn.Module):
    """The transformer's two-layer network, applied to every token by itself."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.activation = ACTIVATIONS[config.hidden_act]
        self.fc1 = nn.Linear(width, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, width)
        initialize_(self.fc1, (2 * width) ** -0.5)
        initialize_(self.fc2, (2 * config.num_hidden_layers * width) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.fc2(self.activation(self.fc1(x)))


class TextLayer(nn.Module):
    """One transformer layer: attention, then the MLP, each normalised before and added to its input.

    Both towers are made of it; the image tower passes no mask.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T, C), (T, T) -> (B, T, C)."""
        x = x + self.self_attn(self.layer_norm1(x), mask)
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: TransformerConfig, layer: Callable[[TransformerConfig], nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList([layer(config) for _ in range(config.num_hidden_layers)])

    def forward(self, x: Tensor, mask: Tensor | None = None, skip: int = 0) -> Tensor:
        """(B, T, C), (T, T) -> (B, T, C). The last `skip` layers are left out."""
        for layer in self.layers[: len(self.layers) - skip]:
            x = layer(x, mask)
        return x


class TextEmbeddings(nn.Module):
    """A vector for each token of the vocabulary plus a vector for each position."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding.weight, std=0.01)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, C)."""
        check_ids(ids, self.token_embedding.num_embeddings, self.position_embedding.num_embeddings)
        return self.token_embedding(ids) + self.position_embedding.weight[: ids.shape[1]]  # (B, T, C) + (T, C)


class TextTransformer(nn.Module):
    """The text tower of CLIP: embeddings, layers with a causal mask, final norm."""

    def __init__(self, config: TextConfig, *, text_layer: Callable[[TransformerConfig], nn.Module] = TextLayer) -> None:
        super().__init__()
        self.config = config
        self.embeddings = TextEmbeddings(config)
        self.encoder = Encoder(config, text_layer)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, ids: Tensor, skip: int = 0) -> Tensor:
        """(B, T) -> (B, T, C), after the final norm. There is no padding mask: padding tokens are read like words.

        The last `skip` layers are left out.
        """
        check_count("skip", skip, 0, self.config.num_hidden_layers)
        x = self.embeddings(ids)
        return self.final_layer_norm(self.encoder(x, causal_mask(ids.shape[1], x), skip))

    def pool(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """The vector of the first end-of-text token, the first to see all of the text. (B, T, C), (B, T) -> (B, C).

        Files written before 2023 have a wrong end id, 2. For these the end is the highest id in a row, as in OpenAI's
        code and in Transformers.

        Raises:
            ValueError: a row has no end-of-text token.
        """
        eos = self.config.eos_token_id
        is_end = ids == (ids.amax(dim=1, keepdim=True) if eos == 2 else eos)  # (B, T)
        if not is_end.any(dim=1).all():
            raise ValueError(f"every row of ids must hold the end-of-text token, id {eos}; the tokenizer puts it there")
        return hidden[torch.arange(len(ids), device=ids.device), is_end.int().argmax(dim=1)]


class TextEncoder(nn.Module):
    """Stable Diffusion's text encoder: CLIP's text tower, without the projection into the space shared with images.

    SD 2 reads the penultimate layer of OpenCLIP's 24. Its files in the Diffusers layout hold 23, so skip stays 0.
    """

    parts: ClassVar[tuple[str, ...]] = ("text_layer",)

    def __init__(
        self, config: TextConfig | None = None, *, text_layer: Callable[[TransformerConfig], nn.Module] = TextLayer
    ) -> None:
        super().__init__()
        self.config = config or TextConfig()
        self.text_model = TextTransformer(self.config, text_layer=text_layer)

    def forward(self, ids: Tensor, *, skip: int = 0) -> Tensor:
        """Token ids (B, T), T at most `max_position_embeddings` -> last hidden state (B, T, C), after the final norm.

        `skip` leaves out layers at the end, but not the norm (what many models for SD 1 call "clip skip" 2 is skip=1).

        Raises:
            ValueError: the shape or the dtype of `ids` is not accepted, one of them is not in the vocabulary, or there
                are fewer than `skip` layers.
        """
        return self.text_model(ids, skip)


def causal_mask(tokens: int, like: Tensor) -> Tensor:
    """(T, T): 0 where row i may look at column j ≤ i, −inf above the diagonal; dtype and device of `like`."""
    return torch.full((tokens, tokens), float("-inf"), dtype=like.dtype, device=like.device).triu(1)


def check_ids(ids: Tensor, vocabulary: int, longest: int) -> None:
    """Raises ValueError unless ids are whole numbers (B, T) of the vocabulary, T from 1 to `longest`."""
    if ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"ids are {ids.dtype}; accepted: whole numbers, torch.int64 or torch.int32")
    if ids.ndim != 2 or not 0 < ids.shape[1] <= longest:
        raise ValueError(f"ids have the shape {tuple(ids.shape)}; accepted: (B, T) with T from 1 to {longest}")
    if ((ids < 0) | (ids >= vocabulary)).any():
        raise ValueError(f"ids are from {ids.min()} to {ids.max()}; the vocabulary is from 0 to {vocabulary - 1}")


def initialize_(layer: nn.Linear, std: float) -> None:
    """Normal weights, no bias. Layers whose output is added to `x` get a `std` that shrinks with depth (GPT-2)."""
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
