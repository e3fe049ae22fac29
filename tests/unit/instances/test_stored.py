import numpy as np
import pytest

from ushape.instances.label import ObjectConfig, label_objects
from ushape.instances.stored import label_stored, number_stored
from ushape.transforms import morphology


@pytest.mark.parametrize("corners_connect", [False, True])
@pytest.mark.parametrize("min_size_px", [0, 5])
@pytest.mark.parametrize("shape", [(40, 30), (9, 12, 10), (1, 1)])
def test_stored_objects_equal_those_in_memory(shape, min_size_px, corners_connect, monkeypatch):
    monkeypatch.setattr(morphology, "BAND_PX", 100)
    classes = np.random.default_rng(0).choice(3, size=shape, p=[0.5, 0.3, 0.2]).astype(np.uint8)
    how = ObjectConfig(corners_connect=corners_connect, min_size_px=min_size_px)
    whole = label_objects(classes, how)
    labels = np.zeros(shape, np.int32)
    label_stored(classes, labels, corners_connect=corners_connect)
    bands, owners = number_stored(classes, labels, min_size_px)
    np.testing.assert_array_equal(np.concatenate(list(bands)), whole.labels)
    np.testing.assert_array_equal(owners, whole.classes)
