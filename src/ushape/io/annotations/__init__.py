"""Read masks in any form: one file, a file for each class or object, shapes, run lengths."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ushape import io
from ushape.errors import DataError
from ushape.formatting import size_text
from ushape.io.annotations.canvas import Canvas
from ushape.io.annotations.coco import draw_coco, read_coco
from ushape.io.annotations.rtstruct import draw_structures
from ushape.io.annotations.shape_files import codes_of_labels, read_shapes
from ushape.io.annotations.shapes import draw_shapes
from ushape.io.annotations.windows import shapes_within
from ushape.io.files import MAX_PIXELS
from ushape.io.photographs import turn_with_image
from ushape.io.placement import place_on
from ushape.io.streaming.boxes import read_mask_box
from ushape.types import (
    CocoMask,
    GridRemark,
    Mask,
    MaskBox,
    MaskEncoding,
    MaskPage,
    MaskParts,
    MaskPixels,
    Pixels,
    ShapesMask,
)

BLACK_AND_WHITE = "Masks with soft edges must be saved in black and white, in a lossless format."

NUMBERED_PART = (
    "If the values are object ids, they cannot be read from one folder per class. Do not convert "
    "such masks to black and white, which merges touching objects. Save objects and classes as "
    "COCO or GeoJSON, or train a single class with --masks FOLDER --set labels.instances=true."
)


def read_annotation(mask: Mask, image: Path | None = None) -> MaskPixels:
    """Read a mask as one integer code per pixel.

    Args:
        image: Image that the mask belongs to; if both files contain their position, the mask is
            resampled to its grid.

    Shapes:
        returns: codes (*S). For parts: 0, or the value of the last part that covers the pixel.
            For COCO: 0, or the position of the category, counted from 1. For other shapes: 0, or
            the position of the label in `classes`, counted from 1.

    Raises:
        DataError: if a file cannot be read, parts differ in size or have more than two values, or
            an annotation cannot be drawn.
    """
    if isinstance(mask, MaskParts):
        return _read_parts(mask, image)
    if isinstance(mask, CocoMask):
        return draw_coco(mask)
    if isinstance(mask, ShapesMask):
        return draw_structures(mask) if mask.format == "rtstruct" else _read_shapes(mask)
    if isinstance(mask, MaskPage):
        return _read_page(mask, image)
    if isinstance(mask, MaskBox):
        return io.decode_pixels(mask.path, _part_of(mask))
    return _read_on_grid(mask, image)


def _part_of(mask: MaskBox) -> Pixels:
    return Pixels(array=read_mask_box(mask.path, mask.box, mask.shape))


def _read_on_grid(path: Path, image: Path | None) -> MaskPixels:
    return _on_grid(io.read_mask(path), path, image)


def _on_grid(mask: MaskPixels, path: Path, image: Path | None) -> MaskPixels:
    if image is None:
        return mask
    if mask.grid is None:
        return turn_with_image(mask, path, image)
    grid = io.read_grid(image)
    return mask if grid is None else place_on(grid, mask, path)


def size_of(mask: Mask) -> tuple[int, ...] | None:
    """Return S of a mask according to its header; None if that is not known.

    Raises:
        DataError: if the format is unknown or the header is damaged.
    """
    if isinstance(mask, CocoMask):
        image = read_coco(mask.path).images.get(mask.image_id)
        return (int(image["height"]), int(image["width"])) if image is not None else None
    file = mask.paths[0] if isinstance(mask, MaskParts) else mask
    return io.read_size(file) if isinstance(file, Path) else None


def _read_parts(mask: MaskParts, image: Path | None) -> MaskPixels:
    canvas: Canvas | None = None
    remarks: frozenset[GridRemark] = frozenset()
    for path, value in zip(mask.paths, mask.values, strict=True):
        read = _read_on_grid(path, image)
        part, remarks = read.codes, remarks | read.remarks
        if canvas is None:
            canvas, suffix = Canvas(part.shape, max(mask.values)), read.encoding.suffix
        if part.shape != canvas.codes.shape:
            raise DataError(
                f"{path} has {size_text(part.shape)} pixels, but {mask.paths[0]} has "
                f"{size_text(canvas.codes.shape)}.",
                code="mask_size_mismatch",
                hint="All masks of an image must have the size of the image.",
            )
        inside = part != 0
        values = part[inside]
        if values.size and (values != values[0]).any():
            raise DataError(
                f"{path}: the mask of a single class or object has several values besides 0, for "
                f"example {values.min()} and {values.max()}.",
                code="mask_part_values",
                hint=BLACK_AND_WHITE if mask.are_objects else f"{NUMBERED_PART} {BLACK_AND_WHITE}",
            )
        if mask.are_objects and values.size:
            canvas.draw((slice(None),) * part.ndim, inside, value)
        elif values.size:  # Numbers of objects are not needed; they take four bytes for each pixel.
            canvas.codes[inside] = value
    assert canvas is not None, "a mask has at least one file"
    return MaskPixels(
        codes=canvas.codes,
        encoding=MaskEncoding(dtype=str(canvas.codes.dtype), suffix=suffix),
        remarks=remarks,
        instances=canvas.instances if mask.are_objects else None,
    )


def _read_shapes(mask: ShapesMask) -> MaskPixels:
    """Draw the shapes of an image, later ones over earlier ones."""
    if mask.box is not None:
        shapes, (height, width) = shapes_within(mask)
    else:
        found = read_shapes(mask)
        shapes = found.shapes
        height, width = found.size or io.read(mask.image).array.shape[1:]
    if height * width > MAX_PIXELS:
        raise DataError(
            f"{mask}: according to the file, the image has {height} × {width} pixels.",
            code="shapes_invalid",
            hint="Height and width must be those of the image file.",
        )
    try:
        return draw_shapes(shapes, (height, width), codes_of_labels(mask.classes))
    except ValueError as error:
        raise DataError(
            f"{mask}: {error}.",
            code="shapes_invalid",
            hint="Correct or remove the shape in the annotation tool, and export it again.",
        ) from None


def _read_page(mask: MaskPage, image: Path | None) -> MaskPixels:
    """Return one plane of a stack of masks, or one volume of a time series of masks."""
    if io.suffix_of(mask.path) in io.itk.ITK_READERS:
        return _on_grid(io.read_mask(mask.path, mask.page), mask.path, image)
    whole = io.read_mask(mask.path)
    if whole.codes.ndim != 3 or mask.page >= len(whole.codes):
        raise DataError(
            f"{mask}: the file has no such page.",
            code="mask_page_missing",
            hint="Restore the file that was used for training.",
        )
    return replace(whole, codes=whole.codes[mask.page])
