"""Two variants of ushape on all data sets, for the same minutes and on the same splits, in turns.

    python benchmarks/scores/speedrun.py --a fbd59c3 --minutes 3 --seeds 3 --results FILE
    python benchmarks/scores/speedrun.py --b-set train.batch_size=8 --data lgg cells --results FILE
    python benchmarks/scores/speedrun.py --report --results FILE

A variant is a commit, which is checked out into a temporary work tree, with settings of its recipe.
For each seed and data set, A and B train one after the other (A B A B, one training at a time) by
`ushape train --minutes`. Each seed is also another split, the same for both; a split that one of
them refuses, because it infers larger groups, is replaced by the next one. The test images are
predicted by each run's own `ushape predict`, and this script computes the Dice from the mask files.

The results are appended to FILE, one line for each training, so that an interrupted run continues
where it stopped. A training that failed is repeated. The report is a Markdown table.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prepared_data import DATA, NAMES, PreparedData, prepare, score_files
from speedrun_report import print_report

REPOSITORY = Path(__file__).parents[2]

SPLITS = 10
"""Largest number of splits that are tried for a seed."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A commit with settings."""

    source: Path
    """Folder with the package of the commit."""

    commit: str
    settings: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return " ".join((self.commit, *self.settings))


class FailedCommandError(Exception):
    """A command of ushape ended with an error."""


def main() -> None:
    options = read_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that work trees are removed.
    if not options.report:
        with ExitStack() as stack:
            variants = {
                side: stack.enter_context(
                    checked_out(getattr(options, side), tuple(getattr(options, f"{side}_set")))
                )
                for side in ("a", "b")
            }
            refuse_other_variants(read_results(options.results), variants)
            run_all(variants, options)
    print_report(read_results(options.results), options.dice, options.factor)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--a", default="HEAD", metavar="COMMIT", help="Variant A (default: HEAD).")
    parser.add_argument("--b", default="HEAD", metavar="COMMIT", help="Variant B (default: HEAD).")
    for side in ("a", "b"):
        text = f"Recipe settings of variant {side.upper()}."
        parser.add_argument(f"--{side}-set", nargs="+", default=[], metavar="KEY=VALUE", help=text)
    add_common_options(parser)
    parser.add_argument("--dice", type=float, help="Validation Dice whose time is reported.")
    text = "Instead of --dice: fraction of the best validation Dice of A, for each set."
    parser.add_argument("--factor", type=float, default=0.98, help=text)
    return parser.parse_args()


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of data, time and results, which `peers.py` has as well."""
    text = f"Names of sets, or data folders (default: {', '.join(NAMES)})."
    parser.add_argument("--data", nargs="+", default=NAMES, metavar="NAME|FOLDER", help=text)
    parser.add_argument("--folder", type=Path, default=DATA, help="Folder of the named sets.")
    parser.add_argument("--minutes", nargs="+", type=float, default=[3.0])
    parser.add_argument("--seeds", type=int, default=1, help="Number of seeds, from 0.")
    parser.add_argument("--results", type=Path, required=True, metavar="FILE")
    parser.add_argument("--report", action="store_true", help="Only print the report.")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()) / "ushape-speedrun",
        help="Folder for the prepared data, which are kept, and the runs, which are not.",
    )


@contextmanager
def checked_out(commit: str, settings: tuple[str, ...]) -> Iterator[Variant]:
    """Check a commit out into a temporary work tree of git."""
    git = ("git", "-C", str(REPOSITORY))
    command = [*git, "rev-parse", "--short", "--verify", f"{commit}^{{commit}}"]
    short = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="ushape-commit-") as folder:
        tree = Path(folder) / short
        subprocess.run([*git, "worktree", "add", "-q", "--detach", str(tree), short], check=True)
        try:
            yield Variant(source=tree / "src", commit=short, settings=settings)
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", str(tree)], check=True)


def read_results(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of results; none if there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def append_result(path: Path, result: dict[str, Any]) -> None:
    """Append a line to a file of results."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")


def refuse_other_variants(results: Sequence[dict[str, Any]], variants: dict[str, Variant]) -> None:
    """Stop if the file has results of other variants, which must not be mixed."""
    for result in results:
        label = variants[result["side"]].label
        if result["variant"] != label:
            sys.exit(
                f"The file has results of variant {result['side'].upper()} = {result['variant']}, "
                f"not {label}. Write to another file with --results."
            )


def run_all(variants: dict[str, Variant], options: argparse.Namespace) -> None:
    """Train what is missing in the file of results, and append each result."""
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    done = {
        (result["data"], result["minutes"], result["seed"], result["side"])
        for result in read_results(options.results)
        if "error" not in result
    }
    for minutes in options.minutes:
        for seed in range(options.seeds):
            for name in options.data:
                keys = {side: (Path(name).name, minutes, seed, side) for side in variants}
                for side in [side for side, key in keys.items() if key not in done]:
                    result = dict(zip(("data", "minutes", "seed", "side"), keys[side], strict=True))
                    result |= {"variant": variants[side].label}
                    result |= {"load": round(os.getloadavg()[0], 2)}
                    try:
                        prepared = prepare_for_all(variants.values(), name, seed, options)
                        result |= train_and_score(variants[side], prepared, minutes, seed, work)
                    except FailedCommandError as error:
                        result["error"] = str(error)
                    append_result(options.results, result)
                    summary = result.get("error") or f"Dice {result['dice']:.4f}"
                    print(f"{name}, {minutes:g} min, seed {seed}, {side}: {summary}", flush=True)


def prepare_for_all(
    variants: Iterable[Variant], name: str, seed: int, options: argparse.Namespace
) -> PreparedData:
    """Return a data set with the first split that all variants accept.

    Raises:
        FailedCommandError: if there is none among SPLITS.
    """
    for attempt in range(SPLITS):
        prepared = prepare(name, options.work, seed + 1000 * attempt, options.folder)
        try:
            for variant in variants:
                accepted = prepared.table.with_suffix(f".{variant.commit}")
                if not accepted.exists():
                    call(variant, ["plan", *prepared.arguments, "--minutes", "1"])
                    accepted.touch()
            return prepared
        except FailedCommandError as error:
            refused = error
    raise refused


def train_and_score(
    variant: Variant,
    prepared: PreparedData,
    minutes: float,
    seed: int,
    work: Path,
    *,
    score: Callable[[PreparedData, Path], dict[str, Any]] = score_files,
    predict: Sequence[str] = (),
) -> dict[str, Any]:
    """Train a variant, predict the test cases, and return the scores and the course of training.

    Args:
        score: Function that returns the scores of the folder of predictions.
        predict: Further options of `ushape predict`.

    Raises:
        FailedCommandError: if training or prediction fails.
    """
    with tempfile.TemporaryDirectory(prefix="run-", dir=work) as folder:
        run, masks = Path(folder) / "run", Path(folder) / "masks"
        started = time.time()
        arguments = ["train", *prepared.arguments, "-o", str(run), "--minutes", f"{minutes:g}"]
        settings = [part for setting in variant.settings for part in ("--set", setting)]
        call(variant, [*arguments, "--seed", str(seed), *settings])
        wall_s = time.time() - started
        images = [str(prepared.folder / case.image) for case in prepared.parts["test"]]
        call(variant, ["predict", str(run), *images, "-o", str(masks), *predict])
        scores = score(prepared, masks)
        start_s = (run / "plan.json").stat().st_mtime - started
        curve, steps = read_curve(run / "metrics.csv", start_s)
        plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
        slices = plan["recipe"].get("preprocessing", {}).get("slices")
        shutil.rmtree(run)
    facts = {"wall_s": round(wall_s, 1), "steps": steps, "slices": slices, "curve": curve}
    return {**scores, **facts}


def call(variant: Variant, arguments: Sequence[str]) -> None:
    """Run a command of a variant's own package."""
    ended = subprocess.run(
        [sys.executable, "-m", "ushape", *arguments],
        env={**os.environ, "PYTHONPATH": str(variant.source)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if ended.returncode:
        lines = [line for line in ended.stderr.splitlines() if line.strip()]
        reason = " ".join(lines[-6:])[-600:]
        raise FailedCommandError(
            f"ushape {arguments[0]} ended with exit code {ended.returncode}: {reason}"
        )


def read_curve(path: Path, start_s: float) -> tuple[list[tuple[float, float]], int]:
    """Return the validation Dice after each epoch that was validated, and the number of steps.

    Args:
        start_s: Seconds from the start of the command to the plan, after which the epochs begin.

    Returns:
        Seconds from the start of the command and Dice of each of these epochs; steps.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    curve, elapsed_s = [], start_s
    for row in rows:
        elapsed_s += float(row["seconds"])
        if row["validation_dice"]:
            curve.append((round(elapsed_s, 2), float(row["validation_dice"])))
    return curve, int(rows[-1]["step"])


if __name__ == "__main__":
    main()
