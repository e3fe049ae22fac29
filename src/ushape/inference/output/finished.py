"""Recognition of folders whose images are all finished, without steps for each single image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ushape.data.layouts.listing import is_cellpose_result, is_hidden
from ushape.inference.output.manifest import Manifest
from ushape.io import is_image
from ushape.io.files import real_path
from ushape.io.names import comparable, tells_names_apart


def masks_of_finished(folders: Sequence[Path], log: Manifest) -> list[str] | None:
    """Return the masks of all images below folders if the log lists all of them as finished.

    Each file that may be an image must be in the log by its name, with its size and its time, and
    its outputs must exist in their stored sizes. Layouts, channels and series are not sought: an
    image that was finished alone and has not changed is still an image. Everything else needs the
    listing of `find_inputs`: a new or changed image, a mask next to the images, files that form one
    image together, links to folders, or names that would have one mask.

    Args:
        folders: Named folders, in their order.

    Returns:
        Paths of the masks below the output folder, in the order of their images; None if not all
        images are finished, or if there are none.
    """
    masks: list[str] = []
    if not all(_add_masks(folder, "", log, masks) for folder in folders):
        return None
    are_unique = len(set(map(comparable, masks))) == len(masks) or (
        len(set(map(os.path.normcase, masks))) == len(masks) and tells_names_apart(log.folder)
    )
    return masks if masks and are_unique else None


def _add_masks(folder: Path, below: str, log: Manifest, masks: list[str]) -> bool:
    """Append the mask of each image in a folder; return whether all of them are finished.

    Args:
        below: Path of the folder below the named one, with '/' at its end.
    """
    real = str(real_path(folder)).rstrip(os.sep)
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: os.path.normcase(entry.name), reverse=True)
    while entries:  # An entry keeps its facts, so a million of them would need a gigabyte.
        entry = entries.pop()
        name = below + entry.name
        if is_hidden(entry.name):
            continue
        if log.knows(name):
            files = log.files_if_unchanged(name, _source_of(entry, real))
            if not files:
                return False
            masks.append(files[-1])
            continue
        path = Path(entry.path)
        if is_image(path) and not is_cellpose_result(path):
            return False
        if entry.is_dir() and (entry.is_symlink() or not _add_masks(path, f"{name}/", log, masks)):
            return False
    return True


def _source_of(entry: os.DirEntry[str], folder: str) -> list[Any]:
    """Return the path without links, the size and the time of a file, as the log stores them."""
    path = os.path.realpath(entry.path) if entry.is_symlink() else f"{folder}{os.sep}{entry.name}"
    facts = entry.stat()
    return [path, [facts.st_size, facts.st_mtime_ns]]
