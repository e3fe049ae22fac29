"""Codes of labels."""

from ushape.io.annotations.shape_files import codes_of_labels


def test_labels_are_numbered_from_one_except_background_and_ignored_areas():
    labels = ("cell", "_background_", "__ignore__", "debris")
    assert list(codes_of_labels(labels).values()) == [1, 0, 255, 2]
