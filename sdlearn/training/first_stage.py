"""What Stable Diffusion's first stage minimises besides the difference of pixels, and the scale of its latents.

A perceptual distance compares what a network sees in two pictures, and a discriminator tells reconstructions from
real pictures, patch by patch. Sources: "Taming Transformers for High-Resolution Image Synthesis" (arXiv 2012.09841,
section 3.1), and "High-Resolution Image Synthesis with Latent Diffusion Models" (arXiv 2112.10752, appendix G).
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call

from sdlearn.evaluation.judge import Judge, JudgeConfig, load_judge
from sdlearn.models.autoencoder import Autoencoder

# A classifier of subjects, trained on scenes as they are: it has to see small differences, which the judge, trained on
# changed ones, forgives.
PERCEPTUAL = JudgeConfig(widths=(16, 32, 64, 96), augmentation=0, steps=400)

Features = Callable[[Tensor], Sequence[Tensor]]


class PerceptualFeatures(nn.Module):
    """What each layer of a classifier sees in a picture."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.blocks = judge.blocks

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [−1, 1] -> the outputs of its ReLUs: (B, 16, H/2, W/2), (B, 32, H/4, W/4), ..."""
        outputs, x = [], pictures
        for layer in self.blocks:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                outputs.append(x)
        return outputs


def load_features(file: Path | None = None) -> PerceptualFeatures:
    """The features for the perceptual distance, from a file with their weights.

    Without a file the first time they are trained (minutes), and kept like the judge. Raises RuntimeError when they
    must be trained and the packages that draw scenes are missing.
    """
    features = PerceptualFeatures(Judge(PERCEPTUAL) if file else load_judge(PERCEPTUAL))
    if file:
        features.load_state_dict(load_file(file))
    return features.eval().requires_grad_(False)


def perceptual_distance(features: Features, one: Tensor, other: Tensor) -> Tensor:
    """How different two batches of pictures (B, 3, H, W) look to a network: (B,).

    `features` gives for each of its layers a tensor (B, C, h, w). In each layer the channels of a
    pixel are scaled to a vector of length 1 (one that is all 0 stays so), the squared differences
    are summed over the channels and averaged over the pixels. The layers are added up. LPIPS
    (arXiv 1801.03924, section 3) without its learned weights.
    """
    distance = one.new_zeros(len(one))
    for mine, theirs in zip(features(one), features(other), strict=True):
        difference = F.normalize(mine, dim=1) - F.normalize(theirs, dim=1)
        distance = distance + difference.square().sum(dim=1).mean(dim=(1, 2))  # (B, C, h, w) -> (B,)
    return distance


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The hinge loss of a discriminator: real patches shall get more than 1, fake ones less than −1.

    real, fake: its numbers (B, 1, h, w). What is right by more than that costs nothing; else the
    cost grows in a straight line. The mean of real ones and the mean of fake ones count half each.
    """
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def adversarial_loss(fake: Tensor) -> Tensor:
    """What a discriminator's numbers for reconstructions (B, 1, h, w) cost the autoencoder: it wants them high."""
    return -fake.mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """The weight that lets the adversarial loss pull at the decoder's last layer as hard as the other.

    The length of the reconstruction loss's gradient with respect to that layer's weights, over the
    length of the adversarial loss's plus 1e-4; at most 10,000. No gradient flows through it (arXiv
    2012.09841, section 3.1).
    """

    def pull(loss: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(loss, last_layer, retain_graph=True)
        return gradient.norm()

    return (pull(reconstruction) / (pull(adversarial) + 1e-4)).clamp(max=1e4)


def fixed(network: nn.Module, x: Tensor) -> Tensor:
    """What a network computes; gradients reach its input, but not its parameters."""
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}
    return functional_call(network, parameters, (x,))


def scaling_factor(autoencoder: Autoencoder, batches: Iterable[Tensor]) -> float:
    """1 / the standard deviation of all numbers in the latents of some pictures.

    batches: of pictures (B, 3, H, W) in [−1, 1], each perhaps of another size. Their latents are
    those that the encoder finds most likely.
    """
    latents = torch.cat([autoencoder.encode(pictures).mode().flatten() for pictures in batches])
    return 1 / latents.std().item()
