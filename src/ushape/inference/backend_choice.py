"""Choose the fastest backend for a run on this machine, from measurements that are stored."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ushape import config
from ushape.config import resolved
from ushape.data.preprocessing import by_group
from ushape.data.reading import read_classes
from ushape.data.slices import stack_slices
from ushape.errors import RunError, UshapeError
from ushape.inference.backends import installed, open_backend
from ushape.inference.network import Network, Precision
from ushape.inference.slices import predict_preprocessed
from ushape.inference.sliding_window import TileSettings
from ushape.io.files import read_sealed_json, write_sealed_json
from ushape.labels import LabelSpace
from ushape.metrics.overlap import count_overlap, dice, mean_known
from ushape.models import legal_shape
from ushape.planning.hardware import Machine
from ushape.planning.plan import Plan
from ushape.planning.run import Run
from ushape.transforms.resampling import pad_mirrored
from ushape.types import Case, Sample, select_cases

LONGEST_TILE_PX = 512
"""Longest side of the tiles on which backends are measured."""

CALIBRATION_CASES = 8
"""Number of training cases on which int8 is calibrated and backends are compared."""

VALIDATION_CASES = 12
"""Largest number of validation cases on which the Dice of int8 is measured."""

MAX_CHANGED_SHARE = 0.002
"""Largest share of pixels whose class a backend may change."""

MAX_LOST_DICE = 0.002
"""Largest loss of validation Dice that is accepted for int8."""

SLOW_TO_START = ("compile",)
"""Backends whose start takes long; they are used only if the user names them."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Difference between the predictions of two backends."""

    largest_probability: float
    """Largest difference of a class probability in any pixel."""

    changed_share: float
    """Share of pixels whose class differs."""

    tiles: int
    """Number of tiles compared."""


@dataclass(frozen=True, kw_only=True)
class BackendTiming:
    """Speed and accuracy of a backend on this machine."""

    name: str
    tile_s: float
    difference: Difference
    """Difference from float32 in PyTorch."""

    lost_dice: float | None = None
    """Validation Dice of PyTorch minus that of this backend; None if it was not measured."""

    @property
    def line(self) -> str:
        lost = "" if self.lost_dice is None else f", validation Dice {-self.lost_dice:+.4f}"
        return (
            f"  {self.name}: {1000 * self.tile_s:.0f} ms per tile, probabilities differ by up to "
            f"{self.difference.largest_probability:.3f}, classes in "
            f"{self.difference.changed_share:.3%} of the pixels{lost}."
        )

    @property
    def is_accurate(self) -> bool:
        """Whether the backend changes so few pixels that it may be chosen."""
        if self.name.endswith("int8"):
            return self.lost_dice is not None and self.lost_dice < MAX_LOST_DICE
        return self.difference.changed_share <= MAX_CHANGED_SHARE


@dataclass(frozen=True, kw_only=True)
class BackendChoice:
    """The chosen backend, and the measurements that led to it."""

    chosen: str
    machine: str
    packages: tuple[str, ...]
    """Backends that were installed."""

    measured: tuple[BackendTiming, ...]

    @property
    def lines(self) -> list[str]:
        return [f"Backend {self.chosen} is the fastest of:", *(one.line for one in self.measured)]


def calibration_tiles(run: Run, plan: Plan, module: nn.Module) -> Iterator[np.ndarray]:
    """Yield preprocessed tiles (1, C, *T) of training images.

    Raises:
        RunError: if the training data are missing.
    """
    cases = _cases_of(run, run.load_splits().train)
    load = _loader(plan, cases)
    for case in _spread(cases, CALIBRATION_CASES):
        yield _middle_tile(plan, load(case), module)


def select_backend(
    run: Run, plan: Plan, module: nn.Module, machine: Machine, precision: Precision
) -> BackendChoice:
    """Choose the fastest backend that changes few pixels; each machine is measured once.

    int8 is measured if the training data are available, and chosen only if validation Dice
    falls by less than MAX_LOST_DICE.
    """
    path = run.folder / "backends" / "choice.json"
    candidates = tuple(name for name in installed() if name not in SLOW_TO_START)
    known = _load_choice(path)
    if known and (known.machine, known.packages) == (machine.name, candidates):
        return known
    tiles = _tiles_or_noise(run, plan, module)
    reference = open_backend("torch", module, device=machine.device)
    opened: dict[str, Network] = {}
    for name in candidates:
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
            continue  # Not available for this device or this network.
    seconds = measure_speed(list(opened.values()), tiles[0])
    measured = []
    for name, network in opened.items():
        difference = compare_networks(reference, network, tiles, plan.preprocessing.space)
        lost = None
        if name.endswith("int8"):
            lost = _lost_dice(run, plan, opened["torch"], network)
        measured.append(
            BackendTiming(name=name, tile_s=seconds[name], difference=difference, lost_dice=lost)
        )
    allowed = [one for one in measured if one.is_accurate]
    chosen = min(allowed, key=lambda one: one.tile_s).name if allowed else "torch"
    found = BackendChoice(
        chosen=chosen, machine=machine.name, packages=candidates, measured=tuple(measured)
    )
    write_sealed_json(path, config.to_dict(found))
    return found


def compare_networks(
    reference: Network, other: Network, tiles: Iterable[np.ndarray], space: LabelSpace
) -> Difference:
    """Compare the predictions of two networks on the same tiles.

    Shapes:
        tiles: batches (B, C, *T) float32, T legal.
    """
    largest, changed, pixels, seen = 0.0, 0, 0, 0
    for batch in tiles:
        image = torch.from_numpy(np.ascontiguousarray(batch))
        first, second = (
            space.probabilities(network.logits(image)).numpy() for network in (reference, other)
        )
        largest = max(largest, float(np.abs(first - second).max()))
        for one, two in zip(first, second, strict=True):
            classes = space.decode(one)
            changed += int((classes != space.decode(two)).sum())
            pixels, seen = pixels + classes.size, seen + 1
    return Difference(
        largest_probability=largest, changed_share=changed / max(1, pixels), tiles=seen
    )


def measure_speed(
    networks: Sequence[Network], tiles: np.ndarray, *, rounds: int = 5
) -> dict[str, float]:
    """Return the median seconds of each network, by name of its backend.

    The networks are measured in turns, so that other load affects all of them alike.

    Args:
        rounds: Number of measurements of each network, after one that is not counted.

    Shapes:
        tiles: (B, C, *T) float32, T legal.
    """
    image = torch.from_numpy(np.ascontiguousarray(tiles))
    times: dict[str, list[float]] = {network.name: [] for network in networks}
    for _ in range(1 + rounds):
        for network in networks:
            started = time.perf_counter()
            network.logits(image)
            times[network.name].append(time.perf_counter() - started)
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def _lost_dice(run: Run, plan: Plan, before: Network, after: Network) -> float | None:
    """Return the validation Dice of one network minus that of another; None without data."""
    try:
        cases = _cases_of(run, run.load_splits().validated)
    except RunError:
        return None
    scores = [_validation_dice(plan, cases, network) for network in (before, after)]
    return None if None in scores else scores[0] - scores[1]  # type: ignore[operator]


def _validation_dice(plan: Plan, cases: Sequence[Case], network: Network) -> float | None:
    """Return the mean Dice of some of the validation cases."""
    space, found = plan.preprocessing.space, list[float | None]()
    settings, load = TileSettings(shape=plan.tile_shape), _loader(plan, cases)
    for case in _spread(cases, VALIDATION_CASES):
        sample = load(case)
        image = sample.normalization.apply(sample.image)
        (working,) = predict_preprocessed(network, [image], plan.preprocessing, settings)
        classes = space.decode(plan.preprocessing.restore(working, sample.geometry))
        truth = read_classes(case, space)
        assert truth is not None, "a validation case has a mask"
        found += [dice(count_overlap(classes, truth, region)) for region in space.scored]
    return mean_known(found)


def _tiles_or_noise(run: Run, plan: Plan, module: nn.Module) -> list[np.ndarray]:
    """Return tiles of training images, or noise of the same shape if the images are missing."""
    try:
        return list(calibration_tiles(run, plan, module))
    except RunError:
        shape = _tile_shape(plan, module, plan.tile_shape)
        rng = np.random.default_rng(0)
        channels = plan.preprocessing.input_channels
        return [rng.standard_normal((1, channels, *shape), dtype=np.float32)]


def _middle_tile(plan: Plan, sample: Sample, module: nn.Module) -> np.ndarray:
    """Return a tile (1, C, *T) from the middle of a case."""
    image = sample.normalization.apply(sample.image)
    if plan.preprocessing.by_slice:
        slices = resolved(plan.preprocessing.config.slices) or 1
        image = stack_slices(image, image.shape[1] // 2, slices)
    shape = _tile_shape(plan, module, image.shape[1:])
    after = [max(0, tile - size) for tile, size in zip(shape, image.shape[1:], strict=True)]
    padded = pad_mirrored(image, [0] * len(after), after)
    middle = tuple(
        slice((size - tile) // 2, (size - tile) // 2 + tile)
        for size, tile in zip(padded.shape[1:], shape, strict=True)
    )
    return np.ascontiguousarray(padded[(slice(None), *middle)])[None]


def _tile_shape(plan: Plan, module: nn.Module, size: Sequence[int]) -> tuple[int, ...]:
    margin: int = module.margin  # type: ignore[assignment]
    return legal_shape(
        module,
        [
            min(own, tile, LONGEST_TILE_PX) + 2 * margin
            for own, tile in zip(size, plan.tile_shape, strict=True)
        ],
    )


def _cases_of(run: Run, ids: Sequence[str]) -> list[Case]:
    return [fact.case for fact in select_cases(run.load_cases(), ids)]


def _loader(plan: Plan, cases: Sequence[Case]) -> Callable[[Case], Sample]:
    """Return a function that loads a case as training does, together with its group."""
    groups = by_group(cases)
    return lambda case: plan.preprocessing.load(case, groups[case.group])


def _spread(cases: Sequence[Case], most: int) -> list[Case]:
    """Return at most so many cases, evenly spread."""
    return list(cases[:: max(1, len(cases) // most)])[:most]


def _load_choice(path: Path) -> BackendChoice | None:
    """Return the stored choice, or None if there is none that can be used."""
    try:
        values = read_sealed_json(path, RunError, code="damaged_backend_choice", hint="")
        known = config.from_dict(BackendChoice, values, source=str(path))
    except UshapeError:
        return None
    return known if known.chosen in known.packages else None
