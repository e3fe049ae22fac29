"""Runs and an image -> a prediction on the image's own grid."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from ushape.data.preprocessing import read_image
from ushape.errors import DataError
from ushape.inference.decision_rule import apply_rule
from ushape.inference.ensemble import Member, open_members
from ushape.inference.prefetch import AHEAD, map_ahead, predict_images
from ushape.inference.streaming import average_bands, predict_file
from ushape.inference.tuning import Tuning, join_tunings, load_tuning
from ushape.inference.uncertainty import confidence_of, expected_dice, spread_over
from ushape.io.streaming import Bands
from ushape.planning.hardware import inspect_machine
from ushape.planning.plan import Plan
from ushape.planning.run import Run
from ushape.transforms.morphology import Cleaning
from ushape.types import Case, Geometry, Prediction, Sample

T = TypeVar("T")

Request = tuple[T, Case, Sequence[Case]]
"""Anything that tells the result, a case, and all cases of its group."""


@dataclass(frozen=True)
class Predictor:
    """Trained networks, one or an ensemble, with the rule by which they decide."""

    members: tuple[Member, ...]
    tuning: Tuning
    device: str
    notes: tuple[str, ...] = ()
    """How a backend was chosen, a line each."""

    @property
    def plan(self) -> Plan:
        """Of the first network: mask values and encoding are the same in all."""
        return self.members[0].plan

    @property
    def backends(self) -> list[str]:
        """What computes each network."""
        return [member.network.name for member in self.members]

    @classmethod
    def open(
        cls,
        folders: Path | Sequence[Path],
        device: str = "auto",
        *,
        backend: str = "torch",
        settings: Iterable[str] = (),
    ) -> Predictor:
        """From run folders alone, wherever they were copied to.

        Args:
            folders: One run, or several for the mean of their probabilities.
            backend: One of backends.BACKENDS; or auto, the fastest that changes little.
            settings: `predict.key=value` for each value of the plan to change.

        Raises:
            ConfigError: a setting that is not one of prediction, or impossible.
            RunError: not a run, or one without weights.
            PlanError: the device or the backend is not there; runs of other classes.
        """
        folders = [folders] if isinstance(folders, Path) else list(folders)
        runs = [Run.open(folder) for folder in folders]
        settings = tuple(settings)
        members, notes = open_members(runs, device, backend, settings)
        tuning = join_tunings([load_tuning(run) for run in runs])
        return cls(tuple(members), tuning, inspect_machine(device).device, tuple(notes))

    def predict(self, case: Case, companions: Sequence[Case] = ()) -> Prediction:
        """Reads one case's image and predicts it.

        Args:
            companions: All cases of its group, itself included; none: it stands alone.

        Raises:
            DataError: unreadable, or other channels than the network's.
        """
        return self.predict_samples(self.load(case, companions))

    def predict_array(self, image: np.ndarray) -> Prediction:
        """Predicts pixels (C, *S) as a file would hold them.

        Raises:
            DataError: other channels than the network's; a model that scales images by group.
        """
        case = Case(id="array", image=Path("array"))
        if any(member.plan.preprocessing.needs_group for member in self.members):
            raise DataError(
                "This model prepares images by what their group shows.",
                hint="Predict files in a folder of their own, not arrays.",
            )
        return self.predict_samples(self._place(case, image))

    def load(self, case: Case, companions: Sequence[Case] = ()) -> list[Sample]:
        """The case's image as each network takes it."""
        image = read_image(case, self.plan.preprocessing.channels)
        return self._place(replace(case, mask=None), image, companions)

    def _place(
        self, case: Case, image: np.ndarray, companions: Sequence[Case] = ()
    ) -> list[Sample]:
        """The image, read once, as each network takes it."""
        refuse_dimensions(str(case.image), image.ndim - 1, self.plan.recipe.network.dims)
        preparations = [member.plan.preprocessing for member in self.members]
        return [one.place(case, image, None, one.look(case, companions)) for one in preparations]

    def predict_samples(self, samples: Sequence[Sample]) -> Prediction:
        """Predicts a case that was prepared for each network."""
        found = (
            member.probabilities(sample)
            for member, sample in zip(self.members, samples, strict=True)
        )
        if len(self.members) == 1:
            return self._decide(next(found), samples[0].missing_px)
        spread = spread_over(found, self.plan.preprocessing.space)
        return self._decide(spread.probabilities, samples[0].missing_px, spread.disagreement)

    def _decide(
        self, probabilities: np.ndarray, missing_px: int, disagreement: np.ndarray | None = None
    ) -> Prediction:
        """(K, *file) probabilities -> classes, by the rule that validation chose."""
        space = self.plan.preprocessing.space
        classes = apply_rule(self.tuning.rule, probabilities, space)
        return Prediction(
            probabilities=probabilities,
            classes=classes,
            confidence=confidence_of(probabilities, classes, space),
            disagreement=disagreement,
            missing_px=missing_px,
        )

    def predict_many(
        self, requests: Iterable[Request[T]], *, ahead: int = AHEAD
    ) -> Iterator[tuple[T, Prediction | DataError]]:
        """Many cases in order: images are read ahead, small ones of one size share a batch.

        Args:
            ahead: Images that are in memory before they are needed, at most.
        """
        loaded = map_ahead(lambda request: self.load(request[1], request[2]), requests, ahead=ahead)
        if len(self.members) > 1:
            for request, samples in loaded:
                if isinstance(samples, DataError):
                    yield request[0], samples
                else:
                    yield request[0], self.predict_samples(samples)
            return
        member, seen = self.members[0], deque[tuple[Geometry, int]]()

        def images() -> Iterator[tuple[T, np.ndarray | DataError]]:
            for request, samples in loaded:
                if isinstance(samples, DataError):
                    yield request[0], samples
                else:
                    seen.append((samples[0].geometry, samples[0].missing_px))
                    yield request[0], samples[0].normalization.apply(samples[0].image)

        preprocessing = member.plan.preprocessing
        for item, found in predict_images(
            member.network, images(), preprocessing.space, member.settings
        ):
            if isinstance(found, DataError):
                yield item, found
            else:
                geometry, missing_px = seen.popleft()
                yield item, self._decide(preprocessing.restore(found, geometry), missing_px)

    def predict_bands(self, bands: Bands) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """An image larger than memory: probabilities (K, n, ...) and classes (n, ...) of bands.

        Thresholds are applied; cleaning needs the whole: `clean_stored` with `cleanings`.

        Raises:
            DataError: as `stream.predict_file`.
        """
        refuse_dimensions(str(bands.path), len(bands.shape) - 1, self.plan.recipe.network.dims)
        rule, space = self.tuning.rule.without_cleaning(), self.plan.preprocessing.space
        members = [
            predict_file(member.network, bands, member.plan.preprocessing, member.settings)
            for member in self.members
        ]
        for band in average_bands(members):
            yield band, apply_rule(rule, band, space)

    @property
    def cleanings(self) -> list[Cleaning]:
        """What validation chose, for each of the scored classes or regions."""
        rules = self.tuning.rule.for_space(self.plan.preprocessing.space)
        return [own.cleaning for own in rules]

    def expected_dice(self, prediction: Prediction) -> float | None:
        """What validation cases of this confidence had; None where there were too few."""
        found = [expected_dice(prediction.confidence, one) for one in self.tuning.calibrations]
        return sum(found) / len(found) if found else None

    def codes_of(self, classes: np.ndarray) -> np.ndarray:
        """Class indices in the user's own mask values (*S)."""
        return self.plan.preprocessing.space.values_of(classes)


def refuse_dimensions(name: str, found: int, wanted: int) -> None:
    """Raises DataError for a volume where the network sees images, or the other way round."""
    if found != wanted:
        kinds = {2: "an image", 3: "a volume"}
        raise DataError(
            f"{name} is {kinds.get(found, f'of {found} dimensions')}, the model predicts "
            f"{'volumes' if wanted == 3 else 'images'}.",
            hint="Give it what it was trained on: single slices, or whole volumes.",
        )
