"""Program that predicts images for the page, in a process of its own.

`python -m ushape.studio.predicting RUN JOB.json`: the file lists the images and their folders. Each
finished image is one line of output.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ushape.data.inputs import Input, group_inputs
from ushape.data.preprocessing import by_group
from ushape.errors import UshapeError, explained
from ushape.inference.predictor import Predictor, PreparedImage
from ushape.inference.streaming import StreamedPrediction
from ushape.inference.uncertainty import confidence_of
from ushape.io import as_stored_probabilities
from ushape.io.files import temporary_name, write_json
from ushape.io.streaming import Bands
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
    failures = 0
    for number, one in enumerate(inputs, 1):
        folder = Path(job["folder"]) / one.case.id
        name = one.case.image.name
        try:
            predict_image(predictor, one.case, groups[one.case.group], folder, table)
            print(f"Predicted {name} ({number} of {len(inputs)}).", flush=True)
        except UshapeError as error:
            failures += 1
            print(f"{name} could not be predicted: {error.message}", flush=True)
    return 1 if failures else 0


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
            facts = _store_streamed(predictor.stream(prepared), predictor, case, work, table)
        write_json(work / SUMMARY, facts)
        shutil.rmtree(folder, ignore_errors=True)
        work.replace(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _store(
    prediction: Prediction, predictor: Predictor, case: Case, folder: Path, table: np.ndarray
) -> dict[str, Any]:
    space = predictor.plan.preprocessing.space
    np.save(folder / PROBABILITIES, as_stored_probabilities(prediction.probabilities, "uint8"))
    np.save(folder / CLASSES, table[prediction.classes])
    if prediction.labels is not None:
        np.save(folder / OBJECTS, prediction.labels)
    assert prediction.source is not None, "the image was read from a file"
    summary = summarize(case.id, prediction.source.array, predictor, prediction)
    facts = facts_of(space, prediction.classes.shape, table)
    return {**facts, **_values_of(summary), "confidence": prediction.confidence}


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
        shares = np.lib.format.open_memmap(
            folder / PROBABILITIES, mode="w+", dtype=np.uint8, shape=(space.channels, *shape)
        )
        classes = np.lib.format.open_memmap(
            folder / CLASSES, mode="w+", dtype=np.uint8, shape=shape
        )
        done = [0, 0]
        for own, decided, _ in prediction.bands:
            shares[:, done[0] : done[0] + own.shape[1]] = as_stored_probabilities(own, "uint8")
            classes[done[1] : done[1] + len(decided)] = table[decided]
            done = [done[0] + own.shape[1], done[1] + len(decided)]
        shares.flush()
        classes.flush()
        features = describe_image(thin_image(source))
        step = max(shape) // THIN_PX | 1  # Odd, since networks may combine blocks of 2 x 2 pixels.
        places = (slice(None, None, step),) * len(shape)
        thin_shares = np.asarray(shares[(slice(None), *places)], dtype=np.float32) / 255
        thin_classes = np.searchsorted(table, classes[places]).astype(np.uint8)
        confidence = confidence_of(thin_shares, thin_classes, space)
        small = Prediction(probabilities=thin_shares, classes=thin_classes, confidence=confidence)
        summary = summarize(case.id, np.zeros((1, 8, 8), np.uint8), predictor, small)
    summary = replace(summary, features=features)
    return {**facts_of(space, shape, table), **_values_of(summary), "confidence": confidence}


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
