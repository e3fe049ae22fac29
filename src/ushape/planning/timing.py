"""Time of a training step on this machine, and the number format in which it is fastest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from ushape.config import AUTO, resolved
from ushape.labels import LabelSpace
from ushape.losses import build_loss
from ushape.models import build_model, network_sizes
from ushape.planning.hardware import memory_format, precision_context
from ushape.planning.recipe import Precision, Recipe
from ushape.transforms.tiling import even_tile, tile_starts

FORWARD_SHARE = 0.25
"""Seconds of a prediction per second of a training step on as many pixels (measured: 119 and 481
ms for 512 x 512 pixels)."""

FROZEN_SHARE = 0.5
"""Seconds of a step that does not change the encoder per second of another step; a bit less
(docs/how-to/imagenet-weights.md)."""

CLEARLY_FASTER = 0.9
"""Share of the time of the usual format that another one may take to be preferred."""

COMPARED_CALLS = 2
"""Number of calls after the warm-up that a format needs to be compared with another one."""


@dataclass(frozen=True)
class Format:
    """Number format and memory layout used in training."""

    precision: Precision
    channels_last: bool

    def __str__(self) -> str:
        return f"{self.precision}{', channels last' if self.channels_last else ''}"


@dataclass(frozen=True)
class StepTime:
    """Measured time of a training step."""

    seconds: float
    calls: int
    """Number of calls that were timed after the warm-up."""


def fastest_format(
    formats: Sequence[Format], measure: Callable[[Format, float], StepTime], limit_s: float
) -> tuple[Format, dict[Format, float]]:
    """Return the fastest format, and the seconds of a step in those that were measured.

    The first format is the usual one. Another one is chosen only if it is clearly faster and both
    were timed in several calls after their warm-up. The first step of a process also loads
    libraries, so that it does not count; and the usual format is timed before and after the
    others, so that a program that runs at the beginning only does not decide.

    Args:
        measure: Measures a step in a format within the given number of seconds, or calls it only
            once if there is no time.
        limit_s: Seconds after which no other format is measured.
    """
    began, found = time.perf_counter(), dict[Format, float]()
    usual, each_s = formats[0], limit_s / (len(formats) + 1)
    measure(usual, 0.0)
    best = usual
    for one in formats:
        step = measure(one, each_s)
        found[one] = step.seconds
        if step.calls >= COMPARED_CALLS and step.seconds < found[best]:
            best = one
        is_unreliable = one == usual and step.calls < COMPARED_CALLS
        if is_unreliable or time.perf_counter() - began > limit_s:
            break
    if found[best] < CLEARLY_FASTER * found[usual]:
        found[usual] = min(found[usual], measure(usual, each_s).seconds)
    return (best if found[best] < CLEARLY_FASTER * found[usual] else usual), found


def formats_of(recipe: Recipe, *, has_bf16: bool, device: str) -> list[Format]:
    """Return the formats that the recipe leaves open, the usual one first.

    Args:
        device: Name of the device: on CUDA, instance norm loses the channels-last layout.
    """
    train = recipe.train
    possible: list[Precision] = ["bf16", "fp32"] if has_bf16 else ["fp32"]
    precisions = possible if train.precision == AUTO else [train.precision]
    layouts = [True, False] if train.channels_last == AUTO else [train.channels_last]
    if device == "cuda" and recipe.network.norm == "instance":
        layouts = sorted(layouts)
    if recipe.network.dims == 3:
        layouts = layouts[:1]  # Channels last has no effect in 3D.
    return [Format(precision, last) for last in layouts for precision in precisions]


def with_format(recipe: Recipe, chosen: Format) -> Recipe:
    """Return the recipe with a number format and a memory layout."""
    train = replace(recipe.train, precision=chosen.precision, channels_last=chosen.channels_last)
    return replace(recipe, train=train)


def measure_step_s(
    recipe: Recipe, channels: int, space: LabelSpace, device: str, limit_s: float = math.inf
) -> float:
    """Return the typical seconds of a training step; see `measure_step`."""
    return measure_step(recipe, channels, space, device, limit_s).seconds


def measure_step(
    recipe: Recipe,
    channels: int,
    space: LabelSpace,
    device: str,
    limit_s: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> StepTime:
    """Measure the typical time of a training step with all its batches, without loading.

    The step uses random patches. The random state of PyTorch does not change, so that training
    starts from the same weights with and without a measurement.

    Args:
        limit_s: Seconds that the measurement may take. If whole steps do not fit, steps with fewer
            patches are measured and scaled.
    """
    train = recipe.train
    batch, repeated = resolved(train.batch_size), train.accumulate_grad_batches
    started, warm_up = clock(), WARM_UP
    with torch.random.fork_rng(devices=[]):
        if batch > PROBE and limit_s < math.inf:
            probe = replace(recipe, train=replace(train, batch_size=PROBE))
            step = TrainingStep(probe, channels, space, device)
            times = time_calls(step.run, limit_s / 4, clock)
            left = limit_s - (clock() - started)
            whole_s = typical_of(times) * batch / PROBE
            if 2 * whole_s > left:
                if len(times) < WARM_UP + COMPARED_CALLS and min(times) <= left:
                    times += time_calls(step.run, left, clock)
                seconds = repeated * typical_of(times) * batch / PROBE
                return StepTime(seconds, max(0, len(times) - WARM_UP))
            limit_s, warm_up = left, max(0, WARM_UP - len(times))
        step = TrainingStep(recipe, channels, space, device)
        times = time_calls(step.run, limit_s, clock)
    return StepTime(repeated * typical_of(times), max(0, len(times) - warm_up))


def predicted_pixels(recipe: Recipe, shapes: Iterable[tuple[int, ...]]) -> float:
    """Return the pixels that the network sees to predict images once each, in overlapping tiles.

    Args:
        shapes: Size of each image after preprocessing, in pixels.
    """
    margin = network_sizes(recipe.network).margin
    overlap = resolved(recipe.predict.tiling.overlap_fraction)

    def seen(size: int, most: int) -> int:
        tile = even_tile(size, most, overlap)
        return len(tile_starts(size, tile, overlap * most / tile)) * (tile + 2 * margin)

    tiles = resolved(recipe.predict.tile_shape)
    dims = len(tiles)  # Volumes have an axis more if they are predicted slice by slice.
    return sum(
        math.prod(shape[:-dims]) * math.prod(map(seen, shape[-dims:], tiles)) for shape in shapes
    )


PROBE = 2
"""Number of patches of a trial step. Batch norm may need more than one."""

WARM_UP = 2
"""Number of calls that allocate memory and select kernels."""


def typical_s(
    run: Callable[[], None], limit_s: float, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the typical seconds of a call, not disturbed by single slow ones."""
    return typical_of(time_calls(run, limit_s, clock))


def typical_of(times: Sequence[float]) -> float:
    """Return the typical one of the seconds of successive calls.

    This is the median of the calls after the first two, the faster one of the middle two. With
    only a few calls, it is the shortest one.
    """
    settled = sorted(times[WARM_UP:])
    return settled[(len(settled) - 1) // 2] if len(settled) >= 3 else min(times)


def time_calls(
    run: Callable[[], None], limit_s: float, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Return the seconds of as many calls as are needed, or as fit into the limit; at least one."""
    began = clock()
    times: list[float] = []
    while True:
        started = clock()
        run()
        times.append(clock() - started)
        used, count = clock() - began, len(times) - WARM_UP
        if count >= 12 or (count >= 5 and used >= 1.5) or used + min(times) > limit_s:
            return times


class TrainingStep:
    """Network, loss and optimizer with a random batch."""

    def __init__(self, recipe: Recipe, channels: int, space: LabelSpace, device: str):
        train, network = recipe.train, recipe.network
        batch_size, patch_shape = resolved(train.batch_size), resolved(recipe.sampling.patch_shape)
        layout = memory_format(network.dims, channels_last=resolved(train.channels_last))
        built = build_model(network, channels, space.outputs)
        dtype = torch.float64 if train.precision == "fp64" else torch.float32
        self.network = built.to(device, dtype, memory_format=layout)  # type: ignore[call-overload]
        self.loss = build_loss(recipe.loss, space, deep_supervision=network.extra_outputs > 0)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), fused=device != "mps")
        self.device, self.precision = device, train.precision

        image = torch.randn(batch_size, channels, *patch_shape)
        self.image = image.to(device, dtype, memory_format=layout)
        margin = int(built.margin)  # type: ignore[arg-type]
        inner = [size - 2 * margin for size in patch_shape]
        self.target = torch.zeros(batch_size, space.outputs, *inner, device=device)
        self.weight = torch.ones(batch_size, 1, *inner, device=device)

    def run(self) -> None:
        self.optimizer.zero_grad()
        with precision_context(self.device, self.precision):
            loss = self.loss(self.network(self.image), self.target, self.weight)
        loss.backward()
        self.optimizer.step()
        loss.item()  # Waits for the accelerator.
