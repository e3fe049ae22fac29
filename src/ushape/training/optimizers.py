"""Optimizers and learning-rate schedules, each a line in its table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from ushape.config import resolved
from ushape.planning.recipe import TrainConfig

Parameters = Iterable[nn.Parameter]


def _adam(kind: type[torch.optim.Adam]) -> Callable[[Parameters, TrainConfig, bool], Optimizer]:
    def build(parameters: Parameters, train: TrainConfig, fused: bool) -> Optimizer:
        rate = resolved(train.learning_rate)
        return kind(parameters, lr=rate, weight_decay=train.weight_decay, fused=fused)

    return build


def _sgd(parameters: Parameters, train: TrainConfig, fused: bool) -> Optimizer:
    return torch.optim.SGD(
        parameters,
        lr=resolved(train.learning_rate),
        momentum=train.momentum,
        weight_decay=train.weight_decay,
        fused=fused,
    )


def _rmsprop(parameters: Parameters, train: TrainConfig, fused: bool) -> Optimizer:
    return torch.optim.RMSprop(  # Has no fused form.
        parameters,
        lr=resolved(train.learning_rate),
        momentum=train.momentum,
        weight_decay=train.weight_decay,
        foreach=True,
    )


OPTIMIZERS: dict[str, Callable[[Parameters, TrainConfig, bool], Optimizer]] = {
    "adamw": _adam(torch.optim.AdamW),
    "adam": _adam(torch.optim.Adam),
    "sgd": _sgd,
    "rmsprop": _rmsprop,
}


def build_optimizer(parameters: Parameters, train: TrainConfig, device: str) -> Optimizer:
    """The recipe's optimizer; fused, one kernel for all weights, where there is one."""
    return OPTIMIZERS[train.optimizer](parameters, train, device in ("cpu", "cuda"))


def constant(progress: float, warmup: float) -> float:
    """The rate stays."""
    return 1.0


def rise(progress: float, warmup: float) -> float:
    """A linear rise from a hundredth, then constant."""
    return 0.01 + 0.99 * progress / warmup if progress < warmup else 1.0


def cosine(progress: float, warmup: float) -> float:
    """The rise, then half a cosine down to zero.

    Source:
        Loshchilov and Hutter 2017, arXiv 1608.03983, without restarts.
    """
    if progress < warmup:
        return rise(progress, warmup)
    return _half_cosine((progress - warmup) / (1 - warmup))


def polynomial(progress: float, warmup: float) -> float:
    """The rise, then (1 - progress) ** 0.9 down to zero.

    Source:
        nnU-Net (Isensee et al. 2021), 10.1038/s41592-020-01008-z.
    """
    if progress < warmup:
        return rise(progress, warmup)
    return float((1 - (progress - warmup) / (1 - warmup)) ** 0.9)


def one_cycle(progress: float, warmup: float) -> float:
    """From 1/25 up along a cosine in the first 30 % of all steps, then down to 1/250000.

    The momentum stays as it is.

    Source:
        Smith and Topin 2019, arXiv 1708.07120; figures of torch's OneCycleLR.
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
"""Share of the highest learning rate, by the share of all steps that is done and the share in
which the rate rises."""


def rate_at(step: int, total_steps: int, train: TrainConfig) -> float:
    """The schedule's share of the highest learning rate; after the last step it stays."""
    warmup = train.warmup_fraction
    if train.warmup_steps is not None:
        warmup = min(train.warmup_steps / total_steps, 0.5)
    return SCHEDULES[train.schedule](min(step / total_steps, 1.0), warmup)


def _half_cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))
