"""A run, or several -> networks that are ready to predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import psutil
import torch
from torch import nn

from ushape import config
from ushape.config import resolved
from ushape.errors import ConfigError, PlanError
from ushape.inference.backend_choice import calibration_tiles, select_backend
from ushape.inference.backends import Backend, Precision, open_backend
from ushape.inference.network import Computed, Eager, Slot, Swapped
from ushape.inference.sliding_window import TileSettings, predict_probabilities
from ushape.models import network_sizes
from ushape.planning.hardware import inspect_machine, keep_memory
from ushape.planning.plan import Plan
from ushape.planning.run import Run
from ushape.planning.step_time import memory_format
from ushape.transforms.tiling import Average, symmetries
from ushape.types import Sample

WEIGHTS_SHARE = 0.25
"""Where the weights of an ensemble exceed this share of the free memory, one network is in memory
at a time."""


@dataclass(frozen=True)
class Member:
    """A trained network with its plan."""

    plan: Plan
    network: Computed
    settings: TileSettings

    def probabilities(self, sample: Sample) -> np.ndarray:
        """(K, *file) of a prepared case."""
        image = sample.normalization.apply(sample.image)
        space = self.plan.preprocessing.space
        working = predict_probabilities(self.network, image, space, self.settings)
        return self.plan.preprocessing.restore(working, sample.geometry)


def open_members(
    runs: Sequence[Run], device: str, backend: str, settings: Sequence[str]
) -> tuple[list[Member], list[str]]:
    """Each run's network, and what is to be said about their backends.

    Raises:
        PlanError: the device or the backend is not there; runs of other classes.
    """
    slot = Slot() if _is_memory_short(runs) else None
    opened = [_open_member(run, device, backend, settings, slot) for run in runs]
    members = [member for member, _ in opened]
    for run, member in zip(runs, members, strict=True):
        _refuse_other_classes(run, member.plan, runs[0], members[0].plan)
    return members, [line for _, lines in opened for line in lines]


def predict_sample(
    module: nn.Module, sample: Sample, plan: Plan, precision: str, *, average: Average | None = None
) -> np.ndarray:
    """(K, *working) probabilities; training validates with this.

    Args:
        average: Turned versions to average, in place of the plan's.
    """
    layout = memory_format(plan.recipe.network.dims, channels_last=plan.recipe.train.channels_last)
    network = Eager(module, precision, layout)
    image = sample.normalization.apply(sample.image)
    settings = tile_settings(plan, average)
    return predict_probabilities(network, image, plan.preprocessing.space, settings)


def tile_settings(plan: Plan, average: Average | None = None) -> TileSettings:
    """How the plan cuts up images, averaging other versions if these are named."""
    predict = plan.recipe.predict
    chosen: Average = resolved(predict.tta) if average is None else average
    return TileSettings(
        shape=plan.tile_shape,
        overlap_fraction=resolved(predict.tiling.overlap_fraction),
        blend=predict.tiling.blend,
        symmetries=symmetries(chosen, predict.mirror_axes, plan.recipe.network.dims),
    )


def _is_memory_short(runs: Sequence[Run]) -> bool:
    """All networks of an ensemble at once would take too much of the memory that is left."""
    weights = sum(run.weights_path.stat().st_size for run in runs)
    return len(runs) > 1 and weights > WEIGHTS_SHARE * psutil.virtual_memory().available


def _refuse_other_classes(run: Run, plan: Plan, first_run: Run, first: Plan) -> None:
    for what, own, wanted in (
        ("classes", plan.preprocessing.space, first.preprocessing.space),
        ("channels", plan.preprocessing.channels, first.preprocessing.channels),
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
    sizes = network_sizes(plan.recipe.network)
    network = Computed(opened, sizes.margin, sizes.legal_size)
    return Member(plan, network, tile_settings(plan)), lines


def _as_trained(module: nn.Module) -> Eager:
    return Eager(module, "fp32", torch.contiguous_format)


def _with_settings(plan: Plan, settings: Sequence[str]) -> Plan:
    strange = [one for one in settings if not one.strip().startswith("predict.")]
    if strange:
        raise ConfigError(
            f"--set {strange[0]}: a trained network keeps its settings, but for predict.",
            hint="E.g. --set predict.tta=mirrored.",
        )
    return replace(plan, recipe=config.override(plan.recipe, settings))
