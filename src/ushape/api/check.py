"""Check a dataset: print a table or JSON, write a page, and optionally a corrected copy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ushape import config
from ushape.api.plan import scan_for
from ushape.console import Console
from ushape.data.checks import CheckResult, check_dataset
from ushape.data.checks.finding import Finding
from ushape.data.checks.fix import CopyChange, refuse_target, write_fixed_copy
from ushape.data.scan import class_shares
from ushape.data.splits import PARTS
from ushape.formatting import pluralize
from ushape.interrupts import REPEAT, hint_after_interrupt
from ushape.io.files import real_path, write_bytes
from ushape.io.lock import locked
from ushape.planning.data_settings import apply_data_settings
from ushape.planning.recipes import load_recipe
from ushape.reports.data_check import write_check_page
from ushape.types import MaskParts

EXAMPLES = 3
"""Number of cases that the table names for each finding."""


def check(
    data: Path | str,
    *,
    masks: Path | str | None = None,
    output: Path | str | None = None,
    fix: Path | str | None = None,
    settings: Iterable[str] = (),
    groups: str | None = None,
    as_json: bool = False,
    quiet: bool = False,
) -> CheckResult:
    """Find all problems of a dataset before training.

    The exit code of the command is 1 if the dataset has errors that prevent training.

    Args:
        data: Folder with images and masks, or a table of them.
        masks: Folder with the masks, if the data folder contains only images; or a pattern for
            their names, such as 'DATA/*_mask.png'.
        output: Folder for check.html and check.json, which are replaced if present (default:
            checks/NAME).
        fix: New folder for a corrected copy; the data folder itself is not changed.
        settings: Recipe setting as key=value, e.g. labels.threshold=128 (repeatable).
        groups: How to group cases so that a group never spans two splits: a regular expression
            matched against case IDs, a table column, or `none` to treat every image as its own
            group (default: taken from the data, or inferred).
        as_json: Print JSON instead of a table.
        quiet: Print nothing.

    Raises:
        DataError: if no pair of image and mask is found.
        RunError: if `fix` is not empty or lies inside the data.
    """
    if fix is not None:
        refuse_target(Path(fix), Path(data))
    console, folder = Console(quiet=quiet), Path(data)
    base, note = apply_data_settings(load_recipe("auto"), folder)
    recipe = config.override(base, settings)
    recipe = replace(recipe, groups=groups or recipe.groups)
    stats = scan_for(recipe, folder, masks, console)
    result = check_dataset(stats, split=recipe.split, seed=recipe.seed)
    target = Path(output) if output else Path("checks") / real_path(folder).name
    target.mkdir(parents=True, exist_ok=True)
    text = json.dumps(as_values(result), indent=2)
    write_bytes(target / "check.json", (text + "\n").encode())
    write_check_page(target / "check.html", result)
    if as_json:
        if not quiet:
            print(text)
    else:
        if note:
            console.say(note)
        _show(result, console)
        console.say(f"Report: {target / 'check.html'}")
    if fix is not None:
        changes = _write_fixed_copy(result, Path(fix))
        if not as_json:
            console.say(f"Corrected copy: {fix} ({pluralize(len(changes), 'change')})")
    return result


def _write_fixed_copy(result: CheckResult, target: Path) -> list[CopyChange]:
    """Write the corrected copy completely or not at all."""
    work = target.with_name(f".{target.name}.partial")
    copy = work / "copy"
    with locked(work), hint_after_interrupt(REPEAT):
        shutil.rmtree(copy, ignore_errors=True)  # Left by a killed attempt.
        try:
            changes = write_fixed_copy(result, copy)
            refuse_target(target, result.stats.folder)
            if target.exists():
                target.rmdir()
            copy.replace(target)
        finally:
            shutil.rmtree(copy, ignore_errors=True)
    return changes


def as_values(result: CheckResult) -> dict[str, Any]:
    """Return the result as plain values, for JSON."""
    splits, grouping = result.splits, result.stats.grouping
    return {
        "folder": str(result.stats.folder),
        "pairs": len(result.stats.case_stats),
        "cases": [
            {"id": one.case.id, "image": str(one.case.image), "mask": str(one.case.mask)}
            for one in result.stats.case_stats
        ],
        "masks": count_masks(result),
        "classes": [
            {"value": value, "name": name, "share": share}
            for value, name, share in class_shares(result.stats)
        ]
        if result.stats.label_space is not None
        else None,
        "facts": result.facts,
        "groups": result.stats.group_of,
        "grouping": {
            "kind": grouping.kind,
            "is_stated": grouping.is_stated,
            "text": grouping.text,
            "warning": grouping.warning,
        },
        "findings": [asdict(finding) for finding in result.findings],
        "split": {part: list(getattr(splits, part)) for part in PARTS} if splits else None,
    }


def count_masks(result: CheckResult) -> int:
    """Return the number of mask files in use; several may belong to an image."""
    masks = [stats.case.mask for stats in result.stats.case_stats]
    return sum(len(mask.paths) if isinstance(mask, MaskParts) else 1 for mask in masks)


def _show(result: CheckResult, console: Console) -> None:
    for line in result.facts:
        console.say(line)
    if result.findings:
        rows = [
            (finding.severity, finding.check, str(len(finding.cases) or ""), _describe(finding))
            for finding in result.findings
        ]
        console.table(("severity", "check", "cases", "problem and fix"), rows)
    console.say(result.verdict)


def _describe(finding: Finding) -> str:
    lines = [finding.text]
    if finding.cases:
        rest = len(finding.cases) - EXAMPLES
        more = f" and {rest} more" if rest > 0 else ""
        lines.append(f"{', '.join(finding.cases[:EXAMPLES])}{more}")
    in_copy = f" In a copy written by --fix, they are {finding.in_copy}." if finding.in_copy else ""
    lines.append(f"Fix: {finding.fix}{in_copy}")
    return "\n".join(lines)
