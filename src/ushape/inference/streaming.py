"""An image larger than memory -> its classes, band by band, on the file's own grid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ushape.data.preprocessing import Preprocessing, thinning_step
from ushape.errors import DataError
from ushape.inference.sliding_window import Network, TileSettings, predict_bands
from ushape.io.streaming import Bands
from ushape.normalization import Normalization
from ushape.transforms.resampling import RowGrower, rows_beneath, shrink_rows

LOOKED_AT_PX = 1 << 24
"""Pixels that are read at once to measure an image's intensities."""


@dataclass(frozen=True)
class FileRows:
    """A file's image on the network's grid, read in bands."""

    bands: Bands
    shape: tuple[int, ...]
    """(C, *working)."""

    normalization: Normalization | None
    """None: not measured yet, nothing can be scaled."""

    def read(self, first: int, last: int) -> np.ndarray:
        """(C, last - first, ...), as `Preprocessing.load` would give these rows."""
        of = (self.bands.shape[1], self.shape[1])
        strip = self.bands.read(*rows_beneath((first, last), of))
        if self.bands.shape[1:] != self.shape[1:]:
            strip = shrink_rows(strip, self.shape[2:], (first, last), of)
        return strip

    def scale(self, part: np.ndarray) -> np.ndarray:
        """Intensities as the network sees them."""
        assert self.normalization is not None, "measured before prediction"
        return self.normalization.apply(part)


def predict_file(
    network: Network, bands: Bands, preprocessing: Preprocessing, settings: TileSettings
) -> Iterator[np.ndarray]:
    """Class probabilities of an open file, in bands on its own grid.

    The same as of the whole image, but for rounding.

    Shapes:
        yields: (K, n, *S[1:]) float32, rows that follow the last ones.

    Raises:
        DataError: other channels than the network's; a preprocessing that must see whole images.
    """
    refuse_whole_images(preprocessing, str(bands.path))
    if bands.shape[0] != preprocessing.channels:
        raise DataError(
            f"{bands.path}: the image has {bands.shape[0]} channels, the model reads "
            f"{preprocessing.channels}.",
            hint="Convert the image, or train a model on images like this one.",
        )
    file_shape = bands.shape[1:]
    working = preprocessing.config.working_shape(file_shape)
    rows = FileRows(bands, (bands.shape[0], *working), None)
    rows = replace(
        rows,
        normalization=preprocessing.normalization or measure_normalization(rows, preprocessing),
    )
    grower = RowGrower(working, file_shape) if working != file_shape else None
    for band in predict_bands(network, rows, preprocessing.space, settings):
        whole = band if grower is None else grower.add(band)
        if whole.shape[1]:
            yield whole


def average_bands(members: Sequence[Iterator[np.ndarray]]) -> Iterator[np.ndarray]:
    """The mean of several predictions of one image, whose bands may end at different rows.

    Shapes:
        members: (K, n, ...) bands each, all of one image -> (K, n, ...).
    """
    if len(members) == 1:
        yield from members[0]
        return
    waiting = [next(member) for member in members]
    while True:
        rows = min(band.shape[1] for band in waiting)
        yield sum((band[:, :rows] for band in waiting[1:]), waiting[0][:, :rows]) / len(waiting)
        for index, band in enumerate(waiting):
            rest = band[:, rows:]
            waiting[index] = rest if rest.shape[1] else next(members[index], rest)
        if not waiting[0].shape[1]:
            return


def refuse_whole_images(preprocessing: Preprocessing, name: str) -> None:
    """Raises DataError where an image can only be prepared as a whole."""
    config = preprocessing.config
    if preprocessing.needs_group or config.square or config.shape is not None:
        raise DataError(
            f"{name}: too large for this model, which crops, pads or resizes whole images.",
            hint="Cut the image up, or train with --recipe auto.",
        )


def count_missing(bands: Bands) -> int:
    """Pixels of the file that hold NaN or infinity, in some channel."""
    if bands.dtype.kind != "f":
        return 0
    height, row_px = bands.shape[1], math.prod(bands.shape[2:])
    together = max(1, LOOKED_AT_PX // row_px)
    starts = range(0, height, together)
    strips = (bands.read(first, min(height, first + together)) for first in starts)
    return sum(int((~np.isfinite(strip)).any(axis=0).sum()) for strip in strips)


def measure_normalization(rows: FileRows, preprocessing: Preprocessing) -> Normalization:
    """The normalization of the whole image, from the pixels that `Preprocessing` would look at."""
    channels, height, *others = rows.shape
    row_px = math.prod(others)
    step = thinning_step(height * row_px, rows.shape[-1])
    together = max(1, LOOKED_AT_PX // row_px)
    found = []
    for first in range(0, height, together):
        last = min(height, first + together)
        wanted = np.arange(-(-first * row_px // step) * step, last * row_px, step) - first * row_px
        if wanted.size:
            found.append(rows.read(first, last).reshape(channels, -1)[:, wanted])
    return preprocessing.measure(np.concatenate(found, axis=1))
