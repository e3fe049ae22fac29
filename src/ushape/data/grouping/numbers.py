"""Consecutive numbers in names: runs of close numbers, and numbers in equal steps.

Devices that record one object repeatedly number the images consecutively, so that `exp4_num_3234`
and `exp5_num_3247` show the same object, and the next number is far away. Since close numbers may
also be coincidental, the images of a run must be similar as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from ushape.data.grouping.words import SUBJECTS

MIN_CLOSE_GAPS = 5
"""Smallest number of pairs of neighboring numbers that are close to each other."""

MIN_RATIO = 3
"""Smallest ratio of the smallest gap between runs to the largest gap within a run. For numbers
drawn at random, five or more gaps have such a ratio to the next larger one in 0.6% of all sets."""

MIN_RUNS = 3
"""Training, validation and test need a run each."""

MIN_SAMPLED = 6
"""Smallest number of images whose equal steps are not regarded as chance."""

_LAST_NUMBER = re.compile(r"(\d+)\D*$")


def find_number_runs(
    names: Sequence[str], groups: Sequence[str], are_alike: Callable[[Sequence[str]], bool]
) -> tuple[str, ...]:
    """Return the run of close numbers of each name; empty if there are none.

    Args:
        groups: Group of each name by another field; empty if there are none. If two images of a
            run have the same group, the field is not a setting under which each object was
            recorded, and there are no runs.
        are_alike: Returns whether images with an equal key are clearly more similar than others.
    """
    matches = [_LAST_NUMBER.search(name) for name in names]
    numbers = [int(match[1]) for match in matches if match]
    if len(set(numbers)) < len(names):
        return ()
    order = sorted(range(len(names)), key=numbers.__getitem__)
    limit = _largest_close_gap([numbers[b] - numbers[a] for a, b in pairwise(order)])
    if limit is None:
        return ()
    runs = [[order[0]]]
    for before, place in pairwise(order):
        if numbers[place] - numbers[before] > limit:
            runs.append([])
        runs[-1].append(place)
    if groups and any(len({groups[place] for place in run}) < len(run) for run in runs):
        return ()
    first_of = {place: run[0] for run in runs for place in run}
    keys = tuple(str(numbers[first_of[place]]) for place in range(len(names)))
    return keys if are_alike(keys) else ()


def _largest_close_gap(gaps: Sequence[int]) -> int | None:
    """Return the gap at which the sorted gaps increase by the largest ratio, if it is large."""
    ordered = sorted(gaps)
    ratios = {
        place: ordered[place + 1] / ordered[place]
        for place in range(MIN_CLOSE_GAPS - 1, len(ordered) - MIN_RUNS + 1)
    }
    best = max(ratios, key=ratios.__getitem__, default=None)
    return ordered[best] if best is not None and ratios[best] >= MIN_RATIO else None


def are_sampled_evenly(names: Sequence[str]) -> bool:
    """Return whether names differ by a number in equal steps above 1, as every tenth video frame.

    Steps may differ by 1, from rounding. Numbers of subjects, such as patients, are not meant.
    """
    matches = [re.fullmatch(r"(.*?)(\d+)", name) for name in names]
    numbers = sorted(int(match[2]) for match in matches if match)
    starts = {match[1].rstrip("_-. ").lower() for match in matches if match}
    if len(numbers) < max(MIN_SAMPLED, len(names)) or len(starts) > 1:
        return False
    if re.sub(r".*[\W\d_]", "", starts.pop()) in SUBJECTS:
        return False
    steps = {later - number for number, later in pairwise(numbers)}
    return min(steps) > 1 and max(steps) - min(steps) <= 1
