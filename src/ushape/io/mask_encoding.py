"""Convert the pixels of mask files to one code per pixel, and codes back to pixels."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ushape.errors import DataError
from ushape.formatting import pluralize
from ushape.labels.colors import channels_of
from ushape.types import MaskEncoding, MaskPixels, Pixels

ROUNDING = 0.01
"""Largest distance of mask values from whole numbers: viewers store labels as scaled integers."""

MAX_FLOAT = 2**53
"""Largest mask value that is a float; larger ones are not exact, even with 64 bits."""

MAX_ONE_HOT_PLANES = 16
"""Largest number of planes of a volume that are tested for being classes, not slices."""


def decode_mask(path: Path, pixels: Pixels, suffix: str, *, holds_colors: bool) -> MaskPixels:
    """Return one code per pixel, and how the file encodes it.

    Args:
        suffix: Suffix of the format in which predictions will be written.
        holds_colors: Whether this format can store colors and opacity; otherwise .png is used.

    Raises:
        DataError: if the values are not whole numbers, or too large, or if several channels are
            neither colors nor one channel for each class.
    """
    array, color_suffix = pixels.array, suffix if holds_colors else ".png"
    if pixels.palette is not None:
        encoding = MaskEncoding(kind="palette", palette=pixels.palette, suffix=suffix)
        return MaskPixels(codes=array[0], encoding=encoding)
    if (color := _color_behind_alpha(pixels)) is not None:
        assert pixels.alpha is not None
        suffix = suffix if suffix in (".tif", ".tiff") else ".png"
        encoding = MaskEncoding(kind="alpha", palette=(color,), suffix=suffix)
        return MaskPixels(codes=pixels.alpha, encoding=encoding)
    if (codes := decode_one_hot(array)) is not None:
        return MaskPixels(codes=codes, encoding=MaskEncoding(kind="one_hot", suffix=suffix))
    if len(array) > 1 and not (array == array[:1]).all():
        _refuse_layers(path, array, is_medical=pixels.grid is not None)
        red, green, blue = array.astype(np.int64)
        encoding = MaskEncoding(kind="colors", suffix=color_suffix)
        return MaskPixels(codes=red * 65536 + green * 256 + blue, encoding=encoding)
    values = array[0]
    codes = _whole_numbers(path, values)
    return MaskPixels(
        codes=codes.astype(np.uint8) if codes.dtype == bool else codes,
        encoding=MaskEncoding(
            dtype=str(values.dtype), white_is_zero=pixels.white_is_zero, suffix=suffix
        ),
    )


def encode_mask(codes: np.ndarray, encoding: MaskEncoding) -> np.ndarray:
    """Return the pixels that represent codes (*S): (*S), or (*S, C) for colors and opacity."""
    if encoding.kind == "colors":
        return channels_of(codes).astype(np.uint8)
    if encoding.kind == "alpha":
        assert encoding.palette, "the color of a mask in the alpha channel"
        opaque = np.broadcast_to(np.array(encoding.palette[0], np.uint8), (*codes.shape, 3))
        return np.concatenate([opaque, codes[..., None].astype(np.uint8)], axis=-1)
    return codes.astype(stored_dtype(encoding))


def stored_dtype(encoding: MaskEncoding) -> np.dtype:
    """Return the type of the stored values."""
    return np.dtype(encoding.dtype if encoding.kind in ("values", "one_hot") else np.uint8)


def decode_one_hot(array: np.ndarray) -> np.ndarray | None:
    """Return the number of the class of each pixel if exactly one channel of each is set.

    The channels are the first or the last axis; an array of one channel is tested for planes that
    are classes.

    Shapes:
        array: (C, *S) with the values 0 and 1, or 0 and another value for more or fewer than three
            channels, which could be colors.
        returns: (*S) uint8; None for any other array.
    """
    planes = array[0] if len(array) == 1 else array
    for axis in (0, -1) if planes.ndim > 2 else ():
        count = planes.shape[axis]
        if not 2 <= count <= MAX_ONE_HOT_PLANES or planes.ndim - 1 not in (2, 3):
            continue
        # Most masks are recognized by their number of nonzero values alone.
        if np.count_nonzero(planes) != math.prod(planes.shape) // count:
            continue
        high = planes.max()
        if high != 1 and (len(array) == 3 or not 0 < high < math.inf):
            continue
        is_set = planes == high
        if (is_set.sum(axis=axis) == 1).all():
            return is_set.argmax(axis=axis).astype(np.uint8)
    return None


def _color_behind_alpha(pixels: Pixels) -> tuple[int, int, int] | None:
    """Return the only color of a picture whose opacity varies, or is not complete."""
    if pixels.alpha is None or pixels.array.dtype != np.uint8 or (pixels.alpha == 255).all():
        return None
    first = pixels.array[(slice(None), *[slice(1)] * pixels.alpha.ndim)]
    if not (pixels.array == first).all():
        return None
    levels = [int(level) for level in first.ravel()]
    return (levels[0], levels[-2], levels[-1]) if len(levels) == 3 else (levels[0],) * 3


def _refuse_layers(path: Path, array: np.ndarray, *, is_medical: bool) -> None:
    """Raise DataError unless the channels (C, *S) are 8-bit colors of a picture."""
    is_picture = array.ndim == 3 and not is_medical
    if is_picture and len(array) == 3 and array.dtype == np.uint8 and array.max() > 1:
        return
    layers = np.isin(array, (0, array.max())).all()
    kind = (
        f"{len(array)} layers that overlap or do not cover all pixels"
        if layers
        else f"{len(array)} channels of type {array.dtype}"
    )
    hint = "Save one value per pixel, or 8-bit colors."
    if layers:
        hint = (
            "Save one value per pixel: the number of the class. Give each combination of "
            "overlapping regions a separate value, and describe the regions with --set "
            "'labels.regions={whole: [1, 2], core: [2]}'."
        )
        if is_medical:
            hint += " In 3D Slicer, use Export to files with the option for a single label map."
    raise DataError(f"{path}: the mask has {kind}.", code="mask_channels", hint=hint)


def _whole_numbers(path: Path, values: np.ndarray) -> np.ndarray:
    """Return integers; floats are rounded if they are within ROUNDING of whole numbers.

    Values that 64-bit integers with a sign can hold have this type if others are too small.
    """
    if values.dtype == np.uint64:
        _refuse_large(path, values, int(values.max(initial=0)), np.iinfo(np.int64).max)
        return values.astype(np.int64)
    if values.dtype.kind in "uib":
        return values
    with np.errstate(invalid="ignore"):  # NaN raises the error below, not a warning.
        is_fraction = ~np.isfinite(values) | (np.abs(values - np.rint(values)) > ROUNDING)
    if is_fraction.any():
        fractions = values[is_fraction]
        if np.isnan(fractions).all():
            raise DataError(
                f"{path}: {pluralize(fractions.size, 'value')} of the mask are not a number (NaN).",
                code="mask_not_integer",
                hint="If NaN is the background, replace it with 0, for example with "
                "numpy.nan_to_num, and save the mask as integers. If it marks pixels without "
                "annotation, replace it with an unused value, and exclude this value with "
                "--set labels.ignore=VALUE.",
            )
        raise DataError(
            f"{path}: {pluralize(fractions.size, 'value')} of the mask are not whole numbers, "
            f"for example {fractions.flat[0]:g}.",
            code="mask_not_integer",
            hint="Save the classes as integers. If the values are probabilities, save those above "
            "0.5 as 1 and the others as 0.",
        )
    largest = float(np.abs(values).max(initial=0))
    _refuse_large(path, values, largest, MAX_FLOAT)
    return np.rint(values).astype(np.int32 if largest < 2**31 else np.int64)


def _refuse_large(path: Path, values: np.ndarray, largest: float, limit: int) -> None:
    """Raise DataError if the largest absolute value of a mask exceeds a limit."""
    if largest <= limit:
        return
    over = values[np.abs(values) > limit]
    raise DataError(
        f"{path}: {pluralize(over.size, 'value')} of the mask are too large, for example "
        f"{over.flat[0]:.6g}; values of type {values.dtype} can be at most {limit}.",
        code="mask_value_too_large",
        hint="Save small numbers: those of the classes, or of the objects from 1. The function "
        "skimage.segmentation.relabel_sequential renumbers objects.",
    )
