"""Resample and pad images (C, *S) and label maps (*S)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from ushape.io.reducing import average_stretches, pixels_beneath, round_to_type
from ushape.labels import IGNORE
from ushape.transforms.growing import resample_probabilities
from ushape.types import Box, Geometry


def resample_image(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resample an image to another shape: area averages where it shrinks, linear where it grows.

    Integers are rounded back to their type; floats are returned as float32.

    Shapes:
        image: (C, *S) -> (C, *shape).
    """
    if tuple(image.shape[1:]) == tuple(shape):
        is_integer = np.issubdtype(image.dtype, np.integer)
        return image if is_integer else image.astype(np.float32, copy=False)
    result = _shrink(image.astype(np.float32, order="C"), shape)
    if result.shape[1:] != tuple(shape):
        result = resample_probabilities(result, shape)
    return round_to_type(result, image.dtype)


def shrink_part(part: np.ndarray, box: Box, old: Sequence[int], new: Sequence[int]) -> np.ndarray:
    """Compute a region of `resample_image` for an image that shrinks, from the pixels beneath.

    The values are exactly those of the whole image, because they are added up in the same order.

    Args:
        part: (C, *S), the source pixels given by `pixels_beneath` along each axis.
        box: Part of the target.
        old: S of the whole source.
        new: S of the whole target, no axis larger.

    Shapes:
        returns: (C, *box), of the type of the part if integer, else float32.
    """
    return round_to_type(
        _shrink_part(part.astype(np.float32, order="C"), box, old, new), part.dtype
    )


def resample_to_spacing(
    image: np.ndarray, shape: Sequence[int], coarse_axes: Sequence[int]
) -> np.ndarray:
    """Resample an image to another spacing.

    Where it shrinks, areas are averaged. Where it grows, cubic splines are used, or the nearest
    slice along coarse axes, since splines would mix positions that are far apart. Images with
    missing values (NaN, infinity) grow linearly, because splines would spread them along whole
    lines.

    Shapes:
        image: (C, *S) -> (C, *shape), of the image's type if integer, else float32.

    Source:
        nnU-Net (resample_data_or_seg in default_resampling.py), which does not average areas.
    """
    if tuple(image.shape[1:]) == tuple(shape) or not np.isfinite(image).all():
        return resample_image(image, shape)
    result = _shrink(image.astype(np.float32, order="C"), tuple(map(min, image.shape[1:], shape)))
    for axis, new in enumerate(shape):
        old = result.shape[axis + 1]
        if new > old and axis in coarse_axes:
            result = result.take(_nearest_indices(old, new), axis=axis + 1)
        elif new > old:
            result = _grow_by_splines(result, axis + 1, new)
    return round_to_type(result, image.dtype)


def _grow_by_splines(image: np.ndarray, axis: int, new: int) -> np.ndarray:
    """Enlarge an axis by cubic splines; beyond the centers of the outermost pixels, values repeat.

    A single axis is much faster than `scipy.ndimage.zoom`, which evaluates all axes together.
    """
    old = image.shape[axis]
    knots = ndimage.spline_filter1d(image, axis=axis, mode="mirror", output=np.float32)
    places = ((np.arange(new) + 0.5) * (old / new) - 0.5).clip(0, old - 1)
    first = np.floor(places).astype(int)
    t = places - first
    weights = (1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3
    column = [-1 if a == axis else 1 for a in range(image.ndim)]
    total = np.zeros([new if a == axis else s for a, s in enumerate(image.shape)], np.float32)
    for tap, weight in enumerate(weights, start=-1):
        taken = knots.take(mirror_indices(first + tap, old), axis=axis)
        total += (weight / 6).astype(np.float32).reshape(column) * taken
    return total


def _nearest_indices(old: int, new: int) -> np.ndarray:
    """Return the index of the nearest of `old` pixels for each of `new` ones.

    Between two equally near pixels, the upper and the lower one are taken in turns, so that the
    result is not shifted.
    """
    centers = (2 * np.arange(new) + 1) * old  # In units of 1 / (2 new) pixels.
    is_between = (centers % (2 * new) == 0) & (np.arange(new) % 2 == 0)
    return centers // (2 * new) - is_between


def resample_classes(
    classes: np.ndarray, shape: Sequence[int], nearest_axes: Sequence[int] | None = None
) -> np.ndarray:
    """Resample a label map: the class with the largest area.

    Among classes with equal areas, the one at the nearest pixel is used, so that objects keep their
    area on average. Along an axis that grows, the nearest pixel is used. The result is IGNORE
    where more than half of the area is ignored.

    Args:
        nearest_axes: Axes along which the nearest pixel is taken; along the others, each class is
            resampled linearly and the largest one is taken. None: all axes.

    Shapes:
        classes: (*S) -> (*shape), of the same type.
    """
    for axis, new in enumerate(shape):
        old = classes.shape[axis]
        if new > old and (nearest_axes is None or axis in nearest_axes):
            classes = classes.take(_nearest_indices(old, new), axis=axis)
    if classes.shape == tuple(shape):
        return classes
    nearest = classes
    for axis, new in enumerate(shape):
        if new != classes.shape[axis]:
            nearest = nearest.take(_nearest_indices(classes.shape[axis], new), axis=axis)
    best = np.zeros(tuple(shape), dtype=np.float32)
    result = np.zeros(tuple(shape), dtype=classes.dtype)
    for value in np.unique(classes):  # Sorted, so IGNORE comes last.
        share = resample_image((classes == value)[None].astype(np.float32), shape)[0]
        # Sums of areas are inexact: equal areas must not differ by a rounding error.
        if value == IGNORE:
            is_best = share > 0.5 + 1e-6
        else:
            share += 1e-5 * (nearest == value)
            is_best = share > best + 1e-6
        result[is_best] = value
        best[is_best] = share[is_best]
    return result


def pad_mirrored(array: np.ndarray, before: Sequence[int], after: Sequence[int]) -> np.ndarray:
    """Pad an image by mirroring it at its edges, repeatedly if the padding exceeds the image.

    Shapes:
        array: (C, *S); before, after: pixels along each axis of S, at least 0.
    """
    if not any(before) and not any(after):
        return array
    widths = [(0, 0), *zip(before, after, strict=True)]
    return np.pad(array, widths, mode="reflect")


def mirror_indices(positions: np.ndarray, size: int) -> np.ndarray:
    """Return the indices (0 to size - 1) of positions that may lie outside an axis.

    Positions outside are mirrored at the centers of the outermost pixels, as in `pad_mirrored`.
    """
    if size == 1:
        return np.zeros_like(positions)
    period = 2 * (size - 1)
    folded = positions % period
    return np.minimum(folded, period - folded)


def _shrink(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Average (C, *S) float32 over areas, along the axes where `shape` is smaller."""
    old = image.shape[1:]
    new = tuple(map(min, old, shape))
    return _shrink_part(image, tuple((0, size) for size in new), old, new)


def _shrink_part(
    values: np.ndarray, box: Box, old: Sequence[int], new: Sequence[int]
) -> np.ndarray:
    """Compute `shrink_part` of float32 values."""
    is_divisor = [a % b == 0 for a, b in zip(old, new, strict=True)]
    values = _pool(
        values,
        [
            last - first if whole else size
            for whole, (first, last), size in zip(is_divisor, box, values.shape[1:], strict=True)
        ],
        is_all=all(size == 1 for size in new),
    )
    # The mode "area" of torch only averages whole pixels: from 1918 to 480, it is off by up to
    # half a pixel.
    for axis, (edge, source, target) in enumerate(zip(box, old, new, strict=True), start=1):
        if source % target:
            start = pixels_beneath(edge, source, target)[0]
            edges = np.arange(edge[0], edge[1] + 1) * source / target - start
            values = average_stretches(values, axis, edges, target / source)
    return values


def _pool(values: np.ndarray, sizes: Sequence[int], *, is_all: bool) -> np.ndarray:
    """Average (C, *S) float32 over areas of whole pixels to (C, *sizes).

    Args:
        is_all: Whether this is a whole image that shrinks to a single pixel.
    """
    if tuple(sizes) == values.shape[1:]:
        return values
    is_single = all(size == 1 for size in sizes) and not is_all
    if is_single:  # torch adds up in another order for a single pixel: compute it twice.
        values, sizes = np.concatenate([values, values], axis=-1), (*sizes[:-1], 2)
    pooled = functional.interpolate(torch.from_numpy(values)[None], size=tuple(sizes), mode="area")
    return pooled[0].numpy()[..., :1] if is_single else pooled[0].numpy()


def place_image(image: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Crop, pad and resample an image: (C, *file_shape) -> (C, *working_shape)."""
    part = _pad(image[(slice(None), *_slices(geometry))], geometry)
    if geometry.coarse_axes is None:
        return np.ascontiguousarray(resample_image(part, geometry.working_shape))
    placed = resample_to_spacing(part, geometry.working_shape, geometry.coarse_axes)
    return np.ascontiguousarray(placed)


def place_classes(classes: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Crop, pad with background and resample a label map: (*file_shape) -> (*working_shape)."""
    part = _pad(classes[_slices(geometry)][None], geometry)[0]
    return np.ascontiguousarray(
        resample_classes(part, geometry.working_shape, geometry.coarse_axes)
    )


def place_objects(objects: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Crop, pad with 0 and resample object numbers, nearest: (*file_shape) -> (*working_shape)."""
    part = _pad(objects[_slices(geometry)][None], geometry)[0]
    for axis, new in enumerate(geometry.working_shape):
        old = part.shape[axis]
        if new != old:
            part = part.take(_nearest_indices(old, new), axis=axis)
    return np.ascontiguousarray(part)


def restore_probabilities(probabilities: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Undo `place_image` for probabilities: (K, *working_shape) -> (K, *file_shape).

    The cropped area becomes background. Probabilities are resampled, not labels, so that thin
    structures are preserved.
    """
    if probabilities.shape[1:] != geometry.padded_shape:
        # Where the grid of the network is finer than that of the file, areas are averaged.
        is_spaced = geometry.coarse_axes is not None
        resample = resample_image if is_spaced else resample_probabilities
        probabilities = resample(probabilities, geometry.padded_shape)
    sizes = [last - first for first, last in geometry.box]
    inner = tuple(
        slice((padded - size) // 2, (padded - size) // 2 + size)
        for padded, size in zip(geometry.padded_shape, sizes, strict=True)
    )
    part = probabilities[(slice(None), *inner)]
    if part.shape[1:] == geometry.file_shape:
        return part
    whole = np.zeros((len(part), *geometry.file_shape), dtype=np.float32)
    if len(whole) > 1:
        whole[0] = 1  # The background's own channel.
    whole[(slice(None), *_slices(geometry))] = part
    return whole


def find_box(image: np.ndarray, share: float = 0.1) -> tuple[tuple[int, int], ...]:
    """Return the smallest box that contains all pixels brighter than a fraction of the maximum.

    Shapes:
        image: (C, *S); a pixel counts if any channel is bright. For a dark image, the box is the
            whole image.
    """
    bright: np.ndarray = np.any(image > share * float(image.max()), axis=0)
    if not bright.any():
        return tuple((0, size) for size in bright.shape)
    box = []
    for axis in range(bright.ndim):
        rows = np.moveaxis(bright, axis, 0).reshape(bright.shape[axis], -1)
        shown = np.flatnonzero(rows.any(axis=1))
        box.append((int(shown[0]), int(shown[-1]) + 1))
    return tuple(box)


def _slices(geometry: Geometry) -> tuple[slice, ...]:
    return tuple(slice(first, last) for first, last in geometry.box)


def _pad(part: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Pad (C, *S) with zeros, equally before and after."""
    widths = [(0, 0)]
    for size, padded in zip(part.shape[1:], geometry.padded_shape, strict=True):
        before = (padded - size) // 2
        widths.append((before, padded - size - before))
    return np.pad(part, widths) if any(map(any, widths)) else part
