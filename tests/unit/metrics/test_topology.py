from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from ushape.metrics.topology import (
    TopologyScores,
    best_threshold,
    label_cells,
    mean_scores,
    score_section,
    score_thresholds,
    thin_membranes,
)

PERFECT = TopologyScores(
    rand=1,
    rand_split=1,
    rand_merge=1,
    information=1,
    information_split=1,
    information_merge=1,
    variation_split=0,
    variation_merge=0,
    warping_error=0,
)


def drawn(*rows):
    """(y, x) bool; # is membrane."""
    return np.array([[letter != "#" for letter in row] for row in rows])


WALL = drawn(*["....#...."] * 6)


def many_cells(seed=0, shape=(60, 64)):
    """Cells around random centers, membranes two pixels wide between them."""
    rng = np.random.default_rng(seed)
    seeds = np.ones(shape, dtype=bool)
    seeds[rng.integers(shape[0], size=20), rng.integers(shape[1], size=20)] = False
    nearest = ndimage.distance_transform_edt(seeds, return_distances=False, return_indices=True)
    owner = np.ravel_multi_index(tuple(nearest), shape)
    return ndimage.maximum_filter(owner, (2, 2)) == ndimage.minimum_filter(owner, (2, 2))


def test_corners_do_not_connect_cells():
    assert label_cells(drawn(".#", "#.")).tolist() == [[1, 0], [0, 2]]


def test_thinned_by_hand():
    wide = drawn(*[".#####..."] * 3)
    # The wall has columns 1 to 5; from both sides two are filled, the middle one stays.
    assert thin_membranes(wide).tolist() == [[1, 1, 1, 0, 2, 2, 2, 2, 2]] * 3


def test_cells_grow_by_four_neighbors():
    cells = np.zeros((5, 11), dtype=bool)
    cells[0, 0] = cells[4, 10] = True
    # The pixel (4, 4) is 4 + 4 steps from the first cell, or 4 diagonal ones; 6 from the second.
    assert thin_membranes(cells)[4, 4] == 2


def test_thinning_fills_what_separates_nothing():
    organelle = drawn(".....", ".###.", ".###.", ".....")
    broken = drawn("..#..", "..#..", ".....", "..#..")
    for cells in (organelle, broken, np.ones((4, 5), bool), np.zeros((4, 5), bool)):
        assert (thin_membranes(cells) == 1).all()


def test_thinning_keeps_every_cell_and_their_separation():
    cells = many_cells()
    thin = thin_membranes(cells)
    assert thin.max() == label_cells(cells).max() > 10
    np.testing.assert_array_equal(thin[cells], label_cells(cells)[cells])
    for here, beside in ((thin[1:], thin[:-1]), (thin[:, 1:], thin[:, :-1])):
        assert (here == beside)[(here > 0) & (beside > 0)].all()
    assert 0 < (thin == 0).sum() < (~cells).sum()


def test_the_truth_itself_is_perfect():
    for cells in (WALL, many_cells(), np.ones((4, 5), bool)):
        assert score_section(cells, cells) == PERFECT


def test_the_width_of_membranes_does_not_matter():
    for wall in ("...###...", "..#####..", "..###....", "....####."):
        assert score_section(drawn(*[wall] * 6), WALL).warping_error == 0
    for wall in ("...###...", "..#####.."):  # The line in their middle is where the truth's is.
        assert score_section(drawn(*[wall] * 6), WALL) == PERFECT
    # A broad truth lets the line lie anywhere within.
    broad = drawn(*["...###..."] * 6)
    for wall in ("...#.....", ".....#...", "...##...."):
        assert score_section(drawn(*[wall] * 6), broad).rand == 1


def test_a_hole_in_a_membrane_merges_by_hand():
    found = score_section(drawn(*["....#...."] * 5, "........."), WALL)
    # Two cells of 24 pixels become one: squares 1/4 + 1/4 of 1.
    assert (found.rand_split, found.rand_merge) == pytest.approx((1, 1 / 2))
    assert found.rand == pytest.approx(2 / 3)
    assert (found.information_split, found.information_merge, found.information) == (1, 0, 0)
    assert found.variation == pytest.approx(1)
    assert found.warping_error == pytest.approx(1 / 54)


def test_a_membrane_too_many_splits_by_hand():
    found = score_section(drawn(*[".#..#...."] * 6), WALL)
    # Of 48 pixels: the left cell of 24 falls into 6, 12 and a line of 6 single ones.
    joint = (6**2 + 12**2 + 6 * 1 + 24**2) / 48**2
    assert (found.rand_split, found.rand_merge) == pytest.approx((joint / (1 / 2), 1))
    # Of the left half: 1/4 in a quarter, 1/2 in a half, 1/4 in single pixels of 24.
    bits = (1 / 4 * 2 + 1 / 2 * 1 + 1 / 4 * np.log2(24)) / 2
    assert (found.variation_split, found.variation_merge) == pytest.approx((bits, 0))
    assert found.warping_error > 0


def test_more_gaps_are_worse():
    truth = many_cells()
    places = np.random.default_rng(1).permutation(np.argwhere(~truth))
    previous = PERFECT
    for count in (3, 10, 40):
        predicted = truth.copy()
        for y, x in places[:count]:
            predicted[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = True
        found = score_section(predicted, truth)
        assert found.rand < previous.rand
        assert found.information < previous.information
        assert found.variation > previous.variation
        assert found.warping_error > previous.warping_error
        assert found.rand_split == pytest.approx(1)
        previous = found


def test_nothing_found_and_nothing_there():
    none = np.zeros_like(WALL)
    merged = score_section(none, WALL)
    assert (merged.rand, merged.information) == pytest.approx((2 / 3, 0))
    assert merged.warping_error == pytest.approx(2 / 54)  # A pixel is left of either cell.
    assert score_section(none, none) == PERFECT


def test_each_section_counts_the_same():
    broken = score_section(np.ones_like(WALL), WALL)
    found = mean_scores([PERFECT, PERFECT, broken])
    assert found.rand == pytest.approx((1 + 1 + 2 / 3) / 3)
    assert found.warping_error == pytest.approx(broken.warping_error / 3)


def test_one_threshold_for_all_sections():
    # Membranes of probability 0.35 and 0.65 in cells of 0.9: seen from 0.4 and from 0.7.
    stack = [np.where(WALL, 0.9, membrane) for membrane in (0.35, 0.65)]
    found = score_thresholds(stack, [WALL, WALL])
    one_of_two = (1 + 2 / 3) / 2
    expected = [2 / 3] * 4 + [one_of_two] * 3 + [1, 1] + [2 / 3]
    assert [scores.rand for scores in found.values()] == pytest.approx(expected)
    assert {best_threshold(found, name) for name in ("rand", "warping_error")} == {0.7}
    assert found[0.7] == PERFECT


def test_bytes_as_fractions():
    stack = np.random.default_rng(0).integers(256, size=(2, 6, 9), dtype=np.uint8)
    truths = [WALL, WALL]
    assert score_thresholds(stack, truths) == score_thresholds(stack / 255, truths)


def test_best_is_highest_or_lowest():
    found = {
        0.1: PERFECT,
        0.2: replace(PERFECT, rand=0.5, variation_split=1),
        0.3: replace(PERFECT, information=0.2, warping_error=0.1),
    }
    del found[0.1]
    best = {name: best_threshold(found, name) for name in ("rand", "information")}
    assert best == {"rand": 0.3, "information": 0.2}
    assert (best_threshold(found, "variation"), best_threshold(found, "warping_error")) == (
        0.3,
        0.2,
    )
    assert best_threshold({0.4: PERFECT, 0.2: PERFECT}, "rand") == 0.4  # The first of several.


def test_a_section_too_many():
    with pytest.raises(ValueError, match="longer"):
        score_thresholds([WALL * 1.0], [WALL, WALL])
