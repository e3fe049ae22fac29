"""DICOM files, through pydicom: a single file, or a folder of slices as one volume."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ushape.errors import DataError, require_package
from ushape.io import dicom_seg, files
from ushape.io.dicom_position import (
    MAX_TILT,
    axes_of,
    frame_order,
    functional_group,
    grid_of,
    numbers,
    slice_distance,
    spacing_of,
)
from ushape.io.itk import load_itk, on_grid, spacing_on
from ushape.types import Grid, Pixels

DEFLATED = "1.2.840.10008.1.2.1.99"
"""Transfer syntax that compresses the whole file, so that its unpacked size has no bound."""

BY_ITK = {
    "1.2.840.10008.1.2.4.51",  # JPEG of 12 bits
    "1.2.840.10008.1.2.4.57",  # JPEG lossless
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, first-order prediction: the usual one in archives
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS
}
"""Transfer syntaxes that SimpleITK unpacks; pydicom needs additional packages for them."""

PIXEL_ELEMENTS = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames",
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip
"""Elements that are needed to unpack the pixels."""

STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
"""SOP class of contours of radiotherapy."""

DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
"""SOP class of a volume of doses, which has the frame of reference of its series."""

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
"""SOP class of the temporary files that ITK unpacks."""


def read(path: Path) -> Pixels:
    """Read a single file: (1, y, x), colors (3, y, x), several frames (C, z, y, x).

    Rescale slope and intercept are applied: integer ones give int32, others float32. MONOCHROME1,
    in which small values are bright, is inverted. Palettes are converted to their colors. Frames
    are ordered by position; those of a segmentation (DICOM SEG) become a label map (1, z, y, x).

    Raises:
        DataError: if the file is damaged or hostile, has no pixels, or its compression is not
            supported; or if the positions of its frames are not those of one volume.
        MissingPackageError: if pydicom is not installed.
    """
    with files.reading(path):
        data = _load(path)
        array = _pixels_of(path, data)
        if dicom_seg.is_segmentation(data):
            return dicom_seg.place_segments(path, data, array)
        frames = array.shape[1] if array.ndim == 4 else 1
        array = array[:, frame_order(data, frames)] if frames > 1 else array
        grid = grid_of(path, data, frames)
        if grid is None:
            spacing = spacing_of(data, frames)
            flat = spacing[-(array.ndim - 1) :] if spacing is not None else None
            return Pixels(array=array, spacing_mm=flat)
        return on_grid(array.reshape(len(array), *grid.shape), grid)


def read_series(folder: Path) -> Pixels:
    """Read the slices in a folder as (C, z, y, x), ordered by position along the slice normal.

    A single slice gives (C, y, x). Files that are not DICOM are ignored.

    Raises:
        DataError: if there is no slice or several series; if slices differ in size or direction,
            share a position, or do not lie behind each other, or if one is missing in between;
            and as for `read`.
    """
    with files.reading(folder):
        slices = _slices_of(folder, pixels=True)
        if len(slices) == 1:
            return read(slices[0][0])
        grid = _stack_of(slices)
        files.check_claim(folder, grid.shape, 4, math.prod(grid.shape))
        arrays = [_pixels_of(path, data) for path, data in slices]
        if len({array.shape for array in arrays}) > 1 or arrays[0].ndim != 3:
            raise DataError(
                f"{folder}: the slices differ in kind, or have several frames.",
                code="dicom_series_uneven",
                hint="Keep one series per folder.",
            )
        return on_grid(np.stack(arrays, axis=1), grid)


def read_grid(path: Path) -> Grid | None:
    """Return the position of a file, or of a folder of slices; None if the file has none.

    Raises:
        DataError: as for `read` and `read_series`.
    """
    return _read_header(path)[0]


def read_spacing(path: Path) -> tuple[float, ...] | None:
    """Return the spacing in mm along each axis of S, if the file or folder contains it.

    Raises:
        DataError: as for `read` and `read_series`.
    """
    grid, spacing = _read_header(path)
    return spacing if grid is None else spacing_on(grid)


def _read_header(path: Path) -> tuple[Grid | None, tuple[float, ...] | None]:
    """Return position and spacing; the spacing is only used without a position."""
    with files.reading(path):
        slices = _slices_of(path, pixels=False) if path.is_dir() else []
        if len(slices) > 1:
            return _stack_of(slices), None
        data = slices[0][1] if slices else _load(path, pixels=False)
        frames = int(data.get("NumberOfFrames") or 1)
        if dicom_seg.is_segmentation(data):
            return dicom_seg.slices_of(path, data, frames)[0], None
        spacing = spacing_of(data, frames)
        return grid_of(path, data, frames), spacing and spacing[-2 if frames == 1 else -3 :]


def patient_of(path: Path) -> str:
    """Return the PatientID of a file, or of a folder of slices; '' if there is none.

    Raises:
        DataError: if it is not DICOM, or is damaged.
        MissingPackageError: if pydicom is not installed.
    """
    with files.reading(path):
        slices = _slices_of(path, pixels=False) if path.is_dir() else [(path, _load(path, False))]
        return str(slices[0][1].get("PatientID") or "").strip()


def read_headers(path: Path) -> list[Any]:
    """Return the data sets of a file, or of a folder of slices in their order, without pixels.

    Raises:
        DataError: as for `read` and `read_series`.
        MissingPackageError: if pydicom is not installed.
    """
    with files.reading(path):
        if path.is_dir():
            return [data for _, data in _slices_of(path, pixels=False)]
        return [_load(path, pixels=False)]


def segment_names(path: Path) -> dict[int, str]:
    """Return the names of the segments by their number, if a file is a segmentation.

    Raises:
        DataError: if it is not DICOM, or is damaged.
        MissingPackageError: if pydicom is not installed.
    """
    with files.reading(path):
        data = _load(path, pixels=False)
        return dicom_seg.names_of(data) if dicom_seg.is_segmentation(data) else {}


def series_of(path: Path) -> tuple[str, str] | None:
    """Return SeriesInstanceUID and FrameOfReferenceUID of an image.

    Returns:
        None for a segmentation, for a dose, and for a file without pixels.

    Raises:
        DataError: if it is not DICOM, or is damaged.
        MissingPackageError: if pydicom is not installed.
    """
    with files.reading(path):
        names = ["SeriesInstanceUID", "FrameOfReferenceUID"]
        data = _load(path, pixels=False, only=[*names, "Rows", "SOPClassUID"])
        is_derived = dicom_seg.is_segmentation(data) or data.get("SOPClassUID") == DOSE
        if is_derived or not data.get("Rows"):
            return None
        return str(data.get(names[0]) or ""), str(data.get(names[1]) or "")


def contoured_series(data: Any) -> set[str]:
    """Return the SeriesInstanceUID of each series that contours of radiotherapy refer to."""
    return {
        str(series.SeriesInstanceUID)
        for frame in data.get("ReferencedFrameOfReferenceSequence") or []
        for study in frame.get("RTReferencedStudySequence") or []
        for series in study.get("RTReferencedSeriesSequence") or []
        if series.get("SeriesInstanceUID")
    }


def is_structure_set(path: Path) -> bool:
    """Whether a file contains radiotherapy contours, according to its first bytes."""
    return _states_class(path, STRUCTURE_SET)


def is_segmentation(path: Path) -> bool:
    """Whether a file contains segments, according to its first bytes."""
    return _states_class(path, dicom_seg.SEGMENTATION) or _states_class(path, dicom_seg.LABEL_MAP)


def _states_class(path: Path, uid: str) -> bool:
    """Return whether the file header names a SOP class; it has the same encoding in all files."""
    value = uid.encode() + b"\0" * (len(uid) % 2)
    element = b"\x02\x00\x02\x00UI" + len(value).to_bytes(2, "little") + value
    return element in files.read_head(path, 512)


def is_marked(path: Path) -> bool:
    """Whether a file carries the mark of DICOM, whatever its name is."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _load(path: Path, pixels: bool = True, only: list[str] | None = None) -> Any:
    """Return the data set of a file, or only some of its elements."""
    pydicom = _pydicom(path)
    # Old files lack this mark, but pydicom would read elements from random bytes.
    if not is_marked(path):
        raise files.damaged(path, "the file is not DICOM")
    meta = pydicom.filereader.read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") == DEFLATED:
        raise DataError(
            f"{path}: files that are deflated as a whole are not supported.",
            code="unsupported_compression",
            hint="Save the file as explicit VR little endian.",
        )
    return pydicom.dcmread(path, stop_before_pixels=not pixels, specific_tags=only)


def _pixels_of(path: Path, data: Any) -> np.ndarray:
    """Return (C, y, x) or (C, frames, y, x) with rescaling applied."""
    pixels = _pydicom(path, ".pixels")
    if str(data.get("SOPClassUID")) == STRUCTURE_SET:
        raise DataError(
            f"{path}: the file contains radiotherapy contours (RTSTRUCT), which have no pixels.",
            code="contours_without_series",
            hint="In training data, keep the DICOM series that the contours were drawn on in the "
            "same data folder, without masks of other kinds. Otherwise, save the contours as "
            "a label map (NIfTI or NRRD), for example with 3D Slicer.",
        )
    if "PixelData" not in data:
        raise DataError(
            f"{path}: the DICOM file has no pixels.",
            code="no_pixels",
            hint="Remove it from the data.",
        )
    frames = int(data.get("NumberOfFrames") or 1)
    samples = int(data.SamplesPerPixel)
    shape = (frames, int(data.Rows), int(data.Columns), samples)
    files.check_claim(path, shape, int(data.BitsAllocated) // 8 or 1, path.stat().st_size)
    is_by_itk = data.file_meta.TransferSyntaxUID in BY_ITK
    array = _unpack_by_itk(path, data, shape) if is_by_itk else pixels.pixel_array(data)
    kind = str(data.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        array, samples = pixels.apply_color_lut(array, data), 3
    array = np.moveaxis(array.reshape(*shape[:3], samples), -1, 0)
    if kind == "MONOCHROME1":
        depth = int(data.BitsStored)
        array = (-1 if int(data.PixelRepresentation) else 2**depth - 1) - array
    scaled = _rescale(data, array) if samples == 1 else array
    return scaled if frames > 1 else scaled[:, 0]


def _unpack_by_itk(path: Path, data: Any, shape: tuple[int, int, int, int]) -> np.ndarray:
    """Return the stored values (frames, y, x, C), unpacked by ITK from a copy with pixels only.

    In the original file, ITK would accept the length that any element claims.
    """
    itk, pydicom = load_itk(path), _pydicom(path)
    encaps = _pydicom(path, ".encaps")
    dataset = pydicom.Dataset()
    for name in PIXEL_ELEMENTS:
        if data.get(name) is not None:
            setattr(dataset, name, data.get(name))
    if str(data.PhotometricInterpretation).startswith("MONOCHROME"):
        dataset.PhotometricInterpretation = "MONOCHROME2"  # Otherwise ITK would invert it.
    frames = list(encaps.generate_frames(data.PixelData, number_of_frames=shape[0]))
    dataset.SOPClassUID = SECONDARY_CAPTURE
    dataset.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    dataset.PixelData = encaps.encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = data.file_meta.TransferSyntaxUID
    with tempfile.TemporaryDirectory() as folder:  # ITK can only read from a path.
        copy = Path(folder, "pixels.dcm")
        dataset.save_as(copy, enforce_file_format=True)
        image = itk.ReadImage(str(copy), imageIO="GDCMImageIO")
    return itk.GetArrayFromImage(image).reshape(shape)


def _pydicom(path: Path, module: str = "") -> Any:
    return require_package(f"pydicom{module}", "medical", str(path))


def _rescale(data: Any, array: np.ndarray) -> np.ndarray:
    """Return (1, frames, y, x) times slope plus intercept of each frame, or of the file."""
    factors = []
    for frame in range(array.shape[1]):
        source = functional_group(data, frame, "PixelValueTransformationSequence") or data
        slope, intercept = source.get("RescaleSlope"), source.get("RescaleIntercept")
        factors.append(
            (float(1 if slope is None else slope), float(0 if intercept is None else intercept))
        )
    if all(pair == (1, 0) for pair in factors):
        return array
    slopes, intercepts = np.array(factors).T[:, None, :, None, None]
    scaled = array * slopes + intercepts
    is_whole = all(number.is_integer() for pair in factors for number in pair)
    return scaled.astype(np.int32 if is_whole else np.float32)


def _slices_of(folder: Path, pixels: bool) -> list[tuple[Path, Any]]:
    """Return the DICOM files of a folder, of one series, ordered along the normal."""
    found = [
        (path, _load(path, pixels))
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and path.is_file() and _is_slice(path)
    ]
    slices = [(path, data) for path, data in found if data.get("Rows")]  # Leaves out reports.
    slices = _contoured(slices, folder) or slices
    if not slices:
        raise DataError(
            f"{folder}: the folder contains no DICOM slices.",
            code="no_images",
            hint="Specify the folder that contains them.",
        )
    series = sorted({str(data.get("SeriesInstanceUID")) for _, data in slices})
    if len(series) > 1:
        raise DataError(
            f"{folder}: the folder contains {len(series)} series ({', '.join(series[:3])}).",
            code="several_dicom_series",
            hint="Keep one series per folder.",
        )
    if len(slices) == 1:
        return slices
    for path, data in slices:
        if not data.get("ImagePositionPatient") or not data.get("ImageOrientationPatient"):
            raise DataError(
                f"{path}: the slice does not contain its position in the patient.",
                code="dicom_series_uneven",
                hint="A series needs ImagePositionPatient and ImageOrientationPatient.",
            )
    return sorted(slices, key=lambda pair: _place_of(pair[1]))


def _contoured(slices: list[tuple[Path, Any]], folder: Path) -> list[tuple[Path, Any]]:
    """Return the slices of the only series of several that contours in the folder refer to."""
    series = {str(data.get("SeriesInstanceUID")) for _, data in slices}
    if len(series) < 2:
        return slices
    named = {
        uid
        for path in folder.iterdir()
        if not path.name.startswith(".") and is_structure_set(path)
        for uid in contoured_series(_load(path, pixels=False))
    }
    named &= series
    return [one for one in slices if len(named) == 1 and str(one[1].SeriesInstanceUID) in named]


def _is_slice(path: Path) -> bool:
    """Whether a file is a .dcm or carries the mark of DICOM; an index of files is not a slice."""
    if path.name == "DICOMDIR":
        return False
    return path.suffix.lower() == ".dcm" or is_marked(path)


def _place_of(data: Any) -> float:
    """Return the position in mm along the normal of the slice."""
    normal = axes_of(numbers(data.ImageOrientationPatient))[2]
    return float(np.dot(normal, numbers(data.ImagePositionPatient)))


def _stack_of(slices: list[tuple[Path, Any]]) -> Grid:
    """Return the grid of ordered slices; raise DataError if they are not those of a volume."""
    first = slices[0][1]
    flat = grid_of(slices[0][0], first, 1)
    if flat is None:
        raise DataError(
            f"{slices[0][0]}: the slice has no PixelSpacing.",
            code="dicom_series_uneven",
            hint="Keep the slices of each scan in a separate folder.",
        )
    for path, data in slices:
        other = grid_of(path, data, 1)
        if other is None or other.shape != flat.shape or int(data.get("NumberOfFrames") or 1) > 1:
            raise DataError(
                f"{path}: the slice differs in size from {slices[0][0].name}.",
                code="dicom_series_uneven",
                hint="Keep one series per folder, with one file per slice.",
            )
        turned = np.abs(np.subtract(other.direction, flat.direction)).max()
        if turned > MAX_TILT or not np.allclose(other.spacing_mm[1:], flat.spacing_mm[1:]):
            raise DataError(
                f"{path}: the slice differs in direction or spacing from {slices[0][0].name}.",
                code="dicom_series_uneven",
                hint="Keep one series per folder, without scouts and reformatted series.",
            )
    distance = slice_distance(
        [f"{path}: the slice" for path, _ in slices],
        np.array([numbers(data.ImagePositionPatient) for _, data in slices]),
        axes_of(numbers(first.ImageOrientationPatient)),
        flat.spacing_mm[1:],
    )
    return Grid(
        shape=(len(slices), *flat.shape[1:]),
        spacing_mm=(distance, *flat.spacing_mm[1:]),
        origin_mm=flat.origin_mm,
        direction=flat.direction,
    )
