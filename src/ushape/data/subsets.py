"""Subsets of cases: nested ones of the training groups, and evenly spaced ones for validation."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from ushape.data.assignment import mean_shares, members_of, order_groups, unite_classes
from ushape.types import Case

MAX_TUNING_VALUES = 48_000_000
"""Largest number of validation pixels times channels (a byte each) on which a rule is chosen; if
there are more, cases are left out evenly."""


def nest_subsets(
    cases: Sequence[Case],
    foreground_share: Mapping[str, float],
    classes_present: Mapping[str, Iterable[int]],
    *,
    points: int,
    seed: int,
) -> list[frozenset[str]]:
    """Return nested subsets: all groups, half of them, a quarter, ...; the smallest set first.

    Of each two groups that are neighbors in the order by class and foreground, a random one is
    kept, so that a subset is as varied as the whole.

    Args:
        cases: Training cases with their groups.
        foreground_share, classes_present: By case id, as for `data.splits.make_splits`.
        points: Maximum number of subsets.
    """
    members = members_of(cases)
    shares = mean_shares(members, foreground_share)
    rng = np.random.default_rng(seed)
    noise = dict(zip(members, rng.random(len(members)), strict=True))
    order = order_groups(shares, unite_classes(members, classes_present), noise)
    with_foreground = {group for group, share in shares.items() if share > 0}
    orders = [order]
    while len(orders) < points and len(orders[-1]) > 1:
        orders.append(_halve(orders[-1], with_foreground, rng))
    return [frozenset(groups) for groups in reversed(orders)]


def _halve(order: Sequence[str], preferred: Collection[str], rng: np.random.Generator) -> list[str]:
    """Keep one of each pair of neighbors; of an odd number, a random one has no neighbor.

    If only one of a pair is preferred, it is kept, so that no subset is without foreground.
    """
    sizes = np.full((len(order) + 1) // 2, 2)
    if len(order) % 2:
        sizes[rng.integers(len(sizes))] = 1
    kept = []
    for places in np.split(np.arange(len(order)), np.cumsum(sizes)[:-1]):
        pair = [order[place] for place in places]
        kept.append(str(rng.choice([group for group in pair if group in preferred] or pair)))
    return kept


def thin_out_cases(sizes: Sequence[int], channels: int) -> Sequence[int]:
    """Return the indices of the cases to use: all, or as many as MAX_TUNING_VALUES allows."""
    step = max(1, -(-sum(sizes) * channels // MAX_TUNING_VALUES))
    return range(0, len(sizes), step)
