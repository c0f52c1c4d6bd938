"""Bad input to the public functions and the command line: which error it raises, and that the message helps.

Each case is a row: what is bad, the call, the exact type of the exception, and what its message must say. Below the
tables are laws that hold for all good input: any prompt, any grid, any size.
"""

import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

import sdlearn
from sdlearn import cli
from sdlearn.config import Table, read_table
from sdlearn.data import ImageFolder, PairScenes, Scenes, emoji_name
from sdlearn.data.__main__ import main as sheet
from sdlearn.diffusion.grids import make_grid
from sdlearn.diffusion.guidance import Condition, guide
from sdlearn.diffusion.samplers import SAMPLERS, ddim, ddpm, draw_noise, get_sampler, last
from sdlearn.diffusion.schedule import SPACINGS, Schedule, ScheduleConfig
from sdlearn.evaluation.scores import evaluate, frechet_distance, psnr
from sdlearn.models.autoencoder import AutoencoderConfig
from sdlearn.models.clip import CLIPConfig, VisionConfig, contrastive_loss
from sdlearn.models.text import TextConfig, TextEncoder
from sdlearn.models.unet import UNet, UNetConfig
from sdlearn.pictures import captioned_grid, to_images
from sdlearn.pipeline import StableDiffusion
from sdlearn.storage.parts import PARTS
from sdlearn.storage.save import save
from sdlearn.tasks.plan import Defaults
from sdlearn.tokenizer import Tokenizer, train_bpe
from sdlearn.training.autoencoder import AutoencoderRecipe
from sdlearn.training.clip import CLIPRecipe
from sdlearn.training.diffusion import DiffusionRecipe
from sdlearn.training.run import read_recipe

# The tiny model has latents of 4 channels, 4 pixels wide each; its UNet halves them twice, so pictures come in 16s.
NAN, INF = float("nan"), float("inf")
PROMPT = "a small red apple on a blue background"
LATENTS = torch.zeros(1, 4, 16, 16)
PICTURES = torch.zeros(1, 3, 32, 32)
CONTEXT = torch.zeros(1, 7, 32)
IDS = torch.zeros(1, 7, dtype=torch.long)
SCHEDULE = Schedule(ScheduleConfig())
GRID = make_grid(SCHEDULE, 4)
WIDER = TextConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, vocab_size=560)
WEIGHTS = "diffusion_pytorch_model.safetensors"
TRAINING = {"steps": 2, "batch_size": 2, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> StableDiffusion:
    return sdlearn.load(tiny_folder)


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(count)]


def guided(condition: Condition, unconditional: Condition | None = None, scale: float = 1.0) -> torch.Tensor:
    """Guidance around a network that answers with its input, at a batch of 2."""
    denoise = guide(lambda x, t, context, **others: x, condition, unconditional, scale)
    return denoise(torch.zeros(2, 4, 8, 8), 5)


def labelled(model: StableDiffusion) -> UNet:
    """The model's UNet, but told a class as well."""
    return UNet(replace(model.unet.config, num_class_embeds=10))


def rebuilt(model: StableDiffusion, **others: Any) -> StableDiffusion:
    """The model with other parts."""
    names = ("tokenizer", "text_encoder", "autoencoder", "unet", "schedule")
    return StableDiffusion(**{name: getattr(model, name) for name in names} | others)


class Bad(NamedTuple):
    """A row of the tables: what is bad, the call, what the message must say (a regular expression), the exact error."""

    what: str
    call: Callable[[StableDiffusion], object]
    message: str
    error: type[Exception] = ValueError


DRAWING = [
    Bad("no prompt", lambda m: m.sample(None), "prompt = None.*must be a text or a list of texts"),
    Bad("bytes as prompt", lambda m: m.sample(b"cat"), "b'cat'.*must be a text or a list of texts"),
    Bad("empty list", lambda m: m.sample([]), "must be a text or a list of texts, not empty"),
    Bad("half a character", lambda m: m.sample("\ud83c"), r"'\\ud83c'.*surrogates not allowed", UnicodeEncodeError),
    Bad("negative None", lambda m: m.sample(PROMPT, negative_prompt=None), "negative_prompt = None: must be a text"),
    Bad(
        "negative prompts, too few",
        lambda m: m.sample(["a", "b", "c"], negative_prompt=["d", "e"]),
        "2 negative prompts for 3 prompts; must be one text, or a list of as many",
    ),
    Bad("height 60", lambda m: m.sample(PROMPT, height=60), "height = 60, must be a multiple of 16 pixels"),
    Bad("width 8", lambda m: m.sample(PROMPT, width=8), "width = 8, must be a multiple of 16 pixels"),
    Bad("width -16", lambda m: m.sample(PROMPT, width=-16), "width = -16, must be a multiple of 16"),
    Bad("height 64.0", lambda m: m.sample(PROMPT, height=64.0), r"height = 64\.0, must be a multiple of 16"),
    Bad("steps 0", lambda m: m.sample(PROMPT, steps=0), "steps = 0, must be a whole number from 1 to 1000"),
    Bad("steps -1", lambda m: m.sample(PROMPT, steps=-1), "steps = -1, must be a whole number from 1 to 1000"),
    Bad("steps 1001", lambda m: m.sample(PROMPT, steps=1001), "steps = 1001, .* from 1 to 1000"),
    Bad("steps True", lambda m: m.sample(PROMPT, steps=True), "steps = True, must be a whole number"),
    Bad("steps 20.0", lambda m: m.sample(PROMPT, steps=20.0), r"steps = 20\.0, must be a whole number"),
    Bad("steps '20'", lambda m: m.sample(PROMPT, steps="20"), "steps = '20', must be a whole number"),
    Bad(
        "sampler",
        lambda m: m.sample(PROMPT, sampler="k_euler"),
        f"'k_euler' is unknown; accepted: {', '.join(SAMPLERS)}",
    ),
    Bad("count 0", lambda m: m.sample(PROMPT, count=0), "count = 0, must be a whole number of at least 1"),
    Bad("seed -1", lambda m: m.sample(PROMPT, seed=-1), r"seed = -1, must be a whole number from 0 to 2\^63"),
    Bad("seed None", lambda m: m.sample(PROMPT, seed=None), "seed = None, must be a whole number from 0"),
    Bad("guidance inf", lambda m: m.sample(PROMPT, guidance_scale=INF), "= inf, must be finite"),
    Bad("guidance nan", lambda m: m.sample(PROMPT, guidance_scale=NAN), "= nan, must be finite"),
    Bad("rescale 1.1", lambda m: m.sample(PROMPT, rescale=1.1), r"rescale = 1\.1, must be from 0 to 1"),
    Bad(
        "eta for euler",
        lambda m: m.sample(PROMPT, sampler="euler", eta=1.0),
        "from 0 to 1 with 'ddim', and 0 with any other",
    ),
    Bad("clip_skip 3", lambda m: m.sample(PROMPT, clip_skip=3), "skip = 3, must be a whole number from 0 to 2"),
    Bad("a word too many", lambda m: m(PROMPT, stesp=4), "unexpected keyword argument 'stesp'", TypeError),
    Bad(
        "latents of another batch",
        lambda m: m.sample([PROMPT] * 2, latents=LATENTS),
        r"latents have the shape \(1, 4, 16, 16\), must have \(2, 4, 16, 16\)",
    ),
    Bad(
        "latents of another size",
        lambda m: m.sample(PROMPT, latents=LATENTS, width=32),
        r"latents have the shape \(1, 4, 16, 16\), must have \(1, 4, 16, 8\)",
    ),
    Bad(
        "NaN latents", lambda m: m.sample(PROMPT, latents=LATENTS * NAN), "latents hold NaN or infinity, must be finite"
    ),
    Bad(
        "integer latents",
        lambda m: m.sample(PROMPT, latents=LATENTS.long()),
        r"latents are torch\.int64 of shape \(1, 4, 16, 16\), must be floats \(B, C, H, W\)",
    ),
    Bad("latents in a list", lambda m: m.sample(PROMPT, latents=[0.0]), "latents are list, must be floats"),
    Bad("decode NaN", lambda m: m.decode(LATENTS * NAN), "latents hold NaN or infinity, must be finite"),
    Bad("decode integers", lambda m: m.decode(LATENTS.int()), r"latents are torch\.int32 .*must be floats"),
    Bad("decode pictures", lambda m: m.decode(PICTURES), r"takes \(B, 4, H, W\), not \(1, 3, 32, 32\)"),
    Bad("encode bytes", lambda m: m.encode(PICTURES.byte()), r"pictures are torch\.uint8 .*from −1 to 1"),
    Bad("encode infinity", lambda m: m.encode(PICTURES + INF), "pictures hold NaN or infinity, must be finite"),
    Bad("encode 30 pixels", lambda m: m.encode(PICTURES[..., :30]), r"H and W divisible by 4, not \(1, 3, 32, 30\)"),
    Bad("encode one picture", lambda m: m.encode(PICTURES[0]), r"shape \(3, 32, 32\), must be floats \(B, 3, H, W\)"),
]

PARTS_OF_MODELS = [
    Bad(
        "UNet, one picture",
        lambda m: m.unet(LATENTS[0], 0, CONTEXT),
        r"takes \(B, 4, H, W\) with H and W divisible by 4, not \(4, 16, 16\)",
    ),
    Bad(
        "UNet, channels", lambda m: m.unet(LATENTS[:, :3], 0, CONTEXT), r"takes \(B, 4, H, W\) .* not \(1, 3, 16, 16\)"
    ),
    Bad("UNet, size", lambda m: m.unet(LATENTS[..., :15], 0, CONTEXT), r"divisible by 4, not \(1, 4, 16, 15\)"),
    Bad("UNet, context's rank", lambda m: m.unet(LATENTS, 0, CONTEXT[0]), r"\(1, T, 32\), not \(7, 32\)"),
    Bad("UNet, context's width", lambda m: m.unet(LATENTS, 0, CONTEXT[..., :8]), r"\(1, T, 32\), not \(1, 7, 8\)"),
    Bad(
        "UNet, context's batch",
        lambda m: m.unet(LATENTS.repeat(3, 1, 1, 1), 0, CONTEXT),
        r"a context of shape \(3, T, 32\), not \(1, 7, 32\)",
    ),
    Bad("UNet, times", lambda m: m.unet(LATENTS, torch.tensor([1, 2]), CONTEXT), "size of the tensor", RuntimeError),
    Bad("UNet, integers", lambda m: m.unet(LATENTS.long(), 0, CONTEXT), "must have the same dtype.*Long", RuntimeError),
    Bad(
        "UNet, a class for none",
        lambda m: m.unet(LATENTS, 0, CONTEXT, class_labels=IDS[0]),
        "exactly if num_class_embeds is set",
    ),
    Bad(
        "UNet, no class", lambda m: labelled(m)(LATENTS, 0, CONTEXT), "must be given exactly if num_class_embeds is set"
    ),
    Bad(
        "UNet, classes' batch",
        lambda m: labelled(m)(LATENTS, 0, CONTEXT, class_labels=IDS[0]),
        r"class_labels must have the shape \(1,\), not \(7,\)",
    ),
    Bad(
        "UNet, class 10",
        lambda m: labelled(m)(LATENTS, 0, CONTEXT, class_labels=IDS[0, :1] + 10),
        r"class_labels = \[10\], must be from 0 to 9",
    ),
    Bad(
        "UNet, class -1",
        lambda m: labelled(m)(LATENTS, 0, CONTEXT, class_labels=IDS[0, :1] - 1),
        r"class_labels = \[-1\], must be from 0 to 9",
    ),
    Bad(
        "UNet, class 0.5",
        lambda m: labelled(m)(LATENTS, 0, CONTEXT, class_labels=IDS[0, :1] + 0.5),
        r"class_labels are torch\.float32; accepted: whole numbers",
    ),
    Bad(
        "autoencoder, channels",
        lambda m: m.autoencoder.encode(LATENTS),
        r"takes \(B, 3, H, W\) with H and W divisible by 4, not \(1, 4, 16, 16\)",
    ),
    Bad("decoder, rank", lambda m: m.autoencoder.decode(LATENTS[0]), r"takes \(B, 4, H, W\), not \(4, 16, 16\)"),
    Bad("text, one row", lambda m: m.text_encoder(IDS[0]), r"\(7,\); accepted: \(B, T\) with T from 1 to 77"),
    Bad("text, 78 tokens", lambda m: m.text_encoder(IDS.new_zeros(1, 78)), r"\(1, 78\); .* T from 1 to 77"),
    Bad("text, no token", lambda m: m.text_encoder(IDS[:, :0]), r"\(1, 0\); .* T from 1 to 77"),
    Bad("text, floats", lambda m: m.text_encoder(IDS.float()), r"ids are torch\.float32; accepted: whole numbers"),
    Bad("text, bools", lambda m: m.text_encoder(IDS > 0), r"ids are torch\.bool; .* torch\.int64 or torch\.int32"),
    Bad("text, id too high", lambda m: m.text_encoder(IDS + 999), r"from 999 to 999; the vocabulary is from 0 to \d+"),
    Bad("text, id below 0", lambda m: m.text_encoder(IDS - 1), r"ids are from -1 to -1; the vocabulary is from 0"),
    Bad(
        "text, no end",
        lambda m: m.text_encoder.text_model.pool(CONTEXT, IDS),
        "every row of ids must hold the end-of-text token",
    ),
    Bad(
        "widths that differ",
        lambda m: rebuilt(m, text_encoder=TextEncoder(WIDER)),
        "cross_attention_dim is 32, the text encoder's width is 64; they must be equal",
    ),
    Bad(
        "no such UNet",
        lambda m: rebuilt(m, unet=UNet(replace(m.unet.config, in_channels=7))),
        r"in_channels is 7; .* it must be 4 \(text to image\), 5 \(depth to image\), 9 \(inpainting\)",
    ),
    Bad("moved to integers", lambda m: m.to(dtype=torch.int32), "only accepts floating point or complex", TypeError),
    Bad("moved to nowhere", lambda m: m.to("gpu"), "one of cpu, .*device string: gpu", RuntimeError),
    Bad(
        "text config, heads",
        lambda m: TextConfig(num_attention_heads=7),
        "768 is not a multiple of num_attention_heads = 7",
    ),
    Bad(
        "text config, act",
        lambda m: TextConfig(hidden_act="relu"),
        "'relu' is not supported; accepted: quick_gelu or gelu",
    ),
    Bad("text config, no heads", lambda m: TextConfig(num_attention_heads=0), "num_attention_heads = 0 .*above 0"),
    Bad("text config, words", lambda m: TextConfig(vocab_size=-1), "vocab_size = -1 is not supported; accepted: whole"),
    Bad("text config, eps", lambda m: TextConfig(layer_norm_eps=0), "layer_norm_eps = 0 .*accepted: numbers above 0"),
    Bad(
        "text config, type",
        lambda m: TextConfig.from_dict({"hidden_size": "768"}, "a.json"),
        "a.json: hidden_size = '768' is not supported; accepted: whole numbers",
    ),
    Bad(
        "vision config, patch", lambda m: VisionConfig(patch_size=0), "patch_size = 0 .*accepted: whole numbers above 0"
    ),
    Bad(
        "CLIP config, width",
        lambda m: CLIPConfig(projection_dim=0),
        "projection_dim = 0 .*accepted: whole numbers above",
    ),
    Bad(
        "CLIP config, tower",
        lambda m: CLIPConfig.from_dict({"vision_config": {"num_channels": 3.0}}, "a.json"),
        r"a.json: vision_config: num_channels = 3\.0 is not supported; accepted: whole numbers",
    ),
    Bad(
        "contrastive loss, batches",
        lambda m: contrastive_loss(torch.ones(3, 4), torch.ones(2, 4), torch.tensor(0.0)),
        r"shapes \(3, 4\) and \(2, 4\); accepted: \(B, P\) for both",
    ),
    Bad(
        "contrastive loss, widths",
        lambda m: contrastive_loss(torch.ones(3, 4), torch.ones(3, 5), torch.tensor(0.0)),
        r"shapes \(3, 4\) and \(3, 5\); accepted",
    ),
    Bad(
        "contrastive loss, pairs",
        lambda m: contrastive_loss(torch.ones(3, 4), torch.ones(3, 4), torch.tensor(0.0), torch.ones(2, 3) > 0),
        r"same is torch\.bool of shape \(2, 3\); accepted: torch\.bool of shape \(3, 3\)",
    ),
    Bad(
        "contrastive loss, no bools",
        lambda m: contrastive_loss(torch.ones(3, 4), torch.ones(3, 4), torch.tensor(0.0), torch.eye(3)),
        r"same is torch\.float32 .* accepted: torch\.bool",
    ),
    Bad("UNet config, levels", lambda m: UNetConfig(block_out_channels=(32,)), "must have the same length"),
    Bad("UNet config, heads", lambda m: UNetConfig(attention_head_dim=7), "7 does not divide 320 channels"),
    Bad(
        "UNet config, key",
        lambda m: UNetConfig.from_dict({"act_fn": "mish"}, "a.json"),
        "a.json: act_fn = 'mish' is not supported; accepted: 'silu'",
    ),
    Bad(
        "autoencoder config",
        lambda m: AutoencoderConfig.from_dict({"use_quant_conv": False}),
        "config.json: use_quant_conv = False is not supported; accepted: True",
    ),
    Bad("autoencoder config, 0", lambda m: AutoencoderConfig(latent_channels=0), "latent_channels = 0 .*above 0"),
    Bad(
        "autoencoder config, 1.5", lambda m: AutoencoderConfig(layers_per_block=1.5), r"layers_per_block = 1\.5 .*whole"
    ),
    Bad(
        "autoencoder config, levels",
        lambda m: AutoencoderConfig(block_out_channels=()),
        r"= \(\) .*accepted: whole numbers",
    ),
    Bad("autoencoder config, groups", lambda m: AutoencoderConfig(norm_num_groups=24), "= 24 does not divide 128 chan"),
    Bad(
        "autoencoder config, scale",
        lambda m: AutoencoderConfig(scaling_factor=-1.0),
        r"= -1\.0 .*accepted: numbers above 0",
    ),
    Bad(
        "autoencoder config, NaN",
        lambda m: AutoencoderConfig.from_dict({"scaling_factor": NAN}, "a.json"),
        "a.json: scaling_factor = nan is not supported; accepted: finite numbers",
    ),
    Bad(
        "autoencoder config, types",
        lambda m: AutoencoderConfig.from_dict({"up_block_types": 4}, "a.json"),
        r"a.json: up_block_types = 4 is not supported; accepted: \['UpDecoderBlock2D', ",
    ),
    Bad(
        "autoencoder config, list",
        lambda m: AutoencoderConfig.from_dict({"block_out_channels": [32, "64"]}, "a.json"),
        r"a.json: block_out_channels = \(32, '64'\) is not supported; accepted: lists of whole numbers",
    ),
]

DIFFUSION = [
    Bad("beta_start 0", lambda m: ScheduleConfig(beta_start=0), "beta_start = 0, must be a number between 0 and 1"),
    Bad("beta_end 1", lambda m: ScheduleConfig(beta_end=1.0), r"beta_end = 1\.0, must be a number between 0 and 1"),
    Bad("betas fall", lambda m: ScheduleConfig(beta_start=0.5), r"0\.5 must be at most beta_end = 0\.012"),
    Bad(
        "one timestep", lambda m: ScheduleConfig(num_train_timesteps=1), "= 1, must be a whole number from 2 to 100000"
    ),
    Bad("timesteps True", lambda m: ScheduleConfig(num_train_timesteps=True), "= True, must be a whole number"),
    Bad("offset True", lambda m: ScheduleConfig(steps_offset=True), "steps_offset = True, must be a whole number"),
    Bad(
        "offset -1",
        lambda m: ScheduleConfig(steps_offset=-1),
        "steps_offset = -1, must be a whole number from 0 to 1000",
    ),
    Bad(
        "betas", lambda m: ScheduleConfig(beta_schedule="cosine"), "accepted: linear, scaled_linear, squaredcos_cap_v2"
    ),
    Bad("prediction", lambda m: ScheduleConfig(prediction_type="flow"), "accepted: epsilon, sample, v_prediction"),
    Bad(
        "scheduler",
        lambda m: ScheduleConfig(scheduler="LCMScheduler"),
        "'LCMScheduler' .*accepted: DDPMScheduler, DDIMScheduler",
    ),
    Bad("t = 1000", lambda m: SCHEDULE.add_noise(LATENTS, LATENTS, 1000), "t = 1000, .*from 0 to 999"),
    Bad("t = 0.5", lambda m: SCHEDULE.to_x0(LATENTS, LATENTS, 0.5), r"t = 0\.5, .*whole number from 0 to 999"),
    Bad(
        "times of another batch",
        lambda m: SCHEDULE.velocity(LATENTS, LATENTS, torch.tensor([1, 2])),
        "t has 2 timesteps for a batch of 1, must have one for each image",
    ),
    Bad("spacing", lambda m: make_grid(SCHEDULE, 5, "karras"), "'karras' .*accepted: leading, trailing, linspace"),
    Bad("grid of 0", lambda m: make_grid(SCHEDULE, 0), "steps = 0, must be a whole number from 1 to 1000"),
    Bad("tail of 0", lambda m: GRID.tail(0), "k = 0, must be a whole number from 1 to 4"),
    Bad("tail of 5", lambda m: GRID.tail(5), "k = 5, must be a whole number from 1 to 4"),
    Bad("tail of 2.0", lambda m: GRID.tail(2.0), r"k = 2\.0, must be a whole number from 1 to 4"),
    Bad("sampler", lambda m: get_sampler("ddmi"), "'ddmi' is unknown; accepted: ddpm, ddim, plms, euler"),
    Bad("seed as generator", lambda m: draw_noise((1, 4), 0), r"generator is 0: pass a CPU torch\.Generator"),
    Bad(
        "generators",
        lambda m: draw_noise((3, 4), generators(2)),
        "2 generators for a batch of 3, must be one for each image",
    ),
    Bad(
        "no generator",
        lambda m: last(ddpm(lambda x, t: x, LATENTS, GRID, SCHEDULE)),
        r"generator is None: pass a CPU torch\.Generator",
    ),
    Bad(
        "eta 2",
        lambda m: last(ddim(lambda x, t: x, LATENTS, GRID, SCHEDULE, eta=2.0)),
        r"eta = 2\.0, must be from 0 to 1",
    ),
    Bad("no steps", lambda m: last(iter(())), "the sampler made no step"),
    Bad("guidance -inf", lambda m: guided(Condition(CONTEXT), None, -INF), "= -inf, must be finite"),
    Bad("guidance alone", lambda m: guided(Condition(CONTEXT), None, 3.0), "needs an unconditional condition"),
    Bad(
        "context's batch",
        lambda m: guided(Condition(CONTEXT)),
        "context has a batch of 1, x one of 2; they must be equal",
    ),
    Bad(
        "class labels' batch",
        lambda m: guided(Condition(CONTEXT.repeat(2, 1, 1), class_labels=IDS[0])),
        "class_labels has a batch of 7, x one of 2; they must be equal",
    ),
    Bad(
        "contexts that differ",
        lambda m: guided(Condition(CONTEXT), Condition(CONTEXT[:, :5]), 2.0),
        r"context: shape \(1, 5, 32\) of unconditional is not \(1, 7, 32\)",
    ),
]

DATA = [
    Bad("vocabulary of 100", lambda m: train_bpe([PROMPT], 100), "100 is too small: .* alone are 514"),
    Bad("rows of 1", lambda m: Tokenizer(m.tokenizer.vocab, [], 1), "= 1 leaves no room .* accepted: 2 or more"),
    Bad("empty vocabulary", lambda m: Tokenizer({}, []), r"lacks 3 of the tokens it needs; .*startoftext"),
    Bad(
        "unknown id",
        lambda m: m.tokenizer.decode([3, 99999]),
        r"99999 is not in the vocabulary, which holds \d+ tokens",
    ),
    Bad("split", lambda m: Scenes(split="val"), "unknown split 'val'; accepted: train, held_out_pairs, test"),
    Bad("size 30", lambda m: Scenes(size=30), "size=30; accepted: a multiple of 4, at least 16"),
    Bad("size 12", lambda m: PairScenes(size=12), "size=12; accepted: a multiple of 4, at least 16"),
    Bad(
        "subject", lambda m: Scenes(subjects=["cat", "gryphon"]), "'gryphon'; accepted: those in sdlearn.data.SUBJECTS"
    ),
    Bad(
        "no subject",
        lambda m: Scenes(subjects=[]),
        "no subjects; accepted: one or more of those in sdlearn.data.SUBJECTS",
    ),
    Bad("style", lambda m: Scenes(style="oil"), "unknown style 'oil'; accepted: color, line"),
    Bad("scene -1", lambda m: Scenes()[-1], "index=-1; scenes are endless, accepted: 0 and above", IndexError),
    Bad("color", lambda m: Scenes().make("cat", "beige"), "'beige' can't be drawn; accepted: red, orange, yellow"),
    Bad("language", lambda m: emoji_name("cat", "xx"), "unknown language 'xx'; accepted: .*en"),
    Bad("few images", lambda m: evaluate(m, images=1), "images=1; accepted: 2 and above"),
    Bad("evaluation's steps", lambda m: evaluate(m, steps=1001), "steps = 1001, .* from 1 to 1000"),
    Bad("PSNR of floats", lambda m: psnr(PICTURES, PICTURES), r"accepted: equal shapes of torch\.uint8"),
    Bad(
        "Fréchet of one",
        lambda m: frechet_distance(CONTEXT[0], CONTEXT[0, :1]),
        r"\(7, 32\) and \(1, 32\); accepted: \(N, F\) and \(M, F\), N and M above 1",
    ),
    Bad("one picture to show", lambda m: to_images(PICTURES[0]), r"\(3, 32, 32\), must have \(B, 3, H, W\)"),
    Bad(
        "captions",
        lambda m: captioned_grid([], ["a"]),
        "0 pictures and 1 captions; there must be one caption for each",
    ),
    Bad("defaults", lambda m: Defaults(64, 64, steps=0), "steps = 0, must be a whole number of at least 1"),
]


def changed(kind: type[Table], table: str, **values: Any) -> Table:
    """A recipe that is good but for these values in a table; None takes the key out."""
    tables = RECIPES[kind]
    merged = tables.get(table, {}) | values
    merged = {key: value for key, value in merged.items() if value is not None}
    return read_table(kind, tables | {table: merged}, "a.toml")


def training(**values: Any) -> AutoencoderRecipe:
    return changed(AutoencoderRecipe, "training", **values)


RECIPES: dict[type, dict[str, Any]] = {
    CLIPRecipe: {"training": TRAINING, "tokenizer": {"vocab_size": 600}, "model": {}},
    AutoencoderRecipe: {"training": TRAINING, "loss": {"kl_weight": 1e-3}, "model": {}},
    DiffusionRecipe: {
        "training": TRAINING,
        "parts": {"clip": "a", "autoencoder": "b"},
        "schedule": {},
        "data": {"pool_size": 2, "caption_dropout": 0.1},
        "model": {},
    },
}
# Of a key that is unknown, missing, of another type, out of range: a row at least for each table.
RECIPE_ROWS = [
    Bad(
        "key of training",
        lambda m: training(epochs=3),
        "a.toml: training: epochs = 3 is unknown; accepted: steps, batch",
    ),
    Bad("no steps", lambda m: training(steps=None, batch_size=None), "a.toml: training lacks steps, batch_size"),
    Bad(
        "batch 1.5",
        lambda m: training(batch_size=1.5),
        r"training: batch_size = 1\.5 is not supported; accepted: whole n",
    ),
    Bad(
        "rate True",
        lambda m: training(learning_rate=True),
        "learning_rate = True is not supported; accepted: finite numb",
    ),
    Bad(
        "rate '1e-3'",
        lambda m: training(learning_rate="1e-3"),
        "learning_rate = '1e-3' is not supported; accepted: finite",
    ),
    Bad(
        "rate NaN",
        lambda m: training(learning_rate=NAN),
        "learning_rate = nan is not supported; accepted: finite numbers",
    ),
    Bad("rate 0", lambda m: training(learning_rate=0), "a.toml: training: learning_rate must be above 0, not 0"),
    Bad("seed -1", lambda m: training(seed=-1), "seed must be at least 0, not -1"),
    Bad("ema_decay 1", lambda m: training(ema_decay=1), "ema_decay must be at least 0 and below 1, not 1"),
    Bad(
        "channels_last 1",
        lambda m: training(channels_last=1),
        "channels_last = 1 is not supported; accepted: True or False",
    ),
    Bad(
        "log_every 0",
        lambda m: training(log_every=0),
        "log_every = 0 is not supported; accepted: whole numbers above 0",
    ),
    Bad("split", lambda m: training(accumulation=3), "batch_size 2 is not divisible by accumulation 3"),
    Bad("optimizer", lambda m: training(optimizer="sgd"), "must be 'adamw' or 'muon', not 'sgd'"),
    Bad("precision", lambda m: training(mixed_precision="fp8"), "must be 'no', 'bf16' or 'fp16', not 'fp8'"),
    Bad("no table", lambda m: read_table(CLIPRecipe, {}, "a.toml"), "a.toml lacks training, tokenizer, model"),
    Bad(
        "table of another kind",
        lambda m: changed(CLIPRecipe, "loss", kl_weight=0.1),
        r"a.toml: loss = \{'kl_weight': 0\.1\} is unknown; accepted: training, tokenizer, model",
    ),
    Bad(
        "no table but a number",
        lambda m: read_table(AutoencoderRecipe, RECIPES[AutoencoderRecipe] | {"loss": 3}, "a.toml"),
        "a.toml: loss = 3 is not supported; accepted: a table",
    ),
    Bad(
        "kl_weight 'x'",
        lambda m: changed(AutoencoderRecipe, "loss", kl_weight="x"),
        "loss: kl_weight = 'x' .*finite num",
    ),
    Bad(
        "kl_weight -1", lambda m: changed(AutoencoderRecipe, "loss", kl_weight=-1), "loss: kl_weight must be at least 0"
    ),
    Bad(
        "key of loss",
        lambda m: changed(AutoencoderRecipe, "loss", beta=1),
        "loss: beta = 1 is unknown; accepted: kl_weight",
    ),
    Bad(
        "init 3",
        lambda m: changed(AutoencoderRecipe, "parts", init=3),
        "parts: init = 3 is not supported; accepted: texts",
    ),
    Bad("two starts", lambda m: changed(AutoencoderRecipe, "parts", init="a"), "either a table model or a table parts"),
    Bad(
        "key of model",
        lambda m: changed(AutoencoderRecipe, "model", latent_chanels=False),
        "a.toml: model: latent_chanels = False is unknown; accepted: in_channels, out_channels",
    ),
    Bad(
        "width of model",
        lambda m: changed(AutoencoderRecipe, "model", block_out_channels=[0]),
        r"a.toml: model: block_out_channels = \(0,\) is not supported; accepted: whole numbers above 0",
    ),
    Bad(
        "key of a tower",
        lambda m: changed(CLIPRecipe, "model", text_config={"width": 8}),
        "a.toml: model: text_config: width = 8 is unknown; accepted: hidden_size",
    ),
    Bad(
        "vocab_size 0", lambda m: changed(CLIPRecipe, "tokenizer", vocab_size=0), "tokenizer: vocab_size = 0 .*above 0"
    ),
    Bad(
        "UNet's heads", lambda m: changed(DiffusionRecipe, "model", attention_head_dim=7), "7 does not divide 320 chan"
    ),
    Bad(
        "UNet's heads, type",
        lambda m: changed(DiffusionRecipe, "model", attention_head_dim=[8, 2.0]),
        r"attention_head_dim = \(8, 2\.0\) is not supported; accepted: whole numbers or lists of whole numbers",
    ),
    Bad("no part", lambda m: changed(DiffusionRecipe, "parts", clip=None), "a.toml: parts lacks clip"),
    Bad("two UNets", lambda m: changed(DiffusionRecipe, "parts", init="a"), "either a table model, or init in parts"),
    Bad(
        "key of data",
        lambda m: changed(DiffusionRecipe, "data", pool=1),
        "data: pool = 1 is unknown; accepted: caption_dropout, pool_size, folder",
    ),
    Bad("no scenes", lambda m: changed(DiffusionRecipe, "data", pool_size=0), "data: pool_size = 0 .*above 0"),
    Bad("no pictures", lambda m: changed(DiffusionRecipe, "data", pool_size=None), "either pool_size or folder"),
    Bad("scenes and a folder", lambda m: changed(DiffusionRecipe, "data", folder="a"), "either pool_size or folder"),
    Bad(
        "dropout 2",
        lambda m: changed(DiffusionRecipe, "data", caption_dropout=2),
        "caption_dropout must be from 0 to 1",
    ),
    Bad(
        "betas",
        lambda m: changed(DiffusionRecipe, "schedule", beta_end="x"),
        "schedule: beta_end = 'x' .*finite numbers",
    ),
    Bad(
        "prediction",
        lambda m: changed(DiffusionRecipe, "schedule", prediction_type="flow"),
        "a.toml: schedule: prediction_type = 'flow' is not supported; accepted: epsilon, sample, v_prediction",
    ),
]


TABLES = {"drawing": DRAWING, "parts": PARTS_OF_MODELS, "diffusion": DIFFUSION, "data": DATA, "recipes": RECIPE_ROWS}


@pytest.mark.parametrize(
    "bad", [pytest.param(bad, id=f"{table}: {bad.what}") for table, rows in TABLES.items() for bad in rows]
)
def test_bad_values(model: StableDiffusion, bad: Bad) -> None:
    with pytest.raises(bad.error, match=bad.message) as caught:
        bad.call(model)
    assert caught.type is bad.error


# Files: each case gets a folder of its own, with a copy of the model, a file that is no model, and pictures.


@pytest.fixture
def here(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(tiny_folder, tmp_path / "model")
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "pictures").mkdir()
    Image.effect_noise((40, 30), 50).save(tmp_path / "pictures" / "cat.png")
    (tmp_path / "pictures" / "cat.txt").write_text("a cat")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SDLEARN_MODEL", raising=False)
    return tmp_path


def write(file: str, content: str | bytes | None) -> Path:
    """Put something else in a file's place, or nothing; returns the folder that a reader is given."""
    path = Path(file)
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Path(path.parts[0])


def load_with(file: str, content: str | bytes | None) -> StableDiffusion:
    return sdlearn.load(write(f"model/{file}", content))


def without(part: str) -> Path:
    shutil.rmtree(Path("model") / part)
    return Path("model")


def cut(file: str) -> bytes:
    data = Path(file).read_bytes()
    return data[: len(data) // 2]


FILES = [
    Bad(
        "nothing there",
        lambda m: sdlearn.load("./none"),
        "no model at none; accepted: a model folder",
        FileNotFoundError,
    ),
    Bad("a text", lambda m: sdlearn.load("file"), "file is another kind of file; accepted: a model folder"),
    Bad(
        "not a model",
        lambda m: sdlearn.load("pictures"),
        r"has no model_index\.json; accepted: a model folder",
        FileNotFoundError,
    ),
    Bad(
        "unknown part",
        lambda m: sdlearn.load("model", parts={"resnet": UNet}),
        f"parts resnet are unknown; accepted: {', '.join(PARTS)}",
    ),
    Bad(
        "dtype of integers", lambda m: sdlearn.load("model", dtype=torch.int8), r"torch\.int8, .* floating-point dtype"
    ),
    Bad("dtype as text", lambda m: sdlearn.load("model", dtype="half"), "dtype = 'half', .*such as torch.float32"),
    Bad("ema of a folder", lambda m: sdlearn.load("model", ema=True), "config and ema are for single files"),
    Bad(
        "without a part",
        lambda m: sdlearn.load(without("vae")),
        "model lacks vae; a model folder has tokenizer, text_encoder, vae, unet, scheduler",
        FileNotFoundError,
    ),
    Bad(
        "no config",
        lambda m: load_with("unet/config.json", None),
        r"no file model.unet.config\.json",
        FileNotFoundError,
    ),
    Bad(
        "no schedule",
        lambda m: load_with("scheduler/scheduler_config.json", None),
        r"no file model.scheduler.scheduler_config\.json",
        FileNotFoundError,
    ),
    Bad(
        "no weights",
        lambda m: load_with("text_encoder/model.safetensors", None),
        r"text_encoder holds no weights: neither model\.safetensors nor diffusion_pytorch_model\.safetensors nor",
        FileNotFoundError,
    ),
    Bad(
        "half the weights",
        lambda m: load_with(f"unet/{WEIGHTS}", cut(f"model/unet/{WEIGHTS}")),
        rf"model.unet.{WEIGHTS} is damaged or not a safetensors file",
    ),
    Bad("broken JSON", lambda m: load_with("vae/config.json", "{"), r"vae.config\.json is not a JSON file"),
    Bad("binary JSON", lambda m: load_with("unet/config.json", b"\xff"), r"config\.json is not a text in UTF-8"),
    Bad("JSON list", lambda m: load_with("model_index.json", "[]"), r"index\.json holds list, must hold an object"),
    Bad(
        "defaults 0",
        lambda m: load_with("defaults.json", '{"height": 0, "width": 64}'),
        r"defaults\.json: height = 0, must be a whole number",
    ),
    Bad(
        "defaults",
        lambda m: load_with("defaults.json", '{"hieght": 64, "height": 64, "width": 64}'),
        r"defaults\.json: hieght = 64 is unk",
    ),
    Bad(
        "no vocabulary",
        lambda m: load_with("tokenizer/vocab.json", None),
        r"tokenizer needs vocab\.json and merges\.txt, or tokenizer\.json",
        FileNotFoundError,
    ),
    Bad("broken vocabulary", lambda m: load_with("tokenizer/vocab.json", "a"), r"vocab\.json is not a JSON file"),
    Bad(
        "broken merges",
        lambda m: load_with("tokenizer/merges.txt", "a b c"),
        "'a b c' is not two tokens with a space between",
    ),
    Bad(
        "folder of no tokenizer",
        lambda m: Tokenizer.from_folder("pictures"),
        r"pictures needs vocab\.json and merges\.txt, or tokenizer\.json, and holds neither",
        FileNotFoundError,
    ),
    Bad(
        "tokenizer.json",
        lambda m: Tokenizer.from_folder(write("pictures/tokenizer.json", "{}")),
        r"tokenizer\.json lacks merges and vocab of its model",
    ),
    Bad("save below a file", lambda m: save(m, "file/model"), "'file/model/scheduler'", NotADirectoryError),
    Bad(
        "save over a file", lambda m: save(m, "file"), r"file must be a folder, or a file that ends with \.safetensors"
    ),
    Bad("save over a folder", lambda m: save(m, "folder.safetensors"), r"'folder\.safetensors'", IsADirectoryError),
    Bad("save nowhere", lambda m: save(m, "none/a.safetensors"), r"'none/a\.safetensors'", FileNotFoundError),
    Bad(
        "save a .ckpt", lambda m: save(m, "a.ckpt"), r"a\.ckpt must be a folder, or a file that ends with \.safetensors"
    ),
    Bad("save integers", lambda m: save(m, "new", torch.int16), r"torch\.int16, must be a floating-point dtype"),
    Bad("evaluation below a file", lambda m: evaluate(m, output="file/a"), "'file/a'", NotADirectoryError),
    Bad("scenes below a file", lambda m: sheet(Path("file/a.png"), 1), "File exists: 'file'", FileExistsError),
    Bad("pictures, no folder", lambda m: ImageFolder("file"), "there is no folder file", FileNotFoundError),
    Bad("no pictures", lambda m: ImageFolder("folder.safetensors"), r"holds no pictures; accepted: \.png, \.jpg"),
    Bad("pictures of 0 pixels", lambda m: ImageFolder("pictures", 0), "size=0; accepted: 1 and above"),
    Bad(
        "no caption",
        lambda m: ImageFolder(write("pictures/cat.txt", None)),
        r"1 problems in pictures: cat\.png \(no caption\)",
    ),
    Bad(
        "broken picture",
        lambda m: ImageFolder(write("pictures/cat.png", cut("pictures/cat.png"))),
        r"cat\.png \(can't be read: ",
    ),
    Bad(
        "caption's coding",
        lambda m: ImageFolder(write("pictures/cat.txt", b"B\xe4r")),
        r"cat\.txt can't be read; accepted: text in UTF-8",
    ),
    Bad(
        "captions' columns",
        lambda m: ImageFolder(write("pictures/captions.csv", "name\ncat.png")),
        r"has the columns \['name'\]; accepted: file, caption",
    ),
    Bad("no recipe", lambda m: read_recipe(Path("a.toml")), r"no recipe at a\.toml", FileNotFoundError),
    Bad("recipe of another kind", lambda m: read_recipe(write("a.toml", "{}")), r"a\.toml is not a TOML file"),
    Bad("recipe's coding", lambda m: read_recipe(write("a.toml", b"# B\xe4r")), r"a\.toml is not a TOML file"),
]


@pytest.mark.parametrize("bad", FILES, ids=[bad.what for bad in FILES])
def test_bad_files(model: StableDiffusion, here: Path, bad: Bad) -> None:
    with pytest.raises(bad.error, match=bad.message) as caught:
        bad.call(model)
    assert caught.type is bad.error
    assert (here / "file").read_text() == "old"
    assert not list(here.rglob("*.partial"))


# The command line: the arguments, the exit status, and what the one line on stderr says.

GOOD = "generate cat --model model --steps 1"
COMMANDS: list[tuple[str, int, str]] = [
    ("", 2, "Missing command"),
    ("paint cat", 2, "No such command 'paint'"),
    ("generate --colour red", 2, "No such option.*--colour"),
    ("generate", 1, 'say what to draw, as in: sdlearn generate "a red apple", or name a picture with --like'),
    (
        f"{GOOD} --sampler eular",
        1,
        "'eular' is unknown; accepted: ddpm, ddim, plms, euler, euler_ancestral, heun, dpmpp_2m",
    ),
    (f"{GOOD} --steps 0", 2, "Invalid value for '--steps': .*1"),
    (f"{GOOD} --steps 1001", 1, "steps = 1001, must be a whole number from 1 to 1000"),
    (f"{GOOD} --steps few", 2, "Invalid value for '--steps': .*valid int"),
    (f"{GOOD} --seed -1", 2, "Invalid value for '--seed': .*0"),
    (f"{GOOD} --seed {2**63}", 1, rf"seed = {2**63}, must be a whole number from 0 to 2\^63 - 1"),
    (f"{GOOD} --guidance-scale inf", 1, "guidance_scale = inf, must be finite"),
    (f"{GOOD} --guidance-scale nan", 1, "guidance_scale = nan, must be finite"),
    (f"{GOOD} --count 0", 2, "Invalid value for '--count': .*1"),
    (f"{GOOD} --negative-prompt \udcff", 1, "surrogates not allowed"),
    (f"{GOOD} --output a.jpg", 1, r"the output must be a \.png file, not a\.jpg"),
    (f"{GOOD} --output folder.png", 1, r"can't write folder\.png"),
    (f"{GOOD} --output file/a.png", 1, "(File exists|Not a directory): file"),
    ("generate cat --model none", 1, "no model at none; accepted: a model folder"),
    ("generate cat --model file", 1, "file is another kind of file; accepted: a model folder"),
    (
        "generate cat --model broken",
        1,
        "broken lacks unet; a model folder has tokenizer, text_encoder, vae, unet, scheduler",
    ),
    ("generate --like none.png", 1, r"No such file or directory: none\.png"),
    ("generate --like folder.png", 1, r"Is a directory: folder\.png"),
    ("generate --like cut.png", 1, "truncated"),
    ("generate --like pictures/cat.png", 1, r"cat\.png holds no settings: `sdlearn generate` didn't make it"),
    ("demo --model none", 1, "no model at none; accepted: a model folder"),
    ("demo --output a.gif", 1, r"the output must be a \.png file, not a\.gif"),
    ("info --model none", 1, "no model at none; accepted: a model folder"),
    (
        "train painter --recipe a.toml --output run",
        2,
        "'painter' is not one of 'clip', 'autoencoder', 'diffusion'",
    ),
    ("train clip --output run", 2, "Missing option '--recipe'"),
    ("train clip --recipe none.toml --output run", 1, r"no recipe at none\.toml"),
    ("train clip --recipe file --output run", 1, "file is not a TOML file"),
    ("train clip --recipe a.toml --output run", 1, r"a\.toml lacks tokenizer"),
    ("train diffusion --recipe a.toml --output run", 1, r"a\.toml lacks parts, schedule, data"),
    ("train autoencoder --recipe a.toml --output file", 1, "File exists: file"),
    (
        "train autoencoder --recipe key.toml --output run",
        1,
        r"key\.toml: training: epochs = 1 is unknown; accepted: steps",
    ),
    (
        "train autoencoder --recipe type.toml --output run",
        1,
        r"type\.toml: training: seed = '1' .*accepted: whole numbers",
    ),
    (
        "train autoencoder --recipe loss.toml --output run",
        1,
        r"loss\.toml: loss: kl_weight = 'x' .*accepted: finite numbers",
    ),
    (
        "train autoencoder --recipe model.toml --output run",
        1,
        r"model: latent_chanels = 4 is unknown; accepted: in_chan",
    ),
    ("assemble none --output new", 1, r"none.clip.model.tokenizer needs vocab\.json and merges\.txt"),
    ("assemble none --output new --steps 0", 2, "Invalid value for '--steps': .*1"),
    ("evaluate --images 1", 2, "Invalid value for '--images': .*2"),
    ("evaluate --model none", 1, "no model at none; accepted: a model folder"),
    ("evaluate --model model --steps 1001", 1, "steps = 1001, must be a whole number from 1 to 1000"),
    ("evaluate --model model --output file/a", 1, "Not a directory: file/a"),
    ("evaluate --model model --card none", 1, "no folder of runs at none"),
]
RECIPE = """
[loss]
kl_weight = 1e-3
[model]
block_out_channels = [8, 8]
norm_num_groups = 4
{model}
[training]
steps = 2
batch_size = 2
learning_rate = 1e-3
"""


@pytest.mark.parametrize(("line", "status", "message"), COMMANDS, ids=[repr(line)[1:-1] for line, *_ in COMMANDS])
def test_bad_command_lines(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    status: int,
    message: str,
) -> None:
    write("a.toml", RECIPE.format(model=""))
    write("key.toml", RECIPE.format(model="") + "epochs = 1\n")
    write("type.toml", RECIPE.format(model="") + "seed = '1'\n")
    write("loss.toml", RECIPE.format(model="").replace("1e-3", "'x'", 1))
    write("model.toml", RECIPE.format(model="latent_chanels = 4"))
    write("cut.png", cut("pictures/cat.png"))
    Path("folder.png").mkdir()
    shutil.copytree("model", "broken")
    shutil.rmtree("broken/unet")
    monkeypatch.setattr(sys, "argv", ["sdlearn", *line.split()])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert re.search(message, error)
    assert stop.value.code == status


# A full disk: no file may grow beyond a number of bytes, so a write fails in the midst. In a process of its own.

FULL_DISK = """
import resource
import sdlearn
from sdlearn.cli import main

hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
model = sdlearn.load("model")
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
for destination in ("new", "a.safetensors"):
    try:
        sdlearn.save(model, destination)
    except OSError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
main()
"""


def test_a_full_disk(here: Path) -> None:
    """A model folder, a single file and a picture: what was there stays, and the error names the file."""
    old = [Path("new/text_encoder/model.safetensors"), Path("a.safetensors"), Path("a.png")]
    old[0].parent.mkdir(parents=True)
    for file in old:
        file.write_text("old")
    command = [sys.executable, "-c", FULL_DISK, *GOOD.split(), "--output", "a.png"]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}  # else it might leave half a .pyc
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"[Errno 27] File too large: '{file}'" for file in old[:2]], done.stderr
    assert done.stderr.splitlines()[-1] == "error: File too large: a.png"
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert [file.read_text() for file in old] == ["old"] * 3
    assert not Path("new/model_index.json").exists()  # so the folder doesn't count as a model
    assert not list(here.rglob("*.partial"))


# What is accepted, works: laws for all prompts, grids and sizes.


def test_a_warning_shows_what_is_cut(model: StableDiffusion) -> None:
    words = "apple " * 75
    with pytest.warns(UserWarning, match=r"more than 75 tokens; this part at its end is cut off: 'on a cat'"):
        model.sample(f"{words} on a cat", steps=1)
    with pytest.warns(UserWarning, match=r"more than 75 tokens; this part at its end is cut off: 'owl'"):
        model.sample(PROMPT, negative_prompt=f"{words} owl", steps=1)


def test_one_text_is_not_taken_for_a_list_of_letters(model: StableDiffusion) -> None:
    assert torch.equal(model.encode_prompt(PROMPT), model.encode_prompt([PROMPT]))


LONG = st.lists(st.sampled_from([*PROMPT.split(), "苹果", "e\u0301", "<|endoftext|>", "🦉", "\x00"]), min_size=70)


@settings(max_examples=15, deadline=None)
@given(st.one_of(st.text(), st.text(min_size=40), LONG.map(" ".join)))
@example("")
@example("\x00\n\u202e\ufeff\U0010ffff")
def test_any_prompt_makes_a_picture(model: StableDiffusion, prompt: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (picture,) = model(prompt, steps=2, height=16, width=16, progress=False)
    assert (picture.size, picture.mode) == ((16, 16), "RGB")
    cut = model.tokenizer.truncated(prompt)
    expected = f"a prompt has more than 75 tokens; this part at its end is cut off: {cut!r}"
    assert [str(one.message) for one in caught] == ([expected] if cut else [])


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(SAMPLERS)),
    spacing=st.sampled_from([None, *SPACINGS]),
    steps=st.one_of(st.integers(1, 60), st.integers(1, 1000)),
    prediction_type=st.sampled_from(["epsilon", "v_prediction", "sample"]),
    zero_snr=st.booleans(),
    data=st.data(),
)
def test_any_grid_is_finite_and_ends_without_noise(
    name: str, spacing: str | None, steps: int, prediction_type: str, zero_snr: bool, data: st.DataObject
) -> None:
    sampler = SAMPLERS[name]
    schedule = Schedule(ScheduleConfig(prediction_type=prediction_type, rescale_betas_zero_snr=zero_snr))
    grid = sampler.make_grid(schedule, steps, spacing)
    k = data.draw(st.integers(1, steps))
    tail = grid.tail(k)
    assert tail.steps == k and k <= len(tail) <= len(grid)
    assert tail.timesteps.isfinite().all() and tail.sigmas.isfinite().all()
    assert tail.sigmas[-1] == 0 and (tail.sigmas[:-1] > 0).all() and (tail.sigmas.diff() <= 0).all()

    x0, noise = torch.randn(2, 1, 3, generator=torch.Generator().manual_seed(steps))
    x = sampler.add_noise(x0, noise, schedule, tail, 0)
    results = list(sampler.loop(lambda x, t: 0.3 * x, x, tail, schedule, generator=torch.Generator().manual_seed(k)))
    assert len(results) == len(tail)
    assert all(step.x.isfinite().all() and step.x0.isfinite().all() for step in results)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8))
def test_any_size_that_is_allowed_works(model: StableDiffusion, rows: int, columns: int) -> None:
    (picture,) = model(PROMPT, steps=1, height=16 * rows, width=16 * columns, progress=False)
    assert picture.size == (16 * columns, 16 * rows)


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(["height", "width"]),
    st.one_of(st.integers(max_value=0), st.integers().filter(lambda n: n % 16), st.floats(), st.booleans()),
)
def test_any_other_size_is_refused(model: StableDiffusion, name: str, size: float) -> None:
    with pytest.raises(ValueError, match=rf"{name} = .*, must be a multiple of 16 pixels"):
        model.sample(PROMPT, **{name: size})
