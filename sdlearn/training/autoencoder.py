"""Training the autoencoder: reconstruct the picture from latents that stay close to a standard Gaussian.

Stable Diffusion's first stage has two more terms, a perceptual and an adversarial one: see first_stage.py. Both are off
unless a recipe gives them a weight.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdlearn.data import Scenes
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig, Gaussian
from sdlearn.models.discriminator import DiscriminatorConfig, PatchDiscriminator
from sdlearn.paths import expand
from sdlearn.pictures import to_unit
from sdlearn.storage.folder import load_part, save_part
from sdlearn.training.first_stage import (
    adaptive_weight,
    adversarial_loss,
    discriminator_loss,
    fixed,
    load_features,
    perceptual_distance,
    scaling_factor,
)
from sdlearn.training.loop import TrainConfig, checksum, generator_for


@dataclass(frozen=True)
class AutoencoderLoss:
    """The `[loss]` table. Squared errors stress edges, where errors are large; absolute ones plain colour too.

    The autoencoder feels the discriminator from the step `adversarial_start` on, which learns from the first one.
    """

    kl_weight: float
    mse_weight: float = 1.0
    perceptual_weight: float = 0.0
    adversarial_weight: float = 0.0
    adversarial_start: int = 0

    def __post_init__(self) -> None:
        for name in ("kl_weight", "mse_weight", "perceptual_weight", "adversarial_weight", "adversarial_start"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")


@dataclass(frozen=True)
class AutoencoderParts:
    """The `[parts]` table: `init` is a model folder whose autoencoder, or only its decoder, is trained further."""

    init: str
    freeze_encoder: bool = False


@dataclass(frozen=True)
class AutoencoderRecipe:
    """The tables of an autoencoder's recipe: either `[model]` or `[parts]`, and always `[training]` and `[loss]`."""

    training: TrainConfig
    loss: AutoencoderLoss
    model: AutoencoderConfig | None = None
    parts: AutoencoderParts | None = None
    discriminator: DiscriminatorConfig | None = None  # its shape, if there is an adversarial term; else the usual one

    def __post_init__(self) -> None:
        if (self.model is None) == (self.parts is None):
            raise ValueError("there must be either a table model or a table parts")


class Reconstruction(nn.Module):
    """A picture through the encoder and back through the decoder, and to the discriminator if there is one."""

    def __init__(self, autoencoder: Autoencoder, discriminator: PatchDiscriminator | None = None) -> None:
        super().__init__()
        self.autoencoder, self.discriminator = autoencoder, discriminator

    def forward(self, image: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) in [−1, 1] and (B, C, H/f, W/f) -> reconstruction, and the latents' mean and log-variance.

        With a discriminator also its numbers (B, 1, h, w): for the pictures and for their reconstructions, from which
        it learns, and for the reconstructions once more, from which the autoencoder learns.
        """
        gaussian = self.autoencoder.encode(image)
        again = self.autoencoder.decode(gaussian.at(noise))
        numbers = again, gaussian.mean, gaussian.logvar
        if self.discriminator is None:
            return numbers
        real, fake = self.discriminator(torch.cat([image, again.detach()])).chunk(2)
        return *numbers, real, fake, fixed(self.discriminator, again)


class AutoencoderTask:
    """The autoencoder on scenes: a new one as the recipe's `[model]` says, or that of the folder `init` in `[parts]`.

    With `freeze_encoder` only the decoder is trained. The latents stay the same, so a UNet trained on them needs no
    further training.
    """

    def __init__(self, recipe: AutoencoderRecipe) -> None:
        self.seed, self.batch_size = recipe.training.seed, recipe.training.batch_size
        self.weights = recipe.loss
        if recipe.model is not None:
            torch.manual_seed(self.seed)  # the first weights
            self.autoencoder = Autoencoder(recipe.model)
        else:
            self.autoencoder = load_part(expand(recipe.parts.init) / "vae", Autoencoder, AutoencoderConfig)
        self.settings: dict[str, Any] = {"loss": asdict(recipe.loss), "model": asdict(self.autoencoder.config)}
        if recipe.parts is not None:
            self.settings |= {"freeze_encoder": recipe.parts.freeze_encoder}
            self.settings |= {"checksum of init": checksum(self.autoencoder)[:12]}
        self.encoder_learns = recipe.parts is None or not recipe.parts.freeze_encoder
        self.autoencoder.requires_grad_(True)
        self.autoencoder.encoder.requires_grad_(self.encoder_learns)
        self.autoencoder.quant_conv.requires_grad_(self.encoder_learns)
        discriminator = None
        if recipe.loss.adversarial_weight:
            shape = recipe.discriminator or DiscriminatorConfig()
            discriminator = PatchDiscriminator(shape)
            self.settings |= {"discriminator": asdict(shape)}
        self.features = load_features() if recipe.loss.perceptual_weight else None
        self.network = Reconstruction(self.autoencoder, discriminator)
        self.scenes = Scenes(self.seed)

    def loss(self, network: nn.Module, step: int, rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        """|x − x̂| + mse_weight · (x − x̂)² + kl_weight · KL, each a mean over its elements, and perhaps two more terms.

        The KL: arXiv 2112.10752, section 3.1.
        """
        indices = range(step * self.batch_size, (step + 1) * self.batch_size)[rows]
        image = to_unit(torch.stack([self.scenes[index].image for index in indices]))  # (B, 3, H, W)
        config = self.autoencoder.config
        side = image.shape[-1] // config.factor
        shape = (self.batch_size, config.latent_channels, side, side)
        noise = torch.randn(shape, generator=generator_for(self.seed, step))[rows]
        device = next(network.parameters()).device
        image, noise = image.to(device), noise.to(device)

        again, mean, logvar, *opinions = network(image, noise)
        mse = (again - image).square().mean()
        kl = Gaussian(mean, logvar).kl().mean() / mean[0].numel()
        loss = (again - image).abs().mean() + self.weights.mse_weight * mse
        numbers = {"psnr": 10 * torch.log10(4 / mse.detach()), "kl": kl.detach()}
        if self.features is not None:
            perceptual = perceptual_distance(self.features.to(device), again, image).mean()
            loss = loss + self.weights.perceptual_weight * perceptual
            numbers |= {"perceptual": perceptual.detach()}
        if opinions:
            extra, more = self.adversarial(loss, *opinions, step)
            loss, numbers = loss + extra, numbers | more
        return loss + self.weights.kl_weight * kl, numbers

    def adversarial(
        self, reconstruction: Tensor, real: Tensor, fake: Tensor, opinion: Tensor, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the discriminator learns from, and what the autoencoder does, weighed to match the reconstruction.

        Their gradients don't mix: `real` and `fake` depend on the discriminator's parameters only, `opinion` on the
        autoencoder's. The weight is that of these rows, in each process its own.
        """
        loss = discriminator_loss(real, fake)
        numbers = {"discriminator": loss.detach(), "real": real.detach().mean(), "fake": fake.detach().mean()}
        theirs = adversarial_loss(opinion)
        if step < self.weights.adversarial_start:
            return loss + 0 * theirs, numbers
        weight = adaptive_weight(reconstruction, theirs, self.autoencoder.decoder.conv_out.weight)
        return loss + self.weights.adversarial_weight * weight * theirs, numbers | {"weight": weight}

    def samples(self) -> Tensor:
        """Pairs of held-out scenes: the original above its reconstruction."""
        scenes = Scenes(self.seed, split="test")
        image = to_unit(torch.stack([scenes[index].image for index in range(16)]))
        image = image.to(next(self.autoencoder.parameters()))
        return torch.cat([image, self.autoencoder.decode(self.autoencoder.encode(image).mode())]).cpu()

    def save(self, folder: Path) -> None:
        """Write `vae/`, with the measured scaling factor: 1 / std of the latents (arXiv 2112.10752, appendix G)."""
        config = self.autoencoder.config
        if self.encoder_learns:
            config = replace(config, scaling_factor=measure_scaling_factor(self.autoencoder, self.scenes))
        save_part(folder / "vae", config, self.autoencoder.state_dict())


@torch.no_grad()
def measure_scaling_factor(autoencoder: Autoencoder, scenes: Scenes, count: int = 1024) -> float:
    """The factor that scales the latents of the first `count` scenes to unit standard deviation."""
    batches = (range(first, min(count, first + 64)) for first in range(0, count, 64))
    device = next(autoencoder.parameters()).device
    pictures = (to_unit(torch.stack([scenes[index].image for index in batch])).to(device) for batch in batches)
    return round(scaling_factor(autoencoder, pictures), 5)
