"""The learning-rate range test: which rate the training can bear.

Lightning's own does not fit: it writes a checkpoint into the working directory, and a loss that
becomes NaN ends it without a curve.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from ushape.data.cache import SampleStore
from ushape.data.patches import Patch
from ushape.errors import ConfigError, PlanError
from ushape.io.files import write_bytes
from ushape.planning.plan import Plan
from ushape.planning.step_time import precision_context
from ushape.training.datamodule import SegmentationData
from ushape.training.module import SegmentationModule
from ushape.training.optimizers import build_optimizer

SMOOTHING = 0.7
"""Share of the mean so far in the smoothed loss (bias corrected)."""

SPREAD = 0.05
"""Standard deviation, in shares of all steps, over which losses are averaged to both sides before
the steepest descent is looked for: single batches differ more than neighboring rates."""


@dataclass(frozen=True, kw_only=True)
class RangeConfig:
    """Which rates are tried."""

    lowest: float = 1e-6
    highest: float = 10.0
    steps: int = 50
    """Rates, each so many times higher than the one before."""

    divergence: float = 4.0
    """The test ends where the smoothed loss is so many times the best; a notebook of the ISBI
    2012 network had 200."""

    def __post_init__(self) -> None:
        if not 0 < self.lowest < self.highest:
            raise ConfigError(
                f"The rates go from {self.lowest} to {self.highest}.",
                hint="From a low one above 0 to a higher one, e.g. --min 1e-6 --max 10.",
            )
        if self.steps < 10:
            raise ConfigError(
                f"{self.steps} steps show no curve.", hint="At least 10, e.g. --steps 50."
            )
        if not self.divergence > 1:
            raise ConfigError(
                f"Divergence at {self.divergence} times the best loss is at once.", hint="E.g. 4."
            )

    @property
    def rates(self) -> np.ndarray:
        """(steps,) rising by equal factors."""
        return np.geomspace(self.lowest, self.highest, self.steps)


@dataclass(frozen=True, kw_only=True)
class RangeCurve:
    """What the test saw."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    has_diverged: bool

    @property
    def smoothed(self) -> np.ndarray:
        """The losses, each averaged with those before it."""
        return smooth(self.losses)

    def suggest(self) -> float:
        """The rate at which the loss falls fastest along the logarithm of the rate, on the way
        to its lowest value.

        Raises:
            PlanError: the loss falls nowhere.
        """
        count = len(self.losses)
        even = ndimage.gaussian_filter1d(self.losses, max(1.0, SPREAD * count), mode="nearest")
        best = int(even.argmin())
        falling = np.gradient(even[: best + 1]) if best >= 2 else np.zeros(1)
        if falling.min() >= 0:
            raise PlanError(
                "The range test found no rate at which the loss falls.",
                hint="Try more steps or other limits, e.g. ushape lr --steps 200 --min 1e-8.",
            )
        return self.rates[int(falling.argmin())]

    def save(self, path: Path) -> None:
        """A CSV of rate, loss and smoothed loss."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("learning_rate", "loss", "smoothed"))
        writer.writerows(zip(self.rates, self.losses, self.smoothed.tolist(), strict=True))
        write_bytes(path, text.getvalue().encode())


def smooth(losses: Sequence[float]) -> np.ndarray:
    """Exponential mean of each loss and those before it, bias corrected."""
    mean, found = 0.0, []
    for count, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        found.append(mean / (1 - SMOOTHING**count))
    return np.asarray(found)


def range_test(
    plan: Plan, training: SampleStore, class_pixels: np.ndarray, config: RangeConfig
) -> RangeCurve:
    """Trains a fresh network, each step at a higher rate, accumulation included.

    Nothing of it is left: the training that follows starts from its own first weights.

    Args:
        class_pixels: (training cases, classes).

    Raises:
        ConfigError: impossible limits.
    """
    train = replace(plan.recipe.train, steps_per_epoch=config.steps, learning_rate=1.0)
    plan = replace(plan, recipe=replace(plan.recipe, train=train))
    device = plan.machine.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.recipe.seed)
        module = SegmentationModule(plan, training, [case.group for case in training.cases])
        module.to(device).train()
        margin = int(module.network.margin)  # type: ignore[arg-type]
        data = SegmentationData(plan, training, training, class_pixels, margin)
        optimizer = build_optimizer(module.network.parameters(), train, device)
        batches = iter(data.train_dataloader())
        losses: list[float] = []
        for rate in config.rates:
            for group in optimizer.param_groups:
                group["lr"] = float(rate)
            losses.append(_step(module, optimizer, batches))
            if _has_diverged(losses, config):
                break
    finite = [loss for loss in losses if math.isfinite(loss)]
    return RangeCurve(
        rates=tuple(config.rates[: len(finite)].tolist()),
        losses=tuple(finite),
        has_diverged=_has_diverged(losses, config),
    )


def _has_diverged(losses: Sequence[float], config: RangeConfig) -> bool:
    smoothed = smooth(losses)
    return not smoothed[-1] <= config.divergence * smoothed.min()  # NaN is no number to compare.


def _step(
    module: SegmentationModule, optimizer: torch.optim.Optimizer, batches: Iterator[Patch]
) -> float:
    """One optimizer step over all batches that are accumulated; their mean loss."""
    optimizer.zero_grad()
    total, count = 0.0, module.plan.recipe.train.accumulate_grad_batches
    for _ in range(count):
        batch = module.transfer_batch_to_device(next(batches), module.device, 0)
        with precision_context(module.device.type, module.plan.recipe.train.precision):
            loss = module.loss_of(batch) / count
        loss.backward()
        total += float(loss.detach())
    module.configure_gradient_clipping()
    optimizer.step()
    return total
