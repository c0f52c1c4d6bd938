"""Training a decoder further: the latents, and what a UNet learned of them, stay what they were."""

from pathlib import Path

import torch

from sdlearn.lessons.check import randomize_
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig
from sdlearn.storage.folder import load_part, save_part
from sdlearn.training.autoencoder import AutoencoderLoss, AutoencoderParts, AutoencoderRecipe, AutoencoderTask
from sdlearn.training.loop import TrainConfig, train


def test_decoder_learns_and_the_encoder_stays(tmp_path: Path) -> None:
    config = AutoencoderConfig(
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
        scaling_factor=0.7,
    )
    before = randomize_(Autoencoder(config), 1)
    save_part(tmp_path / "init" / "vae", config, before.state_dict())
    training = TrainConfig(steps=2, batch_size=2, learning_rate=1e-3)
    parts = AutoencoderParts(init=str(tmp_path / "init"))
    recipe = AutoencoderRecipe(training, AutoencoderLoss(kl_weight=0.0), parts=parts)
    train(AutoencoderTask(recipe), training, tmp_path / "run", progress=False)

    after = load_part(tmp_path / "run" / "model" / "vae", Autoencoder, AutoencoderConfig)
    assert after.config == config  # the scaling factor too
    kept = [name.startswith(("encoder.", "quant_conv.")) for name in before.state_dict()]
    same = [torch.equal(a, b) for a, b in zip(before.state_dict().values(), after.state_dict().values(), strict=True)]
    assert any(kept)
    assert same == kept
