"""Volumes of which several files belong to a case: modalities, or a mask for each class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ushape.data.classes.names import StatedClasses
from ushape.data.layouts.base import LayoutMatch
from ushape.data.layouts.listing import folders_below, images_below
from ushape.data.layouts.names import MASK_WORDS, strip_mask_word
from ushape.formatting import pluralize
from ushape.io import is_image, stem_of, suffix_of
from ushape.types import Mask, MaskParts

VOLUMES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")
"""Suffixes of files that are volumes."""

SEPARATORS = "_-. "


def find_modalities(folder: Path) -> LayoutMatch | None:
    """Find volumes of several modalities with one mask, as P_t1, P_t2 and P_seg (BraTS).

    The names of a case agree up to their ending, or the names of the files consist only of the
    ending, and each case has a separate folder. Modalities that at least half of the cases have are
    the channels of the image, in alphabetical order; a case without one of them is left out.
    """
    volumes = [path for path in images_below(folder) if suffix_of(path) in VOLUMES]
    masks = {case: path for path in volumes if (case := _case_of_mask(path)) is not None}
    if len(masks) < 2:
        return None
    modalities: dict[tuple[Path, str], dict[str, Path]] = {case: {} for case in masks}
    for path in sorted(set(volumes) - set(masks.values())):
        name = stem_of(path)
        starts = [s for place, s in masks if place == path.parent and name.startswith(s)]
        if starts:
            start = max(starts, key=len)
            modalities[path.parent, start][name.removeprefix(start)] = path
    counts = Counter(ending for own in modalities.values() for ending in own)
    usual = sorted(ending for ending, count in counts.items() if 2 * count >= len(masks))
    if len(usual) < 2 or any(not ending or ending.isdigit() for ending in usual):
        return None
    complete = {case: own for case, own in modalities.items() if own.keys() >= set(usual)}
    keys = {case: key_of_case(*case, folder) for case in complete}
    missing = [case for case in masks if case not in complete]
    note = (
        f"Left out: {pluralize(len(missing), 'case')} without all modalities "
        f"({', '.join(usual)}), e.g. {key_of_case(*missing[0], folder)}."
        if missing
        else ""
    )
    return LayoutMatch(
        layout=f"several modalities of each case as channels ({', '.join(usual)})",
        images={keys[case]: own[usual[0]] for case, own in complete.items()},
        channels={keys[case]: tuple(own[e] for e in usual[1:]) for case, own in complete.items()},
        masks={keys[case]: masks[case] for case in complete},
        notes=(note,) if note else (),
    )


def _case_of_mask(path: Path) -> tuple[Path, str] | None:
    """Return folder and common beginning of the files of a case; None if `path` is not a mask."""
    name = stem_of(path)
    if name.lower() in MASK_WORDS:
        return path.parent, ""
    own = strip_mask_word(name)
    return (path.parent, name[: len(own) + 1]) if own and name.startswith(own) else None


def key_of_case(place: Path, start: str, folder: Path) -> str:
    """Return the path of a case below the folder; a folder of the same name is named once."""
    name = start.rstrip(SEPARATORS)
    where = place.relative_to(folder)
    return (where if not name or where.name == name else where / name).as_posix()


def join_modalities(images: Sequence[Path], start: Path, channels: int) -> dict[str, list[Path]]:
    """Return the files of each case by its key if each folder holds the modalities of a case.

    Each folder then has as many files as the model expects channels, and their names have the same
    endings in all folders. Otherwise the result is empty.

    Args:
        start: Folder below which the keys are paths.
    """
    if channels < 2:
        return {}
    places: dict[Path, list[Path]] = {}
    for path in images:
        places.setdefault(path.parent, []).append(path)
    if {len(own) for own in places.values()} != {channels}:
        return {}
    found: dict[str, list[Path]] = {}
    endings: set[tuple[str, ...]] = set()
    for place, own in places.items():
        common = os.path.commonprefix([stem_of(path) for path in own])  # noqa: RUF071
        begin = common[: max(common.rfind(separator) for separator in SEPARATORS) + 1]
        ordered = sorted(own, key=lambda path: stem_of(path))
        endings.add(tuple(stem_of(path).removeprefix(begin) for path in ordered))
        found[key_of_case(place, begin, start)] = ordered
    fits = len(endings) == 1 and {len(own) for own in found.values()} == {channels}
    return found if fits else {}


def find_class_files(folder: Path) -> LayoutMatch | None:
    """Find CASE/ct.nii.gz with CASE/segmentations/CLASS.nii.gz (TotalSegmentator).

    Each case has one volume, next to one folder of masks that have the names of the classes.
    Classes are numbered from 1 in alphabetical order; the files of one class recur in other cases.
    """
    images: dict[str, Path] = {}
    files: dict[str, dict[str, Path]] = {}
    for place in folders_below(folder):
        own = [path for path in place.iterdir() if is_image(path) and suffix_of(path) in VOLUMES]
        inside = [below for below in folders_below(place) if images_below(below)]
        if len(own) == 1 and len(inside) == 1:
            images[place.name] = own[0]
            files[place.name] = {stem_of(path): path for path in images_below(inside[0])}
    names = Counter(name for parts in files.values() for name in parts)
    if len(files) < 2 or len(names) < 2 or 2 * sum(n > 1 for n in names.values()) < len(names):
        return None
    value_of = {name: value for value, name in enumerate(sorted(names), start=1)}
    masks: dict[str, Mask] = {
        key: MaskParts(
            tuple(parts[name] for name in sorted(parts)),
            tuple(value_of[name] for name in sorted(parts)),
        )
        for key, parts in files.items()
    }
    return LayoutMatch(
        layout="a folder for each case, with a file for each class",
        images=images,
        masks=masks,
        classes=StatedClasses(
            source=folder, names=("background", *value_of), values=(0, *value_of.values())
        ),
    )
