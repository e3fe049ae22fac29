"""ushape in 2D, 2.5D and 3D, and MONAI's U-Net in 3D, on volumes for the same wall time.

    python benchmarks/scores/volumes.py --python PEERS/bin/python --minutes 10 --results FILE
    python benchmarks/scores/volumes.py --programs ushape monai-spleen --results FILE ...
    python benchmarks/scores/volumes.py --report --results FILE

PEERS is an environment with the packages of requirements-peers.txt. ushape is trained as it plans
by itself, and with each value of `preprocessing.slices`; `volume_training.py` describes the other
programs. Each is one process, which reads, trains and predicts the test volumes within the minutes,
on the same split. All are told the same spacing. The Dice is computed on the grid of the files, as
in `speedrun.py`: the mean over classes, and over the groups of the test volumes.

The results are appended to FILE, one line for each training, so that an interrupted run continues
where it stopped. A training that failed is repeated.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import peers
from peers import OWN, PeerProcess, Program, run_all, train_peer
from prepared_data import PreparedData
from speedrun import Variant, add_common_options, checked_out, read_results

SPACING_MM: dict[str, tuple[float, float, float]] = {
    "embryo_nuclei_3d": (2.18, 1, 1),
    "mnms_cardiac_nnunet": (10, 1.25, 1.25),
}
"""Spacing along z, y and x of the volume sets, which their files do not state or state wrongly.

For the embryos, only the proportions are known; for the hearts, they are typical values.
"""

SLICES = {OWN: "auto", f"{OWN}-2d": "1", f"{OWN}-2.5d": "3", f"{OWN}-3d": "null"}
"""`preprocessing.slices` of each variant of ushape."""

MONAI = ("monai-spleen", "monai-spleen-grid", "monai")


def main() -> None:
    options = read_options()
    if not options.report:
        with checked_out("HEAD", ()) as variant:
            programs: dict[str, Program] = {
                name: partial(train_own, variant, SLICES[name])
                if name in SLICES
                else partial(train_monai, name)
                for name in options.programs
            }
            run_all(programs, options)
    print_report(read_results(options.results))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    text = "Python with the packages of requirements-peers.txt (default: this one)."
    parser.add_argument("--python", default=sys.executable, help=text)
    names = (*SLICES, *MONAI)
    text = f"Programs to compare (default: all): {', '.join(names)}."
    parser.add_argument(
        "--programs", nargs="+", choices=names, default=names, metavar="NAME", help=text
    )
    text = f"Spacing of sets other than {', '.join(SPACING_MM)}."
    parser.add_argument("--spacing-mm", nargs=3, type=float, metavar=("Z", "Y", "X"), help=text)
    add_common_options(parser)
    parser.set_defaults(data=tuple(SPACING_MM), minutes=[10.0])
    options = parser.parse_args()
    unknown = [name for name in options.data if Path(name).name not in SPACING_MM]
    if unknown and not options.spacing_mm and not options.report:
        parser.error(f"State the spacing of {', '.join(unknown)} with --spacing-mm Z Y X.")
    if options.spacing_mm and min(options.spacing_mm) <= 0:
        parser.error("--spacing-mm needs three positive numbers.")
    return options


def train_own(
    variant: Variant,
    slices: str,
    prepared: PreparedData,
    minutes: float,
    seed: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Train ushape with a value of preprocessing.slices, and return its scores.

    Raises:
        FailedCommandError: if training or prediction fails.
    """
    spacing = ",".join(find_spacing(prepared, options))
    settings = (f"preprocessing.spacing_mm=[{spacing}]", f"preprocessing.slices={slices}")
    return peers.train_own(replace(variant, settings=settings), prepared, minutes, seed, options)


def train_monai(
    name: str,
    prepared: PreparedData,
    minutes: float,
    seed: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Train one of MONAI's networks in a process of its own, and return its scores.

    Raises:
        FailedCommandError: if the process fails.
    """
    process = PeerProcess(
        python=options.python,
        script=Path(__file__).with_name("volume_training.py"),
        options=("--spacing-mm", *find_spacing(prepared, options)),
    )
    return train_peer(name, process, prepared, minutes, seed, options)


def find_spacing(prepared: PreparedData, options: argparse.Namespace) -> list[str]:
    """Return the spacing of a set along z, y and x, as text."""
    spacing_mm = SPACING_MM.get(prepared.name, options.spacing_mm)
    return [f"{length:g}" for length in spacing_mm]


def print_report(results: Sequence[dict[str, Any]]) -> None:
    """Print the scores, and which variant ushape chose by itself."""
    peers.print_report(results)
    names = {None: "3D", 1: "2D", 3: "2.5D"}
    for one in results:
        if one["peer"] == OWN and "slices" in one:
            chosen = names.get(one["slices"], f"{one['slices']} slices")
            print(f"- {one['data']}, {one['minutes']:g} min, seed {one['seed']}: {OWN} in {chosen}")


if __name__ == "__main__":
    main()
