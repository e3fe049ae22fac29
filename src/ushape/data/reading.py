"""Pixels and classes of cases, read from their files as they are stored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ushape import io
from ushape.errors import DataError
from ushape.formatting import pluralize, size_text
from ushape.instances.label import label_objects
from ushape.io.annotations import read_annotation, size_of
from ushape.io.float_range import limit_to_float32
from ushape.io.placement import AS_THEY_ARE, compare_grids
from ushape.io.streaming import open_bands
from ushape.io.streaming.boxes import read_box
from ushape.io.streaming.slides import read_spacing_at
from ushape.labels import IGNORE, LabelSpace
from ushape.types import Case, Pixels

RGB = 3
"""Number of channels for which a gray image is repeated."""

LARGE_PX = 1 << 26
"""Number of pixels of an image or mask above which sizes are compared before it is unpacked."""

MAX_PLANES = 16
"""Largest number of planes that are read as channels if the mask has one plane."""


def read_image(case: Case, channels: int | None = None) -> np.ndarray:
    """Read the pixels of an image (C, *S) as stored, including additional files with channels.

    Raises:
        DataError: if a file cannot be read, if the number of channels is wrong, or if the files of
            the case differ in size.
    """
    return join_channels(case, read_first_file(case), channels).array


def read_first_file(case: Case) -> Pixels:
    """Read the image of a case, or its page or time point, without additional files.

    Raises:
        DataError: if the file cannot be read, or has no such page.
    """
    if case.box is not None:
        return Pixels(
            array=read_box(case.image, case.box, case.mpp),
            spacing_mm=read_spacing_at(case.image, case.mpp),
        )
    if case.page is None:
        return io.read(case.image)
    if io.suffix_of(case.image) in io.itk.ITK_READERS:
        return io.read_page(case.image, case.page)
    with open_bands(case.image) as bands:
        array = bands.read(case.page, case.page + 1)[:, 0]
        spacing = bands.spacing_mm
        return Pixels(array=array, spacing_mm=spacing[1:] if spacing else None)


def join_channels(case: Case, first: Pixels, channels: int | None = None) -> Pixels:
    """Return the image of a case with all its channels, from the image that its first file holds.

    Values beyond the range of 32-bit floats become infinite.
    Planes, such as pages of a TIFF, are channels if the mask has a single one, or if the model
    expects as many channels. A gray image is repeated if three channels are expected.

    Raises:
        DataError: if the number of channels is another one, or the files differ in size.
    """
    image = limit_to_float32(first.array)
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
            hint="Convert the image, or train a model on images of this kind.",
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
            hint="Provide all channels of a case at the same size.",
        )
    grid, other = first.grid, further.grid
    if grid and other and compare_grids(grid, other) not in AS_THEY_ARE:
        raise DataError(
            f"{path} has a different direction, spacing or origin than {case.image}.",
            code="channel_grid_mismatch",
            hint="Resample all channels of a case to the grid of the first one, or copy its header "
            "if the pixels correspond by their index.",
        )
    return limit_to_float32(further.array)


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
    """Return the numbers of the objects (*S) if the mask of an annotated case contains them.

    They count from 1, whatever the values of the mask. Connected components outside all annotated
    objects, such as crowds, have additional numbers.
    """
    assert case.mask is not None, "only annotated cases have objects"
    if not space.states_objects:
        return None
    mask = read_annotation(case.mask, case.image)
    if mask.instances is not None:
        stated, classes = mask.instances.numbers, space.classes_of(mask.codes, mask.encoding)
        others = label_objects(np.where(stated > 0, 0, classes)).labels
        return np.where(others > 0, others + mask.instances.stated, stated)
    if space.threshold is None:
        return None
    is_object = mask.codes >= space.threshold
    if space.ignore is not None:
        is_object &= mask.codes != space.ignore
    ids = mask.codes if space.threshold > 0 else mask.codes.astype(np.int64) + 1 - space.threshold
    numbers = _in_order(np.where(is_object, ids, 0))
    # Without a decision for the whole dataset, a single value marks the foreground.
    return numbers if space.has_instances or numbers.max(initial=0) > 1 else None


def find_true_objects(case: Case, classes: np.ndarray, space: LabelSpace) -> np.ndarray:
    """Number the objects of an annotated case: as its mask does, or else its connected components.

    Shapes:
        classes: (*S) class indices -> (*S) int32, 0 outside of objects.
    """
    numbers = read_objects(case, space)
    foreground = np.where(classes == IGNORE, 0, classes)
    if numbers is None:
        return label_objects(foreground).labels
    return _in_order(np.where(foreground > 0, numbers, 0))


def _in_order(numbers: np.ndarray) -> np.ndarray:
    """Number objects from 1 in the order of their values; 0 stays 0. (*S) -> (*S) int32."""
    found, ranks = np.unique(numbers, return_inverse=True)
    has_background = found[:1].tolist() == [0]
    return (ranks.reshape(numbers.shape) + (not has_background)).astype(np.int32)


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
        hint="A mask must have the size of its image. "
        + ("Transpose one of the two files." if turned else "Export the mask again."),
    )
