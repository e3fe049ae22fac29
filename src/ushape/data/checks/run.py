"""From a folder to its findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ushape.data.case_stats import CaseStats, duplicates_among, measure_cases
from ushape.data.checks import CHECKS, masks
from ushape.data.checks.finding import SEVERITIES, Evidence, Finding
from ushape.data.discovery import discover
from ushape.data.grouping import Grouping, infer_groups, merge_groups_sharing_duplicates
from ushape.data.scan import Data, complete_labels
from ushape.data.splits import PARTS, SplitConfig, Splits, make_splits
from ushape.errors import DataError
from ushape.formatting import pluralize
from ushape.labels import LabelConfig, find_label_space

SAID_ANYWAY = {"unpaired"}
"""Training describes these in its own words."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A data set with its findings, the worst first."""

    folder: Path
    evidence: Evidence
    findings: tuple[Finding, ...]
    grouping: Grouping | None
    splits: Splits | None
    """The split that training would make, where one is possible."""

    @property
    def has_errors(self) -> bool:
        return any(finding.severity == "error" for finding in self.findings)

    @property
    def verdict(self) -> str:
        """How many findings of each severity, in a sentence."""
        pairs = f"{pluralize(len(self.evidence.exams), 'pair')} of image and mask"
        counts = Counter(finding.severity for finding in self.findings)
        if not counts:
            return f"{pairs}: nothing found."
        listed = ", ".join(
            pluralize(counts[severity], severity) for severity in SEVERITIES if counts[severity]
        )
        ready = "Training would stop." if self.has_errors else "Training can start."
        return f"{pairs}: {listed}. {ready}"

    @property
    def facts(self) -> list[str]:
        """Layout, groups and meaning of the mask values, a line each."""
        lines = [f"Layout: {self.evidence.discovery.layout}."]
        if self.grouping is not None:
            lines.append(f"Groups: {self.grouping.text}.")
        space = self.evidence.space
        if space is not None:
            classes = ", ".join(
                f"{value} = {name}" for value, name in zip(space.values, space.names, strict=True)
            )
            lines.append(f"Mask values: {classes}.")
        return lines


def check_data(
    folder: Path,
    mask_folder: Path | None = None,
    *,
    labels: LabelConfig,
    split: SplitConfig,
    seed: int,
    workers: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Checked:
    """Reads every pair once, then applies all checks.

    Args:
        on_progress: Called with the cases read and their number.

    Raises:
        DataError: no pairs at all.
    """
    discovery = discover(folder, mask_folder)
    exams = []
    for exam in measure_cases(discovery.cases, workers):
        exams.append(exam)
        on_progress(len(exams), len(discovery.cases))
    readable = [exam for exam in exams if exam.error is None]
    grouping = _group(readable) if readable else None
    evidence = Evidence(
        discovery=discovery,
        exams=exams,
        labels=labels,
        groups={case.id: case.group for case in grouping.cases} if grouping else {},
        kind=grouping.kind if grouping else "single",
        duplicates=duplicates_among(readable),
    )
    findings: list[Finding] = []
    splits = None
    if grouping is not None:
        evidence, trouble = _find_space(evidence)
        findings += trouble
    if grouping is not None and evidence.space is not None:
        grouping = merge_groups_sharing_duplicates(grouping, evidence.duplicates)
        evidence, splits, trouble = _split(evidence, grouping, split, seed)
        findings += trouble
    findings += apply_checks(evidence)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Checked(
        folder=folder,
        evidence=evidence,
        findings=tuple(findings),
        grouping=grouping,
        splits=splits,
    )


def apply_checks(evidence: Evidence) -> list[Finding]:
    """What all checks find, in the order of CHECKS."""
    return [finding for check in CHECKS for finding in check(evidence)]


def check_before_training(data: Data, labels: LabelConfig) -> list[str]:
    """The checks on data that training has looked at already.

    Returns:
        The warnings, a line each.

    Raises:
        DataError: findings with which training makes no sense; all of them at once.
    """
    evidence = Evidence(
        discovery=data.discovery,
        exams=data.survey.looks,
        labels=complete_labels(labels, data.discovery.classes, data.survey.value_counts),
        groups={case.id: case.group for case in data.grouping.cases},
        kind=data.grouping.kind,
        duplicates=data.duplicates,
        space=data.survey.space,
    )
    findings = [f for f in apply_checks(evidence) if f.check not in SAID_ANYWAY]
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise DataError(
            "\n".join(finding.text for finding in errors),
            hint=f"{errors[0].fix} `ushape check {data.folder}` shows them all.",
        )
    return [f"Warning: {finding.text}" for finding in findings if finding.severity == "warning"]


def _group(exams: Sequence[CaseStats]) -> Grouping:
    thumbnails = {exam.case.id: exam.thumbnail for exam in exams}
    return infer_groups([exam.case for exam in exams], lambda case: thumbnails[case.id])


def _find_space(evidence: Evidence) -> tuple[Evidence, list[Finding]]:
    """What the mask values mean; soft edges and object ids are read as they are most likely meant,
    so that the other checks can go on."""
    counts = evidence.value_counts
    try:
        labels = complete_labels(evidence.labels, evidence.discovery.classes, counts)
        evidence = replace(evidence, labels=labels)
        if not evidence.meaning_is_laid_down:
            if any(masks.find_object_ids(evidence)):
                labels = replace(labels, threshold=1)
            elif any(masks.find_soft_edges(evidence)):
                middle = masks.threshold_between(*masks.sharp_values(counts))
                labels = replace(labels, threshold=middle)
        space, _ = find_label_space(counts, labels)
    except DataError as error:
        finding = Finding(
            check="mask_values", severity="error", text=error.message, fix=error.hint or ""
        )
        return evidence, [finding]
    return replace(evidence, space=space), []


def _split(
    evidence: Evidence, grouping: Grouping, config: SplitConfig, seed: int
) -> tuple[Evidence, Splits | None, list[Finding]]:
    """The split that training would make."""
    pixels = {exam.case.id: evidence.class_pixels(exam) for exam in evidence.readable}
    try:
        splits = make_splits(
            grouping.cases,
            {case: float(own[1:].sum() / max(1, own.sum())) for case, own in pixels.items()},
            config,
            kind=grouping.kind,
            seed=seed,
            classes_present={case: np.flatnonzero(own[1:]) + 1 for case, own in pixels.items()},
        )
    except DataError as error:
        finding = Finding(check="split", severity="error", text=error.message, fix=error.hint or "")
        return evidence, None, [finding]
    part_of = {case_id: part for part in PARTS for case_id in getattr(splits, part)}
    return replace(evidence, part_of=part_of), splits, []
