"""Check random combinations of names, layouts, formats, encodings and damage.

    python benchmarks/faults/fuzz.py [--count 500] [--seed 0] [--only SEED ...] [--keep FOLDER]

The package combinations makes each data set together with its right reading. `ushape.check` must
find it: the pairs, the group and the part of each image, the share and the name of each class, the
class of each pixel, and the damage, with the check that names it. A refusal without damage is
wrong, too. Prints a Markdown table of what is wrong; the exit code is 1 if anything is.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import combinations

from commands import SOURCE, shorten

sys.path.insert(0, str(SOURCE))

SECONDS = 60
MEMORY = 12 * 2**30
"""Limit of the address space, which is several times the memory in use."""

TOLERANCE = {True: 1e-9, False: 0.01}
"""Largest difference in the share of a class, for exact and for inexact encodings."""

SIZE_TOLERANCE = 0.05
"""The same with a mask of another size: its pixels are counted, but not used."""


def judge(combination: combinations.Combination, root: Path) -> str:
    """Check one data set; returns '' if it is read right, otherwise what is wrong."""
    import ushape
    from ushape.api.check import as_values

    truth = combinations.write(combination, root / "data")
    try:
        result = ushape.check(truth.data, output=root / "check", quiet=True)
    except ushape.UshapeError as error:
        return "" if error.code == truth.refusal else f"refused: {error}"
    exact = combinations.form_of(combination).exact
    return compare(as_values(result), truth, exact) or _compare_pixels(result, truth, exact)


def compare(values: dict[str, Any], truth: combinations.Truth, exact: bool) -> str:
    """Return the first difference from what is right."""
    if values["pairs"] != truth.pairs:
        return f"{values['pairs']} pairs instead of {truth.pairs}"
    reported = {one["check"]: one for one in values["findings"] if one["severity"] != "note"}
    notes = {one["check"]: one for one in values["findings"]}
    if truth.finding and truth.finding not in notes:
        return f"{truth.finding} is not reported"
    if truth.culprit and truth.culprit not in str(notes[truth.finding]):
        return f"{truth.finding} does not name {truth.culprit}"
    for name, finding in reported.items():
        if name != truth.finding and finding["severity"] == "error":
            return f"{name}: {finding['text']}"
    # Colors are not in the order of the classes.
    shares, right = sorted(one["share"] for one in values["classes"]), sorted(truth.shares)
    if len(shares) != len(right):
        return f"{len(shares)} classes instead of {len(right)}: {values['classes']}"
    worst = max(abs(one - other) for one, other in zip(shares, right, strict=True))
    if worst > (TOLERANCE[exact] if truth.finding != "size" else SIZE_TOLERANCE):
        return f"the share of a class differs by {worst:.4f}"
    return _compare_names(values, truth) or _compare_groups(values, truth)


def _compare_names(values: dict[str, Any], truth: combinations.Truth) -> str:
    """Compare the names of the classes and the split, if the data state them."""
    shares = dict(zip(truth.names, truth.shares, strict=False))
    found = {one["name"]: one["share"] for one in values["classes"]}
    if shares and any(abs(found.get(name, 2) - shares[name]) > SIZE_TOLERANCE for name in shares):
        return f"classes {found} instead of {shares}"
    image_of = {one["id"]: one["image"] for one in values["cases"]}
    for part, cases in (values["split"] or {}).items() if truth.parts else ():
        for case in cases:
            if truth.parts[image_of[case]] != part:
                return f"{case} is in {part} instead of {truth.parts[image_of[case]]}"
    return ""


def _compare_pixels(result: Any, truth: combinations.Truth, exact: bool) -> str:
    """Compare the class of each pixel; colors are not in the order of the classes."""
    import numpy as np

    from ushape.data.reading import read_classes

    pairs: Counter[tuple[int, int]] = Counter()
    for stats in result.stats.fitting:
        right = truth.classes.get(str(stats.case.image))
        if right is not None:
            found = read_classes(stats.case, result.stats.space)
            if found is None or found.size != right.size:
                return f"the mask of {stats.case.id} has another size than its image"
            both = np.stack([found.ravel(), right.ravel()])
            codes, counts = np.unique(both, axis=1, return_counts=True)
            pairs.update(dict(zip(map(tuple, codes.T.tolist()), counts.tolist(), strict=True)))
    best: Counter[int] = Counter()
    for (one, _), count in pairs.items():
        best[one] = max(best[one], count)
    wrong = 1 - best.total() / max(pairs.total(), 1)
    return f"{wrong:.2%} of the pixels have another class" if wrong > TOLERANCE[exact] else ""


def _compare_groups(values: dict[str, Any], truth: combinations.Truth) -> str:
    image_of = {one["id"]: one["image"] for one in values["cases"]}
    if truth.groups is None:
        return ""
    groups: dict[str, set[str]] = {}
    for case, group in values["groups"].items():
        groups.setdefault(group, set()).add(image_of[case])
    usable = frozenset().union(*truth.groups)
    found = frozenset(frozenset(images) & usable for images in groups.values()) - {frozenset()}
    if found == truth.groups:
        return ""
    return f"{len(found)} groups instead of {len(truth.groups)}: {sorted(groups)[:4]}"


def try_one(task: tuple[int, Path | None]) -> tuple[combinations.Combination, str]:
    """Judge the combination of a seed in a folder of its own, under limits."""
    seed, keep = task
    combination = combinations.draw(seed)
    root = Path(tempfile.mkdtemp(prefix="fuzz-")) if keep is None else keep / str(seed)
    (root / "data").mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGALRM, _stop)
    signal.alarm(SECONDS)
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            wrong = judge(combination, root)
    except Exception as error:  # Everything but an error of ushape is a finding here.
        last = traceback.extract_tb(error.__traceback__)[-1]
        wrong = (
            f"traceback: {type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
        )
    finally:
        signal.alarm(0)
        if keep is None:
            shutil.rmtree(root, ignore_errors=True)
    return combination, wrong


def _stop(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def _limit() -> None:
    import torch

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first combination")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=int, nargs="*", help="seeds of single combinations")
    parser.add_argument("--keep", type=Path, help="folder in which the data sets remain")
    chosen = parser.parse_args()
    seeds = chosen.only or range(chosen.seed, chosen.seed + chosen.count)
    wrong: list[str] = []
    print("| combination | what is wrong |\n|---|---|", flush=True)
    with multiprocessing.Pool(chosen.jobs, _limit) as pool:
        tasks = [(seed, chosen.keep) for seed in seeds]
        for combination, text in pool.imap(try_one, tasks, chunksize=4):
            if text:
                wrong.append(text)
                print(f"| {shorten(str(combination))} | {shorten(text)} |", flush=True)
    kinds = Counter(text.partition(":")[0] for text in wrong)
    print(f"\n{len(wrong)} of {len(seeds)} combinations are read wrong: {dict(kinds)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
