"""Files with the outlines of one image each: regions of ImageJ, and GeoJSON of QuPath."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path

from ushape.data.layouts.base import LayoutMatch
from ushape.data.layouts.listing import annotations_below
from ushape.data.layouts.shapes import ImageIndex, match_shapes, pair_shape_files
from ushape.io.annotations.geojson import is_geojson
from ushape.io.annotations.imagej import is_roi_file
from ushape.types import ShapesFormat

WORDS = re.compile(
    r"^(roi[-_ ]?sets?|rois?)[-_. ]+|[-_. ]*roi[-_ ]?sets?$|[-_. ]+rois$|^rois?$", re.IGNORECASE
)
"""Beginning or end of the name of a file of regions that its image does not have."""


def find_imagej(folder: Path, masks: Collection[Path] = ()) -> LayoutMatch | None:
    """Find x.zip, x_rois.zip, RoiSet_x.zip or x.roi with regions of ImageJ for each image x.

    RoiSet.zip belongs to the only image in its folder.

    Args:
        masks: Files that are not images.

    Raises:
        DataError: if two files belong to one image, or if all images are left out.
    """
    return _find(folder, masks, "imagej", "ImageJ regions", ("*.zip", "*.roi"), is_roi_file)


def find_geojson(folder: Path, masks: Collection[Path] = ()) -> LayoutMatch | None:
    """Find x.geojson or x.json of QuPath for each image x.

    Args:
        masks: Files that are not images.

    Raises:
        DataError: if two files belong to one image, or if all images are left out.
    """
    return _find(folder, masks, "geojson", "GeoJSON files", ("*.geojson", "*.json"), is_geojson)


def _find(
    folder: Path,
    masks: Collection[Path],
    kind: ShapesFormat,
    layout: str,
    patterns: tuple[str, ...],
    matches: Callable[[Path], bool],
) -> LayoutMatch | None:
    found = annotations_below(folder, *patterns)
    files = [path for path in found if not path.name.startswith(".") and matches(path)]
    if not files:
        return None
    index = ImageIndex(folder, masks)
    shapes, missing = pair_shape_files(
        files,
        kind,
        lambda path: _image_of(path, index),
        tool="shapes",
        hint="Remove one of them. To save several ImageJ regions, use a single zip file.",
    )
    if not shapes:
        return None
    return match_shapes(folder, layout, shapes, source=folder, missing=missing, images=index.paths)


def _image_of(path: Path, index: ImageIndex) -> Path | None:
    """Return the image of a file of shapes, by its name."""
    stem = path.name[: -len(path.suffix)]
    short = WORDS.sub("", stem)
    for name in dict.fromkeys((stem, short)):
        image = index.find(name, near=[path.parent]) if name else None
        if image is not None:
            return image
    beside = [one for one in index.paths if one.parent == path.parent]
    return beside[0] if not short and len(beside) == 1 else None
