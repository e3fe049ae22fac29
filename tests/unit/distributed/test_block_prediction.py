"""Compare parts of a prediction with the prediction of the whole image, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from block_runs import KINDS, blobs, make_plan, make_run, write_ome_zarr
from ushape.distributed import sampled_intensities
from ushape.distributed.block_prediction import open_image, predict_box
from ushape.distributed.sampled_intensities import measure_once
from ushape.errors import DataError
from ushape.inference import sliding_window
from ushape.inference.predictor import Predictor
from ushape.transforms import growing
from ushape.types import Case

FACTORS = {
    "image": [1, 1.5, 2, 3, 4, (1.0, 2.7)],
    "volume": [1.5, (1.0, 2.0, 2.0), (3.0, 1.3, 4.0)],
    "slices": [2, (1.5, 4.0)],
}

SPACINGS = {
    "image": [(0.0011, 0.0006), (0.0005, 0.002)],
    "volume": [(0.0005, 0.001, 0.0013)],
    "slices": [(0.001, 0.0009)],
}
"""Spacings in mm to which images of 0.0005 mm are reduced."""

CASES = [(kind, {"downscale": factor}) for kind, own in FACTORS.items() for factor in own]
CASES += [(kind, {"target_spacing_mm": one}) for kind, own in SPACINGS.items() for one in own]


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    known = {}

    def plan_of(kind):
        if kind not in known:
            folder = tmp_path_factory.mktemp(kind)
            known[kind] = make_plan(
                folder, kind, "labels.objects=connected", "preprocessing.intensity=image"
            )
        return known[kind]

    return plan_of


@pytest.fixture
def image(kind, tmp_path):
    return write_ome_zarr(tmp_path / "large.zarr", blobs(KINDS[kind][0], 9)[0])


@pytest.fixture
def one_tile_at_a_time(monkeypatch):
    """Several tiles that are computed together may be rounded in another way."""
    monkeypatch.setattr(sliding_window, "BATCH_PX", 1)


def predict_whole(predictor, image):
    (found,) = predictor.predict([predictor.preprocess(Case(id="large", image=image))])
    return found


def predict_part(predictor, bands, box):
    measured = [measure_once(bands, one.plan.preprocessing)[0] for one in predictor.members]
    probabilities, classes, _ = zip(*predict_box(predictor, bands, measured, box), strict=True)
    return np.concatenate(probabilities, axis=1), np.concatenate(classes)


@pytest.mark.usefixtures("one_tile_at_a_time")
@pytest.mark.parametrize(("kind", "preprocessing"), CASES)
def test_parts_of_reduced_images_are_those_of_the_whole(
    kind, preprocessing, plans, image, tmp_path, monkeypatch
):
    predictor = Predictor.open(make_run(tmp_path / "run", plans(kind), **preprocessing), "cpu")
    whole = predict_whole(predictor, image)
    monkeypatch.setattr(growing, "GROWN_PX", 200)
    rng = np.random.default_rng(3)
    with open_image(image, predictor) as bands:
        for _ in range(5):
            ends = [np.sort(rng.choice(n + 1, 2, replace=False)) for n in whole.classes.shape]
            box = tuple((int(first), int(last)) for first, last in ends)
            probabilities, classes = predict_part(predictor, bands, box)
            inside = tuple(slice(*edge) for edge in box)
            assert np.array_equal(probabilities, whole.probabilities[(slice(None), *inside)])
            assert np.array_equal(classes, whole.classes[inside])


@pytest.mark.usefixtures("one_tile_at_a_time")
@pytest.mark.parametrize("kind", ["image"])
def test_parts_of_runs_of_several_resolutions_are_those_of_the_whole(kind, plans, image, tmp_path):
    runs = [
        make_run(tmp_path / f"{seed}", plans(kind), seed=seed, downscale=factor)
        for seed, factor in enumerate((1, 1.5, 4))
    ]
    predictor = Predictor.open(runs, "cpu")
    whole = predict_whole(predictor, image)
    with open_image(image, predictor) as bands:
        probabilities, _ = predict_part(predictor, bands, ((11, 47), (5, 80)))
    assert np.array_equal(probabilities, whole.probabilities[:, 11:47, 5:80])


@pytest.mark.parametrize("kind", ["image", "volume"])
@pytest.mark.parametrize("factor", [1, 2.5])
def test_intensities_are_those_of_the_reduced_image(
    kind, factor, plans, image, tmp_path, monkeypatch
):
    predictor = Predictor.open(make_run(tmp_path / "run", plans(kind), downscale=factor), "cpu")
    (sample,) = predictor.preprocess(Case(id="large", image=image)).samples
    preprocessing = predictor.plan.preprocessing
    with open_image(image, predictor) as bands:
        assert measure_once(bands, preprocessing)[0] == sample.normalization
        monkeypatch.setattr(sampled_intensities, "READ_BYTES", 0)
        monkeypatch.setattr(sampled_intensities, "SIDE_2D", 10)
        monkeypatch.setattr(sampled_intensities, "SIDE_3D", (10, 10, 10))
        sampled, text = measure_once(bands, preprocessing)
    # A reduced image has a smaller standard deviation.
    assert sampled.mean == pytest.approx(sample.normalization.mean, rel=0.1)
    assert sampled.std == pytest.approx(sample.normalization.std, rel=0.2)
    assert ("reduced" in text) == (factor > 1)
    assert ("4 × 4" if factor > 1 else "10 × 10") in text.replace("x", "×")


@pytest.mark.parametrize("kind", ["image"])
def test_images_that_are_enlarged_are_refused(kind, plans, image, tmp_path):
    run = make_run(tmp_path / "run", plans(kind), target_spacing_mm=(0.0004, 0.001))
    with pytest.raises(DataError) as error:
        open_image(image, Predictor.open(run, "cpu"))
    assert error.value.code == "image_too_large"
