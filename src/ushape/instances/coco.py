"""Write objects as COCO JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

import numpy as np

from ushape.instances.contours import ClassStyle, Outline
from ushape.instances.label import Objects
from ushape.instances.properties import ObjectTable


def write_coco(
    file: BinaryIO,
    objects: Objects,
    outlines: Iterable[Outline],
    styles: Sequence[ClassStyle],
    *,
    table: ObjectTable,
    image_name: str,
) -> None:
    """Write the objects of a 2D image, with one annotation for each on a separate line.

    The category of an object is its class index, and its id is the number of the object. Objects
    without holes are polygons of (x, y) along the edges of their pixels, from which pycocotools
    draws exactly these pixels. Polygons of COCO have no holes, so other objects are run lengths.

    Args:
        file: File that is open for writing; annotations are written one by one.
        outlines: Outlines of the objects.
        styles: Styles by class index.
        table: Measurements of the objects; `score` is the mean probability.
        image_name: Path of the image file.

    Source:
        https://cocodataset.org/#format-data
    """
    height, width = objects.labels.shape
    image = {"id": 1, "file_name": image_name, "height": height, "width": width}
    categories = [{"id": place, "name": style.name} for place, style in enumerate(styles)][1:]
    file.write(f'{{"images":[{_as_json(image)}],\n"categories":{_as_json(categories)},\n'.encode())
    file.write(b'"annotations":[')
    separator = "\n"
    for outline in outlines:
        place = outline.object_id - 1
        (top, bottom), (left, right) = table.box_px[place].tolist()
        entry = {
            "id": outline.object_id,
            "image_id": 1,
            "category_id": outline.class_index,
            "iscrowd": 0,
            "area": int(table.size_px[place]),
            "bbox": [left, top, right - left, bottom - top],
            "segmentation": _segmentation(objects.labels, outline, (top, bottom, left, right)),
        }
        if table.mean_probability is not None:
            entry["score"] = float(table.mean_probability[place])
        file.write(f"{separator}{_as_json(entry)}".encode())
        separator = ",\n"
    file.write(b"\n]}\n")


def _segmentation(
    labels: np.ndarray, outline: Outline, box: tuple[int, int, int, int]
) -> list[list[int]] | dict[str, Any]:
    if not any(polygon.holes for polygon in outline.polygons):
        return [polygon.shell[:, ::-1].ravel().tolist() for polygon in outline.polygons]
    top, bottom, left, right = box
    height, width = labels.shape
    # Down the columns, beginning with a run of background: only those of the box are unpacked.
    columns = np.zeros((right - left, height), dtype=np.int8)
    columns[:, top:bottom] = (labels[top:bottom, left:right] == outline.object_id).T
    edges = np.flatnonzero(np.diff(columns.ravel(), prepend=0, append=0)) + left * height
    counts = np.diff(edges, prepend=0, append=height * width).tolist()
    return {"size": [height, width], "counts": counts}


def _as_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
