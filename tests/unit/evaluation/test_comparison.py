import numpy as np
import pytest

from ushape.errors import RunError
from ushape.evaluation.comparison import compare_scores, p_text
from ushape.evaluation.scores import score_case
from ushape.labels import LabelSpace

SPACE = LabelSpace(values=(0, 1), names=("background", "cell"))


def scores_of(overlaps, truth=10, groups=None):
    """Cases of 10 true pixels, of which so many are found and nothing else."""
    found = []
    for place, overlap in enumerate(overlaps):
        mask, guess = np.zeros(20, np.uint8), np.zeros(20, np.uint8)
        mask[:truth], guess[:overlap] = 1, 1
        group = groups[place] if groups else f"g{place}"
        found += score_case(f"c{place}", group, guess[None], mask[None], SPACE)
    return found


def test_pairs_by_group_and_the_cases_that_changed_most():
    # Dice is 2 n / (10 + n): 0.667 at 5, 1 at 10.
    first, other = scores_of([5] * 12), scores_of([10] * 10 + [5, 0])
    found = compare_scores(first, other, seed=0)
    (own,) = found.classes
    third = 1 - 2 / 3
    assert own.paired.mean_difference == pytest.approx((10 * third - 2 / 3) / 12)
    assert own.paired.pairs == found.cases == 12
    assert own.verdict.startswith("+0.222 [")
    assert own.verdict.endswith("; 10 better, 1 worse")
    assert [change.case for change in found.changes[-2:]] == ["c10", "c11"]
    assert found.changes[-1].change == pytest.approx(-2 / 3)
    assert found.left_out == 0


def test_few_groups_that_hold_the_class_are_not_relied_on():
    scores = scores_of([5] * 3) + [s for n in range(20) for s in _empty(f"e{n}")]
    (own,) = compare_scores(scores, scores, seed=0).classes
    assert own.verdict.endswith("; with 3 the interval is not to be relied on")


def _empty(name):
    nothing = np.zeros((1, 20), np.uint8)
    return score_case(name, name, nothing, nothing, SPACE)


def test_exchanging_the_two_turns_the_sign():
    rng = np.random.default_rng(0)
    one, two = (scores_of(rng.integers(0, 11, 15)) for _ in range(2))
    there, back = (compare_scores(*pair, seed=0).classes[0] for pair in ((one, two), (two, one)))
    assert there.paired.mean_difference == pytest.approx(-back.paired.mean_difference)
    assert there.paired.p_value == pytest.approx(back.paired.p_value)


def test_groups_are_pooled_over_the_cases_of_both():
    first, other = scores_of([5, 5, 5], groups="aab"), scores_of([10, 5], groups="xy")
    found = compare_scores(first, other, seed=0)
    assert (found.cases, found.left_out) == (2, 1)
    # Group a: 10 of 20 before, 15 of 20 after.
    (own,) = found.classes
    assert own.first == pytest.approx((20 / 30,))
    assert own.other == pytest.approx((30 / 35,))
    assert own.paired.interval is None


def test_what_cannot_be_compared():
    with pytest.raises(RunError, match="not scored on the same cases"):
        compare_scores(scores_of([5]), [], seed=0)
    with pytest.raises(RunError, match=r"c0: cell has 10 pixels in the one's mask, 9 in"):
        compare_scores(scores_of([5]), scores_of([5], truth=9), seed=0)


def test_empty_and_found_empty_is_as_good_as_can_be():
    found = compare_scores(scores_of([3], truth=0), scores_of([0], truth=0), seed=0)
    assert found.classes == ()
    assert found.changes[0].change == 1
    assert p_text(0.0004) == "< 0.001"
    assert p_text(0.0444) == "0.044"
