"""Predict images with trained runs: preprocess, compute probabilities, decide classes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ushape import io
from ushape.data.preprocessing import Preprocessing, by_group
from ushape.data.reading import join_channels, read_first_file
from ushape.data.spacing import spacing_text
from ushape.errors import DataError
from ushape.inference.band_separation import separate_streamed
from ushape.inference.decision_rule import apply_rule
from ushape.inference.ensemble import EnsembleMember, open_members, tile_settings
from ushape.inference.prefetch import compute_ahead
from ushape.inference.separation import separate
from ushape.inference.streaming import (
    StreamedImage,
    StreamedPrediction,
    average_bands,
    is_streamable,
    read_or_open,
    stream_probabilities,
)
from ushape.inference.tuning import Tuning, join_tunings, load_tuning
from ushape.inference.uncertainty import confidence_of, expected_dice, spread_over
from ushape.instances.label import ObjectConfig
from ushape.io import slides
from ushape.io.streaming import Bands
from ushape.io.streaming.slides import open_bands_at
from ushape.metrics.overlap import mean_known
from ushape.planning.hardware import inspect_machine
from ushape.planning.plan import Plan
from ushape.planning.run import Run
from ushape.transforms.morphology import Cleaning
from ushape.transforms.tiling import Average
from ushape.types import Case, Pixels, Prediction, Sample, spacing_or_ones

IN_MEMORY_BYTES = 1 << 28
"""Memory of an image and its probabilities above which it is streamed, if its outputs allow it."""

MAX_IN_MEMORY_BYTES = 1 << 30
"""The same if outputs need the whole image; for a larger one, they are refused or left out."""

MAX_SHARE = 0.25
"""Share of the main memory that an image and its probabilities may take if it cannot be streamed,
for example because it is resampled to a finer grid; a larger one is refused."""


@dataclass(frozen=True)
class PreparedImage:
    """An image in memory, preprocessed for each network of the ensemble."""

    samples: tuple[Sample, ...]
    source: Pixels | None = None
    """The image as it was read; None if only its samples are known."""

    @property
    def pixels(self) -> int:
        """Number of pixels of the largest sample."""
        return max(math.prod(sample.image.shape[1:]) for sample in self.samples)

    @property
    def batch_key(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the samples: images with equal ones can share a batch."""
        return tuple(sample.image.shape for sample in self.samples)


@dataclass(frozen=True)
class Predictor:
    """Trained networks, one or an ensemble, with the rule that decides the classes."""

    members: tuple[EnsembleMember, ...]
    tuning: Tuning
    device: str
    notes: tuple[str, ...] = ()
    """Lines that explain the choice of the backends."""

    @property
    def plan(self) -> Plan:
        """Plan of the first network; classes and mask values are the same in all."""
        return self.members[0].plan

    @property
    def backends(self) -> list[str]:
        """Name of the backend of each network."""
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
        """Open run folders; they contain everything that is needed.

        Args:
            folders: One run, or several whose probabilities are averaged.
            backend: One of backends.BACKENDS, or auto for the fastest that changes few pixels.
            settings: `predict.key=value` for each setting of the plan to change.

        Raises:
            ConfigError: if a setting is not one of prediction, or its value is impossible.
            RunError: if a folder is not a run, or has no weights.
            PlanError: if the device or the backend is missing, or the runs have different classes.
        """
        folders = [folders] if isinstance(folders, Path) else list(folders)
        runs = [Run.open(folder) for folder in folders]
        members, notes = open_members(runs, device, backend, tuple(settings))
        tuning = join_tunings([load_tuning(run) for run in runs])
        unfinished = [line for run in runs if (line := run.describe_unfinished())]
        device = inspect_machine(device).device
        return cls(tuple(members), tuning, device, (*notes, *unfinished))

    def with_average(self, average: Average) -> Predictor:
        """Return a predictor that averages other transformed versions of each tile."""
        members = [
            replace(member, settings=tile_settings(member.plan, average)) for member in self.members
        ]
        return replace(self, members=tuple(members))

    def preprocess(self, case: Case, companions: Sequence[Case] = ()) -> PreparedImage:
        """Read the image of a case and preprocess it for each network.

        Args:
            companions: All cases of its group, including itself; empty if it has no group.

        Raises:
            DataError: if the image cannot be read, or its channels or dimensions are not those of
                the model.
        """
        return self._prepare(case, read_first_file(case), companions)

    def preprocess_or_stream(
        self, case: Case, companions: Sequence[Case], max_bytes: int
    ) -> PreparedImage | StreamedImage:
        """Preprocess a case, or open its image to be streamed if it needs more memory.

        Args:
            max_bytes: Memory for the image and its probabilities. An image that cannot be streamed
                may take MAX_SHARE of the main memory.

        Raises:
            DataError: if `preprocess` raises it.
        """
        if case.channels or case.page is not None or case.box is not None:
            return self.preprocess(case, companions)
        if self.is_slide(case.image):
            return StreamedImage(open_bands_at(case.image, self.slide_mpp))
        source = read_or_open(case.image, lambda bands: self._is_streamed(bands, max_bytes))
        if isinstance(source, Bands):
            return StreamedImage(source)
        return self._prepare(case, source, companions)

    def preprocess_array(
        self, image: np.ndarray, spacing_mm: Sequence[float] | None = None
    ) -> PreparedImage:
        """Preprocess pixels (C, *S) with the intensities that a file would have.

        Args:
            spacing_mm: Spacing along each axis of S.

        Raises:
            DataError: if the channels or dimensions are not those of the model, if the model
                preprocesses images by group, or if it needs a spacing that is not given.
        """
        common = [member.plan.preprocessing.config.common_spacing_mm for member in self.members]
        if spacing_mm is None and (target := next(filter(None, common), None)):
            raise DataError(
                f"This model resamples images to {spacing_text(target)}, but an array has no "
                "spacing.",
                code="missing_spacing",
                hint="Pass it in mm, for example spacing_mm=(5, 0.7, 0.7), or predict a file.",
            )
        spacing = None if spacing_mm is None else spacing_or_ones(spacing_mm, image.ndim - 1)
        for member in self.members:
            refuse_alone(member.plan.preprocessing)
        return self._prepare(
            Case(id="array", image=Path("array")), Pixels(array=image, spacing_mm=spacing)
        )

    def predict(self, images: Sequence[PreparedImage]) -> list[Prediction]:
        """Predict images whose samples have equal shapes, in one batch."""
        found: Iterator[list[np.ndarray]] = (
            member.probabilities([image.samples[index] for image in images])
            for index, member in enumerate(self.members)
        )
        if len(self.members) == 1:
            pairs = zip(next(found), images, strict=True)
            return [self._postprocess(own, image) for own, image in pairs]
        # Of a single image, the probabilities of one member are in memory at a time.
        by_image: Iterable[Iterable[np.ndarray]] = (
            [(own[0] for own in found)] if len(images) == 1 else zip(*found, strict=True)
        )
        space = self.plan.preprocessing.space
        spreads = [spread_over(members, space) for members in by_image]
        return [
            self._postprocess(spread.probabilities, image, spread.disagreement)
            for spread, image in zip(spreads, images, strict=True)
        ]

    def predict_many(self, cases: Iterable[Case]) -> Iterator[tuple[Case, Prediction | DataError]]:
        """Predict cases in order, while the next ones are read; small ones share a batch.

        Cases of one group are companions.
        """
        cases = list(cases)
        groups = by_group(cases)
        for one in compute_ahead(
            cases,
            read=lambda case: self.preprocess(case, groups[case.group]),
            compute=self.predict,
        ):
            yield one.item, one.result

    def predict_samples(
        self, samples: Sequence[Sample], indices: Iterable[int]
    ) -> Iterator[tuple[int, Prediction]]:
        """Predict some samples with a single network, in order; small ones share a batch.

        Raises:
            DataError: if a sample cannot be loaded.
        """
        for one in compute_ahead(
            indices, read=lambda index: PreparedImage((samples[index],)), compute=self.predict
        ):
            if isinstance(one.result, DataError):
                raise one.result
            yield one.item, one.result

    def stream(self, image: StreamedImage, *, keep_distance: bool = False) -> StreamedPrediction:
        """Predict an image larger than memory, band by band as the result is taken.

        Thresholds are applied, and objects separated unless classes are cleaned before. Cleaning
        needs the whole image: `cleaned_bands` returns the classes that `predict` does.

        Args:
            keep_distance: Whether objects are not separated here, since their numbers are needed.

        Raises:
            DataError: if `stream_probabilities` raises it.
        """
        bands = image.bands
        check_dimensions(str(bands.path), len(bands.shape) - 1, self.plan.image_dims)
        rule, space = self.tuning.rule.without_cleaning(), self.plan.preprocessing.space
        members = [
            stream_probabilities(member.network, bands, member.plan.preprocessing, member.settings)
            for member in self.members
        ]
        averaged = average_bands(members)
        outputs = map(space.split_outputs, averaged)
        decided = ((own, apply_rule(rule, own, space), distance) for own, distance in outputs)
        if self.separates and (keep_distance or self.tuning.rule.cleans):
            return StreamedPrediction(bands, decided)
        if self.separates:
            cut = list[int]()
            separated = separate_streamed(decided, space, self.objects, cut.append)
            return StreamedPrediction(bands, ((*found, None) for found in separated), cut)
        return StreamedPrediction(bands, ((own, classes, None) for own, classes, _ in decided))

    @property
    def slide_mpp(self) -> float | None:
        """Micrometers per pixel at which slides are predicted; None: those of the finest level."""
        settings = self.plan.preprocessing.config
        target = settings.common_spacing_mm
        own = self.plan.recipe.predict.slide_mpp or settings.slide_mpp
        return own or (1e3 * math.sqrt(math.prod(target[-2:])) if target else None)

    def is_slide(self, path: Path) -> bool:
        """Return whether a file is predicted as a slide.

        A TIFF of several levels is one if a resolution of slides is set.
        """
        if io.suffix_of(path) in slides.SLIDES:
            return True
        recipe, settings = self.plan.recipe.predict, self.plan.preprocessing.config
        return (recipe.slide_mpp or settings.slide_mpp) is not None and slides.is_slide(path)

    @property
    def objects(self) -> ObjectConfig:
        """Definition of an object: as set by the user, or as chosen on validation data."""
        return self.tuning.objects_for(self.plan.recipe.predict.objects)

    @property
    def separates(self) -> bool:
        """Whether objects are separated by the distance that the network predicts."""
        return (
            self.plan.preprocessing.space.has_distance
            and self.objects.separation == "learned_distance"
        )

    @property
    def joins_objects(self) -> bool:
        """Whether predicted masks join objects that touch, although they are separated.

        This is the case if the training masks define their objects, which then touch there, too.
        """
        return self.separates and self.plan.preprocessing.space.states_objects

    @property
    def reads_groups(self) -> bool:
        """Whether the prediction of an image depends on other images of its group."""
        own = [member.plan.preprocessing for member in self.members]
        return any(one.needs_group or one.needs_neighbors for one in own)

    @property
    def cleanings(self) -> list[Cleaning]:
        """Cleaning of each of the scored classes or regions, as validation chose it."""
        rules = self.tuning.rule.for_space(self.plan.preprocessing.space)
        return [own.cleaning for own in rules]

    def expected_dice(self, prediction: Prediction) -> float | None:
        """Return the Dice of validation cases of this confidence; None if there were too few."""
        calibrations = self.tuning.calibrations
        return mean_known(expected_dice(prediction.confidence, one) for one in calibrations)

    def codes_of(self, classes: np.ndarray) -> np.ndarray:
        """Convert class indices (*S) to the values of the user's masks."""
        return self.plan.preprocessing.space.values_of(classes)

    def _is_streamed(self, bands: Bands, max_bytes: int) -> bool:
        """Return whether an image needs too much memory to be predicted as a whole."""
        needed = self._memory_of(bands)
        if needed <= max_bytes:
            return False
        own = [member.plan.preprocessing for member in self.members]
        is_turned = self.plan.encoding.orientation == "stored" and bands.orientation != 1
        if (
            len(bands.shape) - 1 == self.plan.image_dims
            and not is_turned
            and all(is_streamable(one, bands) for one in own)
        ):
            return True
        return needed > MAX_SHARE * inspect_machine(self.device).main_memory_bytes

    def _memory_of(self, bands: Bands) -> int:
        """Return about how many bytes the image and its probabilities take."""
        shape, outputs = bands.shape[1:], 3 * self.plan.preprocessing.space.outputs
        pixels, channels = math.prod(shape), bands.shape[0]
        for own in (member.plan.preprocessing for member in self.members):
            channels = max(channels, own.sample_channels)
            if len(shape) == self.plan.image_dims:  # Others are refused once they are read.
                # Resampling to a finer spacing gives more pixels than the file has.
                working = own.config.working_shape(shape, bands.spacing_mm)
                pixels = max(pixels, math.prod(working))
        return pixels * (channels * (bands.dtype.itemsize + 4) + 4 * outputs)

    def _prepare(
        self, case: Case, source: Pixels, companions: Sequence[Case] = ()
    ) -> PreparedImage:
        source = join_channels(case, source, self.plan.preprocessing.channels)
        image, case = source.array, replace(case, mask=None)
        check_dimensions(str(case.image), image.ndim - 1, self.plan.image_dims)
        samples = []
        for preprocessing in (member.plan.preprocessing for member in self.members):
            group = preprocessing.group_stats(case, companions)
            joined = preprocessing.join_neighbors(case, image, companions)
            samples.append(preprocessing.place(case, joined, None, group, source.spacing_mm))
        return PreparedImage(tuple(samples), source)

    def _postprocess(
        self,
        outputs: np.ndarray,
        image: PreparedImage,
        disagreement: np.ndarray | None = None,
    ) -> Prediction:
        """Decide classes and objects from outputs (K or K + 1, *file), as validation chose it."""
        space, labels = self.plan.preprocessing.space, None
        probabilities, distance = space.split_outputs(outputs)
        classes = apply_rule(self.tuning.rule, probabilities, space)
        if distance is not None and self.separates:
            classes, labels = separate(classes, distance, space, self.objects)
        return Prediction(
            probabilities=probabilities,
            classes=classes,
            confidence=confidence_of(probabilities, classes, space),
            disagreement=disagreement,
            distance=distance,
            labels=labels,
            missing_px=image.samples[0].missing_px,
            source=image.source,
        )


def refuse_alone(preprocessing: Preprocessing) -> None:
    """Raise DataError if images are read together with others, which an array does not name."""
    config = preprocessing.config
    if preprocessing.needs_neighbors:
        raise DataError(
            "This model reads images together with their neighbors in a stack.",
            code="model_needs_groups",
            hint="Predict image files, with the stack in one folder, instead of arrays; or train "
            "with --set preprocessing.slices=null.",
        )
    if preprocessing.needs_group:
        settings = "--set preprocessing.crop=false " if config.crop else ""
        settings += "--set preprocessing.intensity=image" if config.intensity == "group" else ""
        raise DataError(
            "This model reads images together with the other images of their group.",
            code="model_needs_groups",
            hint="Predict image files, with one folder for each group, instead of arrays; or "
            f"train with {settings.strip()}.",
        )


def check_dimensions(name: str, found: int, expected: int) -> None:
    """Raise DataError for a volume where the network predicts images, or the reverse."""
    if found != expected:
        kinds = {2: "an image", 3: "a volume"}
        raise DataError(
            f"{name} is {kinds.get(found, f'an array of {found} dimensions')}, but the model "
            f"predicts {'volumes' if expected == 3 else 'images'}.",
            code="dimension_mismatch",
            hint="Use data like the training data: single slices or whole volumes.",
        )
