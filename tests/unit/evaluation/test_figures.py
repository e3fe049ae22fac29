import numpy as np

from ushape.evaluation.figures import HIT_COLOUR, PREDICTION_COLOUR, TRUTH_COLOUR, judge
from ushape.labels import IGNORE


def test_hit_miss_and_false_alarm_have_their_colours():
    image = np.full((3, 1, 5), 100, dtype=np.uint8)
    truth = np.array([[1, 1, 0, 0, IGNORE]])
    guess = np.array([[1, 0, 1, 0, 1]])
    picture = judge(image, truth, guess)[0]
    expected = [
        (0.55 * 100 + 0.45 * np.asarray(colour)).astype(int)
        for colour in (HIT_COLOUR, TRUTH_COLOUR, PREDICTION_COLOUR)
    ]
    np.testing.assert_array_equal(picture, [*expected, [100] * 3, [100] * 3])


def test_another_class_than_the_true_one_is_a_miss():
    image = np.full((1, 1, 4), 9, dtype=np.uint8)
    picture = judge(image, np.array([[2, 2, 0, 0]]), np.array([[2, 1, 0, 0]]))[0]
    assert picture[0][1] > picture[0][2]  # Greenish.
    assert picture[1][2] > picture[1][1] > picture[1][0]  # Blue.
