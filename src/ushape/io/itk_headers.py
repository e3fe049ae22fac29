"""Check what the header of a NIfTI, NRRD or MetaImage file claims before ITK reads the file.

ITK allocates as much memory as a header claims, and follows references to other files. Only files
that contain what their header claims pass these checks.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from ushape.errors import DataError
from ushape.io import nifti_header
from ushape.io.files import check_claim, damaged

MAX_HEADER = 2**20
"""Largest text header of an NRRD or MetaImage file, in bytes."""

NIFTI_BYTES = {
    2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8, 128: 3, 2304: 4,
}  # fmt: skip
"""Bytes per value by NIfTI's datatype code, for the types that ITK reads."""

NRRD_BYTES = {
    "signed char": 1, "int8": 1, "int8_t": 1, "uchar": 1, "unsigned char": 1, "uint8": 1,
    "uint8_t": 1, "short": 2, "short int": 2, "signed short": 2, "signed short int": 2, "int16": 2,
    "int16_t": 2, "ushort": 2, "unsigned short": 2, "unsigned short int": 2, "uint16": 2,
    "uint16_t": 2, "int": 4, "signed int": 4, "int32": 4, "int32_t": 4, "uint": 4,
    "unsigned int": 4, "uint32": 4, "uint32_t": 4, "longlong": 8, "long long": 8,
    "long long int": 8, "signed long long": 8, "signed long long int": 8, "int64": 8,
    "int64_t": 8, "ulonglong": 8, "unsigned long long": 8, "unsigned long long int": 8,
    "uint64": 8, "uint64_t": 8, "float": 4, "double": 8,
}  # fmt: skip
"""Bytes per value by NRRD's name of the type."""

META_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4,
    "MET_LONG": 4, "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}  # fmt: skip
"""Bytes per value by MetaImage's name of the type."""


def check_nifti(path: Path, *, is_header_only: bool = False) -> nifti_header.NiftiHeader:
    """Return the header of a file, packed or not.

    Args:
        is_header_only: Whether the pixels will not be read as a whole, so that their number is
            limited only by the length of the file.

    Raises:
        DataError: unless the file is NIfTI 1 or 2 and contains what it claims.
    """
    header = nifti_header.read_header(path)
    if not 1 <= header.axes <= 7:
        raise damaged(path, f"the header specifies {header.axes} axes")
    if header.kind not in NIFTI_BYTES:
        raise damaged(path, f"values of NIfTI type {header.kind} are not supported")
    if not 348 <= header.start <= MAX_HEADER:
        raise damaged(path, f"according to the header, the pixels begin at byte {header.start}")
    shape, value_bytes = header.lengths[: header.axes], NIFTI_BYTES[header.kind]
    if header.is_packed:
        _check_packed_claim(path, shape, value_bytes)
    elif not is_header_only:
        check_claim(path, shape, value_bytes, path.stat().st_size)
    wanted = header.start + math.prod(shape) * value_bytes
    if not header.is_packed:
        _check_length(path, path.stat().st_size, wanted)
    elif not _is_gzip_of(path, 0, wanted):
        _check_length(path, _count_unpacked(path, 0, wanted)[0], wanted)
    return header


def _check_packed_claim(path: Path, shape: Sequence[int], value_bytes: int) -> None:
    """Do what `check_claim` does; a large file can be read in parts if it is decompressed."""
    try:
        check_claim(path, shape, value_bytes, path.stat().st_size)
    except DataError as error:
        if error.code == "image_too_large":
            error.advice = (
                "Decompress the file, for example with gunzip: an uncompressed .nii file is read "
                "in parts."
            )
        raise


def check_nrrd(path: Path) -> None:
    """Raise DataError unless an .nrrd is a single file that contains what it claims."""
    with path.open("rb") as file:
        content = file.read(MAX_HEADER)
    if not re.match(rb"NRRD000\d\r?\n", content):
        raise damaged(path, "the file is not NRRD")
    end = re.search(rb"\r?\n\r?\n", content)
    if end is None:
        raise damaged(path, "the end of the header is missing")
    fields = _fields_of(path, content[: end.start()], ":")
    # A header could name any file on this machine.
    if "data file" in fields or "datafile" in fields:
        raise DataError(
            f"{path}: the pixels are stored in another file.",
            code="pixels_in_other_file",
            hint="Save header and pixels in one .nrrd file.",
        )
    if _whole(path, fields, "line skip", "lineskip", default=0) or _whole(
        path, fields, "byte skip", "byteskip", default=0
    ) not in (0, -1):
        raise damaged(path, "the header skips lines or bytes of the file")
    value_bytes = NRRD_BYTES.get(fields.get("type", ""))
    if value_bytes is None:
        raise damaged(path, f"values of type {fields.get('type')!r} are not supported")
    shape = _lengths(path, fields.get("sizes", ""))
    if len(shape) != _whole(path, fields, "dimension"):
        raise damaged(path, "the number of sizes differs from the dimension")
    start, encoding = end.end(), fields.get("encoding", "").lower()
    present = path.stat().st_size - start
    check_claim(path, shape, value_bytes, present)
    wanted = math.prod(shape) * value_bytes
    if encoding == "raw":
        _check_length(path, present, wanted)
    elif encoding in ("gzip", "gz"):
        if not _is_gzip_of(path, start, wanted):
            _check_length(path, _count_unpacked(path, start, wanted)[0], wanted)
    elif encoding in ("txt", "text", "ascii"):
        _check_length(path, present, 2 * math.prod(shape) - 1)
    else:
        raise DataError(
            f"{path}: the encoding {encoding!r} is not supported.",
            code="unsupported_compression",
            hint="Save the file as raw, gzip or ascii NRRD.",
        )


def check_meta(path: Path) -> None:
    """Raise DataError unless a .mha, or a .mhd with its data file next to it, is complete."""
    with path.open("rb") as file:
        content = file.read(MAX_HEADER)
    end = re.search(rb"(?:\A|\n)ElementDataFile[ \t]*=[^\n]{1,255}(?:\n|\Z)", content)
    if end is None:
        raise damaged(path, "the file is not a MetaImage, or its header has no end")
    fields = _fields_of(path, content[: end.end()].rstrip(b"\r\n"), "=")
    shape = _lengths(path, fields.get("dimsize", ""))
    if len(shape) != _whole(path, fields, "ndims"):
        raise damaged(path, "the number of sizes differs from the number of axes")
    value_bytes = META_BYTES.get(fields.get("elementtype", ""))
    channels = _whole(path, fields, "elementnumberofchannels", default=1)
    if value_bytes is None or not 1 <= channels <= 4096:
        raise damaged(
            path,
            f"{channels} values of type {fields.get('elementtype')!r} per pixel are not supported",
        )
    if _whole(path, fields, "headersize", default=0) not in (0, -1):
        raise damaged(path, "the header skips bytes of the file")
    is_local = fields["elementdatafile"].upper() == "LOCAL"
    data = path if is_local else _data_file(path, fields["elementdatafile"])
    start = end.end() if is_local else 0
    present = data.stat().st_size - start
    check_claim(path, [channels, *shape], value_bytes, present)
    wanted = channels * math.prod(shape) * value_bytes
    if fields.get("binarydata", "true").lower() not in ("true", "1"):
        raise DataError(
            f"{path}: the pixels are stored as text.",
            code="unsupported_compression",
            hint="Save the file as binary MetaImage.",
        )
    if fields.get("compresseddata", "false").lower() not in ("true", "1"):
        return _check_length(path, present, wanted)
    packed = _whole(path, fields, "compresseddatasize")
    if not 0 < packed <= present:
        raise damaged(path, f"the file is cut off after {present} of {packed} packed bytes")
    # ITK does not report that unpacking failed: it returns uninitialized memory as pixels.
    count, is_sound = _count_unpacked(data, start, wanted, packed)
    if not is_sound:
        raise damaged(path, "the packed pixels are cut off or damaged")
    return _check_length(path, count, wanted)


def states_spacing(path: Path) -> bool:
    """Whether the text header of an NRRD or MetaImage file contains the spacing of its pixels."""
    with path.open("rb") as file:
        content = file.read(MAX_HEADER)
    names = rb"(?im)^(ElementSpacing|ElementSize|space directions|spacings)[ \t]*[:=]"
    return re.search(names, content) is not None


def _data_file(path: Path, name: str) -> Path:
    """Return the data file that a MetaImage header names, if it is in the same folder."""
    data = path.parent / name
    # A header could name any file on this machine, or patterns and lists of files.
    is_beside = data.name == name and "%" not in name
    if not is_beside or data.suffix.lower() not in (".raw", ".zraw") or not data.is_file():
        raise DataError(
            f"{path}: the pixels are stored in {name!r}, which cannot be read.",
            code="pixels_in_other_file",
            hint="Keep the .raw or .zraw file in the folder of its .mhd, or save the image as "
            ".mha.",
        )
    return data


HEADER_CHECKS: dict[str, Callable[[Path], nifti_header.NiftiHeader | None]] = {
    ".nii": check_nifti,
    ".nii.gz": check_nifti,
    ".nrrd": check_nrrd,
    ".mha": check_meta,
    ".mhd": check_meta,
}
"""Check of a file's header by suffix; it returns the header of a NIfTI file."""


def _fields_of(path: Path, header: bytes, joint: str) -> dict[str, str]:
    """Return the lower-case keys of a text header and their values."""
    if re.search(rb"[^\x20-\x7e\t\r\n\x80-\xff]", header):
        raise damaged(path, "the header contains control characters")
    fields: dict[str, str] = {}
    for line in header.decode("latin-1").splitlines():
        if len(line) > 4096:
            raise damaged(path, "the header has a line without an end")
        key, found, value = line.partition(joint)
        if found and not line.startswith("#"):
            key = key.strip().lower()
            if key in fields:
                raise damaged(path, f"the header contains {key!r} twice")
            fields[key] = value.strip()
    return fields


def _whole(path: Path, fields: dict[str, str], *keys: str, default: int | None = None) -> int:
    """Return the whole number under the first of these keys that is present."""
    text = next((fields[key] for key in keys if key in fields), None)
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch(r"-?\d{1,18}", text):
        raise damaged(path, f"{keys[0]} is {text!r}, not a whole number")
    return int(text)


def _lengths(path: Path, text: str) -> list[int]:
    """Return the lengths of one to seven axes."""
    if not re.fullmatch(r"\d{1,18}([ \t]+\d{1,18}){0,6}", text):
        raise damaged(path, f"the sizes are {text!r}")
    return [int(length) for length in text.split()]


def _check_length(path: Path, present: int, wanted: int) -> None:
    if present < wanted:
        raise damaged(path, f"the file is cut off after {present} of {wanted} bytes")


def _is_gzip_of(path: Path, start: int, wanted: int) -> bool:
    """Whether the last four bytes of a gzip stream contain the expected size."""
    with path.open("rb") as file:
        file.seek(max(start, path.stat().st_size - 4))
        return file.read(4) == struct.pack("<I", wanted % 2**32)


def _count_unpacked(
    path: Path, start: int, wanted: int, packed: int | None = None
) -> tuple[int, bool]:
    """Return the unpacked size of a zlib or gzip stream, and whether it ended correctly.

    Counts at most slightly beyond `wanted`, and reads at most `packed` bytes.
    """
    count, left = 0, path.stat().st_size if packed is None else packed
    with path.open("rb") as file:
        file.seek(start)
        stream, rest = zlib.decompressobj(zlib.MAX_WBITS | 32), b""
        while count <= wanted and not (stream.eof and count == wanted):
            if not rest:
                rest = file.read(min(2**18, left))
                left -= len(rest)
            if not rest:
                break
            if stream.eof:
                stream = zlib.decompressobj(zlib.MAX_WBITS | 32)
            try:
                count += len(stream.decompress(rest, 2**20))
            except zlib.error:
                return count, False
            rest = stream.unused_data if stream.eof else stream.unconsumed_tail
    return count, stream.eof
