import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probabilities import BINARY, SPACES, THREE, probabilities_for, softmax
from ushape.config import from_dict, to_dict
from ushape.errors import ConfigError, DataError
from ushape.inference.decision_rule import ClassRule, DecisionRule, apply_rule
from ushape.inference.threshold_search import GRID
from ushape.labels import LabelSpace
from ushape.transforms.morphology import Cleaning


def drawn(space, data, dtype=np.float32):
    raw = data.draw(probabilities_for(space, dtype=dtype))
    return softmax(raw) if space.is_exclusive else raw


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
@settings(max_examples=30)
@given(data=st.data())
def test_apply_rule_by_default_decides_the_most_probable_class(name, dtype, data):
    space = SPACES[name]
    probabilities = drawn(space, data, dtype)
    classes = apply_rule(DecisionRule(), probabilities, space)
    assert classes.dtype == np.uint8
    assert (classes == space.decode(probabilities)).all()


def test_apply_rule_accepts_uint8():
    stored = np.array([[[0, 127, 128, 255]]], np.uint8)
    assert apply_rule(DecisionRule(), stored, BINARY).tolist() == [[0, 0, 1, 1]]
    low = DecisionRule(classes={"lesion": ClassRule(threshold=0.4)})  # 0.4 of 255 is 102.
    assert apply_rule(low, np.array([[[101, 103]]], np.uint8), BINARY).tolist() == [[0, 1]]


def test_apply_rule_threshold_includes_its_own_value():
    rule = DecisionRule(classes={"lesion": ClassRule(threshold=0.35)})
    assert apply_rule(rule, np.array([[0.34, 0.35]], np.float32), BINARY).tolist() == [0, 1]


@given(probabilities_for(BINARY), st.sampled_from(GRID), st.sampled_from(GRID))
def test_apply_rule_with_a_higher_threshold_never_adds_pixels(probabilities, one, other):
    low, high = (
        apply_rule(DecisionRule(classes={"lesion": ClassRule(threshold=t)}), probabilities, BINARY)
        for t in sorted((one, other))
    )
    assert not (high & ~low).any()


@given(st.data(), st.sampled_from(GRID), st.sampled_from(GRID))
def test_apply_rule_with_a_higher_threshold_never_adds_pixels_of_a_softmax_class(data, one, other):
    probabilities = drawn(THREE, data)
    low, high = (
        apply_rule(DecisionRule(classes={"cell": ClassRule(threshold=t)}), probabilities, THREE)
        for t in sorted((one, other))
    )
    assert not ((high == 1) & (low != 1)).any()


def test_apply_rule_threshold_of_two_softmax_classes_is_that_of_one_channel():
    pair = LabelSpace(values=(0, 1), names=("background", "lesion"), softmax=True)
    lesion = np.array([0.1, 0.24, 0.26, 0.6], np.float32)
    rule = DecisionRule(classes={"lesion": ClassRule(threshold=0.25)})
    assert apply_rule(rule, np.stack([1 - lesion, lesion]), pair).tolist() == [0, 0, 1, 1]


def test_apply_rule_compares_odds_of_exclusive_classes():
    # Cell at 0.2 counts four times: 4 * 0.15 = 0.6 beats 0.5, 4 * 0.1 = 0.4 does not.
    probabilities = np.array([[0.5, 0.5], [0.15, 0.1], [0.35, 0.4]], np.float32)
    rule = DecisionRule(classes={"cell": ClassRule(threshold=0.2)})
    assert apply_rule(rule, probabilities, THREE).tolist() == [1, 0]


def test_apply_rule_cleans_after_the_thresholds():
    probabilities = np.array([[[0.9, 0.4, 0.0, 0.6, 0.0, 0.3]]], np.float32)
    own = ClassRule(threshold=0.3, cleaning=Cleaning(min_size_px=2))
    classes = apply_rule(DecisionRule(classes={"lesion": own}), probabilities, BINARY)
    assert classes.tolist() == [[1, 1, 0, 0, 0, 0]]


def test_decision_rule_is_restored_from_json():
    own = ClassRule(threshold=0.35, cleaning=Cleaning(min_size_px=16, max_hole_size_px="all"))
    rule = DecisionRule(classes={"lesion": own, "core": ClassRule()})
    text = json.dumps(to_dict(rule))
    assert from_dict(DecisionRule, json.loads(text), source="decision.json") == rule
    assert from_dict(DecisionRule, {}, source="decision.json") == DecisionRule()


def test_apply_rule_refuses_unknown_classes_and_channels():
    rule = DecisionRule(classes={"leison": ClassRule()})
    with pytest.raises(ConfigError, match=r"leison[\s\S]*lesion") as error:
        apply_rule(rule, np.zeros((1, 2, 2), np.float32), BINARY)
    assert error.value.code == "unknown_class"
    with pytest.raises(DataError) as error:
        apply_rule(DecisionRule(), np.zeros((2, 2, 2), np.float32), BINARY)
    assert error.value.code == "probability_shape_mismatch"
    with pytest.raises(ConfigError) as error:
        ClassRule(threshold=1.0)
    assert error.value.code == "threshold_out_of_range"


def test_without_cleaning_keeps_the_thresholds():
    rule = DecisionRule(
        classes={"lesion": ClassRule(threshold=0.3, cleaning=Cleaning(min_size_px=9))}
    )
    bare = rule.without_cleaning()
    assert bare.of("lesion") == ClassRule(threshold=0.3)
