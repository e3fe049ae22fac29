"""DICOM slices in one folder: images by themselves, or together one volume."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ushape.data.layouts.names import strip_mask_word

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
