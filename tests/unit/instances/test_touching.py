import numpy as np
import pytest

from ushape.instances.touching import touching_share


def test_touching_share_by_hand():
    labels = np.zeros((20, 40), int)
    labels[4:8, 4:8], labels[4:8, 11:15], labels[4:8, 30:34] = 1, 2, 7  # Gaps of 3 and 15 pixels.
    assert touching_share(labels) == pytest.approx(2 / 3)
    assert touching_share(np.zeros((4, 4), int)) == 0
