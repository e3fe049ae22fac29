"""Exchange groups between the subsets of a split, so that more subsets contain each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

FOREGROUND = -1
"""Stands for foreground of any class, among the classes of a group."""

TRIED = 50
"""Largest number of groups with which the exchange of a group is tried; one of the first usually
fits."""


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
    """Subsets of the groups, and how many groups of each subset contain each class.

    Args:
        part_of: Subset of each group; changed by `exchange`.
        parts: Subsets, in the order in which they get a class that few groups contain.
    """

    def __init__(self, groups: Groups, part_of: dict[str, str], parts: Sequence[str]):
        self.classes, self.part_of, self.parts = groups.classes, part_of, parts
        self.holders: dict[str, Counter[int]] = {part: Counter() for part in parts}
        for group in groups.order:
            self.holders[part_of[group]].update(self.classes[group])
        self.order = groups.order
        self.place = {group: index for index, group in enumerate(groups.order)}
        self.covered = {part: len(counts) for part, counts in self.holders.items()}
        """Number of classes that each subset contains."""

    def has(self, part: str, class_index: int) -> bool:
        """Return whether a group of the subset contains the class."""
        return self.holders[part][class_index] > 0

    def nearest(self, group: str, part: str) -> list[str]:
        """Return the groups of a subset that resemble a group most, the most similar first."""
        place = self.place[group]
        inside = (other for other in self.order if self.part_of[other] == part)
        return sorted(inside, key=lambda other: abs(self.place[other] - place))[:TRIED]

    def exchange(self, first: str, second: str) -> None:
        """Exchange the subsets of two groups."""
        part_of_first, part_of_second = self.part_of[first], self.part_of[second]
        self.part_of[first], self.part_of[second] = part_of_second, part_of_first
        for part, leaving, entering in (
            (part_of_first, first, second),
            (part_of_second, second, first),
        ):
            groups_with = self.holders[part]
            for lost in self.classes[leaving] - self.classes[entering]:
                groups_with[lost] -= 1
                self.covered[part] -= groups_with[lost] == 0
            for gained in self.classes[entering] - self.classes[leaving]:
                groups_with[gained] += 1
                self.covered[part] += groups_with[gained] == 1


Value = Callable[[Coverage], tuple[int, ...]]
"""Returns the quality of an assignment; larger is better."""


def value_of_split(now: Coverage) -> tuple[int, ...]:
    """Return how many classes training contains, then how well test and validation cover them.

    Foreground of any class counts more than a class. If only one of the two subsets can contain
    something, the first one does.
    """
    training, *others = now.parts
    foreground = [now.has(part, FOREGROUND) for part in others]
    covered = [now.covered[part] for part in others]
    return now.covered[training], sum(foreground), *foreground, sum(covered), *covered


def value_of_folds(now: Coverage) -> tuple[int, ...]:
    """Return the sum over the folds of the number of classes that they contain."""
    return (sum(now.covered.values()),)


def stratify_classes(
    groups: Groups, part_of: dict[str, str], parts: Sequence[str], value_of: Value
) -> None:
    """Exchange groups as long as this improves the assignment.

    A subset without a class receives a group that contains it, in exchange for the most similar of
    its own groups. The number of groups of each subset stays the same, and if every subset contains
    every class, nothing is changed.

    Args:
        part_of: Subset of each group; changed in place.
        parts: Subsets, as for `Coverage`.
    """
    now = Coverage(groups, part_of, parts)
    holders: dict[int, list[str]] = {}
    for group in sorted(groups.order, key=groups.preference):
        for class_index in groups.classes[group]:
            holders.setdefault(class_index, []).append(group)
    rarest_first = sorted(holders, key=lambda index: (len(holders[index]), index))
    before: tuple[int, ...] = ()
    while before != (before := value_of(now)):
        for class_index in rarest_first:
            for part in parts:
                if not now.has(part, class_index):
                    _bring(class_index, part, holders[class_index], now, value_of)


def _bring(
    class_index: int, part: str, holders: Sequence[str], now: Coverage, value_of: Value
) -> None:
    """Exchange two groups so that a subset gets a class, if this improves the assignment."""
    before, later = value_of(now), now.parts[now.parts.index(part) + 1 :]
    for entering in holders:
        origin = now.part_of[entering]
        # The last group that contains the class may only move to an earlier subset.
        if now.holders[origin][class_index] > 1 or origin in later:
            for leaving in now.nearest(entering, part):
                now.exchange(entering, leaving)
                if value_of(now) > before:
                    return
                now.exchange(entering, leaving)
