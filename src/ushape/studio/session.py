"""What the page asks for: the state, the list of images, and work that takes long."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ushape.errors import DataError, RunError
from ushape.io.files import write_json
from ushape.planning.run import Run
from ushape.studio.classes import change_classes
from ushape.studio.commands import check_arguments, training_arguments
from ushape.studio.descriptions import (
    RunDescriptions,
    describe_image,
    describe_opened,
    describe_project,
    describe_saver,
)
from ushape.studio.jobs import Job, Jobs
from ushape.studio.order import AnnotationOrder
from ushape.studio.predictions import StoredPrediction
from ushape.studio.project import Project
from ushape.studio.suggestions import Suggestion

PLAN_TIMEOUT_S = 300
"""Time after which a plan that the page asks for is given up."""


class Studio:
    """A project and its jobs.

    Args:
        project: The open project; it is closed together with the studio.
    """

    def __init__(self, project: Project):
        self.project = project
        self.jobs = Jobs(project.state, self._after_job)
        self._order = AnnotationOrder(project)
        self._runs = RunDescriptions()
        self._planning = threading.Lock()

    def close(self) -> None:
        """Stop the job, keep its best weights, and save all masks."""
        if self.jobs.is_running:
            self.jobs.stop()
            self.jobs.wait(60)
        self._order.close()
        self.project.close()

    def state(self, since: int) -> dict[str, Any]:
        """Return the state of the project, and the images that changed after a version."""
        project = self.project
        job = self.jobs.describe()
        return {
            "version": project.version,
            "project": describe_project(project),
            "threshold": project.settings.threshold,
            "job": job,
            "curves": job["curves"] if job else None,
            "can_resume": not self.jobs.is_running and project.runs.unfinished() is not None,
            "runs": self.runs(),
            "changed": project.changed_since(since),
            "saved": describe_saver(project.saver),
        }

    def runs(self) -> list[dict[str, Any]]:
        """Describe the runs, the newest first."""
        return [self._runs.describe(path) for path in reversed(self.project.runs.all())]

    def images(self) -> list[dict[str, Any]]:
        """Describe all images."""
        with self.project.runs.held():
            order = {one.id: one for one in self.suggestions()}
            return [
                describe_image(self.project, image_id, order.get(image_id))
                for image_id in self.project.images
            ]

    def image(self, image_id: str) -> dict[str, Any]:
        """Describe an image that is opened.

        Raises:
            DataError: if the image or its mask cannot be read.
        """
        return describe_opened(self.project, image_id)

    def wait_for_appearance(self, timeout_s: float) -> None:
        """Wait until the images are compared, before the first suggestion."""
        self._order.wait_for_appearance(timeout_s)

    def suggestions(self) -> list[Suggestion]:
        """Return the images that are not annotated yet, the most helpful first."""
        return self._order.suggestions()

    def train(self, minutes: float, *, again: bool, resume: bool) -> None:
        """Train on everything that is annotated.

        Args:
            again: Whether it starts from the last run.
            resume: Whether the last training, which was stopped or interrupted, is continued.

        Raises:
            DataError: if nothing is annotated, or masks are not saved.
            RunError: if a job is running, or there is no run to start from.
        """
        project = self.project
        self._require_idle()
        if resume:
            self._resume()
            return
        project.saver.flush()
        project.store()
        output = project.runs.new_folder()
        usable = project.runs.usable()
        if again and not usable:
            raise RunError(
                "There is no model to start from.",
                code="no_run",
                hint="Train a model first.",
            )
        command = training_arguments(
            project, project.state / "training", output, minutes, again=again
        )
        self.jobs.start("train", command, folder=output, minutes=minutes)

    def _resume(self) -> None:
        run = self.project.runs.unfinished()
        if run is None:
            raise RunError(
                "There is no interrupted training run.",
                code="nothing_to_resume",
                hint="Start a new one.",
            )
        minutes = run.load_plan().recipe.train.minutes
        self.jobs.start("train", ["resume", str(run.folder)], folder=run.folder, minutes=minutes)

    def set_apart(self, image_id: str, *, apart: bool) -> None:
        """Hold out an image for testing, or use it for training again.

        Raises:
            DataError: if the image was shown with a prediction, or if a run was trained on it.
            RunError: if training has started, but not yet recorded its images.
        """
        job = self.jobs.job
        is_training = job is not None and job.kind == "train" and job.state == "running"
        if apart and is_training and job and not (Path(job.folder) / "plan.json").is_file():
            raise RunError(
                "The images are being read for training.",
                code="job_running",
                hint="Set the image aside after planning has finished, or stop training.",
            )
        self.project.parts.set_apart(image_id, apart=apart)

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
            raise RunError("There is no model yet.", code="no_run", hint="Train a model first.")
        run = usable[-1]
        folder = project.runs.predictions_of(run)
        chosen = list(project.images) if image_ids is None else list(image_ids)
        chosen = [one for one in chosen if project.parts.of(one) != "test"]
        if image_ids is None:
            chosen = [one for one in chosen if StoredPrediction.open(folder / one) is None]
        if not chosen:
            raise DataError(
                "There are no images to predict.",
                code="nothing_to_predict",
                hint="All images have been predicted with the newest model; test images are never "
                "predicted.",
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
        self.jobs.start("check", check_arguments(self.project, self.project.state / "check"))

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
        """Return a description of the plan that the button of the page would use.

        Plans are made one after the other, since they are written to the same folder.

        Raises:
            DataError: if no training can be planned, or planning takes too long.
            RunError: if a job is running, which planning would slow down.
        """
        with self._planning:
            self._require_idle()
            return self._plan(minutes)

    def _plan(self, minutes: float | None) -> list[str]:
        project = self.project
        project.saver.flush()
        again = bool(project.runs.usable())
        # `plan` has the options of `train`.
        _, *arguments = training_arguments(
            project,
            project.state / "planning",
            project.state / "plan.json",
            minutes or 1.0,
            again=again,
        )
        try:
            ended = subprocess.run(
                [sys.executable, "-m", "ushape", "plan", *arguments, "--explain", "--overwrite"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PLAN_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DataError(
                f"Planning took more than {PLAN_TIMEOUT_S} s and was stopped.",
                code="plan_failed",
                hint="Start training without viewing the plan; training has no such limit.",
            ) from None
        if ended.returncode:
            message, _, hint = ended.stderr.strip().partition("\nHint: ")
            message = message or f"`ushape plan` ended with exit code {ended.returncode}."
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
                hint="Wait until it has finished, or stop it.",
            )

    def _after_job(self, job: Job) -> None:
        project = self.project
        if job.kind == "train":
            project.parts.learn_split(Path(job.folder))
            # Predictions of a run that was continued are outdated, also if it failed in the end.
            shutil.rmtree(project.runs.predictions_of(Path(job.folder)), ignore_errors=True)
            if job.state == "done":
                self.set_threshold(None)  # It was chosen for another model.
            project.note_changes(project.images)
        elif job.kind == "predict":
            project.note_changes(job.images)
