"""Result of a layout: pairs of image and mask, and the files without a partner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from ushape.data.class_names import StatedClasses, merge_classes
from ushape.data.layouts.names import (
    SPLIT_WORDS,
    strip_image_word,
    strip_mask_word,
)
from ushape.errors import DataError
from ushape.io import is_dicom_file
from ushape.types import Case, Mask, Split


@dataclass(frozen=True, kw_only=True)
class LayoutMatch:
    """Images and masks of one layout, by key: the name that image and mask share."""

    layout: str
    """Description for the user, for example "images/ beside masks/"."""

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

    @property
    def paired(self) -> list[str]:
        return sorted(self.images.keys() & self.masks.keys())

    @property
    def cases(self) -> list[Case]:
        """Cases, one per pair, sorted by id."""
        return [
            Case(
                id=key,
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
    """Return the masks by the key of their image: the same key, or one with a word like `_mask`.

    A mask `a_mask` or `a` belongs to the image `a`, otherwise to `a_image` if it is the only one.

    Raises:
        DataError: if there are two masks for one image.
    """
    short: dict[str, str] = {}
    counts = Counter(map(strip_image_word, images))
    for key in images:
        stripped = strip_image_word(key)
        if stripped is not None and counts[stripped] == 1:
            short[stripped] = key
    found: dict[str, Path] = {}
    for key, path in paths:
        stripped = strip_mask_word(key)
        own = key if key in images or stripped is None else stripped
        own = own if own in images else short.get(own, own)
        if own in found:
            raise DataError(
                f"Two masks belong to {own}: {found[own]} and {path}.",
                code="ambiguous_mask",
                hint="Remove one of them from the folder.",
            )
        found[own] = path
    return found


def take_splits_from_keys(found: LayoutMatch) -> LayoutMatch:
    """Take the split from the first part of the keys, as in `images/train/a` and `masks/train/a`.

    Every pair must lie in such a folder, and there must be at least two parts.
    """
    parts = {key: SPLIT_WORDS.get(key.partition("/")[0].lower()) for key in found.paired}
    stated = {key: part for key, part in parts.items() if part and "/" in key}
    if found.splits or len(stated) < len(parts) or len(set(stated.values())) < 2:
        return found
    return replace(found, splits=stated)


T = TypeVar("T")


def join_parts(
    found: Mapping[Split, LayoutMatch],
    names: Mapping[Split, str],
    layout: str,
    notes: tuple[str, ...] = (),
) -> LayoutMatch:
    """Join the parts of a split; keys are prefixed with the name of the part.

    Raises:
        DataError: if a mask value has different names in two parts.
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
        notes=notes + tuple(note for own in found.values() for note in own.notes),
    )


def join_series(images: Sequence[tuple[str, Path]], masks: Iterable[str]) -> list[tuple[str, Path]]:
    """Join DICOM slices into one image if a mask is named like their folder.

    Example: `p1/0001.dcm`, `p1/0002.dcm`, ... beside a mask `p1.nii.gz`; the slices may lie deeper,
    as in `p1/series/0001.dcm`. Slices with masks of their own remain single images.

    Args:
        masks: Keys of the masks.
    """
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
    """Replace DICOM slices by their folder if it holds several."""
    slices: dict[Path, list[Path]] = {}
    for path in images:
        if is_dicom_file(path):
            slices.setdefault(path.parent, []).append(path)
    volumes = {folder for folder, paths in slices.items() if len(paths) > 1}
    return sorted({path.parent if path.parent in volumes else path for path in images})


def _owner_of(key: str, path: Path, wanted: set[str]) -> str | None:
    """Return the key of the nearest folder above a slice that is named like a mask."""
    if not is_dicom_file(path):
        return None
    while "/" in key:
        key = key.rpartition("/")[0]
        if key in wanted:
            return key
    return None
