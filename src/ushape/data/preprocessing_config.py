"""Settings of the preprocessing: the grid and the intensities that the network receives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ushape.data.spacing import factors_to, is_common
from ushape.errors import ConfigError, check_range

MAX_SLICES = 15
"""Largest number of slices that a network receives together."""

DIVIDE_ABOVE_PX = 1 << 28
"""Number of pixels times channels above which images are divided by default: a volume of 512 x 512
x 1024 voxels stays whole."""

MIN_MPP, MAX_MPP = 0.01, 1000.0
"""Range of the resolution of slides in micrometers per pixel."""

MIN_DIVIDED_PX = 1 << 12
"""Smallest value of divide_above_px."""


def check_mpp(name: str, mpp: float | None) -> None:
    """Check a setting of a resolution in micrometers per pixel.

    Raises:
        ConfigError: if it is not a number from 0.01 to 1000.
    """
    if mpp is not None and not MIN_MPP <= mpp <= MAX_MPP:
        raise ConfigError(
            f"{name} is {mpp:g}.",
            code="value_out_of_range",
            hint=f"Use {MIN_MPP:g} to {MAX_MPP:g} micrometers per pixel, such as 0.5, or null.",
        )


@dataclass(frozen=True, kw_only=True)
class PreprocessingConfig:
    """Conversion of files to network input; predictions have the size of the image file."""

    crop: bool = False
    """Whether to crop the images of a group to the bounding box of the pixels above a tenth of
    their maximum."""

    square: bool = False
    """Whether to pad the shorter side with zeros to obtain a square."""

    shape: tuple[int, ...] | None = None
    """Size to which all images are resized; null: the size of each image divided by downscale."""

    downscale: int | float | tuple[float, ...] | Literal["auto"] = "auto"
    """Factor by which images are reduced, such as 1.5, or one factor for each axis, as in
    [1, 2, 2]. auto: 1, or more if patches would show too little of an image, or if each pixel would
    be sampled too rarely; images are reduced less along axes on which their voxels are longer."""

    spacing_mm: tuple[float, ...] | Literal["auto"] | None = "auto"
    """Spacing of the voxels of a volume along z, y and x, from which the network is planned; only
    the ratios matter. auto: the median of the training files, if all of them specify it; null:
    voxels are assumed to be cubes."""

    target_spacing_mm: tuple[float, ...] | Literal["auto"] | None = "auto"
    """Spacing along z, y and x (y and x for images, and for volumes that are processed slice by
    slice) to which all images are resampled before downscale is applied, according to the spacing
    in their files. null: each image keeps its own grid. auto: null, unless all files specify a
    spacing and the spacings of the training images differ by more than 5%; then their median, or
    their 10th percentile along an axis of thick slices."""

    distances: Literal["spacing", "pixels"] = "spacing"
    """Unit of the distances that are learned to separate objects, and of border weights. spacing:
    pixels of the finest axis, so that a step along a coarse axis counts as more, in proportion to
    its length; pixels: steps along all axes count the same."""

    slices: int | Literal["auto"] | None = "auto"
    """Odd number of slices that a 2D network receives as channels to predict the middle one. 1:
    volumes are processed slice by slice (2D); 3, 5, ...: slices with their neighbors (2.5D), also
    for images that are numbered slices of a stack. null: whole volumes (3D), and single images.
    auto: null, unless the volumes have few or thick slices and another number performs better in
    short trials."""

    intensity: Literal["auto", "data", "image", "group", "min_max"] = "auto"
    """Normalization of intensities. data, image, group: clip, then standardize to mean 0 and
    standard deviation 1, with the statistics of all training images, of each image, or of its
    group; min_max: rescale the range of each image to [0, 1]."""

    divide_above_px: int | None = DIVIDE_ABOVE_PX
    """Number of pixels times channels above which an image with a mask is divided into parts, which
    are separate cases, of at most a sixteenth of this number, if both files can be read in parts
    (TIFF, Zarr, .npy and uncompressed .nii); null: no image is divided."""

    slide_mpp: float | None = None
    """Resolution in micrometers per pixel at which whole-slide images, and TIFF files with several
    resolution levels, are read: from the level of this resolution (within 5%), or reduced from the
    nearest finer one. Masks are images of the whole slide at any resolution, or outlines in pixels
    of the finest level. Unless downscale is set, it is 1. null: slides are read at their finest
    level."""

    percentiles: tuple[float, float] = (0.5, 99.5)
    """Lower and upper percentiles at which intensities are clipped."""

    def __post_init__(self) -> None:
        if self.downscale != "auto":
            hint = "1 keeps the full size, 2 halves height and width."
            for factor in self.downscale if isinstance(self.downscale, tuple) else [self.downscale]:
                check_range("preprocessing.downscale", factor, 1, hint=hint)
        if self.shape is not None and (
            self.downscale not in ("auto", 1) or min(self.shape, default=0) < 1
        ):
            raise ConfigError(
                f"preprocessing.shape is {list(self.shape)} and downscale is {self.downscale}.",
                code="value_out_of_range",
                hint="Set only one of them; a shape needs at least one pixel, as in [512, 512].",
            )
        if isinstance(self.slices, int) and not (0 < self.slices <= MAX_SLICES and self.slices % 2):
            raise ConfigError(
                f"preprocessing.slices is {self.slices}.",
                code="value_out_of_range",
                hint=f"Use an odd number from 1 to {MAX_SLICES}, or null for whole volumes.",
            )
        for name in ("spacing_mm", "target_spacing_mm"):
            spacing = getattr(self, name)
            if isinstance(spacing, tuple) and not (
                spacing and all(0 < length < math.inf for length in spacing)
            ):
                raise ConfigError(
                    f"preprocessing.{name} is {list(spacing)}.",
                    code="value_out_of_range",
                    hint="Specify a length above 0 for each axis, as in [5, 0.7, 0.7].",
                )
        if self.shape is not None and isinstance(self.target_spacing_mm, tuple):
            raise ConfigError(
                "preprocessing.shape and preprocessing.target_spacing_mm are both set.",
                code="settings_conflict",
                hint="Set only one of them: each determines the size of all images.",
            )
        if self.divide_above_px is not None:
            hint = "null keeps all images whole; the default suits 16 GB of memory."
            name = "preprocessing.divide_above_px"
            check_range(name, self.divide_above_px, MIN_DIVIDED_PX, hint=hint)
        check_mpp("preprocessing.slide_mpp", self.slide_mpp)
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ConfigError(
                f"preprocessing.percentiles is {[low, high]}.",
                code="value_out_of_range",
                hint="Use 0 <= low < high <= 100.",
            )

    def padded_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape after padding."""
        return (*shape[:-2], max(shape[-2:]), max(shape[-2:])) if self.square else shape

    def working_shape(
        self, shape: tuple[int, ...], spacing_mm: Sequence[float] | None = None
    ) -> tuple[int, ...]:
        """Return the shape of the network's input for a (cropped) image of this shape.

        Args:
            spacing_mm: Spacing of the image; None: it already has the common spacing.
        """
        is_by_slice = isinstance(self.slices, int) and len(shape) == 3
        if self.shape is not None:
            return (shape[0], *self.shape) if is_by_slice else self.shape
        dims, padded = len(shape), self.padded_shape(shape)
        common = factors_to(spacing_mm, self.common_spacing_mm, dims)
        factors = [a * b for a, b in zip(self.downscale_factors(dims), common, strict=True)]
        if is_by_slice:
            factors[0] = 1.0  # Slices are not resampled along z.
        return tuple(max(1, round(size / own)) for size, own in zip(padded, factors, strict=True))

    @property
    def common_spacing_mm(self) -> tuple[float, ...] | None:
        """Spacing to which all images are resampled; None if each keeps its own."""
        return None if self.target_spacing_mm == "auto" else self.target_spacing_mm

    def relative_lengths(self, dims: int) -> tuple[float, ...]:
        """Return the length of a pixel of the network's input along each axis, for distances.

        They are relative to the shortest one. All are 1 if they are nearly equal or unknown, if
        distances are in pixels, or if all images are resized to one shape.
        """
        spacing = self.spacing_mm
        if self.distances == "pixels" or self.shape is not None or not isinstance(spacing, tuple):
            return (1.0,) * dims
        factors = self.downscale_factors(dims)
        lengths = [a * b for a, b in zip(spacing[-dims:], factors, strict=True)]
        if is_common([[length] for length in lengths]):
            return (1.0,) * dims
        return tuple(length / min(lengths) for length in lengths)

    def downscale_factors(self, dims: int) -> tuple[float, ...]:
        """Return the factor along each axis by which images with `dims` axes are reduced."""
        assert self.downscale != "auto", "the planner chooses the downscaling"
        if isinstance(self.slices, int) and dims == 3:
            return (1.0, *self.downscale_factors(2))
        if isinstance(self.downscale, tuple):
            return self.downscale
        return (self.downscale,) * dims

    def input_channels(self, channels: int) -> int:
        """Return the number of channels of the network's input, by that of the images."""
        return channels * (self.slices if isinstance(self.slices, int) else 1)
