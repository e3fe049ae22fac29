"""Listing of a project: its images, the user's masks, and the encoding of the masks."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np

from ushape import io
from ushape.data.discovery import discover, find_masks
from ushape.data.layouts.base import join_all_series
from ushape.data.layouts.listing import images_below
from ushape.data.layouts.names import MASK_FOLDERS, key_below
from ushape.errors import DataError, RunError
from ushape.formatting import display_name
from ushape.io.annotations import read_annotation
from ushape.io.files import absolute_path, real_path
from ushape.labels import LabelSpace
from ushape.planning.run import Run
from ushape.studio.annotations import NO_OBJECT
from ushape.studio.meaning import Meaning, infer_meaning, target_of, target_without_masks
from ushape.studio.relatives import value_of_folder, values_by_folder
from ushape.types import Case, Mask, MaskBox, MaskEncoding, MaskParts, Split

LARGE_PX = 1 << 26
"""Number of pixels from which masks are imported in strips, if their format allows it."""

STRIP_ROWS = 512

IMAGE_NAMES = ("images", "image", "imgs", "img")
"""Names of image folders that have the folder of their masks next to them."""

STATE_FOLDER = ".ushape_studio"
"""Name of the folder in the data folder; hidden, so that it is never taken for data."""

MAX_ALIKE = 64
"""Largest number of masks after which a new one is named."""


@dataclass(frozen=True, kw_only=True)
class StudioImage:
    """An image of a project."""

    id: str
    """Opaque name in addresses."""

    case: Case
    """The image and, if the user has annotated it, its mask."""

    @property
    def mask(self) -> Mask | None:
        return self.case.mask

    @property
    def stamp(self) -> str:
        """Text that changes if a file of the image does."""
        return _stamp_of((self.case.image, *self.case.channels))


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Images and masks of a data folder."""

    data: Path
    """Folder or table that commands such as `ushape check` get."""

    masks: Path | str | None
    """Folder or pattern of the masks that these commands get."""

    folder: Path
    """Folder of the data, in which the state is kept."""

    images: dict[str, StudioImage]
    """Images by id, those with masks first."""

    meaning: Meaning
    """What mask values mean."""

    notes: tuple[str, ...] = ()

    @cached_property
    def folders(self) -> list[str]:
        """Folders of the images, those below that of the data by their paths from there."""
        paths = {absolute_path(one.case.image.parent) for one in self.images.values()}
        top = absolute_path(self.folder)
        return sorted(
            (path.relative_to(top) if path.is_relative_to(top) else path).as_posix()
            for path in paths
        )


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the data of a project lie."""

    data: Path
    """Folder or table."""

    masks: Path | str | None = None
    further: Path | None = None
    """Folder with additional images."""

    run: Run | None = None
    former: Path | None = None
    """Folder recorded in the run, if `data` takes its place."""

    @property
    def folder(self) -> Path:
        """Folder of the data, in which the state is kept."""
        return self.data.parent if self.data.is_file() else self.data

    @property
    def state(self) -> Path:
        """Folder of the state. Masks or tables that are named have a separate one, since the same
        images may have other masks; the data may be moved together with them."""
        named = self.data if self.data.is_file() else self.masks
        if named is None:
            return self.folder / STATE_FOLDER
        path = absolute_path(Path(named))
        with suppress(ValueError):  # Another drive of Windows.
            path = Path(os.path.relpath(path, absolute_path(self.folder)))
        name = hashlib.sha1(path.as_posix().encode(), usedforsecurity=False).hexdigest()[:8]
        return self.folder / f"{STATE_FOLDER}_{name}"


def locate(data: Path, images: Path | None, masks: Path | str | None) -> Place:
    """Return where the data of a folder, a table or a run lie.

    Args:
        images: Folder of additional images.
        masks: Folder of the masks, or a pattern of their names, as for training.

    Raises:
        RunError: if the run is incomplete or damaged, or if its data are gone and no folder is
            named.
    """
    if not (data / "plan.json").is_file():
        return _without_needless_masks(Place(data=data, masks=masks, further=images))
    run = Run.open(data)
    own, own_masks = run.data_and_masks()
    if own.exists():
        return _without_needless_masks(Place(data=own, masks=own_masks, further=images, run=run))
    if images is None:
        raise RunError(
            f"The data of {run.folder} are no longer in {own}.",
            code="data_missing",
            hint="Specify a folder of images: ushape studio RUN IMAGES",
        )
    former = own.parent if own.suffix else own
    return Place(data=images, run=run, former=former)


def _without_needless_masks(place: Place) -> Place:
    """Return the place without its masks if they are found as well when they are not named.

    Both commands then show the same project, unless the masks already have a separate state.
    """
    data, masks = place.data, place.masks
    if masks is None or not data.is_dir() or place.state.exists():
        return place
    with suppress(DataError):
        pairs = [
            {(case.image, case.channels, mask_files(case.mask), case.split) for case in found.cases}
            for found in (discover(data), discover(data, Path(masks)))
        ]
        if pairs[0] == pairs[1]:
            return replace(place, masks=None)
    return place


def list_images(place: Place, known: Meaning | None = None, folders: Sequence[str] = ()) -> Listing:
    """List the images of a project, annotated or not.

    Args:
        known: Meaning of the masks, if it was decided before.
        folders: Folders below that of the data whose images were listed before.

    Raises:
        DataError: if there are no images, or if the masks cannot be used.
    """
    data, folder, masks = place.data, place.folder, place.masks
    cases, notes, stated = list[Case](), list[str](), None
    try:
        found = discover(data, Path(masks) if masks is not None else None)
        cases, notes, stated = list(found.cases), list(found.notes), found.classes
    except DataError as error:
        if error.code != "no_pairs" or masks is not None:
            raise
    annotated = list(cases)
    if data.is_dir():
        others = _cases_without_mask(folder, annotated, folders)
        cases += _with_splits(others, annotated, folder)
    if place.further is not None:
        if not place.further.is_dir() or not images_below(place.further):
            raise _no_images(place.further)
        cases += _cases_without_mask(place.further, annotated, anywhere=True)
    if not cases:
        raise _no_images(folder)
    meaning = known
    if meaning is None and place.run is not None:
        plan = place.run.load_plan()
        space = plan.preprocessing.space
        target = target_of(space, plan.encoding, annotated)
        meaning = Meaning(target=target, space=space if annotated else None)
    if meaning is None and annotated:
        meaning = infer_meaning(annotated, data, stated)
    meaning = meaning or Meaning(target=target_without_masks(cases))
    return Listing(
        data=data,
        masks=masks,
        folder=folder,
        images=_by_id(cases, folder),
        meaning=meaning,
        notes=(*notes, *meaning.notes),
    )


def _no_images(folder: Path) -> DataError:
    return DataError(
        f"{folder} contains no images.",
        code="no_images",
        hint="Specify a folder with images, for example PNG, TIFF or NIfTI files.",
    )


def _cases_without_mask(
    folder: Path, known: Sequence[Case], folders: Sequence[str] = (), *, anywhere: bool = False
) -> list[Case]:
    """Return the images below a folder that are neither masks nor listed already.

    Args:
        known: Images that are listed.
        folders: Folders below `folder` whose images count.
        anywhere: Whether images count in all folders; otherwise, in those that hold images with
            masks, since other folders may contain more masks.
    """
    used = {real_path(path) for case in known for path in (case.image, *case.channels)}
    masks = {real_path(path) for path in find_masks(folder)[0]}
    parents = {real_path(case.image.parent) for case in known}
    parents |= {real_path(folder / one) for one in folders}
    found = []
    for path in join_all_series(images_below(folder)):
        below = path.relative_to(folder).parts[:-1]
        is_elsewhere = bool(known) and not anywhere and real_path(path.parent) not in parents
        is_mask = any(part.lower() in MASK_FOLDERS for part in below)
        if is_elsewhere or is_mask or real_path(path) in used | masks:
            continue
        found.append(Case(id=display_name(key_below(path, folder)), image=path))
    return found


def _with_splits(others: Sequence[Case], annotated: Sequence[Case], folder: Path) -> list[Case]:
    """Return images without masks with the subset that their folder indicates (test/)."""
    splits = {key_below(case.image, folder): case.split for case in annotated}
    folders = values_by_folder(splits)
    names = [key_below(case.image, folder) for case in others]
    pairs = zip(names, others, strict=True)
    return [replace(one, split=cast(Split, value_of_folder(name, folders))) for name, one in pairs]


def _by_id(cases: Sequence[Case], folder: Path) -> dict[str, StudioImage]:
    """Return the images by an id that does not change if the folder is moved."""
    found, root = dict[str, StudioImage](), real_path(folder)
    for case in cases:
        path = real_path(case.image)
        key = path.relative_to(root) if path.is_relative_to(root) else path
        name = hashlib.sha1(key.as_posix().encode(), usedforsecurity=False).hexdigest()[:16]
        found[name] = StudioImage(id=name, case=case)
    return found


def mask_files(mask: Mask | None) -> tuple[Path, ...]:
    """Return the files of a mask."""
    if mask is None:
        return ()
    if isinstance(mask, MaskParts):
        return tuple(mask.paths)
    return (mask if isinstance(mask, Path) else mask.path,)


def mask_origin(mask: Mask | None) -> str:
    """Return a text that changes if the file of a mask does."""
    return _stamp_of(mask_files(mask))


def _stamp_of(paths: Sequence[Path]) -> str:
    facts = []
    for path in paths:
        with suppress(OSError):
            stat = path.stat()
            facts.append(f"{path.name} {stat.st_size} {stat.st_mtime_ns}")
    return "; ".join(facts)


def import_mask(
    image: StudioImage, space: LabelSpace, shape: Sequence[int], *, are_objects: bool
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the rows (planes) of the user's mask as class indices or object numbers.

    Shapes:
        yields: slice of the first axis, and (rows, *S[1:]).

    Raises:
        DataError: if the mask cannot be read, has another size, or has a value of no class.
    """
    mask = image.mask
    assert mask is not None, "an image with a mask"
    size = 1
    for length in shape:
        size *= length
    in_strips = size > LARGE_PX and isinstance(mask, Path) and io.is_read_in_bands(mask)
    if in_strips and isinstance(mask, Path) and io.read_size(mask) == tuple(shape):
        whole = [(0, length) for length in shape[1:]]
        for top in range(0, shape[0], STRIP_ROWS):
            rows = (top, min(top + STRIP_ROWS, shape[0]))
            part = read_annotation(MaskBox(mask, (rows, *whole)))
            codes = _meaning_of(part.codes, space, part.encoding, are_objects)
            yield slice(*rows), codes
        return
    read = read_annotation(mask, image.case.image)
    if read.codes.shape != tuple(shape):
        raise DataError(
            f"{mask}: the mask has the shape {read.codes.shape}, but the image {tuple(shape)}.",
            code="mask_size_mismatch",
            hint="All masks of an image must have the same size as the image.",
        )
    if are_objects and read.instances is not None:
        yield slice(0, shape[0]), read.instances.numbers.astype(np.uint32)
        return
    yield slice(0, shape[0]), _meaning_of(read.codes, space, read.encoding, are_objects)


def _meaning_of(
    codes: np.ndarray, space: LabelSpace, encoding: MaskEncoding, are_objects: bool
) -> np.ndarray:
    if not are_objects:
        return space.classes_of(codes, encoding)
    lowest = 1 if space.threshold is None else space.threshold
    numbers = np.maximum(codes.astype(np.int64) - (lowest - 1), 0).astype(np.uint32)
    if space.ignore is not None:
        numbers[codes == space.ignore] = NO_OBJECT
    return numbers


def new_mask_path(image: StudioImage, listing: Listing, *, is_large: bool) -> Path:
    """Return the path of the first mask of an image: like those of other images.

    Without other masks it lies in a folder masks/ next to images/, or in the image folder. If
    there are several folders of images, it lies next to the image, where it is found in every
    arrangement of folders.

    Args:
        is_large: Whether the mask must be written in parts, as TIFF files are.
    """
    suffix, own = listing.meaning.target.encoding.suffix, image.case.image
    suffix = ".tif" if is_large and suffix in (".png", ".bmp", ".gif") else suffix
    pairs = ((one.case.image, one.mask) for one in listing.images.values())
    alike = islice(((image, mask) for image, mask in pairs if isinstance(mask, Path)), MAX_ALIKE)
    found = Counter(place for image, mask in alike for place in _places_like(image, mask, own))
    if found:
        word = re.compile(rf"(?<![^\W_]){re.escape(io.stem_of(own))}(?![^\W_])")
        place = max(found, key=lambda one: (found[one], word.search(one.name) is not None))
        return place.with_name(place.name + suffix)
    if len(listing.folders) > 1:
        return own.with_name(f"{io.stem_of(own)}_mask{suffix}")
    return new_mask_root(own) / "masks" / (io.stem_of(own) + suffix)


def new_mask_root(image: Path) -> Path:
    """Return the folder in which a folder masks/ is made for an image."""
    parent = image.parent
    return parent.parent if parent.name.lower() in IMAGE_NAMES else parent


def _places_like(image: Path, mask: Path, other: Path) -> list[Path]:
    """Return places, without suffix, that the mask of another image has if it is named so too.

    There are several if the name of the image occurs more than once in that of the mask, as `a` in
    `mask_a`, and none if it does not occur.
    """
    stem, mask_stem = io.stem_of(image), io.stem_of(mask)
    if image.parent.parent != other.parent.parent:
        return []
    folder = mask.parent
    if image.parent != other.parent:
        if not folder.is_relative_to(image.parent):
            return []
        folder = other.parent / folder.relative_to(image.parent)
    starts = [one.start() for one in re.finditer(f"(?={re.escape(stem)})", mask_stem)]
    own = io.stem_of(other)
    return [folder / (mask_stem[:at] + own + mask_stem[at + len(stem) :]) for at in starts]
