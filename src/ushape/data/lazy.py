"""Samples whose images are read from their files when patches are cut out of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import cast, overload

import numpy as np

from ushape import io
from ushape.data.cache import SampleStore
from ushape.data.preprocessing import Preprocessing
from ushape.data.reading import mask_size_error, read_classes
from ushape.io.streaming.boxes import read_box
from ushape.io.streaming.slides import open_boxes_at
from ushape.types import Box, Case, Geometry, Sample


@dataclass(frozen=True)
class LazyImage:
    """A part of an image file, of which boxes can be taken as of an array (C, *S)."""

    path: Path
    box: Box
    """Part of S of the file."""

    shape: tuple[int, ...]
    """(C, *S)."""

    dtype: np.dtype
    """Type of the values, that of `Preprocessing.place`."""

    mpp: float | None = None
    """Resolution of a slide, as for `open_bands_at`."""

    def __getitem__(self, key: tuple[EllipsisType | slice, ...]) -> np.ndarray:
        """Read a box: `image[..., 0:10, 20:30]`; steps and negative positions are not supported."""
        _, *space = key
        edges = [
            (own[0] + part.start, own[0] + part.stop)
            for own, part in zip(self.box, cast(list[slice], space), strict=True)
        ]
        return read_box(self.path, tuple(edges), self.mpp).astype(self.dtype, copy=False)


class LazySamples(Sequence[Sample]):
    """Samples from which patches are cut; equal to those of a store that loads them.

    Only the mask of a case is loaded as a whole. If the images must be resampled, also to a common
    spacing, or joined with their neighbors, or the objects of a mask numbered, the whole case is
    loaded.
    """

    def __init__(self, store: SampleStore):
        self.store = store
        self._files: dict[tuple[Path, float | None], _StoredImage | None] = {}

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._open(self.store.cases[index]) or self.store[index]

    def __len__(self) -> int:
        return len(self.store)

    def _open(self, case: Case) -> Sample | None:
        """Return the sample without its pixels; None if they must be loaded."""
        preprocessing = self.store.preprocessing
        if case.channels or case.page is not None or not io.is_read_in_bands(case.image):
            return None
        stored = self._look_at(case.image, case.mpp)
        if stored is None:
            return None
        image = stored.part(case)
        if not _keeps_pixels(preprocessing, image.shape, stored.spacing_mm):
            return None
        shape, classes = image.shape[1:], read_classes(case, preprocessing.space)
        if classes is not None and classes.shape != shape:
            raise mask_size_error(case, shape, classes.shape)
        return Sample(
            case=case,
            image=cast(np.ndarray, image),  # Boxes are all that is taken of it.
            normalization=preprocessing.normalization
            or preprocessing.measure_file(case.image, case.mpp),
            classes=classes,
            geometry=Geometry(
                file_shape=shape,
                box=tuple((0, size) for size in shape),
                padded_shape=shape,
                working_shape=shape,
            ),
        )

    def _look_at(self, path: Path, mpp: float | None) -> _StoredImage | None:
        """Return the properties of a file; None if boxes of it cannot be read with little else."""
        key = path, mpp
        if key not in self._files:
            self._files[key] = None
            if (bands := open_boxes_at(path, mpp)) is not None:
                with bands:
                    stored = _StoredImage(bands.shape, bands.dtype, bands.spacing_mm)
                    self._files[key] = stored if bands.dtype.kind in "uif" else None
        return self._files[key]


@dataclass(frozen=True)
class _StoredImage:
    shape: tuple[int, ...]
    """(C, *S)."""

    dtype: np.dtype
    spacing_mm: tuple[float, ...] | None

    def part(self, case: Case) -> LazyImage:
        """Return the part of the image that is the case."""
        box = case.box or tuple((0, size) for size in self.shape[1:])
        shape = (self.shape[0], *(last - first for first, last in box))
        dtype = self.dtype if self.dtype.kind in "ui" else np.dtype(np.float32)
        return LazyImage(case.image, box, shape, dtype, case.mpp)


def _keeps_pixels(
    preprocessing: Preprocessing, shape: tuple[int, ...], spacing_mm: tuple[float, ...] | None
) -> bool:
    """Return whether the network receives the pixels of an image (C, *S) as they are stored."""
    config, space = preprocessing.config, preprocessing.space
    if preprocessing.needs_group or preprocessing.needs_neighbors or space.has_distance:
        return False
    if shape[0] != preprocessing.channels or (len(shape) == 4 and shape[1] == shape[0]):
        return False  # Planes may be channels.
    if config.square or (config.common_spacing_mm is not None and spacing_mm is None):
        return False
    return config.working_shape(shape[1:], spacing_mm) == shape[1:]
