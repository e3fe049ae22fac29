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


def test_compare_scores_pairs_groups_and_sorts_changes():
    # Dice is 2 n / (10 + n): 0.667 at 5, 1 at 10.
    first, other = scores_of([5] * 12), scores_of([10] * 10 + [5, 0])
    found = compare_scores(first, other, seed=0)
    (own,) = found.classes
    third = 1 - 2 / 3
    assert own.paired.mean_difference == pytest.approx((10 * third - 2 / 3) / 12)
    assert own.paired.pairs == found.cases == 12
    assert own.verdict.startswith("+0.222 (95% CI ")
    assert own.verdict.endswith("; 10 higher, 1 lower")
    assert [change.case for change in found.changes[-2:]] == ["c10", "c11"]
    assert found.changes[-1].change == pytest.approx(-2 / 3)
    assert found.left_out == 0


def test_compare_scores_counts_only_groups_with_annotation():
    scores = scores_of([5] * 3) + [s for n in range(20) for s in _empty(f"e{n}")]
    (own,) = compare_scores(scores, scores, seed=0).classes
    assert own.verdict.endswith("; the interval is unreliable, as it is based on only 3 groups")


def _empty(name):
    nothing = np.zeros((1, 20), np.uint8)
    return score_case(name, name, nothing, nothing, SPACE)


def test_compare_scores_is_antisymmetric():
    rng = np.random.default_rng(0)
    one, two = (scores_of(rng.integers(0, 11, 15)) for _ in range(2))
    there, back = (compare_scores(*pair, seed=0).classes[0] for pair in ((one, two), (two, one)))
    assert there.paired.mean_difference == pytest.approx(-back.paired.mean_difference)
    assert there.paired.p_value == pytest.approx(back.paired.p_value)


def test_compare_scores_pools_groups_of_shared_cases():
    first, other = scores_of([5, 5, 5], groups="aab"), scores_of([10, 5], groups="xy")
    found = compare_scores(first, other, seed=0)
    assert (found.cases, found.left_out) == (2, 1)
    # Group a: 10 of 20 before, 15 of 20 after.
    (own,) = found.classes
    assert own.first == pytest.approx((20 / 30,))
    assert own.other == pytest.approx((30 / 35,))
    assert own.paired.interval is None


def test_compare_scores_refuses_other_cases_and_masks():
    for other, code in (([], "no_common_cases"), (scores_of([5], truth=9), "masks_differ")):
        with pytest.raises(RunError) as error:
            compare_scores(scores_of([5]), other, seed=0)
        assert error.value.code == code


def test_compare_scores_counts_a_correctly_empty_case_as_1():
    found = compare_scores(scores_of([3], truth=0), scores_of([0], truth=0), seed=0)
    assert found.classes == ()
    assert found.changes[0].change == 1
    assert p_text(0.0004) == "< 0.001"
    assert p_text(0.0444) == "= 0.044"
