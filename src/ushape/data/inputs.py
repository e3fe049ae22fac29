"""What shall be predicted: files, folders, patterns, tables and lists -> cases without masks."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ushape import io
from ushape.data.layouts.names import images_below, key_below
from ushape.data.layouts.nnunet import channels_of
from ushape.data.layouts.series import join_all_series
from ushape.data.layouts.table import TABLES, read_images
from ushape.errors import DataError
from ushape.types import Case

STANDARD_INPUT = Path("-")


@dataclass(frozen=True)
class Input:
    """One image, and where its results go."""

    case: Case
    """Its group is what a table says, else its folder."""

    below: Path
    """The image's path below what was named, and that of its results below the output folder."""


def find_inputs(named: Sequence[Path], *, channels: int, dims: int) -> list[Input]:
    """All images that are meant, in the order in which they were named, folders sorted.

    Args:
        named: Files; folders, whose sub-folders are kept; patterns such as `scans/*.tif`; tables
            with a column image; `-` for names on standard input, one in a line.
        channels: That the model reads. Files NAME_0000, NAME_0001, ... of fewer channels are
            one image together.
        dims: 3: several DICOM slices in a folder are one volume.

    Raises:
        DataError: a path that is not there, no image in them, two results of one name.
    """
    found: list[Input] = []
    for path in named:
        if path == STANDARD_INPUT:
            lines = [line.strip() for line in sys.stdin]
            for listed in (Path(line) for line in lines if line):
                found += _find_in(listed, channels, dims)
        else:
            found += _find_in(path, channels, dims)
    if not found:
        places = ", ".join(str(path) for path in named)
        raise DataError(f"No images in {places}.", hint="Name image files, or folders of them.")
    found = list({one.case.image.resolve(): one for one in reversed(found)}.values())[::-1]
    owners: dict[Path, Path] = {}
    for one in found:
        target = one.below.with_name(io.stem_of(one.below))
        image = one.case.image
        if target in owners:
            raise DataError(
                f"{owners[target]} and {image} would both be written to {target}.",
                hint="Rename one of them, or predict them into different folders.",
            )
        owners[target] = image
    return found


def _find_in(path: Path, channels: int, dims: int) -> Iterator[Input]:
    if path.is_dir() and not io.is_image(path):
        images = images_below(path)
        if dims == 3:
            images = join_all_series(images)
        if images == [path]:  # A folder of slices by itself.
            yield _input(path, path.parent)
            return
        yield from _join_channels(images, path, channels)
    elif path.exists() and path.suffix.lower() in TABLES:
        for image, group in read_images(path):
            yield _input(image, path.parent, group)
    elif path.exists():
        yield _input(path, path.parent)
    elif glob.has_magic(str(path)):
        start = _before_magic(path)
        matching = sorted(start.glob(str(path.relative_to(start))))
        yield from _join_channels([one for one in matching if io.is_image(one)], start, channels)
    else:
        raise DataError(f"{path} is not there.", hint="Check the spelling.")


def _before_magic(path: Path) -> Path:
    """The folders before the first part with a wildcard."""
    first = next(index for index, part in enumerate(path.parts) if glob.has_magic(part))
    return Path(*path.parts[:first])


def _join_channels(images: Sequence[Path], start: Path, channels: int) -> Iterator[Input]:
    """Files of one channel each as one image, where they are called so and the model reads more."""
    files = channels_of((key_below(path, start), path) for path in images)
    are_joined = (
        len(files) < len(images)
        and len({len(own) for own in files.values()}) == 1
        and io.read(images[0]).array.shape[0] < channels
    )
    if not are_joined:
        yield from (_input(path, start) for path in images)
        return
    for key, own in files.items():
        below = Path(key + io.suffix_of(own[0]))
        case = Case(id=key, image=own[0], channels=tuple(own[1:]), group=str(own[0].parent))
        yield Input(case, below)


def _input(image: Path, start: Path, group: str = "") -> Input:
    key = key_below(image, start)
    case = Case(id=key, image=image, group=group or str(image.parent))
    return Input(case, Path(key).with_name(image.name))
