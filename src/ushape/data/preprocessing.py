"""Preprocessing: bring files onto the grid and intensities of the network, and back.

Training and prediction use the same object, which is stored in the plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from ushape import io
from ushape.data.file_rows import FileRows
from ushape.data.slices import neighbors_of
from ushape.data.spacing import check_spacing, coarse_axes, factors_to, is_common
from ushape.errors import ConfigError, DataError, check_range
from ushape.formatting import pluralize, size_text
from ushape.instances.label import label_objects
from ushape.io.annotations import read_annotation, size_of
from ushape.io.placement import AS_THEY_ARE, compare_grids
from ushape.io.streaming import open_bands, read_spacing
from ushape.io.streaming.boxes import read_box
from ushape.labels import IGNORE, LabelSpace
from ushape.normalization import Normalization
from ushape.transforms.resampling import (
    find_box,
    place_classes,
    place_image,
    place_objects,
    restore_probabilities,
)
from ushape.types import Box, Case, Geometry, Pixels, Sample

RGB = 3
"""Number of channels for which a gray image is repeated."""

LARGE_PX = 1 << 26
"""Number of pixels of an image or mask above which sizes are compared before it is unpacked."""

MAX_SLICES = 15
"""Largest number of slices that a network receives together."""

DIVIDE_ABOVE_PX = 1 << 28
"""Number of pixels, channels counted, above which images are divided by default: a volume of
512 x 512 x 1024 voxels stays whole."""

MIN_DIVIDED_PX = 1 << 12
"""Smallest limit above which images are divided."""

MAX_PLANES = 16
"""Largest number of planes that are read as channels if the mask has one plane."""


@dataclass(frozen=True, kw_only=True)
class PreprocessingConfig:
    """Conversion of files to network input; predictions are resampled to the size of the file."""

    crop: bool = False
    """Whether to crop the images of a group to the pixels above a tenth of their maximum."""

    square: bool = False
    """Whether to pad the shorter side with zeros to obtain a square."""

    shape: tuple[int, ...] | None = None
    """Size to which all images are resized; null: their own size divided by downscale."""

    downscale: int | float | tuple[float, ...] | Literal["auto"] = "auto"
    """Factor by which images are reduced, such as 1.5, or one factor for each axis, as in
    [1, 2, 2]. auto: 1, or more if patches would show too little of an image, or if its pixels would
    be seen too rarely; voxels that are longer along one axis are reduced less along it."""

    spacing_mm: tuple[float, ...] | Literal["auto"] | None = "auto"
    """Spacing of the voxels of a volume along z, y and x, by which the network is planned; only the
    ratios matter. auto: the median of the training files, if all of them state it; null: voxels
    are assumed to be cubes."""

    target_spacing_mm: tuple[float, ...] | Literal["auto"] | None = "auto"
    """Spacing along z, y and x, or y and x for images and for volumes that are seen by slice, to
    which all images are resampled by the spacing that their files state, before downscale. null:
    each keeps its own grid. auto: null, unless all files state a spacing and those of the training
    images differ by more than 5 %; then their median, and along an axis of thick slices the 10th
    percentile."""

    distances: Literal["spacing", "pixels"] = "spacing"
    """Unit of the distances that are learned to separate objects, and of border weights. spacing:
    pixels of the finest axis, so that a step along a coarse axis counts as much as it is longer;
    pixels: steps along all axes count alike."""

    slices: int | Literal["auto"] | None = "auto"
    """Number of slices, odd, that a 2D network receives as channels to predict the middle one. 1:
    volumes slice by slice (2D); 3, 5, ...: with their neighbors (2.5D), also for images that are
    numbered slices of a stack. null: whole volumes (3D), and images by themselves. auto: null,
    unless the slices of volumes are few or thick and short trials prefer another number."""

    intensity: Literal["auto", "data", "image", "group", "min_max"] = "auto"
    """Normalization of intensities. data, image, group: clip, then standardize to mean 0 and
    standard deviation 1, with the statistics of all training images, of each image, or of its
    group; min_max: rescale each image from its own range to [0, 1]."""

    divide_above_px: int | None = DIVIDE_ABOVE_PX
    """Number of pixels, channels counted, above which an image with a mask is divided into parts of
    at most a sixteenth of it, which are cases of their own, if both files can be read in parts
    (TIFF, Zarr, .npy and uncompressed .nii); null: no image is divided."""

    percentiles: tuple[float, float] = (0.5, 99.5)
    """Lower and upper percentile at which intensities are clipped."""

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
                hint=f"Use an odd number up to {MAX_SLICES}, or null for whole volumes.",
            )
        for name in ("spacing_mm", "target_spacing_mm"):
            spacing = getattr(self, name)
            if isinstance(spacing, tuple) and not (
                spacing and all(0 < length < math.inf for length in spacing)
            ):
                raise ConfigError(
                    f"preprocessing.{name} is {list(spacing)}.",
                    code="value_out_of_range",
                    hint="Give a length above 0 for each axis, as in [5, 0.7, 0.7].",
                )
        if self.shape is not None and isinstance(self.target_spacing_mm, tuple):
            raise ConfigError(
                "preprocessing.shape and preprocessing.target_spacing_mm are both set.",
                code="settings_conflict",
                hint="Set only one of them: each decides the size of all images.",
            )
        if self.divide_above_px is not None:
            hint = "null keeps all images whole; the default suits 16 GB of memory."
            name = "preprocessing.divide_above_px"
            check_range(name, self.divide_above_px, MIN_DIVIDED_PX, hint=hint)
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
        """Return the shape on which the network works for a (cropped) image of this shape.

        Args:
            spacing_mm: Spacing of the image; None: it has the common spacing already.
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
        """Return the factor along each axis by which images of so many axes are reduced."""
        assert self.downscale != "auto", "the planner chooses the downscaling"
        if isinstance(self.slices, int) and dims == 3:
            return (1.0, *self.downscale_factors(2))
        if isinstance(self.downscale, tuple):
            return self.downscale
        return (self.downscale,) * dims

    def input_channels(self, channels: int) -> int:
        """Return the number of channels of the network's input for images of so many channels."""
        return channels * (self.slices if isinstance(self.slices, int) else 1)


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

    def _refuse_part(self, case: Case) -> None:
        """Raise DataError for a part of an image that must be preprocessed as a whole."""
        config = self.config
        needs_others = self.needs_group or self.needs_neighbors
        if case.box is None or not (needs_others or config.square or config.shape is not None):
            return
        raise DataError(
            f"{case.image}: the image is divided into parts because of its size, but the recipe "
            "crops, pads or resizes whole images, or reads them with others of their group.",
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
            spacing_mm: Spacing along each axis of S, if the file states it.

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
            return self.measure_file(case.image)  # As the whole image is predicted.
        return self.measure(thin_out(image))

    def measure_file(self, path: Path) -> Normalization:
        """Measure the normalization of a whole image from its file, in bands; it is kept.

        Raises:
            DataError: if the file cannot be read.
        """
        changed = path.stat().st_mtime_ns if path.exists() else 0
        return self.measure(_evenly_spread(path, changed, self.config))

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


@lru_cache(maxsize=1024)
def _evenly_spread(path: Path, changed: int, config: PreprocessingConfig) -> np.ndarray:
    """Return the pixels (C, N) of a file on the working grid by which it is normalized.

    Along axes on which the image is enlarged, they are those of the file.

    Args:
        changed: Time of the last change; a changed file is read again.
    """
    with open_bands(path) as bands:
        placed = config.working_shape(bands.shape[1:], bands.spacing_mm)
        working = tuple(map(min, placed, bands.shape[1:]))
        rows = FileRows(bands, (bands.shape[0], *working), None)
        return rows.take_pixels(thinning_step(math.prod(working), working[-1]))


@dataclass(frozen=True, kw_only=True)
class GroupStats:
    """Statistics of all images of a group."""

    box: Box | None
    """Bounding box of the bright pixels of all images; None without cropping."""

    normalization: Normalization


@lru_cache(maxsize=64)
def measure_group(
    cases: tuple[Case, ...],
    percentiles: tuple[float, float],
    crop: bool,
    channels: int | None = None,
) -> GroupStats:
    """Read all images of a group and measure their common box and the intensities within it.

    Raises:
        DataError: if a file cannot be read, or if the images differ in their number of channels.
    """
    box: Box | None = None
    if crop:
        edges = zip(*(find_box(read_image(case, channels)) for case in cases), strict=True)
        box = tuple((min(e[0] for e in edge), max(e[1] for e in edge)) for edge in edges)
    inside = tuple(slice(*edge) for edge in box) if box else ()
    pixels = [thin_out(read_image(case, channels)[(slice(None), *inside)], 4096) for case in cases]
    if len({len(part) for part in pixels}) > 1:
        raise DataError(
            f"{cases[0].image.parent}: the images of one group differ in their number of channels.",
            code="mixed_channels",
            hint="Convert them to one kind, for example all gray or all RGB.",
        )
    return GroupStats(
        box=box, normalization=Normalization.measure(np.concatenate(pixels, axis=1), percentiles)
    )


def by_group(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """Return the cases of each group."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.group, []).append(case)
    return found


def read_image(case: Case, channels: int | None = None) -> np.ndarray:
    """Read the pixels of an image (C, *S) as stored, including further files with channels.

    Raises:
        DataError: if a file cannot be read, if the number of channels is wrong, or if the files of
            the case differ in size.
    """
    return join_channels(case, read_first_file(case), channels).array


def read_first_file(case: Case) -> Pixels:
    """Read the image of a case, or its page or time point, without further files.

    Raises:
        DataError: if the file cannot be read, or has no such page.
    """
    if case.box is not None:
        return Pixels(array=read_box(case.image, case.box), spacing_mm=read_spacing(case.image))
    if case.page is None:
        return io.read(case.image)
    if io.suffix_of(case.image) in io.itk.ITK_READERS:
        return io.read_time_point(case.image, case.page)
    with open_bands(case.image) as bands:
        array = bands.read(case.page, case.page + 1)[:, 0]
        spacing = bands.spacing_mm
        return Pixels(array=array, spacing_mm=spacing[1:] if spacing else None)


def join_channels(case: Case, first: Pixels, channels: int | None = None) -> Pixels:
    """Return the image of a case with all its channels, from the image that its first file holds.

    Planes, such as pages of a TIFF, are channels if the mask has a single one, or if the model
    expects as many channels. A gray image is repeated if three channels are expected.

    Raises:
        DataError: if the number of channels is another one, or the files differ in size.
    """
    image = first.array
    if case.channels:
        image = np.concatenate(
            [image, *(_read_further(path, first, case) for path in case.channels)]
        )
    elif _has_channels_as_planes(case, first, channels):
        image = image[0]
        first = replace(first, spacing_mm=first.spacing_mm[1:] if first.spacing_mm else None)
    is_gray = channels == RGB and len(image) == 1 and image.ndim == 3 and not case.channels
    if is_gray:
        image = np.repeat(image, RGB, axis=0)
    if channels is not None and image.shape[0] != channels:
        raise DataError(
            f"{case.image}: the image has {pluralize(image.shape[0], 'channel')}, but the model "
            f"expects {channels}.",
            code="channel_count_mismatch",
            hint="Convert the image, or train a model on images like this one.",
        )
    return replace(first, array=image, is_repeated_gray=is_gray)


def _has_channels_as_planes(case: Case, pixels: Pixels, channels: int | None) -> bool:
    """Return whether the planes of a volume are channels of an image, saved as pages of a TIFF."""
    is_stack = len(pixels.array) == 1 and pixels.array.ndim == 4 and case.box is None
    if not is_stack or pixels.grid is not None or pixels.array.shape[1] > MAX_PLANES:
        return False
    if channels is not None:
        return channels == pixels.array.shape[1]
    size = io.read_size(case.mask) if isinstance(case.mask, Path) else None
    return size == pixels.array.shape[2:]


def _read_further(path: Path, first: Pixels, case: Case) -> np.ndarray:
    further, shape = io.read(path), first.array.shape[1:]
    if further.array.shape[1:] != shape:
        raise DataError(
            f"{path} has {size_text(further.array.shape[1:])} pixels, but {case.image} has "
            f"{size_text(shape)}.",
            code="channel_size_mismatch",
            hint="Provide all channels of a case in the same size.",
        )
    grid, other = first.grid, further.grid
    if grid and other and compare_grids(grid, other) not in AS_THEY_ARE:
        raise DataError(
            f"{path} states another direction, spacing or origin than {case.image}.",
            code="channel_grid_mismatch",
            hint="Resample all channels of a case to the grid of the first one, or copy its header "
            "if the pixels correspond by their index.",
        )
    return further.array


def read_classes(case: Case, space: LabelSpace) -> np.ndarray | None:
    """Read the mask as class indices (*S); None for a case without a mask."""
    if case.mask is None:
        return None
    check_sizes(case)
    mask = read_annotation(case.mask, case.image)
    try:
        return space.classes_of(mask.codes, mask.encoding)
    except DataError as error:
        raise DataError(f"{case.mask}: {error.message}", code=error.code, hint=error.hint) from None


def read_objects(case: Case, space: LabelSpace) -> np.ndarray | None:
    """Return the numbers of the objects (*S) if the mask of an annotated case states them.

    Connected parts that belong to no stated object, such as crowds, have further numbers.
    """
    assert case.mask is not None, "only annotated cases have objects"
    if not space.states_objects:
        return None
    mask = read_annotation(case.mask, case.image)
    if mask.instances is not None:
        stated, classes = mask.instances.numbers, space.classes_of(mask.codes, mask.encoding)
        others = label_objects(np.where(stated > 0, 0, classes)).labels
        return np.where(others > 0, others + mask.instances.stated, stated)
    if space.threshold != 1:
        return None
    codes = mask.codes
    numbers = set(np.unique(codes[codes > 0]).tolist()) - {space.ignore}
    return codes if len(numbers) > 1 else None


def find_true_objects(case: Case, classes: np.ndarray, space: LabelSpace) -> np.ndarray:
    """Number the objects of an annotated case: as its mask does, or else its connected parts.

    Shapes:
        classes: (*S) class indices -> (*S) int32, 0 outside of objects.
    """
    numbers = read_objects(case, space)
    foreground = np.where(classes == IGNORE, 0, classes)
    if numbers is None:
        return label_objects(foreground).labels
    found, ranks = np.unique(np.where(foreground > 0, numbers, 0), return_inverse=True)
    return (ranks.reshape(classes.shape) + (found[0] > 0)).astype(np.int32)


def check_sizes(case: Case) -> None:
    """Compare the sizes of a large image and its mask by their headers, before they are unpacked.

    Raises:
        DataError: if one of them has more than LARGE_PX pixels, and their sizes differ.
    """
    if case.mask is None or case.channels or not case.image.is_file():
        return
    sizes = io.read_size(case.image), size_of(case.mask)
    image, mask = sizes
    if isinstance(case.mask, Path) and io.read_grid(case.mask) and io.read_grid(case.image):
        return  # Their positions decide which pixels belong together.
    if image is None or mask is None or max(map(math.prod, (image, mask))) <= LARGE_PX:
        return
    if sorted(image) != sorted(mask) and image[1:] != mask:
        raise mask_size_error(case, image, mask)


def mask_size_error(case: Case, image: Sequence[int], mask: Sequence[int]) -> DataError:
    """Return an error that names both sizes, and whether one is the transpose of the other."""
    turned = tuple(mask) == tuple(image)[::-1]
    return DataError(
        f"{case.id}: the image has {size_text(image)} pixels, but its mask has {size_text(mask)}"
        f"{' (height and width are exchanged)' if turned else ''}.",
        code="mask_size_mismatch",
        hint="A mask needs the size of its image. "
        + ("Transpose one of the two files." if turned else "Export the mask again."),
    )


def thin_out(image: np.ndarray, at_most: int = 16_384) -> np.ndarray:
    """Return about this many evenly spread pixels of an image (C, *S), as (C, N)."""
    flat = image.reshape(image.shape[0], -1)
    return flat[:, :: thinning_step(flat.shape[1], image.shape[-1], at_most)]


def thinning_step(pixels: int, width: int, at_most: int = 16_384) -> int:
    """Return the step between the pixels that `thin_out` takes, in row-major order."""
    step = max(1, pixels // at_most)
    while step > 1 and np.gcd(step, width) != 1:
        step -= 1  # A step that shares no factor with the width visits every column.
    return step
