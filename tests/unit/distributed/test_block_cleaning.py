"""Compare the cleaning in blocks with that of the whole mask."""

from __future__ import annotations

import numpy as np
import pytest

from block_runs import make_task
from ushape.distributed.block_cleaning import (
    choose_components,
    clean_block,
    cleaning_steps,
    find_components,
)
from ushape.distributed.block_task import PREDICT, CleaningStep
from ushape.labels import Region
from ushape.transforms.morphology import Cleaning, clean_classes

CLASSES = (Region(name="a", classes=(1,)), Region(name="b", classes=(2,)))
NESTED = (Region(name="outer", classes=(1, 2)), Region(name="inner", classes=(2,)))

CLEANINGS = {
    "small": Cleaning(min_size_px=5),
    "largest": Cleaning(largest_only=True),
    "holes": Cleaning(max_hole_size_px=3),
    "all": Cleaning(largest_only=True, min_size_px=2, max_hole_size_px="all"),
    "none": Cleaning(),
}


def clean(task):
    """Clean in blocks; each block twice, because a process may be killed before its mark."""
    indices = [*range(task.count(PREDICT))] * 2
    np.random.default_rng(0).shuffle(indices)
    for step in range(len(task.cleanings)):
        for index in indices:
            find_components(task, step, index)
        choose_components(task, step)
        for index in indices:
            clean_block(task, step, index)
    return task.output.open()[...]


@pytest.mark.parametrize(("shape", "block"), [((23, 17), (9, 6)), ((7, 9, 8), (4, 5, 8))])
@pytest.mark.parametrize("regions", [CLASSES, NESTED])
@pytest.mark.parametrize(
    "names", [("small", "none"), ("largest", "largest"), ("holes", "holes"), ("all", "small")]
)
def test_blocks_are_cleaned_as_the_whole(shape, block, regions, names, tmp_path):
    cleanings = [CLEANINGS[name] for name in names]
    rng = np.random.default_rng(len(shape))
    changed = 0
    for number, shares in enumerate(([0.65, 0.2, 0.15], [0.04, 0.94, 0.02])):
        classes = rng.choice(3, shape, p=shares).astype(np.uint8)
        expected = clean_classes(classes, regions, cleanings)
        changed += np.count_nonzero(expected != classes)
        steps = cleaning_steps(regions, cleanings)
        task = make_task(tmp_path / f"{number}", shape, block, cleanings=steps)
        task.classes[0].open()[...] = classes
        np.testing.assert_array_equal(clean(task), 10 * expected)
    assert changed


def test_of_components_of_one_size_the_first_is_kept(tmp_path):
    # The first one begins in the second block: blocks are not in the order of rows.
    classes = np.array([[0, 0, 0, 1], [0, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0]], np.uint8)
    steps = cleaning_steps(CLASSES[:1], [CLEANINGS["largest"]])
    task = make_task(tmp_path, (4, 4), (4, 2), cleanings=steps)
    task.classes[0].open()[...] = classes
    found = clean(task)
    assert found.tolist() == [[0, 0, 0, 10], [0, 0, 0, 10], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_gaps_that_meet_at_the_corner_of_four_blocks_are_one(tmp_path):
    # Two pixels of background touch at a corner; one of them reaches the border of the image.
    classes = np.ones((4, 4), np.uint8)
    classes[1, 1] = classes[2, 2] = classes[3, 2] = 0
    steps = cleaning_steps(CLASSES[:1], [CLEANINGS["holes"]])
    task = make_task(tmp_path, (4, 4), (2, 2), cleanings=steps)
    task.classes[0].open()[...] = classes
    np.testing.assert_array_equal(clean(task), 10 * classes)


def test_an_empty_mask_stays_empty(tmp_path):
    steps = cleaning_steps(CLASSES, [CLEANINGS["all"]] * 2)
    assert [step.fills for step in steps] == [False, False, True, True]
    assert not clean(make_task(tmp_path, (5, 6), (4, 4), cleanings=steps)).any()


def test_idle_cleanings_have_no_steps():
    assert cleaning_steps(CLASSES, [Cleaning(min_size_px=1), Cleaning()]) == ()
    (step,) = cleaning_steps(NESTED, [Cleaning(), Cleaning(min_size_px=2)])
    assert step == CleaningStep(
        fills=False,
        classes=(2,),
        beneath=(0, 1),
        largest_only=False,
        min_size_px=2,
        max_hole_size_px=0,
    )
