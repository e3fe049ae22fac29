import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage import draw

from ushape.instances.contours import Outline, trace_outlines
from ushape.instances.label import Objects

LABELS = arrays.arrays(np.int32, (7, 8), elements=st.sampled_from([0, 0, 1, 2]))


def as_objects(labels):
    labels = np.asarray(labels, dtype=np.int32)
    return Objects(labels=labels, classes=np.ones(labels.max(initial=0), dtype=np.uint8))


def as_shape(outline: Outline):
    return shapely.MultiPolygon(
        [(one.shell[:, ::-1], [hole[:, ::-1] for hole in one.holes]) for one in outline.polygons]
    )


def fill(outlines, shape):
    """By scikit-image, whose (0, 0) is the center of the first pixel."""
    labels = np.zeros(shape, dtype=np.int32)
    for outline in outlines:
        for one in outline.polygons:
            inside = draw.polygon2mask(shape, one.shell - 0.5)
            for hole in one.holes:
                inside &= ~draw.polygon2mask(shape, hole - 0.5)
            labels[inside] = outline.object_id
    return labels


def test_outlines_of_a_pixel_and_an_angle_by_hand():
    one, two = trace_outlines(as_objects([[1, 0, 0, 0], [0, 0, 2, 0], [0, 2, 2, 0]]))
    assert one.polygons[0].shell.tolist() == [[0, 0], [0, 1], [1, 1], [1, 0]]
    assert two.polygons[0].shell.tolist() == [[1, 2], [1, 3], [3, 3], [3, 1], [2, 1], [2, 2]]
    assert (one.object_id, two.object_id, one.plane) == (1, 2, None)


def test_outlines_of_a_hole_and_an_island_in_it():
    labels = np.ones((5, 5), dtype=np.int32)
    labels[1:4, 1:4] = 0
    labels[2, 2] = 2
    ring, island = trace_outlines(as_objects(labels))
    assert [hole.tolist() for hole in ring.polygons[0].holes] == [[[1, 1], [4, 1], [4, 4], [1, 4]]]
    assert island.polygons[0].holes == ()
    assert as_shape(ring).area == 16


def test_outlines_of_pixels_that_meet_at_a_corner_are_two_polygons():
    (both,) = trace_outlines(as_objects([[1, 0], [0, 1]]))
    assert len(both.polygons) == 2
    assert as_shape(both).is_valid


@pytest.mark.parametrize(
    "labels",
    [
        [[1, 1, 1], [1, 0, 1], [1, 1, 0]],  # A hole that meets the outside at a corner,
        [[1, 1, 1], [1, 0, 1], [0, 1, 1]],
        [[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]],  # and two that meet.
        [[1, 1, 1, 1], [1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 1]],
    ],
)
def test_outlines_that_meet_at_a_corner_stay_apart(labels):
    (outline,) = trace_outlines(as_objects(labels))
    (polygon,) = outline.polygons
    assert 1 <= len(polygon.holes) <= 2
    for ring in (polygon.shell, *polygon.holes):
        assert len({tuple(point) for point in ring.tolist()}) == len(ring)
    assert as_shape(outline).is_valid
    assert as_shape(outline).area == np.sum(labels)


@given(labels=LABELS)
def test_outlines_filled_are_the_labels(labels):
    outlines = list(trace_outlines(as_objects(labels)))
    assert (fill(outlines, labels.shape) == labels).all()
    assert [one.object_id for one in outlines] == [i for i in (1, 2) if (labels == i).any()]


@given(labels=LABELS)
def test_outlines_are_valid_and_as_large_as_the_objects(labels):
    for outline in trace_outlines(as_objects(labels)):
        shape = as_shape(outline)
        own = np.argwhere(labels == outline.object_id)
        assert shape.is_valid, shapely.is_valid_reason(shape)
        assert shape.area == len(own)
        (top, left), (bottom, right) = own.min(axis=0), own.max(axis=0) + 1
        assert shape.bounds == (left, top, right, bottom)


@given(labels=LABELS)
def test_outlines_have_only_corners_and_one_orientation(labels):
    for outline in trace_outlines(as_objects(labels)):
        for polygon in outline.polygons:
            assert shapely.LinearRing(polygon.shell[:, ::-1]).is_ccw
            assert not any(shapely.LinearRing(hole[:, ::-1]).is_ccw for hole in polygon.holes)
            for ring in (polygon.shell, *polygon.holes):
                steps = np.roll(ring, -1, axis=0) - ring
                assert ((steps == 0).sum(axis=1) == 1).all()
                assert ((steps[1:] == 0) != (steps[:-1] == 0)).all()


def test_outlines_of_a_volume_plane_by_plane():
    labels = np.zeros((3, 4, 4), dtype=np.int32)
    labels[0, :2, :2] = labels[2, 1:, 1:] = 1
    labels[2, 0, 0] = 2
    found = list(trace_outlines(as_objects(labels)))
    assert [(one.plane, one.object_id) for one in found] == [(0, 1), (2, 1), (2, 2)]
    for z in (0, 2):
        own = [one for one in found if one.plane == z]
        assert (fill(own, (4, 4)) == labels[z]).all()


def test_outlines_of_nothing():
    assert list(trace_outlines(as_objects(np.zeros((3, 3))))) == []


def test_outlines_of_a_large_ragged_object():
    labels = (np.random.default_rng(0).random((60, 70)) < 0.6).astype(np.int32)
    (outline,) = trace_outlines(as_objects(labels))
    assert as_shape(outline).is_valid
    assert (fill([outline], labels.shape) == labels).all()
