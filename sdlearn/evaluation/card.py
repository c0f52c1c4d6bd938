"""The model card: the README.md in a model's folder."""

import csv
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open

from sdlearn.data import COLORS, HELD_OUT_SUBJECTS, SUBJECTS
from sdlearn.evaluation.scores import Report
from sdlearn.files import atomic_write, read_json
from sdlearn.training.run import read_recipe

PARTS = {
    "text_encoder": "text encoder",
    "unet": "UNet",
    "vae": "autoencoder",
    "clip": "CLIP, without its text tower",
}
SHOWN = (  # the keys that the table shows for a part, if its config.json has them
    *("block_out_channels", "layers_per_block", "latent_channels", "cross_attention_dim", "attention_head_dim"),
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "scaling_factor"),
)

CARD = """\
---
license: cc-by-sa-4.0
library_name: diffusers
pipeline_tag: text-to-image
---
# {name}: a tiny Stable Diffusion

Text to image at 64×64 pixels: one of {subjects} subjects on one of ten background colours ({colors}), as in "a small
owl on a pink background". It knows the sizes "small" and "large"; its training captions don't mention the size in
between. It is a latent diffusion model with all parts of Stable Diffusion, trained from scratch with `sdlearn`, so
that a course can take it apart on a laptop.

```python
import sdlearn

sdlearn.load("path/to/this/folder")("a small owl on a pink background")[0].save("owl.png")
```
`diffusers.StableDiffusionPipeline.from_pretrained` loads the folder too.

## Data and licence
Scenes drawn from [OpenMoji](https://openmoji.org), the open-source emoji and icon project of HfG Schwäbisch Gmünd
and its contributors, licence [CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/). A scene is one subject,
shrunk and laid on a plain colour, with a caption made from a template. The weights are derived from these pictures and
are under CC BY-SA 4.0 too: if you pass them on, or pictures made with them, credit OpenMoji and keep the licence.
Training left out one of the ten colours for each subject (the "held-out pairs"), and {held_out} subjects completely.

## Parts
| part | folder | parameters | MB | built as |
|---|---|---|---|---|
{parts}

## Training
| | steps | batch | images | hours |
|---|---|---|---|---|
{training}

The recipes are in `sdlearn/training/recipes`. The hours were measured on the machine that trained it, a CPU.

## Scores
{scores}
## Limits
It knows nothing but these subjects, colours and sizes; other words are ignored or misread. It draws one subject near
the middle, in OpenMoji's style, at 64×64 pixels. It errs most on held-out pairs and on the weakest subjects above. It
has never seen people. It is made for learning, not for use.
"""


def write_card(folder: str | Path, report: Report, runs: Mapping[str, tuple[Path, Path]]) -> str:
    """Write the model card, README.md in the model's folder, and return its text.

    runs: for each training run, by its name in the card, its recipe (.toml) and its log (log.csv).

    Raises FileNotFoundError for a missing folder, recipe or log, and ValueError for one that can't be read.
    """
    folder = Path(folder)
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(f"{folder} is not a model folder: it has no model_index.json")
    text = CARD.format(
        name=folder.resolve().name,
        subjects=len(SUBJECTS),
        held_out=len(HELD_OUT_SUBJECTS),
        colors=", ".join(COLORS),
        parts="\n".join(part_row(folder, part) for part in PARTS if (folder / part).is_dir()),
        training="\n".join(training_row(name, *files) for name, files in runs.items()),
        scores=report.table(),
    )
    with atomic_write(folder / "README.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return text


def part_row(folder: Path, part: str) -> str:
    """A part's row: its parameters are counted, its settings read from config.json (for CLIP, only the count)."""
    files = sorted((folder / part).glob("*.safetensors"))
    count = sum(count_parameters(file) for file in files)
    size = sum(file.stat().st_size for file in files) / 1e6
    config = read_json(folder / part / "config.json")
    settings = ", ".join(f"{key} {config[key]}" for key in SHOWN if key in config)
    return f"| {PARTS[part]} | {part} | {count:,} | {size:.1f} | {settings} |"


def count_parameters(file: Path) -> int:
    """How many numbers a safetensors file holds."""
    total = 0
    with safe_open(file, "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118
            count = 1
            for side in tensors.get_slice(name).get_shape():
                count *= side
            total += count
    return total


def training_row(name: str, recipe: Path, log: Path) -> str:
    """Steps, batch size, images and hours of a run. The time is the sum over the rows of its log."""
    batch_size = read_recipe(Path(recipe))["training"]["batch_size"]
    try:
        with Path(log).open(encoding="utf-8", newline="") as stream:
            rows = [(int(row["step"]), float(row["images_per_second"])) for row in csv.DictReader(stream)]
        steps = rows[-1][0]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{log} is not a log of a training run: {error!r}") from error
    starts = [0, *(step for step, _ in rows)]
    seconds = sum((step - start) * batch_size / rate for start, (step, rate) in zip(starts, rows, strict=False))
    return f"| {name} | {steps:,} | {batch_size} | {steps * batch_size:,} | {seconds / 3600:.1f} |"
