"""How many images have to be annotated: in the order that `ushape studio` suggests, or at random.

    python benchmarks/scores/annotation.py --data ../shared/data --seeds 3 --images 10 --steps 60
    python benchmarks/scores/annotation.py --sets cells --scribbles --steps 200

The masks of a data set play the user. The first image is drawn at random. Then, again and again, a
network is trained on all images annotated so far, with the options that `ushape studio` uses, and
from the weights of the last training; it predicts the images of the pool, and the next image is
corrected: its true mask becomes the annotation. The pixels in which prediction and mask differ are
counted. Trainings have a number of steps instead of a time limit, so that the result does not
depend on the load of the machine. Both orders have the same first images, test images and seeds.

With --scribbles, networks are trained on all pixels and on strokes of the same images, and the Dice
of both is compared.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from scipy.optimize import isotonic_regression

import ushape
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.inference.predictor import Predictor
from ushape.labels import LabelConfig
from ushape.studio.learning import AnnotatedImage, training_command
from ushape.studio.suggestions import ImageSummary, suggest, summarize
from ushape.types import Case

DATA = Path(__file__).parents[3] / "shared" / "data"

SMALL = ("sampling.patch_shape=[64,64]", "train.batch_size=4")
"""Settings with which a step on the small images is fast."""

IGNORED = 254
"""Value of pixels without annotation in the masks with strokes."""


@dataclass(frozen=True, kw_only=True)
class Set:
    """Images with their masks, as files of a folder."""

    name: str
    values: tuple[int, ...]
    pool: tuple[Case, ...]
    test: tuple[Case, ...]


def main() -> None:
    options = read_options()
    torch.set_num_threads(options.threads)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="ushape-annotation-") as folder:
        sets = [SETS[name](Path(folder) / name, options.data) for name in options.sets]
        for one in sets:
            print(f"\n{one.name}: {len(one.pool)} images to annotate, {len(one.test)} to test")
            if options.scribbles:
                compare_scribbles(one, options, Path(folder))
            else:
                compare_orders(one, options, Path(folder))
    print(f"\n{time.perf_counter() - began:.0f} s")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--data", type=Path, default=DATA, help="Folder of the real data.")
    parser.add_argument("--seeds", type=int, default=3, help="Number of seeds, from 0.")
    parser.add_argument("--images", type=int, default=10, help="Images to annotate in the end.")
    parser.add_argument("--steps", type=int, default=60, help="Steps of each training.")
    parser.add_argument("--threads", type=int, default=1)
    text = (
        "suggested: as by ushape studio; uncertain: only by uncertainty; different: only by looks."
    )
    orders = ("suggested", "random", "uncertain", "different")
    parser.add_argument("--orders", nargs="+", default=orders[:2], choices=orders, help=text)
    text = "Begin each training with the usual weights instead of those of the last one."
    parser.add_argument("--restart", action="store_true", help=text)
    parser.add_argument("--scribbles", action="store_true", help="Compare strokes with masks.")
    return parser.parse_args()


# Data


def make_cells(folder: Path, data: Path) -> Set:
    """Generate images of 12 dishes, 4 of which are for the test."""
    write_data_set(folder, 60, SyntheticConfig(size=128, groups=12, spacing_px=26), seed=5)
    names = sorted(path.stem for path in (folder / "images").iterdir())
    groups = {name: name.split("_")[0] for name in names}
    tested = sorted(set(groups.values()))[::3]
    return as_set("cells", folder, (0, 255), groups, tested)


def read_lgg(folder: Path, data: Path) -> Set:
    """Copy some slices of all patients, at half size; a third of the patients is tested."""
    groups = {}
    patients = sorted(path for path in (data / "lgg" / "kaggle_3m").iterdir() if path.is_dir())
    for patient in patients:
        masks = sorted(patient.glob("*_mask.tif"), key=lambda path: int(path.stem.split("_")[-2]))
        for mask in masks[len(masks) // 6 :: max(1, len(masks) // 5)][:5]:
            image = mask.with_name(mask.name.replace("_mask", ""))
            copy(folder, image.stem, Image.open(image), Image.open(mask), 128)
            groups[image.stem] = patient.name
    tested = [patient.name for patient in patients[::3]]
    return as_set("lgg", folder, (0, 255), groups, tested)


def read_wbc(folder: Path, data: Path) -> Set:
    """Copy all images of both laboratories, of at most 120 pixels; a third of them is tested."""
    source, groups = data / "more" / "wbc_smears", {}
    for image in sorted((source / "images").iterdir()):
        mask = source / "masks" / image.name
        copy(folder, image.stem, Image.open(image), Image.open(mask), 120)
        groups[image.stem] = image.stem
    return as_set("wbc_smears", folder, (0, 128, 255), groups, sorted(groups)[::3])


def read_skin(folder: Path, data: Path) -> Set:
    """Copy all images of skin lesions, of at most 120 pixels; a third of the lesions is tested."""
    return read_pairs(data / "more" / "ph2_skin", folder, lambda stem: stem, 120)


def read_polyps(folder: Path, data: Path) -> Set:
    """Copy all images of polyps, at half size; a third of the sequences is tested."""
    source = data / "more" / "cvc_clinicdb_polyps"
    return read_pairs(source, folder, lambda stem: stem.split("_")[0], 128)


def read_pairs(source: Path, folder: Path, group_of: Callable[[str], str], longest: int) -> Set:
    """Copy images and masks of one class with the same stems."""
    groups = {}
    for image in sorted((source / "images").iterdir()):
        mask = next((source / "masks").glob(f"{image.stem}.*"))
        white = Image.open(mask).convert("L").point(lambda value: 255 * (value > 127))
        copy(folder, image.stem, Image.open(image), white, longest)
        groups[image.stem] = group_of(image.stem)
    return as_set(source.name, folder, (0, 255), groups, sorted(set(groups.values()))[::3])


def copy(folder: Path, name: str, image: Image.Image, mask: Image.Image, longest: int) -> None:
    """Write an image and its mask as PNG, reduced to at most `longest` pixels a side."""
    factor = min(1.0, longest / max(image.size))
    size = (round(image.size[0] * factor), round(image.size[1] * factor))
    for kind, one, method in (
        ("images", image.convert("RGB"), Image.Resampling.BOX),
        ("masks", mask.convert("L"), Image.Resampling.NEAREST),
    ):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        one.resize(size, method).save(folder / kind / f"{name}.png")


def as_set(
    name: str, folder: Path, values: tuple[int, ...], groups: dict[str, str], tested: Sequence[str]
) -> Set:
    def cases(is_test: bool) -> tuple[Case, ...]:
        return tuple(
            Case(
                id=one,
                image=folder / "images" / f"{one}.png",
                mask=folder / "masks" / f"{one}.png",
                group=group,
            )
            for one, group in groups.items()
            if (group in tested) == is_test
        )

    return Set(name=name, values=values, pool=cases(False), test=cases(True))


SETS: dict[str, Callable[[Path, Path], Set]] = {
    "cells": make_cells,
    "lgg": read_lgg,
    "wbc_smears": read_wbc,
    "ph2_skin": read_skin,
    "polyps": read_polyps,
}


# Training and prediction


def train(
    data: Set,
    masks: dict[str, Path],
    run: Path,
    start_from: Path | None,
    steps: int,
    seed: int,
    ignore: int | None = None,
) -> Predictor:
    """Train on the images with these masks as `ushape studio` does, for a number of steps."""
    images = [
        AnnotatedImage(
            id=case.id, image=case.image, mask=masks[case.id], annotated=1.0, group=case.group
        )
        for case in data.pool
        if case.id in masks
    ]
    labels = LabelConfig(values=data.values, objects="connected")
    command = training_command(
        images,
        run.with_name(f"{run.name}-data"),
        output=run,
        minutes=1,
        start_from=start_from,
        labels=labels,
        ignore=ignore,
    )
    settings = [command[place + 1] for place, word in enumerate(command) if word == "--set"]
    epochs = max(1, steps // 100)
    settings += [f"train.steps_per_epoch={-(-steps // epochs)}", *SMALL]
    ushape.train(
        command[1],
        output=run,
        epochs=epochs,
        settings=settings,
        start_from=start_from,
        seed=seed,
        device="cpu",
        quiet=True,
    )
    return Predictor.open(run, "cpu")


def read_mask(case: Case, values: Sequence[int]) -> np.ndarray:
    """Return the class of each pixel."""
    assert isinstance(case.mask, Path)
    return np.searchsorted(np.array(values), np.asarray(Image.open(case.mask))).astype(np.uint8)


def score(data: Set, predictor: Predictor) -> float:
    """Return the mean Dice of the test images: pixels pooled by group, mean over the classes."""
    counts: dict[tuple[str, int], np.ndarray] = {}
    for case, found in predictor.predict_many(data.test):
        assert not isinstance(found, Exception)
        truth = read_mask(case, data.values)
        for index in range(1, len(data.values)):
            own, true = found.classes == index, truth == index
            sums = np.array([(own & true).sum(), own.sum() + true.sum(), true.sum()])
            counts[case.group, index] = counts.get((case.group, index), 0) + sums
    return float(np.mean([2 * both / size for both, size, true in counts.values() if true]))


# Orders


@dataclass(frozen=True)
class Round:
    """State after a training."""

    images: int
    corrected_px: int
    dice: float


def annotate(
    data: Set, order: str, seed: int, options: argparse.Namespace, work: Path
) -> list[Round]:
    """Annotate images in an order, and train after each of them."""
    rng = np.random.default_rng(seed)
    shuffled = [data.pool[place] for place in rng.permutation(len(data.pool))]
    folder = work / f"{data.name}-{order}-{seed}"
    by_id = {case.id: case for case in data.pool}
    first = next(case for case in shuffled if read_mask(case, data.values).any())
    shuffled.remove(first)
    shuffled.insert(0, first)
    masks = {first.id: first.mask}
    corrected = int((read_mask(first, data.values) > 0).sum())
    rounds: list[Round] = []
    run = None
    while True:
        start_from, run = None if options.restart else run, folder / f"round-{len(masks)}"
        predictor = train(data, masks, run, start_from, options.steps, seed)
        rounds.append(Round(len(masks), corrected, score(data, predictor)))
        if len(masks) == options.images:
            break
        predicted = {case.id: found for case, found in predictor.predict_many(data.pool)}
        if order == "random":
            following = shuffled[len(masks)].id
        else:
            following = next_image(order, predictor, predicted, masks)
        truth = read_mask(by_id[following], data.values)
        corrected += int((predicted[following].classes != truth).sum())
        masks[following] = by_id[following].mask
    shutil.rmtree(folder)
    return rounds


def next_image(order: str, predictor: Predictor, predicted: dict, masks: Iterable[str]) -> str:
    """Return the image that `ushape studio` would suggest, or one of the simpler orders."""
    known = set(masks)
    summaries: dict[bool, list[ImageSummary]] = {True: [], False: []}
    for case_id, found in predicted.items():
        own = summarize(case_id, found.source.array, predictor, found)
        summaries[case_id in known].append(own)
    if order == "uncertain":
        return max(summaries[False], key=lambda one: one.uncertainty).id
    if order == "different":
        equal = [replace(one, uncertainty=0.5) for one in summaries[False]]
        return suggest(equal, summaries[True])[0].id
    return suggest(summaries[False], summaries[True])[0].id


def compare_orders(data: Set, options: argparse.Namespace, work: Path) -> None:
    """Print the Dice of the orders by the number of images, and what they save."""
    curves: dict[str, list[list[Round]]] = {order: [] for order in options.orders}
    for seed in range(options.seeds):
        for order, found in curves.items():
            found.append(annotate(data, order, seed, options, work))
            dice = " ".join(f"{one.dice:.3f}" for one in found[-1])
            print(f"  seed {seed}, {order}: {dice}", flush=True)
    dice, pixels = (
        {
            order: np.mean([[getattr(one, what) for one in run] for run in runs], axis=0)
            for order, runs in curves.items()
        }
        for what in ("dice", "corrected_px")
    )
    print(f"| images | {' | '.join(f'Dice, {order} | pixels' for order in dice)} |")
    print("|---" * (1 + 2 * len(dice)) + "|")
    for place in range(options.images):
        cells = [f"{dice[order][place]:.3f} | {pixels[order][place]:.0f}" for order in dice]
        print(f"| {place + 1} | {' | '.join(cells)} |")
    if "random" in dice:
        for order in dice:
            own, other = (
                np.array([[one.dice for one in run] for run in curves[name]])
                for name in (order, "random")
            )
            print(f"{order}: {describe_saving(own, other)}")


def describe_saving(own: np.ndarray, other: np.ndarray) -> str:
    """Return how many images an order needs for the Dice of all images in random order.

    The interval is that of 1000 draws of the seeds with replacement, the same for both orders.

    Shapes:
        own, other: (seeds, images) Dice.
    """
    seeds, count = own.shape
    rng = np.random.default_rng(0)
    needed = images_needed(own.mean(axis=0), other.mean(axis=0))
    draws = rng.integers(seeds, size=(1000, seeds))
    drawn = [images_needed(own[one].mean(axis=0), other[one].mean(axis=0)) for one in draws]
    low, high = np.quantile(drawn, (0.025, 0.975))
    gain = (own - other).mean()
    return (
        f"{needed / count:.0%} of the images (95 % interval {low / count:.0%} to "
        f"{high / count:.0%}) for the Dice of {count} random ones "
        f"({rising(other.mean(axis=0))[-1]:.3f}); mean difference of the Dice {gain:+.3f}."
    )


def images_needed(own: np.ndarray, other: np.ndarray) -> float:
    """Return the number of images after which one curve reaches the end of another one.

    Both curves are replaced by the nearest curves that never fall, because single points that are
    high or low by chance would decide otherwise. Between two numbers of images, the Dice is
    interpolated; a curve that does not reach the goal counts as one more image than it has.
    """
    curve, goal = rising(own), rising(other)[-1] - 1e-9
    if curve[-1] < goal:
        return len(curve) + 1.0
    place = int(np.argmax(curve >= goal))
    if place == 0:
        return 1.0
    before, after = curve[place - 1 : place + 1]
    return float(place + (goal - before) / (after - before))


def rising(curve: np.ndarray) -> np.ndarray:
    """Return the curve that never falls and has the least squared distance from a curve."""
    return np.asarray(isotonic_regression(curve).x)


# Strokes


def compare_scribbles(data: Set, options: argparse.Namespace, work: Path) -> None:
    """Print the Dice of trainings on strokes and on whole masks of the same images."""
    for seed in range(options.seeds):
        rng = np.random.default_rng(seed)
        chosen = [data.pool[place] for place in rng.permutation(len(data.pool))[: options.images]]
        strokes, share = {}, []
        (work / "strokes").mkdir(exist_ok=True)
        for case in chosen:
            truth = read_mask(case, data.values)
            marked = draw_strokes(truth, rng)
            share.append(float((marked != IGNORED).mean()))
            codes = np.array(data.values, dtype=np.uint8)[np.minimum(truth, len(data.values) - 1)]
            strokes[case.id] = work / "strokes" / f"{case.id}.png"
            shown = np.where(marked == IGNORED, IGNORED, codes).astype(np.uint8)
            Image.fromarray(shown).save(strokes[case.id])
        whole = {case.id: case.mask for case in chosen}
        for kind, masks, ignore in (("masks", whole, None), ("strokes", strokes, IGNORED)):
            run = work / f"{data.name}-{kind}-{seed}"
            predictor = train(data, masks, run, None, options.steps, seed, ignore)
            print(f"  seed {seed}, {kind}: {score(data, predictor):.3f}", end="")
        print(f" ({np.mean(share):.1%} of the pixels marked)", flush=True)


def draw_strokes(truth: np.ndarray, rng: np.random.Generator, width: int = 3) -> np.ndarray:
    """Return a mask with a stroke along the middle of a few parts of each class.

    Shapes:
        truth: (y, x) class indices.
        returns: (y, x) uint8, IGNORED outside the strokes.
    """
    marked = np.full(truth.shape, IGNORED, dtype=np.uint8)
    for index in np.unique(truth):
        parts, count = ndimage.label(truth == index)
        depth = ndimage.distance_transform_edt(np.pad(truth == index, 1))[1:-1, 1:-1]
        for part in rng.permutation(count)[:3] + 1:
            inside = np.where(parts == part, depth, 0)
            start = np.array(np.unravel_index(inside.argmax(), inside.shape))
            for _ in range(30):  # A walk that stays away from the border of the part.
                around = start + rng.integers(-3, 4, size=(6, 2))
                around = around.clip(0, np.array(truth.shape) - 1)
                start = around[inside[tuple(around.T)].argmax()]
                low, high = start - width // 2, start + width // 2 + 1
                box = tuple(map(slice, low.clip(0), high))
                marked[box] = np.where(truth[box] == index, index, marked[box])
    return marked


if __name__ == "__main__":
    main()
