"""What the page asks for: the state, the list of images, and work that takes long."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ushape.errors import DataError, RunError, UshapeError
from ushape.evaluation.storage import load_report
from ushape.formatting import printable
from ushape.io.files import write_json
from ushape.labels.colors import rgb_text
from ushape.planning.run import Run
from ushape.studio.annotations import Annotation, Change
from ushape.studio.appearance import Appearance
from ushape.studio.classes import change_classes
from ushape.studio.jobs import Job, Jobs
from ushape.studio.learning import AnnotatedImage, label_settings, training_command
from ushape.studio.predictions import StoredPrediction
from ushape.studio.project import Project
from ushape.studio.suggestions import ImageSummary, Suggestion, suggest
from ushape.studio.tiles import level_count, plane_shape

ENOUGH_MASKS = 8
"""Number of images with masks from which the first training sets some of them apart by itself."""

MAX_SUGGESTED = 400
"""Largest number of images among which the next one is chosen."""

PLAN_TIMEOUT_S = 300


class Studio:
    """A project and its jobs.

    Args:
        project: The open project; it is closed together with the studio.
    """

    def __init__(self, project: Project):
        self.project = project
        self.jobs = Jobs(project.state, self._after_job)
        self._lock = threading.Lock()
        self._order: tuple[tuple[Any, ...], list[Suggestion]] = ((), [])
        self._appearance = Appearance()
        if not project.runs.usable() and len(project.images) <= MAX_SUGGESTED:
            self._appearance.start(list(project.images.values()))
        self._scores: dict[Path, tuple[int, float | None, list[float] | None]] = {}

    def close(self) -> None:
        """Stop the job, keep its best weights, and save all masks."""
        if self.jobs.is_running:
            self.jobs.stop()
            self.jobs.wait(60)
        self._appearance.close()
        self.project.close()

    def state(self, since: int) -> dict[str, Any]:
        """Return the state of the project, and the images that changed after a version."""
        project, saver = self.project, self.project.saver
        target = project.target
        job = self.jobs.describe()
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
            "version": project.version,
            "project": {
                "id": project.id,
                "name": printable(project.folder.absolute().name),
                "kind": project.kind,
                "data": str(project.folder),
                "run": str(project.run.folder) if project.run is not None else None,
                "save": project.settings.save,
                "save_folder": self._save_folder(),
                "needs_consent": any(map(project.needs_consent, saver.waiting)),
                "mode": project.mode,
                "classes": classes,
                "dims": len(shapes[0]) if shapes and shapes[0] else 2,
                "image_count": len(project.images),
                "notes": list(project.listing.notes),
                "problems": list(project.problems),
            },
            "threshold": project.settings.threshold,
            "job": job,
            "curves": job["curves"] if job else None,
            "runs": self.runs(),
            "changed": project.changed_since(since),
            "saved": {
                "pending": saver.pending,
                "last_s": saver.last_s,
                "error": None if saver.error is None else saver.error.message,
            },
        }

    def runs(self) -> list[dict[str, Any]]:
        """Describe the runs, the newest first."""
        return [self._describe_run(path) for path in reversed(self.project.runs.all())]

    def images(self) -> list[dict[str, Any]]:
        """Describe all images."""
        with self.project.runs.held():
            order = {one.id: one for one in self.suggestions()}
            return [self._describe_image(image_id, order) for image_id in self.project.images]

    def image(self, image_id: str) -> dict[str, Any]:
        """Describe an image that is opened.

        Raises:
            DataError: if the image or its mask cannot be read.
        """
        project = self.project
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
            "locked": project.locked(image_id),
            "has_prediction": prediction is not None,
            "threshold": project.settings.threshold,
            **answer_of(annotation, None),
        }

    def wait_for_appearance(self, timeout_s: float) -> None:
        """Wait until the images are compared, before the first suggestion."""
        self._appearance.wait(timeout_s)

    def suggestions(self) -> list[Suggestion]:
        """Return the images that are not annotated yet, the most helpful first."""
        with self.project.runs.held():
            return self._suggestions()

    def _suggestions(self) -> list[Suggestion]:
        project = self.project
        free, known = list[str](), list[str]()
        for image_id in project.images:
            if project.part(image_id) == "test":
                continue
            (known if project.annotated(image_id) > 0 else free).append(image_id)
        run = next(iter(reversed(project.runs.usable())), None)
        summaries = {} if run else self._appearance.summaries
        for image_id in [*free[:MAX_SUGGESTED], *known[:MAX_SUGGESTED]] if run else ():
            folder = project.runs.predictions_of(run) / image_id if run else Path()
            if (found := StoredPrediction.open(folder)) is not None:
                summaries[image_id] = _summary_of(image_id, found)
        candidates = [summaries[one] for one in free if one in summaries]
        annotated = [summaries[one] for one in known if one in summaries]
        key = (str(run), tuple(one.id for one in candidates), tuple(one.id for one in annotated))
        with self._lock:
            if self._order[0] != key:
                self._order = key, suggest(candidates, annotated)
            ordered = self._order[1]
        rest = [one for one in free if one not in summaries]
        reason = "The next one in the list." if run is None else "It has no prediction yet."
        return [
            *ordered,
            *(
                Suggestion(id=one, reason=reason, rank=len(ordered) + number)
                for number, one in enumerate(rest, 1)
            ),
        ]

    def train(self, minutes: float, *, again: bool, resume: bool) -> None:
        """Start a training on everything that is annotated.

        Args:
            again: Whether it starts from the last run.
            resume: Whether the last training, which was interrupted, is continued.

        Raises:
            DataError: if nothing is annotated, or masks are not saved.
            RunError: if a job is running, or there is no run to start from.
        """
        project = self.project
        self._require_idle()
        if resume:
            last = self.jobs.job
            if (
                last is None
                or last.kind != "train"
                or not (Path(last.folder) / "plan.json").exists()
            ):
                raise RunError(
                    "There is no interrupted training.",
                    code="nothing_to_resume",
                    hint="Start a new training.",
                )
            self.jobs.start(
                "train", ["resume", last.folder], folder=Path(last.folder), minutes=last.minutes
            )
            return
        project.saver.flush()
        project.store()
        output = project.runs.new_folder()
        usable = project.runs.usable()
        if again and not usable:
            raise RunError(
                "There is no model to start from.",
                code="no_run",
                hint="Train a first model.",
            )
        command = self._command(project.state / "training", output, minutes, again=again)
        self.jobs.start("train", command, folder=output, minutes=minutes)

    def set_apart(self, image_id: str, *, apart: bool) -> None:
        """Keep an image for the score, or give it back.

        Raises:
            DataError: if the image was shown with a prediction, or if a run was trained on it.
            RunError: if a training has started, but not stated its images yet.
        """
        job = self.jobs.job
        is_training = job is not None and job.kind == "train" and job.state == "running"
        if apart and is_training and job and not (Path(job.folder) / "plan.json").is_file():
            raise RunError(
                "A training is reading the images.",
                code="job_running",
                hint="Set the image apart when the training has planned, or stop it.",
            )
        self.project.set_apart(image_id, apart=apart)

    def predict(self, image_ids: Sequence[str] | None) -> None:
        """Start the prediction of images with the newest run.

        Args:
            image_ids: Images to predict; None: all without a prediction of this run.

        Raises:
            DataError: if there is nothing to predict.
            RunError: if there is no run, or a job is running.
        """
        project = self.project
        self._require_idle()
        usable = project.runs.usable()
        if not usable:
            raise RunError("There is no model yet.", code="no_run", hint="Train a first model.")
        run = usable[-1]
        folder = project.runs.predictions_of(run)
        chosen = list(project.images) if image_ids is None else list(image_ids)
        chosen = [one for one in chosen if project.part(one) != "test"]
        if image_ids is None:
            chosen = [one for one in chosen if StoredPrediction.open(folder / one) is None]
        if not chosen:
            raise DataError(
                "There is no image to predict.",
                code="nothing_to_predict",
                hint="All images have a prediction of the newest model; test images get none.",
            )
        images = []
        for image_id in chosen:
            case = project.image(image_id).case
            images.append(
                {
                    "id": image_id,
                    "image": str(case.image.absolute()),
                    "channels": [str(path.absolute()) for path in case.channels],
                    "group": case.group,
                }
            )
        path = project.state / "predict.json"
        job = {"folder": str(folder.absolute()), "images": images}
        space = project.target.space
        write_json(path, {**job, "values": list(space.colors or space.values)})
        self.jobs.start(
            "predict",
            [str(run), str(path)],
            module="ushape.studio.predicting",
            folder=folder,
            images=chosen,
        )

    def check(self) -> None:
        """Start a check of the data.

        Raises:
            RunError: if a job is running.
        """
        self._require_idle()
        output = self.project.state / "check"
        arguments = [*self._data_arguments(), *self._data_settings(), "-o", str(output)]
        self.jobs.start("check", ["check", *arguments])

    def findings(self) -> list[dict[str, Any]]:
        """Return what the last check found."""
        path = self.project.state / "check" / "check.json"
        if not path.exists():
            return []
        values = json.loads(path.read_bytes())
        return [
            {
                "code": one["check"],
                "severity": one["severity"],
                "title": one["check"].replace("_", " ").capitalize(),
                "message": one["text"],
                "hint": one["fix"],
                "images": list(one["cases"]),
            }
            for one in values["findings"]
        ]

    def plan(self, minutes: float | None) -> list[str]:
        """Return the plan of the training that the button of the page starts, in words.

        Raises:
            DataError: if no training can be planned.
        """
        project = self.project
        project.saver.flush()
        again = bool(project.runs.usable())
        # `plan` has the options of `train`.
        _, *arguments = self._command(
            project.state / "planning", project.state / "plan.json", minutes or 1.0, again=again
        )
        ended = subprocess.run(
            [sys.executable, "-m", "ushape", "plan", *arguments, "--explain", "--overwrite"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PLAN_TIMEOUT_S,
            check=False,
        )
        if ended.returncode:
            message, _, hint = ended.stderr.strip().partition("\nHint: ")
            raise DataError(message.removeprefix("Error: "), code="plan_failed", hint=hint)
        return ended.stdout.splitlines()

    def report(self) -> str | None:
        """Return the report of the newest run that has one."""
        for run in reversed(self.project.runs.all()):
            if Run(run).report_path.is_file():
                return Run(run).report_path.read_text(encoding="utf-8")
        return None

    def change_settings(
        self,
        *,
        save: Any = None,
        classes: Sequence[dict[str, Any]] = (),
        removed: Sequence[int] = (),
    ) -> None:
        """Store decisions of the user.

        Args:
            classes: Names and colors of classes, which are changed or added.
            removed: Indices of classes to remove.

        Raises:
            DataError: if a class cannot be changed as asked.
        """
        project = self.project
        with project.lock:
            if classes or removed:
                change_classes(project, classes, removed)
            if save is not None:
                project.settings.save = save
                project.agree()
            project.store()
        if save is not None:
            project.saver.retry()

    def set_threshold(self, threshold: float | None) -> None:
        """Store from which probability pixels are foreground; None: as the validation chose."""
        with self.project.lock:
            self.project.settings.threshold = threshold
            self.project.store()

    def _require_idle(self) -> None:
        if self.jobs.is_running:
            raise RunError(
                "Another job is running.",
                code="job_running",
                hint="Wait until it has ended, or stop it.",
            )

    def _command(self, folder: Path, output: Path, minutes: float, *, again: bool) -> list[str]:
        """Return the arguments of `ushape` for a training.

        Args:
            folder: Folder for the table of the images, if one is needed.
            again: Whether it starts from the last run.
        """
        project, usable = self.project, self.project.runs.usable()
        if not usable and (command := self._first_training(output, minutes)) is not None:
            return command
        groups = project.groups()
        return training_command(
            [self._annotated_image(one, groups.get(one)) for one in project.images],
            folder,
            output=output,
            minutes=minutes,
            start_from=usable[-1] if again else None,
            splits=not usable and self._can_split(),
            labels=project.label_config(),
        )

    def _first_training(self, output: Path, minutes: float) -> list[str] | None:
        """Return the arguments of a training that splits the user's data; None for few masks."""
        project = self.project
        images = project.images.values()
        complete = [one for one in images if one.mask is not None and not project.settings.apart]
        if len(complete) < ENOUGH_MASKS or project.settings.save == "separate":
            return None
        if project.settings.test:  # Of a training that was stopped before it had weights.
            return None
        if project.saver.waiting or any(map(project.is_corrected, project.images)):
            return None
        return ["train", *self._data_arguments(), "-o", str(output), "--minutes", f"{minutes:g}"]

    def _can_split(self) -> bool:
        """Return whether a first training sets some of the images apart by itself."""
        project, images = self.project, self.project.images
        complete = sum(project.annotated(one) == 1 for one in images)
        return complete >= ENOUGH_MASKS and all(project.part(one) != "test" for one in images)

    def _annotated_image(self, image_id: str, group: str | None) -> AnnotatedImage:
        project = self.project
        share = project.annotated(image_id)
        return AnnotatedImage(
            id=image_id,
            image=project.image(image_id).case.image,
            mask=project.training_mask(image_id) if share > 0 else None,
            annotated=share,
            group=group,
            part="test" if project.part(image_id) == "test" else "train",
        )

    def _data_arguments(self) -> list[str]:
        listing = self.project.listing
        masks = ["--masks", str(listing.masks)] if listing.masks is not None else []
        return [str(listing.data), *masks]

    def _data_settings(self) -> list[str]:
        """Return the options by which commands read masks that were saved on the page."""
        project = self.project
        chosen = list[str]()
        if project.settings.meaning is not None and project.target.is_native:
            config = project.label_config()
            chosen += label_settings(config, None)
        if sum(one.mask is not None for one in project.images.values()) < ENOUGH_MASKS:
            chosen += ["split.test_fraction=0", "split.validation_fraction=0"]
        return [part for setting in chosen for part in ("--set", setting)]

    def _after_job(self, job: Job) -> None:
        project = self.project
        if job.kind == "train":
            project.learn_split(Path(job.folder))
            if job.state == "done":
                self.set_threshold(None)  # It was chosen for another model.
            project.note_changes(project.images)
        elif job.kind == "predict":
            project.note_changes(job.images)

    def _save_folder(self) -> str:
        project = self.project
        if project.settings.save == "separate" or not project.target.is_native:
            return str(project.state / "masks_corrected")
        first = next(iter(project.images))
        return str(project.mask_path(first).parent)

    def _describe_image(self, image_id: str, order: dict[str, Suggestion]) -> dict[str, Any]:
        project = self.project
        suggestion = order.get(image_id)
        prediction = project.prediction(image_id) if project.runs.usable() else None
        known = project.known_annotation(image_id)
        return {
            "id": image_id,
            "name": project.name(image_id),
            "shape": list(project.shape(image_id) or ()),
            "channels": None,
            "part": project.part(image_id),
            "has_mask": project.image(image_id).mask is not None,
            "has_prediction": prediction is not None,
            "annotated": project.annotated(image_id),
            "is_corrected": project.is_corrected(image_id),
            "expected_dice": prediction.facts.get("expected_dice") if prediction else None,
            "rank": suggestion.rank if suggestion else None,
            "reason": suggestion.reason if suggestion else None,
            "revision": known.revision if known else 0,
            "locked": project.locked(image_id),
        }

    def _describe_run(self, path: Path) -> dict[str, Any]:
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


def _summary_of(image_id: str, prediction: StoredPrediction) -> ImageSummary:
    facts = prediction.facts
    return ImageSummary(
        id=image_id,
        features=np.asarray(facts["features"], dtype=np.float32),
        uncertainty=facts["uncertainty"],
        expected_dice=facts["expected_dice"],
    )


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
