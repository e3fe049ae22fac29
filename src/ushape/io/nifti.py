"""Headers of NIfTI files, and copies that ITK can read of files whose headers it refuses."""

from __future__ import annotations

import gzip
import itertools
import math
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from ushape.errors import DataError
from ushape.io.files import damaged
from ushape.types import GridRemark, LengthUnit

MAX_SHEAR = 0.02
"""Largest cosine between two axes of a file (about 1 degree) that is corrected. A scan with a
tilted gantry has cosines above 0.1."""

ITK_SHEAR = 1e-4
"""Largest cosine between two axes that ITK reads."""

SAME_PLACE_PX = 0.005
"""Largest distance between the pixels of two forms that state the same position. The numbers of a
rotation by nearly 180 degrees are rounded so much that it may be a thousandth of a pixel."""


@dataclass(frozen=True, kw_only=True)
class NiftiHeader:
    """Fields of a NIfTI header, of version 1 or 2."""

    is_packed: bool
    """Whether the content is compressed with gzip, whatever the suffix says."""

    version: int
    order: str
    """Byte order, as in `struct`."""

    axes: int
    lengths: tuple[int, ...]
    """Length of seven axes, x first; only the first `axes` are valid."""

    kind: int
    """Code of the data type."""

    start: int
    """Position of the first pixel in the unpacked file; -1 if it is no number."""

    spacing: tuple[float, ...]
    """Spacing along x, y and z."""

    unit: LengthUnit

    mirror: float
    """-1 if the third axis of the quaternion is reversed."""

    quaternion: tuple[float, ...]
    """Three numbers of the rotation of qform, and the position of the first pixel."""

    qform: int
    sform: int
    """Codes that are above 0 if the file states its position as a rotation or as a matrix."""

    slope: tuple[float, ...]
    """Factor of the stored values, and what is added to them; the factor 0 stands for neither."""

    matrix: np.ndarray
    """(3, 4) float64, the matrix of sform: indices (x, y, z, 1) to positions."""

    @property
    def shear(self) -> float:
        """Largest cosine between two axes of the matrix of sform; NaN if an axis has no length."""
        axes = self.matrix[:, :3]
        with np.errstate(invalid="ignore", divide="ignore"):
            axes = axes / np.linalg.norm(axes, axis=0)
        return float(np.abs(axes.T @ axes - np.eye(3)).max())

    @property
    def rotation(self) -> np.ndarray:
        """(3, 4) float64, what qform states in the form of `matrix`.

        Source:
            Description of METHOD 2 in nifti1.h.
        """
        b, c, d, *origin = self.quaternion
        a = math.sqrt(max(0.0, 1 - (b * b + c * c + d * d)))
        axes = np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
            ]
        )
        steps = np.array(self.spacing) * [1, 1, -1 if self.mirror < 0 else 1]
        return np.column_stack([axes * steps, origin])


def read_header(path: Path) -> NiftiHeader:
    """Read the header of a NIfTI file, packed or not.

    Raises:
        DataError: if the file is not NIfTI of version 1 or 2, or cannot be unpacked.
    """
    try:
        with path.open("rb") as file:
            is_packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            head = (gzip.GzipFile(fileobj=file) if is_packed else file).read(544)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, f"the file cannot be unpacked ({error})") from None
    order = {b"\x5c\x01": "<", b"\x1c\x02": "<", b"\x00\x00": ">"}.get(head[:2], "<")
    if head[4:8] == b"n+2\0" and len(head) >= 540:
        return _parse(head, is_packed, 2, order, _PLACES_2)
    if head[344:348] == b"n+1\0":
        return _parse(head, is_packed, 1, order, _PLACES_1)
    raise damaged(path, "the file is not NIfTI")


_PLACES_1 = {
    "dim": ("8h", 40), "datatype": ("2h", 70), "pixdim": ("8f", 76), "vox_offset": ("f", 108),
    "slope": ("2f", 112), "units": ("b", 123), "forms": ("2h", 252), "quaternion": ("6f", 256),
    "srow": ("12f", 280),
}  # fmt: skip
_PLACES_2 = {
    "dim": ("8q", 16), "datatype": ("2h", 12), "pixdim": ("8d", 104), "vox_offset": ("q", 168),
    "slope": ("2d", 176), "units": ("i", 500), "forms": ("2i", 344), "quaternion": ("6d", 352),
    "srow": ("12d", 400),
}  # fmt: skip
"""Format and position of the fields in each version of the header. The data type is followed by its
bits, the quaternion by its offset."""


def _parse(
    head: bytes, is_packed: bool, version: int, order: str, places: dict[str, tuple[str, int]]
) -> NiftiHeader:
    def field(name: str) -> tuple[float, ...]:
        kind, place = places[name]
        return struct.unpack_from(order + kind, head, place)

    axes, *lengths = field("dim")
    (start,) = field("vox_offset")
    qform, sform = field("forms")
    return NiftiHeader(
        is_packed=is_packed,
        version=version,
        order=order,
        axes=int(axes),
        lengths=tuple(map(int, lengths)),
        kind=int(field("datatype")[0]),
        start=int(start) if math.isfinite(start) else -1,
        spacing=field("pixdim")[1:4],
        unit=UNITS.get(int(field("units")[0]) & UNIT_BITS, ""),
        mirror=field("pixdim")[0],
        quaternion=field("quaternion"),
        qform=int(qform),
        sform=int(sform),
        slope=field("slope"),
        matrix=np.reshape(field("srow"), (3, 4)).astype(np.float64),
    )


UNITS: dict[int, LengthUnit] = {1: "meter", 2: "mm", 3: "micron"}
"""Unit of lengths by its code in the header."""

UNIT_BITS = 7
"""Bits of the field with this code; the others are the unit of time."""

DTYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
    1280: "u8",
}  # fmt: skip
"""NumPy's name of each data type of plain numbers, without byte order."""


def plain_dtype(header: NiftiHeader) -> np.dtype | None:
    """Return the type of an uncompressed volume whose values are stored as they are, else None.

    The volume has three axes longer than 1.
    """
    is_volume = header.axes == 3 and min(header.lengths[:3]) > 1
    is_scaled = header.slope[0] not in (0, 1) or (header.slope[0] == 1 and header.slope[1] != 0)
    if header.is_packed or not is_volume or is_scaled or header.kind not in DTYPES:
        return None
    return np.dtype(header.order + DTYPES[header.kind])


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
    """Return an uncompressed file of version 1 that states another unit for the same numbers."""
    code = next(code for code, name in UNITS.items() if name == unit)
    kind, place = _PLACES_1["units"]
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
    sform state different positions.

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
        kind, place = _PLACES_1[name]
        struct.pack_into(header.order + kind, head, place, *values)


def _as_version_1(path: Path, head: bytes, header: NiftiHeader) -> bytes:
    """Return the header of version 1 with the content of version 2, which ITK does not read.

    Raises:
        DataError: if an axis has more pixels than version 1 can state.
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
    for name, (kind, place) in _PLACES_2.items():
        values = struct.unpack_from(header.order + kind, head, place)
        to_kind, to_place = _PLACES_1[name]
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
    if header.sform > 0 and math.isfinite(header.shear):
        is_same = has_rotation and _are_same_place(header)
        return ({}, ()) if is_same else _correct_matrix(path, header)
    if has_rotation:
        return {}, ()  # ITK then ignores a matrix that it cannot read.
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
    """Return whether qform and sform state the same position for the corners of the volume."""
    last = [max(1, length) - 1 for length in header.lengths[: min(3, header.axes)]]
    corners = np.array(list(itertools.product(*[(0, n) for n in last], *[(0,)] * (3 - len(last)))))
    ends = np.column_stack([corners, np.ones(len(corners))])
    with np.errstate(all="ignore"):  # A damaged header may state any number.
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
