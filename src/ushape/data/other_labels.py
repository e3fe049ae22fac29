"""Additional labels next to the masks in use, such as objects or those of a second annotator."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ushape import io
from ushape.data.layouts.listing import folders_below, images_below
from ushape.data.layouts.names import strip_mask_word
from ushape.data.mask_stats import parts_per_value
from ushape.errors import DataError
from ushape.formatting import pluralize, quoted
from ushape.labels import MAX_CLASSES
from ushape.types import Case, files_of

MAX_FOLDERS = 20
"""Number of folders above which they are patients or plates."""

FILES_READ = 3
"""Number of files of each folder that are read."""

HEAD_BYTES = 100_000
"""Size of the beginning of a JSON file in which its keys are searched."""


@dataclass(frozen=True)
class OtherLabels:
    """Labels of the images that are not used."""

    text: str
    """Sentence that describes them."""

    use: str
    """Sentence with the command that uses them."""


def find_other_labels(
    data: Path, cases: Sequence[Case], notes: Sequence[str] = ()
) -> tuple[OtherLabels, ...]:
    """Describe each folder or COCO file that holds labels of the same images.

    Args:
        data: Data folder that the user specified, without a folder of masks.
        cases: The cases with the masks in use.
        notes: Notes of the listing of cases; folders that they mention are not repeated.
    """
    masks = [case.mask for case in cases if isinstance(case.mask, Path)]
    if not data.is_dir() or len(masks) < len(cases):
        return ()
    used = {path for case in cases for path in files_of(case)}
    busy = {place for path in used for place in (path, *path.parents)}
    folders = {case.image.parent for case in cases}
    images = folders.pop() if len(folders) == 1 else data
    near = dict.fromkeys((data, *(path.parent.parent for path in masks)))
    within = [place for place in near if place.is_relative_to(data)]
    places = [one for place in within if place.is_dir() for one in folders_below(place)]
    names = {io.stem_of(path) for path in masks}
    free = [
        place
        for place in dict.fromkeys(places)
        if place not in busy and not any(f"Not used: {place.name}/" in note for note in notes)
    ]
    if len(places) > MAX_FOLDERS:
        free = []
    found = [_describe(place, names, images, len(cases)) for place in free]
    found += [
        OtherLabels(
            f"{path.name} seems to be a COCO file.",
            f"To use it: ushape train {quoted(images)} --masks {quoted(path)}.",
        )
        for path in _coco_files(data)
        if path not in used
    ]
    return tuple(one for one in found if one is not None)


def _describe(place: Path, names: set[str], images: Path, total: int) -> OtherLabels | None:
    """Describe the labels in a folder; None if it has none for at least half of the images."""
    short = {strip_mask_word(name) or name for name in names}
    files = [
        path
        for path in images_below(place)
        if (stem := io.stem_of(path)) in names or (strip_mask_word(stem) or stem) in short
    ]
    if 2 * len(files) < total:
        return None
    kind = _kind_of(files[:: max(1, len(files) // FILES_READ)][:FILES_READ])
    if not kind:
        return None
    return OtherLabels(
        f"{place.name}/ contains {kind} of {pluralize(len(files), 'image')}.",
        f"To use them: ushape train {quoted(images)} --masks {quoted(place)}.",
    )


def _kind_of(files: Sequence[Path]) -> str:
    """Return what the files hold; '' for images."""
    most, parts = 0, []
    for path in files:
        try:
            codes = io.read_mask(path).codes
        except DataError:
            return ""
        values = np.unique(codes)
        most = max(most, len(values))
        if len(values) > 2:
            parts.append(parts_per_value(codes, values))
    if len(parts) == len(files) and most > 3 and 0 < np.median(parts) <= 1.25:
        return "numbers of the individual objects"
    return "other masks" if 2 <= most <= MAX_CLASSES else ""


def _coco_files(folder: Path) -> Iterator[Path]:
    """Yield the JSON files in a folder whose beginning has the keys of COCO."""
    for path in sorted(folder.glob("*.json")):
        try:
            with path.open("rb") as file:
                head = file.read(HEAD_BYTES)
                file.seek(max(0, path.stat().st_size - HEAD_BYTES))
                text = (head + file.read(HEAD_BYTES)).decode("utf-8", "replace")
        except OSError:
            continue
        keys = set(re.findall(r'"(images|annotations|categories|segmentation)"\s*:', text))
        if {"images", "categories", "segmentation"} <= keys:
            yield path
