"""Ours compared with Diffusers on a real checkpoint: the difference of each part, and pictures side by side.

    make real MODEL=stable-diffusion-v1-5/stable-diffusion-v1-5

Both programs load the same model: a folder, a hub name, or a single file with the folder that configures it. Both are
in memory at the same time, so this takes twice the weights. In float32 the tolerances are those below; half
precision is compared too, but no tolerance means anything there.
"""

from pathlib import Path
from typing import Annotated, Any

import diffusers
import torch
import typer
from torch import Tensor

import sdlearn
from sdlearn.files import atomic_write
from sdlearn.lessons.check import Measurement, max_difference, measurements_table
from sdlearn.pictures import captioned_grid, to_images

PROMPTS = ["a photograph of an astronaut riding a horse", "a small owl on a pink background"]
TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load_reference(model: str, config: str | None, dtype: torch.dtype) -> Any:
    """Diffusers' pipeline, without a safety checker and with the solver that ours uses by default."""
    options = {"safety_checker": None, "torch_dtype": dtype}
    if Path(model).is_file():
        options |= {"config": config, "local_files_only": True} if config else {}
        pipeline = diffusers.StableDiffusionPipeline.from_single_file(model, **options)
    else:
        pipeline = diffusers.StableDiffusionPipeline.from_pretrained(model, **options)
    pipeline.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def main(
    model: Annotated[str, typer.Argument(help="A folder, a hub name, or a single file.")],
    config: Annotated[str | None, typer.Option(help="For a single file: the folder with its configuration.")] = None,
    steps: Annotated[int, typer.Option(min=1)] = 25,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps.")] = "cpu",
    dtype: Annotated[str, typer.Option(help=", ".join(TYPES))] = "float32",
    output: Annotated[Path, typer.Option(help="The folder for report.md and pictures.png.")] = Path("out/real"),
) -> None:
    """Compare every part, then complete pictures; write the report."""
    ours = sdlearn.load(model, config=config, device=device, dtype=TYPES[dtype])
    reference = load_reference(model, config, TYPES[dtype]).to(device)
    measurements = []

    def compare(name: str, part: Any, mine: Tensor, theirs: Tensor, tolerance: float) -> None:
        difference = max_difference(mine, theirs) / max(1.0, theirs.abs().max().item())
        measurements.append(Measurement(name, type(part).__name__, TYPES[dtype], difference, tolerance))
        print(f"{name:16} {difference:.1e}")

    ids = ours.tokenizer(PROMPTS)
    theirs = reference.tokenizer(PROMPTS, padding="max_length", max_length=ids.shape[1], return_tensors="pt").input_ids
    compare("tokenizer", reference.tokenizer, ids.float(), theirs.float(), 0.0)

    context = ours.encode_prompt(PROMPTS)
    theirs = reference.text_encoder(ids.to(device)).last_hidden_state
    compare("text encoder", reference.text_encoder, context, theirs, 1e-5)

    side = ours.unet.config.sample_size
    shape = (len(PROMPTS), ours.autoencoder.config.latent_channels, side, side)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x = noise.to(device, TYPES[dtype])
    for t in (999, 500, 1):
        prediction, theirs = ours.unet(x, t, context), reference.unet(x, t, context).sample
        compare(f"UNet at t = {t}", reference.unet, prediction, theirs, 1e-5)
    pictures = ours.autoencoder.decode(x)  # (B, 3, H, W)
    compare("decoder", reference.vae, pictures, reference.vae.decode(x).sample, 1e-5)
    theirs = reference.vae.encode(pictures).latent_dist.mean
    compare("encoder", reference.vae, ours.autoencoder.encode(pictures).mean, theirs, 1e-5)

    settings = {"num_inference_steps": steps, "guidance_scale": ours.defaults.guidance_scale, "output_type": "latent"}
    drawn = sdlearn.last(ours.sample(PROMPTS, sampler="dpmpp_2m", steps=steps, latents=noise))
    theirs = reference(PROMPTS, latents=noise.to(device, TYPES[dtype]), **settings).images
    compare("latents drawn", reference, drawn, theirs.to(drawn), 1e-4)

    images = to_images(torch.cat([ours.decode(drawn), ours.decode(theirs.to(drawn))]).cpu())
    captions = [f"{name}: {prompt}" for name in ("sdlearn", "Diffusers") for prompt in PROMPTS]
    output.mkdir(parents=True, exist_ok=True)
    captioned_grid(images, captions, columns=len(PROMPTS), side=images[0].width).save(output / "pictures.png")
    with atomic_write(output / "report.md") as temporary:
        text = [f"# {model}", "", f"{dtype} on {device}, {steps} steps; differences are relative to max(1, |x|).", ""]
        temporary.write_text(
            "\n".join([*text, measurements_table(measurements), "![](pictures.png)", ""]), encoding="utf-8"
        )
    print(output / "report.md")
    if dtype == "float32" and (above := [one.name for one in measurements if not one.difference <= one.tolerance]):
        print(f"above its tolerance: {', '.join(above)}")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
