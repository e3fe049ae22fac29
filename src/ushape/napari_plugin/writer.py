"""Save label layers as masks, in the encoding of the run or mask file that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ushape import io
from ushape.errors import DataError, RunError
from ushape.formatting import size_text
from ushape.io.files import real_path
from ushape.io.orientation import as_stored
from ushape.io.streaming import open_bands
from ushape.labels import IGNORE
from ushape.napari_plugin.layers import Origin, load_plan
from ushape.types import MaskEncoding, Pixels

VOLUMES = (".tif", ".tiff", ".npy")
"""Suffixes of formats for masks with three axes, besides those of ITK."""


def write_labels(path: str, data: Any, properties: Mapping[str, Any]) -> list[str]:
    """Write a label layer; napari has asked before if the file exists.

    Args:
        path: Output file; its suffix selects the format.
        data: (*S), integer.
        properties: Properties of the layer, which contain its origin.

    Returns:
        The path.

    Raises:
        DataError: if a label is not a class of the run, or the format cannot store the mask.
        RunError: if the file is the image.
    """
    origin = Origin.of(properties)
    write_mask(Path(path), np.asarray(data), origin, encoding_of(origin, np.asarray(data)))
    return [path]


def save_annotation(data: Any, origin: Origin, folder: Path, *, overwrite: bool = False) -> Path:
    """Write labels as the mask of their image, with the name of the image.

    Args:
        data: (*S), integer.
        origin: The image, and the run or mask whose encoding is used.
        folder: Folder of the masks, which is created.
        overwrite: Replace an existing mask.

    Returns:
        The mask, such as `FOLDER/x.png` for the image `x.tif`.

    Raises:
        DataError: if the image is not a file, or `write_labels` raises it.
        RunError: if the mask exists, or is the image.
    """
    labels = np.asarray(data)
    if origin.image is None:
        raise DataError(
            "The labels layer has no image file from which to derive the name of the mask.",
            code="image_unknown",
            hint="Choose an image layer that was opened from a file. A photograph must be shown "
            "in the orientation specified in its file (EXIF).",
        )
    encoding = encoding_of(origin, labels)
    target = folder / f"{io.stem_of(origin.image)}{_suffix_for(encoding, labels, origin)}"
    if target.exists() and not overwrite and real_path(target) != real_path(origin.image):
        raise RunError(
            f"{target} already exists.",
            code="output_exists",
            hint="Choose another folder, or allow replacing existing masks (overwrite=True).",
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_mask(target, labels, origin, encoding)
    return target


def encoding_of(origin: Origin, labels: np.ndarray) -> MaskEncoding:
    """Return the encoding of the run or the mask; without them, values as they are."""
    if origin.run is not None:
        return load_plan(origin.run).encoding
    if origin.mask is not None:
        return io.read_mask(origin.mask).encoding
    dtype = np.min_scalar_type(int(labels.max(initial=0)))
    return MaskEncoding(dtype=str(dtype), suffix="")


def write_mask(path: Path, labels: np.ndarray, origin: Origin, encoding: MaskEncoding) -> None:
    """Write labels (*S) with the values of the encoding, at the place of the image.

    Raises:
        DataError: if a label is not a class of the run, the image has another size, or the format
            cannot store the mask.
        RunError: if the file is the image.
    """
    image = origin.image
    if image is not None and real_path(path) == real_path(image):
        raise RunError(
            f"{path} is the image itself.",
            code="output_is_input",
            hint="Choose another name or folder.",
        )
    codes = _codes_of(labels, origin)
    if (
        codes.max(initial=0) >= 1 << 16
        and encoding.kind == "values"
        and io.suffix_of(path) == ".png"
    ):
        raise DataError(
            f"{path} cannot store the number {codes.max()}: PNG supports at most 16 bits.",
            code="unwritable_format",
            hint="Choose a name that ends in .tif.",
        )
    place = None
    if image is not None and image.exists():
        _refuse_other_size(labels, image)
        place = Pixels(array=np.empty(0), grid=io.read_grid(image))
        if io.suffix_of(image) in (".tif", ".tiff"):
            with open_bands(image) as bands:
                place = replace(place, tiff=bands.tiff)
        if encoding.orientation == "stored":
            codes = as_stored(codes, io.read_orientation(image))
    io.write_mask(path, codes, encoding, like=place)


def _refuse_other_size(labels: np.ndarray, image: Path) -> None:
    """Raise DataError if labels and the image file have different sizes, as far as it is known."""
    size = None if io.has_time_points(image) else io.read_size(image)
    if size is not None and [one for one in size if one > 1] != [
        one for one in labels.shape if one > 1
    ]:
        raise DataError(
            f"The labels have {size_text(labels.shape)} pixels, but {image} has {size_text(size)}.",
            code="mask_size_mismatch",
            hint="Choose the image to which the labels belong, and labels of the whole image.",
        )


def _codes_of(labels: np.ndarray, origin: Origin) -> np.ndarray:
    """Return the values of the masks of the run for class indices; other labels as they are."""
    if origin.run is None:
        if labels.min(initial=0) < 0:
            raise DataError(
                f"The label {labels.min()} is negative, which masks cannot store.",
                code="unknown_mask_value",
                hint="Paint with nonnegative numbers.",
            )
        return labels
    space = load_plan(origin.run).preprocessing.space
    if space.states_objects:
        raise DataError(
            f"The masks of {origin.run} contain numbered objects, but the labels are classes.",
            code="numbered_masks",
            hint="Save a layer in which each object has its own number, without choosing the run.",
        )
    known = [*range(len(space.values)), *([] if space.ignore is None else [IGNORE])]
    unknown = sorted(set(np.unique(labels).tolist()) - set(known))
    if unknown:
        names = ", ".join(f"{index} = {name}" for index, name in enumerate(space.names))
        raise DataError(
            f"The label {unknown[0]} is not a class of {origin.run}, whose classes are {names}.",
            code="unknown_mask_value",
            hint="Paint with the number of a class.",
        )
    return space.values_of(labels.astype(np.uint8))


def _suffix_for(encoding: MaskEncoding, labels: np.ndarray, origin: Origin) -> str:
    """Return the suffix of the masks of the run, or that of a format for volumes if needed."""
    image = io.suffix_of(origin.image) if origin.image is not None else ""
    if labels.ndim == 2:
        return encoding.suffix or (".png" if labels.max(initial=0) < 1 << 16 else ".tif")
    choices = (one for one in (encoding.suffix, image) if one in VOLUMES or io.keeps_position(one))
    return next(choices, ".tif")
