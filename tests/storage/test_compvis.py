"""The CompVis layout: its names, single files read and written, and Diffusers reading what we write."""

import pickle
import subprocess
import sys
import types
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.loaders import single_file_utils as reference
from diffusers.utils import logging as diffusers_logging
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from sdlearn.config import Config
from sdlearn.diffusion.samplers import last
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.lessons.check import assert_parity, randomize_
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig
from sdlearn.models.text import TextConfig, TextEncoder
from sdlearn.models.unet import UNet, UNetConfig
from sdlearn.pipeline import StableDiffusion
from sdlearn.storage.compvis import EMA, OPEN_CLIP, UNET, VERSIONS, CompVis, identify
from sdlearn.storage.folder import NETWORKS
from sdlearn.storage.hub import find_model
from sdlearn.storage.load import load
from sdlearn.storage.save import save
from sdlearn.storage.single_file import predicts_noise, stored_prediction_type
from sdlearn.tokenizer import Tokenizer, train_bpe

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*lacks OpenCLIP's last layer:UserWarning"),
]

PROMPT = "a small red apple"
UPSCALER = UNetConfig(
    in_channels=7,
    block_out_channels=(256, 512, 512, 1024),
    down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 3,
    up_block_types=("CrossAttnUpBlock2D",) * 3 + ("UpBlock2D",),
    cross_attention_dim=1024,
    use_linear_projection=True,
    only_cross_attention=(True, True, True, False),
    num_class_embeds=1000,
)


def make_model(version: int, in_channels: int = 4, seed: int = 0, **wider: Any) -> StableDiffusion:
    """Stable Diffusion 1 or 2 with all its levels and layers, but narrow, and with random weights."""
    tokenizer = train_bpe(["a small red apple on a blue background"], 540)
    first = version == 1
    text = TextConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=len(tokenizer),
        hidden_act="quick_gelu" if first else "gelu",
    )
    unet = UNetConfig(
        sample_size=8,
        in_channels=in_channels,
        block_out_channels=(16, 32, 32, 32),
        cross_attention_dim=32,
        attention_head_dim=4 if first else (1, 2, 4, 4),
        norm_num_groups=8,
        use_linear_projection=not first,
    )
    autoencoder = AutoencoderConfig(block_out_channels=(8, 16, 16, 16), norm_num_groups=4, sample_size=64)
    return StableDiffusion(
        tokenizer,
        randomize_(TextEncoder(replace(text, **wider)), seed + 1),
        randomize_(Autoencoder(autoencoder), seed + 2),
        randomize_(UNet(unet), seed + 3),
        Schedule(ScheduleConfig(prediction_type="epsilon" if first else "v_prediction")),
    )


def draw(model: StableDiffusion) -> Tensor:
    return model.decode(last(model.sample(PROMPT, steps=3, guidance_scale=3.0, sampler="ddim", seed=1)))


def assert_same_weights(ours: StableDiffusion, expected: StableDiffusion) -> None:
    for mine, other in zip(ours.networks, expected.networks, strict=True):
        state = mine.state_dict()
        assert state.keys() == other.state_dict().keys()
        assert all(torch.equal(state[name], value) for name, value in other.state_dict().items())


@pytest.fixture(scope="module", params=[1, 2])
def version(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="module")
def model(version: int) -> StableDiffusion:
    return make_model(version)


@pytest.fixture(scope="module")
def folder(model: StableDiffusion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diffusers") / "model"
    save(model, folder, torch.float32)
    return folder


@pytest.fixture(scope="module")
def file(model: StableDiffusion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single file. Read only."""
    file = tmp_path_factory.mktemp("compvis") / "model.safetensors"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(model, file, torch.float32)
    return file


# Names


def stored_shapes(layout: CompVis) -> dict[str, dict[str, tuple[str, tuple[int, ...]]]]:
    """For each network, without allocating it: our name -> name and shape in the file."""
    with torch.device("meta"):
        states = {name: NETWORKS[name][0](getattr(layout, name)).state_dict() for name in NETWORKS}
    return {
        network: {
            name: (place.key, place.shape)
            for name, value in state.items()
            for place in [layout.place(f"{network}.{name}", tuple(value.shape), {})]
        }
        for network, state in states.items()
    }


def meta_file(layout: CompVis) -> dict[str, Tensor]:
    return {
        key: torch.empty(shape, device="meta")
        for places in stored_shapes(layout).values()
        for key, shape in places.values()
    }


def full_size(width: int, **changes: Any) -> CompVis:
    configs = VERSIONS[width]
    return CompVis(**(configs | {"unet": replace(configs["unet"], **changes)}), open_clip=width == 1024)


@pytest.mark.parametrize(
    "layout",
    [
        full_size(768),
        full_size(1024),
        full_size(768, in_channels=9),
        full_size(1024, in_channels=5),
        replace(full_size(1024), unet=UPSCALER),
    ],
    ids=["SD 1", "SD 2", "SD 1 inpainting", "SD 2 depth", "upscaler"],
)
def test_names_at_full_size_are_those_that_diffusers_reads(layout: CompVis) -> None:
    """Diffusers' own conversion turns each of our names in the file back into ours, with the same shape."""
    places, stored = stored_shapes(layout), meta_file(layout)
    unet = reference.convert_ldm_unet_checkpoint(dict(stored), layout.unet.to_dict())
    assert {name: stored[key] for name, (key, _) in places["unet"].items()}.items() == unet.items()
    vae = reference.convert_ldm_vae_checkpoint(dict(stored), layout.vae.to_dict())
    with torch.device("meta"):
        networks = {name: NETWORKS[name][0](getattr(layout, name)).state_dict() for name in NETWORKS}
    assert {name: value.shape for name, value in vae.items()} == {k: v.shape for k, v in networks["vae"].items()}
    if layout.open_clip:
        config = types.SimpleNamespace(config=types.SimpleNamespace(hidden_size=1024))
        text = reference.convert_open_clip_checkpoint(config, dict(stored))
    else:
        text = reference.convert_ldm_clip_checkpoint(dict(stored))
    assert {k: v.shape for k, v in text.items()} == {k: v.shape for k, v in networks["text_encoder"].items()}


def test_names_of_the_averages() -> None:
    layout = full_size(768)
    plain, averages = stored_shapes(layout)["unet"], stored_shapes(replace(layout, ema=True))["unet"]
    stored = {key: torch.empty(shape, device="meta") for key, shape in [*plain.values(), *averages.values()]}
    assert len(stored) == 2 * 686
    unet = reference.convert_ldm_unet_checkpoint(dict(stored), layout.unet.to_dict(), extract_ema=True)
    assert {name: stored[key] for name, (key, _) in averages.items()}.items() == unet.items()


@pytest.mark.parametrize(("width", "count"), [(768, 686 + 248 + 196), (1024, 686 + 248 + 280)])
@pytest.mark.parametrize("in_channels", [4, 5, 9])
def test_kinds_are_told_by_names_and_shapes(width: int, count: int, in_channels: int) -> None:
    layout = full_size(width, in_channels=in_channels)
    stored = {key: tuple(value.shape) for key, value in meta_file(layout).items()}
    assert len(stored) == count  # as many as Stable Diffusion 1.5's file has without its position_ids
    configs = identify(stored, Path("a.safetensors"))
    assert configs == {"text_encoder": layout.text_encoder, "vae": layout.vae, "unet": layout.unet}
    marks = reference.CHECKPOINT_KEY_NAMES
    needed = [marks["v1"], marks["v2"], marks["inpainting"], marks["clip" if width == 768 else "open_clip"]]
    assert not set(needed) - set(stored)
    assert stored[marks["v2"]][-1] == width and stored[marks["inpainting"]][1] == in_channels


def test_other_widths_and_channels_are_refused() -> None:
    stored = {key: tuple(value.shape) for key, value in meta_file(full_size(768, in_channels=8)).items()}
    with pytest.raises(ValueError, match=r"a\.ckpt has a UNet with 8 channels and a text 768 wide; known are 4 .text"):
        identify(stored, Path("a.ckpt"))


XL = "conditioner.embedders.{}.model.transformer.resblocks.{}.mlp.c_proj.bias"


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale", "Flux"),
        ("double_blocks.0.img_attn.norm.key_norm.scale", "Flux"),
        ("model.diffusion_model.joint_blocks.0.context_block.adaLN_modulation.1.bias", "Stable Diffusion 3"),
        (XL.format(1, 9), "Stable Diffusion XL"),
        (XL.format(0, 31), r"Stable Diffusion XL \(its refiner\)"),
        ("control_model.time_embed.0.weight", "a ControlNet"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "a LoRA"),
    ],
)
@pytest.mark.parametrize("config", [False, True])
def test_other_files_are_refused_by_name(key: str, kind: str, config: bool, folder: Path, tmp_path: Path) -> None:
    save_file({key: torch.zeros(1), f"{UNET}input_blocks.0.0.weight": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=rf"x\.safetensors holds {kind}, which is not supported; accepted: Stable"):
        load(tmp_path / "x.safetensors", config=folder if config else None)


# Round trips


def test_ours_to_the_single_file_and_back(model: StableDiffusion, folder: Path, file: Path) -> None:
    again = load(file, config=folder)
    assert (again.name, again.card, again.defaults) == ("model", None, model.defaults)
    assert_same_weights(again, model)
    assert_parity("picture", draw(again), draw(model))


@pytest.fixture
def quiet_diffusers() -> None:
    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()


def their_picture(pipeline: Any) -> Tensor:
    """What `draw` draws, by Diffusers."""
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    settings = {"num_inference_steps": 3, "guidance_scale": 3.0, "latents": noise, "output_type": "pt"}
    return pipeline(PROMPT, **settings).images * 2 - 1


@pytest.mark.usefixtures("quiet_diffusers")
def test_diffusers_draws_the_same_from_the_single_file(
    model: StableDiffusion, version: int, folder: Path, file: Path
) -> None:
    theirs = diffusers.StableDiffusionPipeline.from_single_file(
        str(file), config=str(folder), local_files_only=True, torch_dtype=torch.float32
    )
    name = f"single file of SD {version}, reduced, picture"
    assert_parity(name, draw(model), their_picture(theirs), 1e-4, against="StableDiffusionPipeline")


@pytest.mark.usefixtures("quiet_diffusers")
def test_ours_to_diffusers_and_back(model: StableDiffusion, version: int, folder: Path, tmp_path: Path) -> None:
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    name = f"folder of SD {version}, reduced, picture"
    assert_parity(name, draw(model), their_picture(theirs), 1e-4, against="StableDiffusionPipeline")
    theirs.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert_same_weights(again, model)
    assert_parity("picture", draw(again), draw(model))


@pytest.mark.parametrize(("in_channels", "kind"), [(9, "Inpaint"), (5, "Depth2Img")])
def test_models_that_read_pictures(in_channels: int, kind: str, tmp_path: Path) -> None:
    model = make_model(2, in_channels)
    for destination in (tmp_path / "model", tmp_path / "model.safetensors"):
        save(model, destination, torch.float32)
    for again in (load(tmp_path / "model"), load(tmp_path / "model.safetensors", config=tmp_path / "model")):
        assert_same_weights(again, model)
        assert again.kind == f"StableDiffusion{kind}Pipeline"
        with pytest.raises(ValueError, match="it can't draw from text alone"):
            again.sample(PROMPT)
    with pytest.raises(ValueError, match=r"in_channels is 8; with an autoencoder of 4 latent_channels it must be 4 "):
        make_model(1, 8)


def test_half_precision_and_where_files_may_go(model: StableDiffusion, folder: Path, tmp_path: Path) -> None:
    save(model, tmp_path / "half.safetensors")
    stored = load_file(tmp_path / "half.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    again = load(tmp_path / "half.safetensors", config=folder, dtype=torch.bfloat16)
    assert {value.dtype for network in again.networks for value in network.parameters()} == {torch.bfloat16}
    with pytest.raises(ValueError, match=r"x\.ckpt must be a folder, or a file that ends with \.safetensors"):
        save(model, tmp_path / "x.ckpt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half.safetensors"]


def test_a_loaded_file_can_be_overwritten(folder: Path, file: Path, tmp_path: Path) -> None:
    """Weights stay mapped from the file that they came from. Writing makes a new one."""
    copy = tmp_path / "model.safetensors"
    copy.write_bytes(file.read_bytes())
    loaded = load(copy, config=folder)
    before = draw(loaded)
    save(make_model(1, seed=9), copy)
    assert torch.equal(draw(loaded), before)  # the same weights, in the same memory
    save(loaded, copy, torch.float32)
    assert_parity("picture", draw(load(copy, config=folder)), before)


# What real files hold besides


def dress(state: dict[str, Tensor], version: int) -> dict[str, Tensor]:
    """The tensors that the files of the original programs hold besides the networks."""
    extra = {
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.num_updates": torch.tensor(1),
        "first_stage_model.loss.logvar": torch.zeros(()),
    }
    buffers = """betas alphas_cumprod alphas_cumprod_prev sqrt_alphas_cumprod sqrt_one_minus_alphas_cumprod
        log_one_minus_alphas_cumprod sqrt_recip_alphas_cumprod sqrt_recipm1_alphas_cumprod posterior_variance
        posterior_log_variance_clipped posterior_mean_coef1 posterior_mean_coef2 lvlb_weights logvar"""
    extra |= {name: torch.zeros(1000) for name in buffers.split()}
    if version == 1:
        extra["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
        extra["cond_stage_model.logit_scale"] = torch.zeros(())
    else:
        extra[f"{OPEN_CLIP}logit_scale"] = torch.zeros(())
        extra[f"{OPEN_CLIP}text_projection"] = torch.zeros(32, 32)
        last = f"{OPEN_CLIP}transformer.resblocks.1."
        extra |= {k.replace("resblocks.1.", "resblocks.2."): v + 1 for k, v in state.items() if k.startswith(last)}
    averages = {
        EMA + key.removeprefix("model.").replace(".", ""): value + 1
        for key, value in state.items()
        if key.startswith(UNET)
    }
    return state | averages | extra


def save_as_the_originals(state: dict[str, Tensor], file: Path) -> None:
    """A .ckpt with the object that watched over their training, as a class and as an object of it."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")

    class ModelCheckpoint:
        def __init__(self) -> None:
            self.monitor, self.best_model_score = "val/loss_simple_ema", torch.tensor(0.1)

    ModelCheckpoint.__module__, ModelCheckpoint.__qualname__ = module.__name__, "ModelCheckpoint"
    module.ModelCheckpoint = ModelCheckpoint
    parents = {name: types.ModuleType(name) for name in ("pytorch_lightning", "pytorch_lightning.callbacks")}
    callbacks = {ModelCheckpoint: {"best_model_path": "x"}, "watcher": ModelCheckpoint()}
    content = {"epoch": 1, "global_step": 470000, "callbacks": callbacks, "state_dict": state}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (parents | {module.__name__: module}).items():
            patch.setitem(sys.modules, name, value)
        torch.save(content, file)


@pytest.mark.parametrize("ema", [False, True])
def test_files_of_the_original_programs(
    model: StableDiffusion, version: int, folder: Path, file: Path, tmp_path: Path, ema: bool
) -> None:
    save_as_the_originals(dress(load_file(file), version), tmp_path / "original.ckpt")
    assert b"pytorch_lightning.callbacks.model_checkpoint" in (tmp_path / "original.ckpt").read_bytes()
    with pytest.raises(pickle.UnpicklingError, match="ModelCheckpoint"):
        torch.load(tmp_path / "original.ckpt", weights_only=True)  # so it does hold what PyTorch refuses
    before = set(torch.serialization.get_safe_globals())  # PyTorch keeps a set, and lists it in any order
    loaded = load(tmp_path / "original.ckpt", config=folder, ema=ema)
    for mine, other in zip(loaded.networks, model.networks, strict=True):
        added = 1 if ema and mine is loaded.unet else 0
        state = mine.state_dict()
        assert all(torch.equal(state[name], value + added) for name, value in other.state_dict().items())
    assert "pytorch_lightning" not in sys.modules
    assert set(torch.serialization.get_safe_globals()) == before


def test_averages_are_asked_for_where_there_are_none(folder: Path, file: Path) -> None:
    count = len(load(folder).unet.state_dict())
    with pytest.raises(
        ValueError, match=rf"{count} missing, 0 extra, 0 misshapen; the first: missing model_ema\.diffusion"
    ):
        load(file, config=folder, ema=True)
    with pytest.raises(ValueError, match="is a folder; config and ema are for single files"):
        load(folder, ema=True)
    with pytest.raises(ValueError, match="is a folder; config and ema are for single files"):
        load(folder, config=folder)


def test_variants_of_names_and_shapes(tmp_path: Path) -> None:
    """Some programs drop `text_model.`, some store the autoencoder's attention as linear layers."""
    model = make_model(1)
    save(model, tmp_path / "folder", torch.float32)
    save(model, tmp_path / "a.safetensors", torch.float32)
    state = load_file(tmp_path / "a.safetensors")
    attention = [key for key, value in state.items() if ".mid.attn_1." in key and value.ndim == 4]
    assert len(attention) == 8
    state |= {key: state[key][:, :, 0, 0].contiguous() for key in attention}
    save_file({key.replace("text_model.", ""): value for key, value in state.items()}, tmp_path / "a.safetensors")
    assert_same_weights(load(tmp_path / "a.safetensors", config=tmp_path / "folder"), model)


def test_the_last_layer_of_open_clip_cannot_be_written(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="lacks OpenCLIP's last layer, which no Diffusers folder holds"):
        save(make_model(2), tmp_path / "a.safetensors")


# Files in the wild


def test_what_other_programs_store_beside_the_networks(folder: Path, file: Path, tmp_path: Path) -> None:
    """It is ignored with one line; Diffusers reads such files, too."""
    beside = [
        "global_step",
        "callbacks.a",
        "denoiser.sigmas",
        "scale_factor",
        "embedding_manager.x",
        "safety_checker.y",
    ]
    silent = ["model_ema.decay", "first_stage_model.model_ema.x", "first_stage_model.loss.z", "betas"]
    state = load_file(file) | {key: torch.zeros(1) for key in beside + silent}
    save_file(state, tmp_path / "a.safetensors")
    with pytest.warns(
        UserWarning, match="a.safetensors also holds callbacks, denoiser, .*doesn't need: ignored"
    ) as said:
        loaded = load(tmp_path / "a.safetensors", config=folder)
    assert len(said) == 1
    assert_same_weights(loaded, load(file, config=folder))


def test_many_strange_names_are_one_short_line(folder: Path, file: Path, tmp_path: Path) -> None:
    strange = {f"strange{i}\n\x1b[2J{'x' * 1000}": torch.zeros(1) for i in range(1000)}
    save_file(load_file(file) | strange, tmp_path / "a.safetensors")
    with pytest.warns(UserWarning, match="and 990 more, which drawing doesn't need: ignored") as said:
        load(tmp_path / "a.safetensors", config=folder)
    assert str(said[0].message).isprintable() and len(str(said[0].message)) < 1500


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64])
def test_weights_that_are_no_floats(dtype: torch.dtype, folder: Path, file: Path, tmp_path: Path) -> None:
    state = load_file(file)
    state[f"{UNET}out.2.bias"] = state[f"{UNET}out.2.bias"].to(dtype)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(
        ValueError, match=rf"a\.safetensors: {UNET}out\.2\.bias holds {str(dtype)[6:]}, must hold floats"
    ):
        load(tmp_path / "a.safetensors", config=folder)


@pytest.mark.parametrize("name", ["a.pt", "a.CKPT", "a.SafeTensors", "a.ckpt"])
def test_names_of_files(name: str, folder: Path, file: Path, tmp_path: Path) -> None:
    """The endings in use, in any case; a safetensors file may have that of a pickle."""
    if name == "a.pt":
        torch.save({"state_dict": load_file(file)}, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(file.read_bytes())
    assert_same_weights(load(tmp_path / name, config=folder), load(file, config=folder))


@pytest.mark.parametrize("lacking", ["first_stage_model.", "cond_stage_model."])
def test_incomplete_files(lacking: str, folder: Path, file: Path, tmp_path: Path) -> None:
    save_file({key: one for key, one in load_file(file).items() if not key.startswith(lacking)}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"a\.ckpt is incomplete: it has no (autoencoder|text encoder), "):
        load(tmp_path / "a.ckpt", config=folder)


@pytest.mark.parametrize("said", ["v_prediction", "v", "vpred", "V", " V_Prediction "])
def test_spellings_of_the_prediction_type(said: str, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors", {"modelspec.prediction_type": said})
    assert stored_prediction_type(tmp_path / "a.safetensors") == "v_prediction"
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors", {"modelspec.prediction_type": "x0-ish"})
    with pytest.warns(UserWarning, match="a.safetensors says prediction_type 'x0-ish', which is unknown"):
        assert stored_prediction_type(tmp_path / "a.safetensors") is None


def test_an_exclamation_mark_stays_a_word() -> None:
    """open_clip's ids; in Diffusers' folders of SD 2, Transformers takes it for padding."""
    assert Tokenizer.clip("!")("cats!")[0, :5].tolist() == [49406, 3989, 256, 49407, 0]


# Refusals


def test_wrong_names_and_shapes_are_counted(version: int, folder: Path, file: Path, tmp_path: Path) -> None:
    state = load_file(file)
    del state["first_stage_model.quant_conv.bias"], state[f"{UNET}out.2.bias"]
    state |= {f"{UNET}more.{i}": torch.zeros(1) for i in range(3)}
    state[f"{UNET}time_embed.0.bias"] = torch.zeros(3)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a\.safetensors does not fit .*: 2 missing, 3 extra, 1 misshapen") as error:
        load(tmp_path / "a.safetensors", config=folder)
    first = (
        "missing first_stage_model.quant_conv.bias",
        f"missing {UNET}out.2.bias",
        f"extra {UNET}more.0",
        f"extra {UNET}more.2",
    )
    assert all(name in str(error.value) for name in first) and "time_embed" not in str(error.value)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_damaged_files(folder: Path, file: Path, tmp_path: Path, suffix: str) -> None:
    damaged = tmp_path / f"a{suffix}"
    if suffix == ".ckpt":
        torch.save(load_file(file), damaged)
    else:
        damaged.write_bytes(file.read_bytes())
    whole = damaged.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-50], whole[:7], b"", b"no tensors here, just text"):
        damaged.write_bytes(content)
        for config in (folder, None):
            with pytest.raises(ValueError, match=rf"a\{suffix} is damaged"):
                load(damaged, config=config)


class Bomb:
    """Creates a file when it is unpickled by an unsafe reader."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_a_pickle_that_would_run_code(folder: Path, tmp_path: Path) -> None:
    target, file = tmp_path / "boom", tmp_path / "a.ckpt"
    torch.save({"state_dict": {"x": torch.zeros(1)}, "watcher": Bomb(target)}, file)
    torch.load(file, weights_only=False)
    assert target.exists()  # so the bomb works
    target.unlink()
    with pytest.raises(ValueError, match=r"a\.ckpt needs \S+, which is not on the list .*; refused, nothing was run"):
        load(file, config=folder)
    file.write_bytes(pickle.dumps(Bomb(target)))
    with pytest.raises(ValueError, match=r"a\.ckpt (is damaged|needs \S+, which)"):
        load(file)
    assert not target.exists()


def test_files_without_a_model(folder: Path, tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"a\.ckpt holds list, must hold a dictionary of tensors"):
        load(tmp_path / "a.ckpt")
    torch.save({"x": torch.zeros(1)}, tmp_path / "a.ckpt")
    for config in (folder, None):
        with pytest.raises(ValueError, match=r"a\.ckpt holds no Stable Diffusion in the CompVis layout: it has no"):
            load(tmp_path / "a.ckpt", config=config)
    for name in ("a.gguf", "a.safetensors.txt"):
        (tmp_path / name).touch()
        with pytest.raises(ValueError, match="is another kind of file; accepted:"):
            load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"no model at .*b\.ckpt; accepted:"):
        load(tmp_path / "b.ckpt")
    with pytest.raises(FileNotFoundError, match=r"no model at models/b\.safetensors; accepted:"):
        find_model("models/b.safetensors")


# Epsilon or v


class Predictor(nn.Module):
    """A UNet that knows the picture: all are `x0`. It predicts epsilon or v without error."""

    def __init__(self, prediction_type: str) -> None:
        super().__init__()
        self.config = UNetConfig()
        self.schedule = Schedule(ScheduleConfig(prediction_type=prediction_type))
        self.x0 = nn.Parameter(torch.randn((4, 16, 16), generator=torch.Generator().manual_seed(7)))

    def forward(self, x: Tensor, t: int, context: Tensor) -> Tensor:
        signal_rate, noise_rate = self.schedule.rates(t, x)
        epsilon = (x - signal_rate * self.x0) / noise_rate
        return self.schedule.target(self.x0.expand_as(x), epsilon, t)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_network_is_asked_what_it_predicts(prediction_type: str) -> None:
    model = make_model(1)
    asked = predicts_noise(model.tokenizer, model.text_encoder, Predictor(prediction_type))
    assert asked == (prediction_type == "epsilon")


def test_the_bundled_model_says_that_it_predicts_v() -> None:
    bundled = load()
    assert bundled.schedule.config.prediction_type == "v_prediction"
    assert not predicts_noise(bundled.tokenizer, bundled.text_encoder, bundled.unet)


def test_prediction_type_is_the_callers_then_the_configs(version: int, folder: Path, file: Path) -> None:
    stored = "epsilon" if version == 1 else "v_prediction"
    assert load(file, config=folder).schedule.config.prediction_type == stored
    for source, config in ((file, folder), (folder, None)):
        loaded = load(source, config=config, prediction_type="sample")
        assert loaded.schedule.config.prediction_type == "sample"
    with pytest.raises(
        ValueError, match="prediction_type = 'flow' is not supported; accepted: epsilon, sample, v_pred"
    ):
        load(file, config=folder, prediction_type="flow")
    with safe_open(file, framework="pt") as weights:
        assert weights.metadata()["modelspec.prediction_type"] == stored[0] if version == 2 else stored


@pytest.fixture(scope="module")
def version_2_alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Config], Path]:
    """Configurations with the true widths and vocabulary of the text, all else small, and a file with metadata."""
    configs = {
        "text_encoder": replace(VERSIONS[1024]["text_encoder"], intermediate_size=32, num_hidden_layers=1),
        "vae": AutoencoderConfig(block_out_channels=(8, 16, 16, 16), norm_num_groups=4),
        "unet": replace(VERSIONS[1024]["unet"], block_out_channels=(20, 20, 20, 20), norm_num_groups=4),
    }
    networks = [NETWORKS[name][0](config) for name, config in configs.items()]
    file = tmp_path_factory.mktemp("alone") / "a.safetensors"
    schedule = Schedule(ScheduleConfig(prediction_type="v_prediction"))
    save(StableDiffusion(train_bpe([], 514), *networks, schedule), file, torch.float32)
    return configs, file


@pytest.mark.parametrize("said", ["metadata", "caller", "network", "nothing"])
def test_a_file_alone_is_a_whole_model(
    version_2_alone: tuple[dict[str, Config], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    """Without config: CLIP's own vocabulary, the usual schedule, and what the UNet predicts."""
    configs, file = version_2_alone
    monkeypatch.setitem(VERSIONS, 1024, configs)
    if said != "metadata":
        save_file(load_file(file), tmp_path / file.name)
        file = tmp_path / file.name
    asked: list[nn.Module] = []
    answer = said == "nothing"
    monkeypatch.setattr("sdlearn.storage.single_file.predicts_noise", lambda *parts: asked.append(parts[-1]) or answer)
    loaded = load(file, prediction_type="v_prediction" if said == "caller" else None)
    assert asked == ([loaded.unet] if said in ("network", "nothing") else [])
    assert loaded.schedule.config == ScheduleConfig(prediction_type="epsilon" if answer else "v_prediction")
    assert loaded.unet.config.sample_size * 8 == loaded.defaults.height == (512 if answer else 768)
    assert (len(loaded.tokenizer), loaded.tokenizer.pad_token, loaded.name) == (49408, "!", "a")
    context = loaded.encode_prompt(["a photo of a cat"])
    assert context.shape == (1, 77, 1024) and torch.isfinite(context).all()


# Memory

MEASURE = """
import gc, sys
from pathlib import Path
import torch
import sdlearn

def memory(key):  # MiB
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024

small, source, dtype, config = sys.argv[1:]
sdlearn.load(small)  # so that nothing is imported or set up for the first time below
gc.collect()
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = memory("VmRSS")
model = sdlearn.load(source, dtype=getattr(torch, dtype), config=config or None)
weights = [value for network in model.networks for value in network.parameters()]
for value in weights:
    assert value.dtype == getattr(torch, dtype)
    value.sum()  # what is mapped but not yet read counts, too
size = sum(value.nbytes for value in weights) / 2**20
print(size, (memory("VmHWM") - before) / size)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 52 million weights in several formats."""
    path = tmp_path_factory.mktemp("large")
    model = make_model(1, hidden_size=32, intermediate_size=32 * 1024, num_hidden_layers=24)
    save(model, path / "folder", torch.float32)
    save(model, path / "half.safetensors")
    save(model, path / "full.safetensors", torch.float32)
    torch.save({"state_dict": load_file(path / "full.safetensors")}, path / "full.ckpt")
    save(make_model(1), path / "small")
    return path


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured with Linux's /proc")
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("half.safetensors", "float32"),
        pytest.param("full.safetensors", "float16", marks=pytest.mark.slow),
        pytest.param("full.safetensors", "float32", marks=pytest.mark.slow),
        pytest.param("full.ckpt", "bfloat16", marks=pytest.mark.slow),
        pytest.param("full.ckpt", "float32", marks=pytest.mark.slow),
        pytest.param("folder", "float16", marks=pytest.mark.slow),
    ],
)
def test_peak_memory_is_that_of_the_weights(large: Path, name: str, dtype: str) -> None:
    """At most 1.15 times the weights at the chosen dtype, whatever the dtype of the file. All that is resident counts,
    pages of the mapped file as well."""
    config = "" if name == "folder" else large / "folder"
    command = [sys.executable, "-c", MEASURE, large / "small", large / name, dtype, config]
    size, ratio = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert round(size) == (199 if dtype == "float32" else 100)
    assert 0.9 < ratio < 1.15
