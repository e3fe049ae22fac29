"""Assign groups to subsets of a split, evenly by class and foreground, or as ends of a stack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ushape.data.exchange import (
    FOREGROUND,
    Groups,
    stratify_classes,
    value_of_folds,
    value_of_split,
)
from ushape.errors import DataError
from ushape.types import Case

SIZE_TOLERANCE = 1.5
"""Number of cases of a group, relative to the wanted number, up to which groups are preferred."""


def members_of(cases: Sequence[Case]) -> dict[str, list[str]]:
    """Return the sorted case ids of each group."""
    members: dict[str, list[str]] = {}
    for case in sorted(cases, key=lambda case: case.id):
        members.setdefault(case.group, []).append(case.id)
    return members


def mean_shares(
    members: Mapping[str, list[str]], foreground_share: Mapping[str, float]
) -> dict[str, float]:
    """Return the mean foreground share of the cases of each group."""
    return {
        group: float(np.mean([foreground_share[case_id] for case_id in ids]))
        for group, ids in members.items()
    }


def unite_classes(
    members: Mapping[str, list[str]], present: Mapping[str, Iterable[int]]
) -> dict[str, frozenset[int]]:
    """Return the foreground classes of each group."""
    return {
        group: frozenset(found for case_id in ids for found in present.get(case_id, ()))
        for group, ids in members.items()
    }


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Groups that are distributed over the parts."""

    members: Mapping[str, list[str]]
    shares: Mapping[str, float]
    present: Mapping[str, frozenset[int]]
    parts: tuple[str, ...]
    """Subsets that are taken from them: test, validation, or one of the two."""

    all_groups: int
    """Number of groups of the whole dataset, to which the fractions refer."""

    all_cases: int
    fractions: Mapping[str, float]
    """Fraction of all groups in the test and validation sets, by the name of the set."""

    folds: int | None
    """Number of folds, each of which is the test set in turn; None: one split."""

    fold: int
    """Index of the fold that is the test set, from 0."""

    stratify_classes: bool = True
    """Whether groups are exchanged so that more subsets contain each class."""


def assign_strata(pool: Pool, rng: np.random.Generator) -> dict[str, str]:
    """Take test and validation groups evenly spread over the order by class and foreground.

    Then groups are exchanged if a part lacks foreground or a class. Training has all classes; if
    two groups have one, the other is in the test set, since a score without foreground is undefined
    while weights can be selected without.
    """
    members = pool.members
    noise = dict(zip(sorted(members), rng.random(len(members)), strict=True))
    order = order_groups(pool.shares, pool.present, noise)
    part_of = dict.fromkeys(order, "train")
    fractions = {part: pool.fractions[part] for part in pool.parts}
    if pool.folds is not None:
        del fractions["test"]
        tested = _assign_folds(pool, order, noise, pool.folds)
        part_of.update((group, "test") for group in order if tested[group] == str(pool.fold))
    training = [group for group in order if part_of[group] == "train"]
    holders = Counter(found for group in training for found in pool.present[group])
    for place, (part, fraction) in enumerate(fractions.items(), start=1):
        free = [group for group in order if part_of[group] == "train"]
        left = 1 + len(fractions) - place  # For training, and for the next subset.
        wanted = max(1, min(round(fraction * pool.all_groups), len(free) - left))
        # One group of each stratum, the last of which has the rarest classes, or most foreground.
        for stratum in np.array_split(np.arange(len(free)), wanted):
            candidates = [free[index] for index in stratum]
            # Prefer groups without which training keeps every class.
            spare = [g for g in candidates if all(holders[c] > 1 for c in pool.present[g])]
            size = fraction * pool.all_cases / wanted
            chosen = _pick(spare or candidates, members, size, noise)
            part_of[chosen] = part
            holders.subtract(pool.present[chosen])
    if pool.stratify_classes:
        parts = ("train", *fractions)
        movable = [group for group in order if part_of[group] in parts]
        stratify_classes(_exchangeable(pool, movable, noise), part_of, parts, value_of_split)
    return part_of


def _exchangeable(pool: Pool, order: Sequence[str], noise: Mapping[str, float]) -> Groups:
    largest = SIZE_TOLERANCE * pool.all_cases / pool.all_groups
    return Groups(
        order=order,
        classes={
            group: pool.present[group] | {FOREGROUND}
            if pool.present[group] or pool.shares[group] > 0
            else pool.present[group]
            for group in order
        },
        preference=lambda group: (len(pool.members[group]) > largest, _draw(noise[group])),
    )


def order_groups(
    shares: Mapping[str, float], present: Mapping[str, frozenset[int]], noise: Mapping[str, float]
) -> list[str]:
    """Sort groups by their rarest class, from common to rare, then by noisy foreground share.

    Groups without any class come first.
    """
    holders = Counter(found for own in present.values() for found in own)
    ranking = sorted(holders, key=lambda found: (-holders[found], found))
    rank = {found: place for place, found in enumerate(ranking, start=1)}

    def key(group: str) -> tuple[int, float, float]:
        rarest = max((rank[found] for found in present[group]), default=0)
        return rarest, shares[group], noise[group]

    return sorted(shares, key=key)


def _assign_folds(
    pool: Pool, order: Sequence[str], noise: Mapping[str, float], folds: int
) -> dict[str, str]:
    """Return the fold in which each group is tested, as text.

    A random group of each stratum of as many groups as there are folds is in each fold. Then groups
    are exchanged if a fold lacks foreground or a class that it could have.
    """
    found: dict[str, str] = {}
    for start in range(0, len(order), folds):
        stratum = sorted(order[start : start + folds], key=noise.__getitem__)
        for place, group in enumerate(stratum):
            # A short last stratum must not always serve the same folds.
            found[group] = str((place - start // folds) % folds)
    if pool.stratify_classes:
        parts = [str(fold) for fold in range(folds)]
        stratify_classes(_exchangeable(pool, order, noise), found, parts, value_of_folds)
    return found


def _pick(
    candidates: Sequence[str],
    members: Mapping[str, list[str]],
    wanted: float,
    noise: Mapping[str, float],
) -> str:
    """Choose a random group among those that are not much larger than wanted."""
    sizes = {group: len(members[group]) for group in candidates}
    fitting = [group for group in candidates if sizes[group] <= SIZE_TOLERANCE * wanted]
    pool = fitting or [min(candidates, key=lambda group: sizes[group])]
    return min(pool, key=lambda group: _draw(noise[group]))


def _draw(noise: float) -> float:
    """Return other digits of the noise: the choice must not follow the order by foreground."""
    return (noise * 997) % 1


def assign_ends(pool: Pool, rng: np.random.Generator) -> dict[str, str]:
    """Take contiguous blocks at both ends of a stack; the seed decides which is the test set."""
    order = sorted(pool.members)
    if rng.random() < 0.5:
        order.reverse()
    part_of = dict.fromkeys(order, "train")
    if len(pool.parts) < 2 and pool.folds is None:
        for part in pool.parts:
            count = min(max(1, round(pool.fractions[part] * pool.all_groups)), len(order) - 1)
            part_of.update(dict.fromkeys(order[:count], part))
        return part_of
    if pool.folds is not None:
        # The blocks after the fold come first; those before it, used for validation, come last.
        fold = np.array_split(np.arange(len(order)), pool.folds)[pool.fold].tolist()
        order = order[fold[0] :] + order[: fold[0]]
        test = len(fold)
        if len(order) - test < len(pool.parts):
            raise DataError(
                f"With {pool.folds} folds of {len(order)} blocks, no block is left for validation.",
                code="too_many_folds",
                hint=f"Use --folds {len(order)}, or annotate more sections.",
            )
    else:
        test = min(max(1, round(pool.fractions["test"] * len(order))), len(order) - 2)
    validation = max(1, round(pool.fractions["validation"] * len(order)))
    validation = min(validation, len(order) - test - 1) if "validation" in pool.parts else 0
    part_of.update(dict.fromkeys(order[:test], "test"))
    part_of.update(dict.fromkeys(order[len(order) - validation :], "validation"))
    return part_of
