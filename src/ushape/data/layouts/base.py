"""What a layout finds: pairs, and what is left over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from ushape.data.layouts.names import (
    SPLIT_WORDS,
    StatedClasses,
    merge_classes,
    strip_image_word,
    strip_mask_word,
)
from ushape.errors import DataError
from ushape.types import Case, Mask, Split


@dataclass(frozen=True, kw_only=True)
class LayoutMatch:
    """Images and masks of one layout, by key: the name that both have in common."""

    layout: str
    """In words: "images/ beside masks/"."""

    images: Mapping[str, Path]
    masks: Mapping[str, Mask]
    """By the key of the image that each belongs to."""

    channels: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """Further files of an image, where it has several."""

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
        """One per pair, sorted by id."""
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
    """Images by key.

    Raises:
        DataError: two images of one key.
    """
    found: dict[str, Path] = {}
    for key, path in paths:
        if key in found:
            raise DataError(
                f"Two images are called {key}: {found[key]} and {path}.",
                hint="Take one of them out, or rename it: a mask must belong to one image.",
            )
        found[key] = path
    return found


def index_masks(paths: Sequence[tuple[str, Path]], images: Mapping[str, Path]) -> dict[str, Path]:
    """Masks by the key of their image: the same key, or one with a word such as `_mask`.

    A mask `a_mask` or `a` belongs to the image `a`, else to `a_image` if that is the only one.

    Raises:
        DataError: two masks for one image.
    """
    short = _without_image_words(images)
    found: dict[str, Path] = {}
    for key, path in paths:
        stripped = strip_mask_word(key)
        own = key if key in images or stripped is None else stripped
        own = own if own in images else short.get(own, own)
        if own in found:
            raise DataError(
                f"Two masks belong to {own}: {found[own]} and {path}.",
                hint="Take one of them out of the folder.",
            )
        found[own] = path
    return found


def _without_image_words(images: Mapping[str, Path]) -> dict[str, str]:
    """Key of each image by its name without a word such as `_image`; none that two share."""
    found: dict[str, list[str]] = {}
    for key in images:
        stripped = strip_image_word(key)
        if stripped is not None:
            found.setdefault(stripped, []).append(key)
    return {stripped: keys[0] for stripped, keys in found.items() if len(keys) == 1}


def take_splits_from_keys(found: LayoutMatch) -> LayoutMatch:
    """`images/train/a` beside `masks/train/a`: the first part of the key states the split.

    Only where every pair lies in such a folder, and these are of at least two parts.
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
    """Keys get the part's name in front, since the same name may be in two parts.

    Raises:
        DataError: a mask value has different names in two parts.
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


SLICE = ".dcm"


def join_series(images: Sequence[tuple[str, Path]], masks: Iterable[str]) -> list[tuple[str, Path]]:
    """Where a mask is called like a folder of slices, that folder is the image.

    `p1/0001.dcm`, `p1/0002.dcm`, ... beside a mask `p1.nii.gz`; the slices may lie deeper, as in
    `p1/series/0001.dcm`. Slices with masks of their own stay images by themselves.

    Args:
        images: Key and path of each file.
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
    """Folders of slices in place of the slices; a folder with a single one keeps it."""
    slices: dict[Path, list[Path]] = {}
    for path in images:
        if path.suffix.lower() == SLICE:
            slices.setdefault(path.parent, []).append(path)
    volumes = {folder for folder, paths in slices.items() if len(paths) > 1}
    return sorted({path.parent if path.parent in volumes else path for path in images})


def _owner_of(key: str, path: Path, wanted: set[str]) -> str | None:
    """The nearest folder above a slice that is wanted as an image."""
    if path.suffix.lower() != SLICE:
        return None
    while "/" in key:
        key = key.rpartition("/")[0]
        if key in wanted:
            return key
    return None
