"""Add the predicted classes and objects to OME-Zarr images, as label images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ushape.inference.output.streamed_objects import collecting_objects
from ushape.inference.predictor import Predictor
from ushape.instances.contours import class_styles, drawing_colors
from ushape.instances.label import Objects, label_prediction
from ushape.io.streaming.ome_labels import LabelStyle, label_folders, open_label_writer
from ushape.planning.plan import Plan
from ushape.types import Prediction

CLASSES, OBJECTS = "ushape_classes", "ushape_objects"
"""Names of the label images of class indices and of objects."""

MAX_STATED = 4096
"""Number of objects up to which the metadata list the class of each; readers reject long lists."""


def zarr_label_paths(image: Path) -> list[Path]:
    """Return the folders of the label images of an OME-Zarr image.

    Raises:
        DataError: if label images cannot be added to it.
    """
    return label_folders(image, (CLASSES, OBJECTS))


def write_zarr_labels(image: Path, prediction: Prediction, plan: Plan, made_by: str) -> None:
    """Add the classes and the objects of a prediction to its image.

    Args:
        made_by: Digest of the facts that determine the prediction.
    """
    with open_label_writer(image, CLASSES, "uint8", _class_style(plan, made_by)) as writer:
        writer.write(prediction.classes)
    how, space = plan.recipe.predict.objects, plan.preprocessing.space
    spacing = prediction.source.spacing_mm if prediction.source else None
    objects: Objects = label_prediction(prediction, space, how, spacing)
    _write_objects(image, [objects.labels], objects.classes, plan, made_by)


@contextmanager
def collecting_labels(
    image: Path, predictor: Predictor, shape: tuple[int, ...], folder: Path | None, made_by: str
) -> Iterator[Callable[[np.ndarray, np.ndarray | None], None]]:
    """Collect classes and objects on the disk; add them to the image when the block ends.

    Args:
        shape: (*S) of the image.
        folder: Folder with space for five bytes for each pixel.
        made_by: Digest of the facts that determine the prediction.

    Yields:
        Function that receives the classes (n, ...), and the numbers of the objects (n, ...) if the
        network separates them, of rows that follow each other.
    """
    plan = predictor.plan
    with collecting_objects(predictor, shape, folder) as objects:
        with open_label_writer(image, CLASSES, "uint8", _class_style(plan, made_by)) as writer:

            def write(own: np.ndarray, numbers: np.ndarray | None) -> None:
                objects.add(own, numbers)
                writer.write(own)

            yield write
        bands, owners = objects.number()
        _write_objects(image, bands, owners, plan, made_by)


def _write_objects(
    image: Path, bands: Iterable[np.ndarray], owners: np.ndarray, plan: Plan, made_by: str
) -> None:
    """Write numbers of objects (n, *S[1:]); the classes of up to MAX_STATED are stored."""
    names = plan.preprocessing.space.names
    is_stated = len(names) > 2 and len(owners) <= MAX_STATED
    stated = {n: names[own] for n, own in enumerate(owners.tolist(), start=1) if is_stated}
    style = LabelStyle(names=stated, colors={}, made_by=made_by)
    with open_label_writer(image, OBJECTS, "uint32", style) as writer:
        for band in bands:
            writer.write(band.astype(np.uint32))


def _class_style(plan: Plan, made_by: str) -> LabelStyle:
    space = plan.preprocessing.space
    colors = drawing_colors(class_styles(space.names, space.values, plan.encoding))
    names, shown = dict(enumerate(space.names)), dict(enumerate(colors))
    del names[0], shown[0]  # Validators want the same values in both; viewers hide the background.
    return LabelStyle(names=names, colors=shown, made_by=made_by)
