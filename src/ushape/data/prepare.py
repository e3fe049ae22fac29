"""Preparation: from a case's files to the network's grid and intensities, and the way back.

Training and prediction use the same object, stored in the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ushape import io
from ushape.errors import ConfigError, DataError
from ushape.labels import LabelSpace
from ushape.scaling import Scaling
from ushape.spatial.grid import resample_classes, resample_image, resample_probabilities
from ushape.types import Case, Geometry, Sample


@dataclass(frozen=True, kw_only=True)
class PreparationConfig:
    """How files become network input."""

    downscale: int | Literal["auto"] = "auto"
    """The network works on images this many times smaller along each axis; predictions are
    brought back to full size. auto: as small as the masks allow."""

    intensity: Literal["auto", "data", "image"] = "auto"
    """Grey values are clipped, then brought to mean 0 and standard deviation 1: by numbers
    from all training images (data), or by each image's own (image)."""

    def __post_init__(self) -> None:
        if self.downscale != "auto" and self.downscale < 1:
            raise ConfigError(
                f"preparation.downscale is {self.downscale}, below 1.",
                hint="1 keeps full size, 2 halves height and width.",
            )


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Loads cases onto the network's grid, scales intensities, brings probabilities back."""

    channels: int
    """C that every image must have."""

    downscale: int
    space: LabelSpace
    scaling: Scaling | None
    """The training data's scaling; None: each image is scaled by its own numbers."""

    def load(self, case: Case) -> Sample:
        """Reads a case's files.

        Raises:
            DataError: unreadable, other channels than the network's, mask of another size,
                mask values that are no class.
        """
        return self.place(case, read_image(case, self.channels), read_classes(case, self.space))

    def place(self, case: Case, image: np.ndarray, classes: np.ndarray | None) -> Sample:
        """Brings file pixels (C, *S) and classes (*S) onto the working grid."""
        file_shape = image.shape[1:]
        if classes is not None and classes.shape != file_shape:
            raise mask_size_error(case, file_shape, classes.shape)
        working_shape = tuple(max(1, round(size / self.downscale)) for size in file_shape)
        if working_shape != file_shape:
            image = resample_image(image, working_shape)
            classes = None if classes is None else resample_classes(classes, working_shape)
        return Sample(
            case=case,
            image=np.ascontiguousarray(image),
            scaling=self.scaling or Scaling.measure(thin_out(image)),
            classes=None if classes is None else np.ascontiguousarray(classes),
            geometry=Geometry(file_shape=file_shape, working_shape=working_shape),
        )

    def restore(self, probabilities: np.ndarray, geometry: Geometry) -> np.ndarray:
        """(K, *working) -> (K, *file). Probabilities, not labels: thin structures survive."""
        if probabilities.shape[1:] == geometry.file_shape:
            return probabilities
        return resample_probabilities(probabilities, geometry.file_shape)


def read_image(case: Case, channels: int | None = None) -> np.ndarray:
    """The image file's pixels, (C, *S) as stored.

    Raises:
        DataError: unreadable, or not of so many channels.
    """
    image = io.read(case.image).array
    if channels is not None and image.shape[0] != channels:
        raise DataError(
            f"{case.image}: the image has {_channels(image.shape[0])}, the model reads {channels}.",
            hint="Convert the image, or train a model on images like this one.",
        )
    return image


def read_classes(case: Case, space: LabelSpace) -> np.ndarray | None:
    """The mask file as class indices (*S); None for a case without mask."""
    if case.mask is None:
        return None
    codes = io.read_mask(case.mask).codes
    try:
        return space.classes_of(codes)
    except DataError as error:
        raise DataError(f"{case.mask}: {error.message}", hint=error.hint) from None


def mask_size_error(case: Case, image: Sequence[int], mask: Sequence[int]) -> DataError:
    """Says both sizes, and whether one is the other's transpose."""
    turned = tuple(mask) == tuple(image)[::-1]
    return DataError(
        f"{case.id}: the image is {_size(image)} pixels, its mask {_size(mask)}"
        f"{' (the transpose: height and width are exchanged)' if turned else ''}.",
        hint="A mask lies on its image's grid, pixel for pixel. "
        + ("Turn or transpose one of the two files." if turned else "Export the mask again."),
    )


def thin_out(image: np.ndarray, at_most: int = 16_384) -> np.ndarray:
    """About so many evenly spread pixels of an image (C, *S), as (C, N)."""
    flat = image.reshape(image.shape[0], -1)
    # A step that shares no factor with the width visits every column.
    step = max(1, flat.shape[1] // at_most)
    while step > 1 and np.gcd(step, image.shape[-1]) != 1:
        step -= 1
    return flat[:, ::step]


def _channels(count: int) -> str:
    return "1 channel" if count == 1 else f"{count} channels"


def _size(shape: Sequence[int]) -> str:
    return " × ".join(str(size) for size in shape)
