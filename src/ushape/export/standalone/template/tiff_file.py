"""Write TIFF files of any type of values, which Pillow cannot."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

SHORT, LONG = 3, 4
"""Types of the values of a tag: 16 and 32 bits, unsigned."""

ZLIB = 8
"""Value of the tag Compression."""

WHITE_IS_ZERO, GRAY, RGB, PALETTE = range(4)
"""Values of the tag PhotometricInterpretation."""

SAMPLE_FORMATS = {"u": 1, "b": 1, "i": 2, "f": 3}
"""Value of the tag SampleFormat by the kind of a NumPy type."""


def tiff_bytes(
    array: np.ndarray,
    palette: Sequence[Sequence[int]] | None = None,
    *,
    white_is_zero: bool = False,
) -> bytes:
    """Return a TIFF of one page, compressed with zlib.

    Args:
        palette: Color of each index; None for gray values and colors.
        white_is_zero: Whether unsigned gray values are stored inverted.

    Shapes:
        array: (y, x) of any type, bool takes 1 bit; or (y, x, C) uint8 colors, the fourth channel
            being opacity.
    """
    height, width = array.shape[:2]
    samples = array.shape[2] if array.ndim == 3 else 1
    is_bool, color = array.dtype == bool, RGB if samples > 1 else GRAY
    if white_is_zero:
        array, color = np.invert(array), WHITE_IS_ZERO
    stored = np.packbits(array, axis=-1) if is_bool else array.astype(array.dtype.newbyteorder("<"))
    pixels = zlib.compress(stored.tobytes())
    bits = 1 if is_bool else 8 * array.dtype.itemsize
    tags: dict[int, tuple[int, Sequence[int]]] = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [bits] * samples),
        259: (SHORT, [ZLIB]),
        262: (SHORT, [color if palette is None else PALETTE]),
        273: (LONG, [8]),  # The pixels follow the header.
        277: (SHORT, [samples]),
        278: (LONG, [height]),
        279: (LONG, [len(pixels)]),
        339: (SHORT, [SAMPLE_FORMATS[array.dtype.kind]] * samples),
    }
    if palette is not None:
        table = np.zeros((3, 256), dtype=int)
        table[:, : len(palette)] = 257 * np.asarray(palette).T
        tags[320] = (SHORT, table.ravel().tolist())
    if samples == 4:
        tags[338] = (SHORT, [2])  # Opacity by which the colors are not multiplied.
    pixels += bytes(len(pixels) % 2)  # The directory begins at an even byte.
    start = 8 + len(pixels)
    return struct.pack("<2sHI", b"II", 42, start) + pixels + _directory(tags, start)


def _directory(tags: dict[int, tuple[int, Sequence[int]]], start: int) -> bytes:
    """Return the list of tags of a page, and behind it the values that do not fit into it."""
    entries, behind = b"", b""
    place = start + 2 + 12 * len(tags) + 4
    for code, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}{'H' if kind == SHORT else 'I'}", *values)
        if len(packed) > 4:
            field = struct.pack("<I", place + len(behind))
            behind += packed + bytes(len(packed) % 2)
        else:
            field = packed.ljust(4, b"\0")
        entries += struct.pack("<HHI", code, kind, len(values)) + field
    return struct.pack("<H", len(tags)) + entries + bytes(4) + behind
