"""Separate the objects of a mask in blocks by the learned distance, as `separate` does.

Each connected component of a class is divided independently of all others. One that extends over
several blocks is divided in a window that contains all of it, by each of these blocks with the same
result. If the window would be too large, the part is cut at the borders of the blocks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import numpy as np

from ushape.distributed.block_pieces import (
    PieceTable,
    describe_pieces,
    first_pixels,
    join_blocks,
    label_values,
)
from ushape.distributed.block_task import OBJECTS, PARTS, PREDICT, SEPARATE, BlockTask
from ushape.inference.predictor import Predictor
from ushape.inference.separation import separate
from ushape.io.files import replacing, write_json
from ushape.io.streaming.ome_pyramid import read_box
from ushape.types import Box


def store_parts(task: BlockTask, index: int) -> None:
    """Store the properties of the pieces of each class within a block."""
    box = task.grid(PREDICT).box(index)
    classes = read_box(task.classes[-1], box)
    labels, values = label_values(classes, 0, corners_connect=task.corners_connect)
    describe_pieces(labels, values, box, task.output.shape).store(task.pieces_path(PARTS, index))


def find_windows(task: BlockTask) -> None:
    """Join the parts of all blocks, and store the window of each piece of a part.

    It is empty if the part lies within a block, or is cut because it is too large.
    """
    parts = join_blocks(
        lambda index: task.pieces_path(PARTS, index),
        task.grid(PREDICT),
        corners_connect=task.corners_connect,
    )
    pixels = (parts.boxes[..., 1] - parts.boxes[..., 0]).astype(float).prod(axis=-1)
    is_spread = parts.pieces > 1
    is_cut = is_spread & (pixels > task.window_px)
    windows = np.where((is_spread & ~is_cut)[:, None, None], parts.boxes, 0)
    PieceTable(task.table_folder(SEPARATE)).store(parts.starts, windows[parts.of_piece])
    write_json(task.table_folder(SEPARATE) / "cut.json", int(is_cut.sum()))


def count_cut_parts(task: BlockTask) -> int:
    """Return how many parts were cut at the borders of blocks."""
    path = task.table_folder(SEPARATE) / "cut.json"
    return 0 if task.distance is None else int(json.loads(path.read_text()))


def separate_block(task: BlockTask, predictor: Predictor, index: int) -> None:
    """Divide the parts of a block, and write its mask, and its objects if they are numbered."""
    box, shape = task.grid(PREDICT).box(index), task.output.shape
    classes = read_box(task.classes[-1], box)
    pieces, values = label_values(classes, 0, corners_connect=task.corners_connect)
    windows = PieceTable(task.table_folder(SEPARATE)).load(index)
    is_spread = np.asarray(windows[..., 1].any(axis=-1))
    is_within = np.concatenate([[False], ~is_spread])[pieces]
    found = np.zeros_like(classes)
    numbers = np.zeros(classes.shape, np.int32)
    keys = [np.zeros(0, np.int64)]
    seeds = first_pixels(pieces, len(values), box, shape)
    jobs: list[tuple[Box, np.ndarray | None]] = [(box, None)]
    jobs += [(window, seeds[own]) for window, own in _group(windows, is_spread, task.window_px)]
    for window, own in jobs:
        inside = np.where(is_within, classes, 0) if own is None else _take_parts(task, window, own)
        new, labels, first = _separate(task, predictor, window, inside)
        common = tuple((max(a, b), min(c, d)) for (a, c), (b, d) in zip(window, box, strict=True))
        here = tuple(slice(a - own[0], b - own[0]) for (a, b), own in zip(common, box, strict=True))
        there = tuple(
            slice(a - own[0], b - own[0]) for (a, b), own in zip(common, window, strict=True)
        )
        is_new = labels[there] > 0
        found[here][is_new] = new[there][is_new]
        numbers[here][is_new] = labels[there][is_new] + sum(map(len, keys))
        keys.append(first)
    if task.labels is not None:
        _store_objects(task, index, numbers, np.concatenate(keys))
    task.write(task.output.open(), box, task.values_of(found))


def number_objects(task: BlockTask) -> None:
    """Store the number of the object of each label; objects are numbered by their first pixel."""
    count = task.count(SEPARATE)
    keys = [np.load(task.pieces_path(SEPARATE, index))["keys"] for index in range(count)]
    starts = np.concatenate([[0], np.cumsum([len(own) for own in keys])])
    _, numbers = np.unique(np.concatenate(keys), return_inverse=True)
    PieceTable(task.table_folder(OBJECTS)).store(starts, (numbers + 1).astype(np.uint32))


def _store_objects(task: BlockTask, index: int, numbers: np.ndarray, keys: np.ndarray) -> None:
    """Store the labels of a block, numbered from 1, and the first pixel of each of them."""
    assert task.labels is not None, "objects are numbered"
    used, labels = np.unique(numbers, return_inverse=True)
    labels = labels.reshape(numbers.shape) + (0 if 0 in used else 1)
    box = task.grid(PREDICT).box(index)
    task.write(task.labels.open(), box, labels.astype(np.int32))
    with replacing(task.pieces_path(SEPARATE, index)) as file:
        np.savez_compressed(file, keys=keys[used[used > 0] - 1])


def _separate(
    task: BlockTask, predictor: Predictor, window: Box, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divide the parts in a window.

    Returns:
        The new classes, the objects numbered from 1, and the first pixel of each of them.
    """
    assert task.distance is not None, "a task of objects that are separated"
    if not classes.any():
        return classes, np.zeros(classes.shape, np.int32), np.zeros(0, np.int64)
    distance = read_box(task.distance, window)
    space = predictor.plan.preprocessing.space
    classes, labels = separate(classes, distance, space, predictor.objects)
    used, numbers = np.unique(labels, return_inverse=True)
    # An object that is erased completely by the dividing lines gets no number.
    numbers = numbers.reshape(labels.shape) + (0 if 0 in used else 1)
    count = int(numbers.max())
    return classes, numbers, first_pixels(numbers, count, window, task.output.shape)


def _take_parts(task: BlockTask, window: Box, seeds: np.ndarray) -> np.ndarray:
    """Return the classes of the parts that contain given pixels, which lie within a window."""
    classes = read_box(task.classes[-1], window)
    labels, values = label_values(classes, 0, corners_connect=task.corners_connect)
    places = np.unravel_index(seeds, task.output.shape)
    wanted = labels[tuple(own - edge[0] for own, edge in zip(places, window, strict=True))]
    is_wanted = np.zeros(len(values) + 1, dtype=bool)
    is_wanted[wanted] = True
    return np.where(is_wanted[labels], classes, 0)


def _group(
    windows: np.ndarray, is_chosen: np.ndarray, most_px: int
) -> Iterator[tuple[Box, np.ndarray]]:
    """Yield windows that contain the parts of several pieces, with the indices of these pieces.

    Shapes:
        windows: (N, D, 2); is_chosen: (N,).
    """
    groups = [np.flatnonzero(is_chosen)] if is_chosen.any() else []
    while groups:
        own = groups.pop()
        low, high = windows[own, :, 0].min(axis=0), windows[own, :, 1].max(axis=0)
        if math.prod((high - low).tolist()) <= most_px or len(own) == 1:
            yield tuple(zip(low.tolist(), high.tolist(), strict=True)), own
            continue
        centers = windows[own].sum(axis=-1)
        axis = int(np.ptp(centers, axis=0).argmax())
        order = own[np.argsort(centers[:, axis], kind="stable")]
        groups += [order[: len(order) // 2], order[len(order) // 2 :]]
