"""Two folders of any names with the same files in both, one of images, one of masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from ushape import io
from ushape.data.layouts import folders
from ushape.data.layouts.base import LayoutMatch
from ushape.data.layouts.names import folders_below, images_below, stem_key, strip_mask_word
from ushape.errors import DataError

MAX_FOLDERS = 20
"""More folders than this are patients or plates, not one of images and one of masks."""

MAX_VALUES = 32
"""A folder of which some files together hold more values is one of images."""

LOOKED_AT = 6
"""Files of each folder that are read to tell images from masks."""


def find(folder: Path) -> LayoutMatch | None:
    """Takes the only two folders of which at least half of the files have a partner in the other.

    Masks are those whose first files hold 2 to MAX_VALUES values; images hold more.

    Raises:
        DataError: more than two folders fit, masks among them, or both look like masks.
    """
    below = folders_below(folder)
    if len(below) > MAX_FOLDERS:
        return None
    filled = {place: paths for place in below if (paths := images_below(place))}
    keys = {place: _keys_of(place, paths) for place, paths in filled.items()}
    fitting = [both for both in combinations(filled, 2) if _fit(*(keys[place] for place in both))]
    if not fitting:
        return None
    places = sorted({place for both in fitting for place in both})
    listed = ", ".join(f"{place.name}/" for place in places)
    hint = f"Name the two that belong together: ushape train {places[0]} --masks {places[1]}"
    few = [place for place in places if _holds_few_values(filled[place])]
    if not few:
        return None
    if len(places) > 2:
        raise DataError(f"{folder}: files are called the same in {listed}.", hint=hint)
    if len(few) == 2:
        raise DataError(f"{folder}: {listed} may both be masks; neither is called so.", hint=hint)
    images = next(place for place in places if place != few[0])
    found = folders.pair(images, few[0])
    why = f"{images.name}/ beside {few[0].name}/, which holds few values: the masks"
    return replace(found, layout=why)


def _keys_of(place: Path, paths: Sequence[Path]) -> set[str]:
    """Names of files below their folder, without words such as `_mask`."""
    keys = [stem_key(path, place) for path in paths]
    return {strip_mask_word(key) or key for key in keys}


def _fit(one: set[str], other: set[str]) -> bool:
    """At least half of the smaller folder has a partner."""
    return 0 < min(len(one), len(other)) <= 2 * len(one & other)


def _holds_few_values(paths: Sequence[Path]) -> bool:
    values: set[int] = set()
    for index in np.unique(np.linspace(0, len(paths) - 1, LOOKED_AT).astype(int)):
        try:
            values.update(np.unique(io.read_mask(paths[index]).codes).tolist())
        except DataError:  # Half values, four channels: no mask.
            return False
        if len(values) > MAX_VALUES:
            return False
    return len(values) >= 2
