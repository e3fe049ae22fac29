"""Optimizers and learning-rate schedules; a new one is a function and a line in its table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from ushape.planning.muon import Muon

Parameters = Iterable[nn.Parameter]

BETA1 = 0.9
"""Decay of the mean gradient in adamw and adam."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """Numbers that an optimizer is built from; each optimizer uses some of them."""

    learning_rate: float
    beta2: float
    """Decay of the mean squared gradient."""

    momentum: float
    weight_decay: float
    fused: bool
    """Whether the device has a fused kernel."""

    is_bf16: bool
    """Whether training uses mixed precision with bfloat16."""


def _adam(kind: type[torch.optim.Adam]) -> Callable[[Parameters, OptimizerSettings], Optimizer]:
    def build(parameters: Parameters, settings: OptimizerSettings) -> Optimizer:
        return kind(
            parameters,
            lr=settings.learning_rate,
            betas=(BETA1, settings.beta2),
            weight_decay=settings.weight_decay,
            fused=settings.fused,
        )

    return build


def _muon(parameters: Parameters, settings: OptimizerSettings) -> Optimizer:
    return Muon(
        list(parameters),
        lr=settings.learning_rate,
        betas=(BETA1, settings.beta2),
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        fused=settings.fused,
        dtype=torch.bfloat16 if settings.is_bf16 else None,
    )


def _sgd(parameters: Parameters, settings: OptimizerSettings) -> Optimizer:
    return torch.optim.SGD(
        parameters,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        fused=settings.fused,
    )


def _rmsprop(parameters: Parameters, settings: OptimizerSettings) -> Optimizer:
    return torch.optim.RMSprop(  # RMSprop has no fused implementation.
        parameters,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        foreach=True,
    )


OPTIMIZERS: dict[str, Callable[[Parameters, OptimizerSettings], Optimizer]] = {
    "adamw": _adam(torch.optim.AdamW),
    "adam": _adam(torch.optim.Adam),
    "muon": _muon,
    "sgd": _sgd,
    "rmsprop": _rmsprop,
}


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
    """Rise from 1/25 along a cosine in the first 30% of all steps, then fall to 1/250000.

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


def _half_cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))
