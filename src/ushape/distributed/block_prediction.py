"""Predict one block of a large image and write it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ushape import io
from ushape.data.file_rows import MEASURED_PX, FileRows
from ushape.distributed.block_task import BlockTask
from ushape.errors import DataError
from ushape.inference.band_separation import OPEN_PX_BYTES
from ushape.inference.decision_rule import apply_rule
from ushape.inference.ensemble import EnsembleMember
from ushape.inference.predictor import Predictor, check_dimensions
from ushape.inference.slices import READ_PX, predict_bands
from ushape.inference.streaming import average_bands, working_shape
from ushape.io.sinks import RowLayout, RowSink
from ushape.io.streaming import Bands, BandWriter, open_boxes
from ushape.io.streaming.ome_pyramid import Pyramid
from ushape.normalization import Normalization
from ushape.transforms.growing import GROWN_PX, grow_bands, source_box
from ushape.types import Box

LABELED_PX_BYTES = 16
"""Memory for each pixel of a block whose components are labeled, in bytes."""


def open_image(path: Path, predictor: Predictor) -> Bands:
    """Open an image that is predicted in blocks.

    Raises:
        DataError: if parts of it cannot be read, if the model does not fit the image, or if it can
            only predict whole images.
    """
    bands = open_boxes(path)
    if bands is None:
        raise DataError(
            f"{path}: regions of this file cannot be read separately.",
            code="not_readable_in_parts",
            hint="Convert it to OME-Zarr or a tiled TIFF.",
        )
    try:
        _check_image(bands, predictor)
    except BaseException:
        bands.close()
        raise
    return bands


def _check_image(bands: Bands, predictor: Predictor) -> None:
    name, plan = str(bands.path), predictor.plan
    check_dimensions(name, len(bands.shape) - 1, plan.image_dims)
    if bands.shape[0] != plan.preprocessing.channels:
        raise DataError(
            f"{name}: the image has {bands.shape[0]} channels, but the model reads "
            f"{plan.preprocessing.channels}.",
            code="channel_count_mismatch",
            hint="Convert the image, or train a model on images like this one.",
        )
    if plan.encoding.orientation == "stored" and bands.orientation != 1:
        raise DataError(
            f"{name}: the image is rotated by its metadata, but the training masks are not.",
            code="image_too_large",
            hint="Save the image without an orientation tag.",
        )
    for member in predictor.members:
        working_shape(member.plan.preprocessing, bands)


def memory_of_block(
    predictor: Predictor, bands: Bands, unit: Sequence[int], block: Sequence[int]
) -> int:
    """Return about how many bytes the prediction of a block takes, without the network itself."""
    members = sum(_memory_of_member(member, bands, block) for member in predictor.members)
    written = 2 * unit[0] * math.prod(block[1:])
    if predictor.separates:  # Later, without what the prediction needs.
        return max(members + 3 * written, OPEN_PX_BYTES * math.prod(block))
    if predictor.tuning.rule.cleans:
        return max(members + written, LABELED_PX_BYTES * math.prod(block))
    return members + written


def _memory_of_member(member: EnsembleMember, bands: Bands, block: Sequence[int]) -> int:
    """Return about how many bytes the probabilities of one network take for a block."""
    own, file_shape = member.plan.preprocessing, bands.shape[1:]
    working = working_shape(own, bands)
    factors = [old / new for old, new in zip(file_shape, working, strict=True)]
    reduced = [math.ceil(size / factor) for size, factor in zip(block, factors, strict=True)]
    tile, margin = member.settings.shape, member.network.margin
    across = reduced[-2:] if own.by_slice else reduced[1:]
    wide = math.prod(a + t + 2 * margin for a, t in zip(across, tile[-len(across) :], strict=True))
    total = 2 * 4 * own.space.outputs * tile[0] * wide  # Sums, and what is passed on.
    read = READ_PX if own.by_slice else (tile[0] + 2 * margin) * wide
    channels, pixel_bytes = bands.shape[0], bands.dtype.itemsize
    total += channels * pixel_bytes * read
    if working != file_shape:  # Pixels of the file as floats, and probabilities that grow.
        beneath = min(MEASURED_PX, math.ceil(read * math.prod(factors)))
        total += channels * (pixel_bytes + 8) * beneath
        total += 3 * 4 * own.space.outputs * max(GROWN_PX, math.prod(block[1:]))
    return total


def predict_box(
    predictor: Predictor, bands: Bands, normalizations: Sequence[Normalization], box: Box
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Yield probabilities, classes and distance of a part, which are those of the whole image.

    Classes are neither cleaned nor separated; the distance is None if the network has none.

    The tiles are those of the whole image. If several of them are computed together, rounding may
    differ.

    Args:
        normalizations: Normalization for each member of the ensemble.

    Shapes:
        yields: (K, n, *box[1:]) float32, (n, *box[1:]) uint8 and (n, *box[1:]) float32, rows that
            follow each other.
    """
    space, rule = predictor.plan.preprocessing.space, predictor.tuning.rule.without_cleaning()
    members = [
        _member_bands(member, bands, normalization, box)
        for member, normalization in zip(predictor.members, normalizations, strict=True)
    ]
    for outputs in average_bands(members):
        probabilities, distance = space.split_outputs(outputs)
        yield probabilities, apply_rule(rule, probabilities, space), distance


def _member_bands(
    member: EnsembleMember, bands: Bands, normalization: Normalization, box: Box
) -> Iterator[np.ndarray]:
    """Yield the outputs of a network for a part of an image, on the grid of the file.

    If the network works on a reduced image, it predicts the pixels from which the part is
    interpolated; they lie where they lie for the whole image.

    Shapes:
        yields: (K, n, *box[1:]) float32, rows that follow each other.
    """
    own, file_shape = member.plan.preprocessing, bands.shape[1:]
    working = working_shape(own, bands)
    rows = FileRows(bands, (bands.shape[0], *working), normalization)
    inside = box if working == file_shape else source_box(box, working, file_shape)
    found = predict_bands(member.network, rows, own, member.settings, inside)
    return found if working == file_shape else grow_bands(found, working, file_shape, box)


def predict_block(task: BlockTask, predictor: Predictor, bands: Bands, box: Box) -> None:
    """Predict a block, and write its chunks of the mask and of the probabilities if requested.

    If the mask is cleaned or its objects are separated afterwards, the classes are written instead,
    and the distance by which objects are separated.
    """
    target = task.classes[0] if task.classes else task.output
    masks, shares, distances = (
        None if one is None else _block_writer(task, one, box)
        for one in (target, task.probabilities, task.distance)
    )
    assert masks is not None, "the mask is always written"
    for probabilities, classes, distance in predict_box(predictor, bands, task.normalizations, box):
        masks.write(classes if task.classes else task.values_of(classes))
        if shares is not None:
            stored = io.as_stored_probabilities(probabilities, "uint8")
            shares.write(np.moveaxis(stored, 0, -1))
        if distances is not None:
            assert distance is not None, "the network predicts it"
            distances.write(np.where(classes > 0, distance, 0) if task.fills_nothing else distance)
    for writer in filter(None, (masks, shares, distances)):
        writer.finish()


def _block_writer(task: BlockTask, pyramid: Pyramid, box: Box) -> BandWriter:
    """Return a writer of the rows of a block, (n, *box[1:]) or (n, *box[1:], C)."""
    array, top = pyramid.open(), box[0][0]
    channels = () if pyramid.channels is None else (pyramid.channels,)
    layout = RowLayout(
        path=pyramid.path,
        shape=(*(last - first for first, last in box), *channels),
        dtype=np.dtype(pyramid.dtype),
        axes="ZYX"[-len(box) :],
    )
    done = 0

    def put(rows: np.ndarray) -> None:
        nonlocal done
        part = ((top + done, top + done + len(rows)), *box[1:])
        task.write(array, part, np.moveaxis(rows, -1, 0) if channels else rows)
        done += len(rows)

    def convert(rows: np.ndarray) -> np.ndarray:
        return rows.astype(layout.dtype, copy=False)

    return BandWriter(layout, RowSink(put, pyramid.unit[0]), convert)
