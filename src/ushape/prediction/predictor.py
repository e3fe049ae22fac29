"""Runs and an image -> a prediction on the image's own grid."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
import torch
from torch import nn

from ushape import config
from ushape.data.prepare import read_image
from ushape.errors import ConfigError, DataError, PlanError
from ushape.io.bands import Bands
from ushape.models.shapes import next_legal_size, valid_margin
from ushape.planning.machine import inspect_machine, keep_memory
from ushape.planning.plan import Plan
from ushape.planning.recipe import settled
from ushape.planning.run import Run
from ushape.planning.speed import memory_format
from ushape.prediction.backends import Backend, Precision, open_backend
from ushape.prediction.decision import apply_rule
from ushape.prediction.networks import Computed, Eager, Slot, Swapped
from ushape.prediction.pipeline import AHEAD, map_ahead, predict_images
from ushape.prediction.selection import calibration_tiles, select_backend
from ushape.prediction.stream import average_bands, predict_file
from ushape.prediction.tiled import TileSettings, predict_probabilities
from ushape.prediction.tuning import Tuning, join_tunings, load_tuning
from ushape.prediction.uncertainty import confidence_of, expected_dice, spread_over
from ushape.spatial.cleaning import Cleaning
from ushape.spatial.symmetry import Average, symmetries
from ushape.types import Case, Geometry, Prediction, Sample

T = TypeVar("T")

WEIGHTS_SHARE = 0.25
"""Where the weights of an ensemble exceed this share of the free memory, one network is in memory
at a time."""

Request = tuple[T, Case, Sequence[Case]]
"""Anything that tells the result, a case, and all cases of its group."""


def predict_sample(
    module: nn.Module, sample: Sample, plan: Plan, precision: str, *, average: Average | None = None
) -> np.ndarray:
    """(K, *working) probabilities; training validates with this.

    Args:
        average: Turned versions to average, in place of the plan's.
    """
    layout = memory_format(plan.recipe.network.dims, channels_last=plan.recipe.train.channels_last)
    network = Eager(module, precision, layout)
    image = sample.scaling.apply(sample.image)
    settings = tile_settings(plan, average)
    return predict_probabilities(network, image, plan.preparation.space, settings)


def tile_settings(plan: Plan, average: Average | None = None) -> TileSettings:
    """How the plan cuts up images, averaging other versions if these are named."""
    predict = plan.recipe.predict
    chosen: Average = settled(predict.average) if average is None else average
    return TileSettings(
        shape=plan.tile_shape,
        overlap_fraction=settled(predict.tiling.overlap_fraction),
        blend=predict.tiling.blend,
        symmetries=symmetries(chosen, predict.mirror_axes, plan.recipe.network.dims),
    )


@dataclass(frozen=True)
class Member:
    """A trained network with its plan."""

    plan: Plan
    network: Computed
    settings: TileSettings

    def probabilities(self, sample: Sample) -> np.ndarray:
        """(K, *file) of a prepared case."""
        image = sample.scaling.apply(sample.image)
        space = self.plan.preparation.space
        working = predict_probabilities(self.network, image, space, self.settings)
        return self.plan.preparation.restore(working, sample.geometry)


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
        slot = Slot() if _is_memory_short(runs) else None
        opened = [_open_member(run, device, backend, settings, slot) for run in runs]
        members = [member for member, _ in opened]
        for run, member in zip(runs, members, strict=True):
            _refuse_other_classes(run, member.plan, runs[0], members[0].plan)
        tuning = join_tunings([load_tuning(run) for run in runs])
        notes = tuple(line for _, lines in opened for line in lines)
        return cls(tuple(members), tuning, inspect_machine(device).device, notes)

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
        if any(member.plan.preparation.needs_group for member in self.members):
            raise DataError(
                "This model prepares images by what their group shows.",
                hint="Predict files in a folder of their own, not arrays.",
            )
        return self.predict_samples(self._place(case, image))

    def load(self, case: Case, companions: Sequence[Case] = ()) -> list[Sample]:
        """The case's image as each network takes it."""
        image = read_image(case, self.plan.preparation.channels)
        return self._place(replace(case, mask=None), image, companions)

    def _place(
        self, case: Case, image: np.ndarray, companions: Sequence[Case] = ()
    ) -> list[Sample]:
        """The image, read once, as each network takes it."""
        preparations = [member.plan.preparation for member in self.members]
        return [one.place(case, image, None, one.look(case, companions)) for one in preparations]

    def predict_samples(self, samples: Sequence[Sample]) -> Prediction:
        """Predicts a case that was prepared for each network."""
        found = (
            member.probabilities(sample)
            for member, sample in zip(self.members, samples, strict=True)
        )
        if len(self.members) == 1:
            return self._decide(next(found), samples[0].missing_px)
        spread = spread_over(found, self.plan.preparation.space)
        return self._decide(spread.probabilities, samples[0].missing_px, spread.disagreement)

    def _decide(
        self, probabilities: np.ndarray, missing_px: int, disagreement: np.ndarray | None = None
    ) -> Prediction:
        """(K, *file) probabilities -> classes, by the rule that validation chose."""
        space = self.plan.preparation.space
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
                    yield request[0], samples[0].scaling.apply(samples[0].image)

        preparation = member.plan.preparation
        for item, found in predict_images(
            member.network, images(), preparation.space, member.settings
        ):
            if isinstance(found, DataError):
                yield item, found
            else:
                geometry, missing_px = seen.popleft()
                yield item, self._decide(preparation.restore(found, geometry), missing_px)

    def predict_bands(self, bands: Bands) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """An image larger than memory: probabilities (K, n, ...) and classes (n, ...) of bands.

        Thresholds are applied; cleaning needs the whole: `clean_stored` with `cleanings`.

        Raises:
            DataError: as `stream.predict_file`.
        """
        rule, space = self.tuning.rule.without_cleaning(), self.plan.preparation.space
        members = [
            predict_file(member.network, bands, member.plan.preparation, member.settings)
            for member in self.members
        ]
        for band in average_bands(members):
            yield band, apply_rule(rule, band, space)

    @property
    def cleanings(self) -> list[Cleaning]:
        """What validation chose, for each of the scored classes or regions."""
        rules = self.tuning.rule.for_space(self.plan.preparation.space)
        return [own.cleaning for own in rules]

    def expected_dice(self, prediction: Prediction) -> float | None:
        """What validation cases of this confidence had; None where there were too few."""
        found = [expected_dice(prediction.confidence, one) for one in self.tuning.calibrations]
        return sum(found) / len(found) if found else None

    def codes_of(self, classes: np.ndarray) -> np.ndarray:
        """Class indices in the user's own mask values (*S)."""
        return self.plan.preparation.space.values_of(classes)


def _is_memory_short(runs: Sequence[Run]) -> bool:
    """All networks of an ensemble at once would take too much of the memory that is left."""
    weights = sum(run.weights_path.stat().st_size for run in runs)
    return len(runs) > 1 and weights > WEIGHTS_SHARE * psutil.virtual_memory().available


def _refuse_other_classes(run: Run, plan: Plan, first_run: Run, first: Plan) -> None:
    for what, own, wanted in (
        ("classes", plan.preparation.space, first.preparation.space),
        ("channels", plan.preparation.channels, first.preparation.channels),
        ("dimensions", plan.recipe.network.dims, first.recipe.network.dims),
    ):
        if own != wanted:
            raise PlanError(
                f"{run.folder} has other {what} than {first_run.folder}.",
                hint=f"Only runs on the same {what} can be averaged.",
            )


def _open_member(
    run: Run, device: str, backend: str, settings: Sequence[str], slot: Slot | None
) -> tuple[Member, list[str]]:
    """With what is to be said about its backend."""
    plan = _with_settings(run.load_plan(), settings)
    if plan.recipe.train.keep_memory:
        keep_memory()
    machine = inspect_machine(device)
    module = run.load_network(plan)
    # The training's precision, where this machine computes it in hardware as well.
    is_half = plan.recipe.train.precision == "bf16" and machine.has_bf16
    precision: Precision = "bf16" if is_half else "fp32"
    lines: list[str] = []
    if backend == "auto":
        selected = select_backend(run, plan, module, _as_trained(module), machine, precision)
        backend, lines = selected.chosen, selected.lines

    def open_now(module: nn.Module) -> Backend:
        return open_backend(
            backend,
            module,
            device=machine.device,
            precision=precision,
            folder=run.folder / "backends",
            calibration=calibration_tiles(run, plan, _as_trained(module)),
        )

    opened: Backend
    if slot is None:
        opened = open_now(module)
    else:
        opened = Swapped(backend, slot, lambda: open_now(run.load_network(plan)))
    shape = plan.recipe.network
    network = Computed(opened, valid_margin(shape), partial(next_legal_size, shape))
    return Member(plan, network, tile_settings(plan)), lines


def _as_trained(module: nn.Module) -> Eager:
    return Eager(module, "fp32", torch.contiguous_format)


def _with_settings(plan: Plan, settings: Sequence[str]) -> Plan:
    strange = [one for one in settings if not one.strip().startswith("predict.")]
    if strange:
        raise ConfigError(
            f"--set {strange[0]}: a trained network keeps its settings, but for predict.",
            hint="E.g. --set predict.average=mirrored.",
        )
    return replace(plan, recipe=config.override(plan.recipe, settings))
