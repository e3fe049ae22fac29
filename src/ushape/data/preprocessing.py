"""Preprocessing: from a case's files to the network's grid and intensities, and the way back.

Training and prediction use the same object, stored in the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from ushape import io
from ushape.errors import ConfigError, DataError
from ushape.formatting import size_text
from ushape.io.annotations import read_annotation
from ushape.labels import LabelSpace
from ushape.normalization import Normalization
from ushape.transforms.resampling import find_box, place_classes, place_image, restore_probabilities
from ushape.types import Box, Case, Geometry, Sample


@dataclass(frozen=True, kw_only=True)
class PreprocessingConfig:
    """How files become network input; predictions are brought back to the files' own size."""

    crop: bool = False
    """Cut to what is brighter than a tenth of the brightest, over all images of a group."""

    square: bool = False
    """Zeros are added around the shorter side."""

    shape: tuple[int, ...] | None = None
    """All images are brought to this size; None: they keep their own, divided by downscale."""

    downscale: int | Literal["auto"] = "auto"
    """The network works on images this many times smaller along each axis. auto: full size
    where the time allows, else as small as the masks allow."""

    intensity: Literal["auto", "data", "image", "group", "min_max"] = "auto"
    """Gray values are clipped, then brought to mean 0 and standard deviation 1: by numbers
    from all training images (data), each image's own (image), or those of its group (group);
    or each image's own are brought to 0 .. 1 (min_max)."""

    percentiles: tuple[float, float] = (0.5, 99.5)
    """Where gray values are clipped."""

    def __post_init__(self) -> None:
        if self.downscale != "auto" and self.downscale < 1:
            raise ConfigError(
                f"preprocessing.downscale is {self.downscale}, below 1.",
                hint="1 keeps full size, 2 halves height and width.",
            )
        if self.shape is not None and (
            self.downscale not in ("auto", 1) or min(self.shape, default=0) < 1
        ):
            raise ConfigError(
                f"preprocessing.shape is {list(self.shape)}, downscale {self.downscale}.",
                hint="Give one of the two; a shape of at least one pixel, e.g. [512, 512].",
            )
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ConfigError(
                f"preprocessing.percentiles is {[low, high]}.", hint="0 <= low < high <= 100."
            )

    def padded_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Pixels after zeros were added."""
        return (*shape[:-2], max(shape[-2:]), max(shape[-2:])) if self.square else shape

    def working_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """What the network sees of an image, or of the part of it that is left, of this size."""
        if self.shape is not None:
            return self.shape
        assert self.downscale != "auto", "the planner chooses the downscaling"
        padded = self.padded_shape(shape)
        return tuple(max(1, round(size / self.downscale)) for size in padded)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Loads cases onto the network's grid, measures intensities, brings probabilities back."""

    RENAMED: ClassVar = {"scaling": "normalization"}

    channels: int
    """C that every image must have."""

    config: PreprocessingConfig
    space: LabelSpace
    normalization: Normalization | None
    """The training data's normalization, where `config.intensity` is data."""

    @property
    def needs_group(self) -> bool:
        """An image is prepared by what all images of its group show."""
        return self.config.crop or self.config.intensity == "group"

    def load(self, case: Case, companions: Sequence[Case] = ()) -> Sample:
        """Reads a case's files.

        Args:
            companions: All cases of its group, itself included; none: it stands alone.

        Raises:
            DataError: unreadable, other channels than the network's, mask of another size,
                mask values that are no class.
        """
        image, classes = read_image(case, self.channels), read_classes(case, self.space)
        return self.place(case, image, classes, self.look(case, companions))

    def look(self, case: Case, companions: Sequence[Case] = ()) -> GroupStats | None:
        """What all images of the case's group show, where its preprocessing depends on it."""
        if not self.needs_group:
            return None
        group = tuple(companions) or (case,)
        return measure_group(group, self.config.percentiles, self.config.crop)

    def place(
        self,
        case: Case,
        image: np.ndarray,
        classes: np.ndarray | None,
        look: GroupStats | None = None,
    ) -> Sample:
        """Brings file pixels (C, *S) and classes (*S) onto the working grid."""
        file_shape = image.shape[1:]
        if classes is not None and classes.shape != file_shape:
            raise mask_size_error(case, file_shape, classes.shape)
        geometry = self._geometry(file_shape, look.box if look else None)
        placed = place_image(image, geometry)
        return Sample(
            case=case,
            image=placed,
            normalization=self._normalization(placed, look),
            classes=None if classes is None else place_classes(classes, geometry),
            geometry=geometry,
        )

    def _geometry(self, file_shape: tuple[int, ...], box: Box | None) -> Geometry:
        ends = None if box is None else [last for _, last in box]
        # Companions of another size may have moved the box beyond this image.
        if box is None or ends is None or np.greater(ends, file_shape).any():
            box = tuple((0, size) for size in file_shape)
        inside = tuple(last - first for first, last in box)
        return Geometry(
            file_shape=file_shape,
            box=box,
            padded_shape=self.config.padded_shape(inside),
            working_shape=self.config.working_shape(inside),
        )

    def _normalization(self, image: np.ndarray, look: GroupStats | None) -> Normalization:
        if self.normalization is not None:
            return self.normalization
        if self.config.intensity == "group":
            assert look is not None
            return look.normalization
        return self.measure(thin_out(image))

    def measure(self, pixels: np.ndarray) -> Normalization:
        """An image's own normalization, from some of its pixels (C, N)."""
        if self.config.intensity == "min_max":
            return Normalization.min_max(pixels)
        return Normalization.measure(pixels, self.config.percentiles)

    def restore(self, probabilities: np.ndarray, geometry: Geometry) -> np.ndarray:
        """(K, *working) -> (K, *file)."""
        return restore_probabilities(probabilities, geometry)


@dataclass(frozen=True, kw_only=True)
class GroupStats:
    """What all images of a group show together."""

    box: Box | None
    """Around what is bright in any of them; None: not cropped."""

    normalization: Normalization


@lru_cache(maxsize=64)
def measure_group(
    cases: tuple[Case, ...], percentiles: tuple[float, float], crop: bool
) -> GroupStats:
    """Reads all images of a group: their common box, and the numbers of what lies within it.

    Raises:
        DataError: unreadable, or other numbers of channels.
    """
    box = _common_box(cases) if crop else None
    inside = tuple(slice(*edge) for edge in box) if box else ()
    pixels = [thin_out(read_image(case)[(slice(None), *inside)], 4096) for case in cases]
    if len({len(part) for part in pixels}) > 1:
        raise DataError(
            f"{cases[0].image.parent}: the images of one group differ in their number of channels.",
            hint="Convert them to one kind, e.g. all gray or all RGB.",
        )
    return GroupStats(
        box=box, normalization=Normalization.measure(np.concatenate(pixels, axis=1), percentiles)
    )


def _common_box(cases: Sequence[Case]) -> Box:
    boxes = [find_box(read_image(case)) for case in cases]
    edges = zip(*boxes, strict=True)
    return tuple((min(e[0] for e in edge), max(e[1] for e in edge)) for edge in edges)


def by_group(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """The cases of each group."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.group, []).append(case)
    return found


def read_image(case: Case, channels: int | None = None) -> np.ndarray:
    """The image file's pixels, (C, *S) as stored, then those of its further channels' files.

    Raises:
        DataError: unreadable, not of so many channels, or files of different sizes.
    """
    image = io.read(case.image).array
    if case.channels:
        image = np.concatenate(
            [image, *(_read_further(path, image, case) for path in case.channels)]
        )
    if channels is not None and image.shape[0] != channels:
        raise DataError(
            f"{case.image}: the image has {_channels(image.shape[0])}, the model reads {channels}.",
            hint="Convert the image, or train a model on images like this one.",
        )
    return image


def _read_further(path: Path, first: np.ndarray, case: Case) -> np.ndarray:
    further = io.read(path).array
    if further.shape[1:] != first.shape[1:]:
        raise DataError(
            f"{path} is {size_text(further.shape[1:])} pixels, {case.image} "
            f"{size_text(first.shape[1:])}.",
            hint="All channels of a case lie on one grid.",
        )
    return further


def read_classes(case: Case, space: LabelSpace) -> np.ndarray | None:
    """The mask, of whatever form, as class indices (*S); None for a case without mask."""
    if case.mask is None:
        return None
    codes = read_annotation(case.mask).codes
    try:
        return space.classes_of(codes)
    except DataError as error:
        raise DataError(f"{case.mask}: {error.message}", hint=error.hint) from None


def mask_size_error(case: Case, image: Sequence[int], mask: Sequence[int]) -> DataError:
    """Says both sizes, and whether one is the other's transpose."""
    turned = tuple(mask) == tuple(image)[::-1]
    return DataError(
        f"{case.id}: the image is {size_text(image)} pixels, its mask {size_text(mask)}"
        f"{' (the transpose: height and width are exchanged)' if turned else ''}.",
        hint="A mask lies on its image's grid, pixel for pixel. "
        + ("Turn or transpose one of the two files." if turned else "Export the mask again."),
    )


def thin_out(image: np.ndarray, at_most: int = 16_384) -> np.ndarray:
    """About so many evenly spread pixels of an image (C, *S), as (C, N)."""
    flat = image.reshape(image.shape[0], -1)
    return flat[:, :: thinning_step(flat.shape[1], image.shape[-1], at_most)]


def thinning_step(pixels: int, width: int, at_most: int = 16_384) -> int:
    """Which of the pixels, counted row by row, `thin_out` takes: each so many-th."""
    step = max(1, pixels // at_most)
    while step > 1 and np.gcd(step, width) != 1:
        step -= 1  # A step that shares no factor with the width visits every column.
    return step


def _channels(count: int) -> str:
    return "1 channel" if count == 1 else f"{count} channels"
