from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from ushape.errors import DataError, RunError
from ushape.evaluation.learning_curve import EXPONENTS, fit_power_law, make_curve, predict_gains
from ushape.evaluation.scores import CaseScore
from ushape.metrics.overlap import Counts


def score(group, dice, name="cell", truth=1000):
    """As much predicted as there is, so that Dice is the share that overlaps."""
    counts = Counts(overlap=round(dice * truth), truth=truth, predicted=truth, pixels=10_000)
    return CaseScore(
        case=f"{group}/0", group=group, class_name=name, counts=counts, pixel_error=0.1
    )


def counts(truth, predicted):
    """Where nothing overlaps."""
    return Counts(overlap=0, truth=truth, predicted=predicted, pixels=10_000)


def curve_of(*points, tested=12, noun="patients", spread=0.02):
    scores = [
        [score(f"p{n:02d}", dice + spread * (n - (tested - 1) / 2) / tested) for n in range(tested)]
        for dice in points
    ]
    groups = (3, 6, 12, 24)[: len(points)]
    folders = [Path(f"groups-{count}") for count in groups]
    cases = [10 * count for count in groups]
    return make_curve(groups, cases, folders, scores, noun=noun, seed=0)


def test_learning_curve_verdicts_have_the_stored_wording(golden):
    curves = {
        # The error falls to 0.6 of itself with each doubling: 0.0864 to 0.0518, 0.0311.
        "rising": curve_of(0.6, 0.76, 0.856, 0.9136, spread=0.1),
        "falling": curve_of(0.8, 0.78, 0.79, 0.75),
        "flat": curve_of(0.6, 0.8, 0.8, 0.8),
        "few test groups": curve_of(0.6, 0.7, 0.75, 0.78, tested=9),
        "one test group": curve_of(0.6, 0.7, 0.75, tested=1, noun="blocks of sections"),
    }
    lines = [f"{name}: {curve.verdict}\n" for name, curve in curves.items()]
    golden("learning_curve_verdicts.txt", "".join(lines))


def test_curve_without_total_gain_does_not_rise():
    assert not curve_of(0.5, 0.9, 0.5, 0.49).rises
    assert not curve_of(0.8, 0.7, 0.6, 0.801).law.scale
    assert curve_of(0.6, 0.8, 0.8, 0.8).rises


def test_curve_of_one_test_group_has_no_intervals():
    curve = curve_of(0.6, 0.7, 0.75, tested=1)
    assert curve.points[0].interval is None
    assert curve.gains[0].interval is None


def test_make_curve_averages_a_group_over_its_annotated_classes():
    # a: (0.5 + 0.9) / 2 = 0.7. b: only cells, 0.3. c holds nothing, d is missed: 0.
    one = [
        score("a", 0.5),
        score("a", 0.9, "nucleus"),
        score("b", 0.3),
        replace(score("b", 0, "nucleus"), counts=counts(0, 50)),
        replace(score("c", 0), counts=counts(0, 50)),
        replace(score("d", 0), counts=counts(80, 0)),
    ]
    folders = [Path("x")] * 3
    curve = make_curve((1, 2, 3), (1, 2, 3), folders, [one] * 3, noun="dishes", seed=0)
    assert curve.test_groups == 3
    assert curve.points[0].dice == pytest.approx((0.7 + 0.3 + 0) / 3)


def test_make_curve_refuses_different_test_groups():
    folders = [Path("x")] * 3
    with pytest.raises(RunError) as error:
        make_curve(
            (1, 2, 3),
            (1, 2, 3),
            folders,
            [[score("a", 0.5)], [score("b", 0.5)], [score("a", 0.5)]],
            noun="dishes",
            seed=0,
        )
    empty = [replace(score("a", 0), counts=counts(0, 0))]
    with pytest.raises(DataError) as missing:
        make_curve((1, 2, 3), (1, 2, 3), folders, [empty] * 3, noun="dishes", seed=0)
    assert (error.value.code, missing.value.code) == ("masks_differ", "no_foreground")


GROUPS = (3, 6, 12, 24)


def dice_of(scale, exponent, floor, groups=GROUPS):
    return 1 - floor - scale * np.asarray(groups, dtype=float) ** -exponent


def table(means, *, tested=20, spread=0.05, seed=0):
    """(P, G) Dice of test groups that differ, and differ from point to point."""
    rng = np.random.default_rng(seed)
    own = 0.08 * rng.standard_normal(tested)
    noise = spread * rng.standard_normal((len(means), tested))
    return (np.asarray(means)[:, None] + own + noise).clip(0, 1)


def test_predict_gains_by_hand():
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
def test_fit_power_law_recovers_an_exact_law(scale, exponent, floor, groups):
    law = fit_power_law(groups, dice_of(scale, exponent, floor, groups))
    far = np.array([*groups, 2 * groups[-1], 4 * groups[-1]])
    assert law.dice(far) == pytest.approx(dice_of(scale, exponent, floor, far), abs=2e-3)


@pytest.mark.parametrize(
    "means", [(0.7, 0.7, 0.7, 0.7), (0.8, 0.7, 0.6, 0.5), (0.7, 0.75, 0.7, 0.65)]
)
def test_predict_gains_of_a_flat_curve_is_0(means):
    law = fit_power_law(GROUPS, means)
    assert law.scale == 0
    assert law.floor == pytest.approx(1 - np.mean(means))
    gains = predict_gains(GROUPS, np.repeat(np.array(means)[:, None], 3, axis=1), (2, 4), seed=0)
    assert [(gain.dice, gain.interval.high) for gain in gains] == [(0, 0), (0, 0)]


@given(means=st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_fit_power_law_is_monotonic_and_at_most_1(means):
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
def test_fit_power_law_is_the_least_squares_fit(means):
    # For each exponent scipy finds the best scale and floor that are not negative.
    law, groups = fit_power_law(GROUPS, means), np.array(GROUPS, dtype=float)
    errors = 1 - np.array(means)
    nearest = min(
        nnls(np.stack([groups**-exponent, np.ones(4)], axis=1), errors)[1] for exponent in EXPONENTS
    )
    assert np.linalg.norm(law.dice(groups) - means) == pytest.approx(nearest, abs=1e-9)


def test_fit_power_law_has_no_floor_for_a_straight_log_line():
    # Falling by the same share at each doubling leaves nothing over.
    law = fit_power_law(GROUPS, [1 - 0.5 * 0.8**k for k in range(4)])
    assert law.floor == pytest.approx(0, abs=0.02)
    assert law.exponent == pytest.approx(-np.log2(0.8), abs=0.03)


def test_predict_gains_resamples_all_points_alike():
    # Groups differ by 0.5, but each gains the same: the gain is certain.
    scores = dice_of(0.3, 0.5, 0.1)[:, None] - np.linspace(0, 0.5, 12)
    (gain,) = predict_gains(GROUPS, scores, (2,), seed=0)
    assert gain.interval.high - gain.interval.low < 0.02
    shuffled = np.stack([np.random.default_rng(k).permutation(row) for k, row in enumerate(scores)])
    (unsure,) = predict_gains(GROUPS, shuffled, (2,), seed=0)
    assert unsure.interval.high - unsure.interval.low > 0.04


def test_predict_gains_has_wider_intervals_for_few_groups():
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


def test_predict_gains_has_no_interval_for_one_group():
    (gain,) = predict_gains(GROUPS, table(dice_of(0.5, 0.5, 0.1), tested=1), (2,), seed=0)
    assert gain.interval is None


def test_predict_gains_is_reproducible():
    scores = table(dice_of(0.5, 0.5, 0.1))
    first, again, other = (predict_gains(GROUPS, scores, (2,), seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first[0].interval.groups == 20


@pytest.mark.parametrize("law", [(0.5, 0.5, 0.1), (0.5, 1.0, 0.15), (0.4, 0.2, 0.05)])
@pytest.mark.parametrize("tested", [8, 30])
def test_predict_gains_interval_covers_the_truth(law, tested):
    # Of 200 intervals of 95 %, 180 hold it, where the test groups are all that varies.
    means = dice_of(*law)
    true = np.diff(dice_of(*law, groups=(24, 48)))[0]
    held = []
    for seed in range(200):
        scores = table(means, tested=tested, seed=seed)
        (gain,) = predict_gains(GROUPS, scores, (2,), seed=seed, resamples=400)
        held.append(gain.interval.low <= true <= gain.interval.high)
    assert np.mean(held) >= 0.9
