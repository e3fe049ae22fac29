"""LabelSpace: the user's mask values on one side, network channels on the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ushape.errors import ConfigError, DataError

IGNORE = 255
"""Class index of pixels that have no say in loss and score."""

MAX_CLASSES = 64
"""More distinct values than this are object ids, soft edges or a photograph, not classes."""


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Which mask value means what."""

    values: tuple[int, ...] | None = None
    """Mask values in class order, background first; None: found in the masks, lowest first."""

    names: tuple[str, ...] | None = None
    """One name per class, background first; None: made from the values."""

    ignore: int | None = None
    """Mask value of pixels that have no say in loss and score."""

    threshold: int | None = None
    """Pixels of at least this value are foreground, all others background. For masks with
    soft edges, or with object ids (threshold 1)."""

    softmax: bool = False
    """Two classes get a channel each, as several do; false: one channel, foreground or not."""

    regions: dict[str, tuple[int, ...]] | None = None
    """Classes that overlap, from the largest to the smallest: the mask values that each unites,
    e.g. {whole: [1, 2, 3], core: [2, 3]}. Each is learned and scored by itself. A prediction is
    painted in this order, each with the one value of its own that no later region has."""

    def __post_init__(self) -> None:
        if self.regions is not None and (self.threshold is not None or self.softmax):
            raise ConfigError(
                "labels.regions beside labels.threshold or labels.softmax.",
                hint="Regions overlap, and each has a channel of its own: choose one of the two.",
            )
        if self.threshold is not None and self.values is not None:
            raise ConfigError(
                "labels.threshold and labels.values are both set.",
                hint="A threshold makes two classes by itself: leave labels.values out.",
            )
        if self.values is not None and len(set(self.values)) < 2:
            raise ConfigError(
                f"labels.values is {self.values}, which names fewer than two classes.",
                hint="Name the background first, e.g. --set labels.values=[0,255].",
            )
        if self.values is not None and self.ignore in self.values:
            raise ConfigError(
                f"labels.ignore is {self.ignore}, which labels.values names as a class.",
                hint="A value is either a class or ignored.",
            )


@dataclass(frozen=True, kw_only=True)
class Region:
    """Some classes under one name."""

    name: str
    classes: tuple[int, ...]
    """Class indices; the first is what its pixels are painted with."""

    def of(self, classes: np.ndarray) -> np.ndarray:
        """(*S) class indices -> (*S) bool."""
        if len(self.classes) == 1:
            return np.asarray(classes == self.classes[0])
        return np.isin(classes, self.classes)


@dataclass(frozen=True, kw_only=True)
class LabelSpace:
    """Translates mask values to network channels and back.

    Two classes become one sigmoid channel, more (or with `softmax`) one softmax channel each,
    regions one sigmoid channel each.
    """

    values: tuple[int, ...]
    """Mask value (or color code) of each class, background first. Written to predictions."""

    names: tuple[str, ...]
    ignore: int | None = None
    threshold: int | None = None
    softmax: bool = False
    regions: tuple[Region, ...] = ()
    """Classes that overlap, the largest first; none: each pixel is of one class."""

    def __post_init__(self) -> None:
        if len(self.names) != len(self.values):
            raise ConfigError(
                f"labels.names has {len(self.names)} names for {len(self.values)} classes.",
                hint="Name every class, background first.",
            )

    @property
    def is_binary(self) -> bool:
        """One channel, foreground or not."""
        return len(self.values) == 2 and not self.softmax and not self.regions

    @property
    def is_exclusive(self) -> bool:
        """Several channels of which one is right: softmax. Else each is right or wrong: sigmoid."""
        return not (self.is_binary or self.regions)

    @property
    def scored(self) -> tuple[Region, ...]:
        """What has a score: each foreground class, or each region."""
        return self.regions or tuple(
            Region(name=name, classes=(index,)) for index, name in enumerate(self.names) if index
        )

    @property
    def channel_names(self) -> tuple[str, ...]:
        """What each of the K channels is the probability of."""
        return self.names if self.is_exclusive else tuple(region.name for region in self.scored)

    @property
    def channels(self) -> int:
        """K, the number of network outputs."""
        return len(self.channel_names)

    @property
    def foreground(self) -> slice:
        """The channels that are foreground."""
        return slice(1, None) if self.is_exclusive else slice(0, None)

    def classes_of(self, codes: np.ndarray) -> np.ndarray:
        """Class index of every pixel.

        Shapes:
            codes: (*S), integer mask values.
            returns: (*S) uint8; IGNORE where the value is the ignored one.

        Raises:
            DataError: a value that is no class.
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
                strange, counts = np.unique(codes[~known], return_counts=True)
                raise self._no_classes(strange.tolist(), int(counts.sum()))
            classes = order[slot]
        if ignored is not None:
            classes[ignored] = IGNORE
        return classes

    def class_pixels(self, value_counts: Mapping[int, int]) -> tuple[int, ...]:
        """Pixels of each class.

        Args:
            value_counts: Pixels of each mask value.

        Raises:
            DataError: a value that is no class.
        """
        known = {*self.values, self.ignore}
        strange = [value for value in value_counts if value not in known]
        if strange and self.threshold is None:
            raise self._no_classes(sorted(strange), sum(value_counts[v] for v in strange))
        pixels = np.zeros(256, dtype=np.int64)
        classes = self.classes_of(np.fromiter(value_counts, dtype=np.int64))
        np.add.at(pixels, classes, np.fromiter(value_counts.values(), dtype=np.int64))
        return tuple(pixels[: len(self.values)].tolist())

    def _no_classes(self, strange: Sequence[int], pixels: int) -> DataError:
        return DataError(
            f"mask value {_shorten(strange)} in {pixels} pixels is no class "
            f"(classes: {_shorten(self.values)}).",
            hint="Name all classes with --set labels.values=[...], the ignored value "
            "with --set labels.ignore=..., or cut at --set labels.threshold=...",
        )

    def values_of(self, classes: np.ndarray) -> np.ndarray:
        """The user's mask value of every pixel, in the smallest type that holds all of them;
        inverse of `classes_of` on whole classes."""
        known = [*self.values, 0 if self.ignore is None else self.ignore]
        table = np.zeros(256, dtype=np.result_type(*map(np.min_scalar_type, known)))
        table[: len(self.values)] = self.values
        table[IGNORE] = self.values[0] if self.ignore is None else self.ignore
        return table[classes]

    def encode(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Target and weight for the loss.

        Shapes:
            classes: (*S) on the CPU, class indices or IGNORE.
            returns: target (K, *S) float32, 0 or 1; weight (1, *S) float32, 0 where ignored.
        """
        # In NumPy: torch would wake all its threads for these few pixels, ten times as slow.
        pixels = classes.numpy()
        if self.is_exclusive:
            shown = [pixels == index for index in range(len(self.values))]
        else:
            shown = [region.of(pixels) for region in self.scored]
        target = np.stack(shown).astype(np.float32)
        weight = (pixels[None] != IGNORE).astype(np.float32)
        return torch.from_numpy(target), torch.from_numpy(weight)

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, K, *S) raw scores -> (B, K, *S) probabilities."""
        return logits.softmax(dim=1) if self.is_exclusive else logits.sigmoid()

    def decode(self, probabilities: np.ndarray) -> np.ndarray:
        """The likeliest class.

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
        """Class index and mask value, both in rising order of the value."""
        order = np.argsort(self.values)
        return order.astype(np.uint8), np.asarray(self.values)[order]


def find_label_space(counts: Mapping[int, int], config: LabelConfig) -> tuple[LabelSpace, str]:
    """Decides which mask value is which class.

    Rule: values named in the config, else a threshold, else all values found, the lowest of
    them (0, black) being background.

    Args:
        counts: Pixels of each mask value over all annotated cases.
        config: What the user laid down.

    Returns:
        The space, and the rule in words.

    Raises:
        DataError: one value only, or too many to be classes.
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
    """Regions of mask values as regions of class indices, each with its own class first."""
    found, later = [], [set(own) for own in regions.values()]
    for place, (name, own) in enumerate(regions.items()):
        if unknown := sorted(set(own) - set(values)):
            raise ConfigError(
                f"labels.regions: {name} has the value {unknown[0]}, which is no class.",
                hint=f"The classes are {_shorten(values)}.",
            )
        alone = set(own).difference(*later[place + 1 :])
        if len(alone) != 1:
            raise ConfigError(
                f"labels.regions: {name} has {len(alone)} values that no later region has; it "
                "needs one, to be painted with.",
                hint="Name large regions first: {whole: [1, 2, 3], core: [2, 3], active: [3]}.",
            )
        order = [*alone, *(value for value in own if value not in alone)]
        index = {value: number for number, value in enumerate(values)}
        found.append(Region(name=name, classes=tuple(index[value] for value in order)))
    return tuple(found)


def _refuse_impossible(values: Sequence[int], counts: Mapping[int, int]) -> None:
    if len(values) < 2:
        raise DataError(
            f"The masks hold one value only ({_shorten(values) or 'none'}): nothing to learn.",
            hint="Check that the masks belong to these images, and that objects are drawn in them.",
        )
    if len(values) > MAX_CLASSES:
        raise DataError(
            f"The masks hold {len(values)} different values, too many to be classes.\n"
            f"{value_histogram(counts)}",
            hint="Soft edges or JPEG: --set labels.threshold=128. Object ids: "
            "--set labels.threshold=1 takes every object as foreground.",
        )


def value_histogram(counts: Mapping[int, int], most: int = 8) -> str:
    """The commonest mask values with their share of all pixels, a line of text each."""
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
