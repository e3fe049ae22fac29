"""Write a trained model in the format of another program."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from glob import escape
from pathlib import Path

from ushape.api._named_runs import run_folders
from ushape.console import Console
from ushape.errors import ConfigError
from ushape.export.bioimageio import export_package, zip_package
from ushape.export.destination import refuse_destination
from ushape.export.formats import FORMATS
from ushape.export.graph import ExportOptions, Output, build_graph
from ushape.export.hugging_face import export_folder
from ushape.export.standalone import export_standalone
from ushape.export.write import MODEL, describe_in_words, write_checked
from ushape.formatting import quoted
from ushape.io.files import (
    all_files_within,
    flush_file,
    real_path,
    remove_leftovers,
    replacing,
    temporary_name,
)
from ushape.io.sinks import replacing_folder
from ushape.planning.custom_code import allow_code
from ushape.planning.run import Run

Target = Callable[[Sequence[Run], Path, ExportOptions, Console], None]
"""Function that exports runs: it fills an existing, empty folder, and prints what it does."""


def export_graph(
    name: str, runs: Sequence[Run], folder: Path, options: ExportOptions, console: Console
) -> None:
    """Export runs as one graph in one of FORMATS."""
    graph = build_graph(runs, options)
    for line in describe_in_words(graph):
        console.say(line)
    _, parity = write_checked(name, graph, folder)
    console.say(parity.text)


TARGETS: dict[str, Target] = {
    **{name: partial(export_graph, name) for name in FORMATS},
    "bioimageio": export_package,
    "huggingface": export_folder,
    "standalone": export_standalone,
}
"""Targets of an export by name. To add one, list its function here."""

PUBLISHED = ("bioimageio", "huggingface", "standalone")
"""Targets that include the authors and the license."""

SUFFIXES = {**{one.suffix: name for name, one in FORMATS.items()}, ".zip": "bioimageio"}
"""Target of each suffix of a single file."""


def export_model(
    run: Path | str | Sequence[Path | str],
    *,
    to: str,
    output: Path | str | None = None,
    result: Output = "probabilities",
    fixed_intensity: bool = False,
    authors: Sequence[str] = (),
    license: str | None = None,
    overwrite: bool = False,
    recipe: str | None = None,
    quiet: bool = False,
) -> Path:
    """Write a trained model in the format of another program.

    Preprocessing is part of the exported graph, which takes raw pixel values. The graph is compared
    with `predict` on generated images and on images of the run, and written only if the results are
    equal.

    Args:
        run: Run or cross-validation folder; the probabilities of several runs are averaged.
        to: Format: onnx, torchscript, openvino, pt2, standalone for a program without PyTorch,
            bioimageio for Fiji and QuPath, or huggingface.
        output: Folder, or a file such as model.onnx or model.zip (default: in RUN/exports).
        result: Output of the graph: probabilities, or mask with the values of the training masks
            (only for onnx, torchscript, openvino and pt2).
        fixed_intensity: Normalize with training-set statistics instead of per-image ones; needed by
            programs that predict tile by tile (not for standalone and huggingface).
        authors: Name of an author, for bioimageio, huggingface and standalone (repeatable).
        license: SPDX license identifier, for bioimageio, huggingface and standalone (default:
            CC-BY-4.0, or none).
        overwrite: Replace an earlier export.
        recipe: FILE.py:FUNCTION that defines the run's custom network or loss. The code runs only
            if you pass this option.
        quiet: Print nothing.

    Returns:
        The folder or file that was written.

    Raises:
        ConfigError: if the format is unknown, an option does not apply to it, or the output has the
            suffix of another format.
        RunError: if a folder is not a run, or the output exists and may not be replaced.
        PlanError: if the model cannot be exported, a package is missing, or the results of the
            graph differ.
    """
    if to not in TARGETS:
        raise ConfigError(
            f"There is no export format {to}.",
            code="unknown_target",
            hint=f"Known formats: {', '.join(TARGETS)}.",
        )
    if (authors or license) and to not in PUBLISHED:
        raise ConfigError(
            f"An export to {to} does not include authors and license.",
            code="option_without_effect",
            hint=f"Omit --author and --license, or export to {' or '.join(PUBLISHED)}.",
        )
    allow_code(recipe)
    runs = [Run.open(folder) for folder in run_folders(run)]
    name = f"{to}.zip" if to == "bioimageio" else to
    first = run if isinstance(run, (str, Path)) else run[0]  # May be a cross-validation.
    path = Path(output) if output else Path(first) / "exports" / name
    is_file = _is_file(path, to)
    refuse_destination(path, [one.folder for one in runs], is_file=is_file, overwrite=overwrite)
    target = path if is_file else real_path(path)  # A link to a folder remains.
    console = Console(quiet=quiet)
    for one in runs:
        if line := one.describe_unfinished():
            console.say(line)
    options = ExportOptions(
        output=result,
        fixed_intensity=fixed_intensity,
        authors=tuple(authors),
        license=license,
    )
    remove_leftovers(target.parent, f".{escape(target.name)}.*")
    with _filling(target, is_file) as folder:
        TARGETS[to](runs, folder, options, console)
        for file in all_files_within(folder):
            flush_file(file)
    console.say(f"Wrote {'file' if is_file else 'folder'} {path}")
    return path


def _is_file(path: Path, to: str) -> bool:
    """Return whether the output is a single file, by its suffix.

    Raises:
        ConfigError: if the suffix is that of another format, or the format has several files.
    """
    suffix_format = SUFFIXES.get(path.suffix.lower())
    if suffix_format is None:
        return False
    if suffix_format != to or to == "openvino":
        raise ConfigError(
            f"{path} is the name of a file of format {suffix_format}; {to} needs a folder."
            if suffix_format == to
            else f"{path} has the suffix of the format {suffix_format}, but the format is {to}.",
            code="output_suffix",
            hint=f"Specify a folder, for example -o {quoted(path.with_suffix(''))}",
        )
    return True


@contextmanager
def _filling(path: Path, is_file: bool) -> Iterator[Path]:
    """Yield an empty folder that becomes the output when the block ends without an exception."""
    if not is_file:
        with replacing_folder(path) as folder:
            folder.mkdir()
            yield folder
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = temporary_name(path.with_name(f"{path.name}.files"))
    folder.mkdir()
    try:
        yield folder
        if path.suffix.lower() == ".zip":
            with replacing(path) as file:
                zip_package(folder, file)
        else:
            (folder / f"{MODEL}{path.suffix.lower()}").replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
