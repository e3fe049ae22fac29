"""Result of a layout: pairs of image and mask, and the files without a counterpart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from ushape.data.classes.names import StatedClasses, merge_classes
from ushape.data.layouts.matching import match_names
from ushape.data.layouts.names import SPLIT_WORDS, strip_mask_word
from ushape.errors import DataError
from ushape.formatting import display_name
from ushape.io import dicom, is_dicom_file, stem_of
from ushape.types import Case, Mask, Split


@dataclass(frozen=True, kw_only=True)
class LayoutMatch:
    """Images and masks of one layout, by key: the name that image and mask share."""

    layout: str
    """Description for the user, for example "images/ next to masks/"."""

    images: Mapping[str, Path]
    masks: Mapping[str, Mask]
    """Masks by the key of the image that they belong to."""

    channels: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """Additional files of images that consist of several."""

    splits: Mapping[str, Split] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    classes: StatedClasses | None = None
    notes: tuple[str, ...] = ()

    other_masks: tuple[Path, ...] = ()
    """Additional masks of the images, such as those of individual objects, which are not used."""

    conflict: str = ""
    """Other files that contain masks of as many images, in words; empty if there are none."""

    example: str = ""
    """An image and a mask with different names, in words; empty if the names are equal."""

    folders: tuple[str, str] | None = None
    """Names of the folders of images and masks, if both lie in the data folder."""

    @property
    def paired(self) -> list[str]:
        return sorted(self.images.keys() & self.masks.keys())

    @property
    def cases(self) -> list[Case]:
        """Cases, one per pair, sorted by id."""
        return [
            Case(
                id=display_name(key),
                image=self.images[key],
                mask=self.masks[key],
                group=self.groups.get(key, ""),
                channels=self.channels.get(key, ()),
                split=self.splits.get(key, ""),
                metadata=self.metadata.get(key, {}),
            )
            for key in self.paired
        ]


def index_images(paths: Sequence[tuple[str, Path]]) -> dict[str, Path]:
    """Return the images by key.

    Raises:
        DataError: if two images have the same key.
    """
    found: dict[str, Path] = {}
    for key, path in paths:
        if key in found:
            raise DataError(
                f"Two images are named {key}: {found[key]} and {path}.",
                code="ambiguous_image",
                hint="Remove or rename one of them: a mask must belong to one image.",
            )
        found[key] = path
    return found


def index_masks(paths: Sequence[tuple[str, Path]], images: Mapping[str, Path]) -> dict[str, Path]:
    """Return the masks by the key of the image that they belong to, as `match_names` finds it.

    A mask without an image keeps its own key, without a word such as `_mask`.

    Raises:
        DataError: if there are two masks for one image, or two images for each mask.
    """
    return match_files(paths, images)[0]


def match_files(
    paths: Sequence[tuple[str, Path]], images: Mapping[str, Path]
) -> tuple[dict[str, Path], str]:
    """Return the masks as `index_masks`, and how their names differ from those of the images."""
    found: dict[str, Path] = {}
    for key, path in paths:
        _add_mask(found, key, path)
    names = {
        key: f"{key[: len(key) - len(stem_of(path))]}{path.name}" for key, path in images.items()
    }
    matching = match_names(names, list(found))
    matched: dict[str, Path] = {}
    for key, path in found.items():
        if key in matching.image_of:
            _add_mask(matched, matching.image_of[key], path)
    for key, path in found.items():
        if key not in matching.image_of:
            own = strip_mask_word(key) or key
            matched.setdefault(own if own not in images else key, path)
    return matched, matching.example


def _add_mask(found: dict[str, Path], key: str, path: Path) -> None:
    if key in found:
        raise DataError(
            f"Two masks belong to {key}: {found[key]} and {path}.",
            code="ambiguous_mask",
            hint="Remove one of them from the folder.",
        )
    found[key] = path


def pair_files(
    layout: str, images: Sequence[tuple[str, Path]], masks: Sequence[tuple[str, Path]]
) -> LayoutMatch:
    """Pair images and masks by their keys; the slices of a series are joined.

    If the images lie in separate folders and have one name, as `s01/image` and `s02/image`, the key
    is that of the folder.

    Raises:
        DataError: if two images have one key, or as `index_masks`.
    """
    indexed = index_images(join_series(images, [key for key, _ in masks]))
    found, example = match_files(masks, indexed)
    paired = indexed.keys() & found.keys()
    if example and len(paired) > 1 and len({key.rpartition("/")[2] for key in paired}) == 1:
        short = {key: key.rpartition("/")[0] for key in paired}
        indexed = {short.get(key, key): path for key, path in indexed.items()}
        found = {short.get(key, key): path for key, path in found.items()}
    return take_splits_from_keys(
        LayoutMatch(layout=layout, images=indexed, masks=found, example=example)
    )


def take_splits_from_keys(found: LayoutMatch) -> LayoutMatch:
    """Take the split from the first part of the keys, as in `images/train/a` and `masks/train/a`.

    Every pair must lie in such a folder, and there must be at least two subsets.
    """
    parts = {key: SPLIT_WORDS.get(key.partition("/")[0].lower()) for key in found.paired}
    stated = {key: part for key, part in parts.items() if part and "/" in key}
    if found.splits or len(stated) < len(parts) or len(set(stated.values())) < 2:
        return found
    return replace(found, splits=stated)


def splits_of(keys: Sequence[str]) -> dict[str, Split]:
    """Return the subsets given by folders named train, val or test; {} if a file is in none."""
    parts: dict[str, Split] = {}
    for key in keys:
        stated = [SPLIT_WORDS[word] for word in key.lower().split("/")[:-1] if word in SPLIT_WORDS]
        if stated:
            parts[key] = stated[0]
    complete = len(parts) == len(keys) and len(set(parts.values())) > 1
    return parts if complete else {}


T = TypeVar("T")


def join_parts(
    found: Mapping[Split, LayoutMatch],
    names: Mapping[Split, str],
    layout: str,
    notes: tuple[str, ...] = (),
) -> LayoutMatch:
    """Join the subsets of a split; keys are prefixed with the name of the subset.

    Raises:
        DataError: if a mask value has different names in two subsets.
    """

    def join(values_of: Callable[[LayoutMatch], Mapping[str, T]]) -> dict[str, T]:
        return {
            f"{names[part]}/{key}": value
            for part, own in found.items()
            for key, value in values_of(own).items()
        }

    parts = [(f"{names[part]}/{key}", part) for part, own in found.items() for key in own.images]
    return LayoutMatch(
        layout=layout,
        images=join(lambda own: own.images),
        masks=join(lambda own: own.masks),
        channels=join(lambda own: own.channels),
        groups=join(lambda own: own.groups),
        metadata=join(lambda own: own.metadata),
        splits=dict(parts),
        classes=merge_classes(own.classes for own in found.values()),
        example=next((own.example for own in found.values() if own.example), ""),
        notes=notes + tuple(note for own in found.values() for note in own.notes),
    )


def join_series(images: Sequence[tuple[str, Path]], masks: Iterable[str]) -> list[tuple[str, Path]]:
    """Join DICOM slices into one image if a mask is named like their folder.

    Example: `p1/0001.dcm`, `p1/0002.dcm`, ... next to a mask `p1.nii.gz`; the slices may lie
    deeper, as in `p1/series/0001.dcm`. Slices with individual masks remain single images. Contours
    of radiotherapy are not images.

    Args:
        masks: Keys of the masks.
    """
    images = [(key, path) for key, path in images if not is_structure_set(path)]
    names = {name for key in masks for name in (key, strip_mask_word(key)) if name}
    wanted = names - {key for key, _ in images}
    folders: dict[str, set[Path]] = {}
    for key, path in images:
        if owner := _owner_of(key, path, wanted):
            folders.setdefault(owner, set()).add(path.parent)
    volumes = {owner: places.pop() for owner, places in folders.items() if len(places) == 1}
    single = [(key, path) for key, path in images if _owner_of(key, path, set(volumes)) is None]
    return sorted([*single, *volumes.items()])


def join_all_series(images: Sequence[Path]) -> list[Path]:
    """Replace DICOM slices by their folder if it holds several; leave out structure sets."""
    images = [path for path in images if not is_structure_set(path)]
    slices: dict[Path, list[Path]] = {}
    for path in images:
        if is_dicom_file(path):
            slices.setdefault(path.parent, []).append(path)
    volumes = {folder for folder, paths in slices.items() if len(paths) > 1}
    return sorted({path.parent if path.parent in volumes else path for path in images})


def is_structure_set(path: Path) -> bool:
    """Return whether a path is a DICOM file with contours of radiotherapy."""
    return is_dicom_file(path) and dicom.is_structure_set(path)


def _owner_of(key: str, path: Path, wanted: set[str]) -> str | None:
    """Return the key of the nearest folder above a slice that is named like a mask."""
    if not is_dicom_file(path):
        return None
    while "/" in key:
        key = key.rpartition("/")[0]
        if key in wanted:
            return key
    return None
