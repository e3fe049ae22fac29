import numpy as np
import pytest

from ushape.instances.touching import touching_share


def test_touching_share_by_hand():
    labels = np.zeros((20, 40), int)
    labels[4:8, 4:8], labels[4:8, 11:15], labels[4:8, 30:34] = 1, 2, 7  # Gaps of 3 and 15 pixels.
    assert touching_share(labels) == pytest.approx(2 / 3)
    assert touching_share(np.zeros((4, 4), int)) == 0


def test_touching_share_compares_objects_of_one_class():
    labels = np.repeat(np.arange(1, 5), 3)[None].repeat(6, axis=0)  # Four stripes side by side.
    assert touching_share(labels) == 1
    assert touching_share(labels, np.array([1, 2, 1, 2], np.uint8)) == 0
    assert touching_share(labels, np.array([1, 1, 2, 3], np.uint8)) == 1 / 2
