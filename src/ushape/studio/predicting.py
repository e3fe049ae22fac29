"""Program that predicts images for the page, in a separate process.

`python -m ushape.studio.predicting RUN JOB.json`: the file lists the images and their folders. Each
finished image is one line of output.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ushape.data.inputs import Input, group_inputs
from ushape.data.preprocessing import by_group
from ushape.errors import DataError, UshapeError, explained, is_disk_full
from ushape.formatting import pluralize, reason
from ushape.inference.cleaned_bands import cleaned_bands
from ushape.inference.predictor import Predictor, PreparedImage
from ushape.inference.streaming import StreamedPrediction
from ushape.inference.uncertainty import confidence_of
from ushape.instances.label import label_prediction
from ushape.instances.stored import number_stored
from ushape.io import as_stored_probabilities
from ushape.io.files import replacing, temporary_name, write_json
from ushape.io.streaming import Bands
from ushape.io.temporary import reserve
from ushape.planning.processor import leave_cores_to_others
from ushape.studio.predictions import (
    CLASSES,
    OBJECTS,
    PROBABILITIES,
    SUMMARY,
    class_table,
    facts_of,
)
from ushape.studio.suggestions import COMPARED_PX, ImageSummary, describe_image, summarize
from ushape.transforms.morphology import cut_rows
from ushape.types import Case, Prediction

THIN_PX = 1024
"""Number of pixels along an axis of a large image from which its confidence is measured."""

MAX_BYTES = 1 << 28
"""Memory of an image and its probabilities from which it is predicted in bands."""


def main(arguments: Sequence[str]) -> int:
    """Predict the images of a job; return 1 if one of them failed."""
    run, job = Path(arguments[0]), json.loads(Path(arguments[1]).read_bytes())
    if note := leave_cores_to_others("auto"):
        print(note, flush=True)
    predictor = Predictor.open(run)
    cases = [
        Case(
            id=one["id"],
            image=Path(one["image"]),
            channels=tuple(map(Path, one["channels"])),
            group=one["group"] or str(Path(one["image"]).parent),
        )
        for one in job["images"]
    ]
    inputs, _ = group_inputs([Input(case, Path(case.id)) for case in cases])
    groups = by_group([one.case for one in inputs])
    table = class_table(predictor.plan.preprocessing.space, job["values"])
    failures = []
    for number, one in enumerate(inputs, 1):
        folder = Path(job["folder"]) / one.case.id
        name = one.case.image.name
        try:
            predict_image(predictor, one.case, groups[one.case.group], folder, table)
            print(f"Predicted {name} ({number} of {len(inputs)}).", flush=True)
        except Exception as error:
            known = _known_error(error)
            failures.append(str(known) if name in known.message else f"{name}: {known}")
            print(f"{name} could not be predicted: {known.message}", flush=True)
    if failures:
        share = f"{len(failures)} of {pluralize(len(inputs), 'image')}"
        print(f"Error: {share} could not be predicted. {failures[0]}", flush=True)
    return 1 if failures else 0


def _known_error(error: Exception) -> UshapeError:
    """Return why an image could not be predicted, although others may still be.

    Raises:
        UshapeError: if the disk is full, so that no other image can be stored either.
    """
    is_full = is_disk_full(error)
    if isinstance(error, UshapeError) and not is_full:
        return error
    known = error if isinstance(error, UshapeError) else explained(error)
    if known is None:
        traceback.print_exception(error, file=sys.stdout)
        return UshapeError(
            f"Internal error: {type(error).__name__}: {reason(error)}.",
            hint="See the output of the prediction for details.",
        )
    if is_full:
        raise UshapeError(
            known.message,
            code="disk_full",
            hint="Free some space on this disk, and predict the images again; those that are "
            "finished are kept.",
        ) from error
    return known


def predict_image(
    predictor: Predictor,
    case: Case,
    companions: Sequence[Case],
    folder: Path,
    table: np.ndarray,
) -> None:
    """Predict an image and store the result in a folder, completely or not at all.

    Args:
        table: Class of the project for each class of the model.

    Raises:
        DataError: if the image cannot be predicted.
        OSError: if the disk is full.
    """
    work = temporary_name(folder)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        prepared = predictor.preprocess_or_stream(case, companions, MAX_BYTES)
        if isinstance(prepared, PreparedImage):
            prediction = predictor.predict([prepared])[0]
            facts = _store(prediction, predictor, case, work, table)
        else:
            streamed = predictor.stream(prepared, keep_distance=True)
            facts = _store_streamed(streamed, predictor, case, work, table)
        write_json(work / SUMMARY, facts)
        shutil.rmtree(folder, ignore_errors=True)
        work.replace(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _store(
    prediction: Prediction, predictor: Predictor, case: Case, folder: Path, table: np.ndarray
) -> dict[str, Any]:
    space = predictor.plan.preprocessing.space
    _save(folder / PROBABILITIES, as_stored_probabilities(prediction.probabilities, "uint8"))
    _save(folder / CLASSES, table[prediction.classes])
    if prediction.labels is not None:
        _save(folder / OBJECTS, label_prediction(prediction, space).labels)
    assert prediction.source is not None, "the image was read from a file"
    summary = summarize(case.id, prediction.source.array, predictor, prediction)
    facts = facts_of(space, prediction.classes.shape, table)
    return {**facts, **_values_of(summary), "confidence": prediction.confidence}


def _save(path: Path, array: np.ndarray) -> None:
    """Write an array as `np.save` does, whose errors do not say that a disk is full."""
    with replacing(path) as file:
        np.save(file, array)


def _store_streamed(
    prediction: StreamedPrediction,
    predictor: Predictor,
    case: Case,
    folder: Path,
    table: np.ndarray,
) -> dict[str, Any]:
    """Store the prediction of an image larger than memory as it is computed."""
    space = predictor.plan.preprocessing.space
    with prediction.source as source:
        shape = source.shape[1:]
        shares, classes = _store_bands(prediction, predictor, folder, table)
        features = describe_image(thin_image(source))
        step = max(shape) // THIN_PX | 1  # Odd, since networks may combine blocks of 2 x 2 pixels.
        places = (slice(None, None, step),) * len(shape)
        thin_shares = np.asarray(shares[(slice(None), *places)], dtype=np.float32) / 255
        thin_classes = np.searchsorted(table, classes[places]).astype(np.uint8)
        confidence = confidence_of(thin_shares, thin_classes, space)
        small = Prediction(probabilities=thin_shares, classes=thin_classes, confidence=confidence)
        summary = summarize(case.id, np.zeros((1, 8, 8), np.uint8), predictor, small)
    if cut := sum(prediction.cut_parts):
        print(
            f"{case.image.name}: {pluralize(cut, 'object')} extended over more rows than fit into "
            "half of the free memory, and were cut into parts with their own numbers.",
            flush=True,
        )
    summary = replace(summary, features=features)
    return {**facts_of(space, shape, table), **_values_of(summary), "confidence": confidence}


def _store_bands(
    prediction: StreamedPrediction, predictor: Predictor, folder: Path, table: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Store probabilities, classes and objects, and return the first two.

    Shapes:
        returns: (K, *S) uint8, 0 to 255, and (*S) uint8 classes of the project; memory maps.

    Raises:
        DataError: if the disk has not enough space.
    """
    channels, shape = predictor.plan.preprocessing.space.channels, prediction.source.shape[1:]
    # Values of 1 byte for the classes and, until they are cleaned, a copy of them; of 4 bytes for
    # the objects and a copy of the distance.
    _require_space(folder, math.prod(shape) * (channels + 2 + 8 * predictor.separates))
    shares = _create_map(folder / PROBABILITIES, np.uint8, (channels, *shape))
    classes = _create_map(folder / CLASSES, np.uint8, shape)
    objects = None
    if predictor.separates:
        objects = _create_map(folder / OBJECTS, np.int32, shape)
    done = [0, 0]

    def keep(own: np.ndarray) -> None:
        shares[:, done[0] : done[0] + own.shape[1]] = as_stored_probabilities(own, "uint8")
        done[0] += own.shape[1]

    for decided, numbers in cleaned_bands(prediction, predictor, folder, keep):
        rows = slice(done[1], done[1] + len(decided))
        classes[rows] = table[decided]
        if objects is not None:
            objects[rows] = numbers
        done[1] = rows.stop
    if objects is not None:
        for rows, numbers in zip(cut_rows(shape), number_stored(classes, objects)[0], strict=True):
            objects[rows] = numbers
        objects.flush()
    shares.flush()
    classes.flush()
    return shares, classes


def _create_map(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> np.memmap:
    """Create an array in a .npy file whose space on the disk is reserved."""
    found = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    with path.open("r+b") as file:
        reserve(file.fileno(), path.stat().st_size, path.parent)
    return found


def _require_space(folder: Path, needed_bytes: int) -> None:
    """Raise DataError if a disk has less space: when it is full, memory maps end the process."""
    if needed_bytes > (free_bytes := shutil.disk_usage(folder).free):
        raise DataError(
            f"The prediction needs {needed_bytes / 1e9:.1f} GB, but only {free_bytes / 1e9:.1f} GB "
            f"are free on the disk of {folder.parent}.",
            code="disk_full",
            hint="Free some space on this disk, and predict the image again.",
        )


def thin_image(source: Bands) -> np.ndarray:
    """Return every n-th pixel of an open image, or of the middle plane of a volume, (C, y, x).

    They are the pixels that `describe_image` uses of the whole image.
    """
    step = max(1, max(source.shape[-2:]) // COMPARED_PX)
    if len(source.shape) == 4:
        middle = source.shape[1] // 2
        return source.read(middle, middle + 1)[:, 0, ::step, ::step]
    rows = range(0, source.shape[1], step)
    return np.stack([source.read(row, row + 1)[:, 0, ::step] for row in rows], axis=1)


def _values_of(summary: ImageSummary) -> dict[str, Any]:
    return {
        "features": [round(float(value), 6) for value in summary.features],
        "uncertainty": float(summary.uncertainty),
        "expected_dice": summary.expected_dice,
    }


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        try:
            sys.exit(main(sys.argv[1:]))
        except Exception as error:
            known = error if isinstance(error, UshapeError) else explained(error)
            if known is None:
                raise
            print(f"Error: {known.message}\n{known.hint}", flush=True)
            sys.exit(2)
