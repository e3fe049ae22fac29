"""The objects of one image, as files beside its mask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ushape import io
from ushape.formatting import to_csv
from ushape.instances.contours import trace_outlines
from ushape.instances.exchange import class_styles, write_geojson, write_rois
from ushape.instances.label import Objects, by_class, label_objects
from ushape.instances.properties import ObjectTable, column_names, measure_table, summarize_classes
from ushape.io.files import replacing, write_bytes
from ushape.io.streaming import open_bands
from ushape.planning.plan import Plan
from ushape.types import Case, MaskEncoding, Prediction


def write_objects(
    prediction: Prediction, case: Case, plan: Plan, paths: Mapping[str, Path]
) -> list[dict[str, Any]]:
    """Instances, contours and table.

    Args:
        paths: Of instances, contours and table; what is not named is not written.

    Returns:
        A row for each class, for the table of all images.
    """
    space, how = plan.preprocessing.space, plan.recipe.predict.objects
    with open_bands(case.image) as bands:
        spacing = bands.spacing_mm
    shares = by_class(prediction.probabilities, space)
    objects = label_objects(prediction.classes, how, probabilities=shares, spacing_mm=spacing)
    table = measure_table(objects, space.names, probabilities=shares, spacing_mm=spacing)
    if "instances" in paths:
        dtype = "uint16" if len(objects) < 1 << 16 else "uint32"
        encoding = MaskEncoding(dtype=dtype, suffix=".tif")
        io.write_mask(paths["instances"], objects.labels, encoding)
    if "contours" in paths:
        _write_contours(paths["contours"], objects, table, plan)
    if "table" in paths:
        columns = column_names(prediction.classes.ndim)
        write_bytes(paths["table"], to_csv(columns, table.rows()))
    return [summary.row() for summary in summarize_classes(objects, table, space.names)]


def _write_contours(path: Path, objects: Objects, table: ObjectTable, plan: Plan) -> None:
    space = plan.preprocessing.space
    styles = class_styles(space.names, space.values, plan.encoding)
    with replacing(path) as file:
        if path.suffix == ".geojson":
            write_geojson(file, trace_outlines(objects), styles, table=table)
        else:
            write_rois(file, trace_outlines(objects), styles)
