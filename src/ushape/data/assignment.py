"""Assign groups to parts of a split, evenly by class and foreground, or as ends of a stack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ushape.errors import DataError
from ushape.types import Case


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
    """Parts that are taken from them: test, validation, or one of the two."""

    all_groups: int
    """Number of groups of the whole data set, to which the fractions refer."""

    all_cases: int
    fractions: Mapping[str, float]
    """Fraction of all groups in the test and validation part, by its name."""

    folds: int | None
    """Number of parts that are the test set in turn; None: one split."""

    fold: int
    """Index of the part that is the test set, from 0."""


def assign_strata(pool: Pool, rng: np.random.Generator) -> dict[str, str]:
    """Take test and validation groups evenly spread over the order by class and foreground."""
    members = pool.members
    noise = dict(zip(sorted(members), rng.random(len(members)), strict=True))
    order = order_groups(pool.shares, pool.present, noise)
    part_of = dict.fromkeys(order, "train")
    fractions = {part: pool.fractions[part] for part in pool.parts}
    if pool.folds is not None:
        del fractions["test"]
        part_of.update(dict.fromkeys(_fold_of(order, noise, pool.folds, pool.fold), "test"))
    training = [group for group in order if part_of[group] == "train"]
    holders = Counter(found for group in training for found in pool.present[group])
    for place, (part, fraction) in enumerate(fractions.items(), start=1):
        free = [group for group in order if part_of[group] == "train"]
        left = 1 + len(fractions) - place  # For training, and for the next part.
        wanted = max(1, min(round(fraction * pool.all_groups), len(free) - left))
        # One group of each stratum; the richest stratum always has foreground if any has.
        for stratum in np.array_split(np.arange(len(free)), wanted):
            candidates = [free[index] for index in stratum]
            # Prefer groups without which training keeps every class.
            spare = [g for g in candidates if all(holders[c] > 1 for c in pool.present[g])]
            size = fraction * pool.all_cases / wanted
            chosen = _pick(spare or candidates, members, size, noise)
            part_of[chosen] = part
            holders.subtract(pool.present[chosen])
    return part_of


def order_groups(
    shares: Mapping[str, float], present: Mapping[str, frozenset[int]], noise: Mapping[str, float]
) -> list[str]:
    """Sort groups by their rarest class, from common to rare, then by foreground share and noise.

    Groups without any class come first.
    """
    holders = Counter(found for own in present.values() for found in own)
    ranking = sorted(holders, key=lambda found: (-holders[found], found))
    rank = {found: place for place, found in enumerate(ranking, start=1)}

    def key(group: str) -> tuple[int, float, float]:
        rarest = max((rank[found] for found in present[group]), default=0)
        return rarest, shares[group], noise[group]

    return sorted(shares, key=key)


def _fold_of(order: Sequence[str], noise: Mapping[str, float], folds: int, fold: int) -> list[str]:
    """Choose one group at random from each stratum of as many groups as there are folds."""
    found = []
    for start in range(0, len(order), folds):
        stratum = sorted(order[start : start + folds], key=noise.__getitem__)
        # A short last stratum must not always serve the same folds.
        place = (fold + start // folds) % folds
        found += stratum[place : place + 1]
    return found


def _pick(
    candidates: Sequence[str],
    members: Mapping[str, list[str]],
    wanted: float,
    noise: Mapping[str, float],
) -> str:
    """Choose a random group among those that are not much larger than wanted."""
    sizes = {group: len(members[group]) for group in candidates}
    fitting = [group for group in candidates if sizes[group] <= 1.5 * wanted]
    pool = fitting or [min(candidates, key=lambda group: sizes[group])]
    # The choice must not follow the order by foreground, hence other digits of the noise.
    return min(pool, key=lambda group: (noise[group] * 997) % 1)


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
                f"{pool.folds} folds of {len(order)} blocks leave none for validation.",
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
