"""Separate objects by the distance to their border that the network predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ushape.errors import PlanError
from ushape.formatting import pluralize
from ushape.inference.decision_rule import DecisionRule, apply_rule, as_fractions
from ushape.inference.object_search import ValidatedCase, thin_out, true_objects
from ushape.instances.label import ObjectConfig, fill_enclosed_holes, label_objects
from ushape.labels import IGNORE, LabelSpace
from ushape.metrics.instance import MAX_SEPARATED_PX, ObjectCounts, count_objects

SEPARATED = ObjectConfig(separation="learned_distance")
"""Definition of objects that the planner chooses if the network predicts their distance."""

H_VALUES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6)
"""Values of ObjectConfig.h_distance that are compared."""

FEW_H_VALUES = (0.1, 0.2, 0.4)
"""Values of ObjectConfig.h_distance by which networks are compared."""

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
"""Thresholds of each class that are compared."""

SIZE_SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4)
"""Minimum sizes that are compared, as fractions of the median size of annotated objects."""

NOISE_SHARE = 1 / 16
"""Size below which objects are not counted when networks are compared, as such a fraction."""

IOUS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""IoU thresholds over which the average precision is averaged."""

MIN_AP_GAIN = 0.003
"""Smallest gain of the average precision for which a setting is changed."""

MAX_CLASSES = 5
"""Largest number of classes whose thresholds are compared."""


def separate(
    classes: np.ndarray, distance: np.ndarray, space: LabelSpace, how: ObjectConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Divide the classes into objects; small ones become background.

    Unless masks define the objects, a line of background one pixel wide is drawn between
    objects of one class that touch, so that they are not connected in the predicted mask either.

    Shapes:
        classes: (*S) uint8 class indices; distance: (*S), 0 to 1.
        returns: (*S) class indices, and (*S) int32 numbers of the objects, 0 outside. Filled holes
            belong to the object, but have no class.
    """
    filled = classes
    if how.max_hole_size_px:
        filled = fill_enclosed_holes(
            classes, how.max_hole_size_px, corners_connect=how.corners_connect
        )
    return separate_filled(classes, filled, distance, space, how)


def separate_filled(
    classes: np.ndarray,
    filled: np.ndarray,
    distance: np.ndarray,
    space: LabelSpace,
    how: ObjectConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """Divide the classes into objects as `separate`, after their holes have been filled.

    Shapes:
        classes and filled: (*S) uint8 class indices before and after; the others as in `separate`.
    """
    labels = label_objects(filled, replace(how, max_hole_size_px=0), distance=distance).labels
    if not space.states_objects:
        labels = np.where(_touches_higher_label(labels, classes), 0, labels)
    return np.where(labels > 0, classes, np.uint8(0)), labels


def add_object_counts(
    totals: dict[str, ObjectCounts],
    classes: np.ndarray,
    labels: np.ndarray,
    truths: Sequence[np.ndarray],
    counted: np.ndarray,
    space: LabelSpace,
) -> None:
    """Add the comparison of predicted and annotated objects of an image to those of each class.

    Args:
        totals: Counts by name of class, which are changed.
        truths: Annotated objects (*S) of each scored class, 0 outside.
        counted: Pixels that are not ignored.

    Shapes:
        classes: (*S) predicted class indices; labels: (*S) predicted objects; counted: (*S) bool.
    """
    for region, truth in zip(space.scored, truths, strict=True):
        own = count_objects(np.where(region.of(classes), labels, 0), truth, counted=counted)
        known = totals.get(region.name)
        totals[region.name] = known + own if known else own


def tabulate_counts(totals: Mapping[str, ObjectCounts], names: Sequence[str]) -> np.ndarray:
    """Return the counts from which `mean_precision` is computed; those of processes add up.

    Args:
        totals: Counts by name of class.
        names: Classes of the rows; counts of classes that `totals` lacks are 0.

    Shapes:
        returns: (K, 2 + IOUS) int64: annotated and predicted objects, and pairs at each IoU.
    """
    table = np.zeros((len(names), 2 + len(IOUS)), dtype=np.int64)
    for row, name in zip(table, names, strict=True):
        if (own := totals.get(name)) is not None:
            pairs = [sum(iou >= least for iou in own.ious) for least in IOUS]
            row[:] = own.truth, own.predicted, *pairs
    return table


def mean_precision(table: np.ndarray) -> float | None:
    """Return the average precision, the mean over IOUS and over classes that are annotated.

    The average precision is that of `ObjectCounts.average_precision`.

    Args:
        table: (K, 2 + IOUS) counts as `tabulate_counts` returns them.

    Returns:
        None if no object is annotated.
    """
    known = table[table[:, 0] > 0]
    if not len(known):
        return None
    pairs = known[:, 2:]
    return float((pairs / (known[:, :1] + known[:, 1:2] - pairs)).mean(axis=1).mean())


def _touches_higher_label(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return which pixels share a side with an object of their class that has a higher number."""
    found = np.zeros(labels.shape, dtype=bool)
    for axis in range(labels.ndim):
        before = (slice(None),) * axis + (slice(None, -1),)
        after = (slice(None),) * axis + (slice(1, None),)
        one, other = labels[before], labels[after]
        is_same = classes[before] == classes[after]
        found[before] |= is_same & (one > 0) & (other > one)
        found[after] |= is_same & (other > 0) & (one > other)
    return found


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How objects are separated, as chosen on validation cases."""

    rule: DecisionRule
    how: ObjectConfig
    report: tuple[str, ...] = ()


def choose_separation(
    cases: Sequence[ValidatedCase],
    space: LabelSpace,
    rule: DecisionRule,
    how: ObjectConfig,
    *,
    keep_thresholds: bool,
) -> Separation:
    """Choose the h of the h-maxima, the thresholds and the minimum size by the average precision.

    The average precision is the mean over IoU 0.5 to 0.9, of the objects of all cases together.
    The h is chosen first, then thresholds and size are changed where they gain MIN_AP_GAIN. An h or
    a minimum size that differs from SEPARATED was set by the user and is kept.

    Args:
        rule: Rule to start from.
        how: Definition of objects to start from; separation is learned_distance.
        keep_thresholds: Whether the thresholds of `rule` are kept.

    Raises:
        PlanError: if a case has no predicted distance.
    """
    known = _Comparison(thin_out(cases, MAX_SEPARATED_PX), space)
    if not known.sizes_px:
        return Separation(rule=rule, how=how)
    before = known.score(rule, how)
    values = _h_values(how, H_VALUES)
    scores = {h: known.score(rule, replace(how, h_distance=h)) for h in values}
    h = max(values, key=lambda one: (scores[one], -abs(one - how.h_distance)))
    how, best = replace(how, h_distance=h), scores[h]
    names = [] if keep_thresholds else [region.name for region in space.scored][:MAX_CLASSES]
    for name in names:
        for threshold in THRESHOLDS:
            own = replace(rule.of(name), threshold=threshold)
            changed = DecisionRule(classes={**rule.classes, name: own})
            if (score := known.score(changed, how)) > best + MIN_AP_GAIN:
                rule, best = changed, score
    typical = float(np.median(known.sizes_px))
    for share in () if how.min_size_px else SIZE_SHARES:
        larger = replace(how, min_size_px=max(1, round(share * typical)))
        if (score := known.score(rule, larger)) > best + MIN_AP_GAIN:
            how, best = larger, score
    line = (
        f"Objects: separated by the learned distance with h = {how.h_distance}, "
        f"{_thresholds_text(rule, space)}, "
        + (f"at least {how.min_size_px} pixels" if how.min_size_px else "of any size")
        + f": average precision (IoU 0.5 to 0.9) {before:.4f} -> {best:.4f} on "
        f"{pluralize(len(known.cases), 'validation image')}. To fix h: "
        f"--set predict.objects.h_distance={how.h_distance}; to join objects that touch: "
        "--set predict.objects.separation=none."
    )
    return Separation(rule=rule, how=how, report=(line,))


def comparable_settings(how: ObjectConfig, sizes_px: Sequence[int]) -> list[ObjectConfig]:
    """Return definitions of which the best one shows how well a network separates objects.

    At one fixed setting, epochs and ways to predict would be ranked wrongly: a network that finds
    more objects also finds more specks, and the best h depends on how smooth its distance is.
    Both are set after training, when all values are compared.

    Args:
        how: Definition whose h and minimum size are varied, if separation is learned_distance and
            the user has not set them.
        sizes_px: Number of pixels of annotated objects.
    """
    if how.separation != "learned_distance":
        return [how]
    noise = round(NOISE_SHARE * float(np.median(sizes_px))) if len(sizes_px) else 0
    smallest = how.min_size_px or noise
    values = _h_values(how, FEW_H_VALUES)
    return [replace(how, h_distance=h, min_size_px=smallest) for h in values]


def _h_values(how: ObjectConfig, values: Sequence[float]) -> Sequence[float]:
    """Return the values of h to compare: only that of the definition if the user has set it."""
    return values if how.h_distance == SEPARATED.h_distance else (how.h_distance,)


def choose_comparable(
    cases: Sequence[ValidatedCase], space: LabelSpace, how: ObjectConfig
) -> ObjectConfig:
    """Return the best of `comparable_settings` at the default thresholds.

    Raises:
        PlanError: if a case has no predicted distance.
    """
    known = _Comparison(cases, space)
    settings = comparable_settings(how, known.sizes_px)
    if len(settings) == 1:
        return settings[0]
    return max(settings, key=lambda one: known.score(DecisionRule(), one))


def object_precision(
    cases: Sequence[ValidatedCase], space: LabelSpace, how: ObjectConfig
) -> float | None:
    """Return the mean average precision at the default thresholds; None without any object.

    The average precision is that of `choose_separation`.

    Raises:
        PlanError: if a case has no predicted distance.
    """
    known = _Comparison(cases, space)
    return known.score(DecisionRule(), how) if known.sizes_px else None


def _thresholds_text(rule: DecisionRule, space: LabelSpace) -> str:
    if len(space.scored) == 1:
        return f"threshold {rule.of(space.scored[0].name).threshold:g}"
    listed = [f"{one.name} {rule.of(one.name).threshold:g}" for one in space.scored[:MAX_CLASSES]]
    others = len(space.scored) - len(listed)
    note = f" ({others} more classes were not compared)" if others else ""
    return f"thresholds {', '.join(listed)}{note}"


@dataclass
class _Comparison:
    """Validation cases on which settings are compared."""

    cases: Sequence[ValidatedCase]
    space: LabelSpace
    truths: list[list[np.ndarray]] = field(init=False)
    """Annotated objects (*S) of each class, by case."""

    sizes_px: list[int] = field(init=False)
    """Number of pixels of each annotated object."""

    def __post_init__(self) -> None:
        self.truths = [
            [true_objects(case, region) for region in self.space.scored] for case in self.cases
        ]
        counts = [
            np.unique(own[own > 0], return_counts=True)[1] for one in self.truths for own in one
        ]
        self.sizes_px = np.concatenate(counts).tolist() if counts else []

    def score(self, rule: DecisionRule, how: ObjectConfig) -> float:
        """Return the mean average precision over classes that occur."""
        totals: dict[str, ObjectCounts] = {}
        for case, truths in zip(self.cases, self.truths, strict=True):
            if case.distance is None:
                raise PlanError(
                    "A validation case was predicted without the distance to the border.",
                    code="distance_required",
                    hint="Train with labels.objects=distance.",
                )
            classes = apply_rule(rule, case.probabilities, self.space)
            classes, labels = separate(classes, as_fractions(case.distance), self.space, how)
            add_object_counts(totals, classes, labels, truths, case.truth != IGNORE, self.space)
        return mean_precision(tabulate_counts(totals, list(totals))) or 0.0
