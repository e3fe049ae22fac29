import numpy as np
import pytest
from scipy import ndimage
from skimage import measure

from ushape.instances.convex import convex_areas
from ushape.instances.label import label_objects


def test_convex_area_by_hand():
    labels = np.zeros((7, 12), np.int32)
    labels[1:5, 1], labels[4, 1:5] = 1, 1  # A corner: rows of 1, 2, 3 and 4 pixels.
    labels[0, 6:12:5] = 2  # Two pixels of one object, with four between them.
    labels[6, 0] = 3
    assert convex_areas(labels, 3).tolist() == [10, 6, 1]
    assert convex_areas(labels * 0, 0).tolist() == []


@pytest.mark.parametrize("seed", range(6))
def test_convex_areas_equal_those_of_scikit_image(seed):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((30, 40)), seed / 3)
    objects = label_objects((noise > 0).astype(np.uint8))
    expected = measure.regionprops_table(objects.labels, properties=["area_convex"])
    found = convex_areas(objects.labels, len(objects))
    assert found.tolist() == expected["area_convex"].tolist()
