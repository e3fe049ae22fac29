import numpy as np
import pytest

from ushape.data.duplicates import Duplicates, find_duplicate_images, hash_pixels, merge_groups


def test_hash_depends_on_pixels_shape_and_type():
    image = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    assert hash_pixels(image) == hash_pixels(image[:, ::1].copy())
    others = (image[:, ::-1], image.reshape(1, 3, 2), image.astype(np.int8))
    assert all(hash_pixels(other) != hash_pixels(image) for other in others)


@pytest.mark.parametrize(("correlation", "pairs"), [(0.99, 1), (0.5, 0)])
def test_images_whose_details_correlate_are_near_duplicates(correlation, pairs):
    first, second = np.linalg.qr(np.random.default_rng(0).standard_normal((64 * 64, 2)))[0].T
    other = correlation * first + np.sqrt(1 - correlation**2) * second
    details = [first[None].astype(np.float32), other[None].astype(np.float32)]
    found = list(find_duplicate_images(["a", "b"], [b"1", b"2"], details))
    assert found == [Duplicates("a", "b", False)] * pairs


def test_images_with_equal_pixels_are_exact_duplicates_and_plain_ones_are_skipped():
    plain, own = np.zeros((1, 64 * 64), np.float32), np.eye(1, 64 * 64, dtype=np.float32)
    found = list(find_duplicate_images(["a", "b", "c"], [b"1", b"1", b"1"], [own, own, plain]))
    assert found == [Duplicates("a", "b", True)]


def test_merge_groups_joins_chains_under_the_first_name():
    groups = {"a": "g3", "b": "g2", "c": "g1", "d": "g4"}
    pairs = [Duplicates("a", "b", False), Duplicates("b", "c", True)]
    assert merge_groups(groups, pairs) == {"a": "g1", "b": "g1", "c": "g1", "d": "g4"}
