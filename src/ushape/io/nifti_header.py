"""Headers of NIfTI files."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ushape.io.files import damaged
from ushape.types import LengthUnit


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
    """Codes that are above 0 if the file specifies its position as a rotation or as a matrix."""

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
        """(3, 4) float64, qform in the form of `matrix`.

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
        return _parse(head, is_packed, 2, order, PLACES_2)
    if head[344:348] == b"n+1\0":
        return _parse(head, is_packed, 1, order, PLACES_1)
    raise damaged(path, "the file is not NIfTI")


PLACES_1 = {
    "dim": ("8h", 40), "datatype": ("2h", 70), "pixdim": ("8f", 76), "vox_offset": ("f", 108),
    "slope": ("2f", 112), "units": ("b", 123), "forms": ("2h", 252), "quaternion": ("6f", 256),
    "srow": ("12f", 280),
}  # fmt: skip
PLACES_2 = {
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
