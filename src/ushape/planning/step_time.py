"""Measure the time of a training step on this machine."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager

import torch

from ushape.config import resolved
from ushape.labels import LabelSpace
from ushape.losses import build_loss
from ushape.models import build_model
from ushape.planning.recipe import Recipe

FORWARD_SHARE = 0.25
"""Seconds of a prediction per second of a training step on as many pixels (measured: 119 and 481
ms for 512 x 512 pixels)."""


def precision_context(device: str, precision: str) -> AbstractContextManager[object]:
    """Return autocast for bf16, otherwise a context without effect."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16")


def memory_format(dims: int, *, channels_last: bool) -> torch.memory_format:
    """Return the memory format: channels last only in 2D.

    In PyTorch 2.13, the bf16 gradients of channels-last 3D convolutions on a CPU read uninitialized
    memory: with 2 to 32 channels, about 1 step in 100 became NaN if freed memory contained NaN.
    """
    return torch.channels_last if channels_last and dims == 2 else torch.contiguous_format


def measure_step_s(recipe: Recipe, channels: int, space: LabelSpace, device: str) -> float:
    """Return the median seconds of a training step with all its batches, without loading.

    The step uses random patches. The random state of PyTorch does not change, so that a training
    starts from the same weights with and without a measurement.
    """
    with torch.random.fork_rng(devices=[]):
        step = _TrainingStep(recipe, channels, space, device)
        times: list[float] = []
        for _ in range(2):
            step.run()  # Allocates memory and selects kernels.
        while len(times) < 4 or (len(times) < 12 and sum(times) < 1.5):
            started = time.perf_counter()
            step.run()
            times.append(time.perf_counter() - started)
    return recipe.train.accumulate_grad_batches * sorted(times)[len(times) // 2]


class _TrainingStep:
    """Network, loss and optimizer with a random batch."""

    def __init__(self, recipe: Recipe, channels: int, space: LabelSpace, device: str):
        train, network = recipe.train, recipe.network
        batch_size, patch_shape = resolved(train.batch_size), resolved(recipe.sampling.patch_shape)
        layout = memory_format(network.dims, channels_last=train.channels_last)
        built = build_model(network, channels, space.channels)
        dtype = torch.float64 if train.precision == "fp64" else torch.float32
        self.network = built.to(device, dtype, memory_format=layout)  # type: ignore[call-overload]
        self.loss = build_loss(recipe.loss, space, deep_supervision=network.deep_supervision > 0)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), fused=device != "mps")
        self.device, self.precision = device, train.precision

        image = torch.randn(batch_size, channels, *patch_shape)
        self.image = image.to(device, dtype, memory_format=layout)
        margin = int(built.margin)  # type: ignore[arg-type]
        inner = [size - 2 * margin for size in patch_shape]
        self.target = torch.zeros(batch_size, space.channels, *inner, device=device)
        self.weight = torch.ones(batch_size, 1, *inner, device=device)

    def run(self) -> None:
        self.optimizer.zero_grad()
        with precision_context(self.device, self.precision):
            loss = self.loss(self.network(self.image), self.target, self.weight)
        loss.backward()
        self.optimizer.step()
        loss.item()  # Waits for the accelerator.
