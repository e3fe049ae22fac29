"""A trained run as one module: raw pixels in, probabilities or mask values out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ushape.config import resolved
from ushape.data.preprocessing import Preprocessing
from ushape.errors import ConfigError, PlanError
from ushape.export.intensities import has_integers, measure_training
from ushape.export.layers import (
    FixedIntensities,
    MeasuredIntensities,
    PadMirrored,
    PadToSquare,
    Reduce,
    ResizeTo,
    crop_square,
    enlarge,
)
from ushape.export.sizes import count_up, size_like
from ushape.inference.backends import open_torch
from ushape.inference.backends.export import for_export
from ushape.inference.decision_rule import DecisionRule
from ushape.inference.ensemble import EnsembleMember, check_same_classes, tile_settings
from ushape.inference.network import BackendOptions
from ushape.inference.predictor import Predictor
from ushape.inference.tuning import join_tunings, load_tuning
from ushape.labels import LabelSpace
from ushape.models import legal_shape
from ushape.planning.plan import Plan
from ushape.planning.run import Run
from ushape.transforms.tiling import Symmetry

Output = Literal["probabilities", "mask"]
"""What an exported graph returns."""

WHOLE = 1 << 20
"""Size of a tile that covers every image."""

DISTANCE = "distance"
"""Name of the output for the distance to the border of the object."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of an export."""

    output: Output = "probabilities"
    """Output: probabilities, or the mask values that `ushape predict` writes."""

    fixed_intensity: bool = False
    """Whether images are normalized with constants of the training images instead of their own
    statistics, so that all parts of an image are normalized in the same way."""

    authors: tuple[str, ...] = ()
    """Names of the authors, for a published package."""

    license: str | None = None
    """SPDX identifier of the license, for a published package."""

    def refuse_those_of_graphs(self, reason: str) -> None:
        """Raise ConfigError if an option is set that only changes a graph of raw pixels.

        Args:
            reason: Beginning of the sentence, why the target has no such graph.
        """
        if self.output != "probabilities" or self.fixed_intensity:
            raise ConfigError(
                f"{reason}, so that --output and --fixed-intensity have no effect.",
                code="option_without_effect",
                hint="Omit them.",
            )


@dataclass(frozen=True)
class ExportSource:
    """Trained runs that are exported together, and how ushape itself predicts with them."""

    runs: tuple[Run, ...]
    options: ExportOptions
    networks: tuple[nn.Module, ...]
    predictor: Predictor
    """Predicts whole images in float32, without tiles and without cleaning."""

    left_out: tuple[str, ...]
    """What `ushape predict` does after the decision, and the graph does not, in words."""

    @property
    def plan(self) -> Plan:
        return self.predictor.plan

    @property
    def space(self) -> LabelSpace:
        return self.plan.preprocessing.space


class SegmentationGraph(nn.Module):
    """Everything that a prediction consists of: preprocessing, networks, and the decision rule.

    Shapes:
        image: (B, C, *S) float32, raw pixels as the image files hold them; any B and S.
        returns: (B, K, *S) float32 probabilities, the distance of object models last; or mask
            values, (B, *S) uint8, or int32 if a value is above 255.

    Attributes:
        rounds: Whether images of whole numbers are treated as files of integers, of which the
            resampled pixels are rounded.
    """

    def __init__(self, source: ExportSource):
        super().__init__()
        self.source = source
        self.rounds = has_integers(source.runs[0], self.channels)
        self.members = nn.ModuleList(
            MemberGraph(member, network, rounds=self.rounds)
            for member, network in zip(source.predictor.members, source.networks, strict=True)
        )
        self.decide: nn.Module | None = None
        if source.options.output == "mask":
            self.decide = MaskDecision(source.predictor.tuning.rule, source.space)

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return self.source.plan.preprocessing.channels

    @property
    def dims(self) -> int:
        """Number of axes of S."""
        return self.source.plan.image_dims

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the K outputs."""
        space = self.source.space
        return (*space.channel_names, *([DISTANCE] if space.has_distance else []))

    @property
    def halo(self) -> tuple[int, ...]:
        """Pixels along each axis of S at the edge of a tile that depend on what lies outside.

        0 unless constants normalize the intensities: otherwise all pixels depend on all others.
        """
        found = [0] * self.dims
        plans = [member.plan for member in self.source.predictor.members]
        if any(plan.preprocessing.normalization is None for plan in plans):
            return tuple(found)
        for plan, network in zip(plans, self.source.networks, strict=True):
            fields = getattr(network, "receptive_field", 1)
            fields = (fields,) * self.dims if isinstance(fields, int) else tuple(fields)
            factors = plan.preprocessing.config.downscale_factors(self.dims)
            for axis, (field, factor) in enumerate(zip(fields, factors, strict=True)):
                found[axis] = max(found[axis], math.ceil(field // 2 * factor))
        return tuple(found)

    def forward(self, image: Tensor) -> Tensor:
        total: Tensor | None = None
        for member in self.members:
            own = member(image)
            total = own if total is None else total + own
        assert total is not None
        mean = total / len(self.members) if len(self.members) > 1 else total
        return mean if self.decide is None else self.decide(mean)


class MemberGraph(nn.Module):
    """One network with its preprocessing.

    Args:
        rounds: As for `Reduce`.

    Shapes:
        image: (B, C, *S) -> (B, K, *S).
    """

    def __init__(self, member: EnsembleMember, network: nn.Module, *, rounds: bool):
        super().__init__()
        preprocessing, dims = member.plan.preprocessing, member.plan.image_dims
        config = preprocessing.config
        self.space = preprocessing.space
        self.square = PadToSquare() if config.square else None
        self.resample = _build_resampling(preprocessing, dims, rounds=rounds)
        self.normalize = _build_intensities(preprocessing, dims)
        self.symmetries = member.settings.symmetries
        self.pad = _build_padding(network, member.plan.recipe.network.dims, self.symmetries)
        self.network = for_export(network)
        self.slices = resolved(config.slices) if preprocessing.by_slice else None

    def forward(self, image: Tensor) -> Tensor:
        x = image.to(torch.float32)
        shape = x.shape[2:]
        x = x if self.square is None else self.square(x)
        padded = x.shape[2:]
        x = x if self.resample is None else self.resample(x)
        x = self.normalize(x)
        found = self._by_slice(x) if self.slices else self._predict(x)
        found = found if self.resample is None else enlarge(found, padded)
        return found if self.square is None else crop_square(found, shape)

    def _by_slice(self, x: Tensor) -> Tensor:
        """Predict each slice of volumes with its neighbors; those at the ends are repeated."""
        assert self.slices is not None
        batch, depth = x.shape[0], x.shape[2]
        reach = self.slices // 2
        places, last = count_up(x, depth), size_like(x, depth - 1)
        near = [
            x.index_select(2, (places + offset).clamp(min=0).minimum(last))
            for offset in range(-reach, reach + 1)
        ]
        together = torch.cat(near, dim=1).transpose(1, 2)
        found = self._predict(together.flatten(0, 1))
        return found.reshape(batch, depth, *found.shape[1:]).transpose(1, 2)

    def _predict(self, x: Tensor) -> Tensor:
        """Return the outputs of the network, averaged over the symmetries."""
        tile, total = self.pad(x), None
        for symmetry in self.symmetries:
            logits = self.network(_turn(tile, symmetry))
            own = _turn_back(self.space.probabilities(logits), symmetry)
            total = own if total is None else total + own
        assert total is not None
        for axis in range(2, x.dim()):  # A view would be refused where nothing has to be cut off.
            total = total.index_select(axis, count_up(x, x.shape[axis]))
        return total / len(self.symmetries) if len(self.symmetries) > 1 else total


class MaskDecision(nn.Module):
    """The thresholds of a decision rule, as `apply_rule` applies them, in the values of masks.

    Shapes:
        outputs: (B, K, *S) -> (B, *S) uint8, or int32 if a value is above 255.
    """

    def __init__(self, rule: DecisionRule, space: LabelSpace):
        super().__init__()
        self.space = space
        self.thresholds = [one.threshold for one in rule.for_space(space)]
        self.dtype = torch.uint8 if max(space.values) < 256 else torch.int32

    def forward(self, outputs: Tensor) -> Tensor:
        space, best = self.space, outputs[:, 0]
        # `full_like` would store the device of the trace in the graph.
        values = (best > 0).to(torch.int32) * 0 + space.values[0]
        for index, (region, threshold) in enumerate(
            zip(space.scored, self.thresholds, strict=True)
        ):
            value = space.values[region.classes[0]]
            if space.is_exclusive:
                odds = outputs[:, index + 1] * ((1 - threshold) / threshold)
                values = values.masked_fill(odds > best, value)
                best = best.maximum(odds)
            else:
                values = values.masked_fill(outputs[:, index] >= threshold, value)
        return values.to(self.dtype)


def build_graph(run: Run | Sequence[Run], options: ExportOptions) -> SegmentationGraph:
    """Build the graph of a run, or of several whose probabilities are averaged.

    Raises:
        PlanError: if a step of the prediction cannot be part of a graph, or the runs have
            different classes.
        RunError: if constants of the training images are asked for, and these no longer exist.
    """
    return SegmentationGraph(load_source(run, options)).eval().requires_grad_(False)


def reference(run: Run | Sequence[Run], image: np.ndarray, options: ExportOptions) -> np.ndarray:
    """Return what `ushape predict` computes for one whole image, in float32 and without tiles.

    Shapes:
        image: (C, *S) as stored in a file.
        returns: (K, *S) float32, with the distance of object models last; or mask values (*S).
    """
    return predict_reference(load_source(run, options), image)


def predict_reference(source: ExportSource, image: np.ndarray) -> np.ndarray:
    """Return the `reference` of runs that are already loaded."""
    predictor = source.predictor
    (found,) = predictor.predict([predictor.preprocess_array(image)])
    if source.options.output == "mask":
        return predictor.codes_of(found.classes)
    if found.distance is None:
        return found.probabilities
    return np.concatenate([found.probabilities, found.distance[None]])


def load_source(run: Run | Sequence[Run], options: ExportOptions) -> ExportSource:
    """Load what is exported.

    Raises:
        PlanError: if `build_graph` raises it.
    """
    runs = [run] if isinstance(run, Run) else list(run)
    tuning = join_tunings([load_tuning(one) for one in runs])
    plans = [one.load_plan() for one in runs]
    members, networks = [], []
    for one, plan in zip(runs, plans, strict=True):
        check_same_classes(one, plan, runs[0], plans[0])
        _refuse(plan, options, str(one.folder))
        if options.fixed_intensity:
            plan = _with_constants(one, plan)
        network = one.load_network(plan)
        average = load_tuning(one).average_for(resolved(plan.recipe.predict.tta))
        settings = replace(tile_settings(plan, average), shape=(WHOLE,) * len(plan.tile_shape))
        members.append(EnsembleMember(plan, open_torch(network, BackendOptions()), settings))
        networks.append(network)
    rule = tuning.rule
    predictor = Predictor(tuple(members), replace(tuning, rule=rule.without_cleaning()), "cpu")
    if options.output == "mask":
        _refuse_separation(predictor)
    left_out = _describe_cleaning(rule, plans[0].preprocessing.space) if rule.cleans else ()
    return ExportSource(tuple(runs), options, tuple(networks), predictor, left_out)


def _refuse(plan: Plan, options: ExportOptions, name: str) -> None:
    """Raise PlanError if a step of the preprocessing needs more than the pixels of an image."""
    preprocessing, config = plan.preprocessing, plan.preprocessing.config
    problem = hint = ""
    if preprocessing.needs_neighbors:
        problem = "it reads an image together with its neighbors in the stack"
        hint = "Train with --set preprocessing.slices=null."
    elif config.crop:
        problem = "it crops all images of a group to the same box"
        hint = "Train with --set preprocessing.crop=false."
    elif config.intensity == "group" and not options.fixed_intensity:
        problem = "it normalizes an image with statistics of all images of its group"
        hint = (
            "Use constants of the training images instead, with --fixed-intensity, or train with "
            "--set preprocessing.intensity=image."
        )
    elif config.common_spacing_mm is not None:
        problem = "it resamples images to a common spacing, using the spacing in their files"
        hint = "Train with --set preprocessing.target_spacing_mm=null."
    if problem:
        raise PlanError(
            f"{name} cannot be exported: {problem}, but a graph receives only the pixels of "
            "single images.",
            code="export_refused",
            hint=hint,
        )


def _refuse_separation(predictor: Predictor) -> None:
    if predictor.separates:
        raise PlanError(
            "A mask of separated objects cannot be the output of a graph: the objects are found "
            "by flooding after the network.",
            code="export_refused",
            hint="Export the probabilities and the distance (without --output mask), or use "
            "`ushape export RUN --to standalone`.",
        )


def _describe_cleaning(rule: DecisionRule, space: LabelSpace) -> tuple[str, ...]:
    """Return what cleaning does to each class, in words."""
    found = []
    for region, own in zip(space.scored, rule.for_space(space), strict=True):
        cleaning, parts = own.cleaning, []
        if cleaning.largest_only:
            parts.append("keeps only the largest component")
        if cleaning.min_size_px > 1:
            parts.append(f"removes components below {cleaning.min_size_px} pixels")
        if cleaning.max_hole_size_px == "all":
            parts.append("fills holes")
        elif cleaning.max_hole_size_px:
            parts.append(f"fills holes of up to {cleaning.max_hole_size_px} pixels")
        if parts:
            found.append(f"{region.name}: {', '.join(parts)}")
    return tuple(found)


def _with_constants(run: Run, plan: Plan) -> Plan:
    """Return the plan with the normalization of all training images."""
    preprocessing = plan.preprocessing
    if preprocessing.normalization is not None:
        return plan
    constants = measure_training(run, preprocessing)
    config = replace(preprocessing.config, intensity="data")
    return replace(
        plan, preprocessing=replace(preprocessing, normalization=constants, config=config)
    )


def _build_resampling(preprocessing: Preprocessing, dims: int, *, rounds: bool) -> nn.Module | None:
    """Return the resampling to the grid of the network; None if it is that of the file."""
    config = preprocessing.config
    if config.shape is not None:
        return ResizeTo(config.shape, rounds=rounds)
    factors = [Fraction(one).limit_denominator(1000) for one in config.downscale_factors(dims)]
    return Reduce(factors, rounds=rounds) if any(factor != 1 for factor in factors) else None


def _build_intensities(preprocessing: Preprocessing, dims: int) -> nn.Module:
    if preprocessing.normalization is not None:
        return FixedIntensities(preprocessing.normalization, dims)
    is_min_max = preprocessing.config.intensity == "min_max"
    return MeasuredIntensities(None if is_min_max else preprocessing.config.percentiles)


def _build_padding(network: nn.Module, dims: int, symmetries: Sequence[Symmetry]) -> PadMirrored:
    """Return the padding to legal sizes, which follow each other at equal distances.

    Raises:
        PlanError: if the legal sizes of a network of the user's do not.
    """
    first = legal_shape(network, [1] * dims)
    steps = [
        b - a for a, b in zip(first, legal_shape(network, [a + 1 for a in first]), strict=True)
    ]
    if any(one.is_transposed for one in symmetries):
        steps[-2:] = [math.lcm(*steps[-2:])] * 2
        first = (*first[:-2], *[max(first[-2:])] * 2)
    for count in range(1, 4):
        wanted = [a + count * step for a, step in zip(first, steps, strict=True)]
        if legal_shape(
            network, [size - step + 1 for size, step in zip(wanted, steps, strict=True)]
        ) != tuple(wanted):
            raise PlanError(
                f"The legal sizes of {type(network).__name__} are not evenly "
                "spaced, so the padding cannot be part of a graph.",
                code="export_refused",
                hint="Make legal_size round up to a multiple of a fixed number.",
            )
    return PadMirrored(int(network.margin), first, steps)  # type: ignore[arg-type]


def _turn(x: Tensor, symmetry: Symmetry) -> Tensor:
    """Transform (B, C, *S) as `Symmetry.apply` does."""
    turned = x.transpose(-1, -2) if symmetry.is_transposed else x
    return turned.flip(_axes(symmetry)) if symmetry.mirror_axes else turned


def _turn_back(x: Tensor, symmetry: Symmetry) -> Tensor:
    turned = x.flip(_axes(symmetry)) if symmetry.mirror_axes else x
    return turned.transpose(-1, -2) if symmetry.is_transposed else turned


def _axes(symmetry: Symmetry) -> list[Any]:
    return [axis + 2 if axis >= 0 else axis for axis in symmetry.mirror_axes]
