"""Annotation formats that are recognized but not supported, and how to convert them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ushape.io.annotations.geojson import is_geojson
from ushape.io.annotations.imagej import is_roi_file
from ushape.io.files import read_head

FILES_LOOKED_AT = 2000
"""Number of files below a folder that are tested."""


@dataclass(frozen=True)
class ForeignFormat:
    """A format of annotations that is not read."""

    name: str
    matches: Callable[[Path], bool]
    """Function that returns whether a file has the format."""

    conversion: str
    """Sentence that says how to convert it."""


def describe_foreign(folder: Path) -> str | None:
    """Return a sentence about the first known format below a folder that is not read."""
    paths = (path for path in folder.rglob("*") if not path.name.startswith("."))
    for path in itertools.islice(paths, FILES_LOOKED_AT):
        for one in FOREIGN if path.is_file() else ():
            if one.matches(path):
                return (
                    f"{path} is in the format of {one.name}, which is not supported. "
                    f"{one.conversion}"
                )
    return None


def _has_suffix(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.name.lower().endswith(suffixes)


def _has_words(suffix: str, *words: str) -> Callable[[Path], bool]:
    def matches(path: Path) -> bool:
        if not path.name.lower().endswith(suffix):
            return False
        head = read_head(path)
        return all(word.encode() in head for word in words)

    return matches


FOREIGN = (
    ForeignFormat(
        "Cellpose with Python objects",
        _has_suffix("_seg.npy"),
        "Save the masks as images in Cellpose (File > Save masks as PNG or TIF), next to the "
        "images as x_cp_masks.png.",
    ),
    ForeignFormat(
        "ImageJ with regions of interest",
        is_roi_file,
        "Give the file of the image x.tif the name x.zip or x_rois.zip. ImageJ's ROI Manager saves "
        "several regions as one zip (More > Save).",
    ),
    ForeignFormat(
        "QuPath (GeoJSON)",
        is_geojson,
        "Give the file of the image x.tif the name x.geojson.",
    ),
    ForeignFormat(
        "Label Studio",
        _has_words(".json", '"annotations"', '"result"', '"data"'),
        "Export the project from Label Studio as COCO, or as PNG for brush labels.",
    ),
    ForeignFormat(
        "Supervisely",
        _has_words(".json", '"objects"', '"classTitle"'),
        "Export the project from Supervisely with the app Export to COCO or Export as masks.",
    ),
    ForeignFormat(
        "VGG Image Annotator",
        _has_words(".json", '"regions"', '"shape_attributes"'),
        "Export the annotations from VGG Image Annotator as COCO.",
    ),
    ForeignFormat(
        "Aperio ImageScope",
        _has_words(".xml", "<Annotation", "<Vertex"),
        "Open the slide and its annotations in QuPath, and export labeled images from there.",
    ),
    ForeignFormat(
        "CVAT or Pascal VOC with bounding boxes",
        _has_words(".xml", "<bndbox>"),
        "Bounding boxes do not determine the pixels of an object. Draw polygons or masks instead.",
    ),
    ForeignFormat(
        "MATLAB",
        _has_suffix(".mat"),
        "Write each mask as an image in MATLAB: imwrite(uint8(mask), 'x_mask.png').",
    ),
)
"""Formats in the order in which they are tested."""
