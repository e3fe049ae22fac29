"""Data sets as plain images, masks and tables, which other commits and other programs can read.

The current package reads a data set and states its classes and groups. The images are copied, and
the masks are written as gray values: 0 and 255, or 0, 1, 2, ..., or the numbers of the objects. A
table for each seed states the split, and the groups except those of a stack, which the package
treats differently. A benchmark that trains with this table compares how programs learn, not how
they read data.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from real_data import SETS

import ushape
from ushape import io
from ushape.data.reading import find_true_objects, read_classes
from ushape.data.scan import DatasetStats, scan_dataset
from ushape.data.splits import PARTS, SplitConfig, split_dataset
from ushape.labels import IGNORE, LabelConfig
from ushape.planning.hardware import inspect_machine
from ushape.types import Case, MaskEncoding

DATA = Path(__file__).parents[3] / "shared" / "data"
MORE = (
    "chase_db1_vessels",
    "cvc_clinicdb_polyps",
    "cwfid_crop_weed",
    "dronedeploy_aerial",
    "embryo_nuclei_3d",
    "football_scenes",
    "gbm40_nuclei_he",
    "magnetic_tile_defects",
    "masonry_cracks",
    "mnms_cardiac_nnunet",
    "ph2_skin",
    "usiigaci_cells",
    "wbc_smears",
)
CELLS = "cells"
NAMES = (CELLS, *SETS, *MORE)
"""The generated cells, the three large sets, and those of the folder `more`."""


@dataclass(frozen=True, kw_only=True)
class PreparedCase:
    """A case of a prepared data set; paths are relative to its folder."""

    image: str
    mask: str
    group: str


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """A prepared data set and one of its splits."""

    name: str
    folder: Path
    values: tuple[int, ...]
    """Mask value of each class, background first."""

    parts: Mapping[str, list[PreparedCase]]
    """Cases of each part of the split."""

    are_objects: bool
    """Whether the masks number objects, which are foreground."""

    table: Path
    """Table of the cases with the split."""

    @property
    def arguments(self) -> tuple[str, ...]:
        """Arguments of `ushape train` and `ushape plan`: the table, and the values of the masks.

        Older commits take many gray values for soft edges.
        """
        if self.are_objects:
            return str(self.table), "--set", "labels.threshold=1"
        values = ",".join(str(value) for value in self.values)
        return str(self.table), "--set", f"labels.values=[{values}]"


def prepare(
    name: str, work: Path, seed: int, data: Path = DATA, *, objects: bool = False
) -> PreparedData:
    """Prepare a data set once, and split it; both are reused if they exist.

    Args:
        name: One of NAMES, or the path of a data folder or table.
        work: Folder in which prepared data sets are kept.
        seed: Seed of the split.
        data: Folder of the named sets.
        objects: Whether masks number the objects: those of a folder `instances/` beside `images/`,
            if there is one, or else the connected parts of the masks.

    Raises:
        UshapeError: if the data cannot be used.
        ValueError: if an image consists of several files or is one page of a file.
    """
    folder = work / ("objects" if objects else "data") / Path(name).name
    stated, table = folder / "set.json", folder / f"split-{seed}.csv"
    if not (stated.exists() and table.exists()):
        found = scan_named(name, work, data, objects=objects)
        if not stated.exists():
            _write_files(found, folder, objects)
        _write_table(found, table, seed)
        values = _values_of(len(found.space.values))
        stated.write_text(json.dumps({"values": values}), encoding="utf-8")
    values = tuple(json.loads(stated.read_text(encoding="utf-8"))["values"])
    parts: dict[str, list[PreparedCase]] = {part: [] for part in PARTS}
    with (folder / f"split-{seed}.groups.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            case = PreparedCase(image=row["image"], mask=row["mask"], group=row["group"])
            parts[row["split"]].append(case)
    return PreparedData(
        name=Path(name).name,
        folder=folder,
        values=values,
        parts=parts,
        are_objects=objects,
        table=table,
    )


def scan_named(name: str, work: Path, data: Path, *, objects: bool = False) -> DatasetStats:
    """Return the statistics of a data set, which state its cases, classes and groups."""
    masks: Path | None = None
    if name == CELLS:
        place = work / "cells"
        if not place.exists():
            ushape.example(place, quiet=True)
    elif name in SETS:
        images, own = SETS[name]
        place, masks = data / images, data / own if own else None
    else:
        place = data / "more" / name if name in MORE else Path(name)
    labels = LabelConfig()
    if objects and (place / "instances").is_dir():
        place, masks, labels = place / "images", place / "instances", LabelConfig(threshold=1)
    found = scan_dataset(place, masks, labels, workers=inspect_machine("cpu").cores)
    found.raise_if_unusable()
    return found


def _values_of(classes: int) -> tuple[int, ...]:
    return (0, 255) if classes == 2 else tuple(range(classes))


def _names_of(case: Case) -> tuple[str, str]:
    """Return the paths of image and mask in the prepared folder."""
    stem, suffix = case.id.replace("/", "_"), io.suffix_of(case.image)
    is_itk = suffix in (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")
    if case.page is not None or case.channels or not case.image.is_file():
        raise ValueError(f"{case.image}: only images that are one file each can be prepared.")
    is_volume = len(io.read_size(case.image) or ()) == 3
    own = ".nii.gz" if is_itk else ".tif" if is_volume else ".png"
    return f"images/{stem}{suffix}", f"masks/{stem}{own}"


def _write_files(found: DatasetStats, folder: Path, objects: bool) -> None:
    """Copy the images and write the masks; pixels without a class become background."""
    values = np.array(_values_of(len(found.space.values)), dtype=np.uint8)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for case in found.grouping.cases:
        image, mask = _names_of(case)
        classes = read_classes(case, found.space)
        assert classes is not None, "cases without a mask are not listed"
        if objects:
            codes = find_true_objects(case, classes, found.space).astype(np.uint16)
        else:
            codes = values[np.where(classes == IGNORE, 0, classes)]
        shutil.copyfile(case.image, folder / image)
        encoding = MaskEncoding(suffix=io.suffix_of(folder / mask))
        io.write_mask(folder / mask, codes, encoding, like=folder / image)


def _write_table(found: DatasetStats, table: Path, seed: int) -> None:
    """Write the table that programs train with, and one that always states the groups."""
    splits = split_dataset(found, SplitConfig(), seed=seed)
    part_of = {case_id: part for part in PARTS for case_id in getattr(splits, part)}
    rows = []
    for case in found.grouping.cases:
        image, mask = _names_of(case)
        row = asdict(PreparedCase(image=image, mask=mask, group=case.group))
        rows.append(row | {"split": part_of[case.id]})
    is_stack = found.grouping.kind == "stack"
    for path, omitted in (
        (table.with_suffix(".groups.csv"), None),
        (table, "group" if is_stack else None),
    ):
        columns = [column for column in rows[0] if column != omitted]
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)


def read_mask_classes(path: Path, values: tuple[int, ...]) -> np.ndarray:
    """Read a mask as class indices (*S); other values than those of the classes are background."""
    codes = io.read_mask(path).codes
    classes = np.zeros(codes.shape, dtype=np.uint8)
    for index, value in enumerate(values):
        classes[codes == value] = index
    return classes


def read_numbers(path: Path) -> np.ndarray:
    """Read a mask that numbers objects: (*S) integers, 0 for background."""
    return io.read_mask(path).codes


def score_files(prepared: PreparedData, predictions: Path) -> dict[str, float]:
    """Return the mean Dice of the test cases from predicted mask files; see `mean_dice`.

    Raises:
        FileNotFoundError: if a case has no prediction.
    """
    pairs = []
    for case, path in predicted_files(prepared, predictions):
        truth = read_mask_classes(prepared.folder / case.mask, prepared.values)
        pairs.append((case.group, truth, read_mask_classes(path, prepared.values)))
    dice, case_dice = mean_dice(pairs, len(prepared.values))
    return {"dice": dice, "case_dice": case_dice}


def predicted_files(
    prepared: PreparedData, predictions: Path, ending: str = ""
) -> list[tuple[PreparedCase, Path]]:
    """Return the test cases, each with the predicted file of its name and an ending.

    Raises:
        FileNotFoundError: if a case has none.
    """
    by_stem = {io.stem_of(path): path for path in predictions.iterdir() if io.is_image(path)}
    found = []
    for case in prepared.parts["test"]:
        stem = io.stem_of(Path(case.image)) + ending
        if stem not in by_stem:
            raise FileNotFoundError(f"{predictions} has no mask {stem} for {case.image}.")
        found.append((case, by_stem[stem]))
    return found


def mean_dice(
    pairs: Iterable[tuple[str, np.ndarray, np.ndarray]], classes: int
) -> tuple[float, float]:
    """Return the mean Dice of groups (patients, videos, images) and that of single cases.

    The pixels of a group are pooled. Its Dice is the mean over the foreground classes in its truth;
    classes that are absent there are left out. If all are absent, it is 1 without, and 0 with any
    predicted foreground.

    Args:
        pairs: Group, true and predicted class indices (*S) of each case.
        classes: Number of classes with background.
    """
    by_group: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((3, classes - 1)))
    by_case = []
    for group, truth, found in pairs:
        counts = np.array(
            [
                [
                    np.sum((truth == index) & (found == index)),
                    np.sum(truth == index),
                    np.sum(found == index),
                ]
                for index in range(1, classes)
            ]
        ).T
        by_group[group] += counts
        by_case.append(_dice(counts))
    return float(np.mean([_dice(own) for own in by_group.values()])), float(np.mean(by_case))


def _dice(counts: np.ndarray) -> float:
    """Return the Dice of summed pixels: overlap, truth, predicted (3, foreground classes)."""
    overlap, truth, found = counts
    if not truth.any():
        return float(not found.any())
    present = truth > 0
    return float(np.mean(2 * overlap[present] / (truth[present] + found[present])))
