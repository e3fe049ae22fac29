"""The XML format "CVAT for images": polygons, ellipses and masks of many images in one file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ushape.errors import DataError
from ushape.io.annotations.labelme import CIRCLE_POINTS
from ushape.io.annotations.shapes import ImageShapes, Outline, PixelPatch, Shape, as_points
from ushape.io.caching import keep_latest
from ushape.io.files import MAX_PIXELS, last_line, read_head

KINDS = ("polygon", "mask", "ellipse", "box", "polyline", "points", "cuboid", "skeleton")
"""Elements of an image that are shapes; tags describe the whole image."""


@keep_latest(files=2)
def read_cvat(path: Path) -> Mapping[str, ImageShapes]:
    """Read all images of a file by their name; the last two files are cached.

    Shapes of an image are ordered by their z_order.

    Raises:
        DataError: if the file cannot be read, declares entities, contains tracks of a video, or has
            an invalid entry.
    """
    _refuse_entities(path)
    images: dict[str, ImageShapes] = {}
    try:
        with path.open("rb") as file:
            for _, element in ElementTree.iterparse(file):
                if element.tag == "track":
                    raise DataError(
                        f"{path}: the file contains tracks of a video.",
                        code="unsupported_annotations",
                        hint='Export the task from CVAT as "CVAT for images" or "Segmentation '
                        'mask".',
                    )
                if element.tag == "image":
                    name = element.attrib["name"].replace("\\", "/")
                    if name in images:
                        raise ValueError(f"the image {name} is listed twice")
                    images[name] = _image_of(element, name)
                    element.clear()
    except (ElementTree.ParseError, OSError, KeyError, TypeError, ValueError,
            OverflowError) as error:  # fmt: skip
        raise _invalid(path, last_line(error)) from None
    return images


def is_cvat(path: Path) -> bool:
    """Return whether an XML file begins like one of CVAT."""
    start = read_head(path)
    return b"<annotations" in start and (b"<image" in start or b"<track" in start)


def _refuse_entities(path: Path) -> None:
    """Check that the file declares no entities, which could expand to any size."""
    try:
        with path.open("rb") as file:
            for line in file:
                if b"<!" in line.replace(b"<!--", b"").replace(b"<![CDATA[", b""):
                    raise _invalid(path, "the file has a document type declaration")
                if b"\0" in line:
                    raise _invalid(path, "the file is not encoded in UTF-8")
    except OSError as error:
        raise _invalid(path, last_line(error)) from None


def _image_of(element: ElementTree.Element, name: str) -> ImageShapes:
    size = int(element.attrib["height"]), int(element.attrib["width"])
    if min(size) < 1 or math.prod(size) > MAX_PIXELS:
        raise ValueError(f"the size of the image {name} is {size[0]} × {size[1]} pixels")
    drawn = [one for one in element if one.tag in KINDS]
    drawn.sort(key=lambda one: int(one.attrib.get("z_order", 0)))  # Stable: equal ones stay.
    shapes = []
    for number, one in enumerate(drawn, start=1):
        try:
            shapes.append(_shape_of(one, f"{one.tag} {number}"))
        except (KeyError, ValueError) as error:
            raise ValueError(f"{one.tag} {number} of the image {name}: {error}") from None
    return ImageShapes(shapes=tuple(shapes), size=size)


def _shape_of(element: ElementTree.Element, place: str) -> Shape:
    values = element.attrib
    area: Outline | PixelPatch | None = None
    if element.tag == "polygon":
        corners = [point.split(",") for point in values["points"].split(";")]
        area = Outline(points=as_points(corners))
    elif element.tag == "ellipse":
        angles = np.linspace(0, 2 * math.pi, CIRCLE_POINTS, endpoint=False)
        axes = np.array([float(values["rx"]), float(values["ry"])])
        center = np.array([float(values["cx"]), float(values["cy"])])
        turn = math.radians(float(values.get("rotation", 0)))
        about = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        area = Outline(points=center + (circle * axes) @ about)
    elif element.tag == "mask":
        area = _patch_of(values)
    group = values.get("group_id", "")
    return Shape(
        label=values["label"],
        place=place,
        area=area,
        kind=element.tag,
        group=None if group in ("", "0") else group,  # 0 stands for no group.
    )


def _patch_of(values: Mapping[str, str]) -> PixelPatch:
    """Return a mask of run lengths that alternate off and on, row by row within a box."""
    height, width = int(values["height"]), int(values["width"])
    runs = np.array([int(run) for run in values["rle"].split(",")], dtype=np.int64)
    if min(height, width, *runs + 1) < 1 or height * width > MAX_PIXELS:
        raise ValueError("it has an impossible size or run length")
    # CVAT omits the last run if it is off.
    total = int(runs.sum())
    if total > height * width:
        raise ValueError(f"its runs have {total} pixels, but its box has {height * width}")
    inside = np.zeros(height * width, dtype=bool)
    inside[:total] = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return PixelPatch(
        top=int(values["top"]), left=int(values["left"]), inside=inside.reshape(height, width)
    )


def _invalid(path: Path, what: str) -> DataError:
    return DataError(
        f"{path}: cannot be read as CVAT annotations: {what}.",
        code="shapes_invalid",
        hint='Export the task from CVAT again, as "CVAT for images 1.1".',
    )
