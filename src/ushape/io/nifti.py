"""Copies of NIfTI files that ITK reads at their place, and headers of masks at the same place."""

from __future__ import annotations

import gzip
import itertools
import math
import shutil
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from ushape.errors import DataError
from ushape.io.nifti_header import (
    DTYPES,
    PLACES_1,
    PLACES_2,
    UNIT_BITS,
    UNITS,
    NiftiHeader,
    read_header,
)
from ushape.types import GridRemark, LengthUnit

MAX_SHEAR = 0.02
"""Largest cosine between two axes of a file (about 1 degree) that is corrected. A scan with a
tilted gantry has cosines above 0.1."""

ITK_SHEAR = 1e-4
"""Largest cosine between two axes that ITK reads."""

SAME_PLACE_PX = 0.005
"""Largest distance between the pixels of two forms that specify the same position. The numbers of a
rotation by nearly 180 degrees are rounded so much that it may be a thousandth of a pixel."""


def header_like(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> tuple[bytes, np.dtype]:
    """Return the first bytes of an uncompressed volume of plain numbers at the place of another.

    Args:
        path: NIfTI file with the same S, whose position and spacing are copied as they are read.
        shape: S.
        dtype: Type of the values; one of DTYPES.

    Returns:
        The header of version 1 with its four bytes of extensions, and the type with its byte order.

    Raises:
        DataError: if the axes of the file are far from right angles.
    """
    header = read_header(path)
    with path.open("rb") as file:
        head = (cast(BinaryIO, gzip.GzipFile(fileobj=file)) if header.is_packed else file).read(544)
    written = bytearray(352)
    written[:348] = _as_version_1(path, head, header)[:348] if header.version == 2 else head[:348]
    kind = next(kind for kind, name in DTYPES.items() if np.dtype(name) == dtype.newbyteorder("="))
    size = (3, *shape[::-1], *[1] * 4)
    stated = {"dim": size, "vox_offset": (352.0,), "slope": (1.0, 0.0)}
    _change(written, header, {**_corrections(path, header)[0], **stated})
    struct.pack_into(f"{header.order}2h", written, 70, kind, 8 * dtype.itemsize)
    struct.pack_into(f"{header.order}h", written, 68, 0)  # What the values mean.
    struct.pack_into(f"{header.order}2f", written, 124, 0, 0)  # Range in which they are shown.
    return bytes(written), dtype.newbyteorder(cast(Any, header.order))


def with_unit(content: bytes, unit: LengthUnit) -> bytes:
    """Return an uncompressed file of version 1 with another unit for the same numbers."""
    code = next(code for code, name in UNITS.items() if name == unit)
    kind, place = PLACES_1["units"]
    stated = struct.unpack_from(kind, content, place)[0]
    changed = struct.pack(kind, stated & ~UNIT_BITS | code)
    return content[:place] + changed + content[place + len(changed) :]


@contextmanager
def readable_by_itk(
    path: Path, header: NiftiHeader, *, is_header_only: bool = False
) -> Iterator[tuple[Path, tuple[GridRemark, ...]]]:
    """Yield a file with the same content that ITK reads, and what was corrected in its header.

    This is the file itself, or a temporary copy if the suffix does not tell whether it is packed,
    if its axes are not quite at right angles, if spacings are missing or negative, or if qform and
    sform specify different positions.

    Args:
        is_header_only: Whether the copy ends after the header.

    Raises:
        DataError: if the axes are far from right angles.
    """
    changes, remarks = _corrections(path, header)
    is_named_packed = path.name.lower().endswith(".gz")
    if not changes and header.version == 1 and header.is_packed == is_named_packed:
        yield path, ()
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy.nii")
        with (
            cast(BinaryIO, gzip.open(path)) if header.is_packed else path.open("rb") as source,
            copy.open("wb") as target,
        ):
            head = source.read(header.start)
            written = bytearray(_as_version_1(path, head, header) if header.version == 2 else head)
            _change(written, header, changes)
            target.write(written)
            if not is_header_only:
                shutil.copyfileobj(source, target, 2**20)
        yield copy, remarks


def _change(head: bytearray, header: NiftiHeader, fields: Mapping[str, tuple[float, ...]]) -> None:
    """Set fields of a header of version 1 to other values."""
    for name, values in fields.items():
        kind, place = PLACES_1[name]
        struct.pack_into(header.order + kind, head, place, *values)


def _as_version_1(path: Path, head: bytes, header: NiftiHeader) -> bytes:
    """Return the header of version 1 with the content of version 2, which ITK does not read.

    Raises:
        DataError: if an axis has more pixels than version 1 can represent.
    """
    if max(header.lengths) > 32_767:
        raise DataError(
            f"{path}: an axis has {max(header.lengths)} pixels; at most 32767 are supported.",
            code="unsupported_axes",
            hint="Save the volume as NRRD or MetaImage.",
        )
    version_1 = bytearray(352)
    struct.pack_into(f"{header.order}i", version_1, 0, 348)
    struct.pack_into("4s", version_1, 344, b"n+1\0")
    for name, (kind, place) in PLACES_2.items():
        values = struct.unpack_from(header.order + kind, head, place)
        to_kind, to_place = PLACES_1[name]
        values = (352,) if name == "vox_offset" else values
        struct.pack_into(header.order + to_kind, version_1, to_place, *values)
    return bytes(version_1)


def _corrections(
    path: Path, header: NiftiHeader
) -> tuple[dict[str, tuple[float, ...]], tuple[GridRemark, ...]]:
    """Return new values of fields that ITK refuses or ignores, and a remark about each correction.

    As in nibabel and FSL, sform is the position if there is one. ITK prefers qform.
    """
    used = header.spacing[: min(3, max(1, header.axes))]
    has_rotation = header.qform > 0 and all(0 < step < math.inf for step in used)
    has_matrix = bool(np.isfinite(header.matrix).all()) and math.isfinite(header.shear)
    if header.sform > 0 and has_matrix:
        is_same = has_rotation and _are_same_place(header)
        return ({}, ()) if is_same else _correct_matrix(path, header)
    if has_rotation:
        # ITK would use numbers of the matrix that are not finite.
        return ({"forms": (header.qform, 0)} if header.sform > 0 else {}), ()
    changes: dict[str, tuple[float, ...]] = {}
    if header.sform > 0:
        changes["forms"] = (header.qform, 0)
    missing = [not 0 < abs(step) < math.inf for step in used]
    remarks: list[GridRemark] = [
        MISSING[axis] for axis, lacks in enumerate(missing) if lacks and header.lengths[axis] > 1
    ]
    if all(missing):
        remarks = ["no_spacing"]
    if any(step < 0 for step, lacks in zip(used, missing, strict=True) if not lacks):
        remarks.append("negative_spacing")
    if remarks or any(missing):
        mended = [abs(step) if 0 < abs(step) < math.inf else 1.0 for step in header.spacing]
        changes["pixdim"] = _pixdim(mended, header.mirror if header.qform > 0 else 1.0)
    return changes, tuple(remarks)


def _are_same_place(header: NiftiHeader) -> bool:
    """Return whether qform and sform specify the same position for the corners of the volume."""
    last = [max(1, length) - 1 for length in header.lengths[: min(3, header.axes)]]
    corners = np.array(list(itertools.product(*[(0, n) for n in last], *[(0,)] * (3 - len(last)))))
    ends = np.column_stack([corners, np.ones(len(corners))])
    with np.errstate(all="ignore"):  # A damaged header may contain any number.
        apart = np.linalg.norm(ends @ (header.rotation - header.matrix).T, axis=1)
    return bool(apart.max() <= SAME_PLACE_PX * min(header.spacing[: len(last)]))


MISSING: tuple[GridRemark, ...] = ("no_spacing_x", "no_spacing_y", "no_spacing_z")
"""Remark that the spacing along an axis is missing, by its number in the header."""


def _pixdim(spacing: Iterable[float], mirror: float = 1.0) -> tuple[float, ...]:
    """Return the field with another spacing; its first number belongs to the quaternion."""
    return (mirror, *spacing, 0.0, 0.0, 0.0, 0.0)


def _correct_matrix(
    path: Path, header: NiftiHeader
) -> tuple[dict[str, tuple[float, ...]], tuple[GridRemark, ...]]:
    """Let the matrix be the only position, with axes at right angles and their lengths as spacing.

    Raises:
        DataError: if the axes are far from right angles.
    """
    if header.shear > MAX_SHEAR:
        degrees = math.degrees(math.asin(min(1.0, header.shear)))
        raise DataError(
            f"{path}: the axes are sheared by {degrees:.1f} degrees (sform of the NIfTI header), "
            "so the pixels do not lie on a grid with right angles.",
            code="sheared_grid",
            hint="Resample image and mask to a grid with right angles, for example with "
            "`flirt -applyisoxfm` of FSL or with 3D Slicer.",
        )
    changes: dict[str, tuple[float, ...]] = {}
    if header.qform > 0:
        changes["forms"] = (0, header.sform)
    lengths = np.linalg.norm(header.matrix[:, :3], axis=0)
    if not np.allclose(lengths, header.spacing, rtol=1e-5, atol=0):
        changes["pixdim"] = _pixdim(lengths)
    if header.shear <= 0.9 * ITK_SHEAR:
        return changes, ()
    return {**changes, "srow": tuple(_with_right_angles(header.matrix).ravel())}, ("sheared",)


def _with_right_angles(matrix: np.ndarray) -> np.ndarray:
    """Return the matrix (3, 4) with the nearest axes at right angles, of the same lengths."""
    lengths = np.linalg.norm(matrix[:, :3], axis=0)
    left, _, right = np.linalg.svd(matrix[:, :3] / lengths)
    return np.column_stack([left @ right * lengths, matrix[:, 3]])
