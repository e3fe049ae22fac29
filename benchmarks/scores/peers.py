"""ushape and other programs, trained for the same wall time on the same splits.

    python benchmarks/scores/peers.py --python PEERS/bin/python --minutes 3 --results FILE
    python benchmarks/scores/peers.py --python PEERS/bin/python --weights smp-resnet18=FILE ...
    python benchmarks/scores/peers.py --report --results FILE

PEERS is an environment with the packages of requirements-peers.txt. Each program is one process,
which reads, trains and predicts the test images within the minutes; `peer_training.py` describes
the programs other than ushape. They get the images as arrays, so that they need no reader. The Dice
is computed as in `speedrun.py`. Volumes are trained slice by slice by the others.

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from peer_training import PEERS
from prepared_data import PreparedData, mean_dice, prepare, read_mask_classes
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
        with checked_out("HEAD", ()) as variant:
            run_all(variant, options)
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


def run_all(variant: Variant, options: argparse.Namespace) -> None:
    """Train what is missing in the file of results, and append each result."""
    weights = dict(one.split("=", 1) for one in options.weights)
    peers = {name: weights.get(name) for name in options.peers}
    options.work.mkdir(parents=True, exist_ok=True)
    keys = ("data", "minutes", "seed", "peer")
    done = {
        tuple(result[key] for key in keys)
        for result in read_results(options.results)
        if "error" not in result
    }
    for minutes in options.minutes:
        for seed in range(options.seeds):
            for data in options.data:
                prepared = prepare(data, options.work, seed, options.folder)
                for peer, file in peers.items():
                    label = f"{peer} (ImageNet)" if file else peer
                    key = (prepared.name, minutes, seed, label)
                    if key in done:
                        continue
                    result = dict(zip(keys, key, strict=True)) | {"load": os.getloadavg()[0]}
                    try:
                        if peer == OWN:
                            result["commit"] = variant.commit
                            result |= train_and_score(
                                variant, prepared, minutes, seed, options.work
                            )
                        else:
                            result |= train_peer(peer, file, prepared, minutes, seed, options)
                    except FailedCommandError as error:
                        result["error"] = str(error)
                    append_result(options.results, result)
                    summary = result.get("error") or f"Dice {result['dice']:.4f}"
                    print(f"{data}, {minutes:g} min, seed {seed}, {label}: {summary}", flush=True)


def train_peer(
    peer: str,
    weights: str | None,
    prepared: PreparedData,
    minutes: float,
    seed: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Train one of the other programs in a process of its own, and return its scores.

    Raises:
        FailedCommandError: if the process fails.
    """
    arrays = export_arrays(prepared)
    with tempfile.TemporaryDirectory(prefix="peer-", dir=options.work) as folder:
        found = Path(folder) / "found.npz"
        script = Path(__file__).parent / "peer_training.py"
        started = time.time()
        command = [options.python, str(script), peer, str(arrays), str(found)]
        command += ["--started", str(started), "--minutes", f"{minutes:g}", "--seed", str(seed)]
        command += ["--weights", weights] if weights else []
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        wall_s = time.time() - started
        if ended.returncode:
            raise FailedCommandError(" ".join(ended.stderr.strip().splitlines()[-2:])[-400:])
        with np.load(found) as predicted:
            pairs = [
                (
                    case.group,
                    read_mask_classes(prepared.folder / case.mask, prepared.values),
                    predicted[f"{index:05d}"],
                )
                for index, case in enumerate(prepared.parts["test"])
            ]
        facts = json.loads(ended.stdout.splitlines()[-1])
    dice, case_dice = mean_dice(pairs, len(prepared.values))
    return {"dice": dice, "case_dice": case_dice, "wall_s": round(wall_s, 1)} | facts


def export_arrays(prepared: PreparedData) -> Path:
    """Write images (C, *S) and classes (*S) of the split into one file, and return it."""
    path = prepared.table.with_suffix(".npz")
    if not path.exists():
        arrays: dict[str, np.ndarray] = {"classes": np.array(len(prepared.values))}
        for part, cases in prepared.parts.items():
            for index, case in enumerate(cases):
                name = f"{part}/{index:05d}"
                arrays[f"{name}/image"] = io.read(prepared.folder / case.image).array
                if part != "test":
                    mask = read_mask_classes(prepared.folder / case.mask, prepared.values)
                    arrays[f"{name}/mask"] = mask
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
        for one in own:
            if "error" in one:
                print(f"{one['data']}, {one['peer']}: {one['error']}")
        for peer in peers:
            note = next((one["note"] for one in own if one["peer"] == peer and "note" in one), "")
            print(f"- {peer}: {note}" if note else "", end="\n" if note else "")


if __name__ == "__main__":
    main()
