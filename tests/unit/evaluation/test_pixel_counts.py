import numpy as np
import pytest

from ushape.evaluation.pixel_counts import Confusion, PixelCounts, ThresholdPoint, join_curves
from ushape.labels import IGNORE, LabelSpace

CELL = LabelSpace(values=(0, 255), names=("background", "cell"))
TISSUE = LabelSpace(values=(0, 1, 2), names=("background", "bone", "fat"))


def test_confusion_counts_pixels_by_true_and_predicted_class():
    counts = PixelCounts(TISSUE)
    truth = np.array([[0, 0, 1, 1, 2, IGNORE]], np.uint8)
    predicted = np.array([[0, 2, 1, 1, 1, 2]], np.uint8)
    probabilities = np.full((3, 1, 6), 1 / 3, np.float32)
    for _ in range(2):
        counts.add("g", probabilities, predicted, truth)
    assert counts.confusion.names == ("background", "bone", "fat")
    assert counts.confusion.counts == ((2, 0, 2), (0, 4, 0), (0, 2, 0))
    assert counts.confusion.shares == [[0.5, 0, 0.5], [0, 1, 0], [0, 1, 0]]
    assert (counts.confusion + counts.confusion).counts[0] == (4, 0, 4)


def test_confusion_of_an_absent_class_has_no_shares():
    assert Confusion(names=("a", "b"), counts=((1, 1), (0, 0))).shares == [[0.5, 0.5], [None] * 2]


@pytest.mark.parametrize("counts", [((1, 2),), ((1,), (2,)), ((1, 2), (3, -4))])
def test_confusion_refuses_matrices_that_are_not_square_counts(counts):
    with pytest.raises(ValueError, match="confusion"):
        Confusion(names=("a", "b"), counts=counts)


def test_curves_are_means_over_groups_at_each_threshold():
    counts = PixelCounts(CELL)
    probabilities = np.array([[[0.9, 0.5, 0.3, 0.1]]], np.float32)
    truth = np.array([[1, 1, 0, 0]], np.uint8)
    counts.add("a", probabilities, (probabilities[0] >= 0.5).astype(np.uint8), truth)
    counts.add("b", probabilities, truth, np.array([[1, 0, 0, IGNORE]], np.uint8))
    counts.add("empty", probabilities, truth, 0 * truth)  # It is left out.
    curve = {point.threshold: point for point in counts.curves["cell"]}
    assert len(curve) == 49
    # From 0.3 on, three pixels are predicted: 2 of 2 are found in a, 1 of 1 in b.
    assert curve[0.3].dice == pytest.approx((4 / 5 + 2 / 4) / 2)
    assert curve[0.3].precision == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert curve[0.3].recall == 1
    assert curve[0.5].dice == pytest.approx((1 + 2 / 3) / 2)
    assert curve[0.92].dice == curve[0.92].precision == curve[0.92].recall == 0
    assert curve[0.5].groups == 2


def test_curves_of_a_class_that_is_never_annotated_are_empty():
    counts = PixelCounts(CELL)
    counts.add("a", np.zeros((1, 1, 2), np.float32), *np.zeros((2, 1, 2), np.uint8))
    assert counts.curves == {"cell": ()}


def test_join_curves_weights_folds_by_their_groups():
    first = ThresholdPoint(threshold=0.5, dice=0.6, precision=0.4, recall=1, groups=1)
    other = ThresholdPoint(threshold=0.5, dice=0.9, precision=1, recall=0.7, groups=2)
    (joined,) = join_curves([(first,), (), (other,)])
    assert (joined.dice, joined.precision, joined.recall) == (
        *(pytest.approx(0.8), pytest.approx(0.8), pytest.approx(0.8)),
    )
    assert joined.groups == 3
    assert join_curves([(), ()]) == ()
