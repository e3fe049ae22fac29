"""Folder of a run that can be uploaded to the Hugging Face Hub, and predicts as it is."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from ushape._version import __version__
from ushape.console import Console
from ushape.errors import RunError
from ushape.evaluation.storage import Report
from ushape.export.graph import ExportOptions
from ushape.export.publication import (
    HOMEPAGE,
    Publication,
    card_text,
    draw_predictions,
    metric_values,
    published_folder,
    require_report,
    task_tags,
    without_paths,
)
from ushape.io.files import read_sealed_json, real_path, write_bytes, write_json, write_sealed_json
from ushape.planning.plan import Plan
from ushape.planning.run import Run
from ushape.reports.report import escape_markdown

CARD, CONFIG, PICTURE = "README.md", "config.json", "predictions.png"


def export_folder(
    runs: Sequence[Run], folder: Path, options: ExportOptions, console: Console
) -> None:
    """Write a folder for the Hub, and print what it contains.

    Raises:
        RunError: if the run has not been evaluated, or is damaged.
        ConfigError: if an option is given that changes a graph, of which the folder has none.
    """
    publication = Publication(authors=options.authors, license=options.license)
    options.refuse_those_of_graphs("A folder for the Hugging Face Hub contains the run itself")
    for line in fill_folder(runs, folder, publication):
        console.say(line)


def fill_folder(runs: Sequence[Run], folder: Path, publication: Publication) -> list[str]:
    """Write the weights, settings and model card of a run into an empty folder.

    `ushape predict FOLDER IMAGES` works with it. Names of files and groups, commands and absolute
    paths are left out; the picture of predictions shows a few test images. Of several runs, each
    has its own folder, as in a cross-validation.

    Returns:
        Sentences about the content.

    Raises:
        RunError: if the run has not been evaluated, or is damaged.
    """
    own = published_folder(runs)
    plan, report, notes = runs[0].load_plan(), require_report(own), list(publication.notes)
    for number, run in enumerate(runs, start=1):
        _copy_model(run, folder if len(runs) == 1 else folder / f"fold-{number}")
    if plan.recipe.network.is_custom:
        notes.append("The folder code contains your Python file, which the network needs.")
    picture = draw_predictions(report)
    if picture is not None:
        Image.fromarray(picture).save(folder / PICTURE)
        notes.append(f"{PICTURE} shows some test images; delete it if they must remain private.")
    write_json(folder / CONFIG, _config(plan))
    name = real_path(own).name
    metadata = _metadata(name, report, publication, task_tags(plan))
    header = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    body = _body(name, plan, report, publication, has_picture=picture is not None)
    write_bytes(folder / CARD, f"---\n{header}---\n\n{body}".encode(errors="backslashreplace"))
    return notes


def _copy_model(run: Run, folder: Path) -> None:
    """Copy what predicts, without absolute paths."""
    folder.mkdir(exist_ok=True)
    plan, copied = run.load_plan(), Run(folder)
    shutil.copyfile(run.weights_path, copied.weights_path)
    write_sealed_json(copied.plan_path, without_paths(plan.to_dict()))
    if run.tuning_path.exists():
        hint = "Copy the complete run folder again."
        tuning = read_sealed_json(run.tuning_path, RunError, code="damaged_run", hint=hint)
        write_sealed_json(copied.tuning_path, without_paths(tuning))
    if plan.recipe.network.is_custom:
        shutil.copytree(run.folder / "code", folder / "code")
    Run.open(folder).load_plan()


def _license_of(publication: Publication) -> dict[str, str]:
    """Return the license as the Hub expects it; terms of the user's own are named."""
    name = publication.license_id
    if re.fullmatch(r"[A-Za-z0-9.+-]+", name):
        return {"license": name.lower()}
    return {"license": "other", "license_name": name}


def _metadata(
    name: str, report: Report, publication: Publication, tags: list[str]
) -> dict[str, Any]:
    """Return the header of the model card.

    Source:
        https://github.com/huggingface/hub-docs/blob/main/modelcard.md
    """
    noun = report.summary.group_noun
    metrics = [value for own in report.summary.classes for value in metric_values(own, noun)]
    result = {
        "task": {"type": "image-segmentation", "name": "Image segmentation"},
        "dataset": {"name": "Test images of the training data", "type": "custom", "split": "test"},
        "metrics": metrics,
    }
    return {
        **_license_of(publication),
        "library_name": "ushape",
        "pipeline_tag": "image-segmentation",
        "tags": ["ushape", "image-segmentation", *tags],
        "metrics": list(dict.fromkeys(value["type"] for value in metrics)),
        "model-index": [{"name": name, "results": [result]}],
    }


def _config(plan: Plan) -> dict[str, Any]:
    """Return the main facts about a model; `plan.json` has all of its settings."""
    space, network = plan.preprocessing.space, plan.recipe.network
    return {
        "library_name": "ushape",
        "ushape_version": __version__,
        "architecture": network.architecture,
        "dimensions": plan.image_dims,
        "channels": plan.preprocessing.channels,
        "classes": dict(zip(space.names, map(space.show_value, space.values), strict=True)),
        "intensity": plan.preprocessing.config.intensity,
        "settings": Run(Path()).plan_path.name,
        "weights": Run(Path()).weights_path.name,
    }


def _body(
    name: str, plan: Plan, report: Report, publication: Publication, *, has_picture: bool
) -> str:
    """Return the text of the model card."""
    lines = [f"# {escape_markdown(name)}", "", escape_markdown(report.summary.verdict), ""]
    if publication.authors:
        lines += [f"Authors: {escape_markdown(', '.join(publication.authors))}", ""]
    if has_picture:
        lines += [
            f"![Test images with outlines of annotation and prediction]({PICTURE})",
            "",
            "Test images by increasing Dice. Bottom row: annotation in blue, prediction in orange, "
            "white where they coincide.",
            "",
        ]
    code = plan.recipe.code
    option = f" --recipe FOLDER/code/{code.name}" if plan.recipe.network.is_custom and code else ""
    lines += [
        "## How to use",
        "",
        "```",
        "pip install ushape huggingface_hub",
        "hf download USER/MODEL",
        f"ushape predict FOLDER IMAGES -o masks{option}",
        "```",
        "",
        "FOLDER is the folder printed by the second command. In Python, "
        "`ushape.load(FOLDER).predict(image)` returns the mask of an array. The documentation is "
        f"at {HOMEPAGE}.",
        "",
        card_text(report),
    ]
    return "\n".join(lines)
