"""Search of the threshold that separates objects best, where masks are many touching parts."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from ushape.inference.decision_rule import as_fractions
from ushape.inference.evidence import evidence_of
from ushape.inference.rule_scores import (
    UNIT_NOUNS,
    Basis,
    UnitKey,
    choose_unit,
    is_clear_gain,
    pool_key,
    quarters,
)
from ushape.instances.label import ObjectConfig, annotated_objects, by_class, label_objects
from ushape.instances.touching import MAX_COMPARED, MOSTLY_TOUCHING, touching_share
from ushape.labels import IGNORE, LabelSpace, Region
from ushape.metrics.instance import MANY_OBJECTS, MAX_OBJECT_PX, count_objects
from ushape.metrics.topology import (
    MIN_CELL_FRACTION,
    contingency_table,
    label_cells,
    rand_score,
    thin_membranes,
)

ObjectMetric = Literal["object_f1", "rand"]
"""Object F1 at an IoU of 0.5, or V_rand if cells fill the image."""

METRIC_TEXTS: dict[ObjectMetric, str] = {"object_f1": "object F1", "rand": "V_rand"}

OBJECT_THRESHOLDS = tuple(tenths / 10 for tenths in range(1, 10))
"""Thresholds that are compared."""


MAX_LOST = 0.01
"""Largest share of the annotated objects that are below the smallest size of `smallest_objects`."""


@dataclass(frozen=True)
class ValidatedCase:
    """A validation case with its prediction."""

    group: str
    probabilities: np.ndarray
    """(K, *S) uint8, 0 to 255."""

    truth: np.ndarray
    """(*S) class indices."""

    objects: np.ndarray | None = None
    """(*S) object labels, 0 for background; None: objects are the connected components."""

    distance: np.ndarray | None = None
    """(*S) uint8, 0 to 255: predicted distance to the border of the object; None if the network
    does not predict it."""


@dataclass(frozen=True, kw_only=True)
class ObjectCurve:
    """Values of a metric at each of OBJECT_THRESHOLDS, by unit."""

    metric: ObjectMetric
    basis: Basis
    values: dict[float, dict[UnitKey, float]] = field(repr=False)

    def mean(self, threshold: float) -> float:
        """Return the mean over units at a threshold."""
        return float(np.mean(list(self.values[threshold].values())))

    def clear_gains(self) -> list[float]:
        """Return the thresholds that are clearly better than 0.5."""
        default, found = self.values[0.5], []
        for threshold, own in self.values.items():
            changes = [own[key] - default[key] for key in own if own[key] != default[key]]
            if is_clear_gain(changes, len(own)):
                found.append(threshold)
        return found

    def line(self, name: str, threshold: float) -> str:
        """Describe a chosen threshold and its effect on the metric."""
        values = f"{METRIC_TEXTS[self.metric]} {self.mean(0.5):.4f}"
        on = f"on {self.basis.count} {UNIT_NOUNS[self.basis.unit]}"
        if threshold == 0.5:
            return (
                f"{name}: the masks contain many touching objects, but no threshold is clearly "
                f"better than 0.5 for them without losing much Dice ({values} {on})."
            )
        return (
            f"{name}: threshold {threshold} instead of 0.5, because the masks contain many "
            f"touching objects: {values} -> {self.mean(threshold):.4f} {on}. To optimize the "
            "Dice instead: --set predict.tune_metric=dice."
        )


def measure_objects_by_threshold(
    cases: Sequence[ValidatedCase],
    space: LabelSpace,
    how: ObjectConfig,
    wanted: ObjectMetric | None = None,
) -> dict[str, ObjectCurve]:
    """Measure each class whose masks are many touching objects at all thresholds.

    Args:
        how: Definition of the objects of a prediction.
        wanted: Metric for all classes, whatever their objects are; None: as the masks suggest.

    Returns:
        The curves by name of class; empty if no class has such objects. Classes in too few parts of
        images are left out.
    """
    if how.border_class is not None:  # Its objects depend on two thresholds.
        return {}
    chosen, found = thin_out(cases, MAX_OBJECT_PX), {}
    shown = [list(evidence_of(as_fractions(case.probabilities), space)) for case in chosen]
    for place, region in enumerate(space.scored):
        labels = [true_objects(case, region) for case in chosen]
        metric = wanted or _find_metric(chosen, labels, space)
        parts = [
            _Part((case.group, number, quarter), case, shown[number][place], own, where)
            for number, (case, own) in enumerate(zip(chosen, labels, strict=True))
            for quarter, where in enumerate(quarters(own.shape))
        ]
        basis = choose_unit([part.key for part in parts if part.has_objects])
        if metric is None or basis is None:
            continue
        if basis.unit != "quarter":  # Objects are not cut.
            parts = [replace(part, where=(...,)) for part in parts if part.key[-1] == 0]
        annotated = [part for part in parts if part.has_objects]
        measure = partial(_measure_part, metric=metric, region=region, space=space, how=how)
        values = {
            threshold: _mean_by_unit(
                [(pool_key(part.key, basis.unit), measure(part, threshold)) for part in annotated]
            )
            for threshold in OBJECT_THRESHOLDS
        }
        found[region.name] = ObjectCurve(metric=metric, basis=basis, values=values)
    return found


def thin_out(cases: Sequence[ValidatedCase], most_px: int) -> Sequence[ValidatedCase]:
    """Return cases at equal intervals, with about `most_px` pixels at most."""
    return cases[:: max(1, -(-sum(case.truth.size for case in cases) // most_px))]


def smallest_objects(
    cases: Sequence[ValidatedCase], space: LabelSpace, names: Container[str]
) -> dict[str, int]:
    """Return the size in pixels below which hardly any annotated object of a class is.

    A class without annotated objects is missing.

    Args:
        names: Classes to measure.
    """
    chosen, found = thin_out(cases, MAX_OBJECT_PX), {}
    for region in space.scored:
        if region.name not in names:
            continue
        labels = (true_objects(case, region) for case in chosen)
        sizes = np.concatenate([np.bincount(own.ravel())[1:] for own in labels])
        sizes = np.sort(sizes[sizes > 0])
        if len(sizes):
            found[region.name] = int(sizes[int(MAX_LOST * len(sizes))])
    return found


@dataclass(frozen=True)
class _Part:
    """A case, or a quarter of it."""

    key: UnitKey
    case: ValidatedCase
    evidence: np.ndarray
    """(*S) evidence for the class in the case."""

    labels: np.ndarray
    """(*S) annotated objects of the class in the case."""

    where: tuple[Any, ...]
    """Index of the part in the arrays of the case."""

    @property
    def has_objects(self) -> bool:
        return bool(self.labels[self.where].any())


def _measure_part(
    part: _Part,
    threshold: float,
    *,
    metric: ObjectMetric,
    region: Region,
    space: LabelSpace,
    how: ObjectConfig,
) -> float:
    """Return the metric of one part at one threshold, as the report defines it."""
    evidence, truth = part.evidence[part.where], part.labels[part.where]
    is_found = evidence >= evidence.dtype.type(threshold)
    if metric == "rand":
        overlaps = contingency_table(thin_membranes(is_found), label_cells(truth > 0))
        return rand_score(overlaps).f_score
    shares, distance = by_class(as_fractions(part.case.probabilities), space), part.case.distance
    predicted = label_objects(
        is_found.astype(np.uint8) * np.uint8(region.classes[0]),
        how,
        probabilities={index: own[part.where] for index, own in shares.items()},
        distance=None if distance is None else as_fractions(distance[part.where]),
    )
    counted = part.case.truth[part.where] != IGNORE
    return count_objects(predicted.labels, truth, counted=counted).f1() or 0.0


def _mean_by_unit(pairs: Sequence[tuple[UnitKey, float]]) -> dict[UnitKey, float]:
    found: dict[UnitKey, list[float]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return {key: float(np.mean(values)) for key, values in found.items()}


def true_objects(case: ValidatedCase, region: Region) -> np.ndarray:
    """Return the annotated objects of a class (*S), 0 outside."""
    return annotated_objects(region.of(case.truth), case.objects)


def _find_metric(
    cases: Sequence[ValidatedCase], labels: Sequence[np.ndarray], space: LabelSpace
) -> ObjectMetric | None:
    """Return the metric for masks of many touching objects; None for other masks."""
    annotated = [own for own in labels if own.any()]
    if not annotated or np.mean([len(np.unique(own)) - 1 for own in annotated]) <= MANY_OBJECTS:
        return None
    if np.mean([touching_share(own) for own in annotated[:MAX_COMPARED]]) < MOSTLY_TOUCHING:
        return None
    share = np.mean([(own > 0).mean() for own in labels])
    is_flat = labels[0].ndim == 2 and not any((case.truth == IGNORE).any() for case in cases)
    fills_image = is_flat and len(space.scored) == 1 and share >= MIN_CELL_FRACTION
    return "rand" if fills_image else "object_f1"
