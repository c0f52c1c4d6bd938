"""Adapters for tests: random in every number, so that no update is zero and no two layers can be swapped unseen."""

from collections.abc import Sequence

import torch

from sdlearn.adapters.lora import TARGETS, LoRA, create
from sdlearn.pipeline import StableDiffusion


@torch.no_grad()
def random_lora(
    model: StableDiffusion,
    rank: int = 3,
    alpha: float | None = None,
    targets: Sequence[str] = tuple(TARGETS),
    seed: int = 0,
    std: float = 0.1,
) -> LoRA:
    """An adapter of the model's dtype, with values that half precision and float32 hold exactly."""
    generator = torch.Generator().manual_seed(seed)
    lora = create(model, rank, alpha, targets, generator)
    for update in lora.values():
        for matrix in (update.A, update.B):
            matrix.copy_((std * torch.randn(matrix.shape, generator=generator)).half())
    return lora
