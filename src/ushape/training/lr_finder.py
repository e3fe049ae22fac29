"""Learning-rate range test: train with an increasing learning rate and find the steepest descent.

Lightning's learning-rate finder is not used because it writes a checkpoint into the working
directory and returns no curve if the loss becomes NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from ushape.data.cache import SampleStore
from ushape.data.sampling import Patch
from ushape.errors import ConfigError, PlanError, check_range
from ushape.formatting import to_csv
from ushape.io.files import write_bytes
from ushape.planning.hardware import precision_context
from ushape.planning.plan import Plan
from ushape.training.datamodule import SegmentationData
from ushape.training.module import SegmentationModule
from ushape.training.optimizers import LR_FACTOR

SMOOTHING = 0.7
"""Weight of the previous mean in the smoothed loss (bias corrected)."""

SPREAD = 0.05
"""Standard deviation of the Gaussian that smooths the losses before the steepest descent is
determined, as a fraction of all steps: single batches differ more than neighboring rates."""


@dataclass(frozen=True, kw_only=True)
class LRFinderConfig:
    """Learning rates of the range test."""

    lowest: float = 1e-6
    highest: float = 10.0
    steps: int = 50
    """Number of rates, which increase by a constant factor."""

    divergence: float = 4.0
    """The test ends when the smoothed loss exceeds the lowest one by this factor."""

    def __post_init__(self) -> None:
        if not 0 < self.lowest < self.highest < math.inf:
            raise ConfigError(
                f"The learning rates range from {self.lowest} to {self.highest}.",
                code="value_out_of_range",
                hint="Use a lowest rate above 0 and a higher one, e.g. --min 1e-6 --max 10.",
            )
        check_range("steps", self.steps, 10, hint="50 steps are usual: --steps 50.")
        if not self.divergence > 1:
            raise ConfigError(
                f"The divergence factor is {self.divergence}.",
                code="value_out_of_range",
                hint="Use a factor above 1, e.g. --divergence 4.",
            )

    @property
    def rates(self) -> np.ndarray:
        """Learning rates (steps,)."""
        return np.geomspace(self.lowest, self.highest, self.steps)


@dataclass(frozen=True, kw_only=True)
class LRFinderResult:
    """Losses of a range test."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    has_diverged: bool

    def __repr__(self) -> str:
        rates = f"{len(self.rates)} rates from {self.rates[0]:.2g} to {self.rates[-1]:.2g}"
        return f"LRFinderResult({rates}, has_diverged={self.has_diverged})"

    @property
    def smoothed(self) -> np.ndarray:
        """Exponential moving average of the losses."""
        return smooth(self.losses)

    def suggest(self) -> float:
        """Return the rate, up to that of the lowest loss, at which the loss falls most steeply.

        The slope is measured along the logarithm of the rate.

        Raises:
            PlanError: if the loss does not fall at any rate.
        """
        count = len(self.losses)
        even = ndimage.gaussian_filter1d(self.losses, max(1.0, SPREAD * count), mode="nearest")
        best = int(even.argmin())
        falling = np.gradient(even[: best + 1]) if best >= 2 else np.zeros(1)
        if falling.min() >= 0:
            raise PlanError(
                "The range test found no learning rate at which the loss falls.",
                code="no_learning_rate",
                hint="Try more steps or other limits, e.g. --steps 200 --min-lr 1e-8.",
            )
        return self.rates[int(falling.argmin())]

    def save(self, path: Path) -> None:
        """Write a CSV file of rate, loss and smoothed loss."""
        columns = ("learning_rate", "loss", "smoothed")
        values = zip(self.rates, self.losses, self.smoothed.tolist(), strict=True)
        rows = [dict(zip(columns, row, strict=True)) for row in values]
        write_bytes(path, to_csv(columns, rows))


def smooth(losses: Sequence[float]) -> np.ndarray:
    """Return the bias-corrected exponential moving average."""
    mean, found = 0.0, []
    for count, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        found.append(mean / (1 - SMOOTHING**count))
    return np.asarray(found)


def range_test(
    plan: Plan,
    training: SampleStore,
    class_pixels: np.ndarray,
    config: LRFinderConfig,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> LRFinderResult:
    """Train a new network, increasing the learning rate after each optimizer step.

    The random state and the weights of later training are not affected.

    Args:
        class_pixels: Pixels of each class, (training cases, classes).
        on_progress: Called with the number of steps done and the total.
    """
    train = replace(plan.recipe.train, steps_per_epoch=config.steps, learning_rate=1.0)
    sampling = replace(plan.recipe.sampling, growing_patches=False)
    plan = replace(plan, recipe=replace(plan.recipe, train=train, sampling=sampling))
    device = plan.machine.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.recipe.seed)
        groups = [case.group for case in training.cases]
        module = SegmentationModule(plan, training, groups)
        module.to(device).train()
        data = SegmentationData(plan, training, training, class_pixels)
        optimizer = module.build_optimizer()
        batches = iter(data.train_dataloader())
        losses: list[float] = []
        for rate in config.rates:
            for group in optimizer.param_groups:
                group["lr"] = float(rate) * group.get(LR_FACTOR, 1.0)
            losses.append(_step(module, optimizer, batches))
            on_progress(len(losses), config.steps)
            if _has_diverged(losses, config):
                break
    finite = [loss for loss in losses if math.isfinite(loss)]
    return LRFinderResult(
        rates=tuple(config.rates[: len(finite)].tolist()),
        losses=tuple(finite),
        has_diverged=_has_diverged(losses, config),
    )


def _has_diverged(losses: Sequence[float], config: LRFinderConfig) -> bool:
    smoothed = smooth(losses)
    return not smoothed[-1] <= config.divergence * smoothed.min()  # True for NaN as well.


def _step(
    module: SegmentationModule, optimizer: torch.optim.Optimizer, batches: Iterator[Patch]
) -> float:
    """Make an optimizer step over all accumulated batches, and return their mean loss."""
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
