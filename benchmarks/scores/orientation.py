"""How much the groups of a data set share a direction, by which `auto` decides about rotations.

    python benchmarks/scores/orientation.py [NAME|FOLDER ...]

For each data set, the mean correlation between the differences that a turn makes to two groups is
printed (`planning/fingerprint.py`: shared_direction): upside down, and with rows and columns
exchanged. Random choices of few groups show how far it varies if there are few: their 1st, 50th and
99th percentile. A direction is detected above 2/n for n groups.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from prepared_data import DATA, NAMES, scan_named

from ushape.planning.fingerprint import mean_thumbnails, shared_direction

FEW = (3, 4, 6, 8)
CHOICES = 300


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    text = f"Names of sets, or data folders (default: {', '.join(NAMES)})."
    parser.add_argument("data", nargs="*", default=NAMES, metavar="NAME|FOLDER", help=text)
    parser.add_argument("--folder", type=Path, default=DATA, help="Folder of the named sets.")
    options = parser.parse_args()
    print("| data | groups | turn | all | " + " | ".join(f"{count} groups" for count in FEW) + " |")
    print("|---" * (4 + len(FEW)) + "|")
    with tempfile.TemporaryDirectory() as work:
        for name in options.data:
            print_rows(name, Path(work), options.folder)


def print_rows(name: str, work: Path, folder: Path) -> None:
    """Print a row of the table for each turn."""
    stats = scan_named(name, work, folder)
    group_of = stats.group_of
    groups = [group_of[one.case.id] for one in stats.case_stats]
    means = mean_thumbnails(np.stack([one.thumbnail for one in stats.case_stats]), groups)
    for turn, turned in (
        ("upside down", np.flip(means, 1)),
        ("transposed", means.transpose(0, 2, 1)),
    ):
        of_all = f"{shared_direction(means, turned):.2f}"
        of_few = [spread(means, turned, count) if len(means) > count else "" for count in FEW]
        row = (Path(name).name, str(len(means)), turn, of_all, *of_few)
        print(f"| {' | '.join(row)} |", flush=True)


def spread(means: np.ndarray, turned: np.ndarray, count: int) -> str:
    """Return percentiles of the correlation in random choices of some groups, as text."""
    rng, found = np.random.default_rng(0), []
    for _ in range(CHOICES):
        chosen = rng.choice(len(means), count, replace=False)
        found.append(shared_direction(means[chosen], turned[chosen]))
    return ", ".join(f"{value:.2f}" for value in np.percentile(found, (1, 50, 99)))


if __name__ == "__main__":
    main()
