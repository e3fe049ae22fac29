"""ushape and other programs that find objects, trained for the same wall time on the same splits.

    python benchmarks/scores/objects.py --python PEERS/bin/python --stardist STARDIST/bin/python \
        --minutes 5 --seeds 1 --results FILE
    python benchmarks/scores/objects.py --report --results FILE

PEERS and STARDIST are environments as `requirements-objects.txt` describes them. Each program is
one process, which reads, trains, chooses its thresholds on validation images, and predicts the test
images within the minutes:

- ushape: `ushape train` of this commit, then `ushape predict --instances`;
- stardist: StarDist from scratch, see `stardist_training.py`;
- monai, smp-resnet18: U-Nets with a watershed, see `watershed_training.py` (volumes: monai only).

All get the numbered objects of the sets (the generated cells: the connected parts of their masks).
One function scores the label images: AP as StarDist defines it, TP / (TP + FP + FN), at IoU 0.5 and
its mean over 0.5, 0.55, ..., 0.9, and F1 at 0.5, all of the pooled test images, and the mean
absolute difference of the numbers of objects per image.

The results are appended to FILE, one line for each training, so that an interrupted run continues
where it stopped. A training that failed is repeated.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peers import OWN, PeerProcess, Program, run_all
from prepared_data import PreparedData, predicted_files, read_numbers
from speedrun import (
    REPOSITORY,
    Variant,
    add_common_options,
    checked_out,
    read_results,
    train_and_score,
)
from speedrun_report import loss_ratio, ratio_interval

from ushape.metrics.instance import ObjectCounts, count_objects
from ushape.metrics.stats import compare_paired

SETS = ("cells", "usiigaci_cells", "gbm40_nuclei_he", "embryo_nuclei_3d")
STARDIST = "stardist"
UNETS = ("monai", "smp-resnet18")
LABELS = {OWN: OWN, STARDIST: STARDIST} | {name: f"{name} + watershed" for name in UNETS}


def main() -> None:
    options = read_options()
    if not options.report:
        with checked_out("HEAD", ()) as variant:
            programs: dict[str, Program] = {}
            for name in options.programs:
                if name == OWN:
                    programs[OWN] = partial(train_own, variant)
                else:
                    programs[LABELS[name]] = partial(train_other, name, process_of(name, options))
            run_all(programs, options, score="ap50", objects=True)
    print_report(read_results(options.results))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    text = "Python of the environment of the U-Nets (default: this one)."
    parser.add_argument("--python", default=sys.executable, help=text)
    text = "Python of the environment of StarDist (default: this one)."
    parser.add_argument("--stardist", default=sys.executable, help=text)
    text = "Programs to compare (default: ushape, stardist and monai)."
    names, usual = tuple(LABELS), (OWN, STARDIST, "monai")
    parser.add_argument("--programs", nargs="+", choices=names, default=usual, help=text)
    add_common_options(parser)
    parser.set_defaults(data=SETS, minutes=[5.0])
    return parser.parse_args()


def process_of(name: str, options: argparse.Namespace) -> PeerProcess:
    """Return the process of a program other than ushape."""
    folder = Path(__file__).parent
    if name == STARDIST:
        return PeerProcess(python=options.stardist, script=folder / "stardist_training.py")
    return PeerProcess(
        python=options.python,
        script=folder / "watershed_training.py",
        source=REPOSITORY / "src",  # For the scores of the validation images.
    )


def train_own(
    variant: Variant,
    prepared: PreparedData,
    minutes: float,
    seed: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Train ushape and return the scores of the label images that it writes.

    Raises:
        FailedCommandError: if training or prediction fails.
    """
    result = train_and_score(
        variant,
        prepared,
        minutes,
        seed,
        options.work,
        score=score_files,
        predict=["--instances"],
    )
    return result | {"commit": variant.commit}


def train_other(
    name: str,
    process: PeerProcess,
    prepared: PreparedData,
    minutes: float,
    seed: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Train another program and return the scores of its label images.

    Raises:
        FailedCommandError: if the process fails.
    """
    found, facts = process.run(name, prepared, minutes, seed, options.work)
    cases = prepared.parts["test"]
    truth = [read_numbers(prepared.folder / case.mask) for case in cases]
    return score_cases(zip((case.group for case in cases), truth, found, strict=True)) | facts


def score_files(prepared: PreparedData, predictions: Path) -> dict[str, Any]:
    """Return the scores of the label images in a folder that ushape wrote.

    Raises:
        FileNotFoundError: if a case has no label image.
    """
    return score_cases(
        (case.group, read_numbers(prepared.folder / case.mask), read_numbers(path))
        for case, path in predicted_files(prepared, predictions, "_instances")
    )


def score_cases(cases: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """Return the scores of the test cases, and the counts of each group.

    Args:
        cases: Group, and true and predicted objects (*S) of each case; 0 is background.
    """
    by_group: dict[str, ObjectCounts] = {}
    errors = []
    for group, truth, found in cases:
        counts = count_objects(found.astype(np.int64), truth.astype(np.int64))
        errors.append(counts.count_error)
        by_group[group] = by_group[group] + counts if group in by_group else counts
    total = sum(by_group.values(), ObjectCounts(truth=0, predicted=0, ious=()))
    return {
        "ap50": or_one(total.average_precision(0.5)),
        "ap": or_one(total.mean_average_precision),
        "f1": or_one(total.f1()),
        "count_error": float(np.mean(errors)),
        "truth": total.truth,
        "predicted": total.predicted,
        "group_ap": {group: or_one(own.mean_average_precision) for group, own in by_group.items()},
    }


def or_one(score: float | None) -> float:
    """Return a score, or 1 if there are neither annotated nor predicted objects."""
    return 1.0 if score is None else score


def print_report(results: Sequence[dict[str, Any]]) -> None:
    """Print the scores of each set and program, and how ushape compares with the others."""
    for minutes in sorted({one["minutes"] for one in results}):
        own = [one for one in results if one["minutes"] == minutes]
        runs = {(one["data"], one["peer"], one["seed"]): one for one in own if "error" not in one}
        print(f"\n{minutes:g} minutes\n")
        print_scores(runs)
        print_comparison(runs)
        for one in own:
            if "error" in one and (one["data"], one["peer"], one["seed"]) not in runs:
                print(f"Left out: {one['data']}, {one['peer']}, seed {one['seed']}: {one['error']}")
        notes = {one["peer"]: one["note"] for one in runs.values() if "note" in one}
        for peer, note in notes.items():
            print(f"- {peer}: {note}")


Runs = dict[tuple[str, str, int], dict[str, Any]]
"""Results by data set, program and seed."""


def print_scores(runs: Runs) -> None:
    """Print the mean scores over the seeds."""
    print(
        "| data | program | seeds | AP at 0.5 | AP 0.5 to 0.9 | F1 | count error "
        "| predicted / annotated | steps | s |"
    )
    print("|---" * 10 + "|")
    for data, peer in dict.fromkeys((data, peer) for data, peer, _ in runs):
        own = [one for key, one in runs.items() if key[:2] == (data, peer)]
        mean = {
            key: np.mean([one[key] for one in own])
            for key in ("ap50", "ap", "f1", "count_error", "predicted", "truth", "steps", "wall_s")
        }
        print(
            f"| {data} | {peer} | {len(own)} | {mean['ap50']:.3f} | {mean['ap']:.3f} "
            f"| {mean['f1']:.3f} | {mean['count_error']:.1f} "
            f"| {mean['predicted']:.0f} / {mean['truth']:.0f} | {mean['steps']:.0f} "
            f"| {mean['wall_s']:.0f} |"
        )


def print_comparison(runs: Runs) -> None:
    """Print the difference in AP and the ratio of 1 - AP of ushape and each other program."""
    others = [peer for peer in dict.fromkeys(peer for _, peer, _ in runs) if peer != OWN]
    for peer in others:
        print(f"\nAP 0.5 to 0.9, ushape minus {peer}, mean over test groups (95 % interval):\n")
        losses = {}
        for data in dict.fromkeys(data for data, _, _ in runs):
            pairs = paired_runs(runs, data, peer)
            if not pairs:
                continue
            losses[data] = 1 - np.array([[one["ap"] for one in pair] for pair in pairs]).T
            print(f"- {data}: {difference_text(pairs)}")
        if losses:
            low, high = ratio_interval(losses)
            print(
                f"\nGeometric mean over {len(losses)} sets of (1 - AP) of ushape divided by that "
                f"of {peer}: **{loss_ratio(losses):.3f}** [{low:.3f}, {high:.3f}] (95 %, resampled "
                "over sets and seeds).\n"
            )


def paired_runs(runs: Runs, data: str, peer: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the results of a program and of ushape for each seed that both have."""
    seeds = sorted({seed for own, _, seed in runs if own == data})
    keys = [((data, peer, seed), (data, OWN, seed)) for seed in seeds]
    return [(runs[a], runs[b]) for a, b in keys if a in runs and b in runs]


def difference_text(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """Return the mean difference over test groups with its interval, as text."""
    scores = [
        (theirs["group_ap"][group], ours["group_ap"][group])
        for theirs, ours in pairs
        for group in theirs["group_ap"]
    ]
    theirs_ap, ours_ap = zip(*scores, strict=True)
    compared = compare_paired(ours_ap, theirs_ap, seed=0)
    text = f"{compared.mean_difference:+.3f}"
    if compared.interval:
        text += f" [{compared.interval.low:+.3f}, {compared.interval.high:+.3f}]"
    return f"{text}, {compared.pairs} groups"


if __name__ == "__main__":
    main()
