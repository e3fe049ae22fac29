"""Outputs of an image larger than memory, written as its bands are predicted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ushape.inference.predictor import Predictor
from ushape.io import ProbabilityType
from ushape.io.streaming import Bands
from ushape.io.streaming.writer import open_band_writer, open_probability_writer
from ushape.transforms.morphology import clean_stored, cut_rows, held_classes

Taker = Callable[[np.ndarray], None]
"""Writes the next band."""


def open_mask(
    stack: ExitStack, predictor: Predictor, bands: Bands, target: Path, image: Path
) -> Taker:
    """For bands of classes (n, ...), written as the user's masks are."""
    encoding = predictor.plan.encoding
    dtype = "int64" if encoding.kind == "colors" else encoding.dtype
    masks = stack.enter_context(open_band_writer(target, bands.shape[1:], encoding, image))
    return lambda classes: masks.write(predictor.codes_of(classes).astype(dtype))


def open_probabilities(
    stack: ExitStack,
    predictor: Predictor,
    bands: Bands,
    path: Path,
    dtype: ProbabilityType,
    image: Path,
) -> Taker:
    """For bands of probabilities (K, n, ...)."""
    shape = (predictor.plan.preprocessing.space.channels, *bands.shape[1:])
    return stack.enter_context(open_probability_writer(path, shape, dtype, image)).write


def classes_in_bands(
    stack: ExitStack,
    predictor: Predictor,
    bands: Bands,
    take_probabilities: Taker | None,
    room: Path | None,
) -> Iterator[np.ndarray]:
    """Classes (n, ...), cleaned, in rows that follow the last ones.

    Args:
        take_probabilities: Gets those of each band.
        room: Folder where the class map may wait to be cleaned; None: the system's place.
    """
    shape = bands.shape[1:]
    cleans = predictor.tuning.rule.cleans
    held = stack.enter_context(held_classes(shape, room)) if cleans else None
    row = 0
    for probabilities, classes in predictor.predict_bands(bands):
        if take_probabilities is not None:
            take_probabilities(probabilities)
        if held is None:
            yield classes
            continue
        held[row : row + len(classes)] = classes
        row += len(classes)
    if held is not None:
        clean_stored(held, predictor.plan.preprocessing.space.scored, predictor.cleanings)
        for band in cut_rows(shape):
            yield np.asarray(held[band])
