"""The verbs `report` and `compare`: pages and verdicts from scores that are there already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ushape.console import Console
from ushape.errors import ConfigError, RunError
from ushape.evaluation.comparison import Comparison
from ushape.evaluation.storage import CARD, PAGE, load_report
from ushape.formatting import group_label, pluralize
from ushape.reports.comparison import Side, compare_sides, most_changed, write_comparison
from ushape.reports.model_card import write_card
from ushape.reports.report import write_report


def report(*folders: Path | str, output: Path | str | None = None, overwrite: bool = False) -> Path:
    """Makes the page and the card of a scored run again, or one page of several side by side.

    Neither the data nor the network are needed.

    Args:
        folders: Runs, cross-validations, or folders that `evaluate` wrote.
        output: The page; default report.html in the folder, of several comparison.html here.

    Raises:
        ConfigError: no run is named.
        RunError: no scores there; the page that is named exists; other cases or masks.
    """
    console = Console()
    if len(folders) > 1:
        page = Path(output or "comparison.html")
        compare(*folders, output=page, overwrite=overwrite)
        return page
    if not folders:
        raise ConfigError("No run is named.", hint="ushape report RUN")
    folder = Path(folders[0])
    found, page = load_report(folder), Path(output) if output else folder / PAGE
    if output is not None:
        _refuse_existing(page, overwrite)
    else:
        write_card(folder / CARD, found)
    write_report(page, found)
    console.say(found.summary.verdict)
    console.say(f"Report: {page}")
    return page


def compare(
    *folders: Path | str, output: Path | str | None = None, overwrite: bool = False
) -> list[Comparison]:
    """Compares runs on the cases that both have scores of, each with the first.

    Args:
        folders: Two or more: runs, cross-validations, or folders that `evaluate` wrote.
        output: Also a page, with the cases that changed most.

    Raises:
        ConfigError: fewer than two.
        RunError: no scores there; the page exists; no case in common; masks that differ; one run
            that is named twice.
    """
    if len(folders) < 2:
        raise ConfigError("Two runs are compared.", hint="ushape compare RUN_A RUN_B")
    page = Path(output) if output else None
    if page is not None:
        _refuse_existing(page, overwrite)
    names = _short_names([Path(folder) for folder in folders])
    sides = [
        Side(name=name, report=load_report(Path(folder)))
        for name, folder in zip(names, folders, strict=True)
    ]
    found = compare_sides(sides)
    console = Console()
    for side, comparison in zip(sides[1:], found, strict=True):
        for line in _describe(side.name, names[0], comparison, sides[0].report.summary.group_noun):
            console.say(line)
    if page is not None:
        write_comparison(page, sides, found)
        console.say(f"Page: {page}")
    return found


def _describe(name: str, first: str, found: Comparison, noun: str) -> list[str]:
    left = f", {found.left_out} of one only left out" if found.left_out else ""
    lines = [f"{name} against {first}, on {pluralize(found.cases, 'case')} of both{left}:"]
    lines += [
        f"  {own.name}: Dice {own.verdict} (of {group_label(len(own.first), noun)})."
        for own in found.classes
    ]
    changed = most_changed(found)
    if changed:
        lines.append("  Changed most:")
    return lines + [
        f"    {one.case}: {one.first:.3f} to {one.other:.3f} ({one.change:+.3f})" for one in changed
    ]


def _short_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the paths that tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-length:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    raise RunError(f"{folders[0]} is named twice.", hint="Compare it with another run.")


def _refuse_existing(page: Path, overwrite: bool) -> None:
    if page.exists() and not overwrite:
        raise RunError(f"{page} exists.", hint="--overwrite replaces it; or choose another -o.")
