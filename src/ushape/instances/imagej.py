"""Outlines as ImageJ regions of interest, one zip for the ROI Manager."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

import numpy as np

from ushape.errors import DataError
from ushape.instances.colors import Style
from ushape.instances.contours import Outline

LARGEST_INTEGER = 60_535
"""ImageJ's 16 bits for a coordinate begin at -5000."""

FIRST_DAY = (1980, 1, 1, 0, 0, 0)
"""Each entry's date, so that equal objects make equal files."""

MOVE, LINE, CLOSE = 0.0, 1.0, 4.0
"""Steps of a path, as java.awt.geom.PathIterator numbers them."""


def write_rois(file: BinaryIO, outlines: Iterable[Outline], styles: Sequence[Style]) -> None:
    """Writes a zip of one region for each outline: 00001-tumour.roi, 00001-z0003-tumour.roi.

    Without holes and in one piece it is a traced region, else a composite one. Coordinates are
    pixel corners, so ImageJ's area is the number of pixels. Sections of a volume carry their
    slice, which ImageJ counts from 1; so do the names.

    Args:
        file: Open for writing, and seekable.
        styles: By class index.

    Raises:
        DataError: roifile is not installed.
    """
    roifile = _need_roifile()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for outline in outlines:
            style = styles[outline.class_index]
            name = _name_of(outline, style)
            region = _region(roifile, outline)
            region.name = name
            region.position = 0 if outline.plane is None else outline.plane + 1
            region.stroke_color = bytes((255, *style.color))
            entry = zipfile.ZipInfo(f"{name}.roi", FIRST_DAY)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, region.tobytes())


def _region(roifile: Any, outline: Outline) -> Any:
    rings = [ring for one in outline.polygons for ring in (one.shell, *one.holes)]
    top, left = np.min([ring.min(axis=0) for ring in rings], axis=0).tolist()
    bottom, right = np.max([ring.max(axis=0) for ring in rings], axis=0).tolist()
    region = roifile.ImagejRoi(top=top, left=left, bottom=bottom, right=right)
    if len(rings) == 1 and max(bottom, right) <= LARGEST_INTEGER:
        region.roitype = roifile.ROI_TYPE.TRACED
        region.integer_coordinates = rings[0][:, ::-1] - (left, top)
        region.n_coordinates = len(rings[0])
    else:
        region.roitype = roifile.ROI_TYPE.RECT  # What ImageJ asks of composites.
        region.multi_coordinates = np.concatenate([_path(ring) for ring in rings])
        region.shape_roi_size = len(region.multi_coordinates)
    return region


def _path(ring: np.ndarray) -> np.ndarray:
    """(P, 2) corners -> steps of a closed path; float32 is exact up to 2^24 pixels."""
    steps = np.empty((len(ring), 3), dtype=np.float32)
    steps[:, 0], steps[:, 1:] = LINE, ring[:, ::-1]
    steps[0, 0] = MOVE
    return np.append(steps.ravel(), np.float32(CLOSE))


def _name_of(outline: Outline, style: Style) -> str:
    """Unique, in order when sorted as text, and legal as a file."""
    plane = "" if outline.plane is None else f"-z{outline.plane + 1:04d}"
    legal = re.sub(r"[^\w .()+-]", "_", style.name).strip()
    return f"{outline.object_id:05d}{plane}-{legal}"


def _need_roifile() -> Any:
    try:
        import roifile
    except ImportError:
        raise DataError(
            "To write regions for ImageJ, roifile is needed.",
            hint='pip install "ushape[imagej]" installs it.',
        ) from None
    return roifile
