"""Preprocessed cases, kept in memory if they fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import overload

import numpy as np

from ushape import io
from ushape.config import AUTO
from ushape.data.preprocessing import OnRead, Preprocessing, by_group
from ushape.data.reading import read_classes, read_first_file
from ushape.data.spacing import enlargement
from ushape.errors import DataError
from ushape.types import Case, CaseFacts, Sample


class SampleStore(Sequence[Sample]):
    """Samples of some cases, in order.

    Args:
        keep: Whether `load_all` keeps the samples in memory; otherwise each access reads files.
    """

    def __init__(self, cases: Sequence[Case], preprocessing: Preprocessing, *, keep: bool):
        self.cases, self.preprocessing, self.keep = tuple(cases), preprocessing, keep
        self._companions = by_group(cases)
        self._samples: list[Sample] | None = None

    def load_all(self, threads: int, on_read: OnRead | None = None) -> None:
        """Load all samples that are kept, before worker processes are forked.

        Args:
            on_read: Receives each image that is read, from several threads.

        Raises:
            DataError: if cases cannot be loaded; it names all of them.
        """
        if not self.keep:
            self._measure_files()
            return
        with ThreadPoolExecutor(threads) as pool:
            outcomes = list(pool.map(partial(self._try_load, on_read=on_read), self.cases))
        failures = [outcome for outcome in outcomes if isinstance(outcome, DataError)]
        if failures:
            raise join_errors(failures)
        self._samples = [outcome for outcome in outcomes if isinstance(outcome, Sample)]

    def _measure_files(self) -> None:
        """Measure divided images that are normalized by their own pixels, once for all workers."""
        preprocessing = self.preprocessing
        if preprocessing.normalization is None and not preprocessing.needs_group:
            divided = {(case.image, case.mpp) for case in self.cases if case.box is not None}
            for path, mpp in sorted(divided, key=str):
                preprocessing.measure_file(path, mpp)

    def file_classes(self, index: int) -> np.ndarray:
        """Return the classes of a case on the grid of its file; the mask is read if necessary."""
        kept = self._samples[index] if self._samples is not None else None
        if kept is not None and kept.geometry.is_identity:
            classes = kept.classes
        else:
            classes = read_classes(self.cases[index], self.preprocessing.space)
        assert classes is not None, "only annotated cases are stored"
        return classes

    def _load(self, case: Case, on_read: OnRead | None = None) -> Sample:
        return self.preprocessing.load(case, self._companions[case.group], on_read)

    def _try_load(self, case: Case, on_read: OnRead | None) -> Sample | DataError:
        try:
            return self._load(case, on_read)
        except DataError as error:
            return error

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if self._samples is not None:
            return self._samples[index]
        return self._load(self.cases[index])

    def __len__(self) -> int:
        return len(self.cases)


def join_errors(failures: Sequence[DataError], most: int = 10) -> DataError:
    """Combine errors into one that lists them all, with the hint of the first."""
    if len(failures) == 1:
        return failures[0]
    lines = [f"{len(failures)} cases cannot be used:"]
    lines += [f"  {error.message}" for error in failures[:most]]
    if len(failures) > most:
        lines.append(f"  ... and {len(failures) - most} more")
    return DataError("\n".join(lines), code="unusable_cases", hint=failures[0].hint)


KEEP_SHARE = 0.25
"""Fraction of the main memory that preprocessed cases may fill."""


def load_cases(
    facts: Sequence[CaseFacts],
    preprocessing: Preprocessing,
    dims: int,
    *,
    memory_bytes: float,
    threads: int,
    on_read: OnRead | None = None,
    patch_source: str = AUTO,
) -> SampleStore:
    """Return a store of the cases, read into memory if `are_kept` says so.

    Args:
        on_read: Receives each image that is read, from several threads.
        patch_source: As for `are_kept`.
    """
    keep = are_kept(facts, preprocessing, dims, memory_bytes, patch_source)
    store = SampleStore([fact.case for fact in facts], preprocessing, keep=keep)
    store.load_all(threads, on_read)
    return store


def are_kept(
    facts: Sequence[CaseFacts],
    preprocessing: Preprocessing,
    dims: int,
    memory_bytes: float,
    patch_source: str,
) -> bool:
    """Return whether preprocessed cases are kept in memory.

    Args:
        patch_source: memory or files: regardless of whether the cases fit; auto: as determined by
            `fits_in_memory`.
    """
    if patch_source != AUTO:
        return patch_source == "memory"
    return fits_in_memory(facts, preprocessing, dims, memory_bytes)


def fits_in_memory(
    facts: Sequence[CaseFacts], preprocessing: Preprocessing, dims: int, memory_bytes: float
) -> bool:
    """Return whether preprocessed cases fit into a quarter of the main memory."""
    return memory_of(facts, preprocessing, dims) < KEEP_SHARE * memory_bytes


def memory_of(facts: Sequence[CaseFacts], preprocessing: Preprocessing, dims: int) -> float:
    """Return about how many bytes preprocessed cases take."""
    pixels = sum(_working_pixels(fact, preprocessing, dims) for fact in facts)
    return pixels * (2 * preprocessing.sample_channels + 1 + 4 * preprocessing.space.has_distance)


def _working_pixels(fact: CaseFacts, preprocessing: Preprocessing, dims: int) -> float:
    """Return about how many pixels the network receives of a case."""
    config = preprocessing.config
    if config.shape is None:
        files = sum(fact.class_pixels) * enlargement(fact.case, config.common_spacing_mm)
        return files / math.prod(config.downscale_factors(dims))
    slices = _depth(fact.case) if preprocessing.by_slice else 1
    return slices * math.prod(config.shape)


def _depth(case: Case) -> int:
    """Return the number of slices of a volume, from its header if possible."""
    size = io.read_size(case.image)
    return size[0] if size else read_first_file(case).array.shape[1]
