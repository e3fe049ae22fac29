"""Class names of DICOM segmentations, which name their segments in each file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ushape.data.classes.names import StatedClasses, classes_by_value, merge_classes
from ushape.errors import UshapeError
from ushape.io import dicom, is_dicom_file
from ushape.types import Mask


def segment_classes(masks: Iterable[Mask | None]) -> StatedClasses | None:
    """Return the classes that the segments of all masks name; None if no mask has segments.

    Raises:
        DataError: if a segment number has different names in two files.
    """
    found = []
    for mask in masks:
        if not isinstance(mask, Path) or not is_dicom_file(mask):
            break  # Masks are of one kind.
        try:
            names = dicom.segment_names(mask)
        except UshapeError:
            continue  # The error is reported when the mask is read.
        if not names:
            break
        found.append(classes_by_value(mask, {0: "background", **names}))
    return merge_classes(found)
