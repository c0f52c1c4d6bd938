"""The `sdlearn` command. Each command imports torch itself, so that `sdlearn --help` is quick."""

import errno
import json
import math
import os
import platform
import re
import sys
import time
import warnings
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from sdlearn.config import read_table
from sdlearn.console import PathArgument, PathOption, call, model_name, path, prepare
from sdlearn.files import atomic_write

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdlearn.pipeline import StableDiffusion
    from sdlearn.training.dreambooth import DreamBoothTask
    from sdlearn.training.loop import TrainConfig

app = typer.Typer(
    help="Stable Diffusion from scratch: draw pictures, train models, measure them. --debug shows where an error is.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

PROMPTS = (
    "a penguin on a blue background",
    "a large red apple on a yellow background",
    "a cat on a green background",
    "a small sailboat on an orange background",
    "a small owl on a pink background",
    "a large strawberry on a white background",
    "a rocket on a purple background",
    "a snowman on a red background",
)
Model = Annotated[
    str | None,
    typer.Option(parser=model_name, help="A folder, file or hub name. Else $SDLEARN_MODEL, else the bundled model."),
]


def main() -> None:
    """Run the command line. An error is one line on stderr, and the exit status is 1, or 2 for a wrong command line."""
    call(app)


@dataclass(frozen=True)
class Settings:
    """Everything that a picture depends on, stored in the PNG under the key "sdlearn"."""

    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    sampler: str
    guidance_scale: int | float
    model: str | None
    image: str | None = None  # only for image to image and inpainting, like the next two
    mask: str | None = None
    strength: int | float | None = None
    lora: list | None = None  # FILE or FILE:SCALE, each a text
    embedding: list | None = None  # files

    def to_dict(self) -> dict[str, Any]:
        """What is stored: everything that is used."""
        return {key: value for key, value in asdict(self).items() if value is not None or key == "model"}

    @classmethod
    def from_image(cls, file: Path) -> Self:
        """Read what `save_image` stored.

        Raises:
            OSError: the file is missing.
            ValueError: it isn't a picture, or holds no settings, or settings that can't be read.
        """
        from sdlearn.data.folder import open_picture

        text = open_picture(file).info.get("sdlearn")
        if text is None:
            raise ValueError(f"{file} holds no settings: `sdlearn generate` didn't make it, or its text was removed")
        try:
            settings = cls(**json.loads(text))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{file} holds settings that can't be read: {error}") from error
        for field in fields(cls):
            value = getattr(settings, field.name)
            if isinstance(value, bool) or not isinstance(value, field.type):
                raise ValueError(f"{file} holds {field.name} = {value!r}, which is not of type {field.type}")
        for name in ("lora", "embedding"):
            if not all(isinstance(one, str) for one in getattr(settings, name) or ()):
                raise ValueError(f"{file} holds {name} = {getattr(settings, name)!r}, must be a list of texts")
        return settings


def save_image(image: "Image", file: Path, settings: Settings | None = None) -> None:
    """Write a PNG atomically. Raises OSError when that can't be done."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if settings is not None:
        info.add_itxt("sdlearn", json.dumps(settings.to_dict(), ensure_ascii=False))
    with atomic_write(file) as temporary:
        image.save(temporary, format="PNG", pnginfo=info)


@app.command()
def generate(
    prompt: Annotated[str | None, typer.Argument(help="What to draw.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What to avoid.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Picture i has the seed SEED + i.  [default: 0]")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the sampler.  [default: the model's]")] = None,
    sampler: Annotated[str | None, typer.Option(help="`info` lists all.  [default: the model's]")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="1 means no guidance.  [default: the model's]")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many. Above 1, the seed is added to the file name.")] = 1,
    image: Annotated[Path | None, PathOption(help="A picture to change. It is resized to the model's size.")] = None,
    mask: Annotated[Path | None, PathOption(help="White where --image is redrawn; the rest stays as it is.")] = None,
    strength: Annotated[float | None, typer.Option(help="How far --image may change, up to 1.")] = None,
    lora: Annotated[list[str] | None, typer.Option(metavar="FILE[:SCALE]", help="A LoRA; several are added.")] = None,
    embedding: Annotated[list[Path] | None, PathOption(help="A new word for prompts.")] = None,
    model: Model = None,
    like: Annotated[Path | None, PathOption(help="A picture made by this command: use its settings.")] = None,
    output: Annotated[Path, PathOption(help="The PNG file to write.")] = Path("out/picture.png"),
) -> None:
    """Draw pictures from words, or from a picture and words.

    The settings are stored in each picture; `--like PICTURE` draws it again.
    """
    given = {"prompt": prompt, "negative_prompt": negative_prompt, "seed": seed, "steps": steps, "sampler": sampler}
    given |= {"guidance_scale": guidance_scale, "model": model, "strength": strength}
    given |= {"image": image and str(image), "mask": mask and str(mask)}
    given |= {"lora": lora or None, "embedding": [str(file) for file in embedding or ()] or None}
    stored = Settings.from_image(like).to_dict() if like else {}
    chosen = stored | {name: value for name, value in given.items() if value is not None}
    if "prompt" not in chosen:
        raise ValueError('say what to draw, as in: sdlearn generate "a red apple", or name a picture with --like')
    if "image" not in chosen and {"mask", "strength"} & chosen.keys():
        raise ValueError("--mask and --strength need a picture: --image FILE")
    prepare(output)

    import sdlearn
    from sdlearn.storage.load import BUNDLED

    source = chosen.get("model", os.environ.get("SDLEARN_MODEL"))  # None: the bundled model, in a stored picture too
    if source and model is None and "model" in stored and not path(source).exists():
        raise ValueError(f"{like} names the model {source}, which is not here; if you trust it, add --model {source}")
    pipeline = sdlearn.load(source or BUNDLED)
    defaults: dict[str, Any] = {"negative_prompt": "", "seed": 0, "model": source}
    defaults |= {name: getattr(pipeline.defaults, name) for name in ("steps", "sampler", "guidance_scale")}
    first = Settings(**(defaults | chosen))
    adapt(pipeline, first)
    for number in range(first.seed, first.seed + count):
        # One at a time: in a batch the last bits would differ, and `--like` couldn't reproduce the pixels.
        settings = replace(first, seed=number)
        file = output if count == 1 else output.with_stem(f"{output.stem}-{number}")
        save_image(draw(pipeline, settings), file, settings)
        print(file)


def adapt(model: "StableDiffusion", settings: Settings) -> None:
    """Attach the LoRAs of the settings to a model, and teach it their words. Warns of a word that nobody uses."""
    from sdlearn.adapters.lora import attach
    from sdlearn.adapters.textual_inversion import add_word
    from sdlearn.storage.lora import load_lora
    from sdlearn.storage.textual_inversion import load_embedding

    for text in settings.lora or ():
        file, scale = split_scale(text)
        attach(model, load_lora(file, model), scale)
    for file in settings.embedding or ():
        word, vectors = load_embedding(path(file))
        add_word(model, word, vectors)
        if word.lower() not in f"{settings.prompt} {settings.negative_prompt}".lower():
            warnings.warn(f"{file} is the word {word!r}, which is not in the prompt", stacklevel=2)


def split_scale(text: str) -> tuple[Path, float]:
    """FILE or FILE:SCALE. A file that has such a name is the file; without a scale it is 1."""
    file, colon, scale = text.rpartition(":")
    if path(text).is_file() or not colon:
        return path(text), 1.0
    try:
        number = float(scale)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"--lora {text}: the scale {scale!r} must be a number, as in style.safetensors:0.8")
    return path(file), number


def draw(model: "StableDiffusion", settings: Settings) -> "Image":
    """One picture: text to image; with an image, image to image; with a mask as well, inpainting."""
    import sdlearn
    from sdlearn.data.folder import open_picture

    arguments = settings.to_dict()
    for name in ("model", "lora", "embedding"):  # they are in the model
        arguments.pop(name, None)
    files = {"picture": arguments.pop("image", None), "mask": arguments.pop("mask", None)}
    files = {name: file for name, file in files.items() if file is not None}
    if files:
        arguments |= {name: open_picture(path(file)) for name, file in files.items()}
        arguments |= {"task": sdlearn.inpaint if "mask" in files else sdlearn.image_to_image}
        arguments |= {"height": model.defaults.height, "width": model.defaults.width}
    (image,) = model(arguments.pop("prompt"), **arguments)
    return image


@app.command()
def demo(
    prompt: Annotated[str | None, typer.Argument(help="What to draw.  [default: eight prompts]")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Picture i has the seed SEED + i.")] = 0,
    model: Model = None,
    output: Annotated[Path, PathOption(help="The PNG file to write.")] = Path("out/demo.png"),
) -> None:
    """Draw eight prompts on one sheet, or one of yours."""
    prepare(output)
    started = time.perf_counter()
    import sdlearn
    from sdlearn.pictures import captioned_grid

    pipeline = sdlearn.load(model)
    loaded = time.perf_counter()
    prompts = [prompt] if prompt else list(PROMPTS)
    images = pipeline(prompts, seed=seed)
    sampled = time.perf_counter()
    save_image(captioned_grid(images, prompts, columns=4, side=384 if prompt else 192), output)
    print(f"{output}  (loading {loaded - started:.1f} s, sampling {sampled - loaded:.1f} s)")


@app.command()
def info(model: Model = None) -> None:
    """Print versions, the devices that work, the samplers, and the model's card."""
    print("Python", platform.python_version())
    for package in ("sdlearn", "torch", "numpy", "safetensors", "diffusers", "transformers"):
        try:
            print(package, version(package))
        except PackageNotFoundError:
            print(package, "is not installed")

    import torch

    import sdlearn

    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    for device in devices:
        a = torch.arange(64 * 64).reshape(64, 64) % 13
        expected = a @ a.T  # whole numbers below 2**24, which float32 holds exactly
        result = (a.float().to(device) @ a.T.float().to(device)).cpu()
        if not torch.equal(result, expected.float()):
            raise RuntimeError(f"{device} computes incorrectly: the product of two matrices is wrong")
        name = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{torch.get_num_threads()} threads"
        print(f"{device}: works ({'Apple GPU' if device == 'mps' else name}; a matrix product was run and checked)")

    pipeline = sdlearn.load(model)
    parameters = sum(parameter.numel() for network in pipeline.networks for parameter in network.parameters())
    print("samplers:", ", ".join(pipeline.samplers))
    print(f"model {pipeline.name}: {parameters:,} parameters, on {pipeline.device} in {pipeline.dtype}\n")
    print(without_front_matter(pipeline.card or "This model has no card."))


def without_front_matter(card: str) -> str:
    """A model card without its YAML front matter, which is for machines."""
    return re.sub(r"\A---\n.*?^---\n\s*", "", card, count=1, flags=re.DOTALL | re.MULTILINE)


@app.command()
def passport(
    folder: Annotated[Path | None, PathArgument(help="Somebody else's passport.  [default: yours]")] = None,
    run_their_code: Annotated[bool, typer.Option(help="Don't ask before running what is in FOLDER.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="The picture's seed.")] = 0,
    model: Model = None,
    output: Annotated[Path, PathOption(help="The PNG file to write.")] = Path("out/passport.png"),
) -> None:
    """List all exercises, judge the answers in a passport again, and draw a picture with those that are right."""
    prepare(output)
    if folder is not None:
        ask_before_running(folder, run_their_code)
    from sdlearn.lessons.exercises.drawing import draw_passport_apart
    from sdlearn.lessons.exercises.passport import EXERCISES, judge_folder, passport_folder

    own = {}
    print("   exercise                 minutes")
    for exercise, verdict, text in judge_folder(folder or passport_folder()):
        if verdict.green:
            own[exercise.id] = text
        said = {"○": "", "✔": "yours", "✘": f"left out, it no longer passes: {verdict.text}"}[verdict.mark]
        print(f"{verdict.mark}  {exercise.id:<24} {exercise.minutes:>7}  {said}".rstrip())
    if not own:
        minutes = sum(exercise.minutes for id, exercise in EXERCISES.items() if id.startswith("00."))
        print("\nNothing is yours yet. Begin with lesson 00, notebooks/00_start_here.ipynb.")
        print(f"Its exercises take {minutes} minutes.")
        return
    image, parts = draw_passport_apart(own, PROMPTS[0], seed, model or os.environ.get("SDLEARN_MODEL"))
    save_image(image, output)
    print(f"\nExercises that are yours: {len(own)} of {len(EXERCISES)}.")
    print(f"Parts of your own that drew the picture: {len(parts)}{': ' * bool(parts)}{', '.join(parts)}.")
    print(output)


def ask_before_running(folder: Path, agreed: bool) -> None:
    """Say that judging a passport runs it, and ask.

    Raises FileNotFoundError if there is no such folder, ValueError if the answer is no.
    """
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(folder))
    print(f"The answers in {folder} are programs. Judging them runs them on this computer, with your rights:")
    print("each in a process of its own and with a time limit, but nothing keeps them from your files.")
    if not agreed and not (sys.stdin.isatty() and typer.confirm("Do you trust whoever wrote them?", default=False)):
        raise ValueError("nothing was run; with --run-their-code it is run without asking")


class Kind(StrEnum):
    """What can be trained."""

    CLIP = "clip"
    AUTOENCODER = "autoencoder"
    DIFFUSION = "diffusion"
    DREAMBOOTH = "dreambooth"
    LORA = "lora"
    TEXTUAL_INVERSION = "textual-inversion"


TEACHING = (Kind.DREAMBOOTH, Kind.LORA, Kind.TEXTUAL_INVERSION)


@app.command()
def train(
    kind: Annotated[Kind, typer.Argument(help="What to train.")],
    recipe: Annotated[Path, PathOption(help="The recipe, a TOML file, as in sdlearn/training/recipes.")],
    output: Annotated[Path, PathOption(help="The run's folder. A run that was stopped resumes from there.")],
) -> None:
    """Train a network as a recipe says. The finished network is in OUTPUT/model."""
    try:
        from sdlearn.training.lock import lock
        from sdlearn.training.loop import processes
        from sdlearn.training.run import read_recipe, run
    except ModuleNotFoundError as error:
        raise RuntimeError(f"training needs {error.name}: pip install 'sdlearn[train]'") from error
    match kind:
        case Kind.CLIP:
            from sdlearn.training.clip import CLIPRecipe as Recipe
            from sdlearn.training.clip import CLIPTask as Task
        case Kind.AUTOENCODER:
            from sdlearn.training.autoencoder import AutoencoderRecipe as Recipe
            from sdlearn.training.autoencoder import AutoencoderTask as Task
        case Kind.DIFFUSION:
            from sdlearn.training.diffusion import DiffusionRecipe as Recipe
            from sdlearn.training.diffusion import DiffusionTask as Task
        case Kind.DREAMBOOTH:
            from sdlearn.training.dreambooth import DreamBoothRecipe as Recipe
            from sdlearn.training.dreambooth import DreamBoothTask as Task
        case Kind.LORA:
            from sdlearn.training.adapters import LoRARecipe as Recipe
            from sdlearn.training.adapters import LoRATask as Task
        case Kind.TEXTUAL_INVERSION:
            from sdlearn.training.adapters import TextualInversionRecipe as Recipe
            from sdlearn.training.adapters import TextualInversionTask as Task

    values = read_table(Recipe, read_recipe(recipe), str(recipe))
    first = processes().is_main_process
    with lock(output) if first else nullcontext():
        alone = kind in (Kind.CLIP, Kind.AUTOENCODER)
        task = Task(values) if alone else Task(values, output)  # the others store latents in the folder
        if kind in TEACHING:
            tell_memory(task, values.training)
        run(task, values.training, output)
    if first:
        print(output / "model")
    processes().destroy_process_group()


def tell_memory(task: "DreamBoothTask", config: "TrainConfig") -> None:
    """Print what the training will need. Raises RuntimeError, with advice, if that is more than the GPU has."""
    from sdlearn.training.loop import processes
    from sdlearn.training.memory import check, estimate

    device, memory = processes().device, estimate(task, config)
    if processes().is_main_process:
        print(f"This needs {memory}, on {device}.")
    check(memory, device, task.recipe)


@app.command()
def doctor(
    run: Annotated[Path, PathArgument(help="The folder of a training run, finished or not; or its log.csv alone.")],
) -> None:
    """Say in sentences what a training run's log shows: is it healthy, how far is it, how long will it take?

    Lines that begin with "!" are about what looks wrong.
    """
    from sdlearn.training.doctor import examine

    print(*examine(run), sep="\n")


@app.command()
def assemble(
    run: Annotated[Path, PathArgument(help="A folder with the finished runs clip, autoencoder and diffusion.")],
    output: Annotated[Path, PathOption(help="The model folder to write.")],
    guidance_scale: Annotated[float, typer.Option(help="The model's default.")] = 3.0,
    sampler: Annotated[str, typer.Option(help="The model's default.")] = "dpmpp_2m_karras",
    steps: Annotated[int, typer.Option(min=1, help="The model's default.")] = 12,
) -> None:
    """Put trained parts together into a model folder."""
    from sdlearn.training.assemble import assemble as join

    join(run, output, guidance_scale, sampler, steps)
    print(output)


@app.command()
def evaluate(
    model: Model = None,
    images: Annotated[int, typer.Option(min=2, help="How many: half seen pairs, half held-out ones.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="For the pictures, and the scenes they are compared with.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the sampler.  [default: the model's]")] = None,
    sampler: Annotated[str | None, typer.Option(help="`info` lists all.  [default: the model's]")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="1 is no guidance.  [default: the model's]")] = None,
    output: Annotated[Path, PathOption(help="A folder for the report and sheets.")] = Path("out/evaluation"),
    card: Annotated[Path | None, PathOption(help="A folder of runs: write the card of --model about them.")] = None,
) -> None:
    """Measure how well a model draws scenes."""
    try:
        from sdlearn.evaluation.scores import evaluate as measure
    except ModuleNotFoundError as error:
        raise RuntimeError(f"the scores need {error.name}: pip install 'sdlearn[train]'") from error
    import sdlearn
    from sdlearn.storage.load import BUNDLED

    if card is not None and not card.is_dir():
        raise FileNotFoundError(f"no folder of runs at {card}")
    pipeline = sdlearn.load(model)
    settings = {"steps": steps, "sampler": sampler, "guidance_scale": guidance_scale}
    report = measure(pipeline, images=images, seed=seed, **settings, output=output)
    print(report.table())
    if card is not None:
        from sdlearn.evaluation.card import write_card

        recipes = sorted((Path(__file__).parent / "training" / "recipes").glob("*.toml"))
        runs = {file.stem: (file, card / file.stem / "log.csv") for file in recipes if (card / file.stem).is_dir()}
        write_card(model or os.environ.get("SDLEARN_MODEL") or BUNDLED, report, runs)


if __name__ == "__main__":
    main()
