"""Slices with their neighbors: of a volume in memory, and of images that are slices of a stack."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from ushape.formatting import pluralize
from ushape.types import Case

LAST_NUMBER = re.compile(r"(\d+)(?!.*\d)")
"""The last number in the id of a case."""


def stack_slices(volume: np.ndarray, index: int, slices: int) -> np.ndarray:
    """Return a slice of a volume with its neighbors as channels; the edge slices are repeated.

    Args:
        index: Number of the slice in the middle.
        slices: Number N of slices, odd.

    Shapes:
        volume: (C, z, y, x).
        returns: (N C, y, x), all channels of the first slice before those of the next one.
    """
    reach = slices // 2
    places = np.arange(index - reach, index + reach + 1).clip(0, volume.shape[1] - 1)
    _, _, height, width = volume.shape
    near = volume[..., places[0] : places[-1] + 1, 0:height, 0:width]  # All that a file must read.
    picked = np.moveaxis(near[:, places - places[0]], 1, 0)
    return np.ascontiguousarray(picked).reshape(-1, height, width)


def neighbors_of(case: Case, companions: Sequence[Case], step: int, reach: int) -> Iterator[Case]:
    """Yield the next slices of a stack in one direction, up to the first one that is missing.

    Slices of a stack have ids that differ only in the last number. They follow each other in the
    order of this number, at the distance that is most common in the stack.

    Args:
        companions: Cases of the group.
        step: 1 for the following slices, -1 for the previous ones.
        reach: Largest number of slices.
    """
    own, number = _place_of(case)
    if number is None:
        return
    stack = _stack_of(own, companions)
    distance = _distance(stack)
    for place in range(1, reach + 1):
        found = stack.get(number + step * place * distance)
        if found is None:
            return
        yield found


def count_without_neighbors(groups: Sequence[Sequence[Case]]) -> int:
    """Return the number of cases that have no slice next to them on at least one side."""
    missing = 0
    for group in groups:
        stacks = _numbers_of_stacks(group)
        missing += sum(_place_of(case)[1] is None for case in group)
        for numbers in stacks.values():
            distance = _distance(numbers)
            missing += sum(
                number - distance not in numbers or number + distance not in numbers
                for number in numbers
            )
    return missing


def describe_missing(groups: Sequence[Sequence[Case]]) -> str:
    """Return a sentence about the cases that `count_without_neighbors` counts; '' if none."""
    total, missing = sum(map(len, groups)), count_without_neighbors(groups)
    if not missing:
        return ""
    return (
        f"{pluralize(missing, 'image')} of {total} {'lacks' if missing == 1 else 'lack'} a direct "
        "neighbor in the stack on at least one side; the nearest slice is repeated."
    )


def have_neighbors(groups: Sequence[Sequence[Case]]) -> bool:
    """Return whether any case has a slice next to it in its group."""
    return any(
        len(numbers) > 1 for group in groups for numbers in _numbers_of_stacks(group).values()
    )


def _numbers_of_stacks(group: Sequence[Case]) -> dict[tuple[str, str], set[int]]:
    """Return the numbers of the slices of each stack of a group."""
    stacks: dict[tuple[str, str], set[int]] = {}
    for case in group:
        own, number = _place_of(case)
        if number is not None:
            stacks.setdefault(own, set()).add(number)
    return stacks


def _place_of(case: Case) -> tuple[tuple[str, str], int | None]:
    """Return the id of a case around its last number, and this number; None if it has none."""
    found = LAST_NUMBER.search(case.id)
    if found is None:
        return (case.id, ""), None
    return (case.id[: found.start()], case.id[found.end() :]), int(found[1])


def _stack_of(own: tuple[str, str], companions: Sequence[Case]) -> dict[int, Case]:
    """Return the cases of a stack by their number."""
    places = ((_place_of(one), one) for one in companions)
    return {number: one for (name, number), one in places if name == own and number is not None}


def _distance(numbers: Sequence[int] | set[int] | dict[int, Case]) -> int:
    """Return the most common distance of consecutive numbers, the smaller one of equal rank."""
    gaps = Counter(after - before for before, after in pairwise(sorted(numbers)))
    return min(gaps, key=lambda gap: (-gaps[gap], gap), default=1)
