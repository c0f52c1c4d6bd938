"""Reading and writing the JSON files of a real Stable Diffusion 1.5."""

import math
from typing import Any

import pytest

from sdlearn.config import Config, check_count, describe, fits, is_count
from sdlearn.diffusion.schedule import ScheduleConfig
from sdlearn.models.autoencoder import AutoencoderConfig
from sdlearn.models.clip import CLIPConfig
from sdlearn.models.text import TextConfig
from sdlearn.models.unet import UNetConfig

UNET = {
    **{"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6.0", "act_fn": "silu", "attention_head_dim": 8},
    "block_out_channels": [320, 640, 1280, 1280],
    **{"center_input_sample": False, "cross_attention_dim": 768},
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    **{"downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2},
    **{"mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4, "sample_size": 64},
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
VAE = {
    **{"_class_name": "AutoencoderKL", "_diffusers_version": "0.6.0", "act_fn": "silu"},
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    **{"in_channels": 3, "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3},
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
TEXT = {
    **{"_name_or_path": "openai/clip-vit-large-patch14", "architectures": ["CLIPTextModel"], "dropout": 0.0},
    **{"attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 2, "hidden_act": "quick_gelu", "pad_token_id": 1},
    **{"hidden_size": 768, "initializer_factor": 1.0, "initializer_range": 0.02, "intermediate_size": 3072},
    **{"layer_norm_eps": 1e-05, "max_position_embeddings": 77, "model_type": "clip_text_model"},
    **{"num_attention_heads": 12, "num_hidden_layers": 12, "projection_dim": 768, "torch_dtype": "float32"},
    **{"transformers_version": "4.22.0.dev0", "vocab_size": 49408},
}
SCHEDULER = {
    **{"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012, "beta_start": 0.00085},
    **{"beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "set_alpha_to_one": False},
    **{"skip_prk_steps": True, "steps_offset": 1, "trained_betas": None, "clip_sample": False},
}
FILES = {
    "unet/config.json": (UNetConfig, UNET),
    "vae/config.json": (AutoencoderConfig, VAE),
    "text_encoder/config.json": (TextConfig, TEXT),
    "scheduler/scheduler_config.json": (ScheduleConfig, SCHEDULER),
}


@pytest.mark.parametrize("file", FILES)
def test_files_of_stable_diffusion_15(file: str) -> None:
    kind, values = FILES[file]
    config = kind.from_dict(values, file)
    assert kind.from_dict(config.to_dict(), file) == config
    for key, value in config.to_dict().items():
        assert key in ("_class_name", "architectures") or key not in values or value == values[key], key


def test_they_are_the_defaults() -> None:
    assert UNetConfig.from_dict(UNET) == UNetConfig()
    assert AutoencoderConfig.from_dict(VAE) == AutoencoderConfig()  # with scaling_factor 0.18215, which the file lacks
    assert UNetConfig().to_dict()["up_block_types"] == UNET["up_block_types"]


def test_round_trip_of_other_values() -> None:
    unet = UNetConfig(
        sample_size=16,
        block_out_channels=(64, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        num_class_embeds=10,
    )
    autoencoder = AutoencoderConfig(block_out_channels=(32, 64), scaling_factor=0.7, mid_block_add_attention=False)
    for config in (unet, autoencoder):
        values = config.to_dict()
        assert type(config).from_dict(values) == config
        assert not any(isinstance(value, tuple) for value in values.values())  # as in the JSON file


UNET_REFUSED = {
    "act_fn": "gelu",
    "dual_cross_attention": True,
    "only_cross_attention": [True, False],
    "upcast_attention": "sometimes",
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "downsample_padding": 0,
    "center_input_sample": True,
    "mid_block_scale_factor": 2,
    "mid_block_type": None,  # no middle at all
    "class_embed_type": "timestep",
    "addition_embed_type": "text_time",
    "time_cond_proj_dim": 256,
    "num_attention_heads": 8,
    "encoder_hid_dim": 1024,
    "resnet_time_scale_shift": "scale_shift",
    "resnet_skip_time_act": True,
    "conv_in_kernel": 5,
    "dropout": 0.1,
    "layers_per_block": [2, 2, 2, 2],
    "cross_attention_dim": [768, 768, 768, 768],
    "norm_num_groups": None,
    "attention_head_dim": [8, 8],
    "transformer_layers_per_block": [1, 2, 10, 10],
    "a_key_of_the_future": "on",
}
VAE_REFUSED = {
    "act_fn": "relu",
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "shift_factor": 0.1,
    "latents_mean": [0.1, 0.2, 0.3, 0.4],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 5,
}


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [("unet/config.json", *item) for item in UNET_REFUSED.items()]
    + [("vae/config.json", *item) for item in VAE_REFUSED.items()],
)
def test_what_changes_the_computation_is_refused(file: str, key: str, value: Any) -> None:
    kind, values = FILES[file]
    with pytest.raises(ValueError) as error:
        kind.from_dict(values | {key: value}, file)
    shown = {repr(value), repr(tuple(value)) if isinstance(value, list) else repr(value)}
    assert str(error.value).startswith(f"{file}: {key} = ")
    assert any(text in str(error.value) for text in shown)


@pytest.mark.parametrize(
    ("file", "key", "index", "value"),
    [
        ("unet/config.json", "down_block_types", 1, "AttnDownBlock2D"),
        ("unet/config.json", "up_block_types", 3, "ResnetUpsampleBlock2D"),
        ("vae/config.json", "down_block_types", 3, "AttnDownEncoderBlock2D"),
        ("vae/config.json", "up_block_types", 0, "AttnUpDecoderBlock2D"),
    ],
)
def test_a_block_of_another_type_is_refused(file: str, key: str, index: int, value: str) -> None:
    kind, values = FILES[file]
    types = list(values[key])
    types[index] = value
    with pytest.raises(ValueError, match=f"^{file}: {key} = .*'{value}'.* is not supported; accepted:"):
        kind.from_dict(values | {key: types}, file)


@pytest.mark.parametrize("key", ["block_out_channels", "down_block_types", "up_block_types"])
def test_levels_must_match(key: str) -> None:
    with pytest.raises(ValueError, match=r"^unet/config.json: block_out_channels, .* must have the same length"):
        UNetConfig.from_dict(UNET | {key: UNET[key][:3]}, "unet/config.json")


def test_keys_at_the_references_defaults_pass() -> None:
    """What newer versions of Diffusers add to the file when they save the same model."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from torch import device

    with device("meta"):
        unet = dict(UNet2DConditionModel.from_config(UNET).config)
        vae = dict(AutoencoderKL.from_config(VAE).config)
    assert len(unet) > 50 and UNetConfig.from_dict(unet) == UNetConfig()
    assert len(vae) > 20 and AutoencoderConfig.from_dict(vae) == AutoencoderConfig()


def test_keys_that_begin_with_an_underscore_are_comments() -> None:
    assert UNetConfig.from_dict(UNET | {"_name_or_path": "any", "_use_default_values": ["x"]}) == UNetConfig()


def test_configs_cannot_be_changed() -> None:
    config: Config = UNetConfig()
    with pytest.raises(AttributeError):
        config.in_channels = 9
    assert hash(config) == hash(UNetConfig())


def test_counts() -> None:
    assert is_count(1) and is_count(7, 2, 7) and is_count(0, least=0)
    assert not any(is_count(value) for value in (0, -1, True, 1.0, "1", None, math.nan, (1,)))
    assert not is_count(1, least=2) and not is_count(8, 2, 7)
    check_count("steps", 3)
    check_count("seed", 0, least=0)
    with pytest.raises(ValueError, match=r"^steps = 0, must be a whole number of at least 1$"):
        check_count("steps", 0)
    with pytest.raises(ValueError, match=r"^t = True, must be a whole number from 0 to 999$"):
        check_count("t", True, 0, 999)


TYPES = {  # what a field is declared as: what it accepts, what it refuses, and how that is said
    int: ((0, -3), (True, 1.0, "1", None, (1,)), "whole numbers"),
    float: ((1, 1.5, -0.0), (True, math.nan, math.inf, "1", None), "finite numbers"),
    bool: ((True, False), (1, 0, "true", None), "True or False"),
    str: (("a", ""), (1, None, b"a"), "texts"),
    tuple[int, ...]: (((1, 2), ()), ((1, True), (1.0,), 1, None), "lists of whole numbers"),
    int | None: ((1, None), (True, 1.5, "1"), "whole numbers or None"),
    int | tuple[int, ...]: ((8, (8, 4)), (True, (8, None), "8"), "whole numbers or lists of whole numbers"),
    UNetConfig | None: ((UNetConfig(), None), ({}, AutoencoderConfig()), "a table or None"),
}


@pytest.mark.parametrize("hint", TYPES, ids=str)
def test_types(hint: Any) -> None:
    accepted, refused, words = TYPES[hint]
    assert all(fits(value, hint) for value in accepted)
    assert not any(fits(value, hint) for value in refused)
    assert describe(hint) == words


DDIM = {"_class_name": "DDIMScheduler", "clip_sample": False}


@pytest.mark.parametrize("value", [2**63, -(10**30), 10**400])
@pytest.mark.parametrize("hint", [int, float, int | None])
def test_numbers_that_are_too_large(value: int, hint: Any) -> None:
    assert not fits(value, hint)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (UNetConfig, {"layers_per_block": 10**6}, "layers_per_block = 1000000 .*at most 256"),
        (UNetConfig, {"block_out_channels": [32] * 1000}, "must have the same length"),
        (AutoencoderConfig, {"block_out_channels": [32] * 1000}, r"block_out_channels = \(32, 32.*… .*above 0"),
        (TextConfig, {"num_hidden_layers": 10**9}, "num_hidden_layers = 1000000000 .*at most 256"),
        (TextConfig, {"hidden_size": 10**12}, "hidden_size = 1000000000000 .*at most 100000000"),
        (CLIPConfig, {"text_config": [1]}, r"text_config = \[1\] is not supported; accepted: a table"),
        (ScheduleConfig, {"_class_name": ["DDIMScheduler"]}, r"_class_name = \['DDIMScheduler'\]"),
        (
            ScheduleConfig,
            {**DDIM, "num_train_timesteps": 10**9},
            "from 2 to 100000",
        ),
        (
            ScheduleConfig,
            {**DDIM, "steps_offset": 10**9},
            "from 0 to 1000",
        ),
        (UNetConfig, {"x" * 1000: "y" * 1000}, "x… = 'yyy.*y… is not supported"),
    ],
)
def test_values_that_are_far_too_large_or_of_another_kind(kind: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^a\.json: .*{message}") as caught:
        kind.from_dict(values, "a.json")
    assert len(str(caught.value)) < 500
