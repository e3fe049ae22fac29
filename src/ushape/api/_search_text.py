"""Sentences about a search for settings."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ushape.api._search import SearchDesign
from ushape.config import resolved
from ushape.formatting import pluralize
from ushape.metrics.stats import PairedComparison
from ushape.planning.plan import Plan
from ushape.planning.rules.duration import MIN_STEPS
from ushape.planning.search_space import describe_choice
from ushape.planning.start_decision import TRIAL_SHARE
from ushape.training.study import TrialRow

FINAL_SHARE = 0.5
"""Share of the minutes that the final training has, evaluation included."""

CAVEAT = (
    "The best of several trials is partly chosen by chance, so its validation score is too high, "
    "especially with few validation groups or many trials. Only the scores of the final training "
    "on the test cases apply to new images."
)

METHOD = (
    "The first trial is the plan without changes. Then one setting after the other is changed in "
    "the best trial so far, and later a tree-structured Parzen estimator (Optuna) proposes "
    "combinations. All trials have the same split, seed and duration, and are scored on the same "
    "validation cases at the size of the files, with a threshold of 0.5. After two fifths of a "
    "trial, it is stopped if its best validation score is below the median of the finished trials "
    "at the same point.",
    f"A trial has about {TRIAL_SHARE:.1%} of the steps of the final training. Settings that pay "
    "off only in longer training, such as wide networks and strong augmentation, are therefore "
    "underestimated.",
    "Test cases are read when the data are scanned, for the split and the mask values, and when "
    "the final training is scored. No trial reads them.",
)
"""Description of the method, one paragraph each."""


def describe_design(design: SearchDesign, plan: Plan) -> list[str]:
    """Return what is searched, and how the time is divided."""
    lines = ["Searched settings, in this order:", *(f"  {one.text}" for one in design.space)]
    if design.search_s is not None and design.trial_s is not None:
        fit = max(1, int(design.search_s / max(1e-9, design.trial_s)))
        lines.append(
            f"Time: {design.search_s / 60:.1f} minutes for trials of {design.trial_s:.0f} s, "
            f"at most {pluralize(fit, 'whole trial')}, and more if bad ones are stopped early; "
            f"{design.minutes:g} minutes for the final training and its evaluation. Several "
            "processes share the time of the trials."
        )
        lines += _describe_shortage(design, plan)
    else:
        lines.append(
            f"Duration: at most {pluralize(design.trials or 1, 'trial')}, each with about "
            f"{TRIAL_SHARE:.1%} of the {pluralize(plan.recipe.train.epochs or 1, 'epoch')} of the "
            "final training."
        )
    return lines


def _describe_shortage(design: SearchDesign, plan: Plan) -> list[str]:
    """Return a warning if trials have so few steps that differences are mostly due to chance."""
    train = plan.recipe.train
    steps = round(TRIAL_SHARE * resolved(train.steps_per_epoch) * (train.epochs or 1))
    if steps >= MIN_STEPS:
        return []
    minutes = math.ceil((design.minutes or 0) / FINAL_SHARE * MIN_STEPS / max(1, steps))
    return [
        f"Warning: a trial has only about {pluralize(steps, 'step')}, after which all settings are "
        f"nearly equal. For trials of {MIN_STEPS} steps, allow at least --minutes {minutes}."
    ]


def describe_result(
    rows: Sequence[TrialRow], first: TrialRow, best: TrialRow, difference: PairedComparison | None
) -> str:
    """Return which trial is the best, and how it compares with the plan.

    Args:
        first: The plan without changes.
        difference: Dice of the best trial minus that of the first one, by validation group.
    """
    ended = pluralize(sum(row.state != "lost" for row in rows), "trial")
    if best is first:
        return (
            f"The plan without changes has the best validation score of {ended}, "
            f"{best.score:.4f}; it is kept."
        )
    text = (
        f"Trial {best.number} ({describe_choice(best.chosen)}) has the best validation score of "
        f"{ended}: {best.score:.4f}, instead of {first.score:.4f} as planned."
    )
    if difference is None:
        return text
    groups = pluralize(difference.pairs, "validation group")
    change = f"{difference.mean_difference:+.4f}"
    text += f" Its Dice differs from that of the plan by {change} on average over {groups}"
    interval = difference.interval
    if interval is None:
        return f"{text}; a confidence interval needs at least two."
    text += f" (95% CI {interval.low:+.4f} to {interval.high:+.4f})"
    if not interval.is_reliable:
        text += ", which are too few for a reliable interval"
    is_clear = interval.low > 0
    return f"{text}." if is_clear else f"{text}. The difference may be due to chance."
