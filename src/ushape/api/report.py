"""Write reports and comparisons from stored scores; neither data nor networks are needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ushape.console import Console
from ushape.errors import ConfigError, RunError
from ushape.evaluation.comparison import Comparison
from ushape.evaluation.storage import CARD, PAGE, load_report
from ushape.formatting import group_label, pluralize
from ushape.io.files import real_path, refuse_existing_output
from ushape.reports.comparison import Side, compare_sides, most_changed, write_comparison
from ushape.reports.report import write_card, write_report


def report(
    *runs: Path | str,
    output: Path | str | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Rewrite the report of a run, or compare several runs.

    Args:
        *runs: Scored run, cross-validation, or folder written by `evaluate`; several are compared.
        output: HTML file (default: report.html in the run; for several runs, comparison.html).
        overwrite: Replace existing outputs.
        quiet: Print nothing.

    Returns:
        The page.

    Raises:
        ConfigError: if no run is specified.
        RunError: if a run has no scores, the output exists, or the runs cannot be compared.
    """
    if len(runs) > 1:
        page = Path(output or "comparison.html")
        compare(*runs, output=page, overwrite=overwrite, quiet=quiet)
        return page
    if not runs:
        raise ConfigError(
            "No run was specified.", code="missing_argument", hint="Example: ushape report RUN"
        )
    console, folder = Console(quiet=quiet), Path(runs[0])
    found, page = load_report(folder), Path(output) if output else folder / PAGE
    if output is not None:
        refuse_existing_output(page, overwrite)
    else:
        write_card(folder / CARD, found)
    write_report(page, found)
    console.say(found.summary.verdict)
    console.say(f"Report: {page}")
    return page


def compare(
    *runs: Path | str,
    output: Path | str | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> list[Comparison]:
    """Compare runs case by case.

    Prints the mean difference of each class with a confidence interval and a signed-rank test.

    Args:
        *runs: Two or more scored runs; each is compared with the first, on their common cases.
        output: HTML file to write as well, with the cases that changed most.
        overwrite: Replace existing outputs.
        quiet: Print nothing.

    Returns:
        One comparison for each run but the first.

    Raises:
        ConfigError: if fewer than two runs are specified.
        RunError: if a run has no scores, the output exists, the runs have no case in common or
            different masks, or a run is specified twice.
    """
    if len(runs) < 2:
        raise ConfigError(
            "A comparison needs at least two runs.",
            code="missing_argument",
            hint="Example: ushape compare RUN_A RUN_B",
        )
    page = Path(output) if output else None
    refuse_existing_output(page, overwrite)
    names = _short_names([Path(folder) for folder in runs])
    sides = [
        Side(name=name, report=load_report(Path(folder)))
        for name, folder in zip(names, runs, strict=True)
    ]
    found = compare_sides(sides)
    console = Console(quiet=quiet)
    for side, comparison in zip(sides[1:], found, strict=True):
        for line in _describe(side.name, names[0], comparison, sides[0].report.summary.group_noun):
            console.say(line)
    if page is not None:
        write_comparison(page, sides, found)
        console.say(f"Comparison: {page}")
    return found


def _describe(name: str, first: str, found: Comparison, noun: str) -> list[str]:
    """Return a comparison in words, a line per class and per changed case."""
    left = f" ({pluralize(found.left_out, 'case')} of only one run)" if found.left_out else ""
    lines = [f"{name} compared with {first} on {pluralize(found.cases, 'common case')}{left}:"]
    lines += [
        f"  {own.name}, {group_label(len(own.first), noun)}: Dice {own.verdict}."
        for own in found.classes
    ]
    changed = most_changed(found)
    if changed:
        lines.append("  Largest changes:")
    return lines + [
        f"    {one.case}: {one.first:.3f} to {one.other:.3f} ({one.change:+.3f})" for one in changed
    ]


def _short_names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that distinguish them.

    Raises:
        RunError: if a folder is specified twice.
    """
    parts = [real_path(folder).parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-length:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    raise RunError(
        f"{folders[0]} is specified twice.",
        code="run_given_twice",
        hint="Compare it with another run.",
    )
