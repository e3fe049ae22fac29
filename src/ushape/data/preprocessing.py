"""Preprocessing: bring files onto the grid and intensities of the network, and back.

Training and prediction use the same object, which is stored in the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from ushape.data.intensities import GroupStats, measure_group, spread_over_file, thin_out
from ushape.data.preprocessing_config import PreprocessingConfig
from ushape.data.reading import (
    find_true_objects,
    join_channels,
    mask_size_error,
    read_classes,
    read_first_file,
    read_image,
)
from ushape.data.slices import neighbors_of
from ushape.data.spacing import check_spacing, coarse_axes
from ushape.errors import DataError
from ushape.labels import LabelSpace
from ushape.normalization import Normalization
from ushape.transforms.resampling import (
    place_classes,
    place_image,
    place_objects,
    restore_probabilities,
)
from ushape.types import Box, Case, Geometry, Sample

OnRead = Callable[[Case, np.ndarray, np.ndarray | None], None]
"""Function that receives a case, its image and its classes."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Loads cases onto the network's grid, normalizes them, and restores probabilities."""

    RENAMED: ClassVar = {"scaling": "normalization"}

    channels: int
    """Number of channels C that every image must have."""

    config: PreprocessingConfig
    space: LabelSpace
    normalization: Normalization | None
    """Normalization of the training data, if `config.intensity` is data."""

    by_slice: bool = False
    """Whether images are volumes that a 2D network predicts slice by slice."""

    @property
    def input_channels(self) -> int:
        """Number of channels of the network's input."""
        return self.config.input_channels(self.channels)

    @property
    def sample_channels(self) -> int:
        """Number of channels of a sample; of volumes, slices are combined later."""
        return self.channels if self.by_slice else self.input_channels

    @property
    def needs_neighbors(self) -> bool:
        """Whether an image is loaded together with its neighbors in a stack."""
        return self.sample_channels > self.channels

    @property
    def needs_group(self) -> bool:
        """Whether the preprocessing of an image depends on all images of its group."""
        return self.config.crop or self.config.intensity == "group"

    def load(
        self, case: Case, companions: Sequence[Case] = (), on_read: OnRead | None = None
    ) -> Sample:
        """Read and preprocess the files of a case.

        Args:
            companions: All cases of its group, itself included; empty if it stands alone.
            on_read: Receives the case, its image (C, *S) and its classes (*S) as stored.

        Raises:
            DataError: if a file cannot be read, if the image has another number of channels, if the
                mask has another size, or if a mask value is not a class.
        """
        self._refuse_part(case)
        pixels = join_channels(case, read_first_file(case), self.channels)
        image, classes = pixels.array, read_classes(case, self.space)
        joined = self.join_neighbors(case, image, companions)
        group = self.group_stats(case, companions)
        sample = self.place(case, joined, classes, group, pixels.spacing_mm)
        if self.space.has_distance and classes is not None:
            objects = place_objects(find_true_objects(case, classes, self.space), sample.geometry)
            sample = replace(sample, objects=objects)
        if on_read is not None:
            on_read(case, image, classes)
        return sample

    def join_neighbors(
        self, case: Case, image: np.ndarray, companions: Sequence[Case] = ()
    ) -> np.ndarray:
        """Return an image (C, y, x) with its neighbors in the stack as channels, (C N, y, x).

        A neighbor that is missing, or of another size, is replaced by the nearest slice on the way
        to it. Of images by themselves, and of volumes, the image itself is returned.

        Raises:
            DataError: if a neighbor cannot be read.
        """
        if not self.needs_neighbors:
            return image
        reach = self.input_channels // self.channels // 2
        before, after = (
            self._read_neighbors(case, image, companions, step, reach) for step in (-1, 1)
        )
        return np.concatenate([*before[::-1], image, *after])

    def _read_neighbors(
        self, case: Case, image: np.ndarray, companions: Sequence[Case], step: int, reach: int
    ) -> list[np.ndarray]:
        """Return as many neighbors in one direction, the nearest first, the last repeated."""
        found = [image]
        for neighbor in neighbors_of(case, companions, step, reach):
            other = read_image(neighbor, self.channels)
            if other.shape != image.shape:
                break
            found.append(other)
        return (found + found[-1:] * reach)[1 : reach + 1]

    def without_neighbors(self, image: np.ndarray) -> np.ndarray:
        """Return the image in the middle of images that were joined, (C N, *S) to (C, *S)."""
        first = len(image) // self.channels // 2 * self.channels
        return image[first : first + self.channels]

    @property
    def needs_whole_images(self) -> bool:
        """Whether a part of an image cannot be preprocessed by itself."""
        config = self.config
        needs_others = self.needs_group or self.needs_neighbors
        return needs_others or config.square or config.shape is not None

    def _refuse_part(self, case: Case) -> None:
        """Raise DataError for a part of an image that can only be preprocessed as a whole."""
        if case.box is None or not self.needs_whole_images:
            return
        raise DataError(
            f"{case.image}: the image is divided into parts because of its size, but the recipe "
            "crops, pads or resizes whole images, or reads them together with other images of "
            "their group.",
            code="image_too_large",
            hint="Train with --recipe auto, or keep images whole with "
            "--set preprocessing.divide_above_px=null.",
        )

    def group_stats(self, case: Case, companions: Sequence[Case] = ()) -> GroupStats | None:
        """Return the statistics of the group of a case, if its preprocessing depends on them."""
        if not self.needs_group:
            return None
        group = tuple(companions) or (case,)
        return measure_group(group, self.config.percentiles, self.config.crop, self.channels)

    def place(
        self,
        case: Case,
        image: np.ndarray,
        classes: np.ndarray | None,
        group: GroupStats | None = None,
        spacing_mm: Sequence[float] | None = None,
    ) -> Sample:
        """Bring the pixels of a file (C, *S) and classes (*S) onto the working grid.

        The normalization is that of the middle one if images of a stack were joined.

        Args:
            spacing_mm: Spacing along each axis of S, if the file specifies it.

        Raises:
            DataError: if images are resampled to a common spacing and this one has none.
        """
        file_shape = image.shape[1:]
        if classes is not None and classes.shape != file_shape:
            raise mask_size_error(case, file_shape, classes.shape)
        if (target := self.config.common_spacing_mm) is not None:
            spacing_mm = check_spacing(str(case.image), spacing_mm, target)
        geometry = self._geometry(file_shape, group.box if group else None, spacing_mm)
        placed = place_image(image, geometry)
        normalization = self._normalization(case, self.without_neighbors(placed), group)
        return Sample(
            case=case,
            image=placed,
            normalization=normalization.repeated(len(placed) // self.channels),
            classes=None if classes is None else place_classes(classes, geometry),
            geometry=geometry,
        )

    def _geometry(
        self, file_shape: tuple[int, ...], box: Box | None, spacing_mm: Sequence[float] | None
    ) -> Geometry:
        ends = None if box is None else [last for _, last in box]
        # The box of a group may reach beyond an image of another size.
        if box is None or ends is None or np.greater(ends, file_shape).any():
            box = tuple((0, size) for size in file_shape)
        inside = tuple(last - first for first, last in box)
        return Geometry(
            file_shape=file_shape,
            box=box,
            padded_shape=self.config.padded_shape(inside),
            working_shape=self.config.working_shape(inside, spacing_mm),
            coarse_axes=self._coarse_axes(spacing_mm),
        )

    def _coarse_axes(self, spacing_mm: Sequence[float] | None) -> tuple[int, ...] | None:
        """Return the axes to resample separately; None without a common spacing."""
        target = self.config.common_spacing_mm
        if target is None or spacing_mm is None:
            return None
        return coarse_axes(spacing_mm, target)

    def _normalization(
        self, case: Case, image: np.ndarray, group: GroupStats | None
    ) -> Normalization:
        if self.normalization is not None:
            return self.normalization
        if self.config.intensity == "group":
            assert group is not None
            return group.normalization
        if case.box is not None:
            return self.measure_file(case.image, case.mpp)  # As the whole image is predicted.
        return self.measure(thin_out(image))

    def measure_file(self, path: Path, mpp: float | None = None) -> Normalization:
        """Measure the normalization of a whole image from its file, in bands; it is kept.

        Args:
            mpp: Resolution of a slide, as for `open_bands_at`.

        Raises:
            DataError: if the file cannot be read.
        """
        changed = path.stat().st_mtime_ns if path.exists() else 0
        return self.measure(spread_over_file(path, changed, self.config, mpp))

    def measure(self, pixels: np.ndarray) -> Normalization:
        """Measure the normalization of an image from some of its pixels (C, N)."""
        if self.config.intensity == "min_max":
            return Normalization.min_max(pixels)
        return Normalization.measure(pixels, self.config.percentiles)

    def restore(self, probabilities: np.ndarray, geometry: Geometry) -> np.ndarray:
        """Resample probabilities, or all outputs of a network, (K, *working) to (K, *file)."""
        own, distance = self.space.split_outputs(probabilities)
        restored = restore_probabilities(own, geometry)
        if distance is None:
            return restored
        return np.concatenate([restored, restore_probabilities(distance[None], geometry)])


def by_group(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """Return the cases of each group."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.group, []).append(case)
    return found
