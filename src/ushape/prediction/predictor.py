"""A run and an image -> a prediction on the image's own grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ushape.planning.machine import inspect_machine, keep_memory
from ushape.planning.plan import Plan
from ushape.planning.recipe import settled
from ushape.planning.run import Run
from ushape.planning.speed import memory_format, precision_context
from ushape.prediction.tiled import TileSettings, predict_probabilities
from ushape.spatial.symmetry import Average, symmetries
from ushape.types import Case, Prediction, Sample


def predict_sample(
    network: nn.Module, sample: Sample, plan: Plan, *, average: Average | None = None
) -> np.ndarray:
    """(K, *working) probabilities; training validates with this, prediction predicts with it.

    Args:
        average: Turned versions to average, in place of the plan's.
    """
    predict = plan.recipe.predict
    chosen: Average = settled(predict.average) if average is None else average
    settings = TileSettings(
        shape=plan.tile_shape,
        tiling=predict.tiling,
        symmetries=symmetries(chosen, predict.mirror_axes, plan.recipe.network.dims),
    )
    image = sample.scaling.apply(sample.image)
    layout = memory_format(plan.recipe.network.dims, channels_last=plan.recipe.train.channels_last)
    return predict_probabilities(network, image, plan.preparation.space, settings, layout=layout)


@dataclass(frozen=True)
class Predictor:
    """A trained network with its plan, on a device."""

    plan: Plan
    network: nn.Module
    device: str
    precision: str

    @classmethod
    def open(cls, folder: Path, device: str = "auto") -> Predictor:
        """From a run folder alone, wherever it was copied to.

        Raises:
            RunError: not a run, or one without weights.
            PlanError: the device is not there.
        """
        run = Run.open(folder)
        plan = run.load_plan()
        if plan.recipe.train.keep_memory:
            keep_memory()
        machine = inspect_machine(device)
        layout = memory_format(
            plan.recipe.network.dims, channels_last=plan.recipe.train.channels_last
        )
        network = run.load_network(plan)
        network.to(machine.device, memory_format=layout)  # type: ignore[call-overload]
        # The training's precision, where this machine computes it in hardware as well.
        precision = plan.recipe.train.precision if machine.has_bf16 else "fp32"
        return cls(plan, network, machine.device, precision)

    def predict(self, case: Case, companions: Sequence[Case] = ()) -> Prediction:
        """Reads one case's image and predicts it.

        Args:
            companions: All cases of its group, itself included; none: it stands alone.

        Raises:
            DataError: unreadable, or other channels than the network's.
        """
        image_only = replace(case, mask=None)
        return self.predict_sample(self.plan.preparation.load(image_only, companions))

    @torch.inference_mode()
    def predict_sample(self, sample: Sample) -> Prediction:
        """Predicts a prepared case; probabilities and classes lie on the file's grid."""
        preparation = self.plan.preparation
        with precision_context(self.device, self.precision):
            working = predict_sample(self.network, sample, self.plan)
        probabilities = preparation.restore(working, sample.geometry)
        return Prediction(
            probabilities=probabilities, classes=preparation.space.decode(probabilities)
        )

    def codes_of(self, prediction: Prediction) -> np.ndarray:
        """The prediction in the user's own mask values (*S)."""
        return self.plan.preparation.space.values_of(prediction.classes)
