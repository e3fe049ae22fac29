"""Results of a class in a few sentences, with its false positives and the best trivial baseline."""

from __future__ import annotations

from collections.abc import Sequence

from ushape.evaluation.baselines import BASELINE_TEXTS
from ushape.evaluation.class_scores import ClassScores
from ushape.formatting import group_label, pluralize

OBJECT_COUNTS = (
    *("true_objects", "predicted_objects"),
    *("missed_objects", "object_splits", "object_merges"),
)
"""Numbers of objects per image that `describe_objects` reports, in this order."""


def describe_class(own: ClassScores, *, noun: str, cases: int, seen_cases: int) -> str:
    """Return e.g. "The mean Dice on 9 patients not used in training is 0.81 (95% CI ...)."."""
    if own.mean_dice is None:
        images = "the only image" if cases == 1 else f"any of the {cases} images"
        text = f"The class {own.name} is not annotated in {images}, so its Dice is undefined."
        return text + _false_positive_text(own)
    groups = group_label(own.groups_with_truth, noun)
    context = _context(cases, seen_cases)
    text = f"The mean Dice on {groups} {context} is {own.mean_dice:.3f}"
    if own.interval is None:
        text += f". A confidence interval requires at least two {noun}."
    else:
        text += f" (95% CI {own.interval.low:.3f} to {own.interval.high:.3f})."
        if not own.interval.is_reliable:
            text += f" This interval is unreliable: it is based on only {groups}."
    if own.missed_groups:
        text += f" In {own.missed_groups} of {groups}, {own.name} was not found."
    return text + _false_positive_text(own) + _baseline_text(own, noun)


def describe_classes(
    classes: Sequence[ClassScores], *, noun: str, cases: int, seen_cases: int
) -> str:
    """Return the result of many classes in a few sentences, without a sentence for each."""
    known = sorted((own.mean_dice, own.name) for own in classes if own.mean_dice is not None)
    if not known:
        return f"None of the {len(classes)} classes is annotated, so the Dice is undefined."
    (low, worst), (high, best) = known[0], known[-1]
    context = f"on {noun} not used in training"
    if seen_cases:
        context = f"({seen_cases} of {cases} images were used in training or validation)"
    mean = sum(value for value, _ in known) / len(known)
    text = (
        f"The mean Dice of {len(known)} classes {context} is {mean:.3f}: from {low:.3f} ({worst}) "
        f"to {high:.3f} ({best})."
    )
    if len(known) < len(classes):
        text += f" Not annotated in these images: {pluralize(len(classes) - len(known), 'class')}."
    trivial = sum(not one.is_exceeded for own in classes if (one := own.best_baseline))
    if trivial:
        text += f" No better than a trivial baseline: {pluralize(trivial, 'class')}."
    return text


def _context(cases: int, seen_cases: int) -> str:
    """Return a phrase that says whether the images were used in training."""
    if seen_cases:
        return f"({seen_cases} of {cases} images were used in training or validation)"
    return "not used in training"


def describe_objects(own: ClassScores, *, noun: str, cases: int, seen_cases: int) -> str:
    """Return e.g. "The mean object F1 at IoU 0.5 on 9 patients is 0.81. "; '' if unknown."""
    score = own.means.get("object_f1")
    if score is None or score.value is None:
        return ""
    groups = f"{group_label(score.groups, noun)} {_context(cases, seen_cases)}"
    text = f"The mean object F1 at IoU 0.5 on {groups} is {score.value:.3f}"
    if score.interval is not None:
        text += f" (95% CI {score.interval.low:.3f} to {score.interval.high:.3f})"
    counts = [own.means[name] for name in OBJECT_COUNTS if name in own.means]
    known = [f"{mean.value:.1f}" for mean in counts if mean.value is not None]
    if len(known) < len(OBJECT_COUNTS):  # A run of an earlier version.
        return f"{text}. "
    true, predicted, missed, splits, merges = known
    return (
        f"{text}. On average, an image has {true} annotated and {predicted} predicted objects; "
        f"{missed} are missed, {splits} are split, and {merges} predicted objects merge several "
        "annotated objects. "
    )


def describe_objects_of_classes(classes: Sequence[ClassScores]) -> str:
    """Return the mean object F1 of many classes in a sentence; '' if none is known."""
    means = [own.means["object_f1"].value for own in classes if "object_f1" in own.means]
    known = [value for value in means if value is not None]
    if not known:
        return ""
    mean = sum(known) / len(known)
    return f"The mean object F1 at IoU 0.5 of {pluralize(len(known), 'class')} is {mean:.3f}. "


def _baseline_text(own: ClassScores, noun: str) -> str:
    """Return how the class compares with the best trivial baseline; '' if there is none."""
    best = own.best_baseline
    if best is None:
        return ""
    what, change = BASELINE_TEXTS[best.name].format(name=own.name), best.difference
    if best.is_exceeded:
        return f" The best trivial baseline, {what}, achieves {best.mean_dice:.3f}."
    is_higher = (change.value or 0) > 0
    text = f" This {'may be' if is_higher else 'is'} no better than a trivial baseline: {what}"
    text += f" achieves {best.mean_dice:.3f} (difference {change.value or 0:+.3f}"
    if change.interval is not None:
        text += f", 95% CI {change.interval.low:+.3f} to {change.interval.high:+.3f}"
    if is_higher:
        return f"{text}). More test {noun} are needed to show a difference."
    if best.name in ("mean_mask", "intensity", "mean_mask_argmax"):
        return f"{text}). The network does not improve on this rule."
    return f"{text}). The network has not learned to segment {own.name}."


def _false_positive_text(own: ClassScores) -> str:
    if not own.cases_without_truth:
        return ""
    images = pluralize(own.cases_without_truth, "image")
    return (
        f" False positives occur in {own.false_positives} of {images} without annotated {own.name}."
    )
