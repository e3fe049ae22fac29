"""Compare the separation of objects in blocks with that of the whole mask."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from block_runs import make_task
from ushape.distributed.block_objects import number_block
from ushape.distributed.block_separation import (
    count_cut_parts,
    find_windows,
    number_objects,
    separate_block,
    store_parts,
)
from ushape.distributed.block_task import PREDICT
from ushape.inference.separation import separate
from ushape.instances.label import ObjectConfig, label_prediction
from ushape.labels import LabelSpace
from ushape.types import Prediction

SPACE = LabelSpace(values=(0, 10, 20), names=("background", "a", "b"), has_distance=True)
HOW = ObjectConfig(separation="learned_distance", h_distance=0.1)


def predictor_of(how, space=SPACE):
    preprocessing = SimpleNamespace(space=space)
    return SimpleNamespace(plan=SimpleNamespace(preprocessing=preprocessing), objects=how)


def random_parts(shape, seed):
    """Two classes of touching blobs, and a distance with many peaks."""
    rng = np.random.default_rng(seed)
    values = ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
    classes = (values > np.quantile(values, 0.55)).astype(np.uint8)
    classes[ndimage.gaussian_filter(rng.normal(size=shape), 3) > 0] *= 2
    return classes, ndimage.gaussian_filter(rng.random(shape), 0.8).astype(np.float32)


def separate_blocks(task, classes, distance, predictor):
    """Return the mask and the objects; each block is computed twice."""
    task.classes[-1].open()[...] = classes
    task.distance.open()[...] = np.where(classes > 0, distance, 0)
    indices = [*range(task.count(PREDICT))] * 2
    np.random.default_rng(0).shuffle(indices)
    for index in indices:
        store_parts(task, index)
    find_windows(task)
    for index in indices:
        separate_block(task, predictor, index)
    number_objects(task)
    for index in indices:
        number_block(task, index)
    return task.output.open()[...], task.objects.open()[...]


def separate_whole(classes, distance, predictor):
    space = predictor.plan.preprocessing.space
    classes, labels = separate(classes, distance, space, predictor.objects)
    prediction = Prediction(
        probabilities=np.zeros((3, *classes.shape), np.float32),
        classes=classes,
        confidence=0.0,
        labels=labels,
    )
    return classes, label_prediction(prediction, space, predictor.objects).labels


@pytest.mark.parametrize(("shape", "block"), [((37, 41), (14, 15)), ((9, 14, 15), (5, 14, 8))])
@pytest.mark.parametrize("corners_connect", [False, True])
@pytest.mark.parametrize("states_objects", [False, True])
@pytest.mark.parametrize("min_size_px", [0, 7])
def test_blocks_are_separated_as_the_whole(
    shape, block, corners_connect, states_objects, min_size_px, tmp_path
):
    how = replace(HOW, corners_connect=corners_connect, min_size_px=min_size_px)
    space = replace(SPACE, has_instances=states_objects)
    predictor = predictor_of(how, space)
    classes, distance = random_parts(shape, min_size_px)
    expected, numbers = separate_whole(classes, distance, predictor)
    connected, _ = ndimage.label(classes == 1)
    assert numbers.max() > connected.max()
    task = make_task(tmp_path, shape, block, is_separated=True, corners_connect=corners_connect)
    mask, objects = separate_blocks(task, classes, distance, predictor)
    np.testing.assert_array_equal(mask, 10 * expected)
    np.testing.assert_array_equal(objects, numbers)
    assert count_cut_parts(task) == 0


def test_windows_are_divided_until_they_are_small(tmp_path):
    # Each part crosses the border of two blocks; a window of all parts of a block is too large.
    classes = np.zeros((30, 12), np.uint8)
    classes[1::3, 2:10] = 1
    distance = np.random.default_rng(0).random(classes.shape).astype(np.float32)
    predictor = predictor_of(HOW)
    expected, numbers = separate_whole(classes, distance, predictor)
    task = make_task(tmp_path, (30, 12), (30, 6), is_separated=True, window_px=20)
    mask, objects = separate_blocks(task, classes, distance, predictor)
    np.testing.assert_array_equal(mask, 10 * expected)
    np.testing.assert_array_equal(objects, numbers)


def test_a_part_that_is_too_large_is_cut_at_the_border_of_a_block(tmp_path):
    # One object of 2 x 8 pixels, and a small one that also crosses the border at column 4.
    classes = np.zeros((6, 8), np.uint8)
    classes[0:2] = classes[4, 3:5] = 1
    distance = np.where(classes > 0, 0.5, 0).astype(np.float32)
    task = make_task(tmp_path, (6, 8), (6, 4), is_separated=True, window_px=15)
    mask, objects = separate_blocks(task, classes, distance, predictor_of(HOW))
    assert count_cut_parts(task) == 1
    np.testing.assert_array_equal(mask, 10 * classes)  # The mask has no line at the cut.
    assert objects[0].tolist() == [1] * 4 + [2] * 4
    assert objects[4].tolist() == [0, 0, 0, 3, 3, 0, 0, 0]


def test_an_empty_mask_has_no_objects(tmp_path):
    task = make_task(tmp_path, (5, 6), (4, 4), is_separated=True)
    nothing = np.zeros((5, 6), np.uint8)
    mask, objects = separate_blocks(task, nothing, nothing.astype(np.float32), predictor_of(HOW))
    assert not mask.any()
    assert not objects.any()
