"""What must hold for single inputs beyond `check`.

Predictions are opened with Pillow or tifffile, as a user would.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import tifffile
from case_judge import Case, Trial, judge_report
from PIL import Image

from commands import (
    TINY,
    RefusedError,
    WrongResultError,
    kill_tree,
)


def shown_white(trial: Trial, case: Case) -> str:
    """Predicted objects look white in Pillow, as the user's do, and so does their meaning."""
    folder = next(path for path in (trial.data / "images", trial.data) if path.is_dir())
    output = trial.commands.predict(folder, "--probabilities", "npz")
    is_right = []
    for path in _files(output, ".png", ".tif"):
        with Image.open(path) as opened:
            shown = np.asarray(opened.convert("L"))
        if set(np.unique(shown)) - {0, 255}:
            values = ", ".join(map(str, np.unique(shown)[:4]))
            raise WrongResultError(f"predictions are shown as {values}, not as black and white")
        with np.load(next(iter(output.rglob(f"{path.stem}*.npz")))) as stored:
            chance = stored["probabilities"][-1]
        if np.ptp(shown):  # Threshold and postprocessing are tuned, so single pixels may differ.
            is_right.append(chance[shown == 255].mean() > chance[shown == 0].mean())
    if not is_right or not all(is_right):
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
