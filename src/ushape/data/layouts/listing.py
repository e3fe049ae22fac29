"""Entries of folders; each folder is listed once while the layout of a dataset is determined."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from ushape.io import is_image
from ushape.io.files import read_head, real_path

ANNOTATIONS = (".json", ".geojson", ".txt", ".zip", ".roi")
"""Ends of the names of files with shapes, which may lie anywhere below a folder."""


@dataclass(frozen=True)
class Entries:
    """What lies directly in a folder. All lists are sorted."""

    images: list[Path]
    """Readable images; a folder such as `a.zarr` is one."""

    folders: list[Path]
    """Folders, also those that are images; hidden ones are left out."""

    others: list[Path]
    """Files and folders that are not images, also hidden ones."""


@dataclass
class _Known:
    """Folders that were listed so far."""

    entries: dict[Path, Entries] = field(default_factory=dict)
    images: dict[Path, list[Path]] = field(default_factory=dict)
    annotations: dict[Path, list[Path]] = field(default_factory=dict)


_KNOWN: ContextVar[_Known | None] = ContextVar("_KNOWN", default=None)


@contextmanager
def listed_once() -> Iterator[None]:
    """List each folder once in this block, since twenty layouts look for their files.

    Without the block, each call of a function of this module reads the folder again.
    """
    if _KNOWN.get() is not None:
        yield
        return
    token = _KNOWN.set(_Known())
    try:
        yield
    finally:
        _KNOWN.reset(token)


def entries_of(folder: Path) -> Entries:
    """Return what lies directly in a folder.

    Raises:
        OSError: if it cannot be listed.
    """
    known = _KNOWN.get()
    if known is None:
        return _list(folder)
    if folder not in known.entries:
        known.entries[folder] = _list(folder)
    return known.entries[folder]


def images_below(folder: Path) -> list[Path]:
    """Return all readable images in a tree, sorted, without hidden files and folders.

    A folder such as `a.zarr` is one image. Links to folders are followed, except into a folder
    that contains the link. The files x_seg.npy of Cellpose, which contain Python objects, are not
    images.
    """
    known = _KNOWN.get()
    if known is None:
        return _images_below(folder, {real_path(folder)})
    if folder not in known.images:
        known.images[folder] = _images_below(folder, {real_path(folder)})
    return known.images[folder]


def files_named(folder: Path, pattern: str) -> list[Path]:
    """Return the files in a folder, other than images, whose name matches a pattern; sorted."""
    return [path for path in entries_of(folder).others if fnmatch(path.name, pattern)]


def folders_below(folder: Path) -> list[Path]:
    """Return the folders directly in a folder, sorted, without hidden ones."""
    return entries_of(folder).folders


def annotation_folders(folder: Path) -> list[Path]:
    """Return the folder and annotations/ in it, where tools put files about many images."""
    return [folder, *(p for p in folders_below(folder) if p.name.lower() == "annotations")]


def annotations_below(folder: Path, *patterns: str) -> list[Path]:
    """Return the files and folders of a tree whose names match, sorted, as `Path.rglob` does.

    Args:
        patterns: Patterns of names, which end with one of ANNOTATIONS.
    """
    known = _KNOWN.get()
    found = None if known is None else known.annotations.get(folder)
    if found is None:
        found = sorted(_walk_annotations(folder))
        if known is not None:
            known.annotations[folder] = found
    return [path for path in found if any(fnmatch(path.name, one) for one in patterns)]


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden; archives of macOS contain a folder `__MACOSX`."""
    return name.startswith(".") or name == "__MACOSX"


def is_cellpose_result(path: Path) -> bool:
    """Return whether a file holds Python objects, as the files x_seg.npy of Cellpose."""
    return path.name.lower().endswith("_seg.npy") and b"'|O'" in read_head(path, 128)


def _list(folder: Path) -> Entries:
    images, folders, others = list[Path](), list[Path](), list[Path]()
    with os.scandir(folder) as found:
        listed = sorted(found, key=lambda entry: _order_of(entry.name))
    for entry in listed:
        path, is_folder = folder / entry.name, _is_folder(entry)
        if is_image(path):
            if not is_cellpose_result(path):
                images.append(path)
        else:
            others.append(path)
        if is_folder and not is_hidden(entry.name):
            folders.append(path)
    return Entries(images, folders, others)


def _images_below(folder: Path, above: set[Path]) -> list[Path]:
    entries = entries_of(folder)
    if not entries.folders:
        return entries.images
    images, names = set(entries.images), [_order_of(path.name) for path in entries.images]
    found, start = list[Path](), 0
    for path in entries.folders:
        if path not in images and (real := real_path(path)) not in above:
            end = bisect_left(names, _order_of(path.name))
            found += entries.images[start:end]
            found += _images_below(path, above | {real})
            start = end
    return found + entries.images[start:]


def _walk_annotations(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if name.lower().endswith(ANNOTATIONS):
                yield Path(place, name)


def _order_of(name: str) -> str:
    """Return the sort key of a name in a folder, as paths are sorted."""
    return os.path.normcase(name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
