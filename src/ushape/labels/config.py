"""Classes of the mask values, as specified by the user."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator

from ushape.errors import ConfigError


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

    RENAMED: ClassVar = {"reach_px": "max_distance_px"}

    values: tuple[MaskValue, ...] | None = None
    """Mask values in class order, background first; null: the values that occur in the masks, in
    increasing order. Colors are written as text, e.g. ["#000000", "#00ff00"]."""

    names: tuple[str, ...] | None = None
    """Name of each class, background first; null: derived from the values."""

    ignore: MaskValue | None = None
    """Mask value of pixels that are excluded from loss and scores."""

    threshold: int | None = None
    """Lowest mask value that is foreground; lower values are background. Use this for masks with
    soft edges or with object IDs (threshold 1)."""

    nearest: bool = False
    """Whether pixels with a value that is not in labels.values belong to the class with the nearest
    value or color. Use this for masks with soft edges or masks saved as JPEG."""

    softmax: bool = False
    """Whether the network has one output channel for each of two classes; false: a single channel,
    for the foreground."""

    regions: dict[str, tuple[int, ...]] | None = None
    """Overlapping regions from the largest to the smallest, with the mask values that each
    contains, e.g. {whole: [1, 2, 3], core: [2, 3]}. Each is learned and scored separately. In
    predicted masks, they are drawn in this order, each with its value that is not in any later
    region."""

    instances: bool | None = None
    """Whether masks mark individual objects: by shapes or files that each are one object of a
    class, or by values that number the objects, all of which are then foreground. false: objects
    are connected components of a class; null: decided from the data."""

    time_points: bool | None = None
    """Whether the fourth axis of NIfTI masks is time, so that each time point of image and mask is
    a case. false: it contains the classes, or copies of one mask; null: it is time if the images
    have the same number of volumes, unless all masks have one channel for each class, or identical
    channels."""

    objects: Literal["auto", "connected", "distance"] = "auto"
    """Definition of an object. connected: a connected component of a class; distance: the network
    also learns the distance of each pixel to the border of its object, which separates touching
    objects. auto: distance if masks number their objects, or if they consist of many components,
    most of which nearly touch another one of the same class."""

    max_distance_px: float | None = None
    """Largest distance to the border that is learned, in pixels after preprocessing along the axis
    with the smallest pixels (preprocessing.distances); null: a quarter of the size of a typical
    object."""

    def __post_init__(self) -> None:
        if self.max_distance_px is not None and not 1 <= self.max_distance_px < math.inf:
            raise ConfigError(
                f"labels.max_distance_px is {self.max_distance_px}; it must be at least 1.",
                code="value_out_of_range",
                hint="Use about a quarter of the size of an object, or omit it.",
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
                hint="Remove one of them: mask values stand either for objects or for classes.",
            )
        if self.regions is not None and (self.threshold is not None or self.softmax):
            raise ConfigError(
                "labels.regions cannot be combined with labels.threshold or labels.softmax.",
                code="settings_conflict",
                hint="Remove one of them: regions overlap, so each has its own channel.",
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
                f"labels.values is {self.values}, which defines fewer than two classes.",
                code="too_few_classes",
                hint="List the background first, e.g. --set labels.values=[0,255].",
            )
        if self.values is not None and self.ignore in self.values:
            raise ConfigError(
                f"labels.ignore is {self.ignore}, which labels.values lists as a class.",
                code="settings_conflict",
                hint="A value can be a class or be ignored, not both.",
            )
