"""Compare the numbers of objects in blocks with those of the whole mask."""

from __future__ import annotations

import numpy as np
import pytest

from block_runs import make_task
from ushape.distributed.block_objects import number_block, number_parts, store_pieces
from ushape.distributed.block_task import PREDICT
from ushape.instances.label import ObjectConfig, label_objects


@pytest.mark.parametrize(("shape", "block"), [((23, 17), (9, 6)), ((7, 9, 8), (4, 5, 8))])
@pytest.mark.parametrize("corners_connect", [False, True])
@pytest.mark.parametrize("min_size_px", [0, 3])
def test_objects_of_blocks_are_those_of_the_whole(
    shape, block, corners_connect, min_size_px, tmp_path
):
    classes = np.random.default_rng(0).choice(3, shape, p=[0.6, 0.2, 0.2]).astype(np.uint8)
    how = ObjectConfig(corners_connect=corners_connect, min_size_px=min_size_px)
    task = make_task(
        tmp_path, shape, block, corners_connect=corners_connect, min_size_px=min_size_px
    )
    task.output.open()[...] = 10 * classes
    for index in range(task.count(PREDICT)):
        store_pieces(task, index)
    number_parts(task)
    for index in range(task.count(PREDICT)):
        number_block(task, index)
    np.testing.assert_array_equal(task.objects.open()[...], label_objects(classes, how).labels)
