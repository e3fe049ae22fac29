"""Two runs on the same cases: by how much one is better, how sure that is, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ushape.errors import RunError
from ushape.evaluation.scores import CaseScore, by_case, mean_dice, pool_groups
from ushape.metrics.stats import PairedComparison, compare_paired

Key = tuple[str, str]
"""Case and class."""


@dataclass(frozen=True, kw_only=True)
class ClassComparison:
    """The Dice of one class, by group."""

    name: str
    first: tuple[float, ...]
    other: tuple[float, ...]
    """Of each group that holds the class, the same order in both."""

    paired: PairedComparison
    """Of the other less the first."""

    @property
    def verdict(self) -> str:
        """E.g. "+0.021 [0.004, 0.038], signed-rank p = 0.012; 7 better, 2 worse"."""
        found, interval = self.paired, self.paired.interval
        text = f"{found.mean_difference:+.3f}"
        if interval is not None:
            text += f" [{interval.low:+.3f}, {interval.high:+.3f}]"
        if found.p_value is not None:
            text += f", signed-rank p = {p_text(found.p_value)}"
        changes = [b - a for a, b in zip(self.first, self.other, strict=True)]
        better, worse = sum(c > 0 for c in changes), sum(c < 0 for c in changes)
        text += f"; {better} better, {worse} worse"
        if interval is None:
            text += "; one alone says nothing about the spread"
        elif not interval.is_reliable:
            text += f"; with {found.pairs} the interval is not to be relied on"
        return text


@dataclass(frozen=True, kw_only=True)
class CaseChange:
    """A case whose Dice differs."""

    case: str
    group: str
    first: float
    other: float

    @property
    def change(self) -> float:
        return self.other - self.first


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One run against another."""

    classes: tuple[ClassComparison, ...]
    changes: tuple[CaseChange, ...]
    """From the largest gain to the largest loss; cases that hold nothing in either are left
    out."""

    cases: int
    """Compared: those of both."""

    left_out: int
    """Only in one of the two."""


def compare_scores(
    first: Sequence[CaseScore], other: Sequence[CaseScore], *, seed: int
) -> Comparison:
    """Pairs the scores by case and class; groups are made of the cases that both have.

    Raises:
        RunError: no case in common, or masks that differ.
    """
    ours, theirs = _by_key(first), _by_key(other)
    shared = [key for key in ours if key in theirs]
    if not shared:
        raise RunError(
            "The two were not scored on the same cases.",
            hint="Score both on the same data: ushape evaluate RUN DATA -o FOLDER.",
        )
    for key in shared:
        if ours[key].counts.truth != theirs[key].counts.truth:
            raise RunError(
                f"{key[0]}: {key[1]} has {ours[key].counts.truth} pixels in the one's mask, "
                f"{theirs[key].counts.truth} in the other's.",
                hint="Score both on the same masks: ushape evaluate RUN DATA -o FOLDER.",
            )
    pairs = [ours[key] for key in shared], [theirs[key] for key in shared]
    names = dict.fromkeys(name for _, name in shared)
    return Comparison(
        classes=tuple(found for name in names if (found := _compare_class(name, *pairs, seed))),
        changes=_changes(*pairs),
        cases=len({case for case, _ in shared}),
        left_out=len({case for case, _ in {*ours, *theirs}} - {case for case, _ in shared}),
    )


def p_text(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _by_key(scores: Sequence[CaseScore]) -> dict[Key, CaseScore]:
    return {(score.case, score.class_name): score for score in scores}


def _compare_class(
    name: str, first: Sequence[CaseScore], other: Sequence[CaseScore], seed: int
) -> ClassComparison | None:
    """None where no group holds the class."""
    ours, theirs = (
        {
            score.group: score.dice or 0.0
            for score in pool_groups([score for score in scores if score.class_name == name])
            if score.counts.truth
        }
        for scores in (first, _with_groups(other, first))
    )
    if not ours:
        return None
    a, b = list(ours.values()), [theirs[group] for group in ours]
    paired = compare_paired(b, a, seed=seed)
    return ClassComparison(name=name, first=tuple(a), other=tuple(b), paired=paired)


def _with_groups(scores: Sequence[CaseScore], like: Sequence[CaseScore]) -> list[CaseScore]:
    """In the groups of the first run."""
    return [replace(score, group=model.group) for score, model in zip(scores, like, strict=True)]


def _changes(first: Sequence[CaseScore], other: Sequence[CaseScore]) -> tuple[CaseChange, ...]:
    ours, theirs = by_case(first), by_case(other)
    found = []
    for case, scores in ours.items():
        before, after = mean_dice(scores), mean_dice(theirs[case])
        if before is not None or after is not None:
            # Nothing where nothing is: as good as can be.
            found.append(
                CaseChange(
                    case=case,
                    group=scores[0].group,
                    first=1.0 if before is None else before,
                    other=1.0 if after is None else after,
                )
            )
    return tuple(sorted(found, key=lambda one: -one.change))
