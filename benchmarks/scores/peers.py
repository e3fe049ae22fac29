"""ushape and other programs, trained for the same wall time on the same splits.

    python benchmarks/scores/peers.py --python PEERS/bin/python --minutes 3 --results FILE
    python benchmarks/scores/peers.py --python PEERS/bin/python --weights smp-resnet18=FILE ...
    python benchmarks/scores/peers.py --report --results FILE

PEERS is an environment with the packages of requirements-peers.txt. Each program is one process,
which reads, trains and predicts the test images within the minutes; `peer_training.py` describes
the programs other than ushape. They get the images as arrays, so that they need no reader. The Dice
is computed as in `speedrun.py`. The others are trained with the slices of volumes; see `volumes.py`
for networks in 3D.

The results are appended to FILE, one line for each training, so that an interrupted run continues
where it stopped. A training that failed is repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peer_training import PEERS
from prepared_data import PreparedData, mean_dice, prepare, read_mask_classes, read_numbers
from speedrun import (
    FailedCommandError,
    Variant,
    add_common_options,
    append_result,
    checked_out,
    read_results,
    train_and_score,
)

from ushape import io

OWN = "ushape"


def main() -> None:
    options = read_options()
    if not options.report:
        weights = dict(one.split("=", 1) for one in options.weights)
        with checked_out("HEAD", ()) as variant:
            programs: dict[str, Program] = {}
            for name in options.peers:
                if name == OWN:
                    programs[name] = partial(train_own, variant)
                else:
                    label = f"{name} (ImageNet)" if name in weights else name
                    process = PeerProcess(
                        python=options.python,
                        script=Path(__file__).with_name("peer_training.py"),
                        options=("--weights", weights[name]) if name in weights else (),
                    )
                    programs[label] = partial(train_peer, name, process)
            run_all(programs, options)
    print_report(read_results(options.results))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    text = "Python with the packages of requirements-peers.txt (default: this one)."
    parser.add_argument("--python", default=sys.executable, help=text)
    names = (OWN, *PEERS)
    parser.add_argument("--peers", nargs="+", choices=names, default=names, metavar="PEER")
    text = "ImageNet weights of the encoder of a peer: a state dict with torchvision's names."
    parser.add_argument("--weights", nargs="+", default=[], metavar="PEER=FILE", help=text)
    add_common_options(parser)
    return parser.parse_args()


Program = Callable[[PreparedData, float, int, argparse.Namespace], dict[str, Any]]
"""Function that trains on a split for some minutes with a seed, and returns scores and facts."""


KEYS = ("data", "minutes", "seed", "peer")
"""What tells a training from the others."""


def key_of(result: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the values of KEYS of a result."""
    return tuple(result[key] for key in KEYS)


def run_all(
    programs: Mapping[str, Program],
    options: argparse.Namespace,
    *,
    score: str = "dice",
    objects: bool = False,
) -> None:
    """Train what is missing in the file of results, and append each result.

    Args:
        score: Key of the score that is printed.
        objects: Whether the masks of the prepared data number objects.
    """
    options.work.mkdir(parents=True, exist_ok=True)
    done = {key_of(result) for result in read_results(options.results) if "error" not in result}
    for minutes in options.minutes:
        for seed in range(options.seeds):
            for data in options.data:
                prepared = prepare(data, options.work, seed, options.folder, objects=objects)
                for label, train in programs.items():
                    key = (prepared.name, minutes, seed, label)
                    if key in done:
                        continue
                    result = dict(zip(KEYS, key, strict=True)) | {"load": os.getloadavg()[0]}
                    try:
                        result |= train(prepared, minutes, seed, options)
                    except FailedCommandError as error:
                        result["error"] = str(error)
                    append_result(options.results, result)
                    summary = result.get("error") or f"{score} {result[score]:.4f}"
                    print(f"{data}, {minutes:g} min, seed {seed}, {label}: {summary}", flush=True)


def train_own(
    variant: Variant,
    prepared: PreparedData,
    minutes: float,
    seed: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Train ushape and return its scores.

    Raises:
        FailedCommandError: if training or prediction fails.
    """
    result = train_and_score(variant, prepared, minutes, seed, options.work)
    return result | {"commit": variant.commit}


def train_peer(
    peer: str,
    process: PeerProcess,
    prepared: PreparedData,
    minutes: float,
    seed: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Train one of the other programs in a process of its own, and return its scores.

    Raises:
        FailedCommandError: if the process fails.
    """
    found, facts = process.run(peer, prepared, minutes, seed, options.work)
    pairs = [
        (case.group, read_mask_classes(prepared.folder / case.mask, prepared.values), classes)
        for case, classes in zip(prepared.parts["test"], found, strict=True)
    ]
    dice, case_dice = mean_dice(pairs, len(prepared.values))
    return {"dice": dice, "case_dice": case_dice} | facts


@dataclass(frozen=True, kw_only=True)
class PeerProcess:
    """A script that trains another program, with the Python of its environment."""

    python: str
    script: Path
    options: Sequence[str] = ()
    """Further options of the script."""

    source: Path | None = None
    """Folder of the package ushape, if the script imports it."""

    def run(
        self, peer: str, prepared: PreparedData, minutes: float, seed: int, work: Path
    ) -> tuple[list[np.ndarray], dict[str, Any]]:
        """Train on a split, and return what was predicted for the test cases, and facts.

        Raises:
            FailedCommandError: if the process fails.
        """
        arrays = export_arrays(prepared)
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        if self.source:
            environment["PYTHONPATH"] = str(self.source)
        with tempfile.TemporaryDirectory(prefix="peer-", dir=work) as folder:
            found = Path(folder) / "found.npz"
            started = time.time()
            command = [self.python, str(self.script), peer, str(arrays), str(found)]
            command += ["--started", str(started), "--minutes", f"{minutes:g}"]
            command += ["--seed", str(seed), *self.options]
            ended = subprocess.run(command, env=environment, capture_output=True, text=True)
            wall_s = time.time() - started
            if ended.returncode:
                raise FailedCommandError(" ".join(ended.stderr.strip().splitlines()[-2:])[-400:])
            with np.load(found) as predicted:
                cases = [predicted[name] for name in sorted(predicted.files)]
        return cases, {"wall_s": round(wall_s, 1)} | json.loads(ended.stdout.splitlines()[-1])


def export_arrays(prepared: PreparedData) -> Path:
    """Write images (C, *S), classes and objects (*S) of the split into one file, and return it."""
    path = prepared.table.with_suffix(".npz")
    if not path.exists():
        arrays: dict[str, np.ndarray] = {"classes": np.array(len(prepared.values))}
        for part, cases in prepared.parts.items():
            for index, case in enumerate(cases):
                name = f"{part}/{index:05d}"
                arrays[f"{name}/image"] = io.read(prepared.folder / case.image).array
                if part != "test":
                    mask = prepared.folder / case.mask
                    if prepared.are_objects:
                        arrays[f"{name}/objects"] = read_numbers(mask)
                        arrays[f"{name}/mask"] = (arrays[f"{name}/objects"] > 0).astype(np.uint8)
                    else:
                        arrays[f"{name}/mask"] = read_mask_classes(mask, prepared.values)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **arrays)
        partial.rename(path)
    return path


def print_report(results: Sequence[dict[str, Any]]) -> None:
    """Print the mean Dice over seeds of each program and data set, and who is first."""
    for minutes in sorted({one["minutes"] for one in results}):
        own = [one for one in results if one["minutes"] == minutes]
        peers = list(dict.fromkeys(one["peer"] for one in own))
        print(f"\n{minutes:g} minutes; Dice (steps)\n")
        print("| data | " + " | ".join(peers) + " | first |")
        print("|---" * (len(peers) + 2) + "|")
        for data in dict.fromkeys(one["data"] for one in own):
            of_set = [one for one in own if one["data"] == data]
            cells, means = [], {}
            for peer in peers:
                runs = [one for one in of_set if one["peer"] == peer and "error" not in one]
                if not runs:
                    cells.append("-")
                    continue
                means[peer] = float(np.mean([one["dice"] for one in runs]))
                steps = np.mean([one["steps"] for one in runs])
                cells.append(f"{means[peer]:.3f} ({steps:.0f})")
            first = max(means, key=means.__getitem__, default="-")
            print(f"| {data} | " + " | ".join(cells) + f" | {first} |")
        done = {key_of(one) for one in own if "error" not in one}
        for one in own:
            if key_of(one) not in done:
                print(f"{one['data']}, {one['peer']}: {one['error']}")
        for peer in peers:
            note = next((one["note"] for one in own if one["peer"] == peer and "note" in one), "")
            print(f"- {peer}: {note}" if note else "", end="\n" if note else "")


if __name__ == "__main__":
    main()
