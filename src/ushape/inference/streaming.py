"""Predict images larger than memory band by band, on the grid of the file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ushape import io
from ushape.data.file_rows import FileRows, strips
from ushape.data.intensities import thinning_step
from ushape.data.preprocessing import Preprocessing
from ushape.data.spacing import check_spacing, spacing_text
from ushape.errors import DataError
from ushape.formatting import size_text
from ushape.inference.network import Network
from ushape.inference.slices import predict_bands
from ushape.inference.sliding_window import TileSettings
from ushape.io.streaming import Bands, open_bands
from ushape.normalization import Normalization
from ushape.transforms.growing import grow_bands
from ushape.types import Pixels


@dataclass(frozen=True)
class StreamedImage:
    """The open file of an image that is larger than memory."""

    bands: Bands

    @property
    def pixels(self) -> int:
        """Number of pixels, channels not counted."""
        return math.prod(self.bands.shape[1:])

    @property
    def batch_key(self) -> None:
        """None: such an image never shares a batch."""
        return


@dataclass(frozen=True)
class StreamedPrediction:
    """Prediction of an image larger than memory, computed as its bands are taken."""

    source: Bands
    bands: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]
    """Probabilities (K, n, ...), classes (m, ...), not cleaned, and distance of rows that follow
    each other. Classes may come later than their probabilities: n and m differ, and may be 0. The
    distance (m, ...) is given if objects must be separated after the classes are cleaned."""

    cut_parts: list[int] = field(default_factory=list)
    """Numbers of objects that were cut because memory was short; complete after the last band."""


def read_or_open(path: Path, is_large: Callable[[Bands], bool]) -> Pixels | Bands:
    """Return the image in memory, or its open file if it is large; it is opened only once.

    Raises:
        DataError: if the file cannot be read.
    """
    if io.is_read_in_bands(path):
        try:
            bands = open_bands(path)
            if is_large(bands):
                return bands
            if io.FORMATS[io.suffix_of(path)].read_grid is not None:
                bands.close()
                return io.read(path)  # With its position in the patient.
            with bands:
                whole = bands.read(0, bands.shape[1])
                return Pixels(
                    array=whole,
                    spacing_mm=bands.spacing_mm,
                    tiff=bands.tiff,
                    orientation=bands.orientation,
                )
        except DataError:
            pass  # The reader of whole images raises the error.
    return io.read(path)


def stream_probabilities(
    network: Network, bands: Bands, preprocessing: Preprocessing, settings: TileSettings
) -> Iterator[np.ndarray]:
    """Yield the class probabilities of an open file in bands, on its own grid.

    They equal those of the whole image except for rounding.

    Shapes:
        yields: (K, n, *S[1:]) float32, rows that follow the previous ones.

    Raises:
        DataError: if the number of channels differs from the network's, or the preprocessing
            needs whole images.
    """
    working = working_shape(preprocessing, bands)
    if bands.shape[0] != preprocessing.channels:
        raise DataError(
            f"{bands.path}: the image has {bands.shape[0]} channels, but the model reads "
            f"{preprocessing.channels}.",
            code="channel_count_mismatch",
            hint="Convert the image, or train a model on images like this one.",
        )
    file_shape = bands.shape[1:]
    rows = FileRows(bands, (bands.shape[0], *working), None)
    rows = replace(
        rows,
        normalization=preprocessing.normalization or measure_normalization(rows, preprocessing),
    )
    found = predict_bands(network, rows, preprocessing, settings)
    yield from found if working == file_shape else grow_bands(found, working, file_shape)


def average_bands(members: Sequence[Iterator[np.ndarray]]) -> Iterator[np.ndarray]:
    """Yield the mean of several predictions of one image, whose bands may end at different rows.

    Shapes:
        members: (K, n, ...) bands each, all of one image.
        yields: (K, n, ...).
    """
    if len(members) == 1:
        yield from members[0]
        return
    waiting = [next(member) for member in members]
    while True:
        rows = min(band.shape[1] for band in waiting)
        mean = waiting[0][:, :rows].copy()
        for count, band in enumerate(waiting[1:], 2):  # As `spread_over`, to the last bit.
            mean += (band[:, :rows] - mean) / count
        yield mean
        for index, band in enumerate(waiting):
            rest = band[:, rows:]
            waiting[index] = rest if rest.shape[1] else next(members[index], rest)
        if not waiting[0].shape[1]:
            return


def working_shape(preprocessing: Preprocessing, bands: Bands) -> tuple[int, ...]:
    """Return S of the network's input for the image of an open file.

    Raises:
        DataError: if the image can only be preprocessed as a whole, or has no spacing although
            images are resampled to a common one.
    """
    name, shape, spacing = str(bands.path), bands.shape[1:], bands.spacing_mm
    check_streamable(preprocessing, name)
    target = preprocessing.config.common_spacing_mm
    if target is None:
        return preprocessing.config.working_shape(shape)
    working = preprocessing.config.working_shape(shape, check_spacing(name, spacing, target))
    if any(new > old for new, old in zip(working, shape, strict=True)):
        raise DataError(
            f"{name}: too large to be resampled from {size_text(shape)} to "
            f"{size_text(working)} pixels of {spacing_text(target)}, the spacing of this model.",
            code="image_too_large",
            hint="Divide the image into smaller ones, or resample it to this spacing first.",
        )
    return working


def is_streamable(preprocessing: Preprocessing, bands: Bands) -> bool:
    """Return whether an image can be predicted in bands; otherwise it must be in memory."""
    if bands.shape[0] != preprocessing.channels:
        return False  # Gray values or planes may take the place of the channels.
    try:
        working_shape(preprocessing, bands)
    except DataError as error:
        return error.code != "image_too_large"
    return True


def check_streamable(preprocessing: Preprocessing, name: str) -> None:
    """Raise DataError if images can only be preprocessed as a whole."""
    config = preprocessing.config
    if preprocessing.needs_neighbors:
        raise DataError(
            f"{name}: too large for this model, which reads images with their neighbors.",
            code="image_too_large",
            hint="Use smaller images, or train with --set preprocessing.slices=null.",
        )
    if preprocessing.needs_group or config.square or config.shape is not None:
        raise DataError(
            f"{name}: too large for this model, which crops, pads or resizes whole images.",
            code="image_too_large",
            hint="Divide the image into smaller ones, or train with --recipe auto.",
        )


def count_missing(bands: Bands) -> int:
    """Return the number of pixels of the file that have NaN or infinity in any channel."""
    if bands.dtype.kind != "f":
        return 0
    parts = (bands.read(first, last) for first, last in strips(bands.shape))
    return sum(int((~np.isfinite(part)).any(axis=0).sum()) for part in parts)


def measure_normalization(rows: FileRows, preprocessing: Preprocessing) -> Normalization:
    """Return the normalization of the whole image, from the pixels that `Preprocessing` uses."""
    step = thinning_step(math.prod(rows.shape[1:]), rows.shape[-1])
    return preprocessing.measure(rows.take_pixels(step))
