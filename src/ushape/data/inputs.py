"""Listing of the images to predict."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ushape import io
from ushape.data.discovery import find_masks
from ushape.data.grouping.stated import NONE, stated_keys
from ushape.data.layouts.base import join_all_series
from ushape.data.layouts.listing import images_below, listed_once
from ushape.data.layouts.names import key_below
from ushape.data.layouts.nnunet import channels_of
from ushape.data.layouts.table import TABLES, read_images
from ushape.data.layouts.volumes import join_modalities
from ushape.errors import ConfigError, DataError
from ushape.formatting import display_name, pluralize
from ushape.io.listing import RealPaths
from ushape.io.streaming import open_bands
from ushape.types import Case, Pixels

STANDARD_INPUT = Path("-")

FIRST_CHANNEL = "_0000"
"""End of the names of nnU-Net's images; all of them if there is a single channel."""

STACKS = (".tif", ".tiff")
"""Suffixes of files whose pages may be images of their own."""

NIFTI = (".nii", ".nii.gz")
"""Suffixes of files that may have a time axis."""

MAX_STACKS = 20
"""Number of files above which they are not opened to count their pages."""


@dataclass(frozen=True)
class Input:
    """An image to predict, and the location of its results."""

    case: Case
    """The image; its group is taken from a table, otherwise from its folder."""

    below: Path
    """Path of the image relative to the given folder, and of its results relative to the output
    folder."""


def find_inputs(
    named: Sequence[Path],
    *,
    channels: int,
    dims: int,
    on_note: Callable[[str], None] = lambda note: None,
    read: Callable[[Path], Pixels] = io.read,
) -> list[Input]:
    """List the images to predict, in the given order; the contents of folders are sorted.

    The masks of a data folder in a layout that `discover` knows are left out. The `_0000` of
    nnU-Net is not part of the names of the results.

    Args:
        named: Files; folders, whose subfolders are preserved; patterns such as `scans/*.tif`;
            tables with a column image; `-` for names on standard input, one per line.
        channels: Number of channels that the model expects. Files NAME_0000, NAME_0001, ... with
            fewer channels form one image.
        dims: Number of spatial dimensions; if it is 3, the DICOM slices of a folder are one volume,
            if it is 2, each page of a TIFF stack and each section of a NIfTI, NRRD or MetaImage
            volume is an image, unless there are many files. If the model reads volumes of one
            channel, each time point of a time series is an image.
        on_note: Receives a line about masks that were left out, and one about time series of
            volumes.
        read: Function that reads an image, to count its channels.

    Raises:
        DataError: if a path does not exist, if there are no images, if there is no standard input,
            or if two results would have the same name.
    """
    found: list[Input] = []
    for path in named:
        if path == STANDARD_INPUT:
            for listed in _listed_on_input():
                found += _find_in(listed, channels, dims, on_note, read)
        else:
            found += _find_in(path, channels, dims, on_note, read)
    if not found:
        places = ", ".join(str(path) for path in named) or "an empty list"
        raise DataError(
            f"No images were found in {places}.",
            code="no_images",
            hint="Specify image files, or folders that contain them.",
        )
    found = _without_repeated(found)
    if dims == 2 and len(found) <= MAX_STACKS:
        found = [page for one in found for page in _pages_of(one)]
    elif dims == 3 and channels == 1:
        found = _take_time_points(found, on_note)
    found = _without_channel_number(found)
    _refuse_equal_names(found)
    return found


def _listed_on_input() -> list[Path]:
    """Return the paths on standard input, one per line, which need not be valid UTF-8.

    Raises:
        DataError: if there is no standard input.
    """
    if sys.stdin is None:
        raise DataError(
            "There is no standard input from which names can be read.",
            code="no_standard_input",
            hint="Specify the images, or pass their names through a pipe: ls scans/*.tif | ushape "
            "predict RUN -",
        )
    buffer = getattr(sys.stdin, "buffer", None)  # Notebooks replace the standard input by text.
    if buffer is None:
        lines = sys.stdin.read().splitlines()
    elif os.name == "nt":
        lines = buffer.read().decode(sys.stdin.encoding, "replace").splitlines()
    else:
        lines = [os.fsdecode(line.removesuffix(b"\r")) for line in buffer.read().split(b"\n")]
    return [Path(line) for line in lines if line.strip()]


def _without_repeated(inputs: Sequence[Input]) -> list[Input]:
    """Leave out images that are listed again, also if the path is a link."""
    paths = RealPaths()
    by_path = {os.path.normcase(paths.of(one.case.image)): one for one in reversed(inputs)}
    return list(by_path.values())[::-1]


def _refuse_equal_names(inputs: Sequence[Input]) -> None:
    """Raise DataError if the results of two images would have the same name."""
    owners: dict[str, Input] = {}
    for one in inputs:
        text = str(one.below)
        target = text[: len(text) - len(io.suffix_of(one.below))]
        other = owners.setdefault(os.path.normcase(target), one)
        if other is not one:
            raise DataError(
                f"{other.case.image} and {one.case.image} would both be written to {target}.",
                code="equal_output_names",
                hint="Rename one of them, or predict them into different folders.",
            )


def group_inputs(
    inputs: Sequence[Input], option: str | None = None, *, are_single: bool = False
) -> tuple[list[Input], str]:
    """Return the inputs in groups, and a description of the grouping rule.

    Groups of a table are kept. Other images are grouped by the option that was used for training if
    it fits all of them, and each image is a group if this was so in training. Otherwise, the images
    of a folder are a group, as are the pages of a file. Groups are not inferred from the names
    again, because what these indicate depends on how similar the images are.

    Args:
        option: Groups that were specified for training, or the rule by which they were inferred
            from names; see `stated_keys`.
        are_single: Whether each image was its own group in training.
    """
    free = [one.case for one in inputs if one.case.group == str(one.case.image.parent)]
    rules = ["as defined in the table"] if len(free) < len(inputs) else []
    keys: Sequence[str] = []
    if free:
        keys, rule = _group(free, option, are_single=are_single)
        rules.append(rule)
    group_of = {case.id: key for case, key in zip(free, keys, strict=True)}
    grouped = [
        replace(one, case=replace(one.case, group=group_of.get(one.case.id, one.case.group)))
        for one in inputs
    ]
    return grouped, " or ".join(rules)


def _group(
    cases: Sequence[Case], option: str | None, *, are_single: bool
) -> tuple[Sequence[str], str]:
    """Return the group of each case whose group no table defines, and the rule."""
    reason = ""
    if option is not None:
        # Text without special characters is the name of a column.
        if option == NONE or re.search(r"[^\w\s-]", option):
            with contextlib.suppress(ConfigError, DataError):
                keys, rule = stated_keys([replace(case, group="") for case in cases], option)
                return keys, f"{rule}, as in training"
        reason = f", since the groups used in training ({option}) do not fit all images"
    elif are_single:
        return [case.id for case in cases], "each image by itself, as in training"
    keys = [case.group if case.page is None else str(case.image) for case in cases]
    pages = " or file of several pages" if any(case.page is not None for case in cases) else ""
    return keys, f"one for each folder{pages}{reason}"


def _find_in(
    path: Path,
    channels: int,
    dims: int,
    on_note: Callable[[str], None],
    read: Callable[[Path], Pixels],
) -> Iterator[Input]:
    if path.is_dir() and not io.is_image(path):
        with listed_once():
            images = _without_masks(path, images_below(path), on_note)
        if dims == 3:
            images = join_all_series(images)
        if images == [path]:  # The folder itself is a series of slices.
            yield _input(path, path.parent)
            return
        yield from _join_channels(images, path, channels, read)
    elif path.exists() and path.suffix.lower() in TABLES:
        for image, group in read_images(path):
            yield _input(image, path.parent, group)
    elif path.exists():
        yield _input(path, path.parent)
    elif glob.has_magic(str(path)):
        start = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        matching = sorted(start.glob(str(path.relative_to(start))))
        yield from _join_channels(
            [one for one in matching if io.is_image(one)], start, channels, read
        )
    else:
        raise DataError(
            f"{path} does not exist.", code="file_not_found", hint="Check the spelling."
        )


def _without_masks(folder: Path, images: list[Path], on_note: Callable[[str], None]) -> list[Path]:
    """Leave out the masks of a data folder, and report this."""
    masks, layout = find_masks(folder)
    if not masks:
        return images
    others = [path for path in images if path not in masks]
    if not others or len(others) == len(images):
        return images
    on_note(
        f"{folder}: {pluralize(len(images) - len(others), 'mask')} next to the images "
        f"{'is' if len(images) - len(others) == 1 else 'are'} left out ({layout}). To predict "
        "these files as well, specify them explicitly."
    )
    return others


def _without_channel_number(inputs: list[Input]) -> list[Input]:
    """Remove the `_0000` that nnU-Net adds to the names of all images."""

    def is_numbered(one: Input) -> bool:
        return io.stem_of(one.below).endswith(FIRST_CHANNEL)

    if not all(map(is_numbered, inputs)):
        return inputs
    if len(inputs) == 1 and not inputs[0].case.image.parent.name.startswith("images"):
        return inputs
    renamed = []
    for one in inputs:
        stem = io.stem_of(one.below).removesuffix(FIRST_CHANNEL)
        below = one.below.with_name(stem + io.suffix_of(one.below))
        case = replace(one.case, id=one.case.id.removesuffix(FIRST_CHANNEL))
        renamed.append(Input(case, below))
    return renamed


def _pages_of(stack: Input) -> Iterator[Input]:
    """Yield an input for each page of a stack, named `stack/01`; yield other inputs unchanged."""
    count, path = 1, stack.case.image
    if io.suffix_of(path) in STACKS and not stack.case.channels:
        with contextlib.suppress(DataError), open_bands(path) as bands:
            count = bands.shape[1] if len(bands.shape) == 4 else 1
    elif io.suffix_of(path) in io.itk.ITK_READERS and not stack.case.channels:
        with contextlib.suppress(DataError):
            size = io.itk.read_size(path)
            count = size[0] if len(size) == 3 and not io.has_time_points(path) else 1
    if count == 1:
        yield stack
        return
    yield from _parts_of(stack, count)


def _take_time_points(inputs: Sequence[Input], on_note: Callable[[str], None]) -> list[Input]:
    """Replace NIfTI files with four axes by an input for each time point, and report this."""
    found, divided = list[Input](), list[Input]()
    for one in inputs:
        count = 1
        if io.suffix_of(one.case.image) in NIFTI and not one.case.channels:
            with contextlib.suppress(DataError):
                count = io.itk.count_time_points(one.case.image)
        parts = list(_parts_of(one, count)) if count > 1 else [one]
        divided += parts[:1] if count > 1 else []
        found += parts
    if divided:
        first, others = divided[0], len(divided) - 1
        more = f" and {pluralize(others, 'other file')}" if others else ""
        on_note(
            f"{first.case.image}{more}: the model expects one channel, so each volume along the "
            "fourth axis is predicted separately, as "
            f"{first.below.with_name(io.stem_of(first.below))} and so on."
        )
    return found


def _parts_of(source: Input, count: int) -> Iterator[Input]:
    """Yield an input for each page or time point of a file."""
    folder, suffix = source.below.with_name(io.stem_of(source.below)), io.suffix_of(source.below)
    for page in range(count):
        below = folder / f"{page + 1:0{len(str(count))}}{suffix}"
        case = replace(source.case, id=f"{source.case.id}/{io.stem_of(below)}", page=page)
        yield Input(case, below)


def _join_channels(
    images: Sequence[Path], start: Path, channels: int, read: Callable[[Path], Pixels]
) -> Iterator[Input]:
    """Join single-channel files if their names suggest it and the model expects more channels."""
    files = channels_of((key_below(path, start), path) for path in images)
    are_joined = (
        len(files) < len(images)
        and len({len(own) for own in files.values()}) == 1
        and read(images[0]).array.shape[0] < channels
    )
    if not are_joined:
        files = join_modalities(images, start, channels)
        if not files or read(images[0]).array.shape[0] > 1:
            yield from (_input(path, start) for path in images)
            return
    for key, own in files.items():
        below = Path(key + io.suffix_of(own[0]))
        case = Case(
            id=display_name(key), image=own[0], channels=tuple(own[1:]), group=str(own[0].parent)
        )
        yield Input(case, below)


def _input(image: Path, start: Path, group: str = "") -> Input:
    key = key_below(image, start)
    folder = os.path.dirname(image) or os.curdir  # noqa: PTH120, faster than Path.parent
    case = Case(id=display_name(key), image=image, group=group or sys.intern(folder))
    return Input(case, Path(key + image.name[len(io.stem_of(image)) :]))
