import numpy as np

from ushape.labels import LabelSpace
from ushape.planning.fingerprint import find_symmetry, round_trip_dice


def test_find_symmetry_of_random_and_upright_images():
    rng = np.random.default_rng(0)
    random = rng.standard_normal((40, 32, 32))
    groups = [str(index) for index in range(40)]
    assert find_symmetry(random, groups) == ((0, 1), True)
    upright = random + 2 * np.linspace(-1, 1, 32)[None, :, None]
    assert find_symmetry(upright, groups) == ((1,), False)
    # Forty slices of two patients are not enough evidence.
    assert find_symmetry(upright, ["a", "b"] * 20) == ((0, 1), True)


def test_round_trip_dice_by_hand():
    space = LabelSpace(values=(0, 1), names=("a", "b"))
    blocks = np.zeros((16, 16), np.uint8)
    blocks[4:12, 4:12] = 1
    assert round_trip_dice(blocks, 2, space) > 0.95
    lines = np.zeros((16, 16), np.uint8)
    lines[:, ::4] = 1  # One pixel thin: half of a coarse pixel, lost.
    assert round_trip_dice(lines, 2, space) < 0.9
    assert round_trip_dice(np.zeros((8, 8), np.uint8), 2, space) == 0
