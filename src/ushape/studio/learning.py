"""Arguments of `ushape train` for the images that are annotated so far."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ushape.errors import DataError
from ushape.io.files import write_bytes
from ushape.labels import LabelConfig
from ushape.planning.run import Run

TABLE = "training.csv"
"""Name of the table of the annotated images."""

MIN_MINUTES = 0.3
"""Time in which training on one image learns its objects, on two cores."""

SETTINGS = (
    *("split.test_fraction=0", "split.validation_fraction=0"),
    *("predict.tune=false", "predict.tta=none"),
    "train.compare_start=false",
)
"""Settings of every training: all annotated images are trained on, except those that are kept for
the score, so there are none on which thresholds or starting weights could be compared."""


@dataclass(frozen=True, kw_only=True)
class AnnotatedImage:
    """An image of the project, and how much of it is annotated."""

    id: str
    image: Path
    mask: Path | None
    annotated: float
    """Share of the pixels that are annotated, 0 to 1."""

    group: str | None = None
    """Patient, dish or scene, if it is known; otherwise each image is a group."""

    part: Literal["train", "test", "none"] = "train"
    """train: trained on as soon as something is annotated; test: only used for the score; none:
    neither."""


def training_command(
    images: Sequence[AnnotatedImage],
    folder: Path,
    *,
    output: Path,
    minutes: float,
    start_from: Path | None = None,
    splits: bool = False,
    labels: LabelConfig | None = None,
    ignore: int | None = None,
    device: str = "auto",
    settings: Sequence[str] = (),
) -> list[str]:
    """Write a table of the annotated images, and return the arguments to train on them.

    All images that are not held out for testing are used for training, and none for validation,
    unless training splits them. The network of an earlier run, and the size at which it receives
    images, are kept.

    Args:
        images: All images of the project; those without annotation are left out.
        folder: Folder for the table, which is created.
        output: Output folder of the run.
        minutes: Training time in minutes.
        start_from: Run from whose weights training starts; None: the default weights.
        splits: Whether training holds out images for validation and testing, as for any data.
        labels: Meaning of the mask values; None: as the masks suggest.
        ignore: Mask value of pixels that are not annotated; None: all pixels are.
        settings: Additional settings of the recipe, as key=value.

    Returns:
        The arguments after `ushape`.

    Raises:
        DataError: if no training image is annotated.
        RunError: if the earlier run cannot be read.
    """
    used = [one for one in images if one.mask is not None and one.annotated > 0]
    used = [one for one in used if one.part != "none"]
    if not any(one.part == "train" for one in used):
        raise DataError(
            "No image is annotated yet.",
            code="nothing_annotated",
            hint="Annotate some pixels of the objects and of the background in at least one image.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / TABLE, _table_of(used, splits=splits).encode())
    chosen = [
        *(() if splits else SETTINGS),
        *label_settings(labels or LabelConfig(), ignore),
        *settings,
    ]
    command = ["train", str(folder / TABLE), "-o", str(output), "--minutes", f"{minutes:g}"]
    command += ["--device", device]
    if start_from is not None:
        config = Run.open(start_from).load_plan().preprocessing.config
        # Weights know objects of one size: other masks must not change it.
        chosen.insert(0, f"preprocessing.downscale={json.dumps(config.downscale)}")
        command += ["--from", str(start_from)]
    return [*command, *(part for setting in chosen for part in ("--set", setting))]


def _table_of(images: Sequence[AnnotatedImage], *, splits: bool) -> str:
    """Return the table with the columns image, mask, group and split.

    Args:
        splits: Whether training chooses the split; it also infers groups that are not known.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    are_grouped = not splits or all(one.group for one in images)
    count = 2 + are_grouped + (not splits)
    writer.writerow(["image", "mask", "group", "split"][:count])
    for one in images:
        assert one.mask is not None, "only annotated images are listed"
        files = (str(path.absolute()) for path in (one.image, one.mask))
        writer.writerow([*files, one.group or one.id, one.part][:count])
    return text.getvalue()


def label_settings(labels: LabelConfig, ignore: int | None) -> list[str]:
    """Return the settings that differ from the defaults."""
    found = []
    default = LabelConfig()
    for key, value in vars(labels).items():
        if value != getattr(default, key):
            found.append(f"labels.{key}={json.dumps(value)}")
    if ignore is not None and labels.ignore is None:
        found.append(f"labels.ignore={ignore}")
    return found
