"""Lessons 16 and 17: the bundled model learns a mammoth, in several ways, and is measured on the way.

    make recorded RUN=new_subject

Takes an hour on one core; what is done is kept in the folder `work`. The recipes are those in
`sdlearn/training/recipes` with a few numbers changed, see RUNS. After some of their steps `sdlearn.evaluation.subject`
measures the model:

- `new_subject.csv`: a row for each run and step: the scores, how many numbers learn, and the bytes of the file;
- `new_subject.png`: the same six prompts, three of the mammoth, two of elephants, one more: a row for each step of the
  first two runs, and one for the end of each of the others;
- `new_subject_spectrum.csv`: how much of DreamBooth's update the best matrix of rank 1, 2, 4, … holds: the share of the
  sum of squares, the mean over the layers that LoRA updates; beside it that of random numbers of the same shape;
- `new_subject_lora.safetensors`, `new_subject_style.safetensors`, `new_subject_word.safetensors`: what was learned.
"""

import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

import sdlearn
from sdlearn.adapters.lora import create, layers
from sdlearn.config import read_table
from sdlearn.evaluation.judge import load_judge
from sdlearn.evaluation.subject import Likeness, measure
from sdlearn.files import atomic_write
from sdlearn.lessons.recorded import FOLDER, write_rows
from sdlearn.pictures import image_grid, to_images, to_unit
from sdlearn.training.adapters import LoRARecipe, LoRATask, TextualInversionRecipe, TextualInversionTask
from sdlearn.training.dreambooth import DreamBoothRecipe, DreamBoothTask
from sdlearn.training.loop import State, train
from sdlearn.training.run import read_recipe

SUBJECT, CLASS = "mammoth", "elephant"
KINDS = {
    "dreambooth": (DreamBoothRecipe, DreamBoothTask),
    "lora": (LoRARecipe, LoRATask),
    "textual_inversion": (TextualInversionRecipe, TextualInversionTask),
}
WITHOUT_PRIOR = {"data": {"class_prompts": [], "class_pictures": 0}}
RANKS = (1, 2, 4, 8, 16)
SHOWN = (4, 2, 6, 24, 31, 40)  # of the pictures that `measure` draws


@dataclass(frozen=True)
class Run:
    """A recipe's kind, what is changed in it, and after which steps the model is measured."""

    kind: str
    steps: tuple[int, ...]
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    said: str = f"zwx {CLASS}"


STEPS = (0, 10, 25, 50, 100, 200, 400)
RUNS = {
    "prior": Run("dreambooth", STEPS),
    "no prior": Run("dreambooth", STEPS, WITHOUT_PRIOR),
    **{
        f"rate {rate:g}": Run("dreambooth", (25, 50, 100, 200, 400), {"training": {"learning_rate": rate}})
        for rate in (1e-5, 3e-5, 3e-4, 1e-3)
    },
    "common word": Run("dreambooth", (50, 100, 200), {"data": {"prompts": [f"a rocket {CLASS}"]}}, f"rocket {CLASS}"),
    "text encoder": Run("dreambooth", (50, 100, 200), {"model": {"text_encoder": True}}),
    **{f"rank {rank}": Run("lora", (50, 150), {"lora": {"rank": rank}}) for rank in RANKS},
    **{
        f"{count} vectors": Run("textual_inversion", (50, 100, 200, 400), {"word": {"vectors": count}}, "<mammoth>")
        for count in (1, 4)
    },
}
IN_STEPS = ("prior", "no prior")
STYLE = {
    "subjects": ["cat", "red apple", "owl", "sailboat", "guitar", "fox", "cactus", "key"],
    "pictures": 24,
    "style": "line",
    "prompts": ["zwx {caption}"],
    "class_prompts": [],
    "class_pictures": 0,
}


def make_task(kind: str, changes: dict[str, dict[str, Any]], steps: int, work: Path) -> DreamBoothTask:
    """The recipe of that kind, with changes."""
    recipe, task = KINDS[kind]
    file = FOLDER.parents[1] / "training" / "recipes" / f"{kind}.toml"
    tables = read_recipe(file)
    tables = {name: tables.get(name, {}) | changes.get(name, {}) for name in tables | changes}
    tables["training"] |= {"steps": steps}
    return task(read_table(recipe, tables, str(file)), work, progress=False)


def do(run: Run, name: str, work: Path, likeness: Likeness) -> tuple[list[dict[str, str]], list[Tensor]]:
    """Train, and measure after the steps. Returns the table's rows, and the pictures of each, (6, 3, 64, 64) uint8."""
    file = work / f"{name.replace(' ', '_')}.pt"
    if not file.exists():
        prior = run.kind != "textual_inversion" and "class_pictures" not in run.changes.get("data", {})
        task = make_task(run.kind, run.changes, run.steps[-1], work / "latents" / ("prior" if prior else "alone"))
        state = State(task, task.recipe.training)
        rows, pictures = [], []
        for steps in run.steps:
            for _ in train(task, replace(task.recipe.training, steps=steps), state) if steps else ():
                pass
            scores, drawn = measure(task.model, likeness, SUBJECT, run.said, CLASS)
            learns = sum(parameter.numel() for parameter in state.parameters)
            rows.append({"run": name, "step": str(steps), "learns": str(learns)})
            rows[-1] |= {key: f"{value:.4g}" for key, value in asdict(scores).items()}
            pictures.append(drawn[list(SHOWN)])
            print(rows[-1], flush=True)
        folder = work / name.replace(" ", "_")
        task.save(folder)
        size = sum(one.stat().st_size for one in folder.rglob("*.safetensors"))
        rows = [row | {"bytes": str(size)} for row in rows]
        with atomic_write(file) as temporary:
            torch.save({"rows": rows, "pictures": torch.stack(pictures)}, temporary)
    values = torch.load(file, weights_only=True)
    return values["rows"], list(values["pictures"])


def spectrum(trained: Path) -> list[dict[str, str]]:
    """How much of a full update, in the layers that LoRA can have, is of low rank."""
    before, after = sdlearn.load(sdlearn.BUNDLED), sdlearn.load(trained)
    names = create(before, 1, targets=("attention", "feed_forward", "projections"))
    old, new = layers(before), layers(after)
    shares: dict[str, list[Tensor]] = {"update": [], "random": []}
    for name in names:
        update = (new[name].weight - old[name].weight.half().float()).flatten(1).double()
        noise = torch.randn(update.shape, generator=torch.Generator().manual_seed(0)).double()
        for kind, matrix in (("update", update), ("random", noise)):
            squares = torch.linalg.svdvals(matrix).square()
            shares[kind].append(torch.stack([squares[:rank].sum() / squares.sum() for rank in (*RANKS, 32, 64)]))
    means = {kind: torch.stack(values).mean(0).tolist() for kind, values in shares.items()}
    ranks = (*RANKS, 32, 64)
    return [{"rank": str(r)} | {kind: f"{means[kind][i]:.4f}" for kind in means} for i, r in enumerate(ranks)]


def record(work: Path, target: Path, runs: dict[str, Run], likeness: Likeness) -> None:
    """Do the runs, in the folder `work`, and write the files that begin with `target`, anew after each run."""
    work.mkdir(parents=True, exist_ok=True)
    rows, sheet = [], []
    for name, run in runs.items():
        some, pictures = do(run, name, work, likeness)
        rows += some
        sheet += [image for one in pictures[0 if name in IN_STEPS else -1 :] for image in to_images(to_unit(one))]
        write_rows(target.with_suffix(".csv"), rows)
        with atomic_write(target.with_suffix(".png")) as temporary:
            image_grid(sheet, columns=len(SHOWN)).save(temporary, format="PNG", optimize=True)


def main(work: Annotated[Path, typer.Option(help="What is done.")] = Path("runs/new_subject")) -> None:
    """Make the recorded run."""
    target = FOLDER / "new_subject"
    record(work, target, RUNS, Likeness.with_new(load_judge(), SUBJECT))
    write_rows(target.with_name(f"{target.name}_spectrum.csv"), spectrum(work / "no_prior"))
    shutil.copyfile(work / "rank_4" / "lora.safetensors", target.with_name(f"{target.name}_lora.safetensors"))
    shutil.copyfile(work / "1_vectors" / "embedding.safetensors", target.with_name(f"{target.name}_word.safetensors"))
    if not (work / "style" / "lora.safetensors").exists():
        task = make_task("lora", {"data": STYLE}, 300, work / "latents" / "style")
        for _ in train(task, task.recipe.training):
            pass
        task.save(work / "style")
    shutil.copyfile(work / "style" / "lora.safetensors", target.with_name(f"{target.name}_style.safetensors"))


if __name__ == "__main__":
    typer.run(main)
