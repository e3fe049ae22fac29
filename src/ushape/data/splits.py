"""Train, validation and test: by group, never by image; stratified by foreground; seeded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ushape.data.grouping import GroupingKind, refuse_too_few
from ushape.data.scan import DatasetStats
from ushape.errors import ConfigError, DataError, RunError
from ushape.formatting import reason
from ushape.io.files import write_bytes
from ushape.types import Case

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How many cases are set aside."""

    test_fraction: float = 0.2
    """Share of the cases that are used once, for the scores."""

    validation_fraction: float = 0.15
    """Share of the cases that choose the best weights."""

    folds: int | None = None
    """Cross-validation: test is one of so many parts, in place of test_fraction."""

    fold: int = 0
    """Which part, from 0; over all of them each group is in test once."""

    def __post_init__(self) -> None:
        for name in ("test_fraction", "validation_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(
                    f"split.{name} is {getattr(self, name)}, outside (0, 1).",
                    hint="0.2 is usual: without cases set aside there is no honest score.",
                )
        if self.folds is not None and not 0 <= self.fold < self.folds >= 2:
            raise ConfigError(
                f"split.folds is {self.folds}, split.fold {self.fold}.",
                hint="At least 2 folds, counted from 0, e.g. --folds 5 for all of them.",
            )
        if self.test_fraction + self.validation_fraction >= 0.9:
            raise ConfigError(
                f"split: {self.test_fraction} for test and {self.validation_fraction} for "
                "validation leave too little for training.",
                hint="The defaults are 0.2 and 0.15.",
            )


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Case ids of each part, sorted, and the split in words."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    text: str
    unused: tuple[str, ...] = ()
    """Cases in no part, as the user laid down."""

    def save(self, path: Path) -> None:
        write_bytes(path, (json.dumps(asdict(self), indent=2) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> Splits:
        """Raises RunError where the file is not what `save` wrote."""
        try:
            values = json.loads(path.read_text())
            parts = {part: tuple(values[part]) for part in PARTS}
            return cls(text=values["text"], unused=tuple(values.get("unused", ())), **parts)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{path}: not readable: {reason(error)}.", hint="Copy the run again."
            ) from None


def split_dataset(stats: DatasetStats, config: SplitConfig, *, seed: int) -> Splits:
    """Split the readable cases of a scanned data set; see `make_splits`."""
    return make_splits(
        stats.grouping.cases,
        {one.case.id: stats.foreground_share(one) for one in stats.readable},
        config,
        kind=stats.grouping.kind,
        seed=seed,
        classes_present={one.case.id: stats.foreground_classes(one) for one in stats.readable},
    )


def make_splits(
    cases: Sequence[Case],
    foreground_share: Mapping[str, float],
    config: SplitConfig,
    *,
    kind: GroupingKind,
    seed: int,
    classes_present: Mapping[str, Iterable[int]] | None = None,
) -> Splits:
    """Distributes whole groups, or takes over the split that the data state.

    Groups are ordered by the rarest class in them, then by their foreground share, and dealt out
    in strata, so that each part gets rich and poor ones; a class is not taken from training
    altogether while that can be helped. Of a stack, test is one end and validation the other. A
    part that a given split lacks is cut from its training groups in the same way.

    Args:
        cases: With their groups.
        foreground_share: By case id, 0 to 1.
        classes_present: Foreground classes by case id; none: shares alone decide.

    Raises:
        DataError: fewer than three groups; a given split that puts a group on two sides, leaves
            cases out or has no training cases.
        ConfigError: folds of a given split.
    """
    members = members_of(cases)
    refuse_too_few(len(members), len(cases))
    given = _given_parts(cases, config)
    if config.folds is not None and config.folds > len(members):
        raise DataError(
            f"{config.folds} folds of {len(members)} groups.",
            hint=f"Each fold tests at least one group: at most --folds {len(members)}.",
        )
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
    deal = _deal_ends if kind == "stack" else _deal_strata
    part_of = {**given, **deal(pool, config, np.random.default_rng(seed))}
    ids = ids_of_parts(members, part_of)
    text = describe_sizes(ids, part_of, kind)
    text += _describe_given(lacking) if given else _describe_dealt(kind, config)
    return Splits(**ids, text=text)


def members_of(cases: Sequence[Case]) -> dict[str, list[str]]:
    """The ids of each group, sorted."""
    members: dict[str, list[str]] = {}
    for case in sorted(cases, key=lambda case: case.id):
        members.setdefault(case.group, []).append(case.id)
    return members


def ids_of_parts(
    members: Mapping[str, list[str]], part_of: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """The case ids of each part, sorted."""
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
    """The part of each group where the data state it; empty where they do not, or all is train."""
    stated = {case.id: case.split for case in cases if case.split}
    if not stated:
        return {}
    if len(stated) < len(cases):
        bare = sorted(case.id for case in cases if not case.split)
        raise DataError(
            f"The data state the split of {len(stated)} cases; {len(bare)} have none, first "
            f"{bare[0]}.",
            hint="State train, validation or test for each case, or for none.",
        )
    if set(stated.values()) == {"train"}:
        return {}  # A training folder alone, as challenges hand it out, decides nothing.
    if config.folds is not None:
        raise ConfigError(
            "The data state their own split, folds would make others.",
            hint="Leave --folds out; or name the folders of images and masks by themselves.",
        )
    return parts_of_groups(members_of(cases), stated, "The given split")


def _training_groups(
    members: Mapping[str, list[str]], given: Mapping[str, str], lacking: Sequence[str]
) -> dict[str, list[str]]:
    """The groups from which parts are cut. Raises DataError where none would be left."""
    free = {group: ids for group, ids in members.items() if given.get(group, "train") == "train"}
    if len(free) <= len(lacking):
        wanted = f", from which {' and '.join(lacking)} would be cut" if lacking else ""
        raise DataError(
            f"The given split has {len(free)} groups for training{wanted}.",
            hint="State train, validation and test, or annotate more groups.",
        )
    return free


def parts_of_groups(
    members: Mapping[str, list[str]], part_of_case: Mapping[str, str], source: str
) -> dict[str, str]:
    """Raises DataError where a group is on two sides."""
    found: dict[str, str] = {}
    torn: list[str] = []
    for group, ids in members.items():
        parts = [part for part in PARTS if any(part_of_case[i] == part for i in ids)]
        found[group] = parts[0]
        if len(parts) > 1:
            sides = [next(i for i in ids if part_of_case[i] == part) for part in parts]
            torn.append(
                f"  {group}: "
                + ", ".join(f"{i} in {part}" for i, part in zip(sides, parts, strict=True))
            )
    if torn:
        more = [f"  ... and {len(torn) - 5} more"] if len(torn) > 5 else []
        lines = [f"{source} puts {len(torn)} groups on two sides:", *torn[:5], *more]
        raise DataError(
            "\n".join(lines),
            hint="Images of one group on both sides make the score worthless. Move them; or, if "
            "these are no groups, state the true ones in a table: image,mask,group,split.",
        )
    return found


@dataclass(frozen=True, kw_only=True)
class _Pool:
    """Groups to deal from, and what is wanted of them."""

    members: Mapping[str, list[str]]
    shares: Mapping[str, float]
    present: Mapping[str, frozenset[int]]
    parts: tuple[str, ...]
    """What is to be cut from them: test, validation, or one of these."""

    all_groups: int
    """Groups of the whole data set, of which fractions are meant."""

    all_cases: int


def _deal_strata(pool: _Pool, config: SplitConfig, rng: np.random.Generator) -> dict[str, str]:
    """Test and validation take groups evenly spread over the order by class and foreground."""
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
        left = 1 + len(fractions) - place  # For training, and for the part that follows.
        wanted = max(1, min(round(fraction * pool.all_groups), len(free) - left))
        # One group of each stratum; the richest stratum always has foreground if any has.
        for stratum in np.array_split(np.arange(len(free)), wanted):
            candidates = [free[index] for index in stratum]
            # Those without which training keeps every class, where there are such.
            spare = [g for g in candidates if all(holders[c] > 1 for c in pool.present[g])]
            size = fraction * pool.all_cases / wanted
            chosen = _pick(spare or candidates, members, size, noise)
            part_of[chosen] = part
            holders.subtract(pool.present[chosen])
    return part_of


def order_groups(
    shares: Mapping[str, float],
    present: Mapping[str, frozenset[int]],
    noise: Mapping[str, float],
) -> list[str]:
    """Groups by their rarest class, the commonest first, then by foreground share; else by noise.

    Those without any class come first.
    """
    holders = Counter(found for own in present.values() for found in own)
    ranking = sorted(holders, key=lambda found: (-holders[found], found))
    rank = {found: place for place, found in enumerate(ranking, start=1)}

    def key(group: str) -> tuple[int, float, float]:
        rarest = max((rank[found] for found in present[group]), default=0)
        return rarest, shares[group], noise[group]

    return sorted(shares, key=key)


def _fold_of(order: Sequence[str], noise: Mapping[str, float], config: SplitConfig) -> list[str]:
    """Of each stratum of as many groups as there are folds, one, by chance."""
    assert config.folds is not None
    found = []
    for start in range(0, len(order), config.folds):
        stratum = sorted(order[start : start + config.folds], key=noise.__getitem__)
        # A last stratum that is too short must not always serve the same folds.
        place = (config.fold + start // config.folds) % config.folds
        found += stratum[place : place + 1]
    return found


def _pick(
    candidates: Sequence[str],
    members: Mapping[str, list[str]],
    wanted: float,
    noise: Mapping[str, float],
) -> str:
    """A group by chance among those that are not much larger than wanted."""
    sizes = {group: len(members[group]) for group in candidates}
    fitting = [group for group in candidates if sizes[group] <= 1.5 * wanted]
    pool = fitting or [min(candidates, key=lambda group: sizes[group])]
    # The draw must not follow the order by foreground: take the noise's digits anew.
    return min(pool, key=lambda group: (noise[group] * 997) % 1)


def _deal_ends(pool: _Pool, config: SplitConfig, rng: np.random.Generator) -> dict[str, str]:
    """Contiguous blocks at the two ends of a stack; the seed decides which end is which."""
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
        # What follows the fold comes first, what is before it last: there lies validation.
        fold = np.array_split(np.arange(len(order)), config.folds)[config.fold].tolist()
        order = order[fold[0] :] + order[: fold[0]]
        test = len(fold)
        if len(order) - test < 2:
            raise DataError(
                f"{config.folds} folds of {len(order)} blocks leave none for validation.",
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
    unit = {"single": "", "stack": " blocks"}.get(kind, " groups")
    parts = [
        f"{part} {len(ids[part])}"
        + (f" ({sum(own == part for own in part_of.values())}{unit})" if unit else "")
        for part in PARTS
    ]
    return f"Split by {'image' if kind == 'single' else 'group'}: {', '.join(parts)}."


def _describe_dealt(kind: GroupingKind, config: SplitConfig) -> str:
    if config.folds is not None:
        return f" Fold {config.fold + 1} of {config.folds}."
    if kind == "stack":
        return (
            " Test is one end of the stack: its first section touches a training section, the"
            " others lie further away."
        )
    return ""


def _describe_given(lacking: Sequence[str]) -> str:
    cut = f"; {' and '.join(lacking)} cut from the training groups" if lacking else ""
    return f" As the data state it{cut}."


def nest_subsets(
    cases: Sequence[Case],
    foreground_share: Mapping[str, float],
    classes_present: Mapping[str, Iterable[int]],
    *,
    points: int,
    seed: int,
) -> list[frozenset[str]]:
    """All groups, half of them, a quarter, ... down to one; the smallest set first.

    Of each two groups that follow one another in the splitter's order, by class and foreground,
    one stays by chance: a subset is as mixed as the whole.

    Args:
        cases: The training cases, with their groups.
        foreground_share, classes_present: By case id, as for `make_splits`.
        points: At most so many sets.
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
    """One of each pair of neighbors; of an odd number, one anywhere has no neighbor.

    Of a pair with only one that is preferred, this one: no subset is without foreground.
    """
    sizes = np.full((len(order) + 1) // 2, 2)
    if len(order) % 2:
        sizes[rng.integers(len(sizes))] = 1
    kept = []
    for places in np.split(np.arange(len(order)), np.cumsum(sizes)[:-1]):
        pair = [order[place] for place in places]
        kept.append(str(rng.choice([group for group in pair if group in preferred] or pair)))
    return kept
