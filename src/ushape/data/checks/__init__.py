"""Checks of a scanned dataset. To add one, write a function and list it in CHECKS."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from ushape.data.checks import encodings, grids, images, masks
from ushape.data.checks.finding import SEVERITIES, Check, Finding
from ushape.data.scan import DatasetStats, class_shares
from ushape.data.splits import PARTS, SplitConfig, Splits, split_dataset
from ushape.errors import DataError
from ushape.formatting import pluralize, quoted

CHECKS: tuple[Check, ...] = (
    images.find_unpaired,
    images.find_unreadable,
    images.find_other_sizes,
    images.find_mixed_kinds,
    images.find_odd_images,
    encodings.find_wrong_suffixes,
    encodings.find_turned_photographs,
    encodings.find_converted_images,
    encodings.find_unusual_masks,
    grids.find_other_grids,
    grids.find_odd_spacing,
    masks.find_copies_of_images,
    masks.find_odd_shapes,
    masks.find_value_notes,
    masks.find_stray_values,
    masks.find_other_labels,
    masks.find_class_problems,
    masks.find_empty,
    masks.find_inverted,
    masks.find_misplaced,
    images.find_duplicates,
    images.find_ungrouped,
    images.find_doubtful_groups,
)


ALREADY_REPORTED = {"doubtful_groups"} | {check for check, _, _ in images.LISTING_NOTES.values()}
"""Checks whose findings are printed elsewhere when training starts: those of the listing by
`describe_dataset`, and the warning about groups with the split."""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """A dataset with its findings, the most severe first."""

    stats: DatasetStats
    findings: tuple[Finding, ...]
    splits: Splits | None
    """The split that training would use; None if none is possible."""

    @property
    def has_errors(self) -> bool:
        """Whether training would stop."""
        return any(finding.severity == "error" for finding in self.findings)

    @property
    def verdict(self) -> str:
        """Number of findings of each severity, in a sentence."""
        pairs = f"{pluralize(len(self.stats.case_stats), 'pair')} of image and mask"
        counts = Counter(finding.severity for finding in self.findings)
        if not counts:
            return f"{pairs}: no problems found."
        listed = ", ".join(
            pluralize(counts[severity], severity) for severity in SEVERITIES if counts[severity]
        )
        ready = "Fix the errors before training." if self.has_errors else "Training can start."
        return f"{pairs}: {listed}. {ready}"

    @property
    def facts(self) -> list[str]:
        """Layout, groups and meaning of the mask values, one line each."""
        lines = [f"Layout: {self.stats.listing.layout}."]
        if self.stats.readable:
            lines.append(self.stats.grouping.description)
        if self.stats.label_space is not None:
            classes = ", ".join(f"{value} = {name}" for value, name, _ in class_shares(self.stats))
            lines.append(f"Mask values: {classes}.")
        return lines


def check_dataset(stats: DatasetStats, *, split: SplitConfig, seed: int) -> CheckResult:
    """Find every problem of a dataset.

    Args:
        stats: Scanned dataset; it may contain unreadable cases.
        split, seed: Settings of the split that training would use.
    """
    findings: list[Finding] = []
    splits = None
    if stats.label_error is not None:
        findings.append(_finding_of("mask_values", stats.label_error))
    if stats.label_space is not None:
        try:
            splits = split_dataset(stats, split, seed=seed)
            parts = {case_id: part for part in PARTS for case_id in getattr(splits, part)}
            stats = replace(stats, part_of=parts)
        except DataError as error:
            findings.append(_finding_of("split", error))
    findings += apply_checks(stats)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return CheckResult(stats=stats, findings=tuple(findings), splits=splits)


def apply_checks(stats: DatasetStats) -> list[Finding]:
    """Return the findings of all checks, in the order of CHECKS."""
    return [finding for check in CHECKS for finding in check(stats)]


def check_before_training(stats: DatasetStats) -> list[str]:
    """Apply the checks to a dataset that is about to be used for training.

    Returns:
        One line for each warning.

    Raises:
        DataError: if there are errors, with which training would be pointless; the message lists
            all of them.
    """
    findings = [finding for finding in apply_checks(stats) if finding.check not in ALREADY_REPORTED]
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise DataError(
            "\n".join(finding.text for finding in errors),
            code="failed_data_check",
            hint=f"{errors[0].fix} `ushape check {quoted(stats.folder)}` lists all problems.",
        )
    decisions = {note.check for note in stats.value_notes}
    return [
        f"Warning: {finding.text}" + (f" {finding.fix}" if finding.check in decisions else "")
        for finding in findings
        if finding.severity == "warning"
    ]


def _finding_of(check: str, error: DataError) -> Finding:
    return Finding(check=check, severity="error", text=error.message, fix=error.hint)
