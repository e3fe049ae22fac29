import numpy as np

from ushape.io.reducing import pixels_beneath, shrink_box
from ushape.transforms.resampling import resample_image

IMAGE = np.random.default_rng(0).integers(0, 255, (3, 47, 61)).astype(np.uint8)


def test_averages_of_divided_pixels_count_in_proportion():
    # Three pixels become two: each takes one pixel and half of the middle one.
    row = np.array([[[0, 30, 90]]], np.float32)
    assert shrink_box(row, ((0, 1), (0, 2)), (1, 3), (1, 2)).tolist() == [[[10, 70]]]


def test_boxes_equal_those_of_the_whole_image():
    old, new = IMAGE.shape[1:], (20, 23)
    whole = shrink_box(IMAGE, ((0, 20), (0, 23)), old, new)
    assert (whole == resample_image(IMAGE, new)).all()
    box = (3, 11), (5, 22)
    rows, columns = (slice(*pixels_beneath(*one)) for one in zip(box, old, new, strict=True))
    assert (shrink_box(IMAGE[:, rows, columns], box, old, new) == whole[:, 3:11, 5:22]).all()
