"""What the page is told about a project, its images and its runs."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from ushape.errors import RunError, UshapeError
from ushape.evaluation.storage import load_report
from ushape.formatting import printable
from ushape.labels.colors import rgb_text
from ushape.planning.run import Run
from ushape.studio.annotations import Annotation, Change
from ushape.studio.project import Project
from ushape.studio.saving import Saver
from ushape.studio.suggestions import Suggestion
from ushape.studio.tiles import level_count, plane_shape


def describe_project(project: Project) -> dict[str, Any]:
    """Describe a project, without its images and runs."""
    target = project.target
    colors = [rgb_text(color) for color in project.class_colors()]
    classes = [
        {"index": index, "name": name, "color": colors[index], "value": value}
        for index, (name, value) in enumerate(
            zip(target.space.names, target.space.values, strict=True)
        )
        if index not in project.settings.removed_classes
    ]
    shapes = [project.shape(image_id) for image_id in list(project.images)[:1]]
    return {
        "id": project.id,
        "name": printable(project.folder.absolute().name),
        "kind": project.kind,
        "data": str(project.folder),
        "run": str(project.run.folder) if project.run is not None else None,
        "save": project.settings.save,
        "save_folder": _save_folder(project),
        "needs_consent": any(map(project.masks.needs_consent, project.saver.waiting)),
        "mode": project.mode,
        "classes": classes,
        "dims": len(shapes[0]) if shapes and shapes[0] else 2,
        "image_count": len(project.images),
        "notes": list(project.listing.notes),
        "problems": list(project.problems),
    }


def describe_saver(saver: Saver) -> dict[str, Any]:
    """Describe what is saved, and the last error of saving."""
    return {
        "pending": saver.pending,
        "last_s": saver.last_s,
        "error": None if saver.error is None else saver.error.message,
    }


def _save_folder(project: Project) -> str:
    if project.settings.save == "separate" or not project.target.is_native:
        return str(project.state / "masks_corrected")
    first = next(iter(project.images))
    return str(project.masks.path(first).parent)


def describe_opened(project: Project, image_id: str) -> dict[str, Any]:
    """Describe an image that is opened.

    Raises:
        DataError: if the image or its mask cannot be read.
    """
    source = project.source(image_id)
    annotation = project.annotation(image_id)
    planes = ["z", "y", "x"] if len(source.shape) == 3 else ["z"]
    prediction = project.prediction(image_id)
    return {
        "id": image_id,
        "name": project.name(image_id),
        "shape": list(source.shape),
        "levels": level_count(plane_shape(source.shape, "z")),
        "planes": planes,
        "channels": source.channels,
        "spacing": list(source.spacing_mm) if source.spacing_mm else None,
        "percentiles": source.percentiles.tolist(),
        "locked": project.parts.locked(image_id),
        "has_prediction": prediction is not None,
        "threshold": project.settings.threshold,
        **answer_of(annotation, None),
    }


def describe_image(
    project: Project, image_id: str, suggestion: Suggestion | None
) -> dict[str, Any]:
    """Describe an image in the list of all images.

    Args:
        suggestion: Its place in the suggested order; None if it is annotated.
    """
    prediction = project.prediction(image_id) if project.runs.usable() else None
    known = project.known_annotation(image_id)
    return {
        "id": image_id,
        "name": project.name(image_id),
        "shape": list(project.shape(image_id) or ()),
        "channels": None,
        "part": project.parts.of(image_id),
        "has_mask": project.image(image_id).mask is not None,
        "has_prediction": prediction is not None,
        "annotated": project.annotated(image_id),
        "is_corrected": project.is_corrected(image_id),
        "expected_dice": prediction.facts.get("expected_dice") if prediction else None,
        "rank": suggestion.rank if suggestion else None,
        "reason": suggestion.reason if suggestion else None,
        "revision": known.revision if known else 0,
        "locked": project.parts.locked(image_id),
    }


class RunDescriptions:
    """Descriptions of runs; their scores are read again when they have changed."""

    def __init__(self) -> None:
        self._scores: dict[Path, tuple[int, float | None, list[float] | None]] = {}

    def describe(self, path: Path) -> dict[str, Any]:
        """Describe the run of a folder."""
        run = Run(path)
        changed = 0
        for file in (path / "scores.json", run.weights_path):
            with suppress(OSError):
                changed = max(changed, file.stat().st_mtime_ns)
        if self._scores.get(path, (-1,))[0] != changed:
            score, interval = None, None
            with suppress(UshapeError):
                score, interval = _score_of(path)
            self._scores[path] = changed, score, interval
        _, score, interval = self._scores[path]
        return {
            "name": path.name,
            "path": str(path),
            "score": score,
            "interval": interval,
            "images": _count_images(run),
            "started": (path / "plan.json").stat().st_mtime,
            "has_report": run.report_path.is_file(),
            "is_usable": run.weights_path.is_file(),
        }


def answer_of(annotation: Annotation, change: Change | None, axis: int = 0) -> dict[str, Any]:
    """Return what the page is told about an annotation after a change.

    Args:
        axis: Axis (z, y, x) of the plane that is shown.
    """
    box = None
    if change is not None and change.box is not None:
        rows, columns = (own for number, own in enumerate(change.box) if number != axis)
        box = [rows[0], columns[0], rows[1], columns[1]]
    return {
        "revision": annotation.revision if change is None else change.revision,
        "tool": "" if change is None else change.tool,
        "box": box,
        "annotated": annotation.annotated,
        "objects": annotation.object_count if annotation.are_objects else None,
        "can_undo": annotation.can_undo,
        "can_redo": annotation.can_redo,
    }


def _score_of(run: Path) -> tuple[float | None, list[float] | None]:
    """Return the mean Dice of the test images and, for one class, its confidence interval."""
    summary = load_report(run).summary
    found = [one.means["dice"].interval for one in summary.classes]
    interval = found[0] if len(found) == 1 else None
    if interval is None:
        return summary.mean_dice, None
    return summary.mean_dice, [interval.low, interval.high]


def _count_images(run: Run) -> int:
    with suppress(RunError):
        return len(run.load_splits().train)
    return 0
