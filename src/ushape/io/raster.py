"""PNG, JPEG, GIF, BMP, WebP and portable pixmap (PPM) files, through Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ushape.errors import DataError
from ushape.io.files import MAX_PIXELS, check_claim, damaged, reading
from ushape.types import MaskEncoding, Palette, Pixels, TiffMetadata

Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow raises an error above twice this number.

ORIENTATION = 274
"""Number of the tag Orientation in EXIF and TIFF."""

SWAPPING = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""

ALPHA_MODES = ("LA", "La", "RGBA", "RGBa", "PA")
"""Modes of Pillow whose last channel is opacity."""

FORMATS = {".png": "PNG", ".bmp": "BMP", ".gif": "GIF"}
"""Lossless formats in which masks are written, by suffix."""


def read(path: Path) -> Pixels:
    """Read the pixels as stored: (C, y, x); a palette image gives its indices and the palette.

    Photographs are turned upright according to their EXIF orientation. Of an animation, the first
    frame is read. Transparency is returned separately.

    Raises:
        DataError: if the file is not an image, is truncated, or has more than MAX_PIXELS pixels.
    """
    with reading(path):
        try:
            with Image.open(path) as opened:
                size = opened.height, opened.width
                check_claim(path, size, len(opened.getbands()), path.stat().st_size)
                opened.load()
                orientation = orientation_of(opened)
                image = ImageOps.exif_transpose(opened)
        except UnidentifiedImageError:
            raise damaged(path, "the file is not an image, or its start is damaged") from None
        except Image.DecompressionBombError:
            raise DataError(
                f"{path}: according to the header, the image has more than {MAX_PIXELS} pixels.",
                code="image_too_large",
                hint="Divide the image into parts.",
            ) from None
    palette = _palette_of(image)
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    array = np.asarray(image)
    array = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    alpha = None
    if image.mode in ALPHA_MODES:
        array, alpha = array[:-1], array[-1].copy()
    return Pixels(
        array=np.ascontiguousarray(array), palette=palette, alpha=alpha, orientation=orientation
    )


def read_size(path: Path) -> tuple[int, int]:
    """Return the size (y, x) in the header, as the image is displayed.

    Raises:
        DataError: if the file is not an image.
    """
    with reading(path), Image.open(path) as opened:
        width, height = opened.size
        is_swapped = orientation_of(opened) in SWAPPING
        return (width, height) if is_swapped else (height, width)


def read_orientation(path: Path) -> int:
    """Return the EXIF orientation, 1 to 8, from the header.

    Raises:
        DataError: if the file is not an image.
    """
    with reading(path), Image.open(path) as opened:
        return orientation_of(opened)


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an open image, 1 to 8, without unpacking its pixels."""
    if image.format == "PNG" and not any("exif" in str(key) for key in image.info):
        return 1  # Pillow would unpack the pixels, behind which it could stand.
    stated = image.getexif().get(ORIENTATION, 1)
    return int(stated) if stated in range(2, 9) else 1


def write(
    file: BinaryIO, array: np.ndarray, encoding: MaskEncoding, like: TiffMetadata | None
) -> None:
    """Write (y, x) gray values or palette indices, or (y, x, C) colors; bool takes 1 bit."""
    # GIF has palettes only; Pillow would store 1 bit as 0 and 255.
    is_gif = encoding.suffix == ".gif"
    image = Image.fromarray(array.astype(np.uint8) if is_gif else array)
    if encoding.kind == "palette" and encoding.palette is not None:
        image = Image.fromarray(array.astype(np.uint8), mode="P")
        image.putpalette([level for color in encoding.palette for level in color])
    # Pillow's GIF optimizer would drop unused colors and renumber the others.
    options = {"optimize": False} if is_gif else {}
    image.save(file, format=FORMATS[encoding.suffix], **options)


def _palette_of(image: Image.Image) -> Palette | None:
    if image.mode not in ("P", "PA"):
        return None
    flat = image.getpalette("RGB") or []
    return tuple(
        (flat[start], flat[start + 1], flat[start + 2]) for start in range(0, len(flat) - 2, 3)
    )
