"""Stored predictions: parts, thresholds, and what is stored of large images."""

import json

import numpy as np
import pytest
import tifffile

from ushape.io.streaming import open_bands
from ushape.labels import LabelSpace
from ushape.studio.predicting import thin_image
from ushape.studio.predictions import (
    CLASSES,
    OBJECTS,
    PROBABILITIES,
    SUMMARY,
    StoredPrediction,
    class_table,
    classes_at,
)
from ushape.studio.suggestions import describe_image


def stored(folder, shares, **facts):
    """Store probabilities (K, *S) of 0 to 255 with their most likely classes."""
    folder.mkdir()
    np.save(folder / PROBABILITIES, shares)
    np.save(folder / CLASSES, shares.argmax(axis=0).astype(np.uint8))
    values = {"shape": shares.shape[1:], "is_exclusive": True, "classes": [0, 1, 2], **facts}
    (folder / SUMMARY).write_text(json.dumps(values))
    return StoredPrediction.open(folder)


def test_incomplete_prediction_is_not_opened(tmp_path):
    assert StoredPrediction.open(tmp_path) is None
    (tmp_path / SUMMARY).write_text("{")
    assert StoredPrediction.open(tmp_path) is None


@pytest.mark.parametrize(("plane", "index"), [("z", 2), ("y", 3), ("x", 5)])
def test_planes_of_a_volume_are_those_of_the_arrays(tmp_path, plane, index):
    shares = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 9), dtype=np.uint8)
    prediction = stored(tmp_path / "a", shares)
    axis = "zyx".index(plane)
    expected = np.take(shares, index, axis + 1)
    window = tuple((1, size - 1) for size in expected.shape[1:])
    found = prediction.probabilities(plane, index, window, 2)
    assert found * 255 == pytest.approx(expected[:, 1:-1:2, 1:-1:2])
    classes = prediction.classes(plane, index, window, 1, None)
    assert (classes == expected.argmax(axis=0)[1:-1, 1:-1]).all()
    assert not prediction.has_objects


def test_objects_are_read_if_they_are_stored(tmp_path):
    prediction = stored(tmp_path / "a", np.zeros((3, 4, 4), np.uint8))
    numbers = np.arange(16, dtype=np.int32).reshape(4, 4)
    np.save(tmp_path / "a" / OBJECTS, numbers)
    assert (prediction.objects("z", 0, ((1, 3), (0, 4)), 2) == numbers[1:3:2, ::2]).all()


@pytest.mark.parametrize(
    ("known", "expected"), [((0, 1, 3), [0, 1, 3]), ((0, 3), [0, 3]), ((0, 9), [0, 1])]
)
def test_classes_of_a_model_are_those_with_the_same_value(known, expected):
    space = LabelSpace(values=known, names=tuple(f"class {value}" for value in known))
    assert class_table(space, [0, 1, 2, 3]).tolist() == expected


def test_threshold_gives_the_classes_of_the_project():
    shares = np.array([[[0.2, 0.9]], [[0.3, 0.0]], [[0.5, 0.1]]], dtype=np.float32)
    facts = {"is_exclusive": True, "classes": [0, 2, 4]}
    assert classes_at(shares, 0.5, facts).tolist() == [[4, 0]]


def test_threshold_of_several_classes_is_that_of_all_foreground(tmp_path):
    shares = np.array([[[0.6, 0.3]], [[0.3, 0.3]], [[0.1, 0.4]]], dtype=np.float32)
    facts = {"is_exclusive": True, "classes": [0, 1, 2]}
    assert classes_at(shares, 0.5, facts).tolist() == [[0, 2]]
    assert classes_at(shares, 0.35, facts).tolist() == [[1, 2]]


def test_threshold_of_regions_lets_later_ones_cover_earlier_ones():
    shares = np.array([[[0.6, 0.9, 0.2]], [[0.3, 0.8, 0.1]]], dtype=np.float32)
    facts = {"is_exclusive": False, "classes": [1, 2]}
    assert classes_at(shares, 0.5, facts).tolist() == [[1, 2, 0]]


def test_probability_of_a_class_and_of_all_foreground(tmp_path):
    prediction = stored(tmp_path / "a", np.zeros((3, 1, 1), np.uint8))
    shares = np.array([[[0.25]], [[0.25]], [[0.5]]], dtype=np.float32)
    assert prediction.share_of(shares, None) == pytest.approx(0.75)
    assert prediction.share_of(shares, 2) == pytest.approx(0.5)
    assert prediction.share_of(shares, 0) == pytest.approx(0.25)


@pytest.mark.parametrize("shape", [(300, 500), (6, 200, 300)])
def test_appearance_of_a_large_image_is_that_of_the_whole_one(tmp_path, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack")
    with open_bands(tmp_path / "a.tif") as bands:
        assert (describe_image(thin_image(bands)) == describe_image(image[None])).all()
