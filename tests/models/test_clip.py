"""Both towers of CLIP and the contrastive loss against Transformers' CLIPModel: in float64, and once in float32."""

import json
from math import log
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPConfig as ReferenceConfig
from transformers import CLIPModel

from sdlearn.lessons.check import assert_gradients, assert_parity, randomize_
from sdlearn.models.clip import CLIP, CLIPConfig, VisionConfig, contrastive_loss, similarity
from sdlearn.models.text import TextConfig, TextEncoder

REFERENCE = "CLIPModel"
TEXT = {
    **{"vocab_size": 99, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3},
    **{"max_position_embeddings": 20, "bos_token_id": 97, "pad_token_id": 98, "eos_token_id": 98},
}
VISION = {
    **{"hidden_size": 16, "intermediate_size": 36, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"image_size": 30, "patch_size": 6},
}


def both(activation: str = "quick_gelu", dtype: torch.dtype = torch.float64, **text: object) -> tuple[CLIP, CLIPModel]:
    """Ours and the reference with the same random weights, under the same names."""
    config = CLIPConfig(
        TextConfig(**TEXT | {"hidden_act": activation} | text),
        VisionConfig(**VISION, hidden_act=activation),
        projection_dim=12,
    )
    # Far apart weights: where all images look alike, the gradient of logit_scale is a difference of equal numbers.
    ours = randomize_(CLIP(config).to(dtype), std=0.3)
    reference = CLIPModel(ReferenceConfig(**config.to_dict())).eval().to(dtype)
    reference.load_state_dict(ours.state_dict(), strict=True)
    return ours, reference


def random_batch(batch: int, tokens: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Images, and texts that end at different places; after the end come other words, and the end again."""
    generator = torch.Generator().manual_seed(batch)
    ids = torch.randint(0, 97, (batch, tokens), generator=generator)
    for row in range(batch):
        ids[row, 1 + row :: 2] = 98
    return torch.randn(batch, 3, 30, 30, generator=generator, dtype=dtype), ids


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize(
    ("batch", "tokens", "dtype"),
    [(1, 5, torch.float64), (3, 11, torch.float64), (3, 20, torch.float64), (3, 11, torch.float32)],
)
def test_equals_reference(activation: str, batch: int, tokens: int, dtype: torch.dtype) -> None:
    ours, reference = both(activation, dtype)
    pixels, ids = random_batch(batch, tokens, dtype)
    expected = reference(ids, pixels, return_loss=True)
    images, texts = ours.encode_image(pixels), ours.encode_text(ids)
    loss = contrastive_loss(images, texts, ours.logit_scale)
    for name, mine, theirs in (
        ("CLIP, image features", images, reference.get_image_features(pixels).pooler_output),
        ("CLIP, text features", texts, reference.get_text_features(ids).pooler_output),
        ("CLIP, similarity", similarity(images, texts) * ours.logit_scale.exp(), expected.logits_per_image),
        ("CLIP, contrastive loss", loss, expected.loss),
    ):
        assert_parity(name, mine, theirs, against=REFERENCE)
    if dtype == torch.float32:
        return  # its rounding grows a thousandfold on the way back through a loss whose softmax is nearly 0 or 1
    # With one image the loss is 0, and so is its gradient: add the features so that something is compared.
    (loss + images.square().mean() + texts.square().mean()).backward()
    again = reference.get_image_features(pixels).pooler_output, reference.get_text_features(ids).pooler_output
    (expected.loss + again[0].square().mean() + again[1].square().mean()).backward()
    assert_gradients(ours, reference, name="CLIP, gradients", against=REFERENCE)


@pytest.mark.parametrize(("image_size", "patch_size", "channels"), [(8, 8, 3), (21, 7, 3), (16, 4, 1)])
def test_other_image_sizes_equal_reference(image_size: int, patch_size: int, channels: int) -> None:
    vision = {**VISION, "image_size": image_size, "patch_size": patch_size, "num_channels": channels}
    config = CLIPConfig(TextConfig(**TEXT), VisionConfig(**vision), projection_dim=5)
    ours = randomize_(CLIP(config).double())
    reference = CLIPModel(ReferenceConfig(**config.to_dict())).eval().double()
    reference.load_state_dict(ours.state_dict(), strict=True)
    pixels = torch.randn(3, channels, image_size, image_size, generator=torch.Generator().manual_seed(0)).double()
    theirs = reference.get_image_features(pixels).pooler_output
    assert_parity("CLIP, image features", ours.encode_image(pixels), theirs, against=REFERENCE)


def test_old_files_with_wrong_end_token() -> None:
    """eos_token_id 2: the end is the highest id of the row."""
    ours, reference = both(eos_token_id=2)
    _, ids = random_batch(3, 11)
    ids[:, 0] = 2
    theirs = reference.get_text_features(ids).pooler_output
    assert_parity("CLIP, text features", ours.encode_text(ids), theirs, against=REFERENCE)


def test_names_and_shapes_of_the_full_model() -> None:
    with torch.device("meta"):
        ours, reference = CLIP(), CLIPModel(ReferenceConfig(**CLIPConfig().to_dict()))
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in reference.state_dict().items()}


def test_saved_files_are_read_by_transformers(tmp_path: Path) -> None:
    ours, _ = both(dtype=torch.float32)  # as files are
    save_file(ours.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(ours.config.to_dict()))
    reference = CLIPModel.from_pretrained(tmp_path)
    pixels, ids = random_batch(3, 9, torch.float32)
    images, texts = ours.encode_image(pixels), ours.encode_text(ids)
    expected = reference(ids, pixels, return_loss=True)
    loss = contrastive_loss(images, texts, ours.logit_scale)
    assert_parity("CLIP, contrastive loss", loss, expected.loss, against=REFERENCE)


def test_text_half_is_the_text_encoder() -> None:
    ours, _ = both()
    half = {name: w for name, w in ours.state_dict().items() if name.startswith("text_model.")}
    encoder = TextEncoder(ours.config.text_config).double()
    encoder.load_state_dict(half, strict=True)
    _, ids = random_batch(3, 7)
    assert_parity("text half", encoder(ids), ours.text_model(ids))


def test_equal_captions_are_neither_right_nor_wrong() -> None:
    """The loss with `same` equals, image by image, a cross-entropy over the captions that are left."""
    generator = torch.Generator().manual_seed(0)
    images, texts = torch.randn(2, 5, 8, generator=generator, dtype=torch.float64)
    caption = torch.tensor([0, 1, 0, 2, 1])
    texts = texts[caption].requires_grad_()
    same = caption[:, None] == caption[None, :]
    scale = torch.tensor(log(3.0)).double()
    loss = contrastive_loss(images, texts, scale, same)
    logits = 3 * F.cosine_similarity(images[:, None], texts[None], dim=-1)
    parts = []
    for one_way in (logits, logits.T):
        for i in range(5):
            kept = [j for j in range(5) if j == i or caption[j] != caption[i]]
            parts.append(torch.logsumexp(one_way[i, kept], 0) - one_way[i, i])
    assert_parity("loss", loss, torch.stack(parts).mean())
    alone = contrastive_loss(images, texts, scale, torch.eye(5) > 0)
    assert_parity("no equal captions", alone, contrastive_loss(images, texts, scale))
    loss.backward()
    assert torch.isfinite(texts.grad).all() and texts.grad.any()


def test_loss_of_guessing() -> None:
    assert contrastive_loss(torch.ones(7, 4), torch.ones(7, 4), torch.tensor(1.0)).item() == pytest.approx(log(7))


def test_config_is_read() -> None:
    config = CLIPConfig(TextConfig(**TEXT), VisionConfig(**VISION), projection_dim=12)
    assert CLIPConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    theirs = ReferenceConfig(**config.to_dict()).to_dict()
    assert CLIPConfig.from_dict(theirs) == config
    old = {"text_config": None, "text_config_dict": TEXT, "vision_config": VISION, "vision_config_dict": None}
    assert CLIPConfig.from_dict({**old, "projection_dim": 12}) == config


def test_errors() -> None:
    ours, _ = both()
    with pytest.raises(ValueError, match="end-of-text token, id 98"):
        ours.encode_text(torch.tensor([[1, 98, 3], [1, 2, 3]]))
    with pytest.raises(ValueError, match=r"accepted: \(B, 3, 30, 30\)"):
        ours.encode_image(torch.zeros(1, 3, 30, 36))
    with pytest.raises(ValueError, match="not a multiple of patch_size = 7"):
        VisionConfig(patch_size=7, image_size=30)
    with pytest.raises(ValueError, match="whole numbers"):
        VisionConfig.from_dict({"image_size": [224, 200]})
    with pytest.raises(ValueError, match=r"c.json: vision_config: use_rope = True"):
        CLIPConfig.from_dict({"vision_config": {"use_rope": True}}, "c.json")
