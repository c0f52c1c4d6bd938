"""The autoencoder against Diffusers' AutoencoderKL: in float64, and once in float32."""

import json
import math
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from sdlearn.lessons.check import assert_gradients, assert_parity, randomize_
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig, Gaussian, PixelAttention
from sdlearn.models.blocks import Downsample, ResnetBlock, Upsample

REFERENCE = "AutoencoderKL"
# vae/config.json of Stable Diffusion 1 and 2, and of the ×4 upscaler.
SD_FILE = {
    **{"_class_name": "AutoencoderKL", "_diffusers_version": "0.6.0", "act_fn": "silu"},
    **{"block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4, "in_channels": 3},
    **{"latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3, "sample_size": 512},
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
UPSCALER_FILE = {
    **SD_FILE,
    **{"block_out_channels": [128, 256, 512], "down_block_types": ["DownEncoderBlock2D"] * 3, "sample_size": 256},
    **{"up_block_types": ["UpDecoderBlock2D"] * 3, "scaling_factor": 0.08333},
}
# At an eighth of their width: all levels, two layers each, attention in the middle, and as there at least four channels
# in a norm's group: a norm over one channel takes out the bias before it, and what is left of the bias's gradient is
# rounding.
SD = AutoencoderConfig.from_dict({**SD_FILE, "block_out_channels": [16, 32, 48, 48], "norm_num_groups": 4})
UPSCALER = AutoencoderConfig.from_dict({**UPSCALER_FILE, "block_out_channels": [16, 32, 64], "norm_num_groups": 4})
TINY = AutoencoderConfig(
    block_out_channels=(24, 48, 96),
    layers_per_block=1,
    norm_num_groups=8,
    sample_size=64,
    mid_block_add_attention=False,
)
CONFIGS = {"SD": SD, "SD ×4 upscaler": UPSCALER, "three levels, no attention": TINY}
SHAPES = [(1, 16, 24), (3, 24, 8)]  # batch, height, width


def both(
    config: AutoencoderConfig, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Autoencoder, AutoencoderKL]:
    """Ours and the reference, built from our configuration's JSON, with the same random weights."""
    ours = randomize_(Autoencoder(config).to(dtype), seed)
    reference = AutoencoderKL.from_config(config.to_dict()).eval().to(dtype)
    reference.load_state_dict(ours.state_dict(), strict=True)
    return ours, reference


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_order_one(tensor: Tensor) -> None:
    """A tolerance that is absolute below 1 says something only about numbers of order one."""
    assert 0.1 < tensor.std() < 5


F64, F32 = torch.float64, torch.float32


@pytest.mark.parametrize(
    ("name", "shape", "dtype"), [(n, s, F64) for n in CONFIGS for s in SHAPES] + [("SD", SHAPES[1], F32)]
)
def test_encode_decode_and_gradients(name: str, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    ours, reference = both(CONFIGS[name], dtype=dtype)
    batch, height, width = shape
    image = normal(batch, 3, height, width).clamp(-1, 1).to(dtype)
    mine, theirs = ours.encode(image), reference.encode(image).latent_dist
    assert mine.mean.shape == (batch, 4, height // ours.config.factor, width // ours.config.factor)
    assert_order_one(theirs.mean)
    assert_order_one(theirs.logvar)
    part = f"autoencoder, {name}, reduced"
    assert_parity(f"{part}, encoder", mine.mean, theirs.mean, against=REFERENCE)
    assert_parity(f"{part}, encoder", mine.logvar, theirs.logvar, against=REFERENCE)
    assert_parity(f"{part}, encoder", mine.mode(), theirs.mode(), against=REFERENCE)
    assert_parity(f"{part}, KL", mine.kl(), theirs.kl(), against=REFERENCE)
    noise = normal(*mine.mean.shape, seed=3).to(dtype)
    latents, expected_latents = mine.at(noise), theirs.mean + theirs.std * noise
    assert_parity(f"{part}, encoder", latents, expected_latents, against=REFERENCE)
    decoded, expected = ours.decode(latents), reference.decode(expected_latents).sample
    assert_order_one(expected)
    assert_parity(f"{part}, decoder", decoded, expected, against=REFERENCE)
    for out, gaussian in ((decoded, mine), (expected, theirs)):
        (out.square().mean() + 1e-2 * gaussian.kl().mean()).backward()
    assert_gradients(ours, reference, name=f"{part}, gradients", against=REFERENCE)


@pytest.mark.parametrize("name", CONFIGS)
def test_without_gradients(name: str) -> None:
    ours, reference = both(CONFIGS[name], seed=1)
    image, latents = normal(3, 3, 32, 16), normal(3, 4, 6, 3)
    part = f"autoencoder, {name}, reduced"
    with torch.no_grad():
        mine, theirs = ours.encode(image).mode(), reference.encode(image).latent_dist.mode()
        assert_parity(f"{part}, encoder", mine, theirs, against=REFERENCE)
        mine, theirs = ours.decode(latents), reference.decode(latents).sample
        assert_parity(f"{part}, decoder", mine, theirs, against=REFERENCE)


@pytest.mark.parametrize("name", CONFIGS)
def test_epsilon_of_the_norms(name: str) -> None:
    """With activations of order 1e-3 the norms' epsilon, 1e-6 everywhere, decides.

    The norms amplify rounding: in float32 it would hide a wrong epsilon.
    """
    ours, reference = both(CONFIGS[name])
    with torch.no_grad():
        for model in (ours, reference):
            for key, parameter in model.named_parameters():
                if parameter.ndim > 1 or key.endswith("bias"):
                    parameter.mul_(0.02)
        latents, image = 0.1 * normal(3, 4, 4, 2), 0.1 * normal(3, 3, 16, 8)
        for mine, theirs in (
            (ours.decode(latents), reference.decode(latents).sample),
            (ours.encode(image).mean, reference.encode(image).latent_dist.mean),
        ):
            assert_parity("small activations", mine / theirs.std(), theirs / theirs.std())


def test_gaussian() -> None:
    """logvar at the limits of its range, and numbers known in closed form."""
    parameters = torch.cat([normal(3, 4, 5, 7), normal(3, 4, 5, 7, seed=1) * 3], dim=1)
    mine, theirs = Gaussian(*parameters.chunk(2, dim=1)), DiagonalGaussianDistribution(parameters)
    assert_parity("kl", mine.kl(), theirs.kl())
    zeros = torch.zeros(2, 4, 3, 1).double()
    for gaussian, nats in (
        (Gaussian(zeros, zeros), 0.0),
        (Gaussian(zeros + 2, zeros), 24.0),  # mean² / 2, twelve numbers
        (Gaussian(zeros, zeros + 1), 6 * (math.e - 2)),
    ):
        assert_parity("kl", gaussian.kl(), torch.full((2,), nats, dtype=torch.float64))
    many = Gaussian(torch.full((1, 4, 100, 100), 3.0), torch.full((1, 4, 100, 100), math.log(4.0)))
    drawn = many.sample(torch.Generator().manual_seed(0))
    assert drawn.mean().item() == pytest.approx(3, abs=0.04) and drawn.std().item() == pytest.approx(2, rel=0.02)
    assert_parity("the same seed", drawn, many.sample(torch.Generator().manual_seed(0)))


def test_the_same_seed_draws_the_reference_s_latents() -> None:
    """In float32: the reference draws its noise in the dtype of the network, ours always in float32."""
    parameters = torch.cat([normal(3, 4, 5, 7), normal(3, 4, 5, 7, seed=1)], dim=1).float()
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    mine = Gaussian(*parameters.chunk(2, dim=1)).sample(generators[0])
    theirs = DiagonalGaussianDistribution(parameters).sample(generators[1])
    assert_parity("sample", mine, theirs, against="DiagonalGaussianDistribution")
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


def test_logvar_is_clamped() -> None:
    ours, reference = both(TINY)
    with torch.no_grad():
        for model in (ours, reference):
            model.quant_conv.bias[4:].copy_(torch.tensor([100.0, -100, 21, -31]))
        image = normal(1, 3, 8, 8)
        logvar = ours.encode(image).logvar
        assert_parity("logvar", logvar, reference.encode(image).latent_dist.logvar)
    assert logvar.amax() == 20 and logvar.amin() == -30


@pytest.mark.parametrize(("values", "parameters"), [(SD_FILE, 83_653_863), (UPSCALER_FILE, 55_325_927)])
def test_published_models_in_full(values: dict[str, Any], parameters: int) -> None:
    """Names, shapes and number of parameters; and the configuration is the same after every way through a file."""
    config = AutoencoderConfig.from_dict(values, "vae/config.json")
    with torch.device("meta"):
        ours, reference = Autoencoder(config), AutoencoderKL.from_config(values)
        again = AutoencoderKL.from_config(json.loads(json.dumps(config.to_dict())))
    names = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    assert names == {name: tensor.shape for name, tensor in reference.state_dict().items()}
    assert sum(parameter.numel() for parameter in ours.parameters()) == parameters
    for theirs in (reference, again):
        assert AutoencoderConfig.from_dict(json.loads(json.dumps(dict(theirs.config))), "vae/config.json") == config


def test_stable_diffusion_1_is_the_default() -> None:
    """Its scaling_factor as well, which old files lack."""
    assert AutoencoderConfig.from_dict(SD_FILE) == AutoencoderConfig()


PARTS = {
    "resnet_block": (ResnetBlock, 24),
    "downsample": (Downsample, 3),
    "upsample": (Upsample, 3),
    "pixel_attention": (PixelAttention, 2),
}


def test_it_says_which_parts_it_takes() -> None:
    assert Autoencoder.parts == tuple(PARTS)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_swapped_in_every_place(part: str) -> None:
    kind, places = PARTS[part]
    mine = type("Mine", (kind,), {})
    original = randomize_(Autoencoder(SD).double())
    swapped = Autoencoder(SD, **{part: mine}).double()
    swapped.load_state_dict(original.state_dict(), strict=True)
    types = [type(module) for module in swapped.modules()]
    assert types.count(mine) == places and kind not in types
    image = normal(1, 3, 8, 16)
    mine, theirs = (network.decode(network.encode(image).mode()) for network in (swapped, original))
    assert_parity("own part", mine, theirs)


def test_factor_and_errors() -> None:
    ours = Autoencoder(TINY)
    assert SD.factor == 8 and TINY.factor == UPSCALER.factor == 4
    assert UPSCALER.scaling_factor == 0.08333
    for shape in [(1, 4, 8, 8), (3, 8, 8), (1, 3, 8, 6), (1, 3, 9, 8)]:
        with pytest.raises(ValueError, match=r"\(B, 3, H, W\) with H and W divisible by 4"):
            ours.encode(torch.zeros(shape))
    for shape in [(1, 3, 8, 8), (4, 8, 8)]:
        with pytest.raises(ValueError, match=r"\(B, 4, H, W\)"):
            ours.decode(torch.zeros(shape))
