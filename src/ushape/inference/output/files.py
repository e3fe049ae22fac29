"""Write the mask and the other files of one image, from memory or band by band."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ushape import io
from ushape.formatting import to_csv
from ushape.inference.cleaned_bands import cleaned_bands
from ushape.inference.output import OutputConfig
from ushape.inference.predictor import Predictor
from ushape.inference.streaming import StreamedPrediction
from ushape.inference.uncertainty import entropy_map
from ushape.instances.coco import write_coco
from ushape.instances.contours import (
    class_styles,
    drawing_colors,
    trace_outlines,
    write_geojson,
    write_rois,
)
from ushape.instances.label import Objects, by_class, label_prediction
from ushape.instances.properties import ObjectTable, measure_table, summarize_classes, to_rows
from ushape.instances.shapes import measure_shapes
from ushape.io.dicom_seg_writer import write_segmentation
from ushape.io.files import replacing, write_bytes
from ushape.io.streaming import open_band_writer, open_probability_writer
from ushape.planning.plan import Plan
from ushape.transforms.overlay import overlay as draw_overlay
from ushape.types import MaskEncoding, Prediction


def write_files(
    prediction: Prediction,
    predictor: Predictor,
    config: OutputConfig,
    target: Path,
    beside: Mapping[str, Path],
    image_name: str,
) -> list[dict[str, Any]]:
    """Write the files of an image in memory, the mask last.

    Args:
        beside: Path of each additional file by its kind, as in `OutputConfig.endings`.
        image_name: Path of the image file, for files that name it.

    Returns:
        A row for each class, for the table of all images; empty if no output describes objects.
    """
    source, space = prediction.source, predictor.plan.preprocessing.space
    assert source is not None, "predicted from a file"
    rows = []
    if config.has_objects:
        rows = write_objects(prediction, predictor.plan, beside, config, image_name)
    if "overlay" in beside:
        styles = class_styles(space.names, space.values, predictor.plan.encoding)
        picture = draw_overlay(source.array, prediction.classes, drawing_colors(styles))
        io.write_rgb(beside["overlay"], picture)
    if path := beside.get("uncertainty"):
        uncertainty = prediction.disagreement
        if uncertainty is None:
            uncertainty = entropy_map(prediction.probabilities, space)
        levels = np.rint(255 * uncertainty).astype(np.uint8)
        io.write_mask(path, levels, MaskEncoding(suffix=io.suffix_of(path)), like=source)
    if path := beside.get("probabilities"):
        probabilities, dtype = prediction.probabilities, config.stored_type
        if config.probabilities == "npz":
            io.write_probabilities(path, probabilities, space.channel_names, dtype)
        else:
            with open_probability_writer(path, probabilities.shape, dtype, source) as writer:
                writer.write(probabilities)
    codes = predictor.codes_of(prediction.classes)
    io.write_mask(target, codes, predictor.plan.encoding, like=source)
    return rows


def write_dicom_seg(path: Path, prediction: Prediction, predictor: Predictor, image: Path) -> None:
    """Write the classes as a DICOM segmentation that refers to its image.

    Args:
        image: DICOM file or folder of slices that was predicted.

    Raises:
        DataError: if `write_segmentation` raises it.
    """
    space = predictor.plan.preprocessing.space
    styles = class_styles(space.names, space.values, predictor.plan.encoding)
    colors = drawing_colors(styles)
    write_segmentation(path, prediction.classes, image, space.names, colors)


def write_objects(
    prediction: Prediction,
    plan: Plan,
    paths: Mapping[str, Path],
    config: OutputConfig,
    image_name: str,
) -> list[dict[str, Any]]:
    """Write instances, contours and table of an image, as far as paths are given for them.

    Returns:
        A row for each class, for the table of all images.
    """
    space, how = plan.preprocessing.space, plan.recipe.predict.objects
    spacing = prediction.source.spacing_mm if prediction.source else None
    shares = by_class(prediction.probabilities, space)
    objects = label_prediction(prediction, space, how, spacing)
    table = measure_table(objects, space.names, probabilities=shares, spacing_mm=spacing)
    if "instances" in paths:
        encoding = instance_encoding(paths["instances"], len(objects))
        io.write_mask(paths["instances"], objects.labels, encoding, like=prediction.source)
    if "contours" in paths:
        _write_contours(paths["contours"], objects, table, plan, image_name)
    if "table" in paths:
        columns = table.columns()
        if config.columns == "full" and prediction.source is not None:
            is_gray = prediction.source.is_repeated_gray
            image = prediction.source.array[:1] if is_gray else prediction.source.array
            columns |= measure_shapes(objects.labels, image, spacing_mm=spacing)
        write_bytes(paths["table"], to_csv(tuple(columns), to_rows(columns)))
    return [summary.row() for summary in summarize_classes(objects, table, space.names)]


def instance_encoding(path: Path, count: int) -> MaskEncoding:
    """Return how the numbers of objects are stored.

    Args:
        path: File to write.
        count: Number of objects.
    """
    dtype = "uint16" if count < 1 << 16 else "uint32"
    return MaskEncoding(dtype=dtype, suffix=io.suffix_of(path))


def _write_contours(
    path: Path, objects: Objects, table: ObjectTable, plan: Plan, image_name: str
) -> None:
    space = plan.preprocessing.space
    styles = class_styles(space.names, space.values, plan.encoding)
    with replacing(path) as file:
        if path.suffix == ".geojson":
            write_geojson(file, trace_outlines(objects), styles, table=table)
        elif path.suffix == ".json":
            outlines = trace_outlines(objects)
            write_coco(file, objects, outlines, styles, table=table, image_name=image_name)
        else:
            write_rois(file, trace_outlines(objects), styles)


def write_streamed_files(
    prediction: StreamedPrediction,
    predictor: Predictor,
    config: OutputConfig,
    target: Path | None,
    probabilities: Path | None,
    add_rows: Callable[[np.ndarray, np.ndarray | None], None],
) -> None:
    """Write mask and probabilities of an image larger than memory, while it is predicted.

    Args:
        target: Path of the mask; None: no mask is written.
        probabilities: Path of the probabilities; None: none are written.
        add_rows: Function that receives the classes (n, ...), and the numbers of the objects
            (n, ...) if the prediction comes with the distance, of rows that follow each other.
    """
    source, encoding = prediction.source, predictor.plan.encoding
    shape = source.shape[1:]
    with ExitStack() as stack:
        shares = masks = None
        if target is not None:
            masks = stack.enter_context(open_band_writer(target, shape, encoding, source))
        if probabilities is not None:
            of = (predictor.plan.preprocessing.space.channels, *shape)
            shares = stack.enter_context(
                open_probability_writer(probabilities, of, config.stored_type, source)
            )
        folder = target.parent if target is not None else None
        write = shares.write if shares else None
        for classes, numbers in cleaned_bands(prediction, predictor, folder, write):
            add_rows(classes, numbers)
            if masks is not None:
                masks.write(predictor.codes_of(classes))
