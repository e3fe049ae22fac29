import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage import measure, morphology

from codes import raises_code
from ushape.errors import ConfigError, DataError
from ushape.instances.label import (
    ObjectConfig,
    by_class,
    fill_enclosed_holes,
    label_objects,
    label_prediction,
    split_by_peaks,
)
from ushape.labels import IGNORE, LabelSpace, Region
from ushape.types import Prediction


def rows(*text):
    """One digit for each pixel."""
    return np.array([[int(digit) for digit in row] for row in text], dtype=np.uint8)


def disks(shape, radius, *centers):
    places = np.indices(shape)
    near = [sum((p - c) ** 2 for p, c in zip(places, one, strict=True)) for one in centers]
    return (np.min(near, axis=0) <= radius**2).astype(np.uint8)


def test_label_objects_numbers_in_raster_order():
    found = label_objects(rows("0201", "0001", "1100", "0010"))
    assert (found.labels == rows("0102", "0002", "3300", "0040")).all()
    assert found.classes.tolist() == [2, 1, 1, 1]
    assert found.labels.dtype == np.int32
    assert len(found) == 4


def test_label_objects_connects_corners_on_request():
    found = label_objects(rows("1100", "0010"), ObjectConfig(corners_connect=True))
    assert (found.labels == rows("1100", "0010")).all()


def test_label_objects_drops_small_objects_without_gaps():
    found = label_objects(rows("1011", "0000", "2220"), ObjectConfig(min_size_px=2))
    assert (found.labels == rows("0011", "0000", "2220")).all()
    assert found.classes.tolist() == [1, 2]


def test_label_objects_of_ignored_pixels_and_of_nothing():
    classes = np.array([[1, IGNORE, 1]], dtype=np.uint8)
    assert label_objects(classes).labels.tolist() == [[1, 0, 2]]
    for separation in ("none", "distance_transform"):
        nothing = label_objects(np.zeros((3, 4), np.uint8), ObjectConfig(separation=separation))
        assert len(nothing) == 0
        assert not nothing.labels.any()


def test_label_objects_of_a_volume_connects_planes():
    volume = np.zeros((3, 2, 2), dtype=np.uint8)
    volume[:, 0, 0] = volume[2, 1, 1] = 1
    assert label_objects(volume).labels.max() == 2
    assert label_objects(volume, ObjectConfig(corners_connect=True)).labels.max() == 1


def test_fill_enclosed_holes_uses_the_only_class_around_them():
    classes = rows("1110222", "1010202", "1110222", "0000000", "1112000", "1002000", "1112000")
    # The hole of the last ring touches two classes: it stays.
    filled = fill_enclosed_holes(classes, 9)
    assert (filled - classes).sum() == 3
    assert (filled[1, 1], filled[1, 5], filled[5, 1]) == (1, 2, 0)
    assert (fill_enclosed_holes(filled, 9) == filled).all()


def test_fill_enclosed_holes_is_closed_by_corners_only_if_corners_connect():
    diamond = rows("010", "101", "010")
    assert (fill_enclosed_holes(diamond, 1) == diamond).all()
    assert fill_enclosed_holes(diamond, 1, corners_connect=True)[1, 1] == 1


def test_fill_enclosed_holes_keeps_large_holes_and_bays_at_the_edge():
    classes = rows("11110", "10011", "11111")
    assert (fill_enclosed_holes(classes, 1) == classes).all()
    assert (fill_enclosed_holes(classes, 2) == rows("11110", "11111", "11111")).all()
    assert (fill_enclosed_holes(classes, 99) == fill_enclosed_holes(classes, 2)).all()


def test_label_objects_fills_holes_first():
    classes = rows("11111", "10201", "11111")
    found = label_objects(classes, ObjectConfig(max_hole_size_px=1, min_size_px=2))
    # The gaps beside class 2 touch both classes and are kept.
    assert (found.labels == rows("11111", "10001", "11111")).all()
    ring = label_objects(rows("111", "101", "111"), ObjectConfig(max_hole_size_px=1))
    assert (ring.labels == 1).all()


def test_split_by_distance_separates_touching_disks():
    classes = disks((21, 36), 8, (10, 10), (10, 24))
    assert len(label_objects(classes)) == 1
    found = label_objects(classes, ObjectConfig(separation="distance_transform"))
    # The columns of the neck are 16 to 18, half-way.
    assert len(found) == 2
    assert (found.labels[:, :17][classes[:, :17] > 0] == 1).all()
    assert (found.labels[:, 18:][classes[:, 18:] > 0] == 2).all()
    deep = ObjectConfig(separation="distance_transform", h_px=5.0)
    assert len(label_objects(classes, deep)) == 1


def test_split_by_distance_respects_the_spacing():
    # Two balls of 8 mm, 14 mm apart, in planes of 2 mm: ellipsoids of 4 x 8 x 8 pixels.
    z, y, x = np.indices((11, 21, 36))
    near = [(2 * z - 10) ** 2 + (y - 10) ** 2 + (x - c) ** 2 for c in (10, 24)]
    classes = (np.min(near, axis=0) <= 64).astype(np.uint8)
    config = ObjectConfig(separation="distance_transform", h_px=2.5)
    found = label_objects(classes, config, spacing_mm=(2.0, 1.0, 1.0))
    assert len(found) == 2
    assert abs(int((found.labels == 1).sum()) - int((found.labels == 2).sum())) < 60
    # Taken for cubes the pixels show less of a neck than asked for.
    assert len(label_objects(classes, config)) == 1


def test_split_by_distance_depends_only_on_spacing_ratios():
    classes = disks((21, 36), 8, (10, 10), (10, 24))
    config = ObjectConfig(separation="distance_transform")
    for spacing in ((0.01, 0.01), (30.0, 30.0)):
        found = label_objects(classes, config, spacing_mm=spacing)
        assert (found.labels == label_objects(classes, config).labels).all()


def test_split_by_probability_at_its_minimum():
    probability = np.array([[0.9, 0.95, 0.7, 0.9, 0.88, 0.89, 0.2]])
    classes = (probability > 0.5).astype(np.uint8)
    config = ObjectConfig(separation="probability", h_probability=0.1)
    found = label_objects(classes, config, probabilities={1: probability})
    assert found.labels[0].tolist()[:2] == [1, 1]
    assert found.labels[0].tolist()[3:] == [2, 2, 2, 0]  # 0.88 is too shallow to cut.
    steeper = ObjectConfig(separation="probability", h_probability=0.25)
    assert len(label_objects(classes, steeper, probabilities={1: probability})) == 1


@pytest.mark.parametrize("separation", ["none", "distance_transform", "probability"])
def test_label_objects_divides_borders_among_objects(separation):
    # Class 2 is the border between and around; class 1 and class 3 are the interiors.
    classes = rows("2222222", "2112332", "2222222", "0000000", "0222000")
    inner = np.array([0, 0.8, 0.9, 0.4, 0.1, 0.1, 0]) * np.ones((5, 1))
    other = np.array([0, 0.1, 0.1, 0.3, 0.8, 0.9, 0.5]) * np.ones((5, 1))
    config = ObjectConfig(separation=separation, border_class=2)
    found = label_objects(classes, config, probabilities={1: inner, 2: inner * 0, 3: other})
    # Borders without any interior are no object.
    expected = [*["1111222"] * 3, "0000000", "0000000"]
    assert (found.labels == rows(*expected)).all()
    assert found.classes.tolist() == [1, 3]


def test_label_objects_divides_borders_where_the_class_is_least_likely():
    inner = np.array([[0.9, 0.2, 0.3, 0.8, 0.9]])
    config = ObjectConfig(border_class=2)
    found = label_objects(rows("12221"), config, probabilities={1: inner})
    assert found.labels.tolist() == [[1, 1, 2, 2, 2]]


@given(
    relief=arrays.arrays(np.int64, (6, 7), elements=st.integers(0, 9)),
    mask=arrays.arrays(bool, (6, 7)),
    h=st.integers(1, 5),
    reach=st.sampled_from([1, 2]),
)
def test_split_by_peaks_finds_the_h_maxima(relief, mask, h, reach):
    labels = split_by_peaks(relief, mask, h, reach)
    assert ((labels > 0) == mask).all()
    # Independently: by reconstruction, in which a peak must rise by more than h.
    structure = np.ones((3, 3)) if reach == 2 else np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    high = np.pad(np.where(mask, relief, -99.0), 1, constant_values=-99.0)
    opened = morphology.reconstruction(high - (h - 0.5), high, footprint=structure)
    tops = morphology.local_maxima(opened, footprint=structure)[1:-1, 1:-1] & mask
    peaks = measure.label(tops, connectivity=reach)
    assert len(np.unique(labels[mask])) == peaks.max()
    for number in range(1, peaks.max() + 1):
        assert len(np.unique(labels[peaks == number])) == 1


@given(
    classes=arrays.arrays(np.uint8, (5, 6), elements=st.integers(0, 2)),
    separation=st.sampled_from(["none", "distance_transform"]),
    corners=st.booleans(),
)
def test_label_objects_are_connected_and_complete(classes, separation, corners):
    found = label_objects(classes, ObjectConfig(separation=separation, corners_connect=corners))
    assert ((found.labels > 0) == (classes > 0)).all()
    firsts = []
    for number, own_class in enumerate(found.classes.tolist(), 1):
        own = found.labels == number
        assert (classes[own] == own_class).all()
        assert measure.label(own, connectivity=2 if corners else 1).max() == 1
        firsts.append(int(np.flatnonzero(own)[0]))
    assert firsts == sorted(firsts)
    assert len(found) == found.labels.max(initial=0)


def test_by_class_of_all_label_spaces():
    stack = np.arange(6.0).reshape(3, 1, 2)
    binary = LabelSpace(values=(0, 255), names=("b", "f"))
    assert {k: v.tolist() for k, v in by_class(stack[:1], binary).items()} == {1: [[0, 1]]}
    three = LabelSpace(values=(0, 5, 7), names=("b", "f", "g"))
    assert {k: v.tolist() for k, v in by_class(stack, three).items()} == {1: [[2, 3]], 2: [[4, 5]]}
    whole, core = Region(name="whole", classes=(2, 1)), Region(name="core", classes=(1,))
    nested = LabelSpace(values=(0, 5, 7), names=("b", "f", "g"), regions=(whole, core))
    found = {k: v.tolist() for k, v in by_class(stack[:2], nested).items()}
    assert found == {2: [[0, 1]], 1: [[2, 3]]}


@pytest.mark.parametrize(
    ("setting", "code"),
    [
        ({"h_px": 0}, "value_out_of_range"),
        ({"h_px": float("inf")}, "value_out_of_range"),
        ({"h_probability": float("nan")}, "value_out_of_range"),
        ({"min_size_px": -1}, "value_out_of_range"),
        ({"max_hole_size_px": -3}, "value_out_of_range"),
        ({"border_class": 0}, "unknown_class"),
    ],
)
def test_object_config_refuses_impossible_values(setting, code):
    with raises_code(ConfigError, code):
        ObjectConfig(**setting)


def test_label_objects_refuses_inconsistent_input():
    classes = rows("0120")
    by_probability = ObjectConfig(separation="probability")
    with raises_code(ConfigError, "probabilities_required"):
        label_objects(classes, by_probability)
    with raises_code(ConfigError, "probabilities_required"):
        label_objects(classes, ObjectConfig(border_class=2))
    with raises_code(DataError, "probabilities_missing"):
        label_objects(classes, by_probability, probabilities={1: np.ones((1, 4))})
    with raises_code(DataError, "shape_mismatch"):
        label_objects(classes, probabilities={1: np.ones((4, 1))})
    for spacing in ((1.0,), (1.0, 0.0), (1.0, np.nan), (1.0, 1.0, 1.0)):
        with raises_code(DataError, "invalid_spacing"):
            label_objects(classes, spacing_mm=spacing)


def test_label_prediction_keeps_separated_objects_and_their_filled_holes():
    space = LabelSpace(values=(0, 1, 2), names=("background", "a", "b"), has_distance=True)
    classes = rows("1110022", "1010000", "1110011")
    labels = np.where(classes > 0, rows("1110022", "1110000", "1110033"), 0).astype(np.int32)
    labels[1, 1] = 1  # A hole that was filled.
    shares = np.zeros((3, *classes.shape), np.float32)
    prediction = Prediction(probabilities=shares, classes=classes, labels=labels)
    found = label_prediction(prediction, space)
    np.testing.assert_array_equal(found.labels, labels)
    assert found.classes.tolist() == [1, 2, 1]

    removed = Prediction(
        probabilities=shares, classes=np.where(labels == 2, 0, classes), labels=labels
    )
    found = label_prediction(removed, space)
    np.testing.assert_array_equal(found.labels, np.array([0, 1, 0, 2])[labels])
    assert found.classes.tolist() == [1, 1]
