"""Judge what `check` and `train` make of one input, by what is right for it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from commands import (
    Commands,
    Report,
    WrongResultError,
)


@dataclass(frozen=True)
class Trial:
    """The input of one case, and the commands to try on it."""

    generators: Path
    data: Path
    commands: Commands

    def generate(self, name: str, *arguments: str | Path) -> None:
        """Run a generator script."""
        script = self.generators / f"{name}.py"
        subprocess.run([sys.executable, script, *arguments], check=True, capture_output=True)

    def truth(self, number: int, **options: Any) -> np.ndarray:
        """Where a generator drew objects in its image of this number."""
        sys.path.insert(0, str(self.generators))
        import blobs

        _, ids = blobs.scene(number, **options)
        return np.asarray(ids > 0)


Judge = Callable[[Trial, "Case"], str]
"""Returns what happened in one line; raises WrongResultError or RefusedError."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is right for one input."""

    folder: str = ""
    """Folder of the images below the input's own."""

    options: tuple[str, ...] = ()
    """Options of `check` and `train`; {data} stands for the input's folder."""

    pairs: int = 0
    values: tuple[str, ...] = ()
    """Mask values or colors of all classes, background first; empty: not judged."""

    names: tuple[tuple[str, ...], ...] = ()
    """Names of all classes, background first, in any of these forms; empty: not judged."""

    classes: int = 0
    """Number of classes; 0: not judged."""

    unit: str = ""
    """A pattern: cases whose ids agree in what it matches stay on one side of the split."""

    mixed: str = ""
    """A pattern: cases whose ids agree in what it matches must not all be in one part."""

    warns: str = ""
    """A pattern that a warning of `check` matches."""

    refusal: str = ""
    """A pattern for the message with which this input may be refused; empty: it must be read."""

    dims: int = 2
    trains: bool = False
    """A tiny training must succeed, too."""

    further: Judge | None = None
    """What else must hold; called after check, and after training if `trains`."""

    instead: Judge | None = None
    """Judges the case in place of check and training."""


def judge(trial: Trial, case: Case) -> str:
    """Check the input, train on it if the case says so, and compare with what is right."""
    if case.instead is not None:
        return case.instead(trial, case)
    data = trial.data / case.folder
    options = [option.format(data=trial.data) for option in case.options]
    report = trial.commands.check(data, *options)
    if case.refusal and report.errors and re.search(case.refusal, report.text, re.I):
        return f"refused: {report.errors[0]['text']}"
    report.require_no_errors()
    judge_report(report, case)
    found = f"{report.pairs} pairs, classes {_listed(report.classes)}"
    if case.trains:
        outcome = trial.commands.train(data, *options, dims=case.dims)
        if outcome.code != 0:
            raise WrongResultError(f"ushape train: exit code {outcome.code}")
        found += ", trained"
    if case.further is not None:
        found += ", " + case.further(trial, case)
    return found


def judge_report(report: Report, case: Case) -> None:
    """Compare pairs, classes and split of `ushape check` with what is right."""
    if case.pairs and report.pairs != case.pairs:
        raise WrongResultError(f"{report.pairs} pairs instead of {case.pairs}")
    values, names = tuple(report.classes), tuple(report.classes.values())
    is_listed = f"classes {_listed(report.classes)}"
    if case.values and values != case.values:
        raise WrongResultError(f"{is_listed} instead of {', '.join(case.values)}")
    if case.classes and len(values) != case.classes:
        raise WrongResultError(f"{is_listed}: {len(values)} instead of {case.classes}")
    if case.names and not any(_agree(names, wanted) for wanted in case.names):
        raise WrongResultError(f"{is_listed} instead of {', '.join(case.names[0])}")
    if case.warns and not re.search(case.warns, report.warnings_text, re.I):
        raise WrongResultError(f"{report.pairs} pairs, no warning about it ({case.warns})")
    if case.unit or case.mixed:
        judge_split(report.parts, case)


def judge_split(parts: dict[str, list[str]], case: Case) -> None:
    """Judge which cases are on which side of the split that training would make."""
    if not parts:
        raise WrongResultError("no split is possible")
    if case.unit and (torn := torn_units(parts, case.unit)):
        raise WrongResultError(f"{len(torn)} units on two sides of the split, e.g. {torn[0]}")
    if case.mixed:
        kinds = {part: {_unit_of(one, case.mixed) for one in own} for part, own in parts.items()}
        alone = [part for part, own in kinds.items() if len(own) < 2]
        if alone:
            kind = next(iter(kinds[alone[0]]), "nothing")
            raise WrongResultError(f"the part {alone[0]} holds {kind} only")


def torn_units(parts: dict[str, list[str]], pattern: str) -> list[str]:
    """Return what the pattern matches in the ids of cases of more than one part."""
    sides: dict[str, set[str]] = {}
    for part, ids in parts.items():
        for case in ids:
            sides.setdefault(_unit_of(case, pattern), set()).add(part)
    return sorted(unit for unit, own in sides.items() if len(own) > 1)


def _unit_of(case: str, pattern: str) -> str:
    match = re.search(pattern, case)
    return match[0] if match else case


def _agree(names: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Compare names in lower case, the background by its place only."""
    found = [name.lower() for name in names[1:]]
    return found == [name.lower() for name in wanted[1:]]


def _listed(classes: dict[str, str]) -> str:
    return ", ".join(f"{value} = {name}" for value, name in classes.items()) or "unknown"
