"""Export of a run to a folder with a program that needs onnxruntime, NumPy and Pillow only."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from ushape.console import Console
from ushape.errors import require_package
from ushape.export.graph import ExportOptions
from ushape.export.standalone.comparison import compare
from ushape.export.standalone.readme import describe
from ushape.export.standalone.settings import refuse_unsupported, settings_of
from ushape.inference.backends.export import ONNX_FILE, network_digest
from ushape.inference.predictor import Predictor
from ushape.planning.run import Run

PACKAGES = ("numpy", "onnxruntime", "pillow")
"""Packages that the program needs."""

TEMPLATE = files("ushape.export.standalone") / "template"
"""Folder of the files that each export contains."""


def export_standalone(
    runs: Sequence[Run], folder: Path, options: ExportOptions, console: Console
) -> None:
    """Fill an empty folder with a program that predicts masks as `ushape predict` does.

    The program is tried on test images of the first run.

    Args:
        runs: One run, or several whose probabilities are averaged.

    Raises:
        ConfigError: if an option is given that changes a graph of raw pixels.
        PlanError: if the program could not repeat the predictions of the runs, or did not.
        MissingPackageError: if onnx or onnxruntime is not installed.
    """
    options.refuse_those_of_graphs("A standalone folder writes the masks of `ushape predict`")
    require_package("onnx", "onnx", "Export to a standalone folder")
    paths = [run.folder for run in runs]
    default = Predictor.open(paths)
    refuse_unsupported(default)
    predictor = Predictor.open(paths, "cpu", backend="onnx")
    names = [_network_name(number, len(runs)) for number in range(1, len(runs) + 1)]
    for run, name in zip(runs, names, strict=True):
        shutil.copyfile(_network_file(run), folder / name)
    settings = json.dumps(settings_of(predictor, names), indent=2)
    (folder / "model.json").write_text(settings + "\n", encoding="utf-8")
    for template in TEMPLATE.iterdir():
        if template.is_file():
            (folder / template.name).write_bytes(template.read_bytes())
    with tempfile.TemporaryDirectory() as work:
        compared = compare(folder / "predict.py", runs[0], predictor, default, Path(work))
    versions = [f"{name}=={version(name)}\n" for name in PACKAGES]
    (folder / "requirements.txt").write_text("".join(versions), encoding="utf-8")
    readme = describe(runs, predictor, compared, options)
    (folder / "README.md").write_text(readme, encoding="utf-8")
    console.say(compared.text)


def _network_file(run: Run) -> Path:
    """Return the ONNX file that backend onnx has written for a run."""
    digest = network_digest(run.load_network(run.load_plan()))
    return run.folder / "backends" / f"onnx-{digest[:16]}" / ONNX_FILE


def _network_name(number: int, count: int) -> str:
    return "network.onnx" if count == 1 else f"network_{number}.onnx"
