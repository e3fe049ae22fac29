"""Paired comparison of two runs that were evaluated on the same cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ushape.errors import RunError
from ushape.evaluation.scores import CaseScore, by_case, pool_groups
from ushape.metrics.stats import PairedComparison, compare_paired


@dataclass(frozen=True, kw_only=True)
class ClassComparison:
    """Dice of one class in both runs, by group."""

    name: str
    first: tuple[float, ...]
    """Dice of the first run in each group in which the class is annotated."""

    other: tuple[float, ...]
    """Dice of the other run in the same groups."""

    paired: PairedComparison
    """Comparison of other minus first."""

    @property
    def verdict(self) -> str:
        """Summary such as "+0.021 (95% CI +0.004 to +0.038, p = 0.012); 7 higher, 2 lower"."""
        found, interval = self.paired, self.paired.interval
        details = []
        if interval is not None:
            details.append(f"95% CI {interval.low:+.3f} to {interval.high:+.3f}")
        if found.p_value is not None:
            details.append(f"signed-rank p {p_text(found.p_value)}")
        text = f"{found.mean_difference:+.3f}" + (f" ({', '.join(details)})" if details else "")
        changes = [b - a for a, b in zip(self.first, self.other, strict=True)]
        text += f"; {sum(c > 0 for c in changes)} higher, {sum(c < 0 for c in changes)} lower"
        if interval is None:
            text += "; a confidence interval requires at least two groups"
        elif not interval.is_reliable:
            text += f"; the interval is unreliable, as it is based on only {found.pairs} groups"
        return text


@dataclass(frozen=True, kw_only=True)
class CaseChange:
    """Mean Dice over the classes of one case in both runs; 1 for a class absent from both masks and
    0 for a false positive, so that new and removed false positives are changes."""

    case: str
    group: str
    first: float
    other: float

    @property
    def change(self) -> float:
        """Dice of the other run minus that of the first."""
        return self.other - self.first


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Comparison of a run with the first run."""

    classes: tuple[ClassComparison, ...]
    """Classes that are annotated in at least one group."""

    changes: tuple[CaseChange, ...]
    """Cases from the largest gain to the largest loss, without cases that have no Dice in
    either run."""

    cases: int
    """Number of cases that were evaluated in both runs."""

    left_out: int
    """Number of cases that were evaluated in only one of the runs."""

    def __repr__(self) -> str:
        found = ", ".join(f"{own.name}: {own.paired.mean_difference:+.3f}" for own in self.classes)
        return f"Comparison(Dice difference on {self.cases} cases: {found})"


def compare_scores(
    first: Sequence[CaseScore], other: Sequence[CaseScore], *, seed: int
) -> Comparison:
    """Compare the scores of two runs, paired by case and class.

    Groups consist of the cases that were evaluated in both runs.

    Raises:
        RunError: if the runs have no case in common, or were evaluated on different masks.
    """
    ours, theirs = _by_key(first), _by_key(other)
    shared = [key for key in ours if key in theirs]
    if not shared:
        raise RunError(
            "The two runs were not evaluated on the same cases.",
            code="no_common_cases",
            hint="Evaluate both on the same data: `ushape evaluate RUN DATA -o FOLDER`.",
        )
    for key in shared:
        if ours[key].counts.truth != theirs[key].counts.truth:
            raise RunError(
                f"{key[0]}: the annotation of {key[1]} has {ours[key].counts.truth} pixels in the "
                f"first run and {theirs[key].counts.truth} in the other.",
                code="masks_differ",
                hint="Evaluate both on the same masks: `ushape evaluate RUN DATA -o FOLDER`.",
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
    """Format a p-value, e.g. "= 0.012" or "< 0.001"."""
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _by_key(scores: Sequence[CaseScore]) -> dict[tuple[str, str], CaseScore]:
    return {(score.case, score.class_name): score for score in scores}


def _compare_class(
    name: str, first: Sequence[CaseScore], other: Sequence[CaseScore], seed: int
) -> ClassComparison | None:
    """Compare one class; None if it is not annotated in any group."""
    # Cases belong to the groups of the first run.
    other = [replace(score, group=own.group) for score, own in zip(other, first, strict=True)]
    ours, theirs = (
        {
            score.group: score.dice or 0.0
            for score in pool_groups([score for score in scores if score.class_name == name])
            if score.counts.truth
        }
        for scores in (first, other)
    )
    if not ours:
        return None
    a, b = list(ours.values()), [theirs[group] for group in ours]
    paired = compare_paired(b, a, seed=seed)
    return ClassComparison(name=name, first=tuple(a), other=tuple(b), paired=paired)


def _agreement(scores: Sequence[CaseScore]) -> float:
    """Return the mean Dice over classes; 1 for one that is neither annotated nor predicted."""
    return sum(1.0 if one.dice is None else one.dice for one in scores) / len(scores)


def _changes(first: Sequence[CaseScore], other: Sequence[CaseScore]) -> tuple[CaseChange, ...]:
    ours, theirs = by_case(first), by_case(other)
    found = []
    for case, scores in ours.items():
        before, after = _agreement(scores), _agreement(theirs[case])
        if any(one.dice is not None for one in (*scores, *theirs[case])):
            found.append(CaseChange(case=case, group=scores[0].group, first=before, other=after))
    return tuple(sorted(found, key=lambda one: -one.change))
