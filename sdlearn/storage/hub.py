"""Where a model is: in a folder, in a file, or on the Hugging Face hub, from which it is downloaded."""

import re
from collections.abc import Iterable
from pathlib import Path

from sdlearn.storage.folder import ACCEPTED, NETWORKS, check_folder
from sdlearn.storage.single_file import SINGLE_FILES
from sdlearn.storage.weights import PICKLES, SAFETENSORS

HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def find_model(source: str | Path) -> tuple[Path, str]:
    """Where a model is, a folder or a file, and its name. If it isn't here, it is downloaded from the hub."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path, path.resolve().name
    if path.is_file() and path.suffix.lower() in SINGLE_FILES:
        return path, path.stem
    if path.exists():
        raise ValueError(f"{path} is another kind of file; {ACCEPTED}")
    hub_name = path.as_posix()
    if path.suffix.lower() in SINGLE_FILES or not HUB_NAME.fullmatch(hub_name):
        raise FileNotFoundError(f"no model at {path}; {ACCEPTED}")
    folder = fetch(hub_name, ["README.md", "defaults.json", "tokenizer/*", "*/*.json"])
    check_folder(folder)  # before gigabytes of another kind are fetched
    fetch_weights(hub_name, NETWORKS)
    return folder, hub_name


def fetch(name: str, files: Iterable[str]) -> Path:
    """Files of a model on the Hugging Face hub: the folder in huggingface_hub's cache, once all that exist are there.

    `files` may hold `*`. With HF_HUB_OFFLINE=1 in the environment only the cache is used.

    Raises:
        FileNotFoundError: there is no such model, no access to it, or it is not cached and the hub can't be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(name, allow_patterns=["model_index.json", *files]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise FileNotFoundError(
            f"no folder or file {name} here, and no model {name} from the Hugging Face hub or its cache: {error}"
        ) from error


def fetch_weights(name: str, parts: Iterable[str]) -> None:
    """Fetch the weights of a model's parts from the hub: safetensors, or pickles if there are no safetensors."""
    for part in parts:
        for kind in (SAFETENSORS, PICKLES):
            folder = fetch(name, [f"{part}/{file}" for file in kind])
            if any((folder / part / file).is_file() for file in kind):
                break
