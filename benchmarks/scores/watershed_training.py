"""A U-Net on plain masks, with a watershed that divides its foreground into objects.

`objects.py` runs this script in the environment of `requirements-peers.txt` with scikit-image. The
U-Nets are those of `peer_training.py`; MONAI's is trained with whole volumes. The seeds of the
watershed are the peaks of the smoothed distance to the background or of the smoothed probability.
Map, threshold, smoothing, least distance of two peaks, and smallest size are chosen on validation
images by AP, one after the other, twice.

The program has until the end of its minutes, including imports, this choice, and the prediction of
the test images.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from peer_process import Deadline, read_options, save_cases
from peer_training import PEERS, predict_cases
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.measure import label
from skimage.morphology import remove_small_objects
from skimage.segmentation import watershed

from ushape.metrics.instance import ObjectCounts, count_objects

CHOICE_SHARE = 0.08
"""Share of the time for the choice of the settings."""

MAX_TUNED = 4
"""Largest number of validation images for the settings."""


@dataclass(frozen=True)
class Watershed:
    """Division of a map of probabilities into objects, as in the example of scikit-image."""

    relief: str = "distance"
    """Map with the peaks: distance or probability."""

    threshold: float = 0.5
    sigma: float = 1.0
    min_distance: int = 5
    smallest: int = 0

    def divide(self, probability: np.ndarray) -> np.ndarray:
        """Return the objects (*S) of the foreground probability (*S)."""
        mask = probability >= self.threshold
        relief = ndimage.distance_transform_edt(mask) if self.relief == "distance" else probability
        relief = ndimage.gaussian_filter(relief.astype(np.float32), self.sigma)
        parts = label(mask, connectivity=1)
        peaks = peak_local_max(
            relief, min_distance=self.min_distance, labels=parts, exclude_border=False
        )
        seeds = np.zeros(mask.shape, dtype=np.int32)
        seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        objects = watershed(-relief, seeds, mask=mask)
        return remove_small_objects(objects, max_size=self.smallest) if self.smallest else objects


CHOICES = {
    "relief": ("distance", "probability"),
    "threshold": (0.3, 0.4, 0.5, 0.6, 0.7),
    "min_distance": (2, 3, 5, 8, 12, 18),
    "sigma": (0.0, 1.0, 2.0, 3.0),
    "smallest": (0, 10, 30, 100),
}
"""Values of the settings, in the order in which they are chosen."""


def choose(
    probabilities: Sequence[np.ndarray], objects: Sequence[np.ndarray], deadline: Deadline
) -> Watershed:
    """Choose each setting by AP, as long as there is time."""
    chosen, best = Watershed(), -1.0
    for name, values in 2 * list(CHOICES.items()):
        for value in values:
            if deadline.progress >= 1:
                return chosen
            tried = replace(chosen, **{name: value})
            if best >= 0 and tried == chosen:
                continue
            counts = ObjectCounts(truth=0, predicted=0, ious=())
            for probability, truth in zip(probabilities, objects, strict=True):
                counts += count_objects(tried.divide(probability), truth)
            score = counts.mean_average_precision or 0.0
            if score > best:
                chosen, best = tried, score
    return chosen


def load_validation(path: Path) -> tuple[list[int], list[np.ndarray]]:
    """Return the numbers and the objects of up to MAX_TUNED validation cases."""
    with np.load(path) as arrays:
        names = sorted(name for name in arrays.files if name.endswith("/objects"))
        names = [name for name in names if name.startswith("validation/")]
        places = np.unique(np.linspace(0, len(names) - 1, MAX_TUNED).round().astype(int))
        return places.tolist(), [arrays[names[place]] for place in places]


def main() -> None:
    options = read_options(PEERS, __doc__)
    options.volumes = True
    torch.manual_seed(options.seed)
    seconds = 60 * options.minutes
    places, truth = load_validation(options.arrays)
    if truth[0].ndim == 3 and options.peer != "monai":
        sys.exit(f"{options.peer} is not trained with volumes; use monai.")
    deadline = Deadline(options.started, (1 - CHOICE_SHARE) * seconds)
    outcome = PEERS[options.peer](options, deadline)
    images = [outcome.data.validation[place][0] for place in places]
    probabilities = [outcome.predict(image)[1] for image in images]
    until = Deadline(options.started, (1 - CHOICE_SHARE / 2) * seconds)
    until.reserve(deadline.reserved_s)  # For the test images.
    chosen = choose(probabilities, truth, until)
    save_cases(options.found, (chosen.divide(one[1]) for one in predict_cases(outcome)))
    facts = {"steps": outcome.steps, "note": outcome.note, "settings": asdict(chosen)}
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
