"""Exchange groups between the parts of a split, so that more parts have each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

FOREGROUND = -1
"""Stands for foreground of any class, among the classes of a group."""

TRIED = 50
"""Number of groups with which a group may be exchanged. The first ones nearly always fit."""


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Groups that may be exchanged."""

    order: Sequence[str]
    """Groups, sorted so that neighbors are similar."""

    classes: Mapping[str, frozenset[int]]
    """Classes of each group, with FOREGROUND if it has any."""

    preference: Callable[[str], tuple[bool, float]]
    """Sort key: of several groups that have a class, the first possible one is moved."""


class Coverage:
    """Parts of the groups, and how many groups of each part have a class.

    Args:
        part_of: Part of each group; changed by `exchange`.
        parts: Parts, in the order in which they get a class that few groups have.
    """

    def __init__(self, groups: Groups, part_of: dict[str, str], parts: Sequence[str]):
        self.classes, self.part_of, self.parts = groups.classes, part_of, parts
        self.holders: dict[str, Counter[int]] = {part: Counter() for part in parts}
        for group in groups.order:
            self.holders[part_of[group]].update(self.classes[group])
        self.order = groups.order
        self.place = {group: index for index, group in enumerate(groups.order)}
        self.covered = {part: len(own) for part, own in self.holders.items()}
        """Number of classes that each part has."""

    def has(self, part: str, found: int) -> bool:
        """Return whether a group of the part has the class."""
        return self.holders[part][found] > 0

    def nearest(self, group: str, part: str) -> list[str]:
        """Return the groups of a part that are the most similar to a group, in this order."""
        place = self.place[group]
        inside = (other for other in self.order if self.part_of[other] == part)
        return sorted(inside, key=lambda other: abs(self.place[other] - place))[:TRIED]

    def exchange(self, one: str, other: str) -> None:
        """Exchange the parts of two groups."""
        left, right = self.part_of[one], self.part_of[other]
        self.part_of[one], self.part_of[other] = right, left
        for part, gone, come in ((left, one, other), (right, other, one)):
            own = self.holders[part]
            for found in self.classes[gone] - self.classes[come]:
                own[found] -= 1
                self.covered[part] -= own[found] == 0
            for found in self.classes[come] - self.classes[gone]:
                own[found] += 1
                self.covered[part] += own[found] == 1


Value = Callable[[Coverage], tuple[int, ...]]
"""Returns how good an assignment is; the larger, the better."""


def value_of_split(now: Coverage) -> tuple[int, ...]:
    """Return how well training has the classes, then how well test and validation have them.

    Foreground of any class counts more than a class. If only one of both parts can have
    something, it is the first one.
    """
    training, *others = now.parts
    foreground = [now.has(part, FOREGROUND) for part in others]
    covered = [now.covered[part] for part in others]
    return now.covered[training], sum(foreground), *foreground, sum(covered), *covered


def value_of_folds(now: Coverage) -> tuple[int, ...]:
    """Return the sum over the folds of the number of classes that they have."""
    return (sum(now.covered.values()),)


def stratify_classes(
    groups: Groups, part_of: dict[str, str], parts: Sequence[str], value_of: Value
) -> None:
    """Exchange groups while this makes an assignment better.

    For a part without a class, a group that has it comes in, and the most similar group of the part
    goes out. The numbers of groups of the parts stay the same, and if every part has every class,
    nothing is changed.

    Args:
        part_of: Part of each group; changed in place.
        parts: Parts, as for `Coverage`.
    """
    now = Coverage(groups, part_of, parts)
    holders: dict[int, list[str]] = {}
    for group in sorted(groups.order, key=groups.preference):
        for found in groups.classes[group]:
            holders.setdefault(found, []).append(group)
    rarest_first = sorted(holders, key=lambda found: (len(holders[found]), found))
    before: tuple[int, ...] = ()
    while before != (before := value_of(now)):
        for found in rarest_first:
            for part in parts:
                if not now.has(part, found):
                    _bring(found, part, holders[found], now, value_of)


def _bring(found: int, part: str, holders: Sequence[str], now: Coverage, value_of: Value) -> None:
    """Exchange two groups so that a part gets a class, if this makes the assignment better."""
    before, later = value_of(now), now.parts[now.parts.index(part) + 1 :]
    for come in holders:
        where = now.part_of[come]
        # The last group that has the class may only move to a part that comes first.
        if now.holders[where][found] > 1 or where in later:
            for gone in now.nearest(come, part):
                now.exchange(come, gone)
                if value_of(now) > before:
                    return
                now.exchange(come, gone)
