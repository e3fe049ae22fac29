"""Predict the pixels of an image layer with a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ushape.api.load import Model, Result, load
from ushape.api.predict import run_folders
from ushape.napari_plugin.layers import LayerData, Origin, labels_of, load_plan, placed_like
from ushape.planning.run import Run


def predict_layer(
    data: Any, properties: Mapping[str, Any], run: Path, *, probabilities: bool = False
) -> list[LayerData]:
    """Predict an image layer, and return layers of the classes and of their probabilities.

    A layer of a whole file is predicted from the file, as `ushape predict` does: with all of its
    channels, its spacing and its group. Of other layers, the pixels are predicted; a layer with a
    further axis in front is predicted page by page.

    Args:
        data: Pixels of the layer, (*S), or (*S, 3) for colors; a list of them for several
            resolutions, of which the first one is predicted.
        properties: Properties of the layer: name, scale, rgb, metadata, ...
        run: Folder of a run or of a cross-validation.
        probabilities: Whether to return a layer with the probability of each class, which is
            hidden at first.

    Raises:
        RunError: if the folder is not a run.
        DataError: if the model cannot predict the image.
    """
    plan, pixels = load_plan(run), data[0] if properties.get("multiscale") else data
    shape = tuple(pixels.shape[:-1] if properties.get("rgb") else pixels.shape)
    is_stack = len(shape) == plan.image_dims + 1
    origin = replace(Origin.of(properties), run=run.absolute(), mask=None)
    model = _load_model(run, Run(run_folders(run)[0]).weights_path.stat().st_mtime_ns)
    results = [] if is_stack else _predict_file(model, origin, shape)
    if not results:
        spacing = _spacing_of(properties, plan.image_dims)
        pages = np.asarray(pixels) if is_stack else [np.asarray(pixels)]
        results = [model.predict(page, spacing_mm=spacing) for page in pages]
    name = f"{properties.get('name', 'image')} ({run.name})"
    classes = np.stack([one.classes for one in results]).reshape(shape)
    layers = [labels_of(classes, name, origin, plan)]
    if probabilities:
        shares = np.stack([one.probabilities for one in results], axis=1)
        names = plan.preprocessing.space.channel_names
        for share, channel in zip(shares, names, strict=True):
            look = {
                "name": f"{name}: probability of {channel}",
                "contrast_limits": (0, 1),
                "colormap": "magma",
                "visible": False,
            }
            layers.append((share.reshape(shape), look, "image"))
    return [placed_like(layer, properties) for layer in layers]


def _predict_file(model: Model, origin: Origin, shape: tuple[int, ...]) -> list[Result]:
    """Predict the image file of a layer; nothing if the layer shows a part of it, or no file."""
    if origin.image is None or not origin.image.exists():
        return []
    result = model.predict(origin.image)
    return [result] if result.classes.shape == shape else []


def _spacing_of(properties: Mapping[str, Any], dims: int) -> tuple[float, ...] | None:
    """Return the scale of a layer along the axes of an image in mm; None if it states none."""
    scale = tuple(map(float, properties.get("scale", ())))[-dims:]
    return scale if len(scale) == dims and set(scale) != {1.0} else None


@lru_cache(maxsize=2)
def _load_model(run: Path, changed: int) -> Model:
    """Load a model, which is kept for the next image.

    Args:
        changed: Time of the last change of the weights; changed weights are loaded again.
    """
    return load(run)
