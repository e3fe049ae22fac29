"""Survey: one pass over all files, before anything is decided."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ushape import io
from ushape.data.prepare import mask_size_error, read_image, thin_out
from ushape.data.store import join_errors
from ushape.errors import DataError
from ushape.labels import LabelConfig, LabelSpace, find_label_space
from ushape.spatial.grid import resample_image
from ushape.types import Case, MaskEncoding

THUMBNAIL = 32
"""Side of a thumbnail in pixels."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one case's files say."""

    case: Case
    channels: int
    shape: tuple[int, ...]
    dtype: str
    thumbnail: np.ndarray
    """(THUMBNAIL, THUMBNAIL) float32, all channels averaged; the middle plane of a volume."""

    pixels: np.ndarray
    """(C, N), some evenly spread pixels as stored."""

    value_counts: dict[int, int]
    """Pixels of each mask value."""

    encoding: MaskEncoding


@dataclass(frozen=True, kw_only=True)
class Survey:
    """All looks, in the order of the cases, and the label space they lead to."""

    looks: tuple[Look, ...]
    space: LabelSpace
    rule: str
    """How the label space was found, in words."""

    @property
    def value_counts(self) -> Counter[int]:
        """Pixels of each mask value over all cases."""
        total: Counter[int] = Counter()
        for look in self.looks:
            total.update(look.value_counts)
        return total

    def class_pixels(self, look: Look) -> tuple[int, ...]:
        """Pixels of each class in a case."""
        pixels = np.zeros(256, dtype=np.int64)
        values = np.fromiter(look.value_counts, dtype=np.int64)
        counts = np.fromiter(look.value_counts.values(), dtype=np.int64)
        np.add.at(pixels, self.space.classes_of(values), counts)
        return tuple(pixels[: len(self.space.values)].tolist())

    def foreground_share(self, look: Look) -> float:
        """Share of a case's pixels that are of any foreground class, 0 to 1."""
        pixels = self.class_pixels(look)
        return sum(pixels[1:]) / max(1, sum(pixels))


def survey_cases(
    cases: Sequence[Case],
    labels: LabelConfig,
    *,
    threads: int,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Survey:
    """Reads every image and mask once.

    Args:
        on_progress: Called with the number of cases done.

    Raises:
        DataError: naming every case that cannot be used; different channel counts; mask
            values that make no sense.
    """
    looks: list[Look] = []
    failures: list[DataError] = []
    for done, outcome in enumerate(_look_at_all(cases, threads), start=1):
        if isinstance(outcome, DataError):
            failures.append(outcome)
        else:
            looks.append(outcome)
        on_progress(done)
    if failures:
        raise join_errors(failures)
    _refuse_mixed_channels(looks)

    total: Counter[int] = Counter()
    for look in looks:
        total.update(look.value_counts)
    space, rule = find_label_space(total, labels)
    survey = Survey(looks=tuple(looks), space=space, rule=rule)
    for look in looks:  # Values that are no class are named with their file.
        try:
            survey.class_pixels(look)
        except DataError as error:
            raise DataError(f"{look.case.mask}: {error.message}", hint=error.hint) from None
    return survey


def _look_at_all(cases: Sequence[Case], threads: int) -> Iterator[Look | DataError]:
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(_try_look, cases)


def _try_look(case: Case) -> Look | DataError:
    try:
        return _look_at(case)
    except DataError as error:
        return error


def _look_at(case: Case) -> Look:
    assert case.mask is not None, "only annotated cases are surveyed"
    image = read_image(case)
    mask = io.read_mask(case.mask)
    if mask.codes.shape != image.shape[1:]:
        raise mask_size_error(case, image.shape[1:], mask.codes.shape)
    values, counts = _count_values(mask.codes)
    return Look(
        case=case,
        channels=image.shape[0],
        shape=image.shape[1:],
        dtype=str(image.dtype),
        thumbnail=make_thumbnail(image),
        pixels=thin_out(image, at_most=2048).copy(),
        value_counts=dict(zip(values.tolist(), counts.tolist(), strict=True)),
        encoding=mask.encoding,
    )


def thumbnail_of(case: Case) -> np.ndarray:
    """A small grey picture of a case's image."""
    return make_thumbnail(read_image(case))


def make_thumbnail(image: np.ndarray) -> np.ndarray:
    """(C, *S) -> (THUMBNAIL, THUMBNAIL) float32: area averages of the mean channel."""
    plane = image if image.ndim == 3 else image[:, image.shape[1] // 2]
    step = max(1, min(plane.shape[1:]) // (4 * THUMBNAIL))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NaN in float images
        grey = plane[:, ::step, ::step].mean(axis=0, dtype=np.float32)
    small = resample_image(np.nan_to_num(grey)[None], (THUMBNAIL, THUMBNAIL))
    return np.asarray(small[0], dtype=np.float32)


def _count_values(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if codes.size and codes.min() >= 0 and codes.max() < 65_536:
        counts = np.bincount(codes.ravel())  # A hundred times faster than sorting.
        values = np.flatnonzero(counts)
        return values, counts[values]
    return np.unique(codes, return_counts=True)


def _refuse_mixed_channels(looks: Sequence[Look]) -> None:
    for what in ("channels", "dimensions"):
        found: dict[int, Look] = {}
        for look in looks:
            key = look.channels if what == "channels" else len(look.shape)
            found.setdefault(key, look)
        if len(found) > 1:
            listed = "; ".join(f"{key}: {look.case.image}" for key, look in sorted(found.items()))
            raise DataError(
                f"The images differ in their number of {what} ({listed}).",
                hint="Convert them to one kind, e.g. all grey or all RGB.",
            )
