"""Checks across cases: what is there twice, and what belongs together but is not grouped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ushape.data.case_stats import correlation_of_neighbors
from ushape.data.checks.finding import Finding, Severity
from ushape.data.scan import DatasetStats
from ushape.formatting import natural_order

NEIGHBORS = 3
"""Slices of one group that are so near each other may well look nearly alike."""

MIN_FRAMES = 6
"""Images that must be there before their order says anything."""


def find_duplicates(dataset: DatasetStats) -> Iterator[Finding]:
    selected = sorted(dataset.readable, key=lambda stats: natural_order(stats.case.id))
    place = {stats.case.id: index for index, stats in enumerate(selected)}
    found: dict[tuple[bool, bool], list[tuple[str, str]]] = {}
    groups = dataset.inferred_groups
    for pair in dataset.duplicates:
        first, second = pair.first, pair.second
        is_across = groups[first] != groups[second]
        if not (is_across or pair.is_exact) and place[second] - place[first] <= NEIGHBORS:
            continue
        found.setdefault((pair.is_exact, is_across), []).append((first, second))
    for (is_exact, is_across), pairs in sorted(found.items(), reverse=True):
        yield _describe_twins(dataset, pairs, is_exact, is_across)


def _describe_twins(
    dataset: DatasetStats, pairs: Sequence[tuple[str, str]], is_exact: bool, is_across: bool
) -> Finding:
    part_of = dataset.part_of
    leaks = [pair for pair in pairs if len({part_of.get(name, "") for name in pair}) > 1]
    severity: Severity = "error" if leaks else "warning" if is_across else "note"
    first, second = (leaks or pairs)[0]
    like = "identical" if is_exact else "nearly identical"
    count = "1 image is" if len(pairs) == 1 else f"{len(pairs)} images are"
    where = "of another group" if is_across else "of the same group"
    text = f"{count} {like} to one {where}, e.g. {second} to {first}."
    if leaks:
        text += f" {len(leaks)} of these pairs lie on two sides of the split."
    elif is_across:
        text += " Their groups are kept on one side of the split."
    return Finding(
        check=("duplicate" if is_exact else "near_duplicate")
        + ("_across_groups" if is_across else ""),
        severity=severity,
        text=text,
        fix="Keep one of them: what is in training and in test makes the score worthless."
        if is_across
        else "Nothing, unless the same image was exported twice by mistake.",
        cases=tuple(second for _, second in pairs),
        in_copy="left out" if is_exact and is_across else "",
    )


def find_ungrouped(dataset: DatasetStats) -> Iterator[Finding]:
    """Each image by itself, but neighbors in the order of their names look alike."""
    selected = [stats for stats in dataset.readable if stats.detail.any()]
    if dataset.grouping.kind != "single" or len(selected) < MIN_FRAMES:
        return
    near, far = correlation_of_neighbors(selected)
    if near > far + 0.25:
        yield Finding(
            check="ungrouped",
            severity="warning",
            text=f"Each image is a group by itself, but neighbors in the order of their names "
            f"look alike (correlation {near:.2f}, others {far:.2f}): slices of a volume or frames "
            "of a video?",
            fix="Put what belongs together into one folder each, or give it a common name before "
            "the number (a_01, a_02, b_01).",
            cases=tuple(stats.case.id for stats in selected[:5]),
        )
