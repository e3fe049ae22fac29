"""Write predictions as DICOM segmentations that refer to their images, through highdicom."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ushape._version import __version__
from ushape.errors import DataError, require_package
from ushape.io import dicom, is_dicom
from ushape.io.dicom_position import frame_order
from ushape.io.files import last_line, replacing

REQUIRED = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
"""Elements of the image that a segmentation repeats, so that viewers find its place."""

SERIES_NUMBER = 900
"""Number of the new series in its study."""

_QUIET = threading.Lock()


def load_highdicom(purpose: str) -> Any:
    """Import highdicom.

    Raises:
        MissingPackageError: if it is not installed.
    """
    return require_package("highdicom", "dicom-seg", purpose)


def write_segmentation(
    path: Path,
    classes: np.ndarray,
    source: Path,
    names: Sequence[str],
    colors: Sequence[tuple[int, int, int]],
) -> None:
    """Write classes as a binary DICOM SEG of the series of its image, atomically.

    The number of a segment is the index of its class, and its label the name of the class. Category
    and type of all segments are "Tissue", because a class name is not a code of a terminology.

    Args:
        classes: (*S) class indices, 0 for the background, on the grid that `io.read` gives.
        source: DICOM file, or folder of slices, that was predicted.
        names: Name of each class, background first.
        colors: Color (red, green, blue) of each class, background first.

    Raises:
        DataError: if the image is not DICOM, or lacks elements that a segmentation refers to.
        MissingPackageError: if highdicom is not installed.
    """
    if not is_dicom(source):
        raise DataError(
            f"{source}: a DICOM segmentation must refer to a DICOM image, but this image is in "
            "another format.",
            code="segmentation_unsupported",
            hint="Omit --dicom-seg; the mask itself is written in the format of the training "
            "masks.",
        )
    highdicom = load_highdicom(str(path))
    headers = dicom.read_headers(source)
    missing = [name for name in REQUIRED if not headers[0].get(name)]
    if missing:
        raise _refusal(source, f"the image does not contain {', '.join(missing)}")
    frames = _in_stored_order(headers, classes)
    with _quiet(), _stated(source):
        segmentation = highdicom.seg.Segmentation(
            source_images=headers,
            pixel_array=frames.astype(np.uint8 if len(names) < 256 else np.uint16),
            segmentation_type="BINARY",
            segment_descriptions=list(_describe(highdicom, names, colors)),
            series_instance_uid=highdicom.UID(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="ushape",
            manufacturer_model_name="ushape",
            software_versions=__version__,
            device_serial_number="none",
            series_description="Segmentation by ushape",
        )
    with replacing(path) as file:
        segmentation.save_as(file)


def _in_stored_order(headers: Sequence[Any], classes: np.ndarray) -> np.ndarray:
    """Return the classes (frames, y, x) in the order of the slices, or of the frames of a file."""
    frames = int(headers[0].get("NumberOfFrames") or 1) if len(headers) == 1 else len(headers)
    planes = classes.reshape(frames, int(headers[0].Rows), int(headers[0].Columns))
    if len(headers) > 1:
        return planes
    stored = np.empty_like(planes)
    stored[frame_order(headers[0], frames)] = planes
    return stored


def _describe(
    highdicom: Any, names: Sequence[str], colors: Sequence[tuple[int, int, int]]
) -> Iterator[Any]:
    """Yield the description of each class but the background."""
    codes = require_package("pydicom.sr.codedict", "medical", "DICOM segmentations").codes
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="ushape", version=__version__, family=codes.DCM.ArtificialIntelligence
    )
    for number, (name, color) in enumerate(zip(names, colors, strict=True)):
        if number == 0:
            continue
        yield highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:64],
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            display_color=highdicom.color.CIELabColor.from_rgb(*color),
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence remarks of highdicom and pydicom about optional elements of the image.

    One thread at a time: filters of warnings and levels of loggers belong to the whole process.
    """
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger = logging.getLogger("highdicom")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


@contextmanager
def _stated(source: Path) -> Iterator[None]:
    """Raise DataError if the image lacks an element that its segmentation needs."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _refusal(source, last_line(error)) from None


def _refusal(source: Path, why: str) -> DataError:
    return DataError(
        f"{source}: no DICOM segmentation can refer to this image ({why}).",
        code="segmentation_unsupported",
        hint="Omit --dicom-seg, or predict the original files from the scanner.",
    )
