"""Layers as napari's plug-ins exchange them, and what ushape stores in their metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ushape.api._named_runs import run_folders
from ushape.instances.contours import class_styles, drawing_colors
from ushape.planning.plan import Plan
from ushape.planning.run import Run

LayerData = tuple[Any, dict[str, Any], str]
"""Data, properties and type of a layer, napari's LayerData."""

KEY = "ushape"
"""Key of a layer's metadata."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Files that a layer was made from."""

    image: Path | None = None
    """Image file, or folder of DICOM slices."""

    run: Path | None = None
    """Run whose classes the labels are; None if the labels are the values of a mask file."""

    mask: Path | None = None
    """Mask file that the labels were read from."""

    @classmethod
    def of(cls, properties: Mapping[str, Any]) -> Origin:
        """Return the origin that the properties of a layer contain."""
        stored = (properties.get("metadata") or {}).get(KEY, {})
        return cls(**{name: Path(value) for name, value in stored.items()})

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata of a layer with this origin."""
        return {KEY: {name: str(value) for name, value in vars(self).items() if value is not None}}


def load_plan(run: Path) -> Plan:
    """Load the plan of a run, or that of the first run of a cross-validation.

    Raises:
        RunError: if the folder is not a run, or has no weights.
    """
    return Run.open(run_folders(run)[0]).load_plan()


def labels_of(classes: np.ndarray, name: str, origin: Origin, plan: Plan) -> LayerData:
    """Return a label layer of class indices (*S), in the colors of the reports."""
    space = plan.preprocessing.space
    colors = drawing_colors(class_styles(space.names, space.values, plan.encoding))
    table: dict[int | None, Any] = {None: (0, 0, 0, 0), 0: (0, 0, 0, 0)}
    for index, color in enumerate(colors[1:], start=1):
        table[index] = (*(level / 255 for level in color), 1)
    properties = {
        "name": name,
        "metadata": origin.metadata,
        "features": {"index": list(range(len(space.names))), "class": list(space.names)},
        "colormap": table,
    }
    return classes, properties, "labels"


def placed_like(layer: LayerData, properties: Mapping[str, Any]) -> LayerData:
    """Return a layer at the place of another one with as many axes."""
    data, own, kind = layer
    place = {
        name: properties[name]
        for name in ("scale", "translate")
        if properties.get(name) is not None and len(properties[name]) == np.ndim(data)
    }
    return data, {**own, **place}, kind
