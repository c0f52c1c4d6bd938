"""Training the autoencoder: reconstruct the picture from latents that stay close to a standard Gaussian."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdlearn.data import Scenes
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig, Gaussian
from sdlearn.pictures import to_unit
from sdlearn.storage.folder import load_part, save_part
from sdlearn.training.loop import TrainConfig, checksum, generator_for


@dataclass(frozen=True)
class AutoencoderLoss:
    """The `[loss]` table. Squared errors stress edges, where errors are large; absolute ones plain colour too."""

    kl_weight: float
    mse_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("kl_weight", "mse_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")


@dataclass(frozen=True)
class AutoencoderParts:
    """The `[parts]` table: `init` is a model folder whose autoencoder, or only its decoder, is trained further."""

    init: str
    freeze_encoder: bool = False


@dataclass(frozen=True)
class AutoencoderRecipe:
    """The tables of an autoencoder's recipe: either `[model]` or `[parts]`, and always the other two."""

    training: TrainConfig
    loss: AutoencoderLoss
    model: AutoencoderConfig | None = None
    parts: AutoencoderParts | None = None

    def __post_init__(self) -> None:
        if (self.model is None) == (self.parts is None):
            raise ValueError("there must be either a table model or a table parts")


class Reconstruction(nn.Module):
    """A picture through the encoder and back through the decoder, in one call."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, image: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) in [−1, 1] and (B, C, H/f, W/f) -> reconstruction, and the latents' mean and log-variance."""
        gaussian = self.autoencoder.encode(image)
        return self.autoencoder.decode(gaussian.at(noise)), gaussian.mean, gaussian.logvar


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
            self.autoencoder = load_part(Path(recipe.parts.init) / "vae", Autoencoder, AutoencoderConfig)
        self.settings: dict[str, Any] = {"loss": asdict(recipe.loss), "model": asdict(self.autoencoder.config)}
        if recipe.parts is not None:
            self.settings |= {"freeze_encoder": recipe.parts.freeze_encoder}
            self.settings |= {"checksum of init": checksum(self.autoencoder)[:12]}
        self.encoder_learns = recipe.parts is None or not recipe.parts.freeze_encoder
        self.autoencoder.requires_grad_(True)
        self.autoencoder.encoder.requires_grad_(self.encoder_learns)
        self.autoencoder.quant_conv.requires_grad_(self.encoder_learns)
        self.network = Reconstruction(self.autoencoder)
        self.scenes = Scenes(self.seed)

    def loss(self, network: nn.Module, step: int, rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        """|x − x̂| + mse_weight · (x − x̂)² + kl_weight · KL, each a mean over its elements.

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

        again, mean, logvar = network(image, noise)
        mse = (again - image).square().mean()
        kl = Gaussian(mean, logvar).kl().mean() / mean[0].numel()
        loss = (again - image).abs().mean() + self.weights.mse_weight * mse + self.weights.kl_weight * kl
        return loss, {"psnr": 10 * torch.log10(4 / mse.detach()), "kl": kl.detach()}

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
    latents = []
    for first in range(0, count, 64):
        image = torch.stack([scenes[index].image for index in range(first, min(count, first + 64))])
        image = to_unit(image).to(next(autoencoder.parameters()))
        latents.append(autoencoder.encode(image).mode().float().cpu())
    return round(1 / torch.cat(latents).std().item(), 5)
