"""The parts put together: equal to Diffusers, repeatable, strict about its inputs, made of exchangeable parts."""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.utils import logging as diffusers_logging
from side_by_side import SCHEDULERS, both
from torch import Tensor
from transformers.utils import logging as transformers_logging

import sdlearn
from sdlearn.diffusion.grids import make_grid_karras
from sdlearn.diffusion.samplers import Step, ddim, draw_noise, last
from sdlearn.diffusion.schedule import Schedule
from sdlearn.lessons.check import assert_parity
from sdlearn.models.attention import Attention, FeedForward, SpatialTransformer, TransformerBlock
from sdlearn.models.blocks import Downsample, ResnetBlock, Upsample
from sdlearn.models.text import TextLayer
from sdlearn.models.unet import DownBlock, TimestepEmbedding, UpBlock
from sdlearn.pipeline import StableDiffusion
from sdlearn.storage import folder as storage_folder
from sdlearn.storage.load import BUNDLED, load
from sdlearn.storage.parts import PARTS
from sdlearn.storage.save import save
from sdlearn.tokenizer import Tokenizer

PROMPTS = ["a small red apple on a blue background", "an owl"]
NEGATIVE = "a large green cat"


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> StableDiffusion:
    return load(tiny_folder)


def draw(model: StableDiffusion, prompt: str | list[str] = PROMPTS[0], **settings: Any) -> Tensor:
    return last(model.sample(prompt, **{"steps": 4, "guidance_scale": 3.0, **settings}))


def noise_of(seeds: range) -> Tensor:
    return draw_noise((len(seeds), 4, 16, 16), [torch.Generator().manual_seed(seed) for seed in seeds])


@pytest.fixture
def quiet_diffusers() -> None:
    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()


def assert_equal_to_diffusers(folder: Path, sampler: str, steps: int, tolerance: float | None) -> None:
    """Load the folder in both, in float64, start both from the same noise, and compare latents and pixels."""
    ours, reference = both(folder, diffusers.StableDiffusionPipeline, sampler)
    against = "StableDiffusionPipeline"
    side = ours.defaults.height // ours.autoencoder.config.factor
    noise = torch.randn((2, 4, side, side), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    settings = {"guidance_scale": 7.5, "num_inference_steps": steps, "latents": noise}
    negative = [NEGATIVE] * 2
    expected = reference(PROMPTS, negative_prompt=negative, output_type="latent", **settings).images
    own = {"negative_prompt": NEGATIVE, "sampler": sampler, "steps": steps, "guidance_scale": 7.5, "latents": noise}
    latents = draw(ours, PROMPTS, **own)
    assert_parity(f"text to image, {sampler}, latents", latents, expected, tolerance, against=against)

    with torch.no_grad():
        decoded = reference.vae.decode(expected / reference.vae.config.scaling_factor).sample.clamp(-1, 1)
    assert_parity(f"text to image, {sampler}, picture", ours.decode(latents), decoded, tolerance, against=against)
    pictures = ours(PROMPTS, progress=False, **own)
    references = reference(PROMPTS, negative_prompt=negative, **settings).images
    for picture, other in zip(pictures, references, strict=True):  # a number may lie between two whole ones
        assert np.abs(np.asarray(picture, dtype=int) - np.asarray(other, dtype=int)).max() <= 1
    assert np.asarray(pictures[0]).std() > 1  # a picture, not a plain colour


@pytest.mark.usefixtures("quiet_diffusers")
def test_float32_draws_what_diffusers_draws_in_float32(tiny: StableDiffusion, tiny_folder: Path) -> None:
    """One step: in float32 differences grow from step to step, by how much depends on the processor."""
    reference = diffusers.StableDiffusionPipeline.from_pretrained(tiny_folder, local_files_only=True)
    assert {network.dtype for network in (reference.unet, reference.vae, reference.text_encoder)} == {torch.float32}
    reference.set_progress_bar_config(disable=True)
    reference.scheduler = diffusers.DDIMScheduler.from_pretrained(tiny_folder / "scheduler")
    noise = noise_of(range(1))
    settings = {"num_inference_steps": 1, "guidance_scale": 3.0, "latents": noise, "output_type": "latent"}
    expected = reference(PROMPTS[0], **settings).images
    latents = draw(tiny, steps=1, sampler="ddim", latents=noise)
    assert_parity("text to image, one step, latents", latents, expected, against="StableDiffusionPipeline")


@pytest.mark.usefixtures("quiet_diffusers")
@pytest.mark.parametrize("sampler", ["ddim", "plms", "euler", "heun", "dpmpp_2m"])
@pytest.mark.parametrize("folder", ["tiny_folder", "epsilon_folder"])
def test_equal_to_diffusers(folder: str, sampler: str, request: pytest.FixtureRequest) -> None:
    assert_equal_to_diffusers(request.getfixturevalue(folder), sampler, 6, SCHEDULERS[sampler][1])


@pytest.mark.usefixtures("quiet_diffusers")
@pytest.mark.parametrize(("sampler", "tolerance"), [("ddim", None), ("dpmpp_2m", 5e-6), ("dpmpp_2m_karras", 5e-6)])
def test_bundled_model_is_equal_to_diffusers(sampler: str, tolerance: float | None) -> None:
    # Their DPM-Solver++ rounds x to float32 in each step; a trained network, guided at 7.5, makes 1.6e-6 of it.
    assert_equal_to_diffusers(BUNDLED, sampler, 12, tolerance)


@pytest.mark.usefixtures("quiet_diffusers")
def test_diffusers_loads_the_bundled_model_s_default_sampler() -> None:
    reference = diffusers.StableDiffusionPipeline.from_pretrained(BUNDLED, local_files_only=True)
    ours = load(BUNDLED)
    assert ours.defaults.sampler == "dpmpp_2m_karras"
    assert isinstance(reference.scheduler, diffusers.DPMSolverMultistepScheduler)
    assert reference.scheduler.config.use_karras_sigmas
    reference.scheduler.set_timesteps(ours.defaults.steps)
    grid = make_grid_karras(ours.schedule, ours.defaults.steps)
    assert reference.scheduler.timesteps.tolist() == grid.timesteps.tolist()


def test_saving_over_a_model_that_fails_midway(
    tiny: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left must not load: it would be a mix of two models."""
    save(tiny, tmp_path)
    writes = storage_folder.save_part
    full = OSError(28, "No space left on device")

    def fails(folder: Path, *arguments: Any) -> None:
        if folder.name == "unet":
            raise full
        writes(folder, *arguments)

    monkeypatch.setattr(storage_folder, "save_part", fails)
    with pytest.raises(OSError, match="No space left"):
        save(tiny, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"has no model_index\.json"):
        load(tmp_path)


def test_saved_folders(tiny: StableDiffusion, tiny_folder: Path, epsilon_folder: Path, tmp_path: Path) -> None:
    index = json.loads((tiny_folder / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "DPMSolverMultistepScheduler"]
    assert index["safety_checker"] == [None, None]
    schedule = json.loads((tiny_folder / "scheduler" / "scheduler_config.json").read_text())
    assert (schedule["prediction_type"], schedule["timestep_spacing"]) == ("v_prediction", "trailing")
    schedule = json.loads((epsilon_folder / "scheduler" / "scheduler_config.json").read_text())
    assert (schedule["prediction_type"], schedule["timestep_spacing"]) == ("epsilon", "leading")

    save(tiny, tmp_path / "again")
    again = load(tmp_path / "again")
    assert (again.defaults, again.card, again.name) == (tiny.defaults, tiny.card, "again")
    assert again.schedule.config == tiny.schedule.config
    for network, expected in zip(again.networks, tiny.networks, strict=True):
        state = expected.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert_parity("saved and loaded", draw(again), draw(tiny))
    assert not list(tmp_path.rglob("*.partial"))


def test_defaults_are_used(tiny: StableDiffusion) -> None:
    assert (tiny.defaults.steps, tiny.defaults.guidance_scale, tiny.defaults.sampler) == (5, 3.0, "dpmpp_2m")
    steps = list(tiny.sample(PROMPTS[0]))
    assert [step.i for step in steps] == [0, 1, 2, 3, 4]
    assert torch.equal(steps[-1].x, draw(tiny, steps=5, guidance_scale=3.0, sampler="dpmpp_2m", height=64, width=64))
    assert not torch.allclose(steps[-1].x, draw(tiny, steps=5, guidance_scale=0.0))


def test_folders_without_defaults(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / "defaults.json").write_text('{"height": 64, "width": 64, "colour": "red"}')
    with pytest.raises(ValueError, match=r"defaults\.json.*colour"):
        load(folder)
    (folder / "defaults.json").unlink()
    defaults = load(folder).defaults
    assert (defaults.height, defaults.width, defaults.steps, defaults.guidance_scale) == (64, 64, 25, 7.5)


@pytest.mark.parametrize("settings", [{"sampler": "ddim", "eta": 1.0}, {"sampler": "ddpm"}, {"sampler": "dpmpp_2m"}])
def test_a_picture_can_be_repeated_alone(tiny: StableDiffusion, settings: dict[str, Any]) -> None:
    eight = draw(tiny, count=8, seed=20, **settings)
    alone = draw(tiny, seed=25, **settings)
    assert_parity("picture 5 of 8", eight[5:6], alone, 1e-4)
    assert (eight[4] - eight[5]).abs().max() > 0.1


def test_prompts_and_counts_multiply(tiny: StableDiffusion) -> None:
    four = draw(tiny, PROMPTS, count=2, seed=7, negative_prompt=[NEGATIVE, ""])
    assert four.shape == (4, 4, 16, 16)
    assert_parity("third", four[2:3], draw(tiny, PROMPTS[1], seed=9), 1e-4)
    assert_parity("second", four[1:2], draw(tiny, PROMPTS[0], seed=8, negative_prompt=NEGATIVE), 1e-4)


def test_given_latents_replace_the_first_noise_and_nothing_else(tiny: StableDiffusion) -> None:
    settings = {"sampler": "ddpm", "seed": 3, "count": 2}
    expected = draw(tiny, **settings)
    assert torch.equal(draw(tiny, latents=noise_of(range(3, 5)), **settings), expected)
    assert not torch.allclose(draw(tiny, latents=noise_of(range(4, 6)), **settings), expected)
    assert draw(tiny, latents=torch.randn(1, 4, 8, 20)).shape == (1, 4, 8, 20)


def test_pictures_of_other_sizes(tiny: StableDiffusion) -> None:
    pictures = tiny(PROMPTS, height=32, width=80, steps=2, progress=False)
    assert [(picture.size, picture.mode) for picture in pictures] == [((80, 32), "RGB")] * 2


def test_progress_goes_to_stderr_and_can_be_turned_off(
    tiny: StableDiffusion, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny(PROMPTS[0], steps=2, progress=False)
    assert capsys.readouterr() == ("", "")
    tiny(PROMPTS[0], steps=2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "2/2" in err
    tiny(PROMPTS[0], steps=2, sampler="heun")  # one network call less than twice as many
    assert "3/3" in capsys.readouterr().err
    tiny(PROMPTS[0], sampler="plms")
    assert "6/6" in capsys.readouterr().err


def test_gradients_stay_as_the_caller_has_them(tiny: StableDiffusion) -> None:
    for step in tiny.sample(PROMPTS[0], steps=2):
        assert torch.is_grad_enabled()
        assert not step.x.requires_grad
    assert not tiny.decode(step.x).requires_grad


def test_the_text_is_encoded_once(tiny: StableDiffusion) -> None:
    calls: list[tuple[int, ...]] = []
    hook = tiny.text_encoder.register_forward_hook(lambda module, args, out: calls.append(tuple(out.shape)))
    try:
        draw(tiny, count=3, steps=4)
    finally:
        hook.remove()
    assert calls == [(1, 77, 32), (1, 77, 32)]  # the prompt and the empty one


def test_both_halves_of_guidance_are_one_call(tiny: StableDiffusion) -> None:
    batches: list[int] = []
    hook = tiny.unet.conv_in.register_forward_hook(lambda module, args, out: batches.append(len(out)))
    try:
        draw(tiny, count=3, steps=4)
        draw(tiny, count=3, steps=4, guidance_scale=1.0)  # only one half
    finally:
        hook.remove()
    assert batches == [6] * 4 + [3] * 4


def test_long_prompts_are_cut_with_a_warning(tiny: StableDiffusion) -> None:
    words = "apple " * 75
    with pytest.warns(UserWarning, match=r"more than 75 tokens.*: 'owl cat'"):
        context = tiny.encode_prompt([words + "owl cat"])
    assert torch.equal(context, tiny.encode_prompt([words]))


def test_clip_skip_leaves_out_the_last_layers(tiny: StableDiffusion) -> None:
    ids = tiny.tokenizer(PROMPTS[0])
    for skip in range(3):
        with torch.no_grad():
            expected = tiny.text_encoder(ids, skip=skip)
        assert torch.equal(tiny.encode_prompt([PROMPTS[0]], clip_skip=skip), expected)
    calls: list[Any] = []
    hook = tiny.text_encoder.register_forward_pre_hook(lambda m, a, k: calls.append(k["skip"]), with_kwargs=True)
    try:
        skipped = draw(tiny, clip_skip=1)
    finally:
        hook.remove()
    assert calls == [1, 1]  # the prompt and the empty one
    assert not torch.allclose(skipped, draw(tiny), atol=1e-3)


def test_encode_and_decode(tiny: StableDiffusion) -> None:
    image = torch.rand((2, 3, 32, 48), generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = tiny.encode(image)
    assert latents.shape == (2, 4, 8, 12)
    assert torch.allclose(latents, 0.5 * tiny.autoencoder.encode(image).mean)
    decoded = tiny.decode(latents)
    assert torch.allclose(decoded, tiny.autoencoder.decode(latents / 0.5).clamp(-1, 1))


def test_other_dtypes(tiny: StableDiffusion, tiny_folder: Path) -> None:
    half = load(tiny_folder, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    latents = draw(half)
    assert latents.dtype == torch.float32
    assert 0 < (latents - draw(tiny)).abs().max() < 0.3
    assert half.decode(latents).dtype == torch.float32
    assert half.to("cpu", torch.float32).dtype == torch.float32
    assert half.device == torch.device("cpu")
    assert_parity("back in float32, from rounded weights", draw(half), draw(tiny), 0.3)


NAN = torch.full((1, 4, 16, 16), float("nan"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": []}, r"prompt = \[\].*must be a text or a list of texts"),
        ({"prompt": [1]}, r"must be a text or a list of texts"),
        ({"negative_prompt": ["a", "b"]}, "2 negative prompts for 1 prompts"),
        ({"clip_skip": 3}, "skip = 3, must be a whole number from 0 to 2"),
        ({"clip_skip": -1}, "skip = -1, must be a whole number"),
        ({"count": 0}, "count = 0, must be a whole number of at least 1"),
        ({"steps": 0}, "steps = 0, must be a whole number from 1 to 1000"),
        ({"steps": 1001}, "steps = 1001, must be a whole number from 1 to 1000"),
        ({"steps": 2.5}, "steps = 2.5, must be a whole number"),
        ({"sampler": "ddmi"}, "sampler 'ddmi' is unknown; accepted: ddpm, ddim, plms"),
        ({"guidance_scale": float("nan")}, "guidance_scale = nan, must be finite"),
        ({"rescale": 2.0}, "rescale = 2.0, must be from 0 to 1"),
        ({"eta": 1.5, "sampler": "ddim"}, "eta = 1.5 with sampler 'ddim': must be from 0 to 1"),
        ({"eta": 0.5, "sampler": "dpmpp_2m"}, "eta = 0.5 with sampler 'dpmpp_2m'"),
        ({"seed": -1}, "seed = -1, must be a whole number from 0"),
        ({"seed": 0.5}, "seed = 0.5, must be a whole number"),
        ({"height": 60}, "height = 60, must be a multiple of 16 pixels"),
        ({"width": 0}, "width = 0, must be a multiple of 16 pixels"),
        ({"latents": NAN}, "latents hold NaN or infinity"),
        ({"latents": torch.zeros(2, 4, 16, 16)}, r"shape \(2, 4, 16, 16\), must have \(1, 4, 16, 16\)"),
        ({"latents": torch.zeros(1, 3, 16, 16)}, r"must have \(1, 4, 16, 16\)"),
        ({"latents": torch.zeros(1, 4, 16, 16), "height": 32}, r"must have \(1, 4, 8, 16\)"),
        ({"latents": torch.zeros(1, 4, 15, 16)}, "height = 60, must be a multiple of 16"),
        ({"latents": torch.zeros(1, 4, 16, 16, dtype=torch.long)}, "torch.int64 .*must be floats"),
        ({"latents": torch.zeros(4, 16, 16)}, "must be floats .B, C, H, W."),
    ],
)
def test_bad_settings_are_refused_before_the_first_step(
    tiny: StableDiffusion, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny.sample(**{"prompt": PROMPTS[0], **settings})


def test_bad_latents_and_pictures_are_refused(tiny: StableDiffusion) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        tiny.decode(NAN)
    with pytest.raises(ValueError, match="the decoder takes"):
        tiny.decode(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match="divisible by 4"):
        tiny.encode(torch.zeros(1, 3, 18, 16))


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder", "vae", "unet", "scheduler"])
def test_a_missing_part_is_named(tiny_folder: Path, tmp_path: Path, part: str) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    shutil.rmtree(folder / part)
    with pytest.raises(
        FileNotFoundError, match=f"lacks {part}; a model folder has tokenizer, text_encoder, vae, unet, scheduler"
    ):
        load(folder)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("StableDiffusionXLPipeline", r" \(Stable Diffusion XL\)"),
        ("StableDiffusion3Pipeline", r" \(Stable Diffusion 3\)"),
        ("FluxPipeline", r" \(Flux\)"),
        ("KandinskyPipeline", ""),
        (None, ""),
    ],
)
def test_other_models_are_refused_by_name(tmp_path: Path, kind: str | None, name: str) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    with pytest.raises(
        ValueError, match=rf"holds a {kind}{name}, which is not supported; accepted: StableDiffusionPipeline"
    ):
        load(tmp_path)


def test_what_is_no_model_folder_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no model at .*nowhere; accepted: a model folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no model_index\.json"):
        load(tmp_path)
    with pytest.raises(ValueError, match="is another kind of file; accepted: a model folder"):
        load(tiny_folder / "model_index.json")


def test_damaged_and_unfitting_parts_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"unet.diffusion_pytorch_model\.safetensors is damaged"):
        load(folder)
    shutil.copy(folder / "vae" / weights.name, weights)
    with pytest.raises(ValueError, match=r"unet.*does not fit the network: \d+ missing, \d+ extra"):
        load(folder)
    weights.write_bytes(whole)

    for file, key, value, message in (
        ("unet/config.json", "act_fn", "mish", "act_fn = 'mish'"),
        ("scheduler/scheduler_config.json", "prediction_type", "flow", "prediction_type = 'flow'"),
        ("text_encoder/config.json", "vocab_size", 500, "misshapen; the first: text_model.embeddings"),
    ):
        text = (folder / file).read_text()
        (folder / file).write_text(json.dumps({**json.loads(text), key: value}))
        with pytest.raises(ValueError, match=message):
            load(folder)
        (folder / file).write_text(text)


def test_parts_must_fit_each_other(tiny: StableDiffusion) -> None:
    long = Tokenizer(tiny.tokenizer.vocab, tiny.tokenizer.merges, max_length=78)
    with pytest.raises(ValueError, match="the tokenizer makes 78 tokens, the text encoder takes 77"):
        StableDiffusion(long, tiny.text_encoder, tiny.autoencoder, tiny.unet, tiny.schedule)
    size = len(tiny.tokenizer)
    large = Tokenizer({**tiny.tokenizer.vocab, "one more": size}, tiny.tokenizer.merges)
    with pytest.raises(ValueError, match=f"the tokenizer has {size + 1} tokens, the text encoder only {size}"):
        StableDiffusion(large, tiny.text_encoder, tiny.autoencoder, tiny.unet, tiny.schedule)


def test_the_environment_names_a_model(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDLEARN_MODEL", str(tiny_folder))
    assert load().card == "# A random model, for tests\n"


def counting(base: Any, calls: list[str]) -> Any:
    """A class of the learner's own: equal to ours, and it counts its calls."""

    class Mine(base):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            calls.append(type(self).__name__)
            return super().forward(*args, **kwargs)

    return Mine


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("down_block", DownBlock),
        ("up_block", UpBlock),
        ("resnet_block", ResnetBlock),
        ("downsample", Downsample),
        ("upsample", Upsample),
        ("timestep_embedding", TimestepEmbedding),
        ("spatial_transformer", SpatialTransformer),
        ("transformer_block", TransformerBlock),
        ("attention", Attention),
        ("feed_forward", FeedForward),
        ("text_layer", TextLayer),
    ],
)
def test_own_blocks_draw_the_same_picture(tiny: StableDiffusion, tiny_folder: Path, name: str, base: Any) -> None:
    calls: list[str] = []
    model = load(tiny_folder, parts={name: counting(base, calls)})
    for network, place in zip(model.networks, ("text_encoder", "autoencoder", "unet"), strict=True):
        ours = [module for module in network.modules() if isinstance(module, base)]
        if place in PARTS[name]:
            assert ours
            assert {type(module).__name__ for module in ours} == {"Mine"}
        elif name not in ("attention",):  # the autoencoder's attention is a class of its own
            assert not ours
    latents = draw(model)
    assert calls
    assert_parity("own block, latents", latents, draw(tiny))
    assert_parity("own block, picture", model.decode(latents), tiny.decode(latents))


def test_own_loop_guide_schedule_and_tokenizer_draw_the_same_picture(tiny: StableDiffusion, tiny_folder: Path) -> None:
    calls: list[str] = []

    def my_ddim(*args: Any, **kwargs: Any) -> Iterator[Step]:
        for step in ddim(*args, **kwargs):
            calls.append("ddim")
            yield step

    def my_guide(unet: Any, condition: Any, unconditional: Any, guidance_scale: float, rescale: float = 0.0) -> Any:
        def denoise(x: Tensor, t: Any) -> Tensor:
            calls.append("guide")
            without = unet(x, t, unconditional.context)
            return without + guidance_scale * (unet(x, t, condition.context) - without)

        return denoise

    class MySchedule(Schedule):
        def to_x0(self, *args: Any) -> Tensor:
            calls.append("schedule")
            return super().to_x0(*args)

    class MyTokenizer(Tokenizer):
        def merge(self, word: str) -> list[str]:
            calls.append("tokenizer")
            return super().merge(word)

    parts = {"ddim": my_ddim, "guide": my_guide, "schedule": MySchedule, "tokenizer": MyTokenizer}
    model = load(tiny_folder, parts=parts)
    latents = draw(model, sampler="ddim")
    assert [calls.count(name) for name in ("ddim", "guide", "schedule")] == [4, 4, 4]
    assert calls.count("tokenizer") == len(set(PROMPTS[0].split()))
    assert_parity("own loop and guide", latents, draw(tiny, sampler="ddim"))
    assert_parity("nothing else changed", draw(load(tiny_folder), sampler="ddim"), draw(tiny, sampler="ddim"))


def test_own_combine_decides_what_guidance_does(tiny: StableDiffusion, tiny_folder: Path) -> None:
    model = load(tiny_folder, parts={"combine": lambda unconditional, conditional, guidance_scale: conditional})
    assert_parity("conditional only", draw(model, guidance_scale=5.0), draw(tiny, guidance_scale=1.0), 1e-4)
    assert not torch.allclose(draw(model, guidance_scale=5.0), draw(tiny, guidance_scale=5.0), atol=1e-3)


def test_own_ends_of_the_loop(tiny: StableDiffusion, tiny_folder: Path) -> None:
    """What goes into the encoder and what comes out of the decoder passes through them, and nothing else."""

    def darker(autoencoder: Any, pictures: Tensor, generator: Any = None) -> Tensor:
        return tiny.encode(pictures - 0.5, generator)

    def upside_down(autoencoder: Any, latents: Tensor) -> Tensor:
        return tiny.decode(latents).flip(2)

    model = load(tiny_folder, parts={"encode_pictures": darker, "decode_latents": upside_down})
    pictures = torch.rand(2, 3, 16, 8, generator=torch.Generator().manual_seed(0))
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 3)]
    for ours, theirs in ((None, None), generators):
        assert_parity("own encode", model.encode(pictures, ours), tiny.encode(pictures - 0.5, theirs))
    latents = draw(model)
    assert_parity("nothing else changed", latents, draw(tiny))
    assert_parity("own decode", model.decode(latents), tiny.decode(latents).flip(2))


def test_own_parts_are_loaded_strictly(tiny_folder: Path) -> None:
    class Forgetful(ResnetBlock):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            del self.norm2

    with pytest.raises(ValueError, match=r"0 missing, \d+ extra"):
        load(tiny_folder, parts={"resnet_block": Forgetful})
    with pytest.raises(ValueError, match="parts resnet are unknown; accepted: resnet_block, downsample") as error:
        load(tiny_folder, parts={"resnet": Forgetful})
    assert all(name in str(error.value) for name in PARTS)


def test_import_is_cheap_and_needs_no_reference() -> None:
    heavy = ["accelerate", "matplotlib", "transformers", "diffusers", "torchvision", "huggingface_hub"]
    code = (
        "import sys, time, torch; start = time.process_time(); import sdlearn; seconds = time.process_time() - start; "
        f"sdlearn.load; print(seconds < 0.5, [name for name in {heavy} if name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True []\n"
    )


def test_every_public_name_exists() -> None:
    assert dir(sdlearn) == sdlearn.__all__
    assert all(getattr(sdlearn, name) is not None for name in sdlearn.__all__)
    with pytest.raises(AttributeError, match="no attribute 'unknown'"):
        _ = sdlearn.unknown


def test_tests_cannot_reach_the_network() -> None:
    for address in ("192.0.2.1", "example.org"):
        with pytest.raises(RuntimeError, match="must not use the network"):
            socket.create_connection((address, 80), timeout=1)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.create_connection(server.getsockname(), timeout=5) as connection:
            assert connection.getpeername() == server.getsockname()
