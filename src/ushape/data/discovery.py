"""Listing of the cases in a folder, a table or a COCO file, and of images to predict."""

from __future__ import annotations

import difflib
import glob
import itertools
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ushape import io
from ushape.data.layouts import LAYOUTS
from ushape.data.layouts.base import LayoutMatch, join_all_series
from ushape.data.layouts.coco import pair_coco, read_coco_file
from ushape.data.layouts.folders import pair_folders
from ushape.data.layouts.names import StatedClasses, images_below, key_below, read_class_names
from ushape.data.layouts.nnunet import channels_of
from ushape.data.layouts.table import TABLES, read_images, read_table
from ushape.errors import DataError
from ushape.formatting import pluralize
from ushape.io import is_image
from ushape.types import Case, Mask


@dataclass(frozen=True, kw_only=True)
class DatasetListing:
    """Annotated cases of a data set, before any image is read."""

    cases: list[Case]
    """Cases sorted by id; groups and splits are set only if the data state them."""

    layout: str
    """Layout that was found, in words."""

    notes: list[str]
    """Files that were left out, one line each."""

    classes: StatedClasses | None = None
    """Classes that the data state."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Class names that the data state, background first, in the order of their values."""
        return (self.classes.names or None) if self.classes else None


def discover(data: Path, masks: Path | None = None) -> DatasetListing:
    """Find images and their masks.

    Args:
        data: A folder, a table with the columns image and mask, or a COCO JSON file.
        masks: Folder or COCO JSON file of the masks, if `data` holds only the images.

    Raises:
        DataError: if a folder does not exist, if no pair is found, if there are several
            candidates, or if a table or COCO file is invalid.
    """
    found = _find_pairs(data, masks)
    if found is None or not found.paired:
        raise _no_pairs(data, masks, found)
    stated = found.classes
    for place in (data if data.is_dir() else data.parent, masks):
        if stated is None and place is not None and place.is_dir():
            stated = read_class_names(place)
    notes = [*_describe_rest(found), *found.notes]
    return DatasetListing(cases=found.cases, layout=found.layout, notes=notes, classes=stated)


def _find_pairs(data: Path, masks: Path | None) -> LayoutMatch | None:
    """Pair what the user names; otherwise use the first layout that finds pairs, or any match."""
    if masks is None and data.is_file() and data.suffix.lower() in TABLES:
        return read_table(data)
    if masks is None and data.is_file() and data.suffix.lower() == ".json":
        return read_coco_file(data)
    is_coco = masks is not None and masks.is_file() and masks.suffix.lower() == ".json"
    for given in (data, None if is_coco else masks):
        if given is not None and not given.is_dir():
            raise DataError(
                f"{given} {'is a file, not a folder' if given.exists() else 'does not exist'}.",
                code="not_a_folder",
                hint="Name the folder of images and masks, a table or a COCO file.",
            )
    if masks is not None:
        return pair_coco(masks, [data]) if is_coco else pair_folders(data, masks)
    seen: LayoutMatch | None = None
    for find in LAYOUTS.values():
        found = find(data)
        if found is not None and found.paired:
            return found
        seen = seen or found
    return seen


def _describe_rest(found: LayoutMatch) -> list[str]:
    """Describe images without mask and masks without image, with the most similar names."""
    notes = []
    for what, other, ours, theirs in (
        ("image", "mask", found.images, found.masks),
        ("mask", "image", found.masks, found.images),
    ):
        alone = sorted(ours.keys() - theirs.keys())
        if alone:
            near = difflib.get_close_matches(alone[0], list(theirs), n=1)
            nearest = f"; the most similar {other} is {_name_of(theirs[near[0]])}" if near else ""
            name = _name_of(ours[alone[0]])
            lack = f"{'has' if len(alone) == 1 else 'have'} no {other}"
            notes.append(f"Left out: {pluralize(len(alone), what)} {lack}, e.g. {name}{nearest}.")
    return notes


def _name_of(file: Mask) -> str:
    return file.name if isinstance(file, Path) else str(file)


def _no_pairs(folder: Path, masks: Path | None, found: LayoutMatch | None) -> DataError:
    """Describe the files that were found, to show what is missing."""
    where = f"{folder} and {masks}" if masks else str(folder)
    lines = [f"No pairs of image and mask were found in {where}. It contains:"]
    for place in (folder, masks):
        if place is not None:
            lines += _describe_tree(place) if place.is_dir() else [f"  {place.name}: a file"]
    if found is not None:
        lines += _describe_rest(found)
    return DataError(
        "\n".join(lines),
        code="no_pairs",
        hint="Use folders images/ and masks/ with equal file names, or names such as x.png and "
        "x_mask.png, or give --masks MASKS, or a table with the columns image and mask.",
    )


def _describe_tree(folder: Path, most: int = 8) -> list[str]:
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            key = (path.parent.relative_to(folder).as_posix(), path.suffix.lower())
            counts[key] += 1
            first.setdefault(key, path.name)
    if not counts:
        return [f"  {folder}: empty"]
    lines = [
        f"  {folder.name}/{'' if parent == '.' else parent + '/'}: {count} × "
        f"{suffix or 'no suffix'}, e.g. {first[parent, suffix]}"
        + ("" if is_image(Path(f"x{suffix}")) else " (unsupported format)")
        for (parent, suffix), count in list(counts.items())[:most]
    ]
    if len(counts) > most:
        lines.append(f"  ... and {len(counts) - most} more folders or file types")
    return lines


STANDARD_INPUT = Path("-")


@dataclass(frozen=True)
class Input:
    """An image to predict, and the location of its results."""

    case: Case
    """The image; its group is taken from a table, otherwise from its folder."""

    below: Path
    """Path of the image below the named folder, and of its results below the output folder."""


def find_inputs(named: Sequence[Path], *, channels: int, dims: int) -> list[Input]:
    """List the images to predict, in the order in which they are named; folders are sorted.

    Args:
        named: Files; folders, whose subfolders are preserved; patterns such as `scans/*.tif`;
            tables with a column image; `-` for names on standard input, one per line.
        channels: Number of channels that the model reads. Files NAME_0000, NAME_0001, ... with
            fewer channels form one image.
        dims: Number of spatial dimensions; if it is 3, the DICOM slices of a folder are one volume.

    Raises:
        DataError: if a path does not exist, if there are no images, or if two results would have
            the same name.
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
        raise DataError(
            f"No images were found in {places}.",
            code="no_images",
            hint="Name image files, or folders that contain them.",
        )
    found = list({one.case.image.resolve(): one for one in reversed(found)}.values())[::-1]
    owners: dict[Path, Path] = {}
    for one in found:
        target = one.below.with_name(io.stem_of(one.below))
        image = one.case.image
        if target in owners:
            raise DataError(
                f"{owners[target]} and {image} would both be written to {target}.",
                code="equal_output_names",
                hint="Rename one of them, or predict them into different folders.",
            )
        owners[target] = image
    return found


def _find_in(path: Path, channels: int, dims: int) -> Iterator[Input]:
    if path.is_dir() and not io.is_image(path):
        images = images_below(path)
        if dims == 3:
            images = join_all_series(images)
        if images == [path]:  # The folder itself is a series of slices.
            yield _input(path, path.parent)
            return
        yield from _join_channels(images, path, channels)
    elif path.exists() and path.suffix.lower() in TABLES:
        for image, group in read_images(path):
            yield _input(image, path.parent, group)
    elif path.exists():
        yield _input(path, path.parent)
    elif glob.has_magic(str(path)):
        start = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        matching = sorted(start.glob(str(path.relative_to(start))))
        yield from _join_channels([one for one in matching if io.is_image(one)], start, channels)
    else:
        raise DataError(
            f"{path} does not exist.", code="file_not_found", hint="Check the spelling."
        )


def _join_channels(images: Sequence[Path], start: Path, channels: int) -> Iterator[Input]:
    """Join files of one channel each if they are named so and the model reads more channels."""
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
