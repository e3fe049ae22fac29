"""Predict the pixels of an image layer with a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ushape import io
from ushape.api._named_runs import run_folders
from ushape.api.load import Model, Result, load
from ushape.napari_plugin.layers import LayerData, Origin, labels_of, load_plan, placed_like
from ushape.planning.run import Run

SAME = 1e-5
"""Largest difference of equal pixels as a share of the largest one, less than a step of 16 bits."""


def predict_layer(
    data: Any, properties: Mapping[str, Any], run: Path, *, probabilities: bool = False
) -> list[LayerData]:
    """Predict an image layer, and return layers of the classes and of their probabilities.

    A layer that shows the pixels of a whole file, maybe all multiplied by one number, is predicted
    from the file, as `ushape predict` does: with all of its channels, its spacing and its group. Of
    other layers, the pixels are predicted; a layer with another axis in front is predicted page
    by page.

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
    is_file = not is_stack and shows_file(pixels, origin.image, is_rgb=bool(properties.get("rgb")))
    results = _predict_file(model, origin, shape) if is_file else []
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


def shows_file(pixels: Any, image: Path | None, *, is_rgb: bool) -> bool:
    """Return whether a layer shows a whole file, or a channel of it, maybe in another scale."""
    if image is None or not image.exists():
        return False
    stored, shown = io.read(image).array, np.asarray(pixels)
    if not is_rgb:
        return any(_is_multiple(shown, channel) for channel in stored)
    count = min(len(stored), shown.shape[-1])
    return _is_multiple(np.moveaxis(shown, -1, 0)[:count], stored[:count])


def _is_multiple(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two arrays are equal, except for a positive factor."""
    if one.shape != other.shape:
        return False
    shown, stored = (_scaled(array) for array in (one, other))
    return np.allclose(shown, stored, rtol=0, atol=SAME, equal_nan=True)


def _scaled(array: np.ndarray) -> np.ndarray:
    """Divide an array by its largest finite absolute value."""
    values = np.asarray(array, np.float64)
    return values / (np.abs(values[np.isfinite(values)]).max(initial=0.0) or 1.0)


def _predict_file(model: Model, origin: Origin, shape: tuple[int, ...]) -> list[Result]:
    """Predict the image file of a layer; nothing if the result has another shape."""
    assert origin.image is not None
    result = model.predict(origin.image)
    return [result] if result.classes.shape == shape else []


def _spacing_of(properties: Mapping[str, Any], dims: int) -> tuple[float, ...] | None:
    """Return the scale of a layer along the axes of an image in mm; None if it has none."""
    scale = tuple(map(float, properties.get("scale", ())))[-dims:]
    return scale if len(scale) == dims and set(scale) != {1.0} else None


@lru_cache(maxsize=2)
def _load_model(run: Path, changed: int) -> Model:
    """Load a model, which is kept for the next image.

    Args:
        changed: Time of the last change of the weights; changed weights are loaded again.
    """
    return load(run)
