"""Shapes and intensities of objects, worked out by hand."""

import numpy as np
import pytest

from ushape.instances.shapes import measure_shapes

FLAT = (
    *("axis_major_px", "axis_major_mm", "axis_minor_px", "axis_minor_mm"),
    *("eccentricity", "orientation_deg", "solidity"),
)
LINE, SQUARE, DIAGONAL, CORNER, DOT = range(5)


def objects():
    labels = np.zeros((20, 24), np.int32)
    labels[1, 2:14] = 1 + LINE
    labels[4:8, 4:8] = 1 + SQUARE
    for step in range(4):
        labels[15 - step, 2 + step] = 1 + DIAGONAL  # Rises to the right.
    labels[10:14, 15], labels[13, 15:19] = 1 + CORNER, 1 + CORNER
    labels[19, 23] = 1 + DOT
    return labels


def test_measure_shapes_by_hand():
    columns = measure_shapes(objects(), np.zeros((1, 20, 24)))
    assert tuple(columns)[: len(FLAT)] == FLAT
    major, minor = columns["axis_major_px"], columns["axis_minor_px"]
    # A line of 12 pixels: variance 143 / 12, and 4 standard deviations are the axis.
    assert (major[LINE], minor[LINE]) == (pytest.approx(4 * (143 / 12) ** 0.5), 0)
    assert major[SQUARE] == pytest.approx(minor[SQUARE]) == pytest.approx(4 * (15 / 12) ** 0.5)
    assert columns["eccentricity"][LINE] == 1
    assert columns["eccentricity"][SQUARE] == 0
    assert columns["orientation_deg"][LINE] == pytest.approx(0)
    assert columns["orientation_deg"][DIAGONAL] == pytest.approx(45)
    assert columns["solidity"][LINE] == columns["solidity"][SQUARE] == 1
    assert columns["solidity"][CORNER] < 0.8
    assert [major[DOT], minor[DOT], columns["eccentricity"][DOT]] == [0, 0, 0]
    assert columns["axis_major_mm"] == columns["axis_minor_mm"] == [None] * 5


def test_measure_shapes_uses_the_spacing_of_each_axis():
    columns = measure_shapes(objects(), np.zeros((1, 20, 24)), spacing_mm=(3.0, 0.5))
    plain = measure_shapes(objects(), np.zeros((1, 20, 24)))
    assert columns["axis_major_px"] == plain["axis_major_px"]
    assert columns["axis_major_mm"][LINE] == pytest.approx(plain["axis_major_px"][LINE] / 2)
    # The square is 12 mm high and 2 mm wide: ratio of the axes 1 / 6, and upright.
    assert columns["axis_major_mm"][SQUARE] == pytest.approx(3 * plain["axis_major_px"][SQUARE])
    assert columns["eccentricity"][SQUARE] == pytest.approx((1 - 1 / 36) ** 0.5)
    assert columns["orientation_deg"][SQUARE] == pytest.approx(90)
    assert columns["orientation_deg"][DIAGONAL] == pytest.approx(np.degrees(np.arctan2(3, 0.5)))


def test_measure_shapes_measures_the_intensities_of_each_channel():
    labels = objects()
    image = np.stack([np.arange(480).reshape(20, 24), 7 * (labels == 1 + SQUARE)]).astype(
        np.float32
    )
    image[0, 19, 23] = np.nan
    columns = measure_shapes(labels, image)
    assert tuple(columns)[len(FLAT) :] == tuple(
        f"{kind}_intensity_{channel}" for channel in (1, 2) for kind in ("mean", "min", "max")
    )
    assert [columns[f"{kind}_intensity_1"][LINE] for kind in ("mean", "min", "max")] == [
        31.5,
        26,
        37,
    ]
    assert columns["mean_intensity_2"] == [0, 7, 0, 0, 0]
    assert columns["mean_intensity_1"][DOT] is columns["max_intensity_1"][DOT] is None
    (mean,) = [name for name in measure_shapes(labels, image[:1]) if "mean" in name]
    assert mean == "mean_intensity"


def test_measure_shapes_of_volumes_and_of_nothing():
    labels = np.zeros((4, 6, 9), np.int32)
    labels[1, 2, 1:8], labels[3, 5, 8] = 1, 2
    columns = measure_shapes(labels, np.ones((1, 4, 6, 9), bool), spacing_mm=(5, 0.7, 0.7))
    assert tuple(columns)[:4] == FLAT[:4]
    assert not {"solidity", "eccentricity", "orientation_deg"} & columns.keys()
    assert columns["axis_major_mm"][0] == pytest.approx(0.7 * columns["axis_major_px"][0])
    assert columns["max_intensity"] == [1, 1]
    for shape in ((4, 6), (4, 6, 9)):
        nothing = measure_shapes(np.zeros(shape, np.int32), np.zeros((2, *shape)))
        some = measure_shapes(np.ones(shape, np.int32), np.zeros((2, *shape)))
        assert tuple(nothing) == tuple(some)
        assert set(map(len, nothing.values())) == {0}
