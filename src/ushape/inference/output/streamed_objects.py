"""Objects of images larger than memory, whose classes and numbers lie on the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from ushape.errors import DataError
from ushape.inference.output.files import instance_encoding
from ushape.inference.predictor import Predictor
from ushape.instances.contours import Outline, class_styles, outline_of_box, write_geojson
from ushape.instances.stored import label_stored, number_stored
from ushape.io.files import replacing
from ushape.io.streaming import Bands, open_band_writer
from ushape.io.temporary import temporary_map
from ushape.transforms.morphology import cut_rows

AddRows = Callable[[np.ndarray, np.ndarray | None], None]
"""Function that receives the classes (n, ...), and the numbers of the objects (n, ...) if the
network separates them, of rows that follow each other."""


def settings_for_bands(predictor: Predictor) -> list[str]:
    """Return the settings without which objects can be numbered band by band, as `key=value`."""
    how = predictor.plan.recipe.predict.objects
    if predictor.separates:
        return []
    needed = {
        "separation=none": how.separation != "none",
        "border_class=null": how.border_class is not None,
        "max_hole_size_px=0": bool(how.max_hole_size_px),
    }
    return [f"predict.objects.{setting}" for setting, is_needed in needed.items() if is_needed]


def check_streamed_objects(image: Path, predictor: Predictor) -> None:
    """Check that the objects of an image larger than memory can be numbered band by band.

    Raises:
        DataError: if objects are split, or holes are filled, by the whole image.
    """
    if settings := settings_for_bands(predictor):
        raise DataError(
            f"{image}: too large for outlines or label images of objects that predict.objects "
            "splits or fills.",
            code="image_too_large",
            hint="Omit --zarr-labels, --contours and --instances, or set "
            f"{' and '.join(settings)}.",
        )


@dataclass
class StoredObjects:
    """Classes and objects of an image, on the disk.

    Shapes:
        classes, labels: (*S).
    """

    predictor: Predictor
    classes: np.ndarray
    labels: np.ndarray
    done: int = field(default=0, init=False)

    def add(self, own: np.ndarray, numbers: np.ndarray | None) -> None:
        """Store the classes (n, ...), and the numbers if the network separates the objects."""
        rows = slice(self.done, self.done + len(own))
        self.classes[rows] = own
        if numbers is not None:
            self.labels[rows] = numbers
        self.done += len(own)

    def number(self) -> tuple[Iterator[np.ndarray], np.ndarray]:
        """Return the numbers of all objects in bands, and their classes, as `number_stored`."""
        how, min_size_px = self.predictor.plan.recipe.predict.objects, 0
        if not self.predictor.separates:
            label_stored(self.classes, self.labels, corners_connect=how.corners_connect)
            min_size_px = how.min_size_px
        return number_stored(self.classes, self.labels, min_size_px)


@contextmanager
def collecting_objects(
    predictor: Predictor, shape: Sequence[int], folder: Path | None
) -> Iterator[StoredObjects]:
    """Open files for the classes and the objects of an image.

    Args:
        shape: (*S) of the image.
        folder: Folder with space for five bytes for each pixel.
    """
    with ExitStack() as stack:
        classes = stack.enter_context(temporary_map(shape, folder))
        labels = stack.enter_context(temporary_map(shape, folder, np.int32))
        yield StoredObjects(predictor, classes, labels)


@contextmanager
def collecting_instances(path: Path, predictor: Predictor, source: Bands) -> Iterator[AddRows]:
    """Collect classes and objects of an image; write the numbers when the block ends.

    Args:
        path: File to write, in a format that can be written band by band.
        source: The image.
    """
    shape = source.shape[1:]
    with collecting_objects(predictor, shape, path.parent) as objects:
        yield objects.add
        bands, owners = objects.number()
        encoding = instance_encoding(path, len(owners))
        with open_band_writer(path, shape, encoding, source) as writer:
            for numbers in bands:
                writer.write(numbers)


@contextmanager
def collecting_outlines(path: Path, predictor: Predictor, source: Bands) -> Iterator[AddRows]:
    """Collect classes and objects of a flat image; write their outlines when the block ends.

    The coordinates are pixels of the finest level if the image is a slide.

    Args:
        path: GeoJSON file to write.
        source: The image.
    """
    shape = source.shape[1:]
    with collecting_objects(predictor, shape, path.parent) as objects:
        yield objects.add
        bands, owners = objects.number()
        for rows, numbers in zip(cut_rows(shape), bands, strict=True):
            objects.labels[rows] = numbers
        scale = [whole / own for whole, own in zip(source.finest_shape, shape, strict=True)]
        plan = predictor.plan
        space = plan.preprocessing.space
        styles = class_styles(space.names, space.values, plan.encoding)
        with replacing(path) as file:
            write_geojson(file, _outlines(objects.labels, owners, scale), styles)


def _outlines(labels: np.ndarray, owners: np.ndarray, scale: Sequence[float]) -> Iterator[Outline]:
    """Yield the outline of each object, one at a time.

    Shapes:
        labels: (y, x); owners: (N,) class of object 1, 2, ...
    """
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            top, left = box[0].start, box[1].start
            shape = (box[0].stop - top, box[1].stop - left)
            read = partial(_rows_of, labels[box], number)
            class_index = int(owners[number - 1])
            yield outline_of_box(read, shape, number, class_index, (top, left), scale)


def _rows_of(box: np.ndarray, number: int, rows: slice) -> np.ndarray:
    """Return rows of the pixels of an object in its box, a view of a memory map."""
    return np.asarray(box[rows]) == number
