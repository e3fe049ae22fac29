from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy import ndimage, sparse
from skimage import metrics as peer

from ushape.metrics.topology import (
    SIMPLE,
    SUBLATTICES,
    SplitMerge,
    TopologyScores,
    best_threshold,
    contingency_table,
    information_score,
    label_cells,
    mean_scores,
    rand_score,
    score_section,
    score_thresholds,
    thin_membranes,
    variation_of_information,
    warp,
    warping_error,
)

HALVES = np.array([[1, 1, 1, 1], [2, 2, 2, 2]])


def scores(predicted, truth):
    overlaps = contingency_table(np.asarray(predicted), np.asarray(truth))
    return rand_score(overlaps), information_score(overlaps), variation_of_information(overlaps)


def random_pair(seed, lowest=0):
    """Two label maps with few or many segments; 0 is membrane."""
    rng = np.random.default_rng(seed)
    shape = rng.integers(2, 9, size=2)
    return [rng.integers(lowest, rng.integers(2, 9), size=shape) for _ in range(2)]


def test_partition_scores_of_a_split_segment_by_hand():
    rand, information, variation = scores([[1, 1, 2, 2], [3, 3, 3, 3]], HALVES)
    # Squares: truth 1/4 + 1/4 = 1/2; predicted and joint 1/16 + 1/16 + 1/4 = 3/8.
    assert (rand.split, rand.merge) == pytest.approx((3 / 4, 1))
    assert rand.f_score == pytest.approx(6 / 7)
    # H(truth) = 1 bit, H(predicted) = H(joint) = 2/4 + 2/4 + 1/2 = 1.5, so 1 bit is mutual.
    assert (information.split, information.merge) == pytest.approx((2 / 3, 1))
    assert information.f_score == pytest.approx(4 / 5)
    assert (variation.split, variation.merge, variation.total) == pytest.approx((0.5, 0, 0.5))


def test_partition_scores_of_merged_segments_by_hand():
    rand, information, variation = scores(np.ones((2, 4), int), HALVES)
    # Squares: truth and joint 1/4 + 1/4 = 1/2; predicted 1.
    assert (rand.split, rand.merge, rand.f_score) == pytest.approx((1, 1 / 2, 2 / 3))
    # One segment has no information: 0 of 1 bit is mutual. It splits nothing: 1.
    assert (information.split, information.merge, information.f_score) == (1, 0, 0)
    assert (variation.split, variation.merge) == pytest.approx((0, 1))


def test_contingency_table_treats_unlabeled_pixels_as_segments():
    rand, information, variation = scores([[0, 0, 0, 0]], [[5, 5, 5, 5]])
    # Squares: truth 1; predicted and joint 4 * 1/16 = 1/4.
    assert (rand.split, rand.merge, rand.f_score) == pytest.approx((1 / 4, 1, 2 / 5))
    assert (information.split, information.merge) == (0, 1)
    assert variation.split == pytest.approx(2)


def test_partition_scores_of_a_line_of_single_pixels_by_hand():
    rand, _, variation = scores([[1, 1, 0, 2]], [[1, 1, 1, 1]])
    # Squares: joint 4/16 + 1/16 + 1/16 = 3/8. H = 1/2 * 1 + 2 * 1/4 * 2 = 1.5 bits.
    assert rand.split == pytest.approx(3 / 8)
    assert variation.split == pytest.approx(1.5)


def test_contingency_table_excludes_membranes_of_the_truth():
    truth = [[1, 1, 0, 2, 2]]
    for line in ([[1, 1, 1, 2, 2]], [[1, 1, 0, 2, 2]], [[1, 1, 9, 2, 2]]):
        rand, information, variation = scores(line, truth)
        assert (rand.f_score, information.f_score, variation.total) == (1, 1, 0)


def test_partition_scores_of_independent_partitions():
    _, information, variation = scores([[1, 2], [1, 2]], [[1, 1], [2, 2]])
    assert (information.split, information.merge, information.f_score) == (0, 0, 0)
    assert (variation.split, variation.merge) == (1, 1)


@pytest.mark.parametrize(
    "truth", [HALVES, np.ones((3, 3), int), np.arange(1, 10), np.zeros((2, 2))]
)
def test_partition_scores_of_equal_partitions_are_perfect(truth):
    rand, information, variation = scores(truth, truth)
    assert rand == information == SplitMerge(split=1, merge=1)
    assert (rand.f_score, variation.total) == (1, 0)


def test_partition_scores_are_independent_of_labels():
    for seed in range(20):
        predicted, truth = random_pair(seed)
        names = np.random.default_rng(seed).permutation(np.arange(1, 40))
        renamed = [np.where(labels == 0, 0, names[labels]) for labels in (predicted, truth)]
        for before, after in zip(scores(predicted, truth), scores(*renamed), strict=True):
            assert vars(after) == pytest.approx(vars(before))


def test_partition_scores_exchange_split_and_merge_with_the_images():
    for seed in range(20):
        one, other = random_pair(seed, lowest=1)
        for there, back in zip(scores(one, other), scores(other, one), strict=True):
            assert (there.split, there.merge) == pytest.approx((back.merge, back.split))


@pytest.mark.parametrize("seed", range(20))
def test_partition_scores_equal_the_definitions(seed):
    predicted, truth = random_pair(seed)
    truth[0, 0] = 1
    pixels = zip(predicted[truth > 0].tolist(), truth[truth > 0].tolist(), strict=True)
    named = [(("own", i) if p == 0 else p, t) for i, (p, t) in enumerate(pixels)]
    pairs = list(product(named, repeat=2))
    both = sum(a == b for a, b in pairs)
    in_truth = sum(a[1] == b[1] for a, b in pairs)
    in_predicted = sum(a[0] == b[0] for a, b in pairs)

    def share(matches):
        return sum(map(matches, named)) / len(named)

    # Mean over pixels of -log2 of the share of the segment that each is in.
    h_joint = np.mean([-np.log2(share(lambda x, a=a: x == a)) for a in named])
    h_truth = np.mean([-np.log2(share(lambda x, a=a: x[1] == a[1])) for a in named])
    h_predicted = np.mean([-np.log2(share(lambda x, a=a: x[0] == a[0])) for a in named])
    mutual = h_truth + h_predicted - h_joint

    rand, information, variation = scores(predicted, truth)
    assert (rand.split, rand.merge) == pytest.approx((both / in_truth, both / in_predicted))
    assert rand.f_score == pytest.approx(2 * both / (in_truth + in_predicted))
    if h_truth and h_predicted:
        expected = mutual / h_predicted, mutual / h_truth, 2 * mutual / (h_truth + h_predicted)
        found = information.split, information.merge, information.f_score
        assert found == pytest.approx(expected, abs=1e-12)
    expected = h_joint - h_truth, h_joint - h_predicted
    assert (variation.split, variation.merge) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(200))
def test_partition_scores_agree_with_scikit_image(seed):
    predicted, truth = random_pair(seed, lowest=1)  # scikit-image treats 0 as one segment.
    truth[0, 0] = 0
    rand, _, variation = scores(predicted, truth)
    ones = np.ones(np.count_nonzero(truth))
    table = sparse.coo_array((ones, (truth[truth > 0], predicted[truth > 0]))).tocsr()
    # scikit-image leaves out pairs of a pixel with itself, which are few in a repeated image.
    error, _, _ = peer.adapted_rand_error(table=table * 1e6)
    assert rand.f_score == pytest.approx(1 - error, abs=1e-5)
    split, merge = peer.variation_of_information(truth, predicted, ignore_labels=(0,))
    assert (variation.split, variation.merge) == pytest.approx((split, merge), abs=1e-12)


PERFECT = TopologyScores(rand=1, information=1, variation=0, warping_error=0)


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


def test_label_cells_does_not_connect_corners():
    assert label_cells(drawn(".#", "#.")).tolist() == [[1, 0], [0, 2]]


def test_thin_membranes_by_hand():
    wide = drawn(*[".#####..."] * 3)
    # The wall has columns 1 to 5; from both sides two are filled, the middle one stays.
    assert thin_membranes(wide).tolist() == [[1, 1, 1, 0, 2, 2, 2, 2, 2]] * 3


def test_thin_membranes_grows_cells_by_four_neighbors():
    cells = np.zeros((5, 11), dtype=bool)
    cells[0, 0] = cells[4, 10] = True
    # The pixel (4, 4) is 4 + 4 steps from the first cell, or 4 diagonal ones; 6 from the second.
    assert thin_membranes(cells)[4, 4] == 2


def test_thin_membranes_fills_what_separates_no_cells():
    organelle = drawn(".....", ".###.", ".###.", ".....")
    broken = drawn("..#..", "..#..", ".....", "..#..")
    for cells in (organelle, broken, np.ones((4, 5), bool), np.zeros((4, 5), bool)):
        assert (thin_membranes(cells) == 1).all()


def test_thin_membranes_keeps_all_cells_separate():
    cells = many_cells()
    thin = thin_membranes(cells)
    assert thin.max() == label_cells(cells).max() > 10
    np.testing.assert_array_equal(thin[cells], label_cells(cells)[cells])
    for here, beside in ((thin[1:], thin[:-1]), (thin[:, 1:], thin[:, :-1])):
        assert (here == beside)[(here > 0) & (beside > 0)].all()
    assert 0 < (thin == 0).sum() < (~cells).sum()


def test_score_section_of_the_truth_is_perfect():
    for cells in (WALL, many_cells(), np.ones((4, 5), bool)):
        assert score_section(cells, cells) == PERFECT


def test_score_section_is_independent_of_membrane_width():
    for wall in ("...###...", "..#####..", "..###....", "....####."):
        assert score_section(drawn(*[wall] * 6), WALL).warping_error == 0
    for wall in ("...###...", "..#####.."):  # The line in their middle is where the truth's is.
        assert score_section(drawn(*[wall] * 6), WALL) == PERFECT
    # Within a broad membrane of the truth, the line may lie anywhere.
    broad = drawn(*["...###..."] * 6)
    for wall in ("...#.....", ".....#...", "...##...."):
        assert score_section(drawn(*[wall] * 6), broad).rand == 1


def test_score_section_of_a_gap_by_hand():
    found = score_section(drawn(*["....#...."] * 5, "........."), WALL)
    # Two cells of 24 pixels become one: squares 1/4 + 1/4 of 1.
    assert found.rand == pytest.approx(2 / 3)  # Split score 1, merge score 1/2.
    assert found.information == 0
    assert found.variation == pytest.approx(1)
    assert found.warping_error == pytest.approx(1 / 54)


def test_score_section_of_an_additional_membrane_by_hand():
    found = score_section(drawn(*[".#..#...."] * 6), WALL)
    # Of 48 pixels: the left cell of 24 falls into 6, 12 and a line of 6 single ones.
    joint = (6**2 + 12**2 + 6 * 1 + 24**2) / 48**2
    split = joint / (1 / 2)
    assert found.rand == pytest.approx(2 * split / (split + 1))
    # Of the left half: 1/4 in a quarter, 1/2 in a half, 1/4 in single pixels of 24.
    bits = (1 / 4 * 2 + 1 / 2 * 1 + 1 / 4 * np.log2(24)) / 2
    assert found.variation == pytest.approx(bits)
    assert found.warping_error > 0


def test_score_section_decreases_with_the_number_of_gaps():
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
        previous = found


def test_score_section_of_empty_images():
    none = np.zeros_like(WALL)
    merged = score_section(none, WALL)
    assert (merged.rand, merged.information) == pytest.approx((2 / 3, 0))
    assert merged.warping_error == pytest.approx(2 / 54)  # A pixel is left of either cell.
    assert score_section(none, none) == PERFECT


def test_mean_scores_weights_sections_equally():
    broken = score_section(np.ones_like(WALL), WALL)
    found = mean_scores([PERFECT, PERFECT, broken])
    assert found.rand == pytest.approx((1 + 1 + 2 / 3) / 3)
    assert found.warping_error == pytest.approx(broken.warping_error / 3)


def test_score_thresholds_uses_one_threshold_for_all_sections():
    # Membranes of probability 0.35 and 0.65 in cells of 0.9: seen from 0.4 and from 0.7.
    stack = [np.where(WALL, 0.9, membrane) for membrane in (0.35, 0.65)]
    found = score_thresholds(stack, [WALL, WALL])
    one_of_two = (1 + 2 / 3) / 2
    expected = [2 / 3] * 4 + [one_of_two] * 3 + [1, 1] + [2 / 3]
    assert [scores.rand for scores in found.values()] == pytest.approx(expected)
    assert {best_threshold(found, name) for name in ("rand", "warping_error")} == {0.7}
    assert found[0.7] == PERFECT


def test_score_thresholds_accepts_uint8():
    stack = np.random.default_rng(0).integers(256, size=(2, 6, 9), dtype=np.uint8)
    truths = [WALL, WALL]
    assert score_thresholds(stack, truths) == score_thresholds(stack / 255, truths)


def test_best_threshold_is_the_highest_or_lowest():
    found = {
        0.1: PERFECT,
        0.2: replace(PERFECT, rand=0.5, variation=1),
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


def test_score_thresholds_refuses_different_numbers_of_sections():
    with pytest.raises(ValueError, match="longer"):
        score_thresholds([WALL * 1.0], [WALL, WALL])


CLOCKWISE = [(0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0)]
CORNERS = np.ones((3, 3))


def blobs(rng, shape=(14, 15)):
    """Random cells that are several pixels wide."""
    return ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(0, 1.5)) > 0


def count_parts(cells):
    """Number of cells, and of membranes including the outside; they determine the holes."""
    padded = np.pad(cells, 1)
    return ndimage.label(padded)[1], ndimage.label(~padded, CORNERS)[1]


def is_simple(patch):
    """Definition: one cell touches a side of the center, and one membrane any neighbor."""
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


def test_simple_table_equals_the_definition():
    for code in range(256):
        patch = np.zeros((3, 3), dtype=bool)
        for bit, place in enumerate(CLOCKWISE):
            patch[place] = code >> bit & 1
        assert SIMPLE[code] == is_simple(patch), patch


@pytest.mark.parametrize("seed", range(60))
def test_warp_of_sublattices_equals_single_pixels(seed):
    rng = np.random.default_rng(seed)
    predicted, truth = blobs(rng), blobs(rng)
    warped = warp(predicted, truth)
    np.testing.assert_array_equal(warped, warp_one_by_one(predicted, truth))
    assert count_parts(warped) == count_parts(truth)
    kept = predicted == truth
    np.testing.assert_array_equal(warped[kept], truth[kept])


def test_warping_error_of_a_moved_border_is_0():
    truth = drawn("...#...", "...#...", "...#...", "...#...")
    moved = drawn("..#....", "..##...", "...##..", "....#..")
    wide = drawn(".#####.", ".#####.", ".#####.", ".#####.")
    for predicted in (truth, moved, wide):
        assert warping_error(predicted, truth) == 0


def test_warping_error_of_a_broken_membrane_is_its_gap():
    truth = drawn("...#...", "...#...", "...#...", "...#...", "...#...")
    # Each of the 3 pixels would join the cells: 3 of 35 stay.
    assert warping_error(
        drawn("...#...", ".......", ".......", ".......", "...#..."), truth
    ) == pytest.approx(3 / 35)
    # A membrane 2 wide thins to 1 first, then the same 3 stay.
    broad = drawn("...##..", "...##..", "...##..", "...##..", "...##..")
    gap = drawn("...##..", ".......", ".......", ".......", "...##..")
    assert warping_error(gap, broad) == pytest.approx(3 / 35)


def test_warping_error_of_an_added_or_missing_cell_is_one_pixel():
    empty, dot = drawn(".....", ".....", "....."), drawn(".....", "..#..", ".....")
    assert warping_error(dot, empty) == warping_error(empty, dot) == pytest.approx(1 / 15)
    # A cell of 3 x 3 shrinks to one pixel, but does not vanish.
    cell = drawn("#####", "#...#", "#...#", "#...#", "#####")
    assert warping_error(np.zeros_like(cell), cell) == pytest.approx(1 / 25)


def test_warp_connects_membranes_but_not_cells_at_corners():
    stairs = drawn("..#", ".#.", "#..")
    assert count_parts(stairs) == (2, 1)
    # Without its middle, the membrane is open, and the cells are one.
    assert warping_error(drawn("..#", "...", "#.."), stairs) == pytest.approx(1 / 9)


def test_warp_treats_the_outside_as_membrane():
    full = np.ones((4, 4), dtype=bool)
    # From the full image to none: all but the last pixel of the cell can go.
    assert warping_error(~full, full) == pytest.approx(1 / 16)
    assert warping_error(full, ~full) == 1  # A pixel of a new cell is never simple.
    frame = drawn("####", "#..#", "#..#", "####")
    assert warping_error(frame, full) == warping_error(full, frame) == 0


def test_warp_does_not_change_its_inputs():
    truth, predicted = drawn("..#..", "..#.."), drawn(".#...", ".#...")
    before = truth.copy(), predicted.copy()
    warp(predicted, truth)
    np.testing.assert_array_equal((truth, predicted), before)
