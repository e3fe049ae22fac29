"""Read the shapes of one image from the files of annotation tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ushape.errors import DataError
from ushape.io.annotations.cvat import read_cvat
from ushape.io.annotations.geojson import read_geojson
from ushape.io.annotations.imagej import read_rois
from ushape.io.annotations.labelme import read_labelme
from ushape.io.annotations.run_tables import read_run_table
from ushape.io.annotations.shapes import IGNORE_LABEL, ImageShapes
from ushape.io.annotations.yolo import read_yolo
from ushape.types import ShapesFormat, ShapesMask

SHAPE_READERS: dict[ShapesFormat, Callable[[Path], ImageShapes | Mapping[str, ImageShapes]]] = {
    "labelme": read_labelme,
    "yolo": read_yolo,
    "cvat": read_cvat,
    "run_lengths": read_run_table,
    "imagej": read_rois,
    "geojson": read_geojson,
}
"""Reader of each format: of the shapes of one image, or of those of all images by name."""

BACKGROUND_LABELS = ("background", "_background_")
"""Labels, in lower case, of shapes that are drawn as background."""

IGNORE_CODE = 255


def read_shapes(mask: ShapesMask) -> ImageShapes:
    """Read the shapes of one image.

    Raises:
        DataError: if the file cannot be read, or no longer lists the image.
    """
    found = SHAPE_READERS[mask.format](mask.path)
    if isinstance(found, ImageShapes):
        return found
    if mask.entry not in found:
        raise DataError(
            f"{mask.path}: the image {mask.entry} is no longer listed.",
            code="shapes_image_missing",
            hint="Restore the file that was used for training.",
        )
    return found[mask.entry]


def codes_of_labels(classes: tuple[str, ...]) -> dict[str, int]:
    """Return the code of each label: 1, 2, ..., and 0 for labels that mean background."""
    codes: dict[str, int] = {}
    for label in classes:
        if label.lower() in BACKGROUND_LABELS:
            codes[label] = 0
        elif label == IGNORE_LABEL:
            codes[label] = IGNORE_CODE
        else:
            codes[label] = 1 + sum(0 < code != IGNORE_CODE for code in codes.values())
    return codes
