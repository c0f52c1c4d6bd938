"""CLIP: a text tower and an image tower, trained so that a picture and its caption get similar vectors.

Source: "Learning Transferable Visual Models From Natural Language Supervision" (arXiv 2103.00020; figure 3: the loss).
The image tower is a vision transformer ("An Image is Worth 16x16 Words", arXiv 2010.11929). Parameter names are those
of Transformers' CLIPModel.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import log
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdlearn.config import Config, check_counts
from sdlearn.models.text import (
    BOOKKEEPING,
    Encoder,
    TextConfig,
    TextLayer,
    TextTransformer,
    TransformerConfig,
    initialize_,
)


@dataclass(frozen=True)
class VisionConfig(TransformerConfig):
    """The `vision_config` of CLIP's config.json. The defaults are those of CLIP ViT-B/32."""

    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "num_channels", "image_size", "patch_size")  # images and patches are square
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size = {self.image_size} is not a multiple of patch_size = {self.patch_size}")


@dataclass(frozen=True)
class CLIPConfig(Config):
    """CLIP's config.json: the two towers and the width of the space that they share."""

    neutral: ClassVar = BOOKKEEPING

    text_config: TextConfig = field(default_factory=TextConfig)
    vision_config: VisionConfig = field(default_factory=VisionConfig)
    projection_dim: int = 512
    logit_scale_init_value: float = log(1 / 0.07)

    def __post_init__(self) -> None:
        check_counts(self, "projection_dim")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], file: str = "config.json") -> Self:
        """Read a configuration. In old files `text_config_dict` overrides `text_config`."""
        values = dict(values)
        for key, part in (("text_config", TextConfig), ("vision_config", VisionConfig)):
            tables = values.get(key) or {}, values.pop(f"{key}_dict", None) or {}
            if not all(isinstance(table, Mapping) for table in tables):
                raise ValueError(f"{file}: {key} = {tables[0]!r} is not supported; accepted: a table")
            tower = {**tables[0], **tables[1]}
            values[key] = part.from_dict(tower, f"{file}: {key}")
        return super().from_dict(values, file)

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json, as Transformers' CLIPModel reads it."""
        values = {"architectures": ["CLIPModel"], "model_type": "clip", **super().to_dict()}
        vision = {"model_type": "clip_vision_model", **self.vision_config.to_dict()}
        return {**values, "text_config": self.text_config.to_dict(), "vision_config": vision}


class VisionEmbeddings(nn.Module):
    """Cuts an image into patches, one vector each, and prepends a learned "class" token, to represent them all."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, patches = config.hidden_size, (config.image_size // config.patch_size) ** 2
        self.image_shape = (config.num_channels, config.image_size, config.image_size)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.patch_embedding = nn.Conv2d(config.num_channels, width, config.patch_size, config.patch_size, bias=False)
        self.position_embedding = nn.Embedding(patches + 1, width)
        nn.init.normal_(self.class_embedding, std=width**-0.5)
        nn.init.normal_(self.position_embedding.weight, std=width**-0.5)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1 + patches, C)."""
        if pixels.ndim != 4 or pixels.shape[1:] != self.image_shape:
            channels, height, width = self.image_shape
            accepted = f"(B, {channels}, {height}, {width})"
            raise ValueError(f"pixels have the shape {tuple(pixels.shape)}; accepted: {accepted}")
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)  # (B, C, h, w) -> (B, h*w, C)
        class_token = self.class_embedding.expand(len(pixels), 1, -1)  # (C) -> (B, 1, C)
        return torch.cat([class_token, patches], dim=1) + self.position_embedding.weight


class VisionTransformer(nn.Module):
    """The image tower of CLIP: the layers of the text tower without the mask: every patch sees every other."""

    def __init__(
        self, config: VisionConfig, *, vision_layer: Callable[[TransformerConfig], nn.Module] = TextLayer
    ) -> None:
        super().__init__()
        self.config = config
        self.embeddings = VisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)  # sic: the name in real files
        self.encoder = Encoder(config, vision_layer)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C), the class token's vector after the last layer."""
        hidden = self.encoder(self.pre_layrnorm(self.embeddings(pixels)))  # (B, 1 + patches, C)
        return self.post_layernorm(hidden[:, 0])


class CLIP(nn.Module):
    """Both towers, and a linear map from each into a shared space where a picture is close to its caption."""

    parts: ClassVar[tuple[str, ...]] = ("text_layer", "vision_layer")

    def __init__(
        self,
        config: CLIPConfig | None = None,
        *,
        text_layer: Callable[[TransformerConfig], nn.Module] = TextLayer,
        vision_layer: Callable[[TransformerConfig], nn.Module] = TextLayer,
    ) -> None:
        super().__init__()
        self.config = config = config or CLIPConfig()
        self.text_model = TextTransformer(config.text_config, text_layer=text_layer)
        self.vision_model = VisionTransformer(config.vision_config, vision_layer=vision_layer)
        self.visual_projection = nn.Linear(config.vision_config.hidden_size, config.projection_dim, bias=False)
        self.text_projection = nn.Linear(config.text_config.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale_init_value))  # the logarithm of the scale
        for projection in (self.visual_projection, self.text_projection):
            initialize_(projection, projection.in_features**-0.5)

    def encode_text(self, ids: Tensor) -> Tensor:
        """Token ids (B, T), each row with its end-of-text token -> (B, P), not normalised."""
        return self.text_projection(self.text_model.pool(self.text_model(ids), ids))

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, image_size, image_size), in the value range of the training -> (B, P), not normalised."""
        return self.visual_projection(self.vision_model(pixels))


def similarity(image_features: Tensor, text_features: Tensor) -> Tensor:
    """The cosine between every image and every text. (B, P), (M, P) -> (B, M), values in [-1, 1]."""
    return F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).T


def contrastive_loss(
    image_features: Tensor, text_features: Tensor, logit_scale: Tensor, same: Tensor | None = None
) -> Tensor:
    """How badly each image matches its caption, and each caption its image, within the batch (CLIP's figure 3).

    Args:
        image_features, text_features: (B, P), row i of one belongs to row i of the other; they need not be normalised.
        logit_scale: the logarithm of the factor on the cosines, CLIP's learned parameter.
        same: (B, B) bool, True where text j also describes image i. Off the diagonal such pairs are neither correct
            nor wrong, so they are left out. Without it, equal captions would count as wrong answers.

    Returns the mean of both cross-entropies, in nats; log(B) is the loss of guessing.

    Raises:
        ValueError: the features or `same` have other shapes.
    """
    check_pairs(image_features, text_features, same)
    logits = logit_scale.exp() * similarity(image_features, text_features)  # (B, B)
    right = torch.arange(len(logits), device=logits.device)
    if same is not None:
        others = same & ~torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(others, float("-inf"))
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def check_pairs(image_features: Tensor, text_features: Tensor, same: Tensor | None) -> None:
    """Raises ValueError unless both features are (B, P), and `same` is (B, B) and bool, or None."""
    shapes, batch = (tuple(image_features.shape), tuple(text_features.shape)), len(image_features)
    if shapes[0] != shapes[1] or image_features.ndim != 2:
        raise ValueError(f"the features have the shapes {shapes[0]} and {shapes[1]}; accepted: (B, P) for both")
    if same is not None and (same.shape != (batch, batch) or same.dtype != torch.bool):
        accepted = f"torch.bool of shape {(batch, batch)}"
        raise ValueError(f"same is {same.dtype} of shape {tuple(same.shape)}; accepted: {accepted}")
