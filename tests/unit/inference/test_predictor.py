from types import SimpleNamespace

import numpy as np
import pytest

from codes import raises_code
from ushape.errors import DataError
from ushape.inference.decision_rule import ClassRule, DecisionRule
from ushape.inference.predictor import Predictor, PreparedImage, check_dimensions
from ushape.inference.tuning import Tuning
from ushape.inference.uncertainty import Calibration
from ushape.labels import LabelSpace
from ushape.types import Pixels, Prediction

SPACE = LabelSpace(values=(0, 255), names=("background", "cell"))


def member(*probabilities):
    """A member of an ensemble that predicts these probabilities for every image."""
    fixed = np.array([[probabilities]], np.float32)
    return SimpleNamespace(
        plan=SimpleNamespace(preprocessing=SimpleNamespace(space=SPACE, needs_group=False)),
        network=SimpleNamespace(name="torch"),
        probabilities=lambda samples: [fixed.copy() for _ in samples],
    )


def predictor_of(*members, **tuning):
    return Predictor(members=members, tuning=Tuning(**tuning), device="cpu")


def image(count):
    sample = SimpleNamespace(missing_px=2, image=np.zeros((1, 1, 3)))
    return PreparedImage((sample,) * count, Pixels(array=np.zeros((1, 1, 3))))


def test_predictor_averages_members_and_applies_the_rule():
    members = member(0.0, 0.4, 1.0), member(0.2, 0.5, 1.0)
    (found,) = predictor_of(*members).predict([image(2)])
    assert found.probabilities[0, 0] == pytest.approx([0.1, 0.45, 1.0])
    assert found.classes.tolist() == [[0, 0, 1]]
    assert found.missing_px == 2
    assert found.disagreement.shape == (1, 3)
    rule = DecisionRule(classes={"cell": ClassRule(threshold=0.45)})
    (found,) = predictor_of(*members, rule=rule).predict([image(2)])
    assert found.classes.tolist() == [[0, 1, 1]]


def test_predictor_of_several_images_equals_one_by_one():
    predictor = predictor_of(member(0.0, 0.4, 1.0), member(0.2, 0.5, 1.0))
    both = predictor.predict([image(2), image(2)])
    (alone,) = predictor.predict([image(2)])
    assert all((one.probabilities == alone.probabilities).all() for one in both)


def test_predictor_with_one_member_has_no_disagreement():
    predictor = predictor_of(member(0.0, 0.4, 1.0))
    (found,) = predictor.predict([image(1)])
    assert found.disagreement is None
    assert predictor.backends == ["torch"]
    assert predictor.codes_of(found.classes).tolist() == [[0, 0, 255]]


def test_predictor_averages_the_expected_dice_of_the_calibrations():
    calibrations = tuple(
        Calibration(confidence=(0.0, 1.0), dice=(0.0, top), cases=5, rank_correlation=None)
        for top in (1.0, 0.5)
    )
    prediction = Prediction(probabilities=np.zeros(1), classes=np.zeros(1), confidence=0.5)
    found = predictor_of(member(0.5), calibrations=calibrations).expected_dice(prediction)
    assert found == pytest.approx((0.5 + 0.25) / 2)
    assert predictor_of(member(0.5)).expected_dice(prediction) is None


def test_prepared_image_batch_key_is_the_shape():
    assert image(1).batch_key == ((1, 1, 3),)
    assert image(1).pixels == 3


def test_check_dimensions_refuses_volumes_for_image_models():
    check_dimensions("x", 2, 2)
    with raises_code(DataError, "dimension_mismatch"):
        check_dimensions("x", 3, 2)
