"""Cleaning and separation of images larger than memory."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from probabilities import BINARY
from ushape.inference.cleaned_bands import cleaned_bands
from ushape.inference.separation import SEPARATED, separate
from ushape.inference.streaming import StreamedPrediction
from ushape.transforms import morphology
from ushape.transforms.morphology import Cleaning, clean_classes


@pytest.mark.parametrize("threshold", [None, 1])
def test_objects_of_streamed_images_are_separated_after_the_cleaning(
    threshold, monkeypatch, tmp_path
):
    monkeypatch.setattr(morphology, "BAND_PX", 500)
    space = replace(BINARY, has_distance=True, threshold=threshold)
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.standard_normal((2, 60, 50)), (0, 2, 2))
    classes = (noise[0] > 0).astype(np.uint8)
    distance = np.clip(0.5 + 3 * noise[1], 0, 1).astype(np.float32)
    cleaning, how = Cleaning(min_size_px=60, max_hole_size_px=20), replace(SEPARATED, min_size_px=9)
    predictor = SimpleNamespace(
        tuning=SimpleNamespace(rule=SimpleNamespace(cleans=True)),
        plan=SimpleNamespace(preprocessing=SimpleNamespace(space=space)),
        cleanings=[cleaning],
        objects=how,
    )
    cleaned = clean_classes(classes, space.scored, [cleaning])
    whole, _ = separate(cleaned, distance, space, how)
    assert (whole != separate(classes, distance, space, how)[0]).any()

    def streamed(has_distance):
        nothing = np.zeros((1, 0, 50), np.float32)
        heights = [slice(row, row + 7) for row in range(0, 60, 7)]
        bands = (
            (nothing, classes[own], distance[own] if has_distance else None) for own in heights
        )
        return StreamedPrediction(SimpleNamespace(shape=(1, 60, 50)), bands)

    prediction = streamed(True)
    pairs = list(cleaned_bands(prediction, predictor, tmp_path))
    np.testing.assert_array_equal(np.concatenate([own for own, _ in pairs]), whole)
    numbers = np.concatenate([own for _, own in pairs])
    np.testing.assert_array_equal(numbers > 0, whole > 0)
    assert not prediction.cut_parts
    pairs = list(cleaned_bands(streamed(False), predictor, tmp_path))
    np.testing.assert_array_equal(np.concatenate([own for own, _ in pairs]), cleaned)
    assert all(own is None for _, own in pairs)
