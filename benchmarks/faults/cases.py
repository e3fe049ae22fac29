"""Run the generators of small, difficult inputs, and state for each whether ushape ends right.

    python benchmarks/faults/cases.py [CASE ...] [--jobs N] [--generators FOLDER]

The generators are not part of this repository: they lie in `../shared/cases` beside it. Each makes
its input in a new folder, and its docstring says what is right. CASES states the same for programs:
the number of pairs, the classes, what must stay on one side of a split, what predictions look
like, and which message is right where the input is refused. Only the public commands are used.

Prints a Markdown table with one row per case, then the number of cases that end right. The exit
code is 1 if a case does not.

What is judged, for every command: it ends within the limits of processor time, elapsed time and
memory (see --help), without a traceback, with exit code 0, 1 or 2. A refusal (exit code 2) or an
error that `check` finds is right only where CASES has a pattern for its message.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import case_results as results
from case_judge import Case, Trial, judge

from commands import (
    Commands,
    Limits,
    RefusedError,
    WrongResultError,
    shorten,
)

GENERATORS = Path(__file__).parents[3] / "shared" / "cases"


CASES: dict[str, Case] = {
    "bombs_failing": Case(instead=results.bombs),
    "brats": Case(pairs=8, values=("0", "1", "2", "4"), dims=3, refusal=r"modalit|several files"),
    "busi": Case(
        pairs=22, classes=2, mixed=r"benign|malignant|normal", further=results.several_masks
    ),
    "changed_data": Case(instead=results.changed_data),
    "cityscapes": Case(
        pairs=15,
        values=("7", "11", "23", "26"),
        refusal=r"(?s)(kinds of mask|masks).*labelIds|labelIds.*(kinds of mask|--masks)",
    ),
    "coco_plain": Case(pairs=14, names=(("background", "cell"),)),
    "cvat_mask": Case(
        folder="JPEGImages",
        options=("--masks", "{data}/SegmentationClass"),
        pairs=12,
        classes=3,
        names=(
            ("background", "cell", "debris"),
            ("background", "debris", "cell"),
            ("background", "#fa3253", "#33ddff"),
            ("background", "#33ddff", "#fa3253"),
        ),
    ),
    "dicom_seg": Case(pairs=7, classes=2, dims=3),
    "evaluate_other_encoding": Case(instead=results.other_encoding),
    "exif_upright_masks": Case(pairs=14, classes=2, further=results.fix_keeps_masks),
    "fiji_mask_of": Case(pairs=12, classes=2),
    "geotiff": Case(pairs=12, classes=2, trains=True, further=results.georeferenced),
    "grey_among_rgb": Case(
        pairs=16, classes=2, warns=r"gr[ae]y", trains=True, further=results.predicts
    ),
    "ilastik_names": Case(pairs=12, classes=2),
    "isbi_two_stacks": Case(pairs=30, classes=2, trains=True),
    "kaggle_rle": Case(pairs=12, classes=2, refusal=r"train\.csv"),
    "labelme_json": Case(pairs=12, names=(("background", "cell"),), refusal=r"LabelMe"),
    "lits": Case(pairs=9, values=("0", "1", "2"), dims=3, trains=True, further=results.images_only),
    "mask_01_and_0255": Case(
        pairs=16,
        names=(("background", "foreground"),),
        refusal=r"0 and 1\b.*0 and 255|0/1.*0/255",
    ),
    "mask_1bit": Case(pairs=14, classes=2, trains=True, further=results.shown_white),
    "mask_g4": Case(pairs=14, classes=2, trains=True, further=results.few_foreground),
    "mask_in_alpha": Case(pairs=12, classes=2, refusal=r"alpha|transparen"),
    "mask_min_is_white": Case(pairs=14, classes=2, trains=True, further=results.few_foreground),
    "mask_red_jpeg": Case(classes=2, instead=results.red_masks),
    "name_bytes": Case(pairs=12, classes=2, trains=True, further=results.predicts, refusal=r"."),
    "name_case": Case(pairs=12, classes=2, refusal=r"upper and lower|lower and upper|\bcase\b"),
    "name_plus_png": Case(pairs=12, classes=2),
    "nan_weights": Case(instead=results.not_finite),
    "nested_once": Case(pairs=14, classes=2, refusal=r"\bcells/"),
    "nifti_mask_flipped": Case(
        pairs=8, values=("0", "1", "2"), dims=3, warns=r"direction|orient", refusal=r"direction"
    ),
    "nifti_mask_spacing": Case(pairs=8, values=("0", "1", "2"), dims=3, warns=r"spacing"),
    "nifti_sheared": Case(
        pairs=8,
        values=("0", "1", "2"),
        dims=3,
        refusal=r"(?s)^(?!.*damaged).*(right angle|orthogonal|orthonormal|shear|sform)",
    ),
    "nifti_slope": Case(pairs=8, values=("0", "1", "2"), dims=3, trains=True),
    "nnunet_oblique": Case(
        pairs=8,
        names=(("background", "liver", "tumour"),),
        dims=3,
        trains=True,
        further=results.named_as_labels,
    ),
    "nothing_to_learn": Case(instead=results.nothing_learned),
    "npy_onehot": Case(pairs=14, classes=4, refusal=r"one-hot"),
    "odd_names": Case(instead=results.odd_names),
    "pairfolders_png": Case(pairs=12, classes=2, unit=r"sample_\d+"),
    "pets": Case(pairs=14, classes=3, further=results.background_is_stated),
    "ppm_stare": Case(pairs=14, classes=2),
    "qupath_names": Case(pairs=12, classes=3),
    "rectlabel": Case(
        pairs=12,
        names=(("background", "cell", "debris"),),
        refusal=r"(two|several|2) masks belong to each",
    ),
    "regions_nifti": Case(
        pairs=8,
        classes=4,
        dims=3,
        trains=True,
        further=results.volumes_written,
        refusal=r"region|channels|one-hot|fourth axis",
    ),
    "roboflow_masks": Case(pairs=18, names=(("background", "crack", "rust"),)),
    "slicer_layers": Case(pairs=8, classes=3, dims=3, refusal=r"Slicer|layers"),
    "slicer_three_layers": Case(
        pairs=8,
        classes=4,
        dims=3,
        trains=True,
        further=results.volumes_written,
        refusal=r"Slicer|layers",
    ),
    "suffix_P": Case(pairs=12, classes=4),
    "tiff_float_masks": Case(pairs=14, classes=2, trains=True, further=results.readable_dtype),
    "tiff_orientation": Case(pairs=14, classes=2, trains=True, further=results.upright),
    "tiff_three_pages": Case(pairs=14, classes=2, refusal=r"(three|3) pages"),
    "timepoints": Case(
        pairs=24, classes=2, unit=r"patient\d+", further=results.groups_are_patients
    ),
    "totalseg": Case(
        pairs=8,
        names=(("background", "liver", "spleen"),),
        dims=3,
        refusal=r"TotalSegmentator|one file for each class|a file per class",
    ),
    "two_conditions": Case(pairs=40, classes=2, trains=True, refusal=r"--groups"),
    "wrong_suffix": Case(pairs=15, classes=2, refusal=r"(PNG|JPEG|TIFF), called"),
    "yolo_seg": Case(pairs=14, names=(("background", "cell"),), refusal=r"YOLO"),
}


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    name: str
    happened: str
    is_right: bool


def try_case(name: str, generators: Path, limits: Limits) -> Row:
    """Generate one input in a temporary folder and judge what ushape makes of it."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"  # The name of the case must not be taken for a message.
        trial = Trial(generators, data, Commands(Path(folder), limits))
        try:
            if name not in ("nan_weights", "bombs_failing"):
                trial.generate(name, data)
            happened, is_right = judge(trial, case), True
        except RefusedError as error:
            is_right = bool(case.refusal and re.search(case.refusal, error.explanation, re.I))
            happened = f"{error.command}: refused: {error.first_line}"
        except WrongResultError as error:
            happened, is_right = str(error), False
        return Row(name, happened.replace(f"{folder}/", ""), is_right)


def print_table(rows: Iterable[Row]) -> int:
    """Print the rows as they come; return how many cases do not end right."""
    print("| case | what happened | right |\n|---|---|---|", flush=True)
    wrong = count = 0
    for row in rows:
        count += 1
        wrong += not row.is_right
        answer = "yes" if row.is_right else "no"
        print(f"| {row.name} | {shorten(row.happened)} | {answer} |", flush=True)
    print(f"\n{count - wrong} of {count} end right.")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", metavar="CASE", nargs="*", help="Cases to try (default: all).")
    parser.add_argument("--jobs", type=int, default=1, help="Cases tried at the same time.")
    parser.add_argument("--generators", type=Path, default=GENERATORS, help="Generator scripts.")
    parser.add_argument("--seconds", type=float, default=60, help="Processor time per command.")
    parser.add_argument(
        "--elapsed",
        type=float,
        default=60,
        help="Elapsed seconds per command; raise it on a machine that does other work.",
    )
    parser.add_argument("--gigabytes", type=float, default=2, help="Memory per command.")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(CASES)):
        parser.error(f"no such case: {', '.join(unknown)}")
    missing = {path.stem for path in given.generators.glob("*.py")} - {"blobs"} - set(CASES)
    if missing:
        parser.error(f"CASES does not say what is right for {', '.join(sorted(missing))}")
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    names = given.names or list(CASES)
    absent = [name for name in names if not (given.generators / f"{name}.py").is_file()]
    if absent:
        parser.error(f"no generator for {', '.join(absent)} in {given.generators}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    limits = Limits(given.seconds, given.elapsed, int(given.gigabytes * 10**9))
    with ThreadPoolExecutor(given.jobs) as pool:
        rows = pool.map(lambda name: try_case(name, given.generators.resolve(), limits), names)
        wrong = print_table(rows)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
