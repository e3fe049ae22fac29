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
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from commands import (
    TINY,
    Commands,
    Limits,
    RefusedError,
    Report,
    WrongResultError,
    kill_tree,
    shorten,
)

GENERATORS = Path(__file__).parents[3] / "shared" / "cases"


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


# What must hold beyond `check`. Predictions are opened with Pillow or tifffile, as a user would.


def shown_white(trial: Trial, case: Case) -> str:
    """Predicted objects look white in Pillow, as the user's do, and so does their meaning."""
    folder = next(path for path in (trial.data / "images", trial.data) if path.is_dir())
    output = trial.commands.predict(folder, "--probabilities", "npz")
    agreement = []
    for path in _files(output, ".png", ".tif"):
        with Image.open(path) as opened:
            shown = np.asarray(opened.convert("L"))
        if set(np.unique(shown)) - {0, 255}:
            values = ", ".join(map(str, np.unique(shown)[:4]))
            raise WrongResultError(f"predictions are shown as {values}, not as black and white")
        with np.load(next(iter(output.rglob(f"{path.stem}*.npz")))) as stored:
            object_ = stored["probabilities"][-1] >= 0.5
        agreement.append(float(((shown == 255) == object_).mean()))
    if not agreement or np.mean(agreement) < 0.9:
        raise WrongResultError("predicted objects are shown black: their meaning is inverted")
    return "predictions are black and white"


def few_foreground(trial: Trial, case: Case) -> str:
    """The meaning of WhiteIsZero: 5 to 20 % of the pixels are foreground, and shown white."""
    share = 100 * trial.commands.check(trial.data).foreground_share
    if not 5 <= share <= 20:
        raise WrongResultError(f"{share:.0f} % of the pixels are foreground instead of about 10 %")
    return shown_white(trial, case)


def readable_dtype(trial: Trial, case: Case) -> str:
    """Predictions of float masks are float32, or integers of 8 or 16 bits."""
    output = trial.commands.predict(trial.data / "images")
    kinds = {str(tifffile.imread(path).dtype) for path in _files(output, ".tif")}
    if not kinds or kinds - {"float32", "uint8", "uint16"}:
        raise WrongResultError(f"predictions are {', '.join(sorted(kinds)) or 'missing'}")
    return f"predictions are {', '.join(sorted(kinds))}"


def georeferenced(trial: Trial, case: Case) -> str:
    """Predictions keep the tags that place their image on earth."""
    output = trial.commands.predict(trial.data / "images")
    for path in _files(output, ".tif"):
        with (
            tifffile.TiffFile(path) as own,
            tifffile.TiffFile(trial.data / "images" / path.name) as source,
        ):
            for tag in (33550, 33922, 34735):
                before, after = source.pages[0].tags[tag], own.pages[0].tags.get(tag)
                if after is None or tuple(after.value) != tuple(before.value):
                    raise WrongResultError(f"predictions lose the tag {before.name}")
    return "predictions keep their place on earth"


def named_as_labels(trial: Trial, case: Case) -> str:
    """Predictions of pNN_0000.nii are called pNN."""
    output = trial.commands.predict(trial.data / "imagesTr")
    names = sorted(path.name.partition(".")[0] for path in _files(output, ".nii", ".nii.gz"))
    if names != [f"p{number:02d}" for number in range(8)]:
        raise WrongResultError(f"predictions are called {', '.join(names[:3])}")
    return "predictions are called as the labels"


def images_only(trial: Trial, case: Case) -> str:
    """`predict RUN DATA` predicts the nine volumes and not their labels."""
    output = trial.commands.predict(trial.data)
    names = sorted(path.name for path in _files(output, ".nii", ".nii.gz"))
    if len(names) != 9 or any("segmentation" in name for name in names):
        raise WrongResultError(f"predict: {len(names)} outputs, e.g. {names[0] if names else '-'}")
    return "nine outputs"


def volumes_written(trial: Trial, case: Case) -> str:
    """`predict` writes volumes without a traceback."""
    images = trial.data / "images"
    output = trial.commands.predict(images if images.is_dir() else trial.data)
    found = _files(output, ".nii", ".nii.gz", ".nrrd", ".mha")
    if len(found) < 8:
        raise WrongResultError(f"predict: {len(found)} volumes")
    return f"{len(found)} volumes predicted"


def predicts(trial: Trial, case: Case) -> str:
    """Every image is predicted."""
    output = trial.commands.predict(trial.data / "images")
    found = _files(output, ".png", ".tif")
    if len(found) != case.pairs:
        raise WrongResultError(f"predict: {len(found)} masks instead of {case.pairs}")
    return "predicted"


def _files(folder: Path, *suffixes: str) -> list[Path]:
    """Files with one of these suffixes in a tree, sorted."""
    return sorted(path for path in folder.rglob("*") if path.name.lower().endswith(suffixes))


def fix_keeps_masks(trial: Trial, case: Case) -> str:
    """In the copy that --fix makes, masks still lie on the photographs as they are shown."""
    fixed = trial.commands.folder / "fixed"
    trial.commands.check(trial.data, "--fix", fixed)
    if contrast_of(fixed) < 60:
        raise WrongResultError("check --fix turned masks that were right")
    return "--fix keeps the masks"


def contrast_of(data: Path) -> float:
    """Mean gray value inside the masks minus outside, images as Pillow shows them; the least."""
    from PIL import ImageOps

    found = []
    for path in _files(data / "images", ".jpg", ".png", ".tif"):
        with Image.open(path) as opened:
            gray = np.asarray(ImageOps.exif_transpose(opened).convert("L"), dtype=float)
        with Image.open(next((data / "masks").glob(f"{path.stem}.*"))) as opened:
            mask = np.asarray(opened.convert("L")) > 127
        if mask.shape != gray.shape:
            return float("-inf")
        found.append(gray[mask].mean() - gray[~mask].mean())
    return min(found, default=float("-inf"))


def upright(trial: Trial, case: Case) -> str:
    """The image under the outlines of --overlay is the image as it is shown."""
    output = trial.commands.predict(trial.data / "images", "--overlay")
    pictures = sorted(output.rglob("*overlay*.png"))
    if not pictures:
        raise WrongResultError("predict --overlay writes no picture")
    for path in pictures[:3]:
        stem = re.split(r"[_.]overlay", path.name)[0]
        stored = tifffile.imread(trial.data / "images" / f"{stem}.tif").mean(axis=-1)
        with Image.open(path) as opened:
            seen = np.asarray(opened.convert("L"), dtype=float)
        as_shown = np.corrcoef(seen.ravel(), stored[::-1, ::-1].ravel())[0, 1]
        as_stored = np.corrcoef(seen.ravel(), stored.ravel())[0, 1]
        if as_shown < as_stored:
            raise WrongResultError("images are read as stored: masks lie upside down on them")
    return "images are read as they are shown"


def red_masks(trial: Trial, case: Case) -> str:
    """Two colors, and at most 2 % wrong pixels in the copy of --fix."""
    fixed = trial.commands.folder / "fixed"
    trial.commands.run("check", trial.data, "--fix", fixed, "-o", trial.commands.folder / "check")
    wrong = []
    for number in range(14):
        path = next((fixed / "masks").glob(f"x{number:02d}.*"), None)
        if path is None:
            raise WrongResultError("check --fix leaves masks out")
        with Image.open(path) as opened:
            inside = np.asarray(opened.convert("RGB"))[..., 0] > 127
        wrong.append(float((inside != trial.truth(number)).mean()))
    if max(wrong) > 0.02:
        raise WrongResultError(f"check --fix: up to {max(wrong):.0%} of the pixels are wrong")
    report = trial.commands.check(trial.data)
    report.require_no_errors()
    judge_report(report, case)
    return f"two classes, at most {max(wrong):.1%} of the pixels of the copy wrong"


def other_encoding(trial: Trial, case: Case) -> str:
    """`evaluate` on the same classes in another encoding succeeds, or its hint can be followed."""
    trial.commands.train(trial.data / "first")
    run = trial.commands.folder / "run"
    try:
        arguments = (run, trial.data / "second", "-o", trial.commands.folder / "scores")
        trial.commands.run("evaluate", *arguments, "--device", "cpu")
    except RefusedError as error:
        options = re.findall(r"--[a-z][a-z-]*", error.text)
        known = trial.commands.run("evaluate", "--help").output
        unknown = [option for option in options if option not in known]
        if unknown or not options:
            why = f"names {unknown[0]}, which it does not have" if unknown else "has no option"
            raise WrongResultError(f"evaluate: {error.first_line} The hint {why}.") from None
        return f"evaluate: {error.first_line}"
    return "evaluated"


def changed_data(trial: Trial, case: Case) -> str:
    """A resumed training refuses changed data, or says that they changed."""
    run = trial.commands.folder / "run"
    options = [option if option != "1" else "60" for option in TINY]
    patch = ("--set", "sampling.patch_shape=[32,32]")
    process = trial.commands.start("train", trial.data, "-o", run, *options, *patch)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Epoch 3/"):
            break
    import psutil

    kill_tree(psutil.Process(process.pid))
    process.communicate()
    if not (run / "splits.json").is_file():
        raise WrongResultError("no run to resume was left")
    trial.generate("changed_data", trial.data, run)
    try:
        outcome = trial.commands.run("train", "--resume", run)
    except RefusedError as error:
        if re.search(r"chang|differ|other", error.explanation, re.I):
            return f"refused: {error.first_line}"
        raise WrongResultError(f"refused for another reason: {error.first_line}") from None
    if re.search(
        r"(data|images?|masks?|files?) .*(changed|differ)", outcome.output + outcome.errors, re.I
    ):
        return "resumed, with a message that the data changed"
    raise WrongResultError("resumed on changed data without a word")


def not_finite(trial: Trial, case: Case) -> str:
    """Weights that are NaN are refused by `predict`."""
    data, broken = trial.commands.folder / "plain", trial.data
    trial.generate("changed_data", data)
    trial.commands.train(data)
    trial.generate("nan_weights", broken, trial.commands.folder / "run")
    arguments = (broken, data / "images", "-o", trial.commands.folder / "out", "--device", "cpu")
    try:
        trial.commands.run("predict", *arguments, "--table", "--uncertainty")
    except RefusedError as error:
        if re.search(r"NaN|finite|weight|checksum", error.explanation, re.I):
            return f"refused: {error.first_line}"
        raise WrongResultError(f"refused for another reason: {error.first_line}") from None
    raise WrongResultError("predict writes masks with weights that are NaN, exit code 0")


def nothing_learned(trial: Trial, case: Case) -> str:
    """The verdict on noise says that the network is no better than a trivial one."""
    outcome = trial.commands.train(trial.data)
    # scores.json should offer the trivial baselines beside the scores.
    verdict = outcome.output + outcome.errors
    if not re.search(r"no better|not better|nothing was learned|learned nothing", verdict, re.I):
        raise WrongResultError("trained, and the verdict does not say that nothing was learned")
    return "the verdict says that nothing was learned"


def odd_names(trial: Trial, case: Case) -> str:
    """Names that are no UTF-8, very long, or links to themselves lead to no traceback."""
    for name in ("bytes", "long", "loop"):
        data = trial.data / name
        for command in (
            lambda data=data: trial.commands.check(data),
            lambda data=data, name=name: trial.commands.train(data, run=name),
            lambda data=data, name=name: trial.commands.run(
                "predict", trial.commands.folder / name, data / "images", "--table",
                "-o", trial.commands.folder / f"{name}_out", "--device", "cpu",
            ),
        ):  # fmt: skip
            try:
                command()
            except RefusedError:
                continue
            except WrongResultError as error:
                raise WrongResultError(f"{name}: {error}") from None
    return "no traceback"


BOMBS = (
    "png_image_40000", "png_mask_40000", "npz_45000", "nifti_gz_1gb", "coco_size", "coco_100mb",
    "coco_deep", "csv_million",
)  # fmt: skip
HARMLESS = ("coco_100mb",)
"""Large, but sound: training on it is right, too."""


def bombs(trial: Trial, case: Case) -> str:
    """Each bomb ends within the limits, with exit code 2."""
    wrong = []
    for name in BOMBS:
        trial.generate("bombs_failing", trial.data, name)
        data = trial.data / name
        table = data / "table.csv"
        try:
            trial.commands.train(table if table.is_file() else data, run=name)
        except RefusedError:
            continue
        except WrongResultError as error:
            wrong.append(f"{name}: {error}")
        else:
            if name not in HARMLESS:
                wrong.append(f"{name}: trained, exit code 0")
        finally:
            shutil.rmtree(data)
    if wrong:
        raise WrongResultError(f"{len(wrong)} of {len(BOMBS)}: {'; '.join(wrong)}")
    return "each ends within the limits"


def several_masks(trial: Trial, case: Case) -> str:
    """Second masks of an image are used: none is left over."""
    report = trial.commands.check(trial.data)
    if report.masks != 25:
        raise WrongResultError(f"{report.masks} masks are used instead of 25")
    if any(one["check"] == "unpaired" for one in report.values["findings"]):
        raise WrongResultError("second masks of an image (_mask_1) are taken for images")
    return "25 masks are used"


def background_is_stated(trial: Trial, case: Case) -> str:
    """Value 1 (the animal) is not made background without a word."""
    report = trial.commands.check(trial.data)
    if next(iter(report.classes)) == "1" and not re.search("background", report.warnings_text):
        raise WrongResultError("the animals (value 1) are background, without a warning")
    return "the background is stated"


def groups_are_patients(trial: Trial, case: Case) -> str:
    """Twelve groups, one for each patient."""
    report = trial.commands.check(trial.data)
    if report.group_count != 12:
        raise WrongResultError(f"{report.group_count} groups instead of 12 patients")
    return "12 groups"


CASES: dict[str, Case] = {
    "bombs_failing": Case(instead=bombs),
    "brats": Case(pairs=8, values=("0", "1", "2", "4"), dims=3, refusal=r"modalit|several files"),
    "busi": Case(pairs=22, classes=2, mixed=r"benign|malignant|normal", further=several_masks),
    "changed_data": Case(instead=changed_data),
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
    "evaluate_other_encoding": Case(instead=other_encoding),
    "exif_upright_masks": Case(pairs=14, classes=2, further=fix_keeps_masks),
    "fiji_mask_of": Case(pairs=12, classes=2),
    "geotiff": Case(pairs=12, classes=2, trains=True, further=georeferenced),
    "grey_among_rgb": Case(pairs=16, classes=2, warns=r"gr[ae]y", trains=True, further=predicts),
    "ilastik_names": Case(pairs=12, classes=2),
    "isbi_two_stacks": Case(pairs=30, classes=2, trains=True),
    "kaggle_rle": Case(pairs=12, classes=2, refusal=r"train\.csv"),
    "labelme_json": Case(pairs=12, names=(("background", "cell"),), refusal=r"LabelMe"),
    "lits": Case(pairs=9, values=("0", "1", "2"), dims=3, trains=True, further=images_only),
    "mask_01_and_0255": Case(
        pairs=16,
        names=(("background", "foreground"),),
        refusal=r"0 and 1\b.*0 and 255|0/1.*0/255",
    ),
    "mask_1bit": Case(pairs=14, classes=2, trains=True, further=shown_white),
    "mask_g4": Case(pairs=14, classes=2, trains=True, further=few_foreground),
    "mask_in_alpha": Case(pairs=12, classes=2, refusal=r"alpha|transparen"),
    "mask_min_is_white": Case(pairs=14, classes=2, trains=True, further=few_foreground),
    "mask_red_jpeg": Case(classes=2, instead=red_masks),
    "name_bytes": Case(pairs=12, classes=2, trains=True, further=predicts, refusal=r"."),
    "name_case": Case(pairs=12, classes=2, refusal=r"upper and lower|lower and upper|\bcase\b"),
    "name_plus_png": Case(pairs=12, classes=2),
    "nan_weights": Case(instead=not_finite),
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
        further=named_as_labels,
    ),
    "nothing_to_learn": Case(instead=nothing_learned),
    "npy_onehot": Case(pairs=14, classes=4, refusal=r"one-hot"),
    "odd_names": Case(instead=odd_names),
    "pairfolders_png": Case(pairs=12, classes=2, unit=r"sample_\d+"),
    "pets": Case(pairs=14, classes=3, further=background_is_stated),
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
        further=volumes_written,
        refusal=r"region|channels|one-hot|fourth axis",
    ),
    "roboflow_masks": Case(pairs=18, names=(("background", "crack", "rust"),)),
    "slicer_layers": Case(pairs=8, classes=3, dims=3, refusal=r"Slicer|layers"),
    "slicer_three_layers": Case(
        pairs=8,
        classes=4,
        dims=3,
        trains=True,
        further=volumes_written,
        refusal=r"Slicer|layers",
    ),
    "suffix_P": Case(pairs=12, classes=4),
    "tiff_float_masks": Case(pairs=14, classes=2, trains=True, further=readable_dtype),
    "tiff_orientation": Case(pairs=14, classes=2, trains=True, further=upright),
    "tiff_three_pages": Case(pairs=14, classes=2, refusal=r"(three|3) pages"),
    "timepoints": Case(pairs=24, classes=2, unit=r"patient\d+", further=groups_are_patients),
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
