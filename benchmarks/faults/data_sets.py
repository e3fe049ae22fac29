"""Check, and if asked train on, the small public data sets, and compare with what is right.

    python benchmarks/faults/data_sets.py [SET ...] [--train MINUTES] [--data FOLDER]

The sets are not part of this repository: they lie in `../shared/data/more` beside it, and each has
a README that states its groups, classes and values. SETS states the same for programs.

`ushape check` is run without any option. Right is: no finding that stops a training; the number of
pairs; the classes with their values and names; what belongs together lies on one side of the split
that training would make, and is not divided into smaller groups; a mention of labels that lie
beside the masks, where there are any. With --train each set is also trained for so many minutes,
again without another option, which must end with exit code 0.

Prints a Markdown table with one row per set. The exit code is 1 if a set is not read right.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from commands import Commands, Limits, RefusedError, Report, WrongResultError, shorten

DATA = Path(__file__).parents[3] / "shared" / "data" / "more"

GroupOf = Callable[[Path, str], str]
"""Group of a case: the folder of the set and the case id -> what it belongs to."""


def by_pattern(pattern: str) -> GroupOf:
    """The group is what a pattern matches in the name."""

    def group_of(_: Path, case: str) -> str:
        match = re.search(pattern, case)
        return match[0] if match else case

    return group_of


def by_tile(folder: Path, case: str) -> str:
    """The group is the column `tile` of kinds.csv."""
    with (folder / "kinds.csv").open(encoding="utf-8") as file:
        tiles = {row["image"]: row["tile"] for row in csv.DictReader(file)}
    return tiles[case.rpartition("/")[2]]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """What the README of a set states."""

    pairs: int
    groups: int
    """Number of groups; that of the pairs where none are known."""

    group_of: GroupOf | None = None
    """None: no groups are known, or groups are too few to split by."""

    blocks: bool = False
    """Frames or chips of few scenes: the split is by blocks of neighbors, of any number."""

    classes: dict[str, str]
    """Name of each value, background first; "" where the set does not name it."""

    mentions: str = ""
    """A pattern for what `check` says about further labels in the folder."""


BINARY = {"0": "background", "255": "foreground"}
SETS: dict[str, DataSet] = {
    "chase_db1_vessels": DataSet(
        pairs=22,
        groups=11,
        group_of=by_pattern(r"\d+(?=[LR])"),
        classes={"0": "background", "1": "foreground"},
    ),
    "cvc_clinicdb_polyps": DataSet(
        pairs=58, groups=29, group_of=by_pattern(r"seq\d+"), classes=BINARY
    ),
    "cwfid_crop_weed": DataSet(
        pairs=24,
        groups=24,
        classes={"#000000": "background", "#00ff00": "green", "#ff0000": "red"},
    ),
    "dronedeploy_aerial": DataSet(
        pairs=28,
        groups=2,
        blocks=True,
        classes={
            "0": "building",
            "40": "clutter",
            "80": "vegetation",
            "120": "water",
            "160": "ground",
            "200": "car",
        },
    ),
    "embryo_nuclei_3d": DataSet(
        pairs=12,
        groups=11,
        group_of=by_pattern(r"Emb\d+"),
        classes=BINARY,
        mentions=r"instances",
    ),
    "football_scenes": DataSet(
        pairs=40,
        groups=40,
        blocks=True,
        classes={
            "#000000": "Background",
            "#ed22ec": "Advertisement",
            "#c99e4a": "Field",
            "#6020c0": "Football",
            "#5986b3": "Goal Bar",
            "#99dfdb": "Goalkeeper 1",
            "#ff6a4d": "Goalkeeper 2",
            "#1664fc": "Referee",
            "#8fb62d": "Spectators",
            "#26c681": "Team 1",
            "#1b9ada": "Team 2",
        },
    ),
    "gbm40_nuclei_he": DataSet(
        pairs=22, groups=22, classes=BINARY, mentions=r"instances|annotations\.json"
    ),
    "magnetic_tile_defects": DataSet(pairs=60, groups=49, group_of=by_tile, classes=BINARY),
    "masonry_cracks": DataSet(
        pairs=49, groups=25, group_of=by_pattern(r"[a-z]_\d+(?=_\d+$)"), classes=BINARY
    ),
    "mnms_cardiac_nnunet": DataSet(
        pairs=14,
        groups=7,
        group_of=by_pattern(r"[AB]_[A-Z0-9]{6}"),
        classes={"0": "background", "1": "LV", "2": "MYO", "3": "RV"},
    ),
    "ph2_skin": DataSet(pairs=28, groups=28, classes=BINARY),
    "usiigaci_cells": DataSet(
        pairs=20, groups=20, blocks=True, classes=BINARY, mentions=r"instances"
    ),
    "wbc_smears": DataSet(
        pairs=56,
        groups=2,
        blocks=True,
        classes={"0": "background", "128": "", "255": ""},
    ),
}


def find_differences(folder: Path, wanted: DataSet, report: Report) -> list[str]:
    """Return what `ushape check` reads differently from the set's README."""
    found = [f"{one['check']}: {one['text']}" for one in report.errors]
    if report.pairs != wanted.pairs:
        found.append(f"{report.pairs} pairs")
    found += differing_groups(folder, wanted, report)
    if not agree(report.classes, wanted.classes):
        found.append(f"classes {listed(report.classes)}")
    if wanted.mentions and not re.search(wanted.mentions, report.text):
        found.append("labels of single objects beside the masks are not mentioned")
    return found


def differing_groups(folder: Path, wanted: DataSet, report: Report) -> list[str]:
    """Compare the groups, and what lies on several sides of the split."""
    found = []
    if not report.parts:
        found.append("no split is possible")
    if wanted.blocks:
        line = next((fact for fact in report.values["facts"] if fact.startswith("Groups: ")), "")
        found += [] if "blocks of neighbor" in line else ["no blocks of neighbors"]
    elif report.group_count != wanted.groups:
        found.append(f"{report.group_count} groups")
    if wanted.group_of is not None and report.parts:
        sides: dict[str, set[str]] = {}
        for part, cases in report.parts.items():
            for case in cases:
                sides.setdefault(wanted.group_of(folder, case), set()).add(part)
        torn = sorted(group for group, own in sides.items() if len(own) > 1)
        if torn:
            found.append(f"{len(torn)} groups on two sides of the split, e.g. {torn[0]}")
    return found


def agree(found: dict[str, str], wanted: dict[str, str]) -> bool:
    """Compare values and names; the order of the foreground classes does not matter.

    Masks that hold 0 and 1 in one file and 0 and 255 in another have one meaning: both are right.
    """
    if list(wanted.values()) == ["background", "foreground"]:
        return list(found.values()) == list(wanted.values())
    is_same = {value.lower() for value in found} == {value.lower() for value in wanted}
    lower = {value.lower(): name.lower() for value, name in found.items()}
    return is_same and all(
        not name or name.lower() in lower[value.lower()] for value, name in wanted.items()
    )


def listed(classes: dict[str, str]) -> str:
    """Return values and names in one line."""
    return ", ".join(f"{value} = {name or '?'}" for value, name in classes.items()) or "unknown"


def describe(wanted: DataSet) -> str:
    """Return what is right in one line."""
    groups = (
        "blocks"
        if wanted.blocks
        else f"{wanted.groups} groups"
        if wanted.groups < wanted.pairs
        else "no groups"
    )
    return f"{wanted.pairs} pairs, {groups}, classes {listed(wanted.classes)}"


def try_set(folder: Path, wanted: DataSet, limits: Limits, minutes: float | None) -> list[str]:
    """Check a set, train on it if `minutes` is given, and return what differs."""
    with tempfile.TemporaryDirectory() as work:
        found = []
        commands = Commands(Path(work), limits)
        try:
            report = commands.check(folder)
            found = find_differences(folder, wanted, report)
        except (RefusedError, WrongResultError) as error:
            found.append(f"check: {first_line(error)}")
        if minutes is not None:
            seconds = 60 * minutes + limits.wall_s
            patient = Commands(Path(work), Limits(10 * seconds, seconds, limits.memory_bytes * 8))
            try:
                arguments = ("train", folder, "-o", Path(work) / "run", "--minutes", str(minutes))
                patient.run(*arguments)
            except (RefusedError, WrongResultError) as error:
                found.append(f"train: {first_line(error)}")
    return [one.replace(f"{folder.parent}/", "").replace(f"{work}/", "") for one in found]


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return str(error).partition("\n")[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", metavar="SET", nargs="*", help="Sets to try (default: all).")
    parser.add_argument("--train", type=float, metavar="MINUTES", help="Train on each, too.")
    parser.add_argument("--data", type=Path, default=DATA, help="Folder of the sets.")
    parser.add_argument("--seconds", type=float, default=60, help="Processor time of `check`.")
    parser.add_argument("--elapsed", type=float, default=60, help="Elapsed seconds of `check`.")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(SETS)):
        parser.error(f"no such set: {', '.join(unknown)}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    limits, wrong = Limits(given.seconds, given.elapsed), 0
    names = given.names or list(SETS)
    print("| set | expected | found instead | right |\n|---|---|---|---|", flush=True)
    for name in names:
        wanted = SETS[name]
        found = try_set(given.data.resolve() / name, wanted, limits, given.train)
        wrong += bool(found)
        answer = "no" if found else "yes"
        text = shorten("; ".join(found), 240)
        print(f"| {name} | {shorten(describe(wanted), 240)} | {text} | {answer} |", flush=True)
    print(f"\n{len(names) - wrong} of {len(names)} are read right.")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
