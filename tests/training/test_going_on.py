"""Going on with a trained autoencoder: with all of it, or with the decoder alone, which leaves the latents alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small import AUTOENCODER, SMALL, assert_same, load

from sdlearn.config import read_table
from sdlearn.lessons.check import randomize_
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig
from sdlearn.storage.folder import load_part, save_part
from sdlearn.training.autoencoder import AutoencoderRecipe, AutoencoderTask
from sdlearn.training.run import run


def make_recipe(init: Path, freeze_encoder: bool = False, **training: object) -> AutoencoderRecipe:
    parts = {"init": str(init), "freeze_encoder": freeze_encoder}
    tables = {"training": SMALL | training, "loss": {"kl_weight": 1e-3}, "parts": parts}
    return read_table(AutoencoderRecipe, tables, "a.toml")


@pytest.fixture
def init(tmp_path: Path) -> Path:
    """A model folder with a random autoencoder."""
    config = replace(AutoencoderConfig.from_dict(AUTOENCODER), scaling_factor=0.7)
    save_part(tmp_path / "init" / "vae", config, randomize_(Autoencoder(config), 1).state_dict())
    return tmp_path / "init"


def read(folder: Path) -> Autoencoder:
    return load_part(folder / "vae", Autoencoder, AutoencoderConfig)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("freeze_encoder", [False, True])
def test_what_learns_and_what_stays(freeze_encoder: bool, optimizer: str, init: Path, tmp_path: Path) -> None:
    recipe = make_recipe(init, freeze_encoder, optimizer=optimizer, steps=2)
    run(AutoencoderTask(recipe), recipe.training, tmp_path / "run", progress=False)
    before, after = read(init), read(tmp_path / "run" / "model")
    assert (after.config == before.config) == freeze_encoder  # the scaling factor is measured anew, or it stays
    state = after.state_dict()
    for name, value in before.state_dict().items():
        stays = freeze_encoder and name.startswith(("encoder.", "quant_conv."))
        assert torch.equal(value, state[name]) == stays, name


def test_it_begins_with_the_weights_of_the_folder(init: Path) -> None:
    task = AutoencoderTask(make_recipe(init))
    assert_same(dict(task.autoencoder.state_dict()), dict(read(init).state_dict()))


def test_muon_goes_on_with_the_same_bits(init: Path, tmp_path: Path) -> None:
    for folder, steps in (("once", 4), ("twice", 2), ("twice", 4)):
        recipe = make_recipe(init, optimizer="muon", steps=steps)
        run(AutoencoderTask(recipe), recipe.training, tmp_path / folder, progress=False)
    once, twice = load(tmp_path / "once"), load(tmp_path / "twice")
    assert len(once["optimizer"]["momentum"]) > 10  # it has its part in the work
    assert_same(twice, once)


@pytest.mark.parametrize("how", ["other weights", "frozen"])
def test_a_run_from_another_beginning_is_refused(how: str, init: Path, tmp_path: Path) -> None:
    recipe = make_recipe(init, freeze_encoder=True)
    run(AutoencoderTask(recipe), recipe.training, tmp_path / "run", progress=False)
    if how == "frozen":
        recipe, message = make_recipe(init), "freeze_encoder was True and is False"
    else:
        autoencoder = randomize_(read(init), 2)
        save_part(init / "vae", autoencoder.config, autoencoder.state_dict())
        message = r"checksum of init was '\w+' and is '\w+'"
    with pytest.raises(ValueError, match=f"is from another recipe: .*{message}"):
        run(AutoencoderTask(recipe), recipe.training, tmp_path / "run", progress=False)
