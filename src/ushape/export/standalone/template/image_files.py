"""Read images and write masks with Pillow, as ushape does."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tiff_file import tiff_bytes

Image.MAX_IMAGE_PIXELS = 2**30  # Pillow raises an error above twice this number.

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
"""Names of the formats in Pillow."""

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pbm", ".pnm",
    ".ome.tif", ".ome.tiff", ".tif", ".tiff",
)  # fmt: skip
"""Suffixes of the files that are read."""

WRITTEN_FORMATS = {".png": "PNG", ".bmp": "BMP", ".gif": "GIF"}
"""Lossless formats in which Pillow writes masks, by suffix; TIFF is written by `tiff_bytes`."""

ALPHA_MODES = ("LA", "La", "RGBA", "RGBa", "PA")
"""Modes of Pillow whose last channel is opacity."""

ORIENTATION = 274
"""Number of the tag Orientation in EXIF and TIFF."""

WHITE_IS_ZERO, PALETTE = 0, 3
"""Values of TIFF's tag PhotometricInterpretation."""

COLORS = (WHITE_IS_ZERO, 1, 2, PALETTE)
"""Those that are read; 1 is gray, 2 is RGB."""

LOSSLESS = (1, 2, 3, 4, 5, 8, 32773, 32946)
"""Compressions of TIFF that every program unpacks to the same values."""

TIFF_TYPES = {(1, 1): bool, (1, 8): np.uint8, (1, 16): np.uint16, (2, 16): np.int16,
              (2, 32): np.int32, (3, 32): np.float32}  # fmt: skip
"""Type of the values by the tags SampleFormat and BitsPerSample, as far as Pillow keeps them."""


class ImageError(Exception):
    """An image that cannot be predicted; the message says why and what to do."""


@dataclass(frozen=True)
class Pixels:
    """Content of an image file."""

    array: np.ndarray
    """(C, y, x), turned as the image is displayed."""

    orientation: int
    """EXIF orientation of the file, 1 to 8."""


@dataclass(frozen=True)
class MaskEncoding:
    """How mask files represent classes."""

    kind: Literal["values", "palette", "colors", "alpha", "one_hot"]
    """Gray values, palette indices, RGB colors, opacity of a picture of one color, or numbers of
    the classes."""

    dtype: str
    palette: tuple[tuple[int, int, int], ...] | None
    white_is_zero: bool
    """Whether a TIFF stores white as 0."""

    orientation: Literal["displayed", "stored"]
    """Whether masks of photographs that EXIF turns fit the displayed image or its stored pixels."""

    suffix: str


def suffix_of(path: Path) -> str:
    """Return the full suffix in lower case: `.ome.tif` is one."""
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), path.suffix.lower())


def read_image(path: Path) -> Pixels:
    """Read an image: values as stored, palettes converted to their colors, without opacity.

    Photographs are turned upright according to their EXIF orientation. Of an animation, the first
    frame is read.

    Raises:
        ImageError: if the file cannot be read.
    """
    if suffix_of(path) not in SUFFIXES:
        suffix = suffix_of(path) or "a file without suffix"
        raise ImageError(f"{suffix} is not a supported format. Supported: {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise ImageError("The file does not exist.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Unusual metadata do not make pixels unusable.
            # Pillow does not turn a TIFF whose name it knows if it maps it into memory.
            with path.open("rb") as file, Image.open(file, formats=FORMATS) as opened:
                return _read_tiff(opened) if opened.format == "TIFF" else _read_picture(opened)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(
            "The file is not an image, its start is damaged, or it is a kind of TIFF that is not "
            "supported."
        ) from None
    except Image.DecompressionBombError:
        raise ImageError("The image has too many pixels. Divide it into smaller ones.") from None
    except MemoryError:
        raise ImageError("The image needs more memory than is available.") from None
    except Exception as error:  # Damaged files raise nearly every kind of exception.
        raise ImageError(f"The file cannot be read: {error}.") from None


def _read_picture(opened: Image.Image) -> Pixels:
    """Read any format but TIFF."""
    opened.load()
    orientation = _exif_orientation(opened)
    image = ImageOps.exif_transpose(opened)
    if image.mode in ("P", "PA"):
        flat = image.getpalette("RGB") or []
        table = np.array(flat[: len(flat) // 3 * 3], np.uint8).reshape(-1, 3)
        indices = np.asarray(image)
        return Pixels(
            _colors(indices[..., 0] if image.mode == "PA" else indices, table), orientation
        )
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    array = _channels_first(image)
    return Pixels(array[:-1] if image.mode in ALPHA_MODES else array, orientation)


def _exif_orientation(image: Image.Image) -> int:
    if image.format == "PNG" and not any("exif" in str(key) for key in image.info):
        return 1
    stated = image.getexif().get(ORIENTATION, 1)
    return int(stated) if stated in range(2, 9) else 1


def _read_tiff(opened: Image.Image) -> Pixels:
    """Read a TIFF of one page whose values Pillow keeps as they are."""
    tags = opened.tag_v2  # type: ignore[attr-defined]
    bits, orientation = tags.get(258, (1,)), tags.get(ORIENTATION, 1)
    stacked = re.match(r"ImageJ=.*\nimages=(\d+)", str(tags.get(270, "")), re.DOTALL)
    if getattr(opened, "n_frames", 1) > 1 or (stacked and int(stacked[1]) > 1):
        raise ImageError("The TIFF has several pages. Save each page as a separate file.")
    color, compression = tags.get(262, 1), tags.get(259, 1)
    dtype = _tiff_type(tags, color, compression)
    opened.load()  # Turns the pixels as well.
    array = _channels_first(opened)
    if dtype is None or len(array) != len(bits):
        raise ImageError(
            f"This kind of TIFF ({len(bits)} channels of {bits[0]} bits, compression "
            f"{compression}, color space {color}) is not supported. Save it as gray values of 8 or "
            "16 bits or as 8-bit RGB, uncompressed or with LZW or zlib."
        )
    if color == PALETTE:
        table = np.array(tags[320], np.int64).reshape(3, -1).T // 257
        array = _colors(array[0], table.astype(np.uint8))
    hidden = sum(kind == 2 for kind in tags.get(338, ()))
    array = array[: len(array) - hidden]
    return Pixels(
        array if dtype is bool else array.astype(dtype),
        int(orientation) if orientation in range(2, 9) else 1,
    )


def _tiff_type(tags: Mapping[int, Any], color: int, compression: int) -> type | None:
    """Return the type of the values of a TIFF; None if Pillow would change them."""
    bits, forms = tags.get(258, (1,)), tags.get(339, (1,))
    dtype = TIFF_TYPES.get((forms[0], bits[0]))
    is_mixed = len(set(bits)) > 1 or len(set(forms)) > 1
    if dtype is None or is_mixed or color not in COLORS or compression not in LOSSLESS:
        return None
    is_premultiplied = 1 in tags.get(338, ())  # Pillow divides the colors by the opacity.
    is_byte = dtype in (bool, np.uint8)
    # Pillow stores colors as bytes, and exchanges black and white for bytes only.
    if is_premultiplied or (not is_byte and (len(bits) > 1 or color == WHITE_IS_ZERO)):
        return None
    # Pillow 13 reads compressed values of these types in the wrong byte order.
    is_big_endian = getattr(tags, "prefix", b"II") == b"MM"
    is_reversed = is_big_endian and compression > 1 and dtype in (np.int16, np.int32, np.float32)
    return None if is_reversed else dtype


def _channels_first(image: Image.Image) -> np.ndarray:
    """Return the pixels as (C, y, x) in the byte order of the machine; 1 bit becomes 0 and 255."""
    array = np.asarray(image)
    array = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    array = array * np.uint8(255) if array.dtype == bool else array
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def _colors(indices: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return the colors (3, y, x) of palette indices (y, x)."""
    known = indices.astype(np.intp).clip(0, len(table) - 1)
    return np.ascontiguousarray(np.moveaxis(table[known], -1, 0))


def as_stored(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels (..., y, x) of the displayed image back to those of the file."""
    down = -1 if orientation in (3, 4, 7, 8) else 1
    right = -1 if orientation in (2, 3, 6, 7) else 1
    mirrored = array[..., ::down, ::right]
    return np.ascontiguousarray(np.swapaxes(mirrored, -1, -2) if orientation >= 5 else mirrored)


def write_mask(path: Path, codes: np.ndarray, encoding: MaskEncoding) -> None:
    """Write mask values (y, x), complete or not at all."""
    is_gif, palette = encoding.suffix == ".gif", encoding.palette
    if encoding.kind in ("colors", "alpha"):
        array = _color_channels(codes, encoding)
    else:
        is_byte = is_gif or encoding.kind == "palette"
        array = codes.astype("uint8" if is_byte else encoding.dtype)
    if encoding.kind != "palette":
        palette = None
    with _replacing(path) as file:
        if encoding.suffix in (".tif", ".tiff"):
            file.write(tiff_bytes(array, palette, white_is_zero=encoding.white_is_zero))
            return
        image = Image.fromarray(array)
        if palette is not None:
            image = Image.fromarray(array, mode="P")
            image.putpalette([level for color in palette for level in color])
        # Pillow's optimizer of GIF would drop unused colors and renumber the others.
        options = {"optimize": False} if is_gif else {}
        image.save(file, format=WRITTEN_FORMATS[encoding.suffix], **options)


def _color_channels(codes: np.ndarray, encoding: MaskEncoding) -> np.ndarray:
    """Return the colors (y, x, 3) of codes, or a picture of one color with opacity (y, x, 4)."""
    if encoding.kind == "colors":
        return np.stack([codes >> shift & 255 for shift in (16, 8, 0)], axis=-1).astype(np.uint8)
    assert encoding.palette is not None
    opaque = np.broadcast_to(np.array(encoding.palette[0], np.uint8), (*codes.shape, 3))
    return np.concatenate([opaque, codes[..., None].astype(np.uint8)], axis=-1)


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when the block ends without an exception."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
