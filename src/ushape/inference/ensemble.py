"""Open runs as members of an ensemble, and predict with one network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from ushape import config
from ushape.config import resolved
from ushape.errors import ConfigError, PlanError
from ushape.inference.backend_choice import calibration_tiles, select_backend
from ushape.inference.backends import open_backend
from ushape.inference.network import LazyNetwork, Network, Precision, Slot, TorchNetwork
from ushape.inference.slices import predict_preprocessed
from ushape.inference.sliding_window import TileSettings
from ushape.inference.tuning import load_tuning
from ushape.io.limits import free_memory_bytes
from ushape.labels import LabelSpace
from ushape.models import network_sizes
from ushape.planning.hardware import inspect_machine, memory_format, reuse_freed_memory
from ushape.planning.plan import Plan, find_auto
from ushape.planning.run import Run
from ushape.transforms.tiling import Average, symmetries
from ushape.types import Sample

WEIGHTS_SHARE = 0.25
"""Share of the free memory above which the networks of an ensemble are loaded one at a time."""


@dataclass(frozen=True)
class EnsembleMember:
    """A trained network with its plan."""

    plan: Plan
    network: Network
    settings: TileSettings

    def probabilities(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        """Return the probabilities (K, *file) of samples whose images have one shape."""
        preprocessing = self.plan.preprocessing
        images = [sample.normalization.apply(sample.image) for sample in samples]
        working = predict_preprocessed(self.network, images, preprocessing, self.settings)
        return [
            preprocessing.restore(found, sample.geometry)
            for found, sample in zip(working, samples, strict=True)
        ]


def open_members(
    runs: Sequence[Run], device: str, backend: str, settings: Sequence[str]
) -> tuple[list[EnsembleMember], list[str]]:
    """Open the network of each run; return also the notes on the choice of their backends.

    Raises:
        PlanError: if the device or the backend is missing, or the runs have different classes.
    """
    slot = Slot() if _is_memory_short(runs) else None
    opened = [_open_member(run, device, backend, settings, slot) for run in runs]
    members = [member for member, _ in opened]
    for run, member in zip(runs, members, strict=True):
        check_same_classes(run, member.plan, runs[0], members[0].plan)
    return members, [line for _, lines in opened for line in lines]


def sample_probabilities(
    module: nn.Module, sample: Sample, plan: Plan, precision: str, *, average: Average = "none"
) -> np.ndarray:
    """Return the probabilities (K, *working) of a sample; training validates with this.

    Args:
        average: Transformed versions to average.
    """
    layout = memory_format(
        plan.recipe.network.dims, channels_last=resolved(plan.recipe.train.channels_last)
    )
    network = TorchNetwork(module, layout, autocast=precision)
    image = sample.normalization.apply(sample.image)
    settings = tile_settings(plan, average)
    return predict_preprocessed(network, [image], plan.preprocessing, settings)[0]


def tile_settings(plan: Plan, average: Average) -> TileSettings:
    """Return how the plan cuts images into tiles.

    Args:
        average: Transformed versions of each tile to average.
    """
    predict = plan.recipe.predict
    return TileSettings(
        shape=plan.tile_shape,
        overlap_fraction=resolved(predict.tiling.overlap_fraction),
        blend=predict.tiling.blend,
        symmetries=symmetries(average, resolved(predict.mirror_axes), plan.recipe.network.dims),
    )


def _is_memory_short(runs: Sequence[Run]) -> bool:
    """Return whether all networks of an ensemble would take too much of the free memory."""
    weights = sum(run.weights_path.stat().st_size for run in runs)
    return len(runs) > 1 and weights > WEIGHTS_SHARE * free_memory_bytes()


def check_same_classes(run: Run, plan: Plan, first_run: Run, first: Plan) -> None:
    space, known = plan.preprocessing.space, first.preprocessing.space
    for what, own, expected in (
        ("classes", _classes_only(space), _classes_only(known)),
        ("definitions of objects (labels.objects)", space.has_distance, known.has_distance),
        ("channels", plan.preprocessing.channels, first.preprocessing.channels),
        ("dimensions", plan.image_dims, first.image_dims),
    ):
        if own != expected:
            raise PlanError(
                f"{run.folder} and {first_run.folder} were trained with different {what}.",
                code="incompatible_runs",
                hint=f"Only runs with the same {what} can be averaged.",
            )


def _classes_only(space: LabelSpace) -> LabelSpace:
    """Return the space without its definition of objects."""
    return replace(space, has_distance=False, has_instances=None)


def _open_member(
    run: Run, device: str, backend: str, settings: Sequence[str], slot: Slot | None
) -> tuple[EnsembleMember, list[str]]:
    """Open the network of a run; return also the notes on the choice of its backend."""
    plan = _with_settings(run.load_plan(), settings)
    if plan.recipe.train.reuse_freed_memory:
        reuse_freed_memory()
    machine = inspect_machine(device)
    module = run.load_network(plan)
    # The precision of training, if this machine computes it in hardware as well.
    is_half = plan.recipe.train.precision == "bf16" and machine.has_bf16
    precision: Precision = "bf16" if is_half else "fp32"
    lines: list[str] = []
    if backend == "auto":
        selected = select_backend(run, plan, module, machine, precision)
        backend, lines = selected.chosen, selected.lines

    def open_now(module: nn.Module) -> Network:
        return open_backend(
            backend,
            module,
            device=machine.device,
            precision=precision,
            folder=run.folder / "backends",
            calibration=calibration_tiles(run, plan, module),
        )

    network: Network
    if slot is None:
        network = open_now(module)
    else:
        sizes = network_sizes(plan.recipe.network)
        network = LazyNetwork(
            name=backend,
            margin=sizes.margin,
            legal_size=sizes.legal_size,
            legal_shape=sizes.legal_shape,
            load=lambda: open_now(run.load_network(plan)),
            slot=slot,
        )
    average = load_tuning(run).average_for(resolved(plan.recipe.predict.tta))
    return EnsembleMember(plan, network, tile_settings(plan, average)), lines


def _with_settings(plan: Plan, settings: Sequence[str]) -> Plan:
    other = [one for one in settings if not one.strip().startswith("predict.")]
    if other:
        raise ConfigError(
            f"--set {other[0]}: only settings of predict can be changed for a trained network.",
            code="not_a_prediction_setting",
            hint="For example: --set predict.tta=mirrored.",
        )
    recipe = config.override(plan.recipe, settings)
    if left := find_auto(config.to_dict(recipe.predict), "predict"):
        raise ConfigError(
            f"--set {left[0]}=auto: this setting can only be determined during training.",
            code="setting_left_open",
            hint="Omit the setting to use the value determined in training, or specify a value.",
        )
    recipe.predict.check_dims(recipe.network.dims)
    return replace(plan, recipe=recipe)
