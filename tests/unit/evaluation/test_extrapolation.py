import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from ushape.evaluation.learning_curve import EXPONENTS, fit_power_law, predict_gains

GROUPS = (3, 6, 12, 24)


def dice_of(scale, exponent, floor, groups=GROUPS):
    return 1 - floor - scale * np.asarray(groups, dtype=float) ** -exponent


def table(means, *, tested=20, spread=0.05, seed=0):
    """(P, G) Dice of test groups that differ, and differ from point to point."""
    rng = np.random.default_rng(seed)
    own = 0.08 * rng.standard_normal(tested)
    noise = spread * rng.standard_normal((len(means), tested))
    return (np.asarray(means)[:, None] + own + noise).clip(0, 1)


def test_gain_counted_by_hand():
    # The error is 1/n: 1/4 at 4 groups, 1/8 at 8 and 1/16 at 16.
    scores = np.repeat([[0.0], [0.5], [0.75]], 5, axis=1)
    twice, four_times = predict_gains((1, 2, 4), scores, (2, 4), seed=0)
    assert (twice.groups, four_times.groups) == (8, 16)
    assert twice.dice == pytest.approx(1 / 8, abs=1e-3)
    assert four_times.dice == pytest.approx(3 / 16, abs=1e-3)
    # All test groups agree, so do all resamples.
    assert twice.interval.low == pytest.approx(twice.dice)
    assert twice.interval.high == pytest.approx(twice.dice)


@given(
    scale=st.floats(0.1, 0.6),
    exponent=st.floats(0.2, 1.5),
    floor=st.floats(0.0, 0.3),
    groups=st.sampled_from([GROUPS, (1, 2, 3), (1, 2, 4, 8, 16), (5, 10, 19)]),
)
def test_an_exact_power_law_is_found_again(scale, exponent, floor, groups):
    law = fit_power_law(groups, dice_of(scale, exponent, floor, groups))
    far = np.array([*groups, 2 * groups[-1], 4 * groups[-1]])
    assert law.dice(far) == pytest.approx(dice_of(scale, exponent, floor, far), abs=2e-3)


@pytest.mark.parametrize(
    "means", [(0.7, 0.7, 0.7, 0.7), (0.8, 0.7, 0.6, 0.5), (0.7, 0.75, 0.7, 0.65)]
)
def test_a_curve_that_does_not_rise_promises_nothing(means):
    law = fit_power_law(GROUPS, means)
    assert law.scale == 0
    assert law.floor == pytest.approx(1 - np.mean(means))
    gains = predict_gains(GROUPS, np.repeat(np.array(means)[:, None], 3, axis=1), (2, 4), seed=0)
    assert [(gain.dice, gain.interval.high) for gain in gains] == [(0, 0), (0, 0)]


@given(means=st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_more_groups_never_cost_and_no_dice_exceeds_one(means):
    law = fit_power_law(GROUPS, means)
    dice = law.dice(np.arange(1.0, 200))
    assert min(law.scale, law.floor) >= 0
    assert (np.diff(dice) >= 0).all()
    assert dice.max() <= 1
    twice, four_times = predict_gains(GROUPS, table(means), (2, 4), seed=0, resamples=200)
    assert 0 <= twice.dice <= four_times.dice
    assert 0 <= twice.interval.low <= twice.interval.high <= four_times.interval.high


@settings(max_examples=20)
@given(means=st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_no_other_law_lies_nearer_to_the_points(means):
    # For each exponent scipy finds the best scale and floor that are not negative.
    law, groups = fit_power_law(GROUPS, means), np.array(GROUPS, dtype=float)
    errors = 1 - np.array(means)
    nearest = min(
        nnls(np.stack([groups**-exponent, np.ones(4)], axis=1), errors)[1] for exponent in EXPONENTS
    )
    assert np.linalg.norm(law.dice(groups) - means) == pytest.approx(nearest, abs=1e-9)


def test_a_straight_line_in_logarithms_has_no_floor():
    # Falling by the same share at each doubling leaves nothing over.
    law = fit_power_law(GROUPS, [1 - 0.5 * 0.8**k for k in range(4)])
    assert law.floor == pytest.approx(0, abs=0.02)
    assert law.exponent == pytest.approx(-np.log2(0.8), abs=0.03)


def test_groups_are_resampled_alike_for_all_points():
    # Groups differ by 0.5, but each gains the same: the gain is certain.
    scores = dice_of(0.3, 0.5, 0.1)[:, None] - np.linspace(0, 0.5, 12)
    (gain,) = predict_gains(GROUPS, scores, (2,), seed=0)
    assert gain.interval.high - gain.interval.low < 0.02
    shuffled = np.stack([np.random.default_rng(k).permutation(row) for k, row in enumerate(scores)])
    (unsure,) = predict_gains(GROUPS, shuffled, (2,), seed=0)
    assert unsure.interval.high - unsure.interval.low > 0.04


def test_few_test_groups_widen_the_interval():
    means = dice_of(0.5, 0.5, 0.1)

    def width(tested):
        found = [
            predict_gains(
                GROUPS, table(means, tested=tested, seed=seed), (2,), seed=0, resamples=500
            )[0]
            for seed in range(10)
        ]
        return np.mean([gain.interval.high - gain.interval.low for gain in found])

    assert width(5) > width(20) > width(80)


def test_one_test_group_has_no_interval():
    (gain,) = predict_gains(GROUPS, table(dice_of(0.5, 0.5, 0.1), tested=1), (2,), seed=0)
    assert gain.interval is None


def test_the_same_seed_gives_the_same_interval():
    scores = table(dice_of(0.5, 0.5, 0.1))
    first, again, other = (predict_gains(GROUPS, scores, (2,), seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first[0].interval.groups == 20


@pytest.mark.parametrize("law", [(0.5, 0.5, 0.1), (0.5, 1.0, 0.15), (0.4, 0.2, 0.05)])
@pytest.mark.parametrize("tested", [8, 30])
def test_the_interval_holds_the_truth_in_most_simulations(law, tested):
    # Of 200 intervals of 95 %, 180 hold it, where the test groups are all that varies.
    means = dice_of(*law)
    true = np.diff(dice_of(*law, groups=(24, 48)))[0]
    held = []
    for seed in range(200):
        scores = table(means, tested=tested, seed=seed)
        (gain,) = predict_gains(GROUPS, scores, (2,), seed=seed, resamples=400)
        held.append(gain.interval.low <= true <= gain.interval.high)
    assert np.mean(held) >= 0.9
