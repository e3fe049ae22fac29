"""Clean and separate the classes of images larger than memory, whose rows come in bands."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ushape.inference.band_separation import separate_bands
from ushape.inference.predictor import Predictor
from ushape.inference.streaming import StreamedPrediction
from ushape.io.temporary import temporary_map
from ushape.transforms.morphology import clean_stored, cut_rows


def cleaned_bands(
    prediction: StreamedPrediction,
    predictor: Predictor,
    folder: Path | None,
    write_probabilities: Callable[[np.ndarray], object] | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield the classes of an image band by band; they equal those of `Predictor.predict`.

    Classes come as the image is predicted, or, if they must be cleaned, from a file after all of
    it is. If the prediction comes with the distance, objects are separated after the cleaning.

    Args:
        folder: Folder with space for a class map, and for a distance of four bytes for each pixel;
            None: the system's folder for temporary files.
        write_probabilities: Function that receives the probabilities (K, n, ...) of rows that
            follow each other.

    Shapes:
        yields: (n, ...) uint8 class indices, and (n, ...) int32 numbers of the objects in any
            order, or None without a distance; of rows that follow each other.
    """
    space, shape = predictor.plan.preprocessing.space, prediction.source.shape[1:]
    bands = _without_probabilities(prediction, write_probabilities)
    if not predictor.tuning.rule.cleans:
        yield from _separated(bands, predictor, prediction.cut_parts)
        return
    with ExitStack() as stack:
        label_map = stack.enter_context(temporary_map(shape, folder))
        relief: np.ndarray | None = None
        row = 0
        for classes, distance in bands:
            rows = slice(row, row + len(classes))
            label_map[rows] = classes
            if distance is not None:
                if relief is None:
                    relief = stack.enter_context(temporary_map(shape, folder, distance.dtype))
                relief[rows] = distance
            row += len(classes)
        clean_stored(label_map, space.scored, predictor.cleanings)
        cleaned = (
            (np.asarray(label_map[band]), None if relief is None else np.asarray(relief[band]))
            for band in cut_rows(shape)
        )
        yield from _separated(cleaned, predictor, prediction.cut_parts)


def _without_probabilities(
    prediction: StreamedPrediction, write: Callable[[np.ndarray], object] | None
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield the classes and the distance of each band, after its probabilities were written."""
    for probabilities, classes, distance in prediction.bands:
        if write is not None and probabilities.shape[1]:
            write(probabilities)
        if len(classes):
            yield classes, distance


def _separated(
    bands: Iterator[tuple[np.ndarray, np.ndarray | None]],
    predictor: Predictor,
    cut_parts: list[int],
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield classes (n, ...) and None; if there is a distance, separated ones and their numbers.

    Args:
        cut_parts: List that receives the numbers of objects that were cut.
    """
    first = next(bands, None)
    if first is None:
        return
    everything = itertools.chain([first], bands)
    if first[1] is None:
        yield from everything
        return
    pairs = ((classes, far) for classes, far in everything if far is not None)
    space = predictor.plan.preprocessing.space
    found = separate_bands(pairs, space, predictor.objects, cut_parts.append)
    yield from (own for own in found if len(own[0]))
