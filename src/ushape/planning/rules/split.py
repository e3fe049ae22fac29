"""One split or folds: what the score will rest on."""

from __future__ import annotations

from ushape.data.groups import Grouping
from ushape.data.splits import Splits
from ushape.planning.fingerprint import Fingerprint
from ushape.planning.recipe import Recipe
from ushape.planning.rules.decision import Decision, source_of
from ushape.words import counted

FEW_GROUPS = 10
"""Fewer test groups give an interval that is not to be relied on."""

USUAL_FOLDS = 5


def judge_split(recipe: Recipe, data: Fingerprint, grouping: Grouping, splits: Splits) -> Decision:
    """One training in the user's time. Folds test on every group, for as many times the time: the
    user decides. Slices that look like their neighbours tell little more than one of them, so that
    groups count, not images.
    """
    group_of = {case.id: case.group for case in grouping.cases}
    tested = len({group_of[case_id] for case_id in splits.test})
    total = len(set(group_of.values()))
    folds = recipe.split.folds
    alike = f", in which neighbours are {data.redundancy:.0%} alike" if data.redundancy else ""
    fact = f"{len(group_of)} images in {counted(total, 'group')}{alike}"
    if folds is not None:
        text = f"Scores: fold {recipe.split.fold + 1} of {folds}, on {counted(tested, 'group')}."
        return Decision(text, fact, "one split", source_of(judge_split))
    rests = f"Scores: one split, on {counted(tested, 'group')}"
    more = min(USUAL_FOLDS, total)
    advice = f"; --folds {more} would test on all {total}, in {more} times the time"
    few = tested < FEW_GROUPS and grouping.kind != "stack"
    text = f"{rests}{advice if few else ''}."
    return Decision(text, fact, f"--folds {more}", source_of(judge_split))
