"""Outlines traced in bands of rows equal those of the whole mask."""

import tracemalloc

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ushape.instances.tracing import trace_mask, trace_plane
from ushape.transforms import morphology

MASKS = arrays.arrays(
    np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 9)), elements=st.booleans()
)


def in_bands(mask, rows):
    """Trace a mask with a number of rows in memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(morphology, "BAND_PX", rows * mask.shape[1])
        return trace_mask(lambda band: mask[band], mask.shape)


def as_lists(polygons):
    return [(one.shell.tolist(), [hole.tolist() for hole in one.holes]) for one in polygons]


def as_shape(polygon):
    return shapely.Polygon(polygon.shell[:, ::-1], [hole[:, ::-1] for hole in polygon.holes])


def test_ring_across_three_bands_by_hand():
    mask = np.ones((5, 4), dtype=bool)
    mask[1:4, 1:3] = False
    (polygon,) = in_bands(mask, 2)
    assert polygon.shell.tolist() == [[0, 0], [0, 4], [5, 4], [5, 0]]
    assert [hole.tolist() for hole in polygon.holes] == [[[1, 1], [4, 1], [4, 3], [1, 3]]]


def test_parts_that_are_joined_in_a_later_band_are_one_polygon():
    mask = np.array([[1, 0, 1], [1, 0, 1], [1, 1, 1], [0, 0, 0], [0, 1, 0]], dtype=bool)
    fork, pixel = in_bands(mask, 1)
    assert as_shape(fork).area == 7
    assert fork.holes == ()
    assert pixel.shell.tolist() == [[4, 1], [4, 2], [5, 2], [5, 1]]


def test_parts_that_meet_at_a_corner_on_the_border_of_bands_are_two_polygons():
    assert len(in_bands(np.array([[1, 0], [0, 1]], dtype=bool), 1)) == 2


@given(mask=MASKS, rows=st.integers(1, 5))
def test_polygons_of_random_masks_do_not_depend_on_the_bands(mask, rows):
    whole = trace_plane(mask.astype(np.uint8)).get(1, [])
    assert as_lists(in_bands(mask, rows)) == as_lists(whole)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.6, 0.9])
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_polygons_of_a_ragged_mask_do_not_depend_on_the_bands(share, rows):
    mask = np.random.default_rng(0).random((150, 90)) < share
    found = in_bands(mask, rows)
    assert as_lists(found) == as_lists(trace_plane(mask.astype(np.uint8))[1])
    shapes = shapely.MultiPolygon([as_shape(one) for one in found])
    y, x = np.indices(mask.shape) + 0.5
    assert shapes.is_valid
    assert (shapely.contains_xy(shapes, x, y) == mask).all()


@given(labels=arrays.arrays(np.int32, (9, 8), elements=st.sampled_from([0, 0, 1, 2])))
def test_polygons_of_labels_in_memory_do_not_depend_on_the_bands(labels):
    whole = trace_plane(labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(morphology, "BAND_PX", 16)
        found = trace_plane(labels)
    assert {key: as_lists(own) for key, own in found.items()} == {
        key: as_lists(own) for key, own in whole.items()
    }


def test_memory_does_not_grow_with_the_box_of_an_object():
    mask = np.zeros((2000, 2000), dtype=bool)
    mask[[0, -1]] = mask[:, [0, -1]] = True
    tracemalloc.start()
    try:
        found = in_bands(mask, 16)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [len(one.holes) for one in found] == [1]
    assert peak < mask.size  # Of one byte for each pixel; the whole mask at once takes 18.
