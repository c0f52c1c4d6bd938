"""Training the autoencoder: give the picture back, from latents that stay near a standard Gaussian."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from sdlearn.data import Scenes
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig
from sdlearn.pictures import to_unit
from sdlearn.storage.folder import load_part, save_part
from sdlearn.training.loop import TrainConfig, generator_for


@dataclass(frozen=True)
class AutoencoderLoss:
    """The `[loss]` table."""

    kl_weight: float

    def __post_init__(self) -> None:
        if not self.kl_weight >= 0:
            raise ValueError(f"kl_weight must be at least 0, not {self.kl_weight}")


@dataclass(frozen=True)
class AutoencoderParts:
    """The `[parts]` table: `init` is a model folder whose autoencoder's decoder learns further."""

    init: str


@dataclass(frozen=True)
class AutoencoderRecipe:
    """The tables of an autoencoder's or a decoder's recipe: one of `[model]` and `[parts]`, the other two always."""

    training: TrainConfig
    loss: AutoencoderLoss
    model: AutoencoderConfig | None = None
    parts: AutoencoderParts | None = None

    def __post_init__(self) -> None:
        if (self.model is None) == (self.parts is None):
            raise ValueError("there must be one of the tables model and parts")


class AutoencoderObjective(nn.Module):
    """|x − x̂| + (x − x̂)² + kl_weight · KL, each a mean over its numbers. The KL: arXiv 2112.10752, section 3.1."""

    def __init__(self, autoencoder: Autoencoder, kl_weight: float) -> None:
        super().__init__()
        self.autoencoder, self.kl_weight = autoencoder, kl_weight

    def forward(self, image: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(B, 3, H, W) in [−1, 1], noise of the latents' shape."""
        gaussian = self.autoencoder.encode(image)
        latents = gaussian.at(noise)
        difference = self.autoencoder.decode(latents).float() - image
        mse = difference.square().mean()
        kl = gaussian.kl().float().mean() / latents[0].numel()
        loss = difference.abs().mean() + mse + self.kl_weight * kl
        return loss, {"psnr": 10 * torch.log10(4 / mse.detach()), "kl": kl.detach()}


class AutoencoderTask:
    """The autoencoder on scenes, as the recipe's `[model]` says.

    A recipe without `[model]` has `[parts]`, where `init` names a model folder. Training goes on with its decoder and
    leaves the encoder as it is: latents stay what they were, so a UNet that learned them need not learn again.
    """

    def __init__(self, recipe: AutoencoderRecipe) -> None:
        self.seed, self.batch_size = recipe.training.seed, recipe.training.batch_size
        if recipe.model is not None:
            torch.manual_seed(self.seed)  # the first weights
            self.autoencoder = Autoencoder(recipe.model)
        else:
            self.autoencoder = load_part(Path(recipe.parts.init) / "vae", Autoencoder, AutoencoderConfig)
            self.autoencoder.encoder.requires_grad_(False)
            self.autoencoder.quant_conv.requires_grad_(False)
        self.objective = AutoencoderObjective(self.autoencoder, recipe.loss.kl_weight)
        self.scenes = Scenes(self.seed)

    def batch(self, step: int, rows: slice) -> dict[str, Tensor]:
        indices = range(step * self.batch_size, (step + 1) * self.batch_size)
        image = torch.stack([self.scenes[index].image for index in indices[rows]])
        config = self.autoencoder.config
        side = image.shape[-1] // config.factor
        shape = (self.batch_size, config.latent_channels, side, side)
        noise = torch.randn(shape, generator=generator_for(self.seed, step))
        return {"image": to_unit(image), "noise": noise[rows]}

    def samples(self) -> Tensor:
        """Pairs of held-out scenes: the original above its reconstruction."""
        scenes = Scenes(self.seed, split="test")
        image = to_unit(torch.stack([scenes[index].image for index in range(16)]))
        image = image.to(next(self.autoencoder.parameters()))
        return torch.cat([image, self.autoencoder.decode(self.autoencoder.encode(image).mode())]).cpu()

    def save(self, folder: Path) -> None:
        """Write `vae/`, with the measured scaling factor: 1 / std of the latents (arXiv 2112.10752, appendix G)."""
        config = self.autoencoder.config
        if self.autoencoder.quant_conv.weight.requires_grad:
            config = replace(config, scaling_factor=measure_scaling_factor(self.autoencoder, self.scenes))
        save_part(folder / "vae", config, self.autoencoder.state_dict())


@torch.no_grad()
def measure_scaling_factor(autoencoder: Autoencoder, scenes: Scenes, count: int = 1024) -> float:
    """The factor that gives the latents of the first `count` scenes unit standard deviation."""
    latents = []
    for first in range(0, count, 64):
        image = torch.stack([scenes[index].image for index in range(first, min(count, first + 64))])
        image = to_unit(image).to(next(autoencoder.parameters()))
        latents.append(autoencoder.encode(image).mode().float().cpu())
    return round(1 / torch.cat(latents).std().item(), 5)
