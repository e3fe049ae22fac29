import numpy as np
import pytest

from ushape.labels import LabelSpace
from ushape.studio.suggestions import ImageSummary, describe_image, suggest, summarize
from ushape.types import Prediction


def summary(name, *features, uncertainty=0.5, dice=None):
    return ImageSummary(
        id=name,
        features=np.array(features, dtype=np.float32),
        uncertainty=uncertainty,
        expected_dice=dice,
    )


def order(candidates, annotated=()):
    return [one.id for one in suggest(candidates, annotated)]


def test_suggest_begins_with_the_image_in_the_middle():
    images = [summary(name, x) for name, x in (("a", 0), ("b", 1), ("c", 2), ("d", 3), ("e", 4))]
    found = suggest(images, [])
    assert (found[0].id, found[0].rank) == ("c", 1)
    assert found[0].reason == "Typical of these images."
    assert sorted(one.id for one in found) == ["a", "b", "c", "d", "e"]
    assert [one.rank for one in found] == [1, 2, 3, 4, 5]


def test_suggest_prefers_images_unlike_the_annotated_ones():
    places = {"near": 0.2, "nearer": 0.1, "far": 10, "farther": 10.05}
    candidates = [summary(name, place) for name, place in places.items()]
    found = suggest(candidates, [summary("done", 0)])
    assert found[0].id in ("far", "farther")
    assert found[1].id == "near"  # The other one is nearly the same as the first.
    assert found[0].reason.startswith("Differs")


def test_suggest_prefers_images_of_which_the_model_is_unsure():
    sure = [summary(f"sure {n}", 20 + n, uncertainty=0.1) for n in range(20)]
    unsure = [summary(f"unsure {n}", -20 - n, uncertainty=0.4, dice=0.4) for n in range(3)]
    found = suggest([*sure, *unsure], [summary("done", 1)] * 3)
    assert found[0].id.startswith("unsure")
    assert "unsure" in found[0].reason
    assert "0.40" in found[0].reason


def test_suggest_does_not_repeat_nearly_the_same_image():
    twins = [summary(name, place, uncertainty=0.5) for name, place in (("a", 9), ("b", 9.01))]
    others = [summary("c", -9, uncertainty=0.4), summary("d", 0.1, uncertainty=0.1)]
    names = order([*twins, *others], [summary("done", 0)] * 3)
    assert names[:2] in (["a", "c"], ["b", "c"], ["c", "a"], ["c", "b"])


def test_suggest_orders_equal_images_by_their_uncertainty():
    candidates = [summary(name, 1, uncertainty=u) for name, u in (("a", 0.1), ("b", 0.3))]
    assert order(candidates, [summary("done", 1)] * 3) == ["b", "a"]


def test_suggest_begins_with_typical_images_whatever_the_model_is_unsure_of():
    images = [summary(str(place), place, uncertainty=place / 10) for place in range(1, 10)]
    assert order(images, [summary("done", 0)])[0] not in ("1", "9")
    assert order(images, [summary("done", 0)] * 3)[0] == "9"


@pytest.mark.parametrize("factor", [1, 1024])
def test_suggest_does_not_depend_on_the_unit_of_a_feature(factor):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(12, 3))
    scaled = points * (1, factor, 1)
    images = [summary(str(n), *row) for n, row in enumerate(scaled)]
    expected = [summary(str(n), *row) for n, row in enumerate(points)]
    assert order(images[2:], images[:2]) == order(expected[2:], expected[:2])


def test_suggest_compares_images_without_a_prediction_by_their_appearance():
    candidates = [summary("predicted", 0, 5), summary("new", 3), summary("other", 0.1, 5)]
    assert order(candidates, [summary("done", 0, 4)])[0] == "new"


def test_suggest_of_nothing_is_empty():
    assert suggest([], [summary("done", 0)]) == []


def test_describe_image_distinguishes_texture_and_brightness():
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 255, (1, 64, 64))
    smooth = np.broadcast_to(np.linspace(0, 255, 64), (1, 64, 64))
    ways = [describe_image(image) for image in (noise, noise[:, ::-1], smooth, smooth / 2)]
    assert all(own.shape == ways[0].shape for own in ways)
    assert np.isfinite(ways).all()
    distances = [np.linalg.norm(own - ways[0]) for own in ways[1:]]
    assert distances[0] < 1e-3 < min(distances[1:])


def test_describe_image_of_a_volume_or_of_nan_is_finite():
    volume = np.full((2, 3, 20, 30), np.nan, dtype=np.float32)
    assert np.isfinite(describe_image(volume)).all()


class FakePredictor:
    """Predictor of two classes whose validation found a Dice of 0.7."""

    def __init__(self, dice):
        space = LabelSpace(values=(0, 1), names=("background", "cell"))
        self.plan = type("Plan", (), {"preprocessing": type("P", (), {"space": space})})
        self.dice = dice

    def expected_dice(self, prediction):
        return self.dice


def half_open(share, rest=0.0):
    """Prediction of 64 pixels: one half has the share, and the other one the rest."""
    probabilities = np.array([share, rest], np.float32).repeat(32).reshape(1, 8, 8)
    classes = (probabilities[0] > 0.5).astype(np.uint8)
    return Prediction(probabilities=probabilities, classes=classes)


@pytest.mark.parametrize("dice", [0.7, None])
def test_summarize_expects_the_error_of_the_probabilities(dice):
    image = np.zeros((1, 8, 8), np.uint8)
    found = summarize("a", image, FakePredictor(dice), half_open(0.6))
    # 32 pixels of 0.6 are predicted, and 1 % of the 64 pixels is added above and below.
    assert found.uncertainty == pytest.approx(1 - (2 * 19.2 + 0.64) / (19.2 + 32 + 0.64))
    assert found.expected_dice == dice
    alone = summarize("a", image)
    assert alone.uncertainty == 1
    np.testing.assert_array_equal(alone.features, found.features)


def test_expected_error_does_not_depend_on_the_size_of_an_image():
    images = [np.zeros((1, 8 * step, 8 * step), np.uint8) for step in (1, 4)]
    small = half_open(0.7, 0.2)
    large = Prediction(
        probabilities=small.probabilities.repeat(4, 1).repeat(4, 2),
        classes=small.classes.repeat(4, 0).repeat(4, 1),
    )
    found = [
        summarize("a", image, FakePredictor(None), one).uncertainty
        for image, one in zip(images, (small, large), strict=True)
    ]
    assert found[0] == pytest.approx(found[1])


def test_an_empty_prediction_is_certain_if_all_probabilities_are_low():
    image = np.zeros((1, 8, 8), np.uint8)
    low, high = (
        summarize("a", image, FakePredictor(None), half_open(own)).uncertainty
        for own in (0.001, 0.4)
    )
    assert low < 0.1 < 0.9 < high
