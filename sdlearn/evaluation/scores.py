"""How good a model of scenes is, in numbers: its autoencoder, and whether it draws what the words describe.

The pictures are judged by a classifier that has seen only real scenes (`sdlearn.evaluation.judge`).
"""

import csv
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from sdlearn.data import SIZES, SUBJECTS, Scene, Scenes, caption, pairs
from sdlearn.data.scenes import SPLITS
from sdlearn.evaluation.judge import Judge, background_colors, judge_pictures, load_judge
from sdlearn.evaluation.sharpness import SIDE, Sharpness, edge_agreement, measure_sharpness, nearest_renderings, psnr
from sdlearn.files import atomic_write, write_json
from sdlearn.pictures import captioned_grid, save_image_grid, to_images, to_pixels, to_unit
from sdlearn.pipeline import StableDiffusion

BATCH = 128
STREAM = 1000  # the scenes of an evaluation have random numbers that no split of `Scenes` uses


@dataclass(frozen=True)
class Report:
    """The scores of a model. Shares are between 0 and 1."""

    model: str
    seed: int
    images: int  # half seen pairs, half held-out pairs; every score below is over this number or half of it
    sampler: str
    steps: int
    guidance_scale: float
    psnr: float  # dB; the mean of all pictures' PSNR
    psnr_of_mean: float  # dB; the PSNR of all pictures' mean squared error, which is lower
    subject_seen: float
    subject_held_out: float
    color_seen: float
    color_held_out: float
    frechet: float
    frechet_real: float
    judge_seen: float  # how often the judge is right on real scenes
    judge_held_out: float
    judge_reconstructed: float  # and on scenes reconstructed by the autoencoder: no generator can do much better
    weakest: tuple[tuple[str, float], ...]  # subjects that the judge recognises least often, and how often
    sharpness: tuple[Sharpness, ...]  # by size, of seen and of held-out pairs, of all
    blurriest: tuple[tuple[str, float], ...]  # subjects whose edges agree least, and how well they do
    seconds: float  # of drawing

    def to_dict(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return asdict(self)

    def table(self) -> str:
        """The scores as a table in Markdown, followed by what they mean."""
        psnr, of_mean = f"{self.psnr:.2f} dB", f"{self.psnr_of_mean:.2f} dB of the mean error"
        rows = (
            ("Autoencoder: PSNR on held-out scenes", psnr, of_mean),
            ("Subject, seen pairs", f"{self.subject_seen:.1%}", f"{self.judge_seen:.1%} on real scenes"),
            ("Subject, held-out pairs", f"{self.subject_held_out:.1%}", f"{self.judge_held_out:.1%} on real scenes"),
            ("Background colour, seen pairs", f"{self.color_seen:.1%}", ""),
            ("Background colour, held-out pairs", f"{self.color_held_out:.1%}", ""),
            ("Fréchet distance to real scenes", f"{self.frechet:.2f}", f"{self.frechet_real:.2f} real to real"),
        )
        weakest = ", ".join(f"{subject} {share:.0%}" for subject, share in self.weakest)
        blurriest = ", ".join(f"{subject} {edges:.2f}" for subject, edges in self.blurriest)
        sharpness = (
            f"| {row.group} | {row.edges:.2f} | {row.edges_autoencoder:.2f} "
            f"| {row.psnr:.1f} dB | {row.psnr_autoencoder:.1f} dB |"
            for row in self.sharpness
        )
        return "\n".join(
            (
                "| | score | for comparison |",
                "|---|---|---|",
                *(f"| {' | '.join(row)} |" for row in rows),
                "",
                "| sharpness | edges drawn | edges autoencoder | PSNR drawn | PSNR autoencoder |",
                "|---|---|---|---|---|",
                *sharpness,
                "",
                f"{self.images} pictures, the first with seed {self.seed}, half of them of (subject, colour) pairs",
                "that training showed, half of pairs that it didn't; every subject equally often, sizes mixed.",
                f"{self.sampler}, {self.steps} steps, guidance scale {self.guidance_scale:g}; {self.seconds:.0f} s.",
                "",
                "- PSNR: the mean over the pictures, after rounding to 0 … 255; next to it, that of the mean error.",
                f"- Subject: a small classifier, trained only on real scenes, names the right one of {len(SUBJECTS)}.",
                f"  Real scenes after a round trip through the autoencoder: {self.judge_reconstructed:.1%} right.",
                "- Background colour: the median along the picture's edges is nearest to the requested one of ten.",
                "- Fréchet distance: of the classifier's last hidden layer, to real scenes of the same captions;",
                "  real to real: of two such sets.",
                "- Sharpness: what was requested is rendered at all sizes and places, and the nearest one compared.",
                "  Edges: F1 of the pixels where the grey picture changes by more than a quarter of its range (Sobel).",
                "  Next to what was drawn: that rendering after a round trip through the autoencoder.",
                f"- Weakest subjects: {weakest}.",
                f"- Least sharp: {blurriest}.",
                "",
            )
        )


def evaluate(
    model: StableDiffusion,
    images: int = 1000,
    seed: int = 0,
    steps: int | None = None,
    guidance_scale: float | None = None,
    sampler: str | None = None,
    judge: Judge | None = None,
    output: str | Path | None = None,
    progress: bool = True,
) -> Report:
    """Draw pictures, half of them of seen (subject, colour) pairs, half of held-out ones, and measure them.

    If steps, guidance scale or sampler are None, the model's defaults are used. If the judge is None, it comes from the
    cache folder; the first time it is trained, which takes minutes. The folder `output` gets the report as JSON, a
    table of all subjects, a sheet of pictures with captions and one of originals above their reconstructions.

    Raises ValueError for fewer than 2 images, and what `StableDiffusion.sample` raises; OSError when `output` can't be
    made; RuntimeError when the packages that draw scenes are missing.
    """
    if images < 2:
        raise ValueError(f"images={images}; accepted: 2 and above, half for seen pairs and half for held-out pairs")
    settings = {"steps": steps, "guidance_scale": guidance_scale, "sampler": sampler}
    model.sample("", seed=seed, height=SIDE, width=SIDE, **settings)  # checks them: better now than after minutes
    if output is not None:
        Path(output).mkdir(parents=True, exist_ok=True)
    judge = judge or load_judge(progress=progress)
    seen = images - images // 2
    asked = requests("test", seen, seed) + requests("held_out_pairs", images // 2, seed)
    captions = [caption(*request) for request in asked]
    real, again = (as_tensor(scenes_of(asked, seed, turn)) for turn in (0, 1))  # first, so that it fails early

    started = time.perf_counter()
    drawn = draw(model, captions, seed, settings, progress)
    seconds = time.perf_counter() - started
    nearest = nearest_renderings(drawn, asked)
    reconstructed, nearest_again = (round_trip(model, pictures) for pictures in (real, nearest))

    named, features = judge_pictures(judge, drawn)
    named_real, features_real = judge_pictures(judge, real)
    named_again, features_again = judge_pictures(judge, again)
    named_reconstructed, _ = judge_pictures(judge, reconstructed)
    subjects, colors = [request[0] for request in asked], [request[1] for request in asked]
    right, right_color = matches(named, subjects), matches(background_colors(drawn), colors)
    right_real = np.stack([matches(n, subjects) for n in (named_real, named_again)], axis=1)  # (images, 2)
    by_subject = sorted((float(right[matches(subjects, [s] * images)].mean()), s) for s in set(subjects))
    each, of_mean = psnr(real, reconstructed)
    agreement = edge_agreement(drawn, nearest)
    by_edges = sorted((agreement[matches(subjects, [s] * images)].mean().item(), s) for s in set(subjects))
    order = torch.arange(images)
    groups = {size: torch.tensor([request[2] == size for request in asked]) for size in SIZES}
    groups |= {"seen pairs": order < seen, "held-out pairs": order >= seen, "all": order >= 0}
    report = Report(
        model=model.name,
        seed=seed,
        images=images,
        sampler=sampler or model.defaults.sampler,
        steps=model.defaults.steps if steps is None else steps,
        guidance_scale=float(model.defaults.guidance_scale if guidance_scale is None else guidance_scale),
        psnr=each.mean().item(),
        psnr_of_mean=of_mean,
        subject_seen=float(right[:seen].mean()),
        subject_held_out=float(right[seen:].mean()),
        color_seen=float(right_color[:seen].mean()),
        color_held_out=float(right_color[seen:].mean()),
        frechet=frechet_distance(features, features_real),
        frechet_real=frechet_distance(features_again, features_real),
        judge_seen=float(right_real[:seen].mean()),
        judge_held_out=float(right_real[seen:].mean()),
        judge_reconstructed=float(matches(named_reconstructed, subjects).mean()),
        weakest=tuple((subject, share) for share, subject in by_subject[:8]),
        sharpness=tuple(measure_sharpness(drawn, nearest, nearest_again, groups)),
        blurriest=tuple((subject, edges) for edges, subject in by_edges[:10]),
        seconds=seconds,
    )
    if output is not None:
        folder = Path(output)
        write_json(folder / "report.json", report.to_dict())
        write_subjects(folder / "subjects.csv", subjects, named)
        shown = [*range(min(16, seen)), *range(seen, min(seen + 16, images))]  # seen pairs above held-out ones
        write_sheet(folder / "samples.png", drawn[shown], [captions[i] for i in shown])
        pictures = [x[i : i + 8] for i in range(0, min(16, images), 8) for x in (real[:16], reconstructed[:16])]
        save_image_grid(to_unit(torch.cat(pictures)), folder / "autoencoder.png")
        # The least sharp picture of each of the ten least sharp subjects, and next to it what it should have been.
        of = {subject: np.flatnonzero(matches(subjects, [subject] * images)) for _, subject in by_edges[:10]}
        worst = [min(pictures, key=agreement.__getitem__) for pictures in of.values()]
        said = [text for i in worst for text in (f"{captions[i]}: {agreement[i]:.2f}", "the nearest true one")]
        write_sheet(folder / "worst.png", torch.stack([drawn[worst], nearest[worst]], dim=1).flatten(0, 1), said)
    return report


def requests(split: str, number: int, seed: int) -> list[tuple[str, str, str]]:
    """What to draw: (subject, colour, size) from a split's pairs. Subjects are equally frequent, the rest is random."""
    rng = np.random.default_rng([seed, SPLITS[split], STREAM])
    colors: dict[str, list[str]] = {subject: [] for subject in SUBJECTS}
    for subject, color in pairs(split):
        colors[subject].append(color)
    shuffled = [SUBJECTS[i] for i in rng.permutation(len(SUBJECTS))]
    return [(s, str(rng.choice(colors[s])), str(rng.choice(list(SIZES)))) for s in islice(cycle(shuffled), number)]


def scenes_of(asked: list[tuple[str, str, str]], seed: int, turn: int) -> list[Scene]:
    """A real scene for each request. Another `turn` draws other sizes (within the size's word) and places."""
    scenes, stream = Scenes(seed), STREAM + turn
    return [scenes.make(*request, np.random.default_rng([seed, stream, i])) for i, request in enumerate(asked)]


def draw(model: StableDiffusion, captions: list[str], seed: int, settings: dict[str, Any], progress: bool) -> Tensor:
    """One picture for each caption, (B, 3, 64, 64) uint8; picture i has the seed seed + i, whatever the batches."""
    pictures = []
    with evaluating(model), tqdm(total=len(captions), desc="drawing", unit="picture", disable=not progress) as bar:
        for first in range(0, len(captions), BATCH):
            batch = captions[first : first + BATCH]
            for step in model.sample(batch, seed=seed + first, height=SIDE, width=SIDE, **settings):  # noqa: B007
                pass
            pictures.append(to_pixels(model.decode(step.x)))
            bar.update(len(batch))
    return torch.cat(pictures)


def round_trip(model: StableDiffusion, pictures: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) uint8 after a round trip through the autoencoder."""
    with evaluating(model):
        return torch.cat([to_pixels(model.decode(model.encode(to_unit(x)))) for x in pictures.split(BATCH)])


@contextmanager
def evaluating(model: StableDiffusion) -> Iterator[None]:
    """The networks in evaluation mode and without gradients while the block runs."""
    modes = [network.training for network in model.networks]
    try:
        with torch.no_grad():
            for network in model.networks:
                network.eval()
            yield
    finally:
        for network, mode in zip(model.networks, modes, strict=True):
            network.train(mode)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """The squared Fréchet distance of two Gaussians with the means and covariances of features (N, F) and (M, F).

    |μ_a − μ_b|² + tr(C_a + C_b − 2 (C_a^½ C_b C_a^½)^½), as in "GANs Trained by a Two Time-Scale Update Rule"
    (arXiv 1706.08500), the definition of FID. It depends on N and M: compare only numbers from sets of the same size.

    Raises ValueError for sets of fewer than 2 and features of different lengths.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"features of {tuple(a.shape)} and {tuple(b.shape)}; accepted: (N, F) and (M, F), N and M above 1"
        )
    a, b = a.double().cpu(), b.double().cpu()
    root_a, root_b = (square_root(torch.cov(x.T).reshape(x.shape[1], x.shape[1])) for x in (a, b))
    # (C_a^½ C_b C_a^½)^½ has the singular values of C_a^½ C_b^½ as eigenvalues: no root of rounding errors is taken.
    cross = torch.linalg.svdvals(root_a @ root_b).sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + root_a.square().sum() + root_b.square().sum() - 2 * cross
    return max(0.0, distance.item())


def square_root(covariance: Tensor) -> Tensor:
    """The symmetric square root of a symmetric matrix (F, F) without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def matches(found: list[str], expected: list[str]) -> np.ndarray:
    """Where two lists agree, as booleans."""
    return np.array([one == other for one, other in zip(found, expected, strict=True)])


def as_tensor(scenes: list[Scene]) -> Tensor:
    """Their pictures, (B, 3, H, W) uint8."""
    return torch.stack([scene.image for scene in scenes])


def write_sheet(file: Path, pictures: Tensor, captions: list[str]) -> None:
    """Pictures (B, 3, 64, 64) uint8, each with its caption below it, as one PNG."""
    sheet = captioned_grid(to_images(to_unit(pictures)), captions, columns=8, side=128)
    with atomic_write(file) as temporary:
        sheet.save(temporary, format="PNG")


def write_subjects(file: Path, subjects: list[str], named: list[str]) -> None:
    """A table of all subjects, the weakest first: how often requested, how often named, what they were mistaken for."""
    rows = []
    for subject in dict.fromkeys(subjects):
        seen_as = Counter(name for asked, name in zip(subjects, named, strict=True) if asked == subject)
        wrong = ", ".join(f"{name} {count}" for name, count in seen_as.most_common() if name != subject)
        rows.append((subject, seen_as.total(), seen_as[subject], wrong))
    rows.sort(key=lambda row: (row[2] / row[1], row[0]))
    with atomic_write(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("subject", "requested", "recognised", "mistaken for"))
        writer.writerows(rows)
