"""Tiles of the layers of an image: pixels, annotation, and what was predicted."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ushape.inference.uncertainty import entropy_map
from ushape.studio import tiles
from ushape.studio.predictions import StoredPrediction
from ushape.studio.project import Project
from ushape.studio.tile_grid import Plane, Window

Layer = Literal["image", "mask", "prediction", "probability", "uncertainty", "error"]


@dataclass(frozen=True, kw_only=True)
class TileRequest:
    """A tile that the page asks for."""

    layer: Layer
    level: int
    x: int
    y: int
    plane: str = "z"
    index: int = 0
    class_index: int | None = None
    threshold: float | None = None

    def tag(self, project: Project, image_id: str) -> str:
        """Return a text that changes if the content of the tile may."""
        parts: list[object] = [project.token, image_id, self.layer]
        if self.layer == "image":
            parts.append(project.image(image_id).stamp)
        if self.layer in ("mask", "error"):
            annotation = project.annotation(image_id)
            parts += [annotation.revision, project.settings.names, project.settings.colors]
        if self.layer not in ("image", "mask"):
            prediction = project.prediction(image_id)
            parts.append(prediction.stamp if prediction is not None else None)
            parts += [self.class_index, self.threshold]
        own = (self.level, self.x, self.y, self.plane, self.index)
        return f'"{hash_text(repr((parts, own)))}"'


def hash_text(text: str) -> str:
    """Return a short checksum of a text."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:20]


def draw_tile(project: Project, image_id: str, asked: TileRequest) -> bytes | None:
    """Return a tile as PNG; None if the image has no such layer.

    Raises:
        DataError: if there is no such tile, or the image cannot be read.
    """
    source = project.source(image_id)
    plane = tiles.check_plane(source.shape, asked.plane, asked.index)
    shape = tiles.plane_shape(source.shape, plane)
    window = tiles.tile_window(shape, asked.level, asked.x, asked.y)
    step = 1 << asked.level
    if asked.layer == "image":
        return tiles.encode_png(source.read_plane(plane, asked.index, window, step))
    if asked.layer == "mask":
        annotation = project.annotation(image_id)
        labels = annotation.read_plane(plane, asked.index, window, step)
        picture = tiles.mask_picture(labels, project.colors(), annotation.unknown)
        return tiles.encode_png(picture)
    prediction = project.prediction(image_id)
    if prediction is None:
        return None
    return tiles.encode_png(_draw_predicted(project, image_id, asked, prediction, plane, window))


def _draw_predicted(
    project: Project,
    image_id: str,
    asked: TileRequest,
    prediction: StoredPrediction,
    plane: Plane,
    window: Window,
) -> np.ndarray:
    index, step = asked.index, 1 << asked.level
    if asked.layer == "probability":
        shares = prediction.probabilities(plane, index, window, step)
        return _as_gray(prediction.share_of(shares, asked.class_index))
    if asked.layer == "uncertainty":
        shares = prediction.probabilities(plane, index, window, step)
        return _as_gray(entropy_map(shares, project.target.space))
    if asked.layer == "prediction" and project.target.are_objects and prediction.has_objects:
        numbers = prediction.objects(plane, index, window, step)
        return tiles.mask_picture(numbers.astype(np.int64), (), -1)
    classes = prediction.classes(plane, index, window, step, asked.threshold)
    if asked.layer == "prediction":
        if asked.class_index:
            classes = np.where(classes == asked.class_index, classes, 0)
        return tiles.mask_picture(classes, project.class_colors(), 255)
    annotation = project.annotation(image_id)
    truth = annotation.read_plane(plane, index, window, step)
    if annotation.are_objects:
        inside = (truth > 0).astype(np.uint8)
        truth = np.where(truth == annotation.unknown, np.uint8(255), inside)
    return tiles.error_picture(truth, classes, 255)


def _as_gray(share: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
