"""Map the mask values of the user's files to the channels of the network, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ushape.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = 255
"""Class index of pixels that are excluded from loss and scores."""

MAX_CLASSES = 64
"""Largest number of classes; more distinct mask values are object ids, soft edges or a photo."""


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Classes of the mask values."""

    values: tuple[int, ...] | None = None
    """Mask values in class order, background first; null: the values found, in increasing order."""

    names: tuple[str, ...] | None = None
    """Name of each class, background first; null: derived from the values."""

    ignore: int | None = None
    """Mask value of pixels that are excluded from loss and scores."""

    threshold: int | None = None
    """Lowest mask value that is foreground; lower values are background. Use it for masks with soft
    edges, or with object ids (threshold 1)."""

    softmax: bool = False
    """Whether two classes have one output channel each; false: one channel, for the foreground."""

    regions: dict[str, tuple[int, ...]] | None = None
    """Overlapping regions from the largest to the smallest, with the mask values that each
    contains, e.g. {whole: [1, 2, 3], core: [2, 3]}. Each is learned and scored separately. In
    predicted masks they are drawn in this order, each with the value that is in no later region."""

    def __post_init__(self) -> None:
        if self.regions is not None and (self.threshold is not None or self.softmax):
            raise ConfigError(
                "labels.regions cannot be combined with labels.threshold or labels.softmax.",
                code="settings_conflict",
                hint="Remove one of them: regions overlap, so each has a channel of its own.",
            )
        if self.threshold is not None and self.values is not None:
            raise ConfigError(
                "labels.threshold and labels.values cannot be combined.",
                code="settings_conflict",
                hint="Remove labels.values: a threshold defines two classes.",
            )
        if self.values is not None and len(set(self.values)) < 2:
            raise ConfigError(
                f"labels.values is {self.values}, which names fewer than two classes.",
                code="too_few_classes",
                hint="Name the background first, e.g. --set labels.values=[0,255].",
            )
        if self.values is not None and self.ignore in self.values:
            raise ConfigError(
                f"labels.ignore is {self.ignore}, which labels.values lists as a class.",
                code="settings_conflict",
                hint="A value can be a class or be ignored, not both.",
            )


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

    def __post_init__(self) -> None:
        if len(self.names) != len(self.values):
            raise ConfigError(
                f"labels.names has {len(self.names)} names for {len(self.values)} classes.",
                code="class_count_mismatch",
                hint="Name every class, background first.",
            )

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
    def foreground(self) -> slice:
        """Slice of the foreground channels."""
        return slice(1, None) if self.is_exclusive else slice(0, None)

    def classes_of(self, codes: np.ndarray) -> np.ndarray:
        """Convert mask values to class indices.

        Shapes:
            codes: (*S), integer mask values.
            returns: (*S) uint8; IGNORE for the ignored value.

        Raises:
            DataError: if a value is not a class.
        """
        ignored = codes == self.ignore if self.ignore is not None else None
        if self.threshold is not None:
            classes = (codes >= self.threshold).astype(np.uint8)
        else:
            order, sorted_values = self._lookup
            slot = np.searchsorted(sorted_values, codes).clip(max=len(sorted_values) - 1)
            known = sorted_values[slot] == codes
            if ignored is not None:
                known |= ignored
            if not known.all():
                unknown, counts = np.unique(codes[~known], return_counts=True)
                raise self._unknown_value_error(unknown.tolist(), int(counts.sum()))
            classes = order[slot]
        if ignored is not None:
            classes[ignored] = IGNORE
        return classes

    def class_pixels(self, value_counts: Mapping[int, int]) -> tuple[int, ...]:
        """Return the number of pixels of each class.

        Args:
            value_counts: Number of pixels of each mask value.

        Raises:
            DataError: if a value is not a class.
        """
        known = {*self.values, self.ignore}
        unknown = [value for value in value_counts if value not in known]
        if unknown and self.threshold is None:
            raise self._unknown_value_error(sorted(unknown), sum(value_counts[v] for v in unknown))
        pixels = np.zeros(256, dtype=np.int64)
        classes = self.classes_of(np.fromiter(value_counts, dtype=np.int64))
        np.add.at(pixels, classes, np.fromiter(value_counts.values(), dtype=np.int64))
        return tuple(pixels[: len(self.values)].tolist())

    def _unknown_value_error(self, unknown: Sequence[int], pixels: int) -> DataError:
        return DataError(
            f"Masks contain values that are not classes: {_shorten(unknown)} in {pixels} pixels "
            f"(the classes are {_shorten(self.values)}).",
            code="unknown_mask_value",
            hint="List all classes with --set labels.values=[...], name the ignored value with "
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
        if self.is_exclusive:
            shown = [pixels == index for index in range(len(self.values))]
        else:
            shown = [region.of(pixels) for region in self.scored]
        target = np.stack(shown).astype(np.float32)
        weight = (pixels[None] != IGNORE).astype(np.float32)
        return torch.from_numpy(target), torch.from_numpy(weight)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Convert logits (B, K, *S) to probabilities (B, K, *S)."""
        return logits.softmax(dim=1) if self.is_exclusive else logits.sigmoid()

    def decode(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the most likely class.

        Shapes:
            probabilities: (K, *S).
            returns: (*S) uint8 class indices.
        """
        if self.is_exclusive:
            return probabilities.argmax(axis=0).astype(np.uint8)
        classes = np.zeros(probabilities.shape[1:], dtype=np.uint8)
        for region, probability in zip(self.scored, probabilities, strict=True):
            classes[probability >= 0.5] = region.classes[0]
        return classes

    @cached_property
    def _lookup(self) -> tuple[np.ndarray, np.ndarray]:
        """Class indices and mask values, sorted by value."""
        order = np.argsort(self.values)
        return order.astype(np.uint8), np.asarray(self.values)[order]


def find_label_space(counts: Mapping[int, int], config: LabelConfig) -> tuple[LabelSpace, str]:
    """Decide which mask value is which class.

    The values named in the config are used; else a threshold; else all values found, the lowest of
    which (0, black) is background.

    Args:
        counts: Number of pixels of each mask value over all annotated cases.
        config: The user's settings.

    Returns:
        The label space, and the applied rule in words.

    Raises:
        DataError: if the masks have a single value, or too many values to be classes.
        ConfigError: if the regions do not fit the values.
    """
    found = sorted(value for value in counts if value != config.ignore)
    if config.threshold is not None:
        values: Sequence[int] = (0, 255 if max(found, default=0) > 1 else 1)
        rule = f"values from {config.threshold} are foreground (labels.threshold)"
    elif config.values is not None:
        values = config.values
        rule = "classes as named in labels.values"
    else:
        values = found
        rule = f"the lowest value, {found[0] if found else '-'}, is background"
        _refuse_impossible(values, counts)
    names = config.names or _default_names(values)
    space = LabelSpace(
        values=tuple(values),
        names=tuple(names),
        ignore=config.ignore,
        threshold=config.threshold,
        softmax=config.softmax,
        regions=_find_regions(config.regions or {}, values),
    )
    return space, rule


def _find_regions(
    regions: Mapping[str, Sequence[int]], values: Sequence[int]
) -> tuple[Region, ...]:
    """Convert regions of mask values to regions of class indices, each with its own class first."""
    found, later = [], [set(own) for own in regions.values()]
    for place, (name, own) in enumerate(regions.items()):
        if unknown := sorted(set(own) - set(values)):
            raise ConfigError(
                f"labels.regions: {name} contains the value {unknown[0]}, which is not a class.",
                code="unknown_class",
                hint=f"The classes are {_shorten(values)}.",
            )
        alone = set(own).difference(*later[place + 1 :])
        if len(alone) != 1:
            raise ConfigError(
                f"labels.regions: {name} has {len(alone)} values that no later region "
                "contains; it needs exactly one, which is written to predicted masks.",
                code="regions_ambiguous",
                hint="List large regions first: {whole: [1, 2, 3], core: [2, 3], active: [3]}.",
            )
        order = [*alone, *(value for value in own if value not in alone)]
        index = {value: number for number, value in enumerate(values)}
        found.append(Region(name=name, classes=tuple(index[value] for value in order)))
    return tuple(found)


def _refuse_impossible(values: Sequence[int], counts: Mapping[int, int]) -> None:
    if len(values) < 2:
        raise DataError(
            f"The masks contain a single value ({_shorten(values) or 'none'}), so there is nothing "
            "to learn.",
            code="single_mask_value",
            hint="Check that the masks belong to these images, and that objects are annotated.",
        )
    if len(values) > MAX_CLASSES:
        raise DataError(
            f"The masks contain {len(values)} different values, too many to be classes.\n"
            f"{value_histogram(counts)}",
            code="too_many_mask_values",
            hint="For soft edges or JPEG files: --set labels.threshold=128. For object ids: "
            "--set labels.threshold=1 makes every object foreground.",
        )


def value_histogram(counts: Mapping[int, int], most: int = 8) -> str:
    """Return the most frequent mask values with their share of all pixels, one per line."""
    total = sum(counts.values())
    common = sorted(counts.items(), key=lambda item: -item[1])
    lines = [f"  {value}: {count / total:.1%}" for value, count in common[:most]]
    if len(common) > most:
        rest = sum(count for _, count in common[most:])
        lines.append(f"  {len(common) - most} other values: {rest / total:.1%}")
    return "\n".join(lines)


def _default_names(values: Sequence[int]) -> tuple[str, ...]:
    if len(values) == 2:
        return ("background", "foreground")
    return ("background", *(f"class {value}" for value in values[1:]))


def _shorten(values: Sequence[int] | np.ndarray, most: int = 6) -> str:
    shown = ", ".join(str(value) for value in list(values)[:most])
    return f"{shown}, ..." if len(values) > most else shown
