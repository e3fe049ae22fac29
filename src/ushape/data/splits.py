"""Splits into training, validation and test: by group, stratified by classes and foreground."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from ushape.config import from_dict
from ushape.data.assignment import (
    Pool,
    assign_ends,
    assign_strata,
    mean_shares,
    members_of,
    unite_classes,
)
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

    RENAMED: ClassVar = {"spread_classes": "stratify_classes"}

    test_fraction: float = 0.2
    """Fraction of the cases in the test set, which is only used for the scores. 0: no scores,
    unless the dataset defines a test set."""

    validation_fraction: float = 0.15
    """Fraction of the cases in the validation set, which is used to select the best weights. 0: the
    weights are selected on the training cases, unless the dataset defines a validation set."""

    folds: int | None = None
    """Number of folds of a cross-validation, which replaces test_fraction. null: a single split."""

    fold: int = 0
    """Index of the fold that is the test set, counted from 0."""

    stratify_classes: bool = True
    """Whether groups are exchanged if the test or validation set lacks foreground, or a class that
    occurs in enough groups. Of the groups with a class, the first stays in training, the second is
    assigned to the test set and the third to the validation set. false: split as in earlier
    versions."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Subsets that a split has in addition to training."""
        has_test = self.folds is not None or self.test_fraction > 0
        return ("test",) * has_test + ("validation",) * (self.validation_fraction > 0)

    def __post_init__(self) -> None:
        for name in ("test_fraction", "validation_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"split.{name} is {getattr(self, name)}, outside [0, 1).",
                    code="value_out_of_range",
                    hint="0.2 is usual. Only scores on held-out cases are valid for new images.",
                )
        if self.folds is not None and not 0 <= self.fold < self.folds >= 2:
            raise ConfigError(
                f"split.folds is {self.folds} and split.fold is {self.fold}.",
                code="value_out_of_range",
                hint="Use at least 2 folds; fold is counted from 0. `ushape cross-validate` "
                "trains all folds.",
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
    """Sorted case ids of each subset, and a description of the split."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    text: str
    unused: tuple[str, ...] = ()
    """Cases that the user excluded from all subsets."""

    def save(self, path: Path) -> None:
        write_sealed_json(path, asdict(self))

    @property
    def validated(self) -> tuple[str, ...]:
        """Cases on which the weights are selected: those of training if there are no others."""
        return self.validation or self.train

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
    """Split the readable cases of a scanned dataset; see `make_splits`.

    The text of the split includes the warning about the groups, if there is one.
    """
    splits = make_splits(
        stats.grouping.cases,
        {one.case.id: stats.foreground_share(one) for one in stats.readable},
        config,
        kind=stats.grouping.kind,
        seed=seed,
        classes_present={one.case.id: stats.foreground_classes(one) for one in stats.readable},
    )
    splits = with_missing_foreground(splits, stats)
    warning = stats.grouping.warning
    return replace(splits, text=f"{splits.text}\nWarning: {warning}") if warning else splits


def with_missing_foreground(splits: Splits, stats: DatasetStats) -> Splits:
    """Add to the text of a split which of its held-out subsets have no foreground."""
    text = splits.text
    if splits.validation and not has_foreground(stats, splits.validation):
        text += (
            " No validation image has foreground, so there is no validation Dice: the weights of "
            "the last epoch are kept."
        )
    if splits.test and not has_foreground(stats, splits.test):
        text += " No test image has foreground, so the test Dice is undefined."
    return replace(splits, text=text)


def has_foreground(stats: DatasetStats, case_ids: Collection[str]) -> bool:
    """Return whether any of the cases has foreground."""
    chosen = set(case_ids)
    return any(stats.foreground_share(one) for one in stats.readable if one.case.id in chosen)


def make_splits(
    cases: Sequence[Case],
    foreground_share: Mapping[str, float],
    config: SplitConfig,
    *,
    kind: GroupingKind,
    seed: int,
    classes_present: Mapping[str, Iterable[int]] | None = None,
) -> Splits:
    """Distribute whole groups, or use the split that the dataset defines.

    A subset with the fraction 0 gets cases only if the dataset assigns some to it.

    Groups are ordered by the rarest class in them, then by their foreground share, and assigned in
    strata, so that each subset gets groups with much and with little foreground; every class
    remains in training. Then groups are exchanged if the test or validation set lacks foreground or
    a class that occurs in enough groups; see `assignment.assign_strata`. In a stack, the test set
    is one end and the validation set is the other. A subset that a given split lacks is taken from
    its training groups in the same way.

    Args:
        foreground_share: Fraction of foreground by case id, 0 to 1.
        kind: Rule by which the groups were inferred.
        classes_present: Foreground classes by case id; if omitted, only the fractions of foreground
            are used.

    Raises:
        DataError: if there are fewer groups than subsets, or if a given split separates a group,
            omits cases or has no training cases.
        ConfigError: if folds are requested although the dataset defines a split.
    """
    members = members_of(cases)
    given = _given_parts(cases, config)
    lacking = tuple(part for part in config.parts if part not in given.values())
    refuse_too_few(
        len(members), len(cases), needed=1 + len({*lacking, *given.values()} - {"train"})
    )
    _refuse_too_many_folds(config, len(members))
    free = _training_groups(members, given, lacking)
    pool = Pool(
        members=free,
        shares=mean_shares(free, foreground_share),
        present=unite_classes(free, classes_present or {}),
        parts=lacking,
        all_groups=len(members),
        all_cases=len(cases),
        fractions={"test": config.test_fraction, "validation": config.validation_fraction},
        folds=config.folds,
        fold=config.fold,
        stratify_classes=config.stratify_classes,
    )
    assign = assign_ends if kind == "stack" else assign_strata
    part_of = {**given, **assign(pool, np.random.default_rng(seed))}
    ids = ids_of_parts(members, part_of)
    more = _describe_given(lacking) if given else _describe_assignment(kind, config)
    return Splits(**ids, text=describe_sizes(ids, part_of, kind) + more + describe_missing(ids))


def _refuse_too_many_folds(config: SplitConfig, groups: int) -> None:
    if config.folds is not None and config.folds > groups:
        raise DataError(
            f"{config.folds} folds were requested, but there are only {groups} groups.",
            code="too_many_folds",
            hint=f"Each fold tests at least one group: use at most --folds {groups}.",
        )


def ids_of_parts(
    members: Mapping[str, list[str]], part_of: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Return the sorted case ids of each subset."""
    return {
        part: tuple(sorted(i for g, ids in members.items() if part_of[g] == part for i in ids))
        for part in PARTS
    }


def _given_parts(cases: Sequence[Case], config: SplitConfig) -> dict[str, str]:
    """Return the subset of each group as defined by the dataset; empty if only train is defined."""
    stated = {case.id: case.split for case in cases if case.split}
    if not stated:
        return {}
    if len(stated) < len(cases):
        bare = sorted(case.id for case in cases if not case.split)
        raise DataError(
            f"The dataset defines the subset of {len(stated)} cases, but not of {len(bare)} "
            f"others, e.g. {bare[0]}.",
            code="incomplete_split",
            hint="Assign every case to train, validation or test, or do not assign any case.",
        )
    if set(stated.values()) == {"train"}:
        return {}  # A training folder alone, as in challenges, does not define a split.
    if config.folds is not None:
        raise ConfigError(
            "Folds were requested, but the dataset already defines a split.",
            code="folds_of_stated_split",
            hint="Use `ushape train` instead, or pass the image folder as data and the mask "
            "folder with --masks.",
        )
    return parts_of_groups(members_of(cases), stated, "The given split")


def _training_groups(
    members: Mapping[str, list[str]], given: Mapping[str, str], lacking: Sequence[str]
) -> dict[str, list[str]]:
    """Return the groups from which the missing subsets are taken.

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
    """Return the subset of each group.

    Raises:
        DataError: if the cases of a group are in different subsets.
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
            hint="If images of one group are in more than one subset, the scores are invalid. "
            "Move them to one subset, or list the correct groups in a table with the columns "
            "image,mask,group,split.",
        )
    return found


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


def describe_missing(ids: Mapping[str, Sequence[str]]) -> str:
    """Return the consequences of subsets without cases; '' if all have some."""
    text = ""
    if not ids["validation"]:
        text += (
            " No images are held out for validation: the best weights are selected on the training "
            "images, on which the Dice is higher than on new images."
        )
    if not ids["test"]:
        text += " No images are held out for testing, so there are no scores."
    return text


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
    return f" The dataset defines this split{taken}."
