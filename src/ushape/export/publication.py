"""Information about a run in packages for publication, without private names and paths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ushape._version import __version__
from ushape.errors import RunError
from ushape.evaluation.case_images import reduce_picture
from ushape.evaluation.class_scores import ClassScores
from ushape.evaluation.scores import dice_by_case
from ushape.evaluation.storage import FACTS, Report, load_report
from ushape.formatting import group_label, number_text, quoted
from ushape.planning.plan import Plan
from ushape.planning.run import Run
from ushape.reports.gallery import draw_outlines
from ushape.reports.report import card_sections
from ushape.reports.tables import metric_name

DEFAULT_LICENSE = "CC-BY-4.0"
"""SPDX identifier of the license if the user specifies none."""

HOMEPAGE = "https://github.com/ushape/ushape"

PUBLISHED_METRICS = ("dice", "iou", "object_f1", "object_average_precision", "panoptic_quality")
"""Metrics whose values are listed in the metadata, in this order."""

MAX_PICTURES = 4
"""Maximum number of test images in the picture of predictions."""

PICTURE_PX = 256
"""Longest side of each of them."""

PRIVATE_LINES = ("Command: ", "Trained with: ", "Scored with: ", "To repeat the training ")
"""Beginnings of the lines of a report that contain commands, and thereby names of folders."""

ABSOLUTE_PATH = re.compile(
    r"(?P<quote>['\"])(?:[A-Za-z]:|~)?[\\/][^'\"]*[\\/](?P<quoted>[^'\"\\/]+)[\\/]?(?P=quote)"
    r"|(?<![\w.:/\\~-])(?:[A-Za-z]:|~)?(?:[\\/]+[^\s\\/'\",;()\[\]]+)*"
    r"[\\/]+(?P<last>[^\s\\/'\",;()\[\]]+)[\\/]?"
)
"""Absolute path of any operating system, in quotation marks if it contains spaces."""


@dataclass(frozen=True, kw_only=True)
class Publication:
    """Information that the user specifies about a published model."""

    authors: tuple[str, ...] = ()
    """Names of the authors of the model."""

    license: str | None = None
    """SPDX identifier of the license of the model; None for `DEFAULT_LICENSE`."""

    @property
    def license_id(self) -> str:
        return self.license or DEFAULT_LICENSE

    @property
    def notes(self) -> list[str]:
        """Sentences about what the user has not specified."""
        found = []
        if self.license is None:
            found.append(
                f"License: {DEFAULT_LICENSE}, the default, which allows others to use and change "
                "the model if they credit its authors. To choose another one, specify its SPDX "
                "identifier, for example --license MIT."
            )
        if not self.authors:
            found.append(
                "Authors: not specified. A published model needs them: add --author NAME for each "
                "author."
            )
        return found


def without_paths(value: Any) -> Any:
    """Return nested values in which the last part of each absolute path takes its place."""
    if isinstance(value, dict):
        return {without_paths(key): without_paths(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(own) for own in value]
    if isinstance(value, str):
        return ABSOLUTE_PATH.sub(lambda found: found["quoted"] or found["last"], value)
    return value


def published_folder(runs: Sequence[Run]) -> Path:
    """Return the folder that has the scores of runs: of several, that of the cross-validation."""
    return runs[0].folder if len(runs) == 1 else runs[0].folder.parent


def published_report(folder: Path) -> Report | None:
    """Return the report of a run without names of files and groups, commands and paths.

    Args:
        folder: Run or cross-validation folder.

    Returns:
        None if it has not been evaluated.

    Raises:
        RunError: if the stored scores are damaged.
    """
    if not (folder / FACTS).exists():
        return None
    report = load_report(folder)
    cases = dict.fromkeys(score.case for score in report.scores)
    names = {case: f"image {number}" for number, case in enumerate(cases, start=1)}
    leaks = (re.sub(r"^(Groups .*?: \d+) \(.*\)\.$", r"\1.", line) for line in report.leak_lines)
    lines = report.reproduce_lines
    return replace(
        report,
        leak_lines=without_paths(list(leaks)),
        split_lines=without_paths(list(report.split_lines)),
        plan_lines=without_paths(list(report.plan_lines)),
        reproduce_lines=without_paths([own for own in lines if not own.startswith(PRIVATE_LINES)]),
        scores=[replace(own, case=names[own.case], group="") for own in report.scores],
        pictures=[replace(own, case=names.get(own.case, ""), group="") for own in report.pictures],
    )


def require_report(folder: Path) -> Report:
    """Return `published_report`.

    Raises:
        RunError: if the run has not been evaluated.
    """
    report = published_report(folder)
    if report is None:
        raise RunError(
            f"{folder} has no scores, which a published model must include.",
            code="scores_missing",
            hint=f"Evaluate it first: ushape evaluate {quoted(folder)}",
        )
    return report


def task_tags(plan: Plan) -> list[str]:
    """Return tags for the network, the kind of images and the kind of segmentation."""
    network, space = plan.recipe.network, plan.preprocessing.space
    kind = "instance-segmentation" if space.has_distance else "semantic-segmentation"
    names = [] if network.is_custom else ["unet", f"unet{network.dims}d"]
    return [*names, f"{plan.image_dims}d", kind, "pytorch"]


def card_text(report: Report, renamed: dict[str, str] | None = None) -> str:
    """Return the sections of the model card in Markdown.

    Args:
        renamed: Other titles of sections.
    """
    lines: list[str] = []
    for title, content in card_sections(report).items():
        lines += [f"## {(renamed or {}).get(title, title)}", "", *content, ""]
    return "\n".join([*lines, f"Written by ushape {__version__} ({HOMEPAGE})."]) + "\n"


def metric_values(own: ClassScores, noun: str) -> list[dict[str, Any]]:
    """Return the main metrics of a class as type, value, and name with the interval.

    Args:
        noun: Plural noun for the groups.
    """
    found = []
    for name in PUBLISHED_METRICS:
        mean = own.means.get(name)
        if mean is None or mean.value is None:
            continue
        text = f"mean over {group_label(mean.groups, noun)}"
        if mean.interval is not None:
            low, high = number_text(mean.interval.low), number_text(mean.interval.high)
            text += f", 95% CI {low} to {high}"
        title = f"{metric_name(name).text} of {own.name} ({text})"
        found.append({"type": name, "value": round(mean.value, 4), "name": title})
    return found


def draw_predictions(report: Report) -> np.ndarray | None:
    """Draw test images in a row, by increasing Dice, with the outlines on them below.

    Returns:
        (y, x, 3) uint8; None if the report has no pictures.
    """
    dice = dice_by_case(report.scores)
    known = sorted(
        (own for own in report.pictures if dice.get(own.case) is not None),
        key=lambda own: dice[own.case] or 0.0,
    )
    if not known:
        return None
    places = np.linspace(0, len(known) - 1, min(len(known), MAX_PICTURES)).round().astype(int)
    pictures = [reduce_picture(known[place], PICTURE_PX) for place in places]
    columns = [
        np.concatenate([_framed(picture.image), _framed(draw_outlines(picture))])
        for picture in pictures
    ]
    return np.concatenate(columns, axis=1)


def _framed(picture: np.ndarray) -> np.ndarray:
    """Enlarge a picture (y, x, 3) by an integer, and add a white frame up to a fixed size."""
    factor = max(1, PICTURE_PX // max(picture.shape[:2]))
    enlarged = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    frame = np.full((PICTURE_PX + 8, PICTURE_PX + 8, 3), 255, np.uint8)
    first = [(PICTURE_PX + 8 - size) // 2 for size in enlarged.shape[:2]]
    frame[first[0] : first[0] + len(enlarged), first[1] : first[1] + enlarged.shape[1]] = enlarged
    return frame
