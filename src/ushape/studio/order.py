"""Which image is annotated next."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from ushape.studio.appearance import Appearance
from ushape.studio.predictions import StoredPrediction
from ushape.studio.project import Project
from ushape.studio.suggestions import ImageSummary, Suggestion, suggest

MAX_SUGGESTED = 400
"""Largest number of images among which the next one is chosen."""


class AnnotationOrder:
    """The images of a project, in the order in which annotating them helps most.

    Without a model, images are compared by their appearance, which a thread computes.
    """

    def __init__(self, project: Project):
        self._project = project
        self._lock = threading.Lock()
        self._last: tuple[tuple[Any, ...], list[Suggestion]] = ((), [])
        self._appearance = Appearance()
        if not project.runs.usable() and len(project.images) <= MAX_SUGGESTED:
            self._appearance.start(list(project.images.values()))

    def close(self) -> None:
        """Stop comparing the images."""
        self._appearance.close()

    def wait_for_appearance(self, timeout_s: float) -> None:
        """Wait until the images are compared, before the first suggestion."""
        self._appearance.wait(timeout_s)

    def suggestions(self) -> list[Suggestion]:
        """Return the images that are not annotated yet, the most helpful first."""
        with self._project.runs.held():
            return self._suggestions()

    def _suggestions(self) -> list[Suggestion]:
        project = self._project
        free, known = list[str](), list[str]()
        for image_id in project.images:
            if project.parts.of(image_id) == "test":
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
            if self._last[0] != key:
                self._last = key, suggest(candidates, annotated)
            ordered = self._last[1]
        rest = [one for one in free if one not in summaries]
        reason = "Next image in the list." if run is None else "No prediction yet."
        return [
            *ordered,
            *(
                Suggestion(id=one, reason=reason, rank=len(ordered) + number)
                for number, one in enumerate(rest, 1)
            ),
        ]


def _summary_of(image_id: str, prediction: StoredPrediction) -> ImageSummary:
    facts = prediction.facts
    return ImageSummary(
        id=image_id,
        features=np.asarray(facts["features"], dtype=np.float32),
        uncertainty=facts["uncertainty"],
        expected_dice=facts["expected_dice"],
    )
