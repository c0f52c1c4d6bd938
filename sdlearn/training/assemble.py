"""Putting trained parts together: finished training runs in, one model folder out."""

from dataclasses import replace
from pathlib import Path

from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.files import read_json
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig
from sdlearn.models.clip import CLIP, CLIPConfig
from sdlearn.models.text import TextConfig, TextEncoder
from sdlearn.models.unet import UNet, UNetConfig
from sdlearn.pipeline import StableDiffusion
from sdlearn.storage.clip import save_clip
from sdlearn.storage.folder import load_part
from sdlearn.storage.save import save
from sdlearn.tokenizer import Tokenizer


def assemble(runs: Path, folder: Path, guidance_scale: float, sampler: str, steps: int) -> None:
    """Join the results of the runs `clip`, `autoencoder` and `diffusion`.

    Writes a model folder in the Diffusers layout, in half precision. In addition to Stable Diffusion's parts it
    has a `clip/` with the rest of CLIP, whose text tower is the text encoder. `guidance_scale`, `sampler` and
    `steps` become the model's defaults. An existing card is kept.

    Raises:
        FileNotFoundError: a run is missing or not finished.
        ValueError: the text encoder in the run `clip` is not the text tower of the CLIP there.
    """
    text, diffusion = runs / "clip" / "model", runs / "diffusion" / "model"
    scheduler = diffusion / "scheduler" / "scheduler_config.json"
    model = StableDiffusion(
        Tokenizer.from_folder(text / "tokenizer"),
        load_part(text / "text_encoder", TextEncoder, TextConfig),
        load_part(runs / "autoencoder" / "model" / "vae", Autoencoder, AutoencoderConfig),
        load_part(diffusion / "unet", UNet, UNetConfig),
        Schedule(ScheduleConfig.from_dict(read_json(scheduler), str(scheduler))),
    )
    model.defaults = replace(model.defaults, guidance_scale=guidance_scale, sampler=sampler, steps=steps)
    save(model, folder)
    save_clip(load_part(text / "clip", CLIP, CLIPConfig), folder)
