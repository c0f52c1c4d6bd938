"""Putting trained parts together: three training runs in, one model folder out."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from sdlearn.checkpoints import load_part, read_json, save_part
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig
from sdlearn.models.clip import CLIP, CLIPConfig
from sdlearn.models.text import TextConfig, TextEncoder
from sdlearn.models.unet import UNet, UNetConfig
from sdlearn.pipeline import StableDiffusion
from sdlearn.tokenizer import Tokenizer


def bundle(
    runs: Annotated[Path, typer.Argument(help="The folder that holds the runs clip, autoencoder and diffusion.")],
    folder: Annotated[Path, typer.Argument(help="The model folder to write, in the Diffusers layout, half precision.")],
    guidance_scale: Annotated[float, typer.Option(help="The default of the model.")] = 3.0,
    steps: Annotated[int, typer.Option(help="The default of the model.")] = 25,
) -> None:
    """Join the parts that `sdlearn train` left in `runs` into one model folder.

    Both towers of CLIP go to `clip/` beside the parts that Stable Diffusion knows. A card that is there stays.
    """
    text, pictures, diffusion = (runs / name / "model" for name in ("clip", "autoencoder", "diffusion"))
    scheduler = diffusion / "scheduler" / "scheduler_config.json"
    card = folder / "README.md"
    model = StableDiffusion(
        Tokenizer.from_folder(text / "tokenizer"),
        load_part(text / "text_encoder", TextEncoder, TextConfig),
        load_part(pictures / "vae", Autoencoder, AutoencoderConfig),
        load_part(diffusion / "unet", UNet, UNetConfig),
        Schedule(ScheduleConfig.from_dict(read_json(scheduler), str(scheduler))),
        card=card.read_text(encoding="utf-8") if card.is_file() else None,
    )
    model.defaults = replace(model.defaults, guidance_scale=guidance_scale, steps=steps)
    model.save(folder)
    clip = load_part(text / "clip", CLIP, CLIPConfig)
    save_part(folder / "clip", clip.config, clip.state_dict(), torch.float16)


if __name__ == "__main__":
    typer.run(bundle)
