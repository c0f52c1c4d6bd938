"""Lesson 05: the small autoencoder trained with five weights of the KL, all else being equal.

    make recorded RUN=kl_weights

Takes seven minutes on one core. What is trained stays in the folder `work`, so that a stopped run goes on with
the next weight. Measured on scenes that training didn't show: how good the reconstructions are, what the KL is, how
long the packed latents are as a file, and how far the pictures decoded from N(0, 1) are from scenes.
"""

import math
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from sdlearn.files import atomic_write
from sdlearn.lessons.packing import packed_bits, round_means
from sdlearn.lessons.recorded import FOLDER, write_rows
from sdlearn.lessons.small_vae import SmallAutoencoder, small_scenes, train_scenes
from sdlearn.lessons.toy import energy_distance
from sdlearn.pictures import image_grid, to_images

WEIGHTS = (0.01, 0.1, 1.0, 10.0, 100.0)
NUMBERS = 32
STEPS = 2400
POOL, TESTED = 8192, 512
SHOWN = 8


def trained(kl_weight: float, work: Path, steps: int, pool: int) -> SmallAutoencoder:
    """The network with this weight, from the folder `work`, or else trained and stored there."""
    torch.manual_seed(0)  # the first weights
    network, file = SmallAutoencoder(NUMBERS), work / f"{kl_weight}.pt"
    if file.exists():
        network.load_state_dict(torch.load(file, weights_only=True))
    else:
        losses = train_scenes(network, small_scenes(pool), kl_weight, steps)
        first, last = sum(losses[:10]) / 10, sum(losses[-100:]) / 100
        print(f"kl_weight {kl_weight}: loss {first:.0f} at first, {last:.1f} at the end")
        with atomic_write(file) as temporary:
            torch.save(network.state_dict(), temporary)
    return network.requires_grad_(False)


def psnr(pictures: Tensor, again: Tensor) -> float:
    """In dB, of the mean squared error of all pictures."""
    return 10 * math.log10(4 / (again.clamp(-1, 1) - pictures).square().mean().item())


def measure(network: SmallAutoencoder, pictures: Tensor) -> tuple[dict[str, float], Tensor]:
    """A row of the table, and what N(0, 1) decodes to, (B, 3, 32, 32)."""
    gaussian, generator = network.encode(pictures), torch.Generator().manual_seed(1)
    whole, step = round_means(gaussian)
    drawn = network.decode(torch.randn(gaussian.mean.shape, generator=generator))
    each = 0.5 * (gaussian.mean**2 + gaussian.logvar.exp() - 1 - gaussian.logvar).mean(dim=0)  # KL of each number
    return {
        "psnr": psnr(pictures, network.decode(gaussian.mean)),
        "psnr_sampled": psnr(pictures, network.decode(gaussian.sample(generator))),
        "psnr_rounded": psnr(pictures, network.decode(whole * step)),
        "kl_bits": gaussian.kl().mean().item() / math.log(2),
        "packed_bits": packed_bits(whole),
        "used": (each > 0.05).sum().item(),
        "spread": gaussian.sample(generator).std().item(),
        "distance": energy_distance(drawn.clamp(-1, 1).flatten(1), pictures.flatten(1)).item(),
    }, drawn


def record(work: Path, target: Path, steps: int, pool: int, tested: int) -> None:
    """Train in the folder `work`, and write `target`.csv and `target`.png.

    The picture: a row of scenes, and for each weight a row of reconstructions and one of what N(0, 1) decodes to.
    """
    pictures, others = small_scenes(2 * tested, split="test").chunk(2)
    rows, sheet = [], [pictures[:SHOWN]]
    for kl_weight in WEIGHTS:
        network = trained(kl_weight, work, steps, pool)
        row, drawn = measure(network, pictures)
        rows.append({"kl_weight": str(kl_weight)} | {name: f"{value:.4g}" for name, value in row.items()})
        print(rows[-1])
        sheet += [network.decode(network.encode(pictures[:SHOWN]).mode()), drawn[:SHOWN]]
    real = energy_distance(pictures.flatten(1), others.flatten(1)).item()
    print(f"two sets of scenes are {real:.3f} apart")
    write_rows(target.with_suffix(".csv"), rows)
    with atomic_write(target.with_suffix(".png")) as temporary:
        image_grid(to_images(torch.cat(sheet)), columns=SHOWN).save(temporary, format="PNG", optimize=True)


def main(work: Annotated[Path, typer.Option(help="Where the networks are kept.")] = Path("runs/kl_weights")) -> None:
    """Make the recorded run."""
    work.mkdir(parents=True, exist_ok=True)
    record(work, FOLDER / "kl_weights", STEPS, POOL, TESTED)


if __name__ == "__main__":
    typer.run(main)
