"""Groups of images without masks, as those of the images with masks that they belong to."""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterable, Mapping

from ushape.data.grouping.name_rule import find_name_rule
from ushape.formatting import natural_order


def groups_of_others(known: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the groups of additional images, if folders or names indicate them.

    An image belongs to a group if its folder does, if a part of its name does, or if the images
    before and after it in its folder do.

    Args:
        known: Group by the path of an image, without suffix, separated by '/'.
        names: Paths of additional images.
    """
    folders, pattern = values_by_folder(known), find_name_rule(known)
    part_of = {}
    if pattern is not None:
        part_of = {_part_of(pattern, name): group for name, group in known.items()}
    neighbors = sorted(known, key=natural_order)
    places = [natural_order(name) for name in neighbors]
    found = {}
    for name in names:
        group = value_of_folder(name, folders)
        if not group and pattern is not None:
            group = part_of.get(_part_of(pattern, name), "")
        if not group:
            place = bisect(places, natural_order(name))
            near = neighbors[max(0, place - 1) : place + 1]
            is_inside = all(one.rpartition("/")[0] == name.rpartition("/")[0] for one in near)
            groups = {known[one] for one in near}
            if len(near) > 1 and is_inside and len(groups) == 1:
                group = groups.pop()
        if group:
            found[name] = group
    return found


def values_by_folder(known: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Return the value of each folder, at the first level at which folders have one value each.

    Args:
        known: Value by path.

    Returns:
        Value by the names of the leading folders; {} if there is no such level.
    """
    folders = {tuple(name.split("/")[:-1]): set[str]() for name in known}
    for name, value in known.items():
        folders[tuple(name.split("/")[:-1])].add(value)
    for depth in range(1, min(map(len, folders), default=0) + 1):
        found: dict[tuple[str, ...], set[str]] = {}
        for folder, values in folders.items():
            found.setdefault(folder[:depth], set()).update(values)
        if len(found) > 1 and all(len(values) == 1 for values in found.values()):
            return {folder: values.pop() for folder, values in found.items()}
    return {}


def value_of_folder(name: str, folders: Mapping[tuple[str, ...], str]) -> str:
    """Return the value of the folder of an image; '' if it has none."""
    depth = len(next(iter(folders), ()))
    return folders.get(tuple(name.split("/")[:-1])[:depth], "")


def _part_of(pattern: str, name: str) -> str:
    match = re.search(pattern, name)
    return match[1] if match is not None else ""
