"""Where an export is written, and which existing folders it may replace."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ushape.errors import RunError
from ushape.io.files import real_path, refuse_existing_output

MARKS = (
    {"export.json"},
    {"rdf.yaml"},
    {"config.json", "plan.json"},
    {"model.json", "predict.py"},
)
"""Names of files by which the folder of an export is recognized."""

WRITTEN = re.compile(
    r"(export|config|model)\.json|(README|model_card)\.md|model\.(onnx|pt|xml|bin|pt2)|"  # Graphs.
    r"rdf\.yaml|weights\.(pt|onnx)|(test|sample)_(input|output)\.(npy|tif)|cover\.png|"
    r"(fold-\d+/)?((plan|decision)\.json|model\.safetensors|code/[^/]+\.py)|predictions\.png|"
    r"network(_\d+)?\.onnx|requirements\.txt|LICENSE|"
    r"(predict|image_files|objects|resampling|tiff_file|tiles)\.py|"
    r"(.*/)?(__pycache__/[^/]+\.pyc|\.DS_Store|Thumbs\.db|desktop\.ini)"
)
"""Paths of files that an export writes below its folder, or that appear there by themselves."""


def refuse_destination(path: Path, runs: Sequence[Path], *, is_file: bool, overwrite: bool) -> None:
    """Check that an export may be written, and that nothing else is lost if it replaces a folder.

    Args:
        path: Output of the export, which may not exist.
        runs: Folders of the runs that are exported.
        is_file: Whether the output is a single file.

    Raises:
        RunError: if the output is or contains one of the runs, exists and `overwrite` is False, or
            exists and is not an output of the same kind.
    """
    for run in runs:
        if real_path(run).is_relative_to(real_path(path)):
            raise RunError(
                f"{path} is or contains the run {run}, which the export would overwrite.",
                code="output_contains_run",
                hint="Choose another output with -o, for example a folder that does not exist.",
            )
    refuse_existing_output(path, overwrite)
    if not path.exists() or (is_file and not path.is_dir()):
        return
    if is_file or not path.is_dir():
        found = f"is a {'folder' if is_file else 'file'}"
    else:
        foreign = _foreign_content(path)
        if foreign is None:
            return
        found = f"contains {foreign}, which is not from an earlier export"
    raise RunError(
        f"{path} {found}, so it is not replaced.",
        code="output_exists",
        hint="Choose another output with -o.",
    )


def _foreign_content(folder: Path) -> str | None:
    """Return the path of a file that is not part of an export; None if there is none."""
    names = {path.name for path in folder.iterdir()}
    is_export = any(mark <= names for mark in MARKS)
    for path in _files_below(folder):
        name = path.relative_to(folder).as_posix()
        if not is_export or path.is_symlink() or not WRITTEN.fullmatch(name):
            return name
    return None


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield all files and links below a folder, without following links to folders."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from _files_below(path)
        else:
            yield path
