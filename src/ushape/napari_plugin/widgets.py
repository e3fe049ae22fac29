"""Widgets of napari: predict an image layer with a run, and save labels as an annotation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ushape import io
from ushape.errors import DataError
from ushape.napari_plugin.layers import Origin
from ushape.napari_plugin.prediction import predict_layer, shows_file
from ushape.napari_plugin.writer import save_annotation


def make_prediction_widget() -> Any:
    """Return the widget that predicts an image layer in the background and adds label layers."""
    from magicgui import magicgui
    from napari.layers import Image
    from napari.qt.threading import FunctionWorker, thread_worker
    from napari.types import LayerDataTuple

    def predict(image: Any, run: Any, probabilities: bool = False) -> Any:
        start = thread_worker(
            predict_layer, start_thread=True, progress={"desc": f"Predicting {image.name}"}
        )
        return start(image.data, properties_of(image), Path(run), probabilities=probabilities)

    # Annotations as objects: magicgui cannot find the names of this function.
    predict.__annotations__ = {
        "image": Image,
        "run": Path,
        "probabilities": bool,
        "return": FunctionWorker[list[LayerDataTuple]],
    }
    return magicgui(
        predict,
        call_button="Predict",
        image={"tooltip": "Layer to predict."},
        run={
            "mode": "d",
            "label": "run folder",
            "tooltip": "Run folder written by `ushape train`.",
        },
        probabilities={"tooltip": "Add a hidden layer with the probability of each class."},
    )


def make_annotation_widget() -> Any:
    """Return the widget that writes a label layer as the mask of an image."""
    from magicgui import magicgui
    from napari.layers import Image, Labels
    from napari.utils.notifications import show_info

    def annotate(painted: Any, image: Any, masks: Any, run: Any, replace_existing: Any) -> None:
        if masks is None:
            raise DataError(
                "No folder was chosen.",
                code="no_masks",
                hint="Choose the mask folder next to the image folder.",
            )
        origin = origin_of(painted, image, run)
        target = save_annotation(painted.data, origin, Path(masks), overwrite=replace_existing)
        show_info(f"Saved {target}")

    annotate.__annotations__ = {
        "painted": Labels,
        "image": Image,
        "masks": Path | None,
        "run": Path | None,
        "replace_existing": bool,
        "return": None,
    }
    return magicgui(
        annotate,
        call_button="Save as annotation",
        painted={"label": "labels", "tooltip": "Label layer to save."},
        image={"tooltip": "Image layer opened from a file; the mask gets the name of this file."},
        masks={"mode": "d", "label": "mask folder", "nullable": True, "value": None},
        run={
            "mode": "d",
            "label": "run folder",
            "nullable": True,
            "value": None,
            "tooltip": "Run whose classes were painted; none for labels predicted by ushape.",
        },
        replace_existing={"value": False, "label": "replace an existing mask"},
    )


def properties_of(layer: Any) -> dict[str, Any]:
    """Return the properties of a layer, with the image file that napari opened it from."""
    _, properties, _ = layer.as_layer_data_tuple()
    origin = Origin.of(properties)
    if origin.image is None and (path := _source_of(layer)) is not None:
        origin = replace(origin, image=path)
    return {**properties, "metadata": {**properties.get("metadata", {}), **origin.metadata}}


def origin_of(labels: Any, image: Any, run: Path | None) -> Origin:
    """Return the origin of labels that are saved: their own, unless an image or run is chosen.

    Args:
        labels: Label layer.
        image: Image layer, or None.
        run: Run whose classes the labels are, or None.
    """
    origin = Origin.of(properties_of(labels))
    chosen = None if image is None else Origin.of(properties_of(image)).image
    if chosen is not None:
        origin = replace(origin, image=chosen)
    return origin if run is None else replace(origin, run=Path(run), mask=None)


def _source_of(layer: Any) -> Path | None:
    """Return the file that a layer was opened from, if ushape reads it as it is shown.

    A photograph that is shown without the orientation of its file (EXIF) would get a mask with
    another orientation.
    """
    place = getattr(getattr(layer, "source", None), "path", None)
    if place is None or not Path(place).exists() or not io.is_image(Path(place)):
        return None
    path = Path(place).absolute()
    is_turned = io.read_orientation(path) != 1
    if is_turned and not shows_file(layer.data, path, is_rgb=getattr(layer, "rgb", False)):
        return None
    return path
