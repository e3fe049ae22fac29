import numpy as np

from ushape.transforms.morphology import keep_largest


def test_the_largest_part_of_each_class_stays():
    classes = np.array([[1, 1, 0, 1], [0, 0, 0, 2], [2, 2, 0, 0], [1, 0, 0, 2]])
    expected = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [2, 2, 0, 0], [0, 0, 0, 0]])
    assert (keep_largest(classes) == expected).all()


def test_slices_are_one_volume_and_corners_connect():
    volume = np.zeros((3, 4, 4), dtype=np.uint8)
    volume[0, 0, 0] = volume[1, 1, 1] = volume[2, 2, 2] = 1  # A diagonal of three.
    volume[0, 3, 2:] = 1
    kept = keep_largest(volume)
    assert kept.sum() == 3
    assert kept[0, 0, 0] == kept[2, 2, 2] == 1
    assert not keep_largest(np.zeros((2, 3), np.uint8)).any()
