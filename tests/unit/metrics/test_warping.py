import numpy as np
import pytest
from scipy import ndimage

from ushape.metrics.warping import SIMPLE, SUBLATTICES, warp, warping_error

CLOCKWISE = [(0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0)]
CORNERS = np.ones((3, 3))


def drawn(*rows):
    """(y, x) bool; # is membrane."""
    return np.array([[letter != "#" for letter in row] for row in rows])


def blobs(rng, shape=(14, 15)):
    """Random cells of some pixels' width."""
    return ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(0, 1.5)) > 0


def count_parts(cells):
    """Cells, and membranes with the outside among them: their numbers fix the holes."""
    padded = np.pad(cells, 1)
    return ndimage.label(padded)[1], ndimage.label(~padded, CORNERS)[1]


def is_simple(patch):
    """By definition: one cell touches a side of the center, and one membrane any neighbor."""
    around, between = patch.copy(), ~patch
    around[1, 1] = between[1, 1] = False
    labels, _ = ndimage.label(around)
    sides = {labels[place] for place in ((0, 1), (1, 0), (1, 2), (2, 1))} - {0}
    return len(sides) == 1 and ndimage.label(between, CORNERS)[1] == 1


def warp_one_by_one(predicted, truth):
    goal, warped = np.pad(predicted, 1), np.pad(truth, 1)
    changed = True
    while changed:
        changed = False
        for row, column in SUBLATTICES:
            for y, x in np.argwhere(goal != warped):
                on = (y % 2, x % 2) == (row, column)
                if on and is_simple(warped[y - 1 : y + 2, x - 1 : x + 2]):
                    warped[y, x] ^= True
                    changed = True
    return warped[1:-1, 1:-1]


def test_simple_as_defined():
    for code in range(256):
        patch = np.zeros((3, 3), dtype=bool)
        for bit, place in enumerate(CLOCKWISE):
            patch[place] = code >> bit & 1
        assert SIMPLE[code] == is_simple(patch), patch


@pytest.mark.parametrize("seed", range(60))
def test_all_at_once_as_one_by_one(seed):
    rng = np.random.default_rng(seed)
    predicted, truth = blobs(rng), blobs(rng)
    warped = warp(predicted, truth)
    np.testing.assert_array_equal(warped, warp_one_by_one(predicted, truth))
    assert count_parts(warped) == count_parts(truth)
    kept = predicted == truth
    np.testing.assert_array_equal(warped[kept], truth[kept])


def test_a_moved_border_costs_nothing():
    truth = drawn("...#...", "...#...", "...#...", "...#...")
    moved = drawn("..#....", "..##...", "...##..", "....#..")
    wide = drawn(".#####.", ".#####.", ".#####.", ".#####.")
    for predicted in (truth, moved, wide):
        assert warping_error(predicted, truth) == 0


def test_a_broken_membrane_costs_its_gap():
    truth = drawn("...#...", "...#...", "...#...", "...#...", "...#...")
    # Each of the 3 pixels would join the cells: 3 of 35 stay.
    assert warping_error(
        drawn("...#...", ".......", ".......", ".......", "...#..."), truth
    ) == pytest.approx(3 / 35)
    # A membrane 2 wide thins to 1 first, then the same 3 stay.
    broad = drawn("...##..", "...##..", "...##..", "...##..", "...##..")
    gap = drawn("...##..", ".......", ".......", ".......", "...##..")
    assert warping_error(gap, broad) == pytest.approx(3 / 35)


def test_what_appears_or_vanishes_costs_a_pixel():
    empty, dot = drawn(".....", ".....", "....."), drawn(".....", "..#..", ".....")
    assert warping_error(dot, empty) == warping_error(empty, dot) == pytest.approx(1 / 15)
    # A cell of 3 x 3 shrinks to a pixel, but not away.
    cell = drawn("#####", "#...#", "#...#", "#...#", "#####")
    assert warping_error(np.zeros_like(cell), cell) == pytest.approx(1 / 25)


def test_cells_do_not_meet_at_corners_and_membranes_do():
    stairs = drawn("..#", ".#.", "#..")
    assert count_parts(stairs) == (2, 1)
    # Without its middle the membrane is open: the cells are one.
    assert warping_error(drawn("..#", "...", "#.."), stairs) == pytest.approx(1 / 9)


def test_outside_is_membrane():
    full = np.ones((4, 4), dtype=bool)
    # From the full image to none: all but the last pixel of the cell can go.
    assert warping_error(~full, full) == pytest.approx(1 / 16)
    assert warping_error(full, ~full) == 1  # A cell out of nowhere is never simple.
    frame = drawn("####", "#..#", "#..#", "####")
    assert warping_error(frame, full) == warping_error(full, frame) == 0


def test_inputs_stay_as_they_are():
    truth, predicted = drawn("..#..", "..#.."), drawn(".#...", ".#...")
    before = truth.copy(), predicted.copy()
    warp(predicted, truth)
    np.testing.assert_array_equal((truth, predicted), before)
