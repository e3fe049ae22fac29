"""Write a corrected copy of a dataset. The original is never changed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ushape import io
from ushape.data.case_stats import CaseStats
from ushape.data.checks import CheckResult
from ushape.data.scan import DatasetStats
from ushape.errors import RunError
from ushape.formatting import pluralize, to_csv
from ushape.io.annotations import read_annotation
from ushape.io.files import real_path, write_bytes
from ushape.types import MaskPixels


@dataclass(frozen=True)
class CopyChange:
    """One difference between a dataset and its corrected copy."""

    case: str
    what: str


def refuse_target(folder: Path, data: Path) -> None:
    """Check that a corrected copy can be written to a folder.

    Raises:
        RunError: if the folder is not empty or lies inside the data.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(
            f"{folder} is not empty.",
            code="output_exists",
            hint="Specify a new folder for the corrected copy.",
        )
    if real_path(folder).is_relative_to(real_path(data)):
        raise RunError(
            f"{folder} is inside the data folder.",
            code="output_in_data",
            hint=f"Specify a folder outside {data}.",
        )


def write_fixed_copy(result: CheckResult, folder: Path) -> list[CopyChange]:
    """Write images/, masks/ and changes.csv below a new folder.

    Returns:
        The changed and the omitted cases, in their order.

    Raises:
        RunError: if the folder is not empty, or if the channels of an image are several files.
    """
    refuse_target(folder, result.stats.folder)
    if any(stats.case.channels for stats in result.stats.case_stats):
        raise RunError(
            "A corrected copy cannot be written if the channels of an image are separate files.",
            code="several_channel_files",
            hint="Correct the files that `ushape check` lists individually.",
        )
    cases = [stats.case for stats in result.stats.case_stats]
    if any(case.box is not None for case in cases):
        raise RunError(
            "A corrected copy cannot be written if large images are divided into parts.",
            code="pages_of_one_file",
            hint="Keep images whole with --set preprocessing.divide_above_px=null.",
        )
    if any(case.page is not None for case in cases):
        raise RunError(
            "A corrected copy cannot be written if several images are pages or time points of one "
            "file.",
            code="pages_of_one_file",
            hint="Save each of them as a separate file, or correct the file.",
        )
    notes = result.stats.value_notes if result.stats.label_space is not None else ()
    left_out = {
        case: finding.check.replace("_", " ")
        for finding in result.findings
        if finding.in_copy == "left out"
        for case in finding.cases
    }
    corrected = {
        case: finding.check.replace("_", " ")
        for finding in result.findings
        if any(note.check == finding.check and note.is_corrected for note in notes)
        for case in finding.cases
    }
    changes = []
    for stats in result.stats.case_stats:
        if stats.case.id in left_out:
            changes.append(CopyChange(stats.case.id, f"left out: {left_out[stats.case.id]}"))
            continue
        what = corrected.get(stats.case.id, "")
        changes += [
            CopyChange(stats.case.id, one) for one in _copy_case(result.stats, stats, folder, what)
        ]
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"case": change.case, "change": change.what} for change in changes]
    write_bytes(folder / "changes.csv", to_csv(("case", "change"), rows))
    return changes


def _copy_case(
    dataset: DatasetStats, stats: CaseStats, folder: Path, correction: str
) -> Iterator[str]:
    """Copy one pair and yield its changes.

    Args:
        correction: Reason why the values of the mask are replaced by those of the classes, or ''.
    """
    case = stats.case
    assert case.mask is not None
    image_path = _place(folder / "images", case.id, io.suffix_of(case.image))
    _copy(case.image, image_path)
    pixels = read_annotation(case.mask, case.image)
    mask, changes = _corrected(dataset, stats, pixels, correction)
    if isinstance(case.mask, Path) and not changes:
        target = _place(folder / "masks", case.id, io.suffix_of(case.mask))
        _copy(case.mask, target)
        return
    suffix = mask.encoding.suffix
    target = _place(folder / "masks", case.id, suffix)
    io.write_mask(target, mask.codes, mask.encoding, like=case.image)
    yield from changes


def _copy(source: Path, target: Path) -> None:
    """Copy a file, or a folder that is one image, such as DICOM slices or a Zarr."""
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _corrected(
    dataset: DatasetStats, stats: CaseStats, mask: MaskPixels, correction: str
) -> tuple[MaskPixels, list[str]]:
    codes, changes = mask.codes, []
    if stats.shape != codes.shape and stats.shape == codes.shape[::-1]:
        codes = np.ascontiguousarray(codes.T)
        changes.append("mask transposed")
    if mask.remarks & {"reoriented", "cropped", "resampled", "shifted", "unpositioned"}:
        changes.append("mask saved on the grid of the image")
    encoding = mask.encoding
    if correction:
        # Predictions are written in the same way.
        written = dataset.space.values_of(dataset.space.classes_of(codes, encoding))
        is_same = encoding == dataset.encoding and written.shape == codes.shape
        moved = int((written != codes).sum()) if is_same else codes.size
        codes, encoding = written, dataset.encoding
        if moved:
            changes.append(f"{correction}: {pluralize(moved, 'pixel')} set to the class values")
    space, touching = dataset.label_space, stats.instances.joined if stats.instances else 0
    if touching and space is not None and space.states_objects:
        what = f"{pluralize(touching, 'object')} that touch other objects of their class"
        changes.append(f"{what} are joined: the mask is one of classes, without objects")
    return MaskPixels(codes=codes, encoding=encoding), changes


def _place(folder: Path, case: str, suffix: str) -> Path:
    path = folder / f"{case}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
