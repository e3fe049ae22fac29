"""Groups of parts of large images: those of the whole images, or blocks if there are too few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ushape.data.grouping import OVERRULE, Grouping, find_groups
from ushape.data.grouping.names import MIN_SPLIT_GROUPS
from ushape.data.parts import whole_of
from ushape.formatting import pluralize
from ushape.types import Case

MAX_SLABS = 8
"""If there are too few images, largest number of blocks of neighboring parts per image."""


def find_groups_of_parts(
    cases: Sequence[Case], thumbnails: Mapping[str, np.ndarray], option: str | None = None
) -> Grouping:
    """Group whole images as `find_groups` does, and give each part the group of its image.

    If there are fewer than three groups, the parts of each image are divided into blocks of
    neighbors, with a warning.

    Args:
        thumbnails: Small gray image (T, T) by case id.
        option: As for `find_groups`.

    Raises:
        ConfigError, DataError: if `find_groups` raises it.
    """
    if all(case.box is None for case in cases):
        return find_groups(cases, thumbnails, option)
    parts: dict[str, list[Case]] = {}
    for case in cases:
        parts.setdefault(whole_of(case).id, []).append(case)
    wholes = [whole_of(own[0]) for own in parts.values()]
    shown = {name: thumbnails[own[len(own) // 2].id] for name, own in parts.items()}
    found = find_groups(wholes, shown, option)
    group_of = {case.id: case.group for case in found.cases}
    if len(set(group_of.values())) >= MIN_SPLIT_GROUPS or option is not None or found.is_stated:
        grouped = [replace(case, group=group_of[whole_of(case).id]) for case in cases]
        return replace(found, cases=grouped)
    return _group_slabs(cases, parts, group_of)


def _group_slabs(
    cases: Sequence[Case], parts: Mapping[str, Sequence[Case]], group_of: Mapping[str, str]
) -> Grouping:
    """Divide the parts of each image into blocks of neighbors along its most divided axis."""
    slabs: dict[str, str] = {}
    for name, own in parts.items():
        boxes = [case.box for case in own if case.box is not None]
        if not boxes:
            slabs[own[0].id] = group_of[name]
            continue
        starts = [sorted({box[axis][0] for box in boxes}) for axis in range(len(boxes[0]))]
        axis = max(range(len(starts)), key=lambda one: len(starts[one]))
        count = min(MAX_SLABS, len(starts[axis]))
        for case in own:
            assert case.box is not None, "all parts of an image have one"
            place = starts[axis].index(case.box[axis][0])
            slabs[case.id] = f"{name} ({place * count // len(starts[axis]) + 1} of {count})"
    blocks, images = len(set(slabs.values())), len(parts)
    few = pluralize(len(set(group_of.values())), "group")
    return Grouping(
        cases=[replace(case, group=slabs[case.id]) for case in cases],
        kind="blocks",
        noun="blocks of parts",
        text=f"{blocks} blocks of neighboring parts of {pluralize(images, 'image')}",
        warning=f"The data have only {few}; training, validation and test need one each. The "
        f"parts of the images are split by {blocks} blocks of neighbors instead, so the "
        "scores apply to other parts of the same images, not to new images. To change "
        f"this, {OVERRULE}.",
    )
