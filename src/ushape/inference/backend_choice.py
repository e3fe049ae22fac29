"""Which backend is fastest for a run on this machine, and what it changes: measured, and kept."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ushape import config
from ushape.data.preprocessing import read_classes
from ushape.errors import ConfigError, RunError, UshapeError
from ushape.inference.backends import (
    Backend,
    Precision,
    installed,
    open_backend,
)
from ushape.inference.network import Computed
from ushape.inference.sliding_window import Network, TileSettings, predict_probabilities
from ushape.io.files import write_bytes
from ushape.labels import LabelSpace
from ushape.metrics.overlap import Counts, count_overlap, dice
from ushape.planning.hardware import Machine
from ushape.planning.plan import Plan
from ushape.planning.run import Run
from ushape.transforms.resampling import pad_mirrored
from ushape.types import CaseFacts

TILE_PX = 512
"""Longest side of the tiles that are measured on."""

TILES = 8
"""Training cases that show int8 the range of each layer, and on which backends are compared."""

VALIDATION_CASES = 12
"""On which int8 must prove itself, at most."""

MAX_CHANGED = 0.002
"""Share of pixels whose class a backend may change."""

MAX_LOST = 0.002
"""Validation Dice that int8 may cost."""

SLOW_TO_START = ("compile",)
"""Worth its start for many images only: taken where it is named."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A backend that was tried."""

    name: str
    tile_s: float
    difference: Difference
    """From float32 in PyTorch."""

    lost_dice: float | None = None
    """Validation Dice of PyTorch less that of this backend; None: not asked."""

    @property
    def line(self) -> str:
        lost = "" if self.lost_dice is None else f", validation Dice {-self.lost_dice:+.4f}"
        return (
            f"  {self.name}: {1000 * self.tile_s:.0f} ms a tile, probabilities differ by up to "
            f"{self.difference.largest_probability:.3f}, classes in "
            f"{self.difference.changed_share:.3%} of the pixels{lost}."
        )


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What was chosen, and why."""

    chosen: str
    machine: str
    packages: tuple[str, ...]
    """The backends that were there."""

    measured: tuple[Measured, ...]

    @property
    def lines(self) -> list[str]:
        return [f"Backend {self.chosen}, the fastest of:", *(one.line for one in self.measured)]


def calibration_tiles(run: Run, plan: Plan, network: Network) -> Iterator[np.ndarray]:
    """(1, C, *T) tiles of training images, as the network sees them.

    Raises:
        RunError: the training data are no longer there.
    """
    for fact in _some(_facts_of(run, run.load_splits().train), TILES):
        yield _tile_of(plan, fact, network)


def select_backend(
    run: Run,
    plan: Plan,
    module: nn.Module,
    network: Network,
    machine: Machine,
    precision: Precision,
) -> Selection:
    """The fastest backend that changes little; measured once for each machine, then remembered.

    int8 is tried where the training data are still there, and taken only if validation Dice
    falls by less than MAX_LOST.
    """
    path = run.folder / "backends" / "choice.json"
    there = tuple(name for name in installed() if name not in SLOW_TO_START)
    known = _load(path)
    if known and (known.machine, known.packages) == (machine.name, there):
        return known
    tiles = _tiles_or_noise(run, plan, network)
    reference = open_backend("torch", module, device=machine.device)
    opened: dict[str, Backend] = {}
    for name in there:
        try:
            opened[name] = open_backend(
                name,
                module,
                device=machine.device,
                precision=precision,
                folder=path.parent,
                calibration=tiles,
            )
        except UshapeError:
            continue  # Not on this device, or not with this network.
    seconds = measure_speed(list(opened.values()), tiles[0])
    space = plan.preprocessing.space
    measured = []
    for name, backend in opened.items():
        difference = compare(reference, backend, tiles, space)
        lost = None
        if name.endswith("int8"):
            lost = _lost_dice(run, plan, network, opened["torch"], backend)
        measured.append(
            Measured(name=name, tile_s=seconds[name], difference=difference, lost_dice=lost)
        )
    allowed = [one for one in measured if _is_allowed(one)]
    chosen = min(allowed, key=lambda one: one.tile_s).name if allowed else "torch"
    found = Selection(chosen=chosen, machine=machine.name, packages=there, measured=tuple(measured))
    write_bytes(path, (json.dumps(config.to_dict(found), indent=2) + "\n").encode())
    return found


def _is_allowed(one: Measured) -> bool:
    if one.name.endswith("int8"):
        return one.lost_dice is not None and one.lost_dice < MAX_LOST
    return one.difference.changed_share <= MAX_CHANGED


def _lost_dice(
    run: Run, plan: Plan, network: Network, before: Backend, after: Backend
) -> float | None:
    """Mean Dice of validation cases with the one less that with the other; None without data."""
    try:
        facts = _some(_facts_of(run, run.load_splits().validation), VALIDATION_CASES)
    except RunError:
        return None
    scores = [_mean_dice(plan, facts, network, backend) for backend in (before, after)]
    return None if None in scores else scores[0] - scores[1]  # type: ignore[operator]


def _mean_dice(
    plan: Plan, facts: Sequence[CaseFacts], network: Network, backend: Backend
) -> float | None:
    space, found = plan.preprocessing.space, list[float]()
    settings = TileSettings(shape=plan.tile_shape)
    for fact in facts:
        sample = plan.preprocessing.load(fact.case)
        image = sample.normalization.apply(sample.image)
        swapped = Computed(backend, network.margin, network.legal_size)
        working = predict_probabilities(swapped, image, space, settings)
        classes = space.decode(plan.preprocessing.restore(working, sample.geometry))
        truth = read_classes(fact.case, space)
        assert truth is not None, "a validation case has a mask"
        counts: list[Counts] = [count_overlap(classes, truth, region) for region in space.scored]
        found += [value for value in map(dice, counts) if value is not None]
    return sum(found) / len(found) if found else None


def _tiles_or_noise(run: Run, plan: Plan, network: Network) -> list[np.ndarray]:
    """Tiles of training images; without these, noise of the same kind serves to measure speed."""
    try:
        return list(calibration_tiles(run, plan, network))
    except RunError:
        shape = _tile_shape(plan, network, plan.tile_shape)
        rng = np.random.default_rng(0)
        channels = plan.preprocessing.channels
        return [rng.standard_normal((1, channels, *shape), dtype=np.float32)]


def _tile_of(plan: Plan, fact: CaseFacts, network: Network) -> np.ndarray:
    """The middle of a case."""
    sample = plan.preprocessing.load(fact.case)
    image = sample.normalization.apply(sample.image)
    shape = _tile_shape(plan, network, image.shape[1:])
    after = [max(0, tile - size) for tile, size in zip(shape, image.shape[1:], strict=True)]
    padded = pad_mirrored(image, [0] * len(after), after)
    middle = tuple(
        slice((size - tile) // 2, (size - tile) // 2 + tile)
        for size, tile in zip(padded.shape[1:], shape, strict=True)
    )
    return np.ascontiguousarray(padded[(slice(None), *middle)])[None]


def _tile_shape(plan: Plan, network: Network, size: Sequence[int]) -> tuple[int, ...]:
    margin = network.margin
    return tuple(
        network.legal_size(min(own, tile, TILE_PX) + 2 * margin)
        for own, tile in zip(size, plan.tile_shape, strict=True)
    )


def _facts_of(run: Run, ids: Sequence[str]) -> list[CaseFacts]:
    wanted = set(ids)
    return [fact for fact in run.load_cases() if fact.case.id in wanted]


def _some(facts: Sequence[CaseFacts], most: int) -> list[CaseFacts]:
    """Evenly spread."""
    return list(facts[:: max(1, len(facts) // most)])[:most]


def _load(path: Path) -> Selection | None:
    try:
        return config.from_dict(Selection, json.loads(path.read_text()), source=str(path))
    except (OSError, ValueError, ConfigError):
        return None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far the predictions of two backends lie apart."""

    largest_probability: float
    """Largest difference of a class probability in any pixel."""

    changed_share: float
    """Share of pixels whose class differs."""

    tiles: int
    """Tiles seen."""


def compare(
    reference: Backend, other: Backend, tiles: Iterable[np.ndarray], space: LabelSpace
) -> Difference:
    """Predicts the same tiles with both.

    Shapes:
        tiles: batches (B, C, *T) float32, T legal.
    """
    largest, changed, pixels, seen = 0.0, 0, 0, 0
    for batch in tiles:
        first, second = (_predict(backend, batch, space) for backend in (reference, other))
        largest = max(largest, float(np.abs(first - second).max()))
        for one, two in zip(first, second, strict=True):
            classes = space.decode(one)
            changed += int((classes != space.decode(two)).sum())
            pixels, seen = pixels + classes.size, seen + 1
    return Difference(
        largest_probability=largest, changed_share=changed / max(1, pixels), tiles=seen
    )


def measure_speed(
    backends: Sequence[Backend], tiles: np.ndarray, *, rounds: int = 5
) -> dict[str, float]:
    """Median seconds of each backend, by name; they take turns, so that a busy machine is fair.

    Args:
        rounds: Turns of each, after one that does not count.

    Shapes:
        tiles: (B, C, *T) float32, T legal.
    """
    image = torch.from_numpy(np.ascontiguousarray(tiles))
    times: dict[str, list[float]] = {backend.name: [] for backend in backends}
    for _ in range(1 + rounds):
        for backend in backends:
            started = time.perf_counter()
            backend.logits(image)[..., :1].cpu()  # Waits for an accelerator.
            times[backend.name].append(time.perf_counter() - started)
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def _predict(backend: Backend, tiles: np.ndarray, space: LabelSpace) -> np.ndarray:
    """(B, C, *T) -> (B, K, *T'), probabilities in float32."""
    logits = backend.logits(torch.from_numpy(np.ascontiguousarray(tiles)))
    return space.probabilities(logits).cpu().numpy()
