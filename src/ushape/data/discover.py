"""A folder -> its cases, in whatever form people keep them."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ushape.data.layouts import LAYOUTS, folders
from ushape.data.layouts.found import Found
from ushape.data.layouts.names import images_below
from ushape.errors import DataError
from ushape.io import is_image
from ushape.types import Case


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """The annotated cases of a folder."""

    cases: list[Case]
    """Sorted by id; groups not inferred yet."""

    layout: str
    notes: list[str]
    """What was left out, a line each."""


def discover(folder: Path, masks: Path | None = None) -> Discovery:
    """Finds images and their masks.

    Args:
        masks: Folder of the masks, where `folder` holds the images only.

    Raises:
        DataError: no folder; nothing readable; no pair (says what was seen and the nearest
            names); several candidates.
    """
    for given in (folder, masks):
        if given is not None and not given.is_dir():
            raise DataError(
                f"{given} is {'a file' if given.exists() else 'not there'}, not a folder.",
                hint="Name the folder that holds the images and masks.",
            )
    found = folders.pair(folder, masks) if masks else _first_layout(folder)
    if found is None or not found.paired:
        raise _no_pairs(folder, masks, found)
    cases = [Case(id=key, image=found.images[key], mask=found.masks[key]) for key in found.paired]
    return Discovery(cases=cases, layout=found.layout, notes=_describe_rest(found))


def find_images(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Images to predict: each file with the path, below the output folder, of its result.

    Raises:
        DataError: a path that is not there, no image in them, two results of one name.
    """
    found: list[tuple[Path, Path]] = []
    for path in paths:
        if path.is_dir():
            found += [(image, image.relative_to(path)) for image in images_below(path)]
        elif path.exists():
            found.append((path, Path(path.name)))
        else:
            raise DataError(f"{path} is not there.", hint="Check the spelling.")
    if not found:
        listed = ", ".join(str(path) for path in paths)
        raise DataError(f"No images in {listed}.", hint="Name image files, or folders of them.")
    owners: dict[Path, Path] = {}
    for image, below in found:
        target = below.with_suffix("")
        if target in owners:
            raise DataError(
                f"{owners[target]} and {image} would both be written to {target}.",
                hint="Rename one of them, or predict them into different folders.",
            )
        owners[target] = image
    return found


def _first_layout(folder: Path) -> Found | None:
    """The first layout that finds pairs; else the first that finds anything."""
    seen = [found for find in LAYOUTS.values() if (found := find(folder)) is not None]
    return next((found for found in seen if found.paired), seen[0] if seen else None)


def _describe_rest(found: Found) -> list[str]:
    """Images without mask and masks without image, with the nearest names."""
    notes = []
    for what, other, ours, theirs in (
        ("images have no mask", "mask", found.images, found.masks),
        ("masks have no image", "image", found.masks, found.images),
    ):
        alone = sorted(ours.keys() - theirs.keys())
        if alone:
            near = difflib.get_close_matches(alone[0], theirs, n=1)
            nearest = f"; the nearest {other} is {theirs[near[0]].name}" if near else ""
            notes.append(f"Left out: {len(alone)} {what}, e.g. {ours[alone[0]].name}{nearest}.")
    return notes


def _no_pairs(folder: Path, masks: Path | None, found: Found | None) -> DataError:
    """Says what was seen, so that the user sees what is missing."""
    lines = [f"No pairs of image and mask in {folder}{f' and {masks}' if masks else ''}. Seen:"]
    for place in [folder, *([masks] if masks else [])]:
        lines += _describe_tree(place)
    if found is not None:
        lines += _describe_rest(found)
    return DataError(
        "\n".join(lines),
        hint="images/ beside masks/ with equal names, x.png beside x_mask.png, or "
        "ushape train IMAGES --masks MASKS.",
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
        + ("" if is_image(Path(f"x{suffix}")) else " (no reader)")
        for (parent, suffix), count in list(counts.items())[:most]
    ]
    if len(counts) > most:
        lines.append(f"  ... and {len(counts) - most} more folders or kinds of file")
    return lines
