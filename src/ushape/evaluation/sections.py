"""Images that cells fill, as sections of electron microscopy: what is scored on all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

import numpy as np

from ushape.evaluation.summary import BestScore
from ushape.labels import IGNORE, LabelSpace
from ushape.metrics.topology import (
    FULL,
    MOST_PX,
    ScoreName,
    best_threshold,
    label_cells,
    mean_scores,
    score_section,
    score_thresholds,
)
from ushape.types import Prediction

FEWEST_CELLS = 10
"""In an image, on average."""

SCORES: tuple[ScoreName, ...] = get_args(ScoreName)


@dataclass
class Sections:
    """Collects 2D cases of one foreground class, as many as there is room for; others are left
    alone."""

    space: LabelSpace
    _probabilities: list[np.ndarray] = field(default_factory=list)
    _predicted: list[np.ndarray] = field(default_factory=list)
    _truths: list[np.ndarray] = field(default_factory=list)
    _pixels: int = 0

    def add(self, prediction: Prediction, truth: np.ndarray) -> None:
        """Takes a case for which there is room.

        Shapes:
            truth: (y, x) class indices.
        """
        fits = truth.ndim == 2 and len(self.space.scored) == 1 and not (truth == IGNORE).any()
        if not fits or self._pixels + truth.size > MOST_PX:
            return
        (probability,) = prediction.probabilities[self.space.foreground]
        self._probabilities.append(np.rint(255 * probability).astype(np.uint8))
        self._predicted.append(prediction.classes > 0)
        self._truths.append(truth > 0)
        self._pixels += truth.size

    def scores(self) -> dict[str, BestScore]:
        """The best value over thresholds, by name; none where cells do not fill the images."""
        if not self._are_cells():
            return {}
        found = score_thresholds(self._probabilities, self._truths)
        pairs = zip(self._predicted, self._truths, strict=True)
        at_rule = mean_scores([score_section(predicted, truth) for predicted, truth in pairs])
        best = {name: best_threshold(found, name) for name in SCORES}
        return {
            name: BestScore(
                value=getattr(found[threshold], name),
                threshold=threshold,
                at_rule=getattr(at_rule, name),
                images=len(self._truths),
            )
            for name, threshold in best.items()
        }

    def _are_cells(self) -> bool:
        if not self._truths:
            return False
        share = np.mean([truth.mean() for truth in self._truths])
        cells = np.mean([label_cells(truth).max() for truth in self._truths])
        return bool(share >= FULL and cells >= FEWEST_CELLS)
