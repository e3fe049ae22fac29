"""Requests that a server must refuse: bombs, lying headers, damaged files, wrong types."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import zipfile
import zlib
from typing import Any

import numpy as np
import tifffile
from PIL import Image

BOUNDARY = "b0undary"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def part(content: bytes, name: str = "x.png", field: str = "image", extra: str = "") -> bytes:
    """Return one file of a form."""
    head = f'Content-Disposition: form-data; name="{field}"; filename="{name}"\r\n{extra}\r\n'
    return f"--{BOUNDARY}\r\n".encode() + head.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def png(array: np.ndarray) -> bytes:
    return saved(array, "PNG")


def saved(array: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


def png_of_size(width: int, height: int, content: bytes = b"") -> bytes:
    """Return a PNG whose header states any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(content))
        + chunk(b"IEND", b"")
    )


def png_bomb() -> bytes:
    """Return 15,000 x 15,000 black pixels in some kilobytes."""
    packer, rows = zlib.compressobj(9), bytes(15_001 * 1000)
    content = b"".join(packer.compress(rows) for _ in range(15)) + packer.flush()
    whole = png_of_size(15_000, 15_000)
    start = whole.index(b"IDAT") - 4
    data = b"IDAT" + content
    chunk = struct.pack(">I", len(content)) + data + struct.pack(">I", zlib.crc32(data))
    return whole[:start] + chunk + whole[-12:]


def tiff(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, photometric="minisblack", **options)
    return file.getvalue()


def tiff_of_size(width: int, height: int) -> bytes:
    """Return a TIFF of one strip whose header states any size."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1)]
    tags += [(273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, 100)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    table = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 108) + bytes(100) + table


def tiff_loop() -> bytes:
    """Return a TIFF whose page is followed by itself."""
    content = bytearray(tiff_of_size(10, 10))
    content[-4:] = struct.pack("<I", 108)
    return bytes(content)


def tiff_bomb() -> bytes:
    """Return 40,000 x 20,000 black pixels in some kilobytes."""
    row = zlib.compress(bytes(40_000 * 200), 9)
    return tiff(
        iter([row] * 100),
        shape=(20_000, 40_000),
        dtype=np.uint8,
        rowsperstrip=200,
        compression="zlib",
    )


def npy(header: str, content: bytes = b"") -> bytes:
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def npy_of_size(*shape: int) -> bytes:
    return npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}")


def npy_of_objects() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}] * 4, dtype=object).reshape(2, 2), allow_pickle=True)
    return file.getvalue()


def npz_bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.npy", npy_of_size(100_000, 100_000) + bytes(10_000_000))
    return file.getvalue()


def zip_file() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("../../evil.png", bytes(1_000_000))
    return file.getvalue()


def nifti(*shape: int, content: bytes = b"") -> bytes:
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into("<hh", head, 70, 2, 8)
    struct.pack_into("<8f", head, 76, *[1.0] * 8)
    struct.pack_into("<f", head, 108, 352.0)
    head[344:348] = b"n+1\0"
    return bytes(head) + content


def gif_of_size(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\x00\x00" + bytes(6) + b";"


def bmp_of_size(width: int, height: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head


def dicom(rows: int, columns: int) -> bytes:
    """Return a DICOM header without pixels."""

    def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
        return struct.pack("<HH", group, number) + kind + struct.pack("<H", len(value)) + value

    syntax = element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1\0")
    meta = element(2, 0, b"UL", struct.pack("<I", len(syntax))) + syntax
    rest = element(0x28, 0x10, b"US", struct.pack("<H", rows))
    rest += element(0x28, 0x11, b"US", struct.pack("<H", columns))
    return bytes(128) + b"DICM" + meta + rest


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
ENTITIES = (
    b'<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;">]><a>&y;</a>'
)
NRRD = b"NRRD0004\ntype: uint8\ndimension: 2\nsizes: %s\nencoding: raw\n%s\n\n"
META = (
    b"ObjectType = Image\nNDims = 2\nDimSize = %s\nElementType = MET_UCHAR\nElementDataFile = %s\n"
)
OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Image ID="Image:0"><Pixels ID="Pixels:0" Type="uint8" DimensionOrder="XYZCT" SizeX="64" '
    'SizeY="64" SizeZ="1" SizeC="2" SizeT="1"><TiffData IFD="0" FirstC="0"><UUID FileName='
    '"/etc/passwd">urn:uuid:1</UUID></TiffData></Pixels></Image></OME>'
)

FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "x.png"),
    "text": (b"hello", "x.png"),
    "html": (b"<html><script>alert(1)</script></html>", "x.png"),
    "svg": (SVG, "x.svg"),
    "svg named png": (SVG, "x.png"),
    "xml entities": (ENTITIES, "x.xml"),
    "pickle": (pickle.dumps(print), "x.pkl"),
    "pickle named npy": (pickle.dumps([1, 2]), "x.npy"),
    "npy of objects": (npy_of_objects(), "x.npy"),
    "npy with code in its header": (npy("__import__('os').system('true')"), "x.npy"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "x.png"),
    "pdf": (b"%PDF-1.7\n", "x.pdf"),
    "program": (b"\x7fELF\x02\x01\x01" + bytes(100), "x.png"),
    "zip": (zip_file(), "x.zip"),
    "zip named npz": (zip_file(), "x.npz"),
    "gzip bomb": (gzip.compress(bytes(20_000_000)), "x.gz"),
    "gzip bomb named nii.gz": (gzip.compress(bytes(20_000_000)), "x.nii.gz"),
    "truncated png": (png(NOISE)[:2000], "x.png"),
    "truncated jpeg": (saved(NOISE, "JPEG")[:500], "x.jpg"),
    "truncated tiff": (tiff(NOISE)[:-200], "x.tif"),
    "truncated npy": (npy_of_size(64, 64) + bytes(100), "x.npy"),
    "damaged png": (png(NOISE)[:40] + b"\xff" * 500 + png(NOISE)[540:], "x.png"),
    "png of 100,000 x 100,000": (png_of_size(100_000, 100_000), "x.png"),
    "png of the largest size": (png_of_size(2**31 - 1, 2**31 - 1), "x.png"),
    "png of 0 x 0": (png_of_size(0, 0), "x.png"),
    "png bomb": (png_bomb(), "x.png"),
    "tiff of 100,000 x 100,000": (tiff_of_size(100_000, 100_000), "x.tif"),
    "tiff of 10,000 x 10,000 in 100 bytes": (tiff_of_size(10_000, 10_000), "x.tif"),
    "tiff of 0 x 0": (tiff_of_size(0, 0), "x.tif"),
    "tiff bomb": (tiff_bomb(), "x.tif"),
    "tiff without an end": (tiff_loop(), "x.tif"),
    "tiff that names another file": (tiff(NOISE, description=OME, metadata=None), "x.ome.tif"),
    "gif of 65,535 x 65,535": (gif_of_size(65_535, 65_535), "x.gif"),
    "bmp of 100,000 x 100,000": (bmp_of_size(100_000, 100_000), "x.bmp"),
    "pnm of 100,000 x 100,000": (b"P5\n100000 100000\n255\n", "x.pgm"),
    "npy of 100,000 x 100,000": (npy_of_size(100_000, 100_000), "x.npy"),
    "npy of 0 x 0": (npy_of_size(0, 0), "x.npy"),
    "npz bomb": (npz_bomb(), "x.npz"),
    "nifti of 30,000 cubed": (nifti(30_000, 30_000, 30_000), "x.nii"),
    "packed nifti of 30,000 squared": (gzip.compress(nifti(30_000, 30_000)), "x.nii.gz"),
    "nrrd of 100,000 x 100,000": (NRRD % (b"100000 100000", b""), "x.nrrd"),
    "nrrd that names another file": (NRRD % (b"9 9", b"data file: /etc/passwd"), "x.nrrd"),
    "mha of 100,000 x 100,000": (META % (b"100000 100000", b"LOCAL"), "x.mha"),
    "mha that names another file": (META % (b"9 9", b"../../../etc/passwd"), "x.mhd"),
    "dicom of 65,535 x 65,535": (dicom(65_535, 65_535), "x.dcm"),
    "dicom without pixels": (dicom(0, 0), "x.dcm"),
    "volume for a model of images": (tiff(np.zeros((7, 9, 9), np.uint8)), "x.tif"),
    "five channels": (tiff(np.zeros((5, 9, 9)), planarconfig="separate"), "x.tif"),
}  # fmt: skip
"""Content and name of files that are refused."""

BODIES: dict[str, tuple[bytes, str]] = {
    "no body": (b"", FORM_TYPE),
    "no form": (png(NOISE), "image/png"),
    "json": (b'{"image": "x"}', "application/json"),
    "no type": (form(part(png(NOISE))), ""),
    "no boundary": (form(part(png(NOISE))), "multipart/form-data"),
    "other boundary": (form(part(png(NOISE))), "multipart/form-data; boundary=other"),
    "long boundary": (b"", f"multipart/form-data; boundary={'b' * 5000}"),
    "no image": (form(), FORM_TYPE),
    "cut off": (form(part(png(NOISE)))[:-30], FORM_TYPE),
    "cut off in a header": (form(part(png(NOISE)))[:40], FORM_TYPE),
    "garbage": (b"\r\n" * 1000 + b"\0" * 1000, FORM_TYPE),
    "other field": (form(part(png(NOISE), field="file")), FORM_TYPE),
    "one more field": (form(part(png(NOISE)), part(b"x", field="path")), FORM_TYPE),
    "text field": (
        form(f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n'.encode()),
        FORM_TYPE,
    ),
    "no disposition": (form(f"--{BOUNDARY}\r\nX: 1\r\n\r\nx\r\n".encode()), FORM_TYPE),
    "many files": (form(*[part(b"x")] * 100), FORM_TYPE),
    "many fields": (form(*[part(b"x", field="a")] * 10_000), FORM_TYPE),
    "many headers": (form(part(b"x", extra="X: 1\r\n" * 1000)), FORM_TYPE),
    "huge header": (form(part(b"x", extra=f"X: {'1' * 100_000}\r\n")), FORM_TYPE),
    "huge name": (form(part(b"x", name="a" * 100_000)), FORM_TYPE),
}
"""Body and type of requests that are refused."""

NAMES = (
    "../../../../etc/passwd.png",
    "..\\..\\windows\\x.png",
    "/etc/passwd",
    "C:\\x.png",
    "x\0.png",
    "",
    ".",
    "...",
    "a" * 3000,
    "CON.png",
    "x.png;rm -rf",
    "<script>.png",
    "%2e%2e%2fx.png",
    "\u202egnp.exe",
    "x.tif",
    "x.nii.gz",
)
"""Names of files that must not matter."""
