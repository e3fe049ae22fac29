"""Tuning on validation cases after training: thresholds, cleaning, and the expected Dice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Literal

import numpy as np

from ushape import config
from ushape.errors import ConfigError, RunError
from ushape.formatting import reason
from ushape.inference.decision_rule import ClassRule, DecisionRule, apply_rule, as_fractions
from ushape.inference.object_search import (
    ObjectMetric,
    ValidatedCase,
    measure_objects_by_threshold,
    smallest_objects,
)
from ushape.inference.rule_scores import Basis
from ushape.inference.separation import SEPARATED, choose_separation
from ushape.inference.threshold_search import choose_rule
from ushape.inference.uncertainty import Calibration, confidence_of, fit_calibration
from ushape.instances.label import ObjectConfig
from ushape.io.files import read_sealed_json, write_sealed_json
from ushape.labels import LabelSpace
from ushape.metrics.overlap import count_classes, dice, mean_known
from ushape.planning.recipe import Tta
from ushape.planning.run import Run
from ushape.transforms.morphology import Cleaning
from ushape.transforms.tiling import Average


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Result of the tuning of a run on its validation cases."""

    rule: DecisionRule = field(default_factory=DecisionRule)
    calibrations: tuple[Calibration, ...] = ()
    """Calibration of each run with enough cases; their predictions are averaged."""

    report: tuple[str, ...] = ()
    """Explanation, in lines."""

    basis: dict[str, Basis] = field(default_factory=dict)
    """Validation data on which the rule of each class was chosen; empty in older runs."""

    objects: ObjectConfig | None = None
    """How objects are separated if the network predicts their distance; None: as planned."""

    objects_planned: ObjectConfig = SEPARATED
    """Planned definition of objects from which `objects` was chosen."""

    tta: Average = "none"
    """Test-time augmentation that was chosen, if the plan leaves it to validation."""

    def average_for(self, planned: Tta) -> Average:
        """Return the planned test-time augmentation, or the chosen one if it was left open."""
        return self.tta if planned == "validated" else planned

    def objects_for(self, planned: ObjectConfig) -> ObjectConfig:
        """Return the chosen definition of objects, with what the user has set since."""
        if self.objects is None:
            return planned
        now, before = vars(planned), vars(self.objects_planned)
        return replace(self.objects, **{key: now[key] for key in now if now[key] != before[key]})


def choose_tuning(
    cases: Sequence[ValidatedCase],
    space: LabelSpace,
    *,
    rule: bool,
    tune_metric: Literal["dice"] | ObjectMetric | None = None,
    how: ObjectConfig | None = None,
    annotated: Iterable[np.ndarray] = (),
) -> Tuning:
    """Choose a rule if `rule` is set, and fit the calibration to its decisions.

    Args:
        tune_metric: Metric that the thresholds are chosen for; None: as the masks suggest.
        how: Definition of the objects of a prediction.
        annotated: More annotated label maps, which cleaning must leave as they are; iterated
            several times.
    """
    chosen, report, basis = DecisionRule(), tuple[str, ...](), dict[str, Basis]()
    how = how or ObjectConfig()
    separates = space.has_distance and how.separation == "learned_distance"
    separation = None
    if rule:
        objects = (
            {}
            if tune_metric == "dice" or (separates and tune_metric != "rand")
            else measure_objects_by_threshold(cases, space, how, tune_metric)
        )
        pairs = [(case.probabilities, case.truth) for case in cases]
        counted = (
            [region.name for region in space.scored]
            if separates
            else [name for name, curve in objects.items() if curve.metric == "object_f1"]
        )
        smallest = smallest_objects(cases, space, counted)
        groups = [case.group for case in cases]
        found = choose_rule(pairs, space, groups, objects, smallest, annotated)
        chosen, report, basis = found.rule, found.report, found.basis
        if separates:
            keeps = tune_metric not in (None, "object_f1")
            own = choose_separation(cases, space, chosen, how, keep_thresholds=keeps)
            chosen, report, separation = own.rule, (*report, *own.report), own.how
    confidence, scores = [], []
    for case in cases:
        shares = as_fractions(case.probabilities)
        classes = apply_rule(chosen, shares, space)
        confidence.append(confidence_of(shares, classes, space))
        counts = count_classes(classes, case.truth, space.scored)
        scores.append(mean_known(map(dice, counts)))
    fitted = fit_calibration(confidence, scores)
    return Tuning(
        rule=chosen,
        calibrations=(fitted,) if fitted else (),
        report=report,
        basis=basis,
        objects=separation,
        objects_planned=how if separation else SEPARATED,
    )


def join_tunings(tunings: Sequence[Tuning]) -> Tuning:
    """Combine several runs: mean thresholds, and the cleaning if all of them agree on it."""
    if len(tunings) == 1:
        return tunings[0]
    names = sorted({name for one in tunings for name in one.rule.classes})
    classes = {}
    for name in names:
        own = [one.rule.of(name) for one in tunings]
        threshold = sum(rule.threshold for rule in own) / len(own)
        agreed = own[0].cleaning if len({rule.cleaning for rule in own}) == 1 else Cleaning()
        classes[name] = ClassRule(threshold=threshold, cleaning=agreed)
    planned = (one.objects_planned for one in tunings if one.objects is not None)
    return Tuning(
        rule=DecisionRule(classes=classes),
        calibrations=tuple(fitted for one in tunings for fitted in one.calibrations),
        objects=_mean_objects([one.objects for one in tunings if one.objects is not None]),
        objects_planned=next(planned, SEPARATED),
    )


def _mean_objects(chosen: Sequence[ObjectConfig]) -> ObjectConfig | None:
    """Return the mean h and the median minimum size; None if nothing was chosen."""
    if not chosen:
        return None
    return replace(
        chosen[0],
        h_distance=sum(one.h_distance for one in chosen) / len(chosen),
        min_size_px=int(median(one.min_size_px for one in chosen)),
    )


def save_tuning(run: Run, tuning: Tuning) -> None:
    """Write the tuning into the run folder."""
    write_sealed_json(run.tuning_path, config.to_dict(tuning))


def load_tuning(run: Run) -> Tuning:
    """Load the tuning of a run; without one, the most probable class wins.

    Raises:
        RunError: if the file was not written by training.
    """
    path = run.tuning_path
    if not path.exists():
        return Tuning()
    hint = "Copy the run again, or delete this file to predict the most probable class."
    values = read_sealed_json(path, RunError, code="damaged_run_file", hint=hint)
    try:
        return config.from_dict(Tuning, values, source=str(path))
    except ConfigError as error:
        raise RunError(
            f"{path} was not written by training ({reason(error)}).",
            code="damaged_run_file",
            hint=hint,
        ) from None
