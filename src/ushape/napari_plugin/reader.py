"""Open images of the formats that napari does not read, and folders of predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ushape import io
from ushape.errors import DataError
from ushape.formatting import pluralize
from ushape.inference.output.manifest import finished_files, has_log
from ushape.io import itk
from ushape.io.streaming import read_spacing
from ushape.napari_plugin.layers import LayerData, Origin

SHOWN = 50
"""Largest number of predictions that are opened together."""

RGB = (3, 4)
"""Numbers of channels that 8-bit pictures have."""


def get_reader(path: str | list[str]) -> Callable[[str], list[LayerData]] | None:
    """Return the function that opens a path; None if it is left to other plug-ins.

    Args:
        path: File or folder; a list of files that are to be stacked is left to others.
    """
    if not isinstance(path, str):
        return None
    place = Path(path)
    if place.is_dir() and io.suffix_of(place) not in io.FORMATS:
        if has_log(place):
            return read_predictions
        has_slices = any(io.is_dicom_file(one) for one in place.iterdir())
        return read_image if has_slices else None
    return read_image if io.is_image(place) else None


def read_image(path: str | Path) -> list[LayerData]:
    """Return the layer of an image, at the spacing in its file.

    A picture of 3 or 4 channels is a layer of colors; each channel of other images becomes a layer.
    The fourth axis of a NIfTI file is the first axis of the layer, with a slider.

    Raises:
        DataError: if the file is damaged or hostile.
    """
    place = Path(path)
    pixels = io.read(place)
    array, spacing = pixels.array, pixels.spacing_mm
    properties: dict[str, Any] = {
        "name": io.stem_of(place),
        "metadata": Origin(image=place.absolute()).metadata,
    }
    if spacing is not None:
        properties["scale"] = spacing
    if len(array) == 1:
        return [(array[0], properties, "image")]
    if array.dtype == np.uint8 and array.ndim == 3 and len(array) in RGB:
        return [(np.moveaxis(array, 0, -1), {**properties, "rgb": True}, "image")]
    if io.has_time_points(place):
        steps = {"scale": (1.0, *spacing)} if spacing is not None else {}
        return [(array, properties | steps, "image")]
    return [(array, {**properties, "channel_axis": 0}, "image")]


def read_predictions(path: str | Path) -> list[LayerData]:
    """Return the images and masks of a folder that `ushape predict` has written.

    Labels are the values of the mask files. An image that has moved is left out.

    Raises:
        DataError: if there are too many of them, or if a mask cannot be read.
    """
    folder = Path(path)
    found = list(_masks_in(folder))
    if not found or len(found) > SHOWN:
        raise DataError(
            f"{folder} has {pluralize(len(found), 'finished mask')}.",
            code="no_masks" if not found else "too_many_images",
            hint="Predict the images first."
            if not found
            else f"At most {SHOWN} can be opened together: predict some of the images into another "
            "folder, or open single images and predict them here.",
        )
    layers: list[LayerData] = []
    for image, mask in found:
        if image is not None:
            layers += read_image(image)
        layers.append(_read_mask(mask, image))
    return layers


def _read_mask(path: Path, image: Path | None) -> LayerData:
    mask = io.read_mask(path)
    spacing = None if mask.grid is None else itk.spacing_on(mask.grid)
    if spacing is None and image is not None:
        spacing = read_spacing(image)
    properties: dict[str, Any] = {
        "name": f"{io.stem_of(path)} (mask)",
        "metadata": Origin(image=image, mask=path.absolute()).metadata,
    }
    if spacing is not None and len(spacing) == mask.codes.ndim:
        properties["scale"] = spacing
    return mask.codes, properties, "labels"


def _masks_in(folder: Path) -> Iterator[tuple[Path | None, Path]]:
    """Yield the image and the mask of each finished prediction."""
    for below, image, files in finished_files(folder):
        stem = io.stem_of(below)
        for path in files:
            if io.stem_of(path) == stem and io.is_writable(io.suffix_of(path).removeprefix(".ome")):
                yield image, path
