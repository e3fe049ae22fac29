"""Map the mask values of the user's files to the channels of the network, and back."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator

from ushape.errors import ConfigError, DataError
from ushape.labels.colors import color_text, colors_of, distances, name_color

if TYPE_CHECKING:
    from torch import Tensor

    from ushape.types import MaskEncoding

IGNORE = 255
"""Class index of pixels that are excluded from loss and scores."""

MAX_CLASSES = 64
"""Largest number of classes; more distinct mask values are object ids, soft edges or a photo."""


def parse_mask_value(value: Any) -> Any:
    """Return the code of a color that is written as "#rrggbb"; other values are returned as is."""
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value.strip()):
        return int(value.strip()[1:], 16)
    return value


MaskValue = Annotated[int, BeforeValidator(parse_mask_value)]
"""Gray value, palette index, or color (also as text, "#rrggbb")."""


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Classes of the mask values."""

    values: tuple[MaskValue, ...] | None = None
    """Mask values in class order, background first; null: the values found, in increasing order.
    Colors are written as text, e.g. ["#000000", "#00ff00"]."""

    names: tuple[str, ...] | None = None
    """Name of each class, background first; null: derived from the values."""

    ignore: MaskValue | None = None
    """Mask value of pixels that are excluded from loss and scores."""

    threshold: int | None = None
    """Lowest mask value that is foreground; lower values are background. Use it for masks with soft
    edges, or with object ids (threshold 1)."""

    nearest: bool = False
    """Whether pixels with a value that is not in labels.values belong to the class with the nearest
    value or color. Use it for masks with soft edges, or saved as JPEG."""

    softmax: bool = False
    """Whether two classes have one output channel each; false: one channel, for the foreground."""

    regions: dict[str, tuple[int, ...]] | None = None
    """Overlapping regions from the largest to the smallest, with the mask values that each
    contains, e.g. {whole: [1, 2, 3], core: [2, 3]}. Each is learned and scored separately. In
    predicted masks they are drawn in this order, each with the value that is in no later region."""

    instances: bool | None = None
    """Whether masks state the objects: by shapes or files that are one object each, beside their
    class, or by values that number them, all of which are then foreground. false: objects are
    connected parts of a class; null: decided from the data."""

    objects: Literal["auto", "connected", "distance"] = "auto"
    """What an object is. connected: a connected part of a class; distance: the network also learns
    the distance of each pixel to the border of its object, which separates objects that touch.
    auto: distance if masks number their objects, or consist of many parts most of which nearly
    touch another one of their class."""

    reach_px: float | None = None
    """Largest distance to the border that is learned, in pixels after preprocessing; null: a
    quarter of the size of a typical object."""

    def __post_init__(self) -> None:
        if self.reach_px is not None and not 1 <= self.reach_px < math.inf:
            raise ConfigError(
                f"labels.reach_px is {self.reach_px}; it must be at least 1.",
                code="value_out_of_range",
                hint="Use about a quarter of the size of an object, or leave it out.",
            )
        if self.regions is not None and self.objects == "distance":
            raise ConfigError(
                "labels.regions cannot be combined with labels.objects=distance.",
                code="settings_conflict",
                hint="Remove one of them: the pixels of overlapping regions have several objects.",
            )
        if self.instances and (self.regions is not None or (self.threshold or 1) != 1):
            other = "regions" if self.regions is not None else "threshold"
            raise ConfigError(
                f"labels.instances cannot be combined with labels.{other}.",
                code="settings_conflict",
                hint="Remove one of them: the values of masks number objects, or name classes.",
            )
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
        if self.nearest and self.values is None:
            raise ConfigError(
                "labels.nearest is set, but labels.values is not.",
                code="settings_conflict",
                hint="List the value or color of each class, background first, for example "
                "--set labels.values=[0,128,255].",
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

    colors: tuple[int, ...] | None = None
    """Color code of each class, if the pixels of mask files are compared by the color that they
    show, which is independent of the encoding; None if they are compared by their value."""

    further_values: tuple[tuple[int, int], ...] = ()
    """Further mask values with the index of their class, from masks in another encoding. They are
    color codes if `colors` is set."""

    nearest: bool = False
    """Whether pixels with another value belong to the class with the nearest value or color."""

    has_instances: bool | None = None
    """Whether masks state the objects, beside their class or by their values; null: if the
    threshold is 1, which is how values that number objects are read."""

    has_distance: bool = False
    """Whether the network has a further output after the K channels: the distance to the border of
    the object, 0 to 1, see `transforms.object_distance`."""

    def __post_init__(self) -> None:
        if len(self.names) != len(self.values):
            raise ConfigError(
                f"There are {len(self.values)} classes, but labels.names has {len(self.names)}.",
                code="class_count_mismatch",
                hint="Name every class, background first.",
            )

    @property
    def states_objects(self) -> bool:
        """Whether the annotated objects are those that masks state, not connected parts."""
        return self.threshold == 1 if self.has_instances is None else self.has_instances

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
        return _shorten(values, color_text if self.colors is not None else str)

    @cached_property
    def _lookup(self) -> tuple[np.ndarray, np.ndarray]:
        """Known mask values in increasing order, and the class index of each."""
        meaning = {} if self.ignore is None else {self.ignore: IGNORE}
        meaning |= dict(self.further_values)
        meaning |= {value: index for index, value in enumerate(self.colors or self.values)}
        known = sorted(meaning)
        return np.asarray(known), np.asarray([meaning[value] for value in known], dtype=np.uint8)


def find_label_space(
    counts: Mapping[int, int], config: LabelConfig, *, are_colors: bool = False
) -> tuple[LabelSpace, str]:
    """Decide which mask value is which class.

    The values named in the config are used; else a threshold; else all values found, the lowest of
    which (0, black) is background.

    Args:
        counts: Number of pixels of each mask value over all annotated cases.
        config: The user's settings.
        are_colors: Whether the mask values are color codes.

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
        shown = "-" if not found else color_text(found[0]) if are_colors else found[0]
        rule = f"the lowest value, {shown}, is background"
        _refuse_impossible(values, counts, are_colors=are_colors)
    names = config.names or _default_names(values, are_colors=are_colors)
    space = LabelSpace(
        values=tuple(values),
        names=tuple(names),
        ignore=config.ignore,
        threshold=config.threshold,
        softmax=config.softmax,
        regions=_find_regions(config.regions or {}, values),
        colors=tuple(values) if are_colors and config.threshold is None else None,
        nearest=config.nearest,
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


def _refuse_impossible(
    values: Sequence[int], counts: Mapping[int, int], *, are_colors: bool
) -> None:
    show = color_text if are_colors else str
    if len(values) < 2:
        raise DataError(
            f"The masks contain a single value ({_shorten(values, show) or 'none'}), so there is "
            "nothing to learn.",
            code="single_mask_value",
            hint="Check that the masks belong to these images, and that objects are annotated.",
        )
    if len(values) > MAX_CLASSES:
        noun = "colors" if are_colors else "values"
        example = '["#000000","#ff0000"]' if are_colors else "[0,128,255]"
        raise DataError(
            f"The masks contain {len(values)} different {noun}, too many to be classes.\n"
            f"{value_histogram(counts, show=show)}",
            code="too_many_mask_values",
            hint="If these files are the images, exchange the folders of images and masks, or name "
            "the masks with --masks. For masks with soft edges, or saved as JPEG, list the classes "
            "with the background first: "
            f"--set 'labels.values={example}' --set labels.nearest=true. For object ids: --set "
            f"labels.instances=true makes every object foreground.{state_all_classes(len(values))}",
        )


def state_all_classes(count: int) -> str:
    """Return the sentence that says how to state many classes; "" if the values are too many."""
    if not MAX_CLASSES < count <= IGNORE:
        return ""
    return (
        f" If all {count} values are classes, list them in a file classes.csv in the data folder, "
        "with value,name or name,r,g,b in its first line, then one class per line, background "
        "first; or in labels.values of a file ushape.yaml there."
    )


def value_histogram(
    counts: Mapping[int, int], most: int = 8, *, show: Callable[[int], str] = str
) -> str:
    """Return the most frequent mask values with their share of all pixels, one per line."""
    total = sum(counts.values())
    common = sorted(counts.items(), key=lambda item: -item[1])
    lines = [f"  {show(value)}: {count / total:.1%}" for value, count in common[:most]]
    if len(common) > most:
        rest = sum(count for _, count in common[most:])
        lines.append(f"  {len(common) - most} other values: {rest / total:.1%}")
    return "\n".join(lines)


def _default_names(values: Sequence[int], *, are_colors: bool) -> tuple[str, ...]:
    if len(values) == 2:
        return ("background", "foreground")
    if are_colors:
        names = [name_color(value) for value in values[1:]]
        is_unique = len(set(names)) == len(names)
        return ("background", *(names if is_unique else map(color_text, values[1:])))
    return ("background", *(f"class {value}" for value in values[1:]))


def _shorten(
    values: Sequence[int] | np.ndarray, show: Callable[[int], str] = str, most: int = 6
) -> str:
    shown = ", ".join(show(int(value)) for value in list(values)[:most])
    return f"{shown}, ..." if len(values) > most else shown
