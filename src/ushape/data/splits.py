"""Train, validation and test: by group, never by image; stratified by foreground; seeded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ushape.data.groups import Kind
from ushape.errors import ConfigError, DataError, RunError
from ushape.io.atomic import write_bytes
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

    def save(self, path: Path) -> None:
        write_bytes(path, (json.dumps(asdict(self), indent=2) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> Splits:
        """Raises RunError where the file is not what `save` wrote."""
        try:
            values = json.loads(path.read_text())
            return cls(text=values["text"], **{part: tuple(values[part]) for part in PARTS})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: not readable: {error}.", hint="Copy the run again.") from None


def make_splits(
    cases: Sequence[Case],
    foreground_share: Mapping[str, float],
    config: SplitConfig,
    *,
    kind: Kind,
    seed: int,
) -> Splits:
    """Distributes whole groups.

    Groups are ordered by their foreground share and dealt out in strata, so that each part gets
    rich and poor ones. Of a stack, test is one end and validation the other.

    Args:
        cases: With their groups.
        foreground_share: By case id, 0 to 1.

    Raises:
        DataError: fewer than three groups.
    """
    members: dict[str, list[str]] = {}
    for case in sorted(cases, key=lambda case: case.id):
        members.setdefault(case.group, []).append(case.id)
    refuse_too_few(len(members), len(cases))
    if config.folds is not None and config.folds > len(members):
        raise DataError(
            f"{config.folds} folds of {len(members)} groups.",
            hint=f"Each fold tests at least one group: at most --folds {len(members)}.",
        )
    shares = {
        group: float(np.mean([foreground_share[case_id] for case_id in ids]))
        for group, ids in members.items()
    }
    deal = _deal_ends if kind == "stack" else _deal_strata
    part_of = deal(members, shares, config, np.random.default_rng(seed))
    ids = {
        part: tuple(
            sorted(i for group, own in members.items() if part_of[group] == part for i in own)
        )
        for part in PARTS
    }
    return Splits(**ids, text=_describe(ids, part_of, kind, config))


def refuse_too_few(groups: int, images: int) -> None:
    """Raises DataError where no honest split is possible."""
    if groups >= 3:
        return
    raise DataError(
        f"{groups} {'group' if groups == 1 else 'groups'} of {images} "
        f"{'image' if images == 1 else 'images'}: training, validation and test need one each.",
        hint="Annotate images of at least three patients, dishes or scenes. Images of one group "
        "on both sides would make the score worthless.",
    )


def _deal_strata(
    members: Mapping[str, list[str]],
    shares: Mapping[str, float],
    config: SplitConfig,
    rng: np.random.Generator,
) -> dict[str, str]:
    """Test and validation take groups evenly spread over the order by foreground."""
    total = sum(map(len, members.values()))
    noise = dict(zip(sorted(members), rng.random(len(members)), strict=True))
    order = sorted(members, key=lambda group: (shares[group], noise[group]))
    part_of = dict.fromkeys(order, "train")
    fractions = {"test": config.test_fraction, "validation": config.validation_fraction}
    if config.folds is not None:
        del fractions["test"]
        part_of.update(dict.fromkeys(_fold_of(order, noise, config), "test"))
    for part, fraction in fractions.items():
        free = [group for group in order if part_of[group] == "train"]
        wanted = max(1, round(fraction * len(order)))
        wanted = max(1, min(wanted, len(free) - (2 if part == "test" else 1)))
        # One group of each stratum; the richest stratum always has foreground if any has.
        for stratum in np.array_split(np.arange(len(free)), wanted):
            candidates = [free[index] for index in stratum]
            part_of[_pick(candidates, members, fraction * total / wanted, noise)] = part
    return part_of


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


def _deal_ends(
    members: Mapping[str, list[str]],
    shares: Mapping[str, float],
    config: SplitConfig,
    rng: np.random.Generator,
) -> dict[str, str]:
    """Contiguous blocks at the two ends of a stack; the seed decides which end is which."""
    order = sorted(members)
    if rng.random() < 0.5:
        order.reverse()
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
    part_of = dict.fromkeys(order, "train")
    part_of.update(dict.fromkeys(order[:test], "test"))
    part_of.update(dict.fromkeys(order[len(order) - validation :], "validation"))
    return part_of


def _describe(
    ids: Mapping[str, Iterable[str]],
    part_of: Mapping[str, str],
    kind: Kind,
    config: SplitConfig,
) -> str:
    groups = {part: sum(own == part for own in part_of.values()) for part in PARTS}
    counts = {part: len(list(ids[part])) for part in PARTS}
    unit = {"single": "", "stack": " blocks"}.get(kind, " groups")
    parts = ", ".join(
        f"{part} {counts[part]}" + (f" ({groups[part]}{unit})" if unit else "") for part in PARTS
    )
    text = f"Split by {'image' if kind == 'single' else 'group'}: {parts}."
    if config.folds is not None:
        text += f" Fold {config.fold + 1} of {config.folds}."
    if kind == "stack" and config.folds is None:
        text += (
            " Test is one end of the stack: its first section touches a training section, the"
            " others lie further away."
        )
    return text
