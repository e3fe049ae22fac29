from itertools import product

import numpy as np
import pytest
from scipy import sparse
from skimage import metrics as peer

from ushape.metrics.partitions import (
    SplitMerge,
    contingency_table,
    information_score,
    rand_score,
    variation_of_information,
)

HALVES = np.array([[1, 1, 1, 1], [2, 2, 2, 2]])


def scores(predicted, truth):
    overlaps = contingency_table(np.asarray(predicted), np.asarray(truth))
    return rand_score(overlaps), information_score(overlaps), variation_of_information(overlaps)


def random_pair(seed, lowest=0):
    """Two label images, sometimes of few segments, sometimes of many; 0 is membrane."""
    rng = np.random.default_rng(seed)
    shape = rng.integers(2, 9, size=2)
    return [rng.integers(lowest, rng.integers(2, 9), size=shape) for _ in range(2)]


def test_one_segment_cut_in_two():
    rand, information, variation = scores([[1, 1, 2, 2], [3, 3, 3, 3]], HALVES)
    # Squares: truth 1/4 + 1/4 = 1/2; predicted and joint 1/16 + 1/16 + 1/4 = 3/8.
    assert (rand.split, rand.merge) == pytest.approx((3 / 4, 1))
    assert rand.f_score == pytest.approx(6 / 7)
    # H(truth) = 1 bit, H(predicted) = H(joint) = 2/4 + 2/4 + 1/2 = 1.5, so 1 bit is mutual.
    assert (information.split, information.merge) == pytest.approx((2 / 3, 1))
    assert information.f_score == pytest.approx(4 / 5)
    assert (variation.split, variation.merge, variation.total) == pytest.approx((0.5, 0, 0.5))


def test_two_segments_run_together():
    rand, information, variation = scores(np.ones((2, 4), int), HALVES)
    # Squares: truth and joint 1/4 + 1/4 = 1/2; predicted 1.
    assert (rand.split, rand.merge, rand.f_score) == pytest.approx((1, 1 / 2, 2 / 3))
    # One segment tells nothing: 0 of 1 bit is mutual. It splits nothing either: 1.
    assert (information.split, information.merge, information.f_score) == (1, 0, 0)
    assert (variation.split, variation.merge) == pytest.approx((0, 1))


def test_a_pixel_without_segment_is_one_of_its_own():
    rand, information, variation = scores([[0, 0, 0, 0]], [[5, 5, 5, 5]])
    # Squares: truth 1; predicted and joint 4 * 1/16 = 1/4.
    assert (rand.split, rand.merge, rand.f_score) == pytest.approx((1 / 4, 1, 2 / 5))
    assert (information.split, information.merge) == (0, 1)
    assert variation.split == pytest.approx(2)


def test_a_line_of_single_pixels_by_hand():
    rand, _, variation = scores([[1, 1, 0, 2]], [[1, 1, 1, 1]])
    # Squares: joint 4/16 + 1/16 + 1/16 = 3/8. H = 1/2 * 1 + 2 * 1/4 * 2 = 1.5 bits.
    assert rand.split == pytest.approx(3 / 8)
    assert variation.split == pytest.approx(1.5)


def test_membrane_of_the_truth_does_not_count():
    truth = [[1, 1, 0, 2, 2]]
    for line in ([[1, 1, 1, 2, 2]], [[1, 1, 0, 2, 2]], [[1, 1, 9, 2, 2]]):
        rand, information, variation = scores(line, truth)
        assert (rand.f_score, information.f_score, variation.total) == (1, 1, 0)


def test_rows_tell_nothing_about_columns():
    _, information, variation = scores([[1, 2], [1, 2]], [[1, 1], [2, 2]])
    assert (information.split, information.merge, information.f_score) == (0, 0, 0)
    assert (variation.split, variation.merge) == (1, 1)


@pytest.mark.parametrize(
    "truth", [HALVES, np.ones((3, 3), int), np.arange(1, 10), np.zeros((2, 2))]
)
def test_a_partition_agrees_with_itself(truth):
    rand, information, variation = scores(truth, truth)
    assert rand == information == SplitMerge(split=1, merge=1)
    assert (rand.f_score, variation.total) == (1, 0)


def test_numbers_of_segments_mean_nothing():
    for seed in range(20):
        predicted, truth = random_pair(seed)
        names = np.random.default_rng(seed).permutation(np.arange(1, 40))
        renamed = [np.where(labels == 0, 0, names[labels]) for labels in (predicted, truth)]
        for before, after in zip(scores(predicted, truth), scores(*renamed), strict=True):
            assert vars(after) == pytest.approx(vars(before))


def test_split_and_merge_change_places_with_the_images():
    for seed in range(20):
        one, other = random_pair(seed, lowest=1)
        for there, back in zip(scores(one, other), scores(other, one), strict=True):
            assert (there.split, there.merge) == pytest.approx((back.merge, back.split))


@pytest.mark.parametrize("seed", range(20))
def test_from_the_definitions(seed):
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
def test_as_scikit_image(seed):
    predicted, truth = random_pair(seed, lowest=1)  # It takes 0 for one segment, not for many.
    truth[0, 0] = 0
    rand, _, variation = scores(predicted, truth)
    ones = np.ones(np.count_nonzero(truth))
    table = sparse.coo_array((ones, (truth[truth > 0], predicted[truth > 0]))).tocsr()
    # It leaves out pairs of a pixel with itself; of a million-fold image these are nothing.
    error, _, _ = peer.adapted_rand_error(table=table * 1e6)
    assert rand.f_score == pytest.approx(1 - error, abs=1e-5)
    split, merge = peer.variation_of_information(truth, predicted, ignore_labels=(0,))
    assert (variation.split, variation.merge) == pytest.approx((split, merge), abs=1e-12)
