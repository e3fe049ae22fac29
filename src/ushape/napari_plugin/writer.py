"""Save label layers as masks, in the encoding of the run or mask file that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ushape import io
from ushape.errors import DataError, RunError
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
        properties: Properties of the layer, which state where it comes from.

    Returns:
        The path.

    Raises:
        DataError: if a label is no class of the run, or the format cannot store the mask.
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
            "The labels belong to no image file, by whose name the mask could be found.",
            code="image_unknown",
            hint="Choose an image layer that was opened from a file.",
        )
    encoding = encoding_of(origin, labels)
    target = folder / f"{io.stem_of(origin.image)}{_suffix_for(encoding, labels, origin)}"
    if target.exists() and not overwrite and real_path(target) != real_path(origin.image):
        raise RunError(
            f"{target} already exists.",
            code="output_exists",
            hint="Choose another folder, or to replace an existing mask (overwrite=True).",
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
        DataError: if a label is no class of the run, or the format cannot store the mask.
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
    place = None
    if image is not None and image.exists():
        place = Pixels(array=np.empty(0), grid=io.read_grid(image))
        if io.suffix_of(image) in (".tif", ".tiff"):
            with open_bands(image) as bands:
                place = replace(place, tiff=bands.tiff)
        if encoding.orientation == "stored":
            codes = as_stored(codes, io.read_orientation(image))
    io.write_mask(path, codes, encoding, like=place)


def _codes_of(labels: np.ndarray, origin: Origin) -> np.ndarray:
    """Return the values of the masks of the run for class indices; other labels as they are."""
    if origin.run is None:
        return labels
    space = load_plan(origin.run).preprocessing.space
    known = [*range(len(space.values)), *([] if space.ignore is None else [IGNORE])]
    unknown = sorted(set(np.unique(labels).tolist()) - set(known))
    if unknown:
        names = ", ".join(f"{index} = {name}" for index, name in enumerate(space.names))
        raise DataError(
            f"The label {unknown[0]} is no class of {origin.run}, whose classes are {names}.",
            code="unknown_mask_value",
            hint="Paint with the number of a class.",
        )
    return space.values_of(labels.astype(np.uint8))


def _suffix_for(encoding: MaskEncoding, labels: np.ndarray, origin: Origin) -> str:
    """Return the suffix of the masks of the run, or that of a format for volumes if needed."""
    image = io.suffix_of(origin.image) if origin.image is not None else ""
    volumes = (*io.itk.WRITABLE, *VOLUMES)
    if labels.ndim == 2:
        return encoding.suffix or ".png"
    return next((one for one in (encoding.suffix, image) if one in volumes), ".tif")
