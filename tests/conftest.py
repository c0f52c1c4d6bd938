"""Fixtures that all tests share, and `--parity FILE`, which writes down how far ours was from the reference."""

import ipaddress
import platform
import socket
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.files import atomic_write
from sdlearn.lessons.check import MEASUREMENTS, measurements_table, randomize_
from sdlearn.models.autoencoder import Autoencoder, AutoencoderConfig
from sdlearn.models.text import TextConfig, TextEncoder
from sdlearn.models.unet import UNet, UNetConfig
from sdlearn.pipeline import StableDiffusion
from sdlearn.storage.save import save
from sdlearn.tasks.plan import Defaults
from sdlearn.tokenizer import train_bpe

CAPTIONS = [
    "a small red apple on a blue background",
    "a large green cat",
    "an owl on a pink background",
    "a blue guitar",
]


def is_local(address: Any) -> bool:
    """Unix sockets and the loopback, which notebook kernels need."""
    if not isinstance(address, tuple):
        return True
    host = str(address[0])
    try:
        return host == "localhost" or ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:  # a name
        return False


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Forbid every connection beyond this machine."""
    with pytest.MonkeyPatch.context() as patch:
        for method in ("connect", "connect_ex", "sendto"):
            original = getattr(socket.socket, method)

            def guarded(self: socket.socket, *args: Any, original: Any = original) -> Any:
                if not is_local(args[-1]):
                    raise RuntimeError(f"tests must not use the network, but one connects to {args[-1]}")
                return original(self, *args)

            patch.setattr(socket.socket, method, guarded)

        look_up = socket.getaddrinfo

        def guarded_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
            if host is not None and not is_local((host.decode() if isinstance(host, bytes) else host,)):
                raise RuntimeError(f"tests must not use the network, but one looks up {host}")
            return look_up(host, *args, **kwargs)

        patch.setattr(socket, "getaddrinfo", guarded_look_up)
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


def make_tiny(schedule: ScheduleConfig) -> StableDiffusion:
    """The bundled model's shape, but narrower and with random weights."""
    tokenizer = train_bpe(CAPTIONS, 560)
    end = len(tokenizer) - 1
    text = TextConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=32,
        vocab_size=len(tokenizer),
        bos_token_id=end - 1,
        eos_token_id=end,
        pad_token_id=end,
    )
    autoencoder = AutoencoderConfig(
        block_out_channels=(8, 16, 16),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=0.5,
        mid_block_add_attention=False,
    )
    unet = UNetConfig(
        sample_size=16,
        block_out_channels=(16, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=2,
        norm_num_groups=8,
    )
    return StableDiffusion(
        tokenizer,
        randomize_(TextEncoder(text), 1),
        randomize_(Autoencoder(autoencoder), 2),
        randomize_(UNet(unet), 3),
        Schedule(schedule),
        defaults=Defaults(height=64, width=64, steps=5, guidance_scale=3.0),
        card="# A random model, for tests\n",
    )


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete model folder with random weights in half precision, and the bundled model's schedule. Read only."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    config = ScheduleConfig(
        prediction_type="v_prediction", timestep_spacing="trailing", scheduler="DPMSolverMultistepScheduler"
    )
    save(make_tiny(config), folder)
    return folder


@pytest.fixture(scope="session")
def epsilon_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with Stable Diffusion 1's schedule: epsilon prediction, leading spacing."""
    folder = tmp_path_factory.mktemp("models") / "epsilon"
    save(make_tiny(ScheduleConfig()), folder)
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity", metavar="FILE", help="write the worst difference of each comparison into a table")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the table, but not from a run in which a comparison may have failed or was left out by an error."""
    file = session.config.getoption("--parity")
    if file and exitstatus == pytest.ExitCode.OK:
        with atomic_write(Path(file)) as temporary:
            temporary.write_text(parity_report(), encoding="utf-8")


def parity_report() -> str:
    """All of MEASUREMENTS, and what they are of, as Markdown."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers"))
    return "\n".join(
        [
            "# Parity with the reference",
            "",
            "Written by `make parity` from the tests. Ours and the reference get the same weights, all of them random,",
            "and the same inputs, on a CPU. Each row holds the worst of its comparisons: max |Δ|, relative to the",
            "largest value of the reference where that is above 1; for gradients, to the parameter's largest one.",
            "",
            "The column for float64 says whether both compute the same: then only rounding is left, far below 1e-9.",
            "Where it is more, the reference rounds to float32 somewhere within, and the test says where. The column",
            "for float32 says what such rounding comes to in practice; other processors give other digits.",
            "",
            f"Versions: Python {platform.python_version()}, {packages}.",
            "",
            measurements_table(MEASUREMENTS),
        ]
    )
