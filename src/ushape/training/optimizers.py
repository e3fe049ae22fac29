"""Optimizer for training, and its learning-rate schedule over the steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch.optim import Optimizer

from ushape.config import resolved
from ushape.planning.optimizers import OPTIMIZERS, SCHEDULES, OptimizerSettings, Parameters
from ushape.planning.recipe import TrainConfig

LR_FACTOR = "lr_factor"
"""Key of a group of parameters: its learning rate, relative to that of the recipe."""


def build_optimizer(parameters: Parameters, train: TrainConfig, device: str) -> Optimizer:
    """Build the optimizer of a recipe, with a fused kernel if there is one.

    Args:
        parameters: All parameters of the network, in its order.
    """
    settings = OptimizerSettings(
        learning_rate=resolved(train.learning_rate),
        beta2=train.beta2,
        momentum=train.momentum,
        weight_decay=train.weight_decay,
        fused=device in ("cpu", "cuda"),
        is_bf16=train.precision == "bf16",
    )
    return OPTIMIZERS[train.optimizer](parameters, settings)


def scale_rate(optimizer: Optimizer, parameters: Parameters, factor: float) -> None:
    """Multiply the learning rate of some of the parameters of an optimizer by a factor."""
    chosen = {id(one) for one in parameters}
    for group in list(optimizer.param_groups):
        scaled = [one for one in group["params"] if id(one) in chosen]
        if scaled:
            group["params"] = [one for one in group["params"] if id(one) not in chosen]
            rate = factor * group["lr"]
            optimizer.add_param_group({**group, "params": scaled, "lr": rate, LR_FACTOR: factor})


@dataclass
class Schedule:
    """Learning-rate schedule over a number of steps that the `Pacer` may change during training."""

    train: TrainConfig
    total_steps: int

    def freezes_encoder(self, step: int) -> bool:
        """Return whether a pretrained encoder is frozen in a step."""
        return step < self.train.encoder_freeze_fraction * self.total_steps

    def frozen_steps(self, step: int) -> int:
        """Return in how many of the remaining steps a pretrained encoder is frozen."""
        return max(0, math.ceil(self.train.encoder_freeze_fraction * self.total_steps) - step)

    def factor(self, step: int) -> float:
        """Return the learning rate relative to the highest one; it is constant after the end."""
        warmup = self.train.warmup_fraction
        if self.train.warmup_steps is not None:
            warmup = min(self.train.warmup_steps / self.total_steps, 0.5)
        return SCHEDULES[self.train.schedule](min(step / self.total_steps, 1.0), warmup)
