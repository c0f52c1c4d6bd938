"""The parts of Stable Diffusion 1.5 at full size, numerically. Takes minutes and gigabytes: run by `make test-full`.

In float32 where float64 would take more than ten gigabytes: the UNet and CLIP.
One part at a time, and both sides hold the same tensors, so that the weights lie in memory once.
"""

import gc
import resource
import sys
from collections.abc import Iterator

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPConfig as ReferenceConfig
from transformers import CLIPModel

from sdlearn.lessons.check import assert_gradients, assert_parity
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig
from sdlearn.models.clip import CLIP, CLIPConfig, VisionConfig
from sdlearn.models.text import TextConfig
from sdlearn.models.unet import UNet, UNetConfig

pytestmark = pytest.mark.slow

VIT_L_14 = CLIPConfig(
    TextConfig(),
    VisionConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14),
    projection_dim=768,
)


@pytest.fixture(autouse=True)
def at_most_ten_gigabytes() -> Iterator[None]:
    """What this process has held at its worst, everything before included."""
    gc.collect()  # the part before
    yield
    unit = 1 if sys.platform == "darwin" else 1024
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit <= 10e9


@torch.no_grad()
def initialize_(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every parameter anew, so that each layer keeps the size of what goes through it.

    Matrices and convolutions with a standard deviation of 1/√(number of inputs): with randomize_'s 0.1, a thousand
    channels would grow threefold at every layer. Norms around 1 and biases around 0, with 0.1.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
        else:
            parameter.normal_(1 if name.endswith("weight") else 0, 0.1, generator=generator)
    return module


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_equal(name: str, ours: Tensor, reference: Tensor, against: str) -> None:
    assert 0.1 < reference.std() < 10
    assert_parity(name, ours, reference, against=against)


def test_unet() -> None:
    ours = initialize_(UNet(UNetConfig()))
    with torch.device("meta"):
        reference = UNet2DConditionModel.from_config(UNetConfig().to_dict())
    reference.eval().load_state_dict(ours.state_dict(), strict=True, assign=True)
    name, against = "UNet, SD 1.5, full size", "UNet2DConditionModel"
    x, context = normal(1, 4, 64, 64, seed=1), normal(1, 77, 768, seed=2)
    with torch.no_grad():
        assert_equal(name, ours(x, 981, context), reference(x, 981, context).sample, against)
    # Backward through all layers to the inputs. Two gradients of all weights would be 7 GB more.
    sides = []
    for model in (ours, reference):
        model.requires_grad_(False)
        leaves = normal(1, 4, 24, 16, seed=3).requires_grad_(), context.clone().requires_grad_()
        out = model(leaves[0], 500, leaves[1])
        (out if model is ours else out.sample).square().mean().backward()
        sides.append([leaf.grad / leaf.grad.std() for leaf in leaves])
    for mine, theirs in zip(*sides, strict=True):
        assert_equal(f"{name}, gradients", mine, theirs, against)


def test_autoencoder() -> None:
    ours = initialize_(Autoencoder(AutoencoderConfig()).double())
    with torch.device("meta"):
        reference = AutoencoderKL.from_config(AutoencoderConfig().to_dict())
    reference.eval().load_state_dict(ours.state_dict(), strict=True, assign=True)
    name, against = "autoencoder, SD, full size", "AutoencoderKL"
    image, latents = normal(1, 3, 256, 384, seed=1).clamp(-1, 1).double(), normal(1, 4, 48, 32, seed=2).double()
    with torch.no_grad():
        mine, theirs = ours.encode(image), reference.encode(image).latent_dist
        assert_equal(f"{name}, encoder", mine.mean, theirs.mean, against)
        assert_equal(f"{name}, encoder", mine.logvar, theirs.logvar, against)
        assert_equal(f"{name}, decoder", ours.decode(latents), reference.decode(latents).sample, against)
    image = image[:, :, :64, :96]
    ours.decode(ours.encode(image).mode()).square().mean().backward()
    reference.decode(reference.encode(image).latent_dist.mode()).sample.square().mean().backward()
    assert_gradients(ours, reference, name=f"{name}, gradients", against=against)


def test_clip() -> None:
    """CLIP ViT-L/14, whose text tower is the text encoder of Stable Diffusion 1."""
    ours, reference = initialize_(CLIP(VIT_L_14)), CLIPModel(ReferenceConfig(**VIT_L_14.to_dict())).eval()
    reference.load_state_dict(ours.state_dict(), strict=True, assign=True)
    name, against = "CLIP ViT-L/14, full size", "CLIPModel"
    pixels = normal(2, 3, 224, 224, seed=1)
    ids = torch.randint(0, 49406, (2, 77), generator=torch.Generator().manual_seed(2))
    ids[:, 0], ids[0, 20:], ids[1, 76] = 49406, 49407, 49407
    with torch.no_grad():
        hidden = reference.text_model(ids).last_hidden_state
        assert_equal(f"{name}, text encoder", ours.text_model(ids), hidden, against)
    images, texts = ours.encode_image(pixels), ours.encode_text(ids)
    theirs = reference.get_image_features(pixels).pooler_output, reference.get_text_features(ids).pooler_output
    assert_equal(f"{name}, image features", images, theirs[0], against)
    assert_equal(f"{name}, text features", texts, theirs[1], against)
    for features in ((images, texts), theirs):
        (features[0].square().mean() + features[1].square().mean()).backward()
    assert_gradients(ours, reference, name=f"{name}, gradients", against=against)
