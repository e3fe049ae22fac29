"""Optimizers and learning-rate schedules; a new one is a function and a line in its table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from ushape.config import resolved
from ushape.planning.recipe import TrainConfig
from ushape.training.muon import Muon

Parameters = Iterable[nn.Parameter]

LR_FACTOR = "lr_factor"
"""Key of a group of parameters: its learning rate, relative to that of the recipe."""

BETA1 = 0.9
"""Decay of the mean gradient in adamw and adam."""


def _adam(kind: type[torch.optim.Adam]) -> Callable[[Parameters, TrainConfig, bool], Optimizer]:
    def build(parameters: Parameters, train: TrainConfig, fused: bool) -> Optimizer:
        return kind(
            parameters,
            lr=resolved(train.learning_rate),
            betas=(BETA1, train.beta2),
            weight_decay=train.weight_decay,
            fused=fused,
        )

    return build


def _muon(parameters: Parameters, train: TrainConfig, fused: bool) -> Optimizer:
    return Muon(
        list(parameters),
        lr=resolved(train.learning_rate),
        betas=(BETA1, train.beta2),
        momentum=train.momentum,
        weight_decay=train.weight_decay,
        fused=fused,
        dtype=torch.bfloat16 if train.precision == "bf16" else None,
    )


def _sgd(parameters: Parameters, train: TrainConfig, fused: bool) -> Optimizer:
    return torch.optim.SGD(
        parameters,
        lr=resolved(train.learning_rate),
        momentum=train.momentum,
        weight_decay=train.weight_decay,
        fused=fused,
    )


def _rmsprop(parameters: Parameters, train: TrainConfig, fused: bool) -> Optimizer:
    return torch.optim.RMSprop(  # RMSprop has no fused implementation.
        parameters,
        lr=resolved(train.learning_rate),
        momentum=train.momentum,
        weight_decay=train.weight_decay,
        foreach=True,
    )


OPTIMIZERS: dict[str, Callable[[Parameters, TrainConfig, bool], Optimizer]] = {
    "adamw": _adam(torch.optim.AdamW),
    "adam": _adam(torch.optim.Adam),
    "muon": _muon,
    "sgd": _sgd,
    "rmsprop": _rmsprop,
}


def build_optimizer(parameters: Parameters, train: TrainConfig, device: str) -> Optimizer:
    """Build the optimizer of a recipe, with a fused kernel if there is one.

    Args:
        parameters: All parameters of the network, in its order.
    """
    return OPTIMIZERS[train.optimizer](parameters, train, device in ("cpu", "cuda"))


def slow_down(optimizer: Optimizer, parameters: Parameters, factor: float) -> None:
    """Give some of the parameters of an optimizer a fraction of the learning rate."""
    chosen = {id(one) for one in parameters}
    for group in list(optimizer.param_groups):
        slow = [one for one in group["params"] if id(one) in chosen]
        if slow:
            group["params"] = [one for one in group["params"] if id(one) not in chosen]
            rate = factor * group["lr"]
            optimizer.add_param_group({**group, "params": slow, "lr": rate, LR_FACTOR: factor})


def constant(progress: float, warmup: float) -> float:
    """Keep the learning rate."""
    return 1.0


def rise(progress: float, warmup: float) -> float:
    """Rise linearly from a hundredth of the rate, then keep it."""
    return 0.01 + 0.99 * progress / warmup if progress < warmup else 1.0


def cosine(progress: float, warmup: float) -> float:
    """Rise, then fall to zero along half a cosine.

    Source:
        Loshchilov and Hutter 2017, arXiv 1608.03983, without restarts.
    """
    if progress < warmup:
        return rise(progress, warmup)
    return _half_cosine((progress - warmup) / (1 - warmup))


def polynomial(progress: float, warmup: float) -> float:
    """Rise, then fall to zero as (1 - progress) ** 0.9.

    Source:
        nnU-Net (Isensee et al. 2021), 10.1038/s41592-020-01008-z.
    """
    if progress < warmup:
        return rise(progress, warmup)
    return float((1 - (progress - warmup) / (1 - warmup)) ** 0.9)


def one_cycle(progress: float, warmup: float) -> float:
    """Rise from 1/25 along a cosine in the first 30 % of all steps, then fall to 1/250000.

    The momentum does not change.

    Source:
        Smith and Topin 2019, arXiv 1708.07120; with the defaults of PyTorch's OneCycleLR.
    """
    first, last, peak = 1 / 25, 1 / 25e4, 0.3
    if progress < peak:
        return 1 - (1 - first) * _half_cosine(progress / peak)
    return last + (1 - last) * _half_cosine((progress - peak) / (1 - peak))


SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "cosine": cosine,
    "constant": constant,
    "warmup": rise,
    "polynomial": polynomial,
    "one_cycle": one_cycle,
}
"""Functions of (fraction of steps done, fraction of warmup steps) that return the learning rate
relative to the highest one."""


@dataclass
class Schedule:
    """Learning-rate schedule over a number of steps that the `Pacer` may change during training."""

    train: TrainConfig
    total_steps: int

    def freezes_encoder(self, step: int) -> bool:
        """Return whether a pretrained encoder does not change in a step."""
        return step < self.train.encoder_freeze_fraction * self.total_steps

    def frozen_steps(self, step: int) -> int:
        """Return how many of the steps from this one on do not change a pretrained encoder."""
        return max(0, math.ceil(self.train.encoder_freeze_fraction * self.total_steps) - step)

    def factor(self, step: int) -> float:
        """Return the learning rate relative to the highest one; it is constant after the end."""
        warmup = self.train.warmup_fraction
        if self.train.warmup_steps is not None:
            warmup = min(self.train.warmup_steps / self.total_steps, 0.5)
        return SCHEDULES[self.train.schedule](min(step / self.total_steps, 1.0), warmup)


def _half_cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))
