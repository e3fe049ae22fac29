"""Several mask files next to each image: one for each class, or one for each object."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ushape import io
from ushape.data.classes.names import StatedClasses
from ushape.data.layouts.base import LayoutMatch, index_images, take_splits_from_keys
from ushape.data.layouts.candidates import spread
from ushape.data.layouts.listing import images_below
from ushape.data.layouts.names import MASK_WORDS, stem_key
from ushape.errors import DataError
from ushape.formatting import pluralize
from ushape.types import Mask, MaskParts

UNITED = 255
"""Code of the pixels in any of several masks of one class."""

MAX_GRADE = 6
"""Number up to which numbers may be names of classes, such as grades; no image has more objects."""

_WORD = re.compile(rf"(?<![a-z])({'|'.join(MASK_WORDS)}|class)(?![a-z])", re.IGNORECASE)


def find_mask_files(folder: Path) -> LayoutMatch | None:
    """Find x.jpg with x_class_cell.png, x_class_debris.png, or with x_mask.png, x_mask_1.png.

    The names of masks are that of their image, a word for masks or "class", and the name of a
    class, a number, or both (x_mask_cell_1.png). Each numbered mask is an object, unless numbers
    may belong to the names of classes. Later classes, in alphabetical order, cover earlier ones. At
    least one image has several masks.
    """
    paths = [(stem_key(path, folder), path) for path in images_below(folder)]
    stems = {key for key, _ in paths}
    if not _may_contain_words(stems):
        return None
    owners = {path: own for key, path in paths if (own := _owner_of(key, stems)) is not None}
    if not owners:
        return None
    images = index_images([(key, path) for key, path in paths if path not in owners])
    parts: dict[str, list[tuple[str, Path]]] = {}
    for path, (image, rest) in owners.items():
        parts.setdefault(image, []).append((rest, path))
    several = [own for own in parts.values() if len(own) > 1]
    if not several or not parts.keys() <= images.keys() or not _have_two_values(list(owners)):
        return None
    names = sorted({rest for own in parts.values() for rest, _ in own if not _is_number(rest)})
    are_numbered = _are_numbered(parts.values())
    notes = _note_numbers(names, are_numbered=are_numbered)
    if are_numbered:
        names = sorted({_class_of(name) for name in names})
    if names and any(_is_number(rest) for own in parts.values() for rest, _ in own):
        return None  # x_mask and x_mask_cell: one of them is something else.
    value_of = {name: value for value, name in enumerate(names, start=1)}
    masks: dict[str, Mask] = {
        key: MaskParts(
            tuple(path for _, path in sorted(own)),
            tuple(
                value_of.get(_class_of(rest) if are_numbered else rest, UNITED)
                for rest, _ in sorted(own)
            ),
            are_objects=not names or are_numbered,
        )
        for key, own in parts.items()
    }
    found = LayoutMatch(
        layout=_describe(parts, names, several, are_numbered=are_numbered),
        images=images,
        masks=masks,
        classes=StatedClasses(
            source=folder, names=("background", *names), values=(0, *value_of.values())
        )
        if names
        else None,
        notes=notes,
    )
    return take_splits_from_keys(found)


def _may_contain_words(keys: Iterable[str]) -> bool:
    """Return whether any key may contain a word for masks; it is rarely True without reason."""
    text = "\n".join(keys)
    return not text.isascii() or any(word in text.lower() for word in (*MASK_WORDS, "class"))


def _owner_of(key: str, stems: set[str]) -> tuple[str, str] | None:
    """Return the image of a mask and the rest of the mask's name: a class, a number or ''."""
    place, slash, name = key.rpartition("/")
    for end in range(len(name) - 1, 0, -1):
        if name[end] not in "_-. ":
            continue
        own, rest = f"{place}{slash}{name[:end]}", name[end:]
        if own in stems and _WORD.search(rest):
            return own, _WORD.sub("", rest, count=1).strip("_-. ")
    return None


def _are_numbered(parts: Collection[Sequence[tuple[str, Path]]]) -> bool:
    """Return whether the numbers at the end of all names count the objects of an image.

    They count from 1 or 0 without gaps, by class or for all classes of the image together, to more
    than MAX_GRADE, and differ between images. Others belong to names of classes, as in "grade 1".
    """
    if len({frozenset(rest for rest, _ in own) for own in parts}) < 2:
        return False
    highest = 0
    for own in parts:
        by_class: dict[str, list[int]] = {}
        for rest, _ in own:
            name = _class_of(rest)
            if name == rest:
                return False
            by_class.setdefault(name, []).append(int(rest[len(name) :].strip("_-. ")))
        joined = [number for numbers in by_class.values() for number in numbers]
        if not _is_count(joined) and not all(map(_is_count, by_class.values())):
            return False
        highest = max(highest, *joined)
    return highest > MAX_GRADE


def _is_count(numbers: Sequence[int]) -> bool:
    """Return whether numbers count from 0 or 1 without gaps."""
    return min(numbers) <= 1 and sorted(numbers) == list(range(min(numbers), 1 + max(numbers)))


def _note_numbers(names: Sequence[str], *, are_numbered: bool) -> tuple[str, ...]:
    """Return how names that all end with numbers are understood, and how to change it."""
    if not names or any(_class_of(name) == name for name in names):
        return ()
    example = names[0]
    if are_numbered:
        joined = re.sub(r"[-_. ]+(\d+)$", r"\1", example)
        return (
            f"The numbers at the end of names such as {example} are interpreted as object "
            "numbers, so each mask file is one object. If they belong to the names of classes, "
            f"rename the files without the separator, as in {joined}.",
        )
    return (
        f"The numbers at the end of names such as {example} are regarded as parts of the names of "
        "classes. If each mask file is one object, use --set labels.instances=true, which makes "
        "all of them foreground.",
    )


def _class_of(rest: str) -> str:
    """Return the name of the class of a mask, without the number of its object."""
    return re.sub(r"[-_. ]+\d+$", "", rest)


def _is_number(rest: str) -> bool:
    return not rest or rest.isdigit()


def _have_two_values(paths: Sequence[Path]) -> bool:
    try:
        return all(len(np.unique(io.read_mask(path).codes)) <= 2 for path in spread(paths))
    except DataError:
        return False


def _describe(
    parts: Mapping[str, Sequence[object]],
    names: Sequence[str],
    several: Sequence[object],
    *,
    are_numbered: bool,
) -> str:
    if names:
        if are_numbered:
            return f"a mask file for each object next to the image (of {', '.join(names)})"
        return f"a mask file for each class next to the image ({', '.join(names)})"
    count = sum(map(len, parts.values()))
    return (
        f"{count} mask files next to {pluralize(len(parts), 'image')}, one for each object; "
        f"{len(several)} images have several"
    )
