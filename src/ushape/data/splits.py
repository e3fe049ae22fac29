"""Splits into training, validation and test: by group, stratified by classes and foreground."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ushape.config import from_dict
from ushape.data.grouping import GroupingKind, refuse_too_few
from ushape.data.scan import DatasetStats
from ushape.errors import ConfigError, DataError, RunError
from ushape.formatting import pluralize, reason
from ushape.io.files import read_sealed_json, write_sealed_json
from ushape.types import Case

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Division of the cases into training, validation and test sets."""

    test_fraction: float = 0.2
    """Fraction of the cases in the test set, which is only used for the scores."""

    validation_fraction: float = 0.15
    """Fraction of the cases in the validation set, which is used to select the best weights."""

    folds: int | None = None
    """Number of folds of a cross-validation; replaces test_fraction. null: a single split."""

    fold: int = 0
    """Index of the fold that is the test set, counted from 0."""

    def __post_init__(self) -> None:
        for name in ("test_fraction", "validation_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(
                    f"split.{name} is {getattr(self, name)}, outside (0, 1).",
                    code="value_out_of_range",
                    hint="0.2 is usual. Only scores of held-out cases are valid for new images.",
                )
        if self.folds is not None and not 0 <= self.fold < self.folds >= 2:
            raise ConfigError(
                f"split.folds is {self.folds} and split.fold is {self.fold}.",
                code="value_out_of_range",
                hint="Use at least 2 folds, counted from 0; `ushape cross-validate` trains all.",
            )
        if self.test_fraction + self.validation_fraction >= 0.9:
            raise ConfigError(
                f"split: {self.test_fraction} for test and {self.validation_fraction} for "
                "validation leave too little for training.",
                code="value_out_of_range",
                hint="The defaults are 0.2 and 0.15.",
            )


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Sorted case ids of each part, and a description of the split."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    text: str
    unused: tuple[str, ...] = ()
    """Cases that the user excluded from all parts."""

    def save(self, path: Path) -> None:
        write_sealed_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Splits:
        """Load a file that `save` wrote.

        Raises:
            RunError: if the file cannot be read, or was changed.
        """
        hint = "Copy the complete run folder again."
        values = read_sealed_json(path, RunError, code="damaged_run", hint=hint)
        try:
            return from_dict(cls, values, source=str(path))
        except ConfigError as error:
            raise RunError(
                f"{path} cannot be read: {reason(error)}.", code="damaged_run", hint=hint
            ) from None


def split_dataset(stats: DatasetStats, config: SplitConfig, *, seed: int) -> Splits:
    """Split the readable cases of a scanned data set; see `make_splits`.

    The text of the split contains the warning of the groups, if there is one.
    """
    splits = make_splits(
        stats.grouping.cases,
        {one.case.id: stats.foreground_share(one) for one in stats.readable},
        config,
        kind=stats.grouping.kind,
        seed=seed,
        classes_present={one.case.id: stats.foreground_classes(one) for one in stats.readable},
    )
    warning = stats.grouping.warning
    return replace(splits, text=f"{splits.text}\nWarning: {warning}") if warning else splits


def make_splits(
    cases: Sequence[Case],
    foreground_share: Mapping[str, float],
    config: SplitConfig,
    *,
    kind: GroupingKind,
    seed: int,
    classes_present: Mapping[str, Iterable[int]] | None = None,
) -> Splits:
    """Distribute whole groups, or use the split that the data state.

    Groups are ordered by the rarest class in them, then by their foreground share, and assigned in
    strata, so that each part gets groups with much and with little foreground; if possible, every
    class remains in training. Of a stack, test is one end and validation the other. A part that a
    stated split lacks is taken from its training groups in the same way.

    Args:
        foreground_share: Foreground share by case id, 0 to 1.
        kind: Rule by which the groups were inferred.
        classes_present: Foreground classes by case id; if omitted, only shares are used.

    Raises:
        DataError: if there are fewer than three groups, or if a stated split separates a group,
            omits cases or has no training cases.
        ConfigError: if folds are requested although the data state a split.
    """
    members = members_of(cases)
    refuse_too_few(len(members), len(cases))
    given = _given_parts(cases, config)
    _refuse_too_many_folds(config, len(members))
    lacking = tuple(part for part in ("test", "validation") if part not in given.values())
    free = _training_groups(members, given, lacking)
    pool = _Pool(
        members=free,
        shares=mean_shares(free, foreground_share),
        present=unite_classes(free, classes_present or {}),
        parts=lacking,
        all_groups=len(members),
        all_cases=len(cases),
    )
    assign = _assign_ends if kind == "stack" else _assign_strata
    part_of = {**given, **assign(pool, config, np.random.default_rng(seed))}
    ids = ids_of_parts(members, part_of)
    more = _describe_given(lacking) if given else _describe_assignment(kind, config)
    return Splits(**ids, text=describe_sizes(ids, part_of, kind) + more)


def _refuse_too_many_folds(config: SplitConfig, groups: int) -> None:
    if config.folds is not None and config.folds > groups:
        raise DataError(
            f"{config.folds} folds were requested, but there are only {groups} groups.",
            code="too_many_folds",
            hint=f"Each fold tests at least one group: use at most --folds {groups}.",
        )


def members_of(cases: Sequence[Case]) -> dict[str, list[str]]:
    """Return the sorted case ids of each group."""
    members: dict[str, list[str]] = {}
    for case in sorted(cases, key=lambda case: case.id):
        members.setdefault(case.group, []).append(case.id)
    return members


def ids_of_parts(
    members: Mapping[str, list[str]], part_of: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Return the sorted case ids of each part."""
    return {
        part: tuple(sorted(i for g, ids in members.items() if part_of[g] == part for i in ids))
        for part in PARTS
    }


def mean_shares(
    members: Mapping[str, list[str]], foreground_share: Mapping[str, float]
) -> dict[str, float]:
    return {
        group: float(np.mean([foreground_share[case_id] for case_id in ids]))
        for group, ids in members.items()
    }


def unite_classes(
    members: Mapping[str, list[str]], present: Mapping[str, Iterable[int]]
) -> dict[str, frozenset[int]]:
    return {
        group: frozenset(found for case_id in ids for found in present.get(case_id, ()))
        for group, ids in members.items()
    }


def _given_parts(cases: Sequence[Case], config: SplitConfig) -> dict[str, str]:
    """Return the part of each group that the data state; empty if they state none or only train."""
    stated = {case.id: case.split for case in cases if case.split}
    if not stated:
        return {}
    if len(stated) < len(cases):
        bare = sorted(case.id for case in cases if not case.split)
        raise DataError(
            f"The data set defines the part of {len(stated)} cases, but not of {len(bare)} others, "
            f"e.g. {bare[0]}.",
            code="incomplete_split",
            hint="Assign every case to train, validation or test, or none of them.",
        )
    if set(stated.values()) == {"train"}:
        return {}  # A training folder alone, as in challenges, does not state a split.
    if config.folds is not None:
        raise ConfigError(
            "Folds were requested, but the data set already defines a split.",
            code="folds_of_stated_split",
            hint="Use `ushape train`, or name the image folder, and the mask folder with --masks.",
        )
    return parts_of_groups(members_of(cases), stated, "The given split")


def _training_groups(
    members: Mapping[str, list[str]], given: Mapping[str, str], lacking: Sequence[str]
) -> dict[str, list[str]]:
    """Return the groups from which the missing parts are taken.

    Raises:
        DataError: if none would be left for training.
    """
    free = {group: ids for group, ids in members.items() if given.get(group, "train") == "train"}
    if len(free) <= len(lacking):
        wanted = f", from which {' and '.join(lacking)} would be taken" if lacking else ""
        raise DataError(
            f"The given split has {pluralize(len(free), 'group')} for training{wanted}.",
            code="too_few_training_groups",
            hint="Assign groups to train, validation and test, or annotate more groups.",
        )
    return free


def parts_of_groups(
    members: Mapping[str, list[str]], part_of_case: Mapping[str, str], source: str
) -> dict[str, str]:
    """Return the part of each group.

    Raises:
        DataError: if the cases of a group are in different parts.
    """
    found: dict[str, str] = {}
    separated: list[str] = []
    for group, ids in members.items():
        parts = [part for part in PARTS if any(part_of_case[i] == part for i in ids)]
        found[group] = parts[0]
        if len(parts) > 1:
            sides = [next(i for i in ids if part_of_case[i] == part) for part in parts]
            separated.append(
                f"  {group}: "
                + ", ".join(f"{i} in {part}" for i, part in zip(sides, parts, strict=True))
            )
    if separated:
        more = [f"  ... and {len(separated) - 5} more"] if len(separated) > 5 else []
        lines = [f"{source} separates {pluralize(len(separated), 'group')}:", *separated[:5], *more]
        raise DataError(
            "\n".join(lines),
            code="split_separates_group",
            hint="Images of one group in several parts make the scores invalid. Move them, or list "
            "the correct groups in a table with the columns image,mask,group,split.",
        )
    return found


@dataclass(frozen=True, kw_only=True)
class _Pool:
    """Groups that are distributed over the parts."""

    members: Mapping[str, list[str]]
    shares: Mapping[str, float]
    present: Mapping[str, frozenset[int]]
    parts: tuple[str, ...]
    """Parts that are taken from them: test, validation, or one of the two."""

    all_groups: int
    """Number of groups of the whole data set, to which the fractions refer."""

    all_cases: int


def _assign_strata(pool: _Pool, config: SplitConfig, rng: np.random.Generator) -> dict[str, str]:
    """Take test and validation groups evenly spread over the order by class and foreground."""
    members = pool.members
    noise = dict(zip(sorted(members), rng.random(len(members)), strict=True))
    order = order_groups(pool.shares, pool.present, noise)
    part_of = dict.fromkeys(order, "train")
    fractions = {"test": config.test_fraction, "validation": config.validation_fraction}
    fractions = {part: fractions[part] for part in pool.parts}
    if config.folds is not None:
        del fractions["test"]
        part_of.update(dict.fromkeys(_fold_of(order, noise, config), "test"))
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


def _fold_of(order: Sequence[str], noise: Mapping[str, float], config: SplitConfig) -> list[str]:
    """Choose one group at random from each stratum of as many groups as there are folds."""
    assert config.folds is not None
    found = []
    for start in range(0, len(order), config.folds):
        stratum = sorted(order[start : start + config.folds], key=noise.__getitem__)
        # A short last stratum must not always serve the same folds.
        place = (config.fold + start // config.folds) % config.folds
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


def _assign_ends(pool: _Pool, config: SplitConfig, rng: np.random.Generator) -> dict[str, str]:
    """Take contiguous blocks at both ends of a stack; the seed decides which is the test set."""
    order = sorted(pool.members)
    if rng.random() < 0.5:
        order.reverse()
    part_of = dict.fromkeys(order, "train")
    fractions = {"test": config.test_fraction, "validation": config.validation_fraction}
    if len(pool.parts) < 2:
        for part in pool.parts:
            count = min(max(1, round(fractions[part] * pool.all_groups)), len(order) - 1)
            part_of.update(dict.fromkeys(order[:count], part))
        return part_of
    if config.folds is not None:
        # The blocks after the fold come first; those before it, used for validation, come last.
        fold = np.array_split(np.arange(len(order)), config.folds)[config.fold].tolist()
        order = order[fold[0] :] + order[: fold[0]]
        test = len(fold)
        if len(order) - test < 2:
            raise DataError(
                f"{config.folds} folds of {len(order)} blocks leave none for validation.",
                code="too_many_folds",
                hint=f"Use --folds {len(order)}, or annotate more sections.",
            )
    else:
        test = min(max(1, round(config.test_fraction * len(order))), len(order) - 2)
    validation = max(1, round(config.validation_fraction * len(order)))
    validation = min(validation, len(order) - test - 1)
    part_of.update(dict.fromkeys(order[:test], "test"))
    part_of.update(dict.fromkeys(order[len(order) - validation :], "validation"))
    return part_of


def describe_sizes(
    ids: Mapping[str, Sequence[str]], part_of: Mapping[str, str], kind: GroupingKind
) -> str:
    unit = {"single": "", "stack": "block", "blocks": "block"}.get(kind, "group")
    parts = [
        f"{len(ids[part])} for {part if part != 'train' else 'training'}"
        + (f" ({pluralize(list(part_of.values()).count(part), unit)})" if unit else "")
        for part in PARTS
    ]
    return f"Split by {'image' if kind == 'single' else 'group'}: {', '.join(parts)}."


def _describe_assignment(kind: GroupingKind, config: SplitConfig) -> str:
    if config.folds is not None:
        return f" Fold {config.fold + 1} of {config.folds}."
    if kind == "stack":
        return (
            " The test set is one end of the stack; only its first section is next to a training"
            " section."
        )
    return ""


def _describe_given(lacking: Sequence[str]) -> str:
    taken = f"; {' and '.join(lacking)} taken from the training groups" if lacking else ""
    return f" The data set defines this split{taken}."


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
        foreground_share, classes_present: As for `make_splits`.
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
