import json
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ushape.config import from_dict, to_dict
from ushape.errors import DataError
from ushape.inference.uncertainty import (
    Calibration,
    confidence_of,
    entropy_map,
    expected_dice,
    fit_calibration,
    rank_correlation,
    spread_over,
)
from ushape.labels import LabelSpace, Region

BINARY = LabelSpace(values=(0, 255), names=("background", "lesion"))
THREE = LabelSpace(values=(0, 1, 2), names=("background", "cell", "nucleus"))
NESTED = LabelSpace(
    values=(0, 1, 2),
    names=("background", "oedema", "tumour"),
    regions=(Region(name="whole", classes=(1, 2)), Region(name="core", classes=(2,))),
)
SHARES = st.floats(0, 1, width=32)


def fields(channels, shape=(2, 3)):
    return arrays(np.float32, (channels, *shape), elements=SHARES)


def normalized(raw):
    raw = raw + np.float32(1e-3)
    return raw / raw.sum(axis=0)


# Maps.


def test_entropy_map_by_hand():
    # A quarter: 0.25 * 2 + 0.75 * log2(4 / 3) = 0.8113 bits.
    found = entropy_map(np.array([[0, 0.25, 0.5, 0.75, 1]], np.float32), BINARY)
    assert found == pytest.approx([0, 0.8113, 1, 0.8113, 0], abs=1e-4)
    # Two of three classes alike: log 2 / log 3.
    found = entropy_map(np.array([[0.5, 1], [0.5, 0], [0, 0]], np.float32), THREE)
    assert found == pytest.approx([0.6309, 0], abs=1e-4)
    # One region certain, the other not at all.
    assert entropy_map(np.array([[1.0], [0.5]]), NESTED) == pytest.approx([0.5])


@given(fields(1))
def test_entropy_map_of_two_classes_is_symmetric_and_largest_at_one_half(p):
    found = entropy_map(p, BINARY)
    assert found.shape == p.shape[1:]
    assert ((found >= 0) & (found <= 1)).all()
    assert found == pytest.approx(entropy_map(1 - p, BINARY), abs=1e-5)
    nearer_to_half = 0.5 + (p - 0.5) / 2
    assert (entropy_map(nearer_to_half, BINARY) >= found - 1e-5).all()


@given(fields(3), st.permutations([0, 1, 2]))
def test_entropy_map_of_several_classes_is_symmetric_and_largest_if_uniform(raw, order):
    p = normalized(raw)
    found = entropy_map(p, THREE)
    assert ((found >= 0) & (found <= 1)).all()
    assert found == pytest.approx(entropy_map(p[order], THREE), abs=1e-5)
    assert (entropy_map((p + np.float32(1 / 3)) / 2, THREE) >= found - 1e-5).all()
    assert entropy_map(np.full((3, 1), 1 / 3), THREE) == pytest.approx([1.0])


def test_entropy_map_of_uint8_has_no_nan():
    found = entropy_map(np.array([[0, 255, 128]], np.uint8), BINARY)
    assert found == pytest.approx([0, 0, 1], abs=1e-4)


def test_spread_over_certain_opposites_is_full_disagreement():
    # Pixels: opposites; both undecided; agreed.
    one, other = np.array([[0, 0.5, 0.9]], np.float32), np.array([[1, 0.5, 0.9]], np.float32)
    spread = spread_over([one, other], BINARY)
    assert spread.probabilities == pytest.approx(np.array([[0.5, 0.5, 0.9]]))
    assert spread.disagreement == pytest.approx([1, 0, 0], abs=1e-6)


@pytest.mark.parametrize("space", [BINARY, THREE, NESTED], ids=["binary", "softmax", "regions"])
@given(data=st.data(), count=st.integers(1, 4))
def test_spread_over_members_agrees_with_numpy(space, data, count):
    members = [data.draw(fields(space.channels)) for _ in range(count)]
    if space.is_exclusive:
        members = [normalized(member) for member in members]
    spread, stack = spread_over(iter(members), space), np.stack(members).astype(np.float64)
    assert spread.probabilities == pytest.approx(stack.mean(axis=0), abs=1e-6)
    within = np.mean([entropy_map(member, space) for member in stack], axis=0)
    whole = entropy_map(stack.mean(axis=0), space)
    assert spread.disagreement == pytest.approx(whole - within, abs=1e-5)
    assert ((spread.disagreement >= 0) & (spread.disagreement <= 1)).all()


def test_spread_over_keeps_one_member_in_memory():
    earlier = []

    def members():
        for value in (0.2, 0.4, 0.6, 0.8):
            assert all(reference() is None for reference in earlier[:-1])
            member = np.full((1, 4, 4), value, np.float32)
            earlier.append(weakref.ref(member))
            yield member
            del member

    assert spread_over(members(), BINARY).probabilities == pytest.approx(np.full((1, 4, 4), 0.5))
    assert len(earlier) == 4


def test_spread_over_does_not_change_its_input():
    members = [np.full((1, 2, 2), value, np.float32) for value in (0.2, 0.8)]
    spread_over(members, BINARY)
    assert (members[0] == np.float32(0.2)).all()


def test_spread_over_refuses_no_or_different_members():
    with pytest.raises(DataError) as error:
        spread_over([], BINARY)
    assert error.value.code == "no_predictions"
    with pytest.raises(DataError) as error:
        spread_over([np.zeros((1, 2, 2)), np.zeros((1, 2, 3))], BINARY)
    assert error.value.code == "probability_shape_mismatch"


# One number for an image.


def confidence(probabilities, space=BINARY, smooth=0.0):
    probabilities = np.asarray(probabilities, np.float32)
    return confidence_of(probabilities, space.decode(probabilities), space, smooth=smooth)


def test_confidence_of_by_hand():
    # 2 (0.9 + 0.6) / (1.9 + 2) and, one pixel added above and below, 4 / 4.9.
    assert confidence([[0.9, 0.6, 0.4, 0]]) == pytest.approx(3 / 3.9)
    assert confidence([[0.9, 0.6, 0.4, 0]], smooth=1) == pytest.approx(4 / 4.9)


def test_confidence_of_averages_over_predicted_classes():
    # Cell: 2 * 0.8 / (1.2 + 1); nucleus is predicted nowhere.
    one = [[0.1, 0.6], [0.8, 0.4], [0.1, 0]]
    assert confidence(one, THREE) == pytest.approx(1.6 / 2.2)
    # And with nucleus: cell 2 * 0.8 / (0.9 + 1), nucleus 2 * 0.9 / (1.1 + 1).
    two = [[0, 0], [0.8, 0.1], [0.2, 0.9]]
    assert confidence(two, THREE) == pytest.approx((1.6 / 1.9 + 1.8 / 2.1) / 2)


def test_confidence_of_a_region_includes_later_regions():
    # The whole is predicted in both pixels, in the second by its core.
    found = confidence([[0.9, 0.8], [0.0, 0.7]], NESTED)
    assert found == pytest.approx((2 * 1.7 / (1.7 + 2) + 2 * 0.7 / (0.7 + 1)) / 2)


def test_confidence_of_empty_full_and_single_pixel_predictions():
    assert confidence(np.ones((1, 4, 4)), smooth=1) == 1
    assert confidence(np.zeros((1, 4, 4)), smooth=1) == 1  # Sure that nothing is there.
    assert confidence(np.full((1, 10, 10), 0.4), smooth=1) == pytest.approx(1 / 41)
    assert confidence([[[0.5]]], smooth=1) == pytest.approx(2 / 2.5)
    assert confidence([[[0.0]], [[0.0]]], NESTED, smooth=1) == 1


@given(fields(1, (3, 4)))
def test_confidence_of_sharper_probabilities_is_not_lower(p):
    classes = BINARY.decode(p)
    found = confidence_of(p, classes, BINARY)
    assert 0 <= found <= 1
    sharper = np.where(classes[None] == 1, p + (1 - p) / 2, p / 2)
    assert confidence_of(sharper, classes, BINARY) >= found - 1e-6


def test_confidence_of_a_prediction_is_near_the_mean_dice_of_drawn_truths():
    rng = np.random.default_rng(0)
    p = rng.beta(0.3, 0.5, (1, 40, 40)).astype(np.float32)
    mask = BINARY.decode(p) == 1
    drawn = rng.random((300, 40, 40)) < p
    dices = 2 * (drawn & mask).sum((1, 2)) / (drawn.sum((1, 2)) + mask.sum())
    assert confidence(p) == pytest.approx(dices.mean(), abs=0.005)


# Calibration.


def test_fit_calibration_by_hand():
    # 0.6 and 0.7 fall, so they share (0.8 + 0.4) / 2 at 0.65.
    found = fit_calibration([0.7, 0.2, 0.6, 0.9], [0.4, 0.1, 0.8, 0.9])
    assert found is not None
    assert found.confidence == pytest.approx((0.2, 0.65, 0.9))
    assert found.dice == pytest.approx((0.1, 0.6, 0.9))
    assert found.cases == 4
    # Half way between 0.65 and 0.9; and beyond both ends.
    assert expected_dice(0.775, found) == pytest.approx(0.75)
    assert expected_dice(0.0, found) == pytest.approx(0.1)
    assert expected_dice(1.0, found) == pytest.approx(0.9)


def test_fit_calibration_pools_equal_confidences_and_drops_empty_cases():
    found = fit_calibration([0.5, 0.5, 0.8, 0.1], [0.2, 0.6, 1.0, None])
    assert found is not None
    assert found.cases == 3
    assert found.confidence == pytest.approx((0.5, 0.8))
    assert found.dice == pytest.approx((0.4, 1.0))


def test_fit_calibration_weights_cases_equally():
    # Three cases of mean 0.6 and one of 0.2 above them: (3 * 0.6 + 0.2) / 4.
    found = fit_calibration([0.5, 0.5, 0.5, 0.8], [0.5, 0.6, 0.7, 0.2])
    assert found is not None
    assert found.confidence == pytest.approx((0.575,))
    assert found.dice == pytest.approx((0.5,))


def test_fit_calibration_of_few_cases_is_none():
    assert fit_calibration([], []) is None
    assert fit_calibration([0.1, 0.9, 0.5], [0.1, 0.9, None]) is None


def test_fit_calibration_of_constant_cases_is_constant():
    found = fit_calibration([0.5] * 4, [0.7] * 4)
    assert found is not None
    assert found.rank_correlation is None
    assert expected_dice(0.1, found) == expected_dice(0.9, found) == pytest.approx(0.7)


PAIRS = st.lists(st.tuples(SHARES, SHARES), min_size=3, max_size=12)


@given(PAIRS, SHARES, SHARES)
def test_expected_dice_never_decreases_with_confidence(pairs, one, other):
    x, y = zip(*pairs, strict=True)
    found = fit_calibration(x, y)
    assert found is not None
    low, high = (expected_dice(value, found) for value in sorted((one, other)))
    assert min(y) - 1e-9 <= low <= high + 1e-9 <= max(y) + 2e-9


@given(st.lists(SHARES, min_size=3, max_size=12, unique=True))
def test_fit_calibration_interpolates_increasing_cases_exactly(values):
    x = sorted(values)
    y = [value / 2 for value in x]
    found = fit_calibration(x, y)
    assert found is not None
    assert [expected_dice(value, found) for value in x] == pytest.approx(y, abs=1e-9)


def test_calibration_survives_json():
    found = fit_calibration([0.7, 0.2, 0.6, 0.9], [0.4, 0.1, 0.8, 0.9])
    text = json.dumps(to_dict(found))
    assert from_dict(Calibration, json.loads(text), source="calibration.json") == found


def test_rank_correlation_by_hand():
    assert rank_correlation([0.1, 0.5, 0.9], [0.2, 0.3, 0.99]) == pytest.approx(1)
    # Ranks 1 2 3 4 against 2 1 4 3: 1 - 6 * 4 / (4 * 15) = 0.6.
    assert rank_correlation([1, 2, 3, 4], [0.2, 0.1, 0.4, 0.3]) == pytest.approx(0.6)
    assert rank_correlation([1, 9, 2, 3], [0.9, None, 0.5, 0.1]) == pytest.approx(-1)


def test_rank_correlation_without_a_value_is_none():
    assert rank_correlation([], []) is None
    assert rank_correlation([0.1, 0.2], [0.1, 0.2]) is None
    assert rank_correlation([0.1, 0.2, 0.3], [0.1, 0.2, None]) is None
    assert rank_correlation([0.5, 0.5, 0.5], [0.1, 0.2, 0.3]) is None
    assert rank_correlation([0.1, 0.2, 0.3], [0.7, 0.7, 0.7]) is None
