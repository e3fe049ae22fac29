"""Mapping from mask values to the channels of the network, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ushape.errors import ConfigError, DataError
from ushape.labels.colors import color_text, colors_of, distances

if TYPE_CHECKING:
    from torch import Tensor

    from ushape.types import MaskEncoding

IGNORE = 255
"""Class index of pixels that are excluded from loss and scores."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """One or more classes under one name."""

    name: str
    classes: tuple[int, ...]
    """Class indices; the first one is written to predicted masks."""

    def of(self, label_map: np.ndarray) -> np.ndarray:
        """Return where a label map (*S) contains the region, (*S) bool."""
        if len(self.classes) == 1:
            return np.asarray(label_map == self.classes[0])
        return np.isin(label_map, self.classes)


@dataclass(frozen=True, kw_only=True)
class LabelSpace:
    """Mapping from mask values to network channels and back.

    Two classes have one sigmoid channel; more classes (or two with `softmax`) have one softmax
    channel each; regions have one sigmoid channel each.
    """

    values: tuple[int, ...]
    """Mask value (or color code) of each class, background first; written to predicted masks."""

    names: tuple[str, ...]
    ignore: int | None = None
    threshold: int | None = None
    softmax: bool = False
    regions: tuple[Region, ...] = ()
    """Overlapping regions, the largest first; empty: each pixel has one class."""

    colors: tuple[int, ...] | None = None
    """Color code of each class, if the pixels of mask files are compared by the color that they
    show, which is independent of the encoding; None if they are compared by their value."""

    further_values: tuple[tuple[int, int], ...] = ()
    """Additional mask values with the index of their class, from masks in another encoding. They
    are color codes if `colors` is set."""

    nearest: bool = False
    """Whether pixels with another value belong to the class with the nearest value or color."""

    has_instances: bool | None = None
    """Whether masks mark individual objects, in addition to their class or by their values; null:
    yes if the threshold is 1, which is how values that number objects are read, and a mask has
    several."""

    has_distance: bool = False
    """Whether the network has an additional output after the K channels: the distance to the border
    of the object, 0 to 1, see `transforms.object_distance`."""

    def __post_init__(self) -> None:
        if len(self.names) != len(self.values):
            raise ConfigError(
                f"There are {len(self.values)} classes, but labels.names has {len(self.names)}.",
                code="class_count_mismatch",
                hint="Set a name for every class, background first.",
            )

    @property
    def states_objects(self) -> bool:
        """Whether the annotated objects are those marked in masks, not connected components."""
        return self.threshold == 1 if self.has_instances is None else self.has_instances

    @property
    def numbers_objects(self) -> bool:
        """Whether mask values from the threshold on may be the numbers of objects."""
        return self.threshold is not None and self.states_objects

    def is_object_id(self, value: int) -> bool:
        """Return whether a mask value is the number of an object, if masks number them."""
        return self.threshold is not None and value >= self.threshold and value != self.ignore

    @property
    def is_binary(self) -> bool:
        """Whether there is a single sigmoid channel for the foreground."""
        return len(self.values) == 2 and not self.softmax and not self.regions

    @property
    def is_exclusive(self) -> bool:
        """Whether the channels exclude each other (softmax), or are independent (sigmoid)."""
        return not (self.is_binary or self.regions)

    @property
    def scored(self) -> tuple[Region, ...]:
        """The scored regions: each foreground class, or each region."""
        return self.regions or tuple(
            Region(name=name, classes=(index,)) for index, name in enumerate(self.names) if index
        )

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the K channels."""
        return self.names if self.is_exclusive else tuple(region.name for region in self.scored)

    @property
    def channels(self) -> int:
        """Number K of channels."""
        return len(self.channel_names)

    @property
    def outputs(self) -> int:
        """Number of outputs of the network: K channels, and one for the distance if it has it."""
        return self.channels + self.has_distance

    @property
    def foreground(self) -> slice:
        """Slice of the foreground channels."""
        return slice(1, None) if self.is_exclusive else slice(0, None)

    @property
    def values_are_colors(self) -> bool:
        """Whether the mask values are color codes."""
        return self.colors is not None and self.colors == self.values

    def show_value(self, value: int) -> str:
        """Return a mask value as text; colors as "#rrggbb"."""
        return color_text(value) if self.values_are_colors else str(value)

    def classes_of(self, codes: np.ndarray, encoding: MaskEncoding | None = None) -> np.ndarray:
        """Convert mask values to class indices.

        Args:
            encoding: Encoding of the file; required if masks are compared by color.

        Shapes:
            codes: (*S), integer mask values.
            returns: (*S) uint8; IGNORE for the ignored value.

        Raises:
            DataError: if a value is not a class.
        """
        if self.colors is not None and encoding is not None:
            codes = colors_of(codes, encoding)
        if self.threshold is not None:
            classes = np.asarray(codes >= self.threshold).astype(np.uint8)
            if self.ignore is not None:
                classes[codes == self.ignore] = IGNORE
            return classes
        known, meaning = self._lookup
        slot = np.searchsorted(known, codes).clip(max=len(known) - 1)
        is_unknown = known[slot] != codes
        classes = meaning[slot]
        if is_unknown.any():
            others, counts = np.unique(codes[is_unknown], return_counts=True)
            if not self.nearest:
                raise self._unknown_value_error(others.tolist(), int(counts.sum()))
            nearest = distances(others, known, are_colors=self.colors is not None).argmin(axis=1)
            place = np.searchsorted(others, codes[is_unknown])
            classes[is_unknown] = meaning[nearest][place]
        return classes

    def unknown_values(
        self, values: Iterable[int], encoding: MaskEncoding | None = None
    ) -> list[int]:
        """Return the mask values of a file that are not classes.

        Args:
            encoding: Encoding of the file; required if masks are compared by color.
        """
        if self.threshold is not None or self.nearest:
            return []
        stored = np.array(list(values), dtype=np.int64)
        is_shown = self.colors is not None and encoding is not None
        codes = colors_of(stored, encoding) if is_shown and encoding is not None else stored
        unknown: list[int] = stored[~np.isin(codes, self._lookup[0])].tolist()
        return unknown

    def class_pixels(
        self, value_counts: Mapping[int, int], encoding: MaskEncoding | None = None
    ) -> tuple[int, ...]:
        """Return the number of pixels of each class; pixels of the ignored value are not counted.

        Args:
            value_counts: Number of pixels of each mask value.
            encoding: Encoding of the file; required if masks are compared by color.

        Raises:
            DataError: if a value is not a class.
        """
        pixels = np.zeros(256, dtype=np.int64)
        codes = np.fromiter(value_counts, dtype=np.int64)
        np.add.at(
            pixels,
            self.classes_of(codes, encoding),
            np.fromiter(value_counts.values(), dtype=np.int64),
        )
        return tuple(pixels[: len(self.values)].tolist())

    def _unknown_value_error(self, unknown: Sequence[int], pixels: int) -> DataError:
        return DataError(
            f"Masks contain values that are not classes: {self._shorten(unknown)} in {pixels} "
            f"pixels (the classes are {self._shorten(self.colors or self.values)}).",
            code="unknown_mask_value",
            hint="List all classes with --set labels.values=[...], set the ignored value with "
            "--set labels.ignore=..., or apply --set labels.threshold=...",
        )

    def values_of(self, label_map: np.ndarray) -> np.ndarray:
        """Convert class indices to mask values; inverse of `classes_of` without a threshold.

        Shapes:
            label_map: (*S).
            returns: (*S), in the smallest unsigned type that holds all values.
        """
        known = [*self.values, 0 if self.ignore is None else self.ignore]
        table = np.zeros(256, dtype=np.result_type(*map(np.min_scalar_type, known)))
        table[: len(self.values)] = self.values
        table[IGNORE] = self.values[0] if self.ignore is None else self.ignore
        return table[label_map]

    def encode(self, label_map: Tensor) -> tuple[Tensor, Tensor]:
        """Convert a label map to the target and weight of the loss.

        Shapes:
            label_map: (*S) on the CPU, class indices or IGNORE.
            returns: target (K, *S) float32, 0 or 1; weight (1, *S) float32, 0 where ignored.
        """
        # In NumPy: torch would start all its threads for few pixels, which is ten times slower.
        import torch

        pixels = label_map.numpy()
        is_known = pixels != IGNORE
        weight = is_known[None].astype(np.float32)
        if self.is_exclusive:  # One pass, however many classes there are.
            target = np.zeros((len(self.values), pixels.size), dtype=np.float32)
            places = np.flatnonzero(is_known)
            target[pixels.ravel()[places], places] = 1
            target = target.reshape(-1, *pixels.shape)
        else:
            target = np.stack([region.of(pixels) for region in self.scored]).astype(np.float32)
        return torch.from_numpy(target), torch.from_numpy(weight)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Convert logits (B, K, *S) to probabilities (B, K, *S); also those of all outputs."""
        if not self.is_exclusive:
            return logits.sigmoid()
        if logits.shape[1] == self.channels:
            return logits.softmax(dim=1)
        import torch

        own = logits[:, : self.channels].softmax(dim=1)
        return torch.cat([own, logits[:, self.channels :].sigmoid()], dim=1)

    def probabilities_of(self, logits: np.ndarray) -> np.ndarray:
        """Convert logits (B, K, *S) to probabilities, for predictions.

        They equal those of `probabilities` except for rounding. Programs without PyTorch compute
        the same numbers in the same way.
        """
        if not self.is_exclusive:
            return _sigmoid(logits)
        own, rest = logits[:, : self.channels], logits[:, self.channels :]
        shares = own - own.max(axis=1, keepdims=True)
        np.exp(shares, out=shares)
        shares /= shares.sum(axis=1, keepdims=True)
        return np.concatenate([shares, _sigmoid(rest)], axis=1) if rest.size else shares

    def split_outputs(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the probabilities (K, *S) and the distance (*S), if there is one.

        Shapes:
            outputs: (K, *S) or (K + 1, *S).
        """
        own = outputs[: self.channels]
        return own, outputs[self.channels] if len(outputs) > self.channels else None

    def decode(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the most likely class.

        Shapes:
            probabilities: (K, *S), or all outputs of the network.
            returns: (*S) uint8 class indices.
        """
        probabilities = probabilities[: self.channels]
        if self.is_exclusive:
            return probabilities.argmax(axis=0).astype(np.uint8)
        classes = np.zeros(probabilities.shape[1:], dtype=np.uint8)
        for region, probability in zip(self.scored, probabilities, strict=True):
            classes[probability >= 0.5] = region.classes[0]
        return classes

    def _shorten(self, values: Sequence[int]) -> str:
        return values_text(values, color_text if self.colors is not None else str)

    @cached_property
    def _lookup(self) -> tuple[np.ndarray, np.ndarray]:
        """Known mask values in increasing order, and the class index of each."""
        meaning = {} if self.ignore is None else {self.ignore: IGNORE}
        meaning |= dict(self.further_values)
        meaning |= {value: index for index, value in enumerate(self.colors or self.values)}
        known = sorted(meaning)
        return np.asarray(known), np.asarray([meaning[value] for value in known], dtype=np.uint8)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # 1 / (1 + infinity) is 0.
        shares = np.exp(np.negative(logits))
    shares += 1
    return np.divide(np.float32(1), shares, out=shares)


def values_text(
    values: Sequence[int] | np.ndarray, show: Callable[[int], str] = str, most: int = 6
) -> str:
    """Return the first mask values as text, separated by commas."""
    shown = ", ".join(show(int(value)) for value in list(values)[:most])
    return f"{shown}, ..." if len(values) > most else shown
