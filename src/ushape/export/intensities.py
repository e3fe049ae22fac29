"""What the images of a run say about intensities: their type, and constants for all of them."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from ushape.data.intensities import SAMPLED_PX, thin_out
from ushape.data.preprocessing import Preprocessing
from ushape.data.reading import read_image
from ushape.errors import DataError, RunError
from ushape.normalization import Normalization
from ushape.planning.run import Run
from ushape.types import select_cases

MAX_IMAGES = 200
"""Largest number of training images that are read."""


def measure_training(run: Run, preprocessing: Preprocessing) -> Normalization:
    """Measure the normalization of the training images of a run together.

    Raises:
        RunError: if the training images no longer exist.
        DataError: if one of them cannot be read.
    """
    training = select_cases(run.load_cases(), run.load_splits().train)
    cases = [fact.case for fact in training]
    some = cases[:: -(-len(cases) // MAX_IMAGES)]
    pixels = [thin_out(read_image(case, preprocessing.channels), SAMPLED_PX) for case in some]
    return preprocessing.measure(np.concatenate(pixels, axis=1))


def has_integers(run: Run, channels: int) -> bool:
    """Return whether the files of a run hold integers, by its first image; True if it is lost."""
    with suppress(DataError, RunError):
        return read_image(run.load_cases()[0].case, channels).dtype.kind != "f"
    return True
