"""Compare the prediction in bands with that of the whole image."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile

from ushape import io
from ushape.data import file_rows
from ushape.data.preprocessing import Preprocessing
from ushape.data.preprocessing_config import PreprocessingConfig
from ushape.errors import DataError
from ushape.inference.sliding_window import TileSettings, sliding_window
from ushape.inference.streaming import (
    FileRows,
    average_bands,
    measure_normalization,
    read_or_open,
    stream_probabilities,
)
from ushape.io.streaming import open_bands
from ushape.labels import LabelSpace
from ushape.transforms import growing
from ushape.types import Case

SPACE = LabelSpace(values=(0, 1), names=("background", "foreground"))
rng = np.random.default_rng(0)


class Sum:
    """The sum of the channels as logit; any size is legal."""

    margin = 0

    def legal_size(self, at_least):
        return at_least

    def logits(self, tiles):
        return tiles.sum(dim=1, keepdim=True)


def prepare(**changes):
    config = PreprocessingConfig(**{"downscale": 1, "intensity": "image", **changes})
    return Preprocessing(channels=3, config=config, space=SPACE, normalization=None)


@pytest.fixture
def path(tmp_path):
    image = rng.integers(0, 255, (203, 131, 3), dtype=np.uint8)
    image[50:90] //= 3
    tifffile.imwrite(tmp_path / "x.tif", image, tile=(32, 32), photometric="rgb")
    return tmp_path / "x.tif"


@pytest.mark.parametrize("downscale", [1, 2, 4])
@pytest.mark.parametrize("intensity", ["image", "min_max"])
def test_stream_probabilities_equals_the_prediction_of_the_whole_image(path, downscale, intensity):
    preprocessing = prepare(downscale=downscale, intensity=intensity)
    settings = TileSettings(shape=(24, 24), overlap_fraction=0.25)
    sample = preprocessing.load(Case(id="x", image=path))
    image = sample.normalization.apply(sample.image)
    whole = preprocessing.restore(sliding_window(Sum(), image, SPACE, settings), sample.geometry)
    with open_bands(path) as bands:
        rows = FileRows(bands, sample.image.shape, None)
        assert measure_normalization(rows, preprocessing) == sample.normalization
        found = list(stream_probabilities(Sum(), bands, preprocessing, settings))
    assert len(found) > 1
    np.testing.assert_array_equal(np.concatenate(found, axis=1), whole)


def test_stream_probabilities_grows_few_rows_at_a_time(path, monkeypatch):
    preprocessing, settings = prepare(downscale=2), TileSettings(shape=(24, 24))
    with open_bands(path) as bands:
        file_shape = bands.shape[1:]
        whole = list(stream_probabilities(Sum(), bands, preprocessing, settings))
        monkeypatch.setattr(growing, "GROWN_PX", 6 * file_shape[1])
        parts = list(stream_probabilities(Sum(), bands, preprocessing, settings))
    assert max(part.shape[1] for part in parts) <= 2 * 3 + 2
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), np.concatenate(whole, axis=1))


def test_stream_probabilities_resamples_to_a_common_spacing(tmp_path):
    image = rng.integers(0, 255, (140, 90), dtype=np.uint8)
    path = tmp_path / "x.ome.tif"
    size = {"PhysicalSizeX": 2, "PhysicalSizeY": 3}  # Micrometers.
    tifffile.imwrite(path, image, metadata={"axes": "YX", **size})
    config = PreprocessingConfig(downscale=1, intensity="image", target_spacing_mm=(0.004, 0.004))
    preprocessing = Preprocessing(channels=1, config=config, space=SPACE, normalization=None)
    settings = TileSettings(shape=(24, 24), overlap_fraction=0.25)
    sample = preprocessing.load(Case(id="x", image=path))
    assert sample.image.shape == (1, 105, 45)
    scaled = sample.normalization.apply(sample.image)
    whole = preprocessing.restore(sliding_window(Sum(), scaled, SPACE, settings), sample.geometry)
    with open_bands(path) as bands:
        found = list(stream_probabilities(Sum(), bands, preprocessing, settings))
    np.testing.assert_array_equal(np.concatenate(found, axis=1), whole)
    finer = replace(preprocessing, config=replace(config, target_spacing_mm=(0.004, 0.001)))
    with open_bands(path) as bands, pytest.raises(DataError) as error:
        next(stream_probabilities(Sum(), bands, finer, settings))
    assert error.value.code == "image_too_large"


def test_average_bands_that_end_at_different_rows():
    one, two = rng.random((2, 2, 9, 3))
    cuts = [iter(np.split(one, [2, 3, 7], axis=1)), iter(np.split(two, [5], axis=1))]
    found = list(average_bands(cuts))
    np.testing.assert_allclose(np.concatenate(found, axis=1), (one + two) / 2)
    assert [band.shape[1] for band in found] == [2, 1, 2, 2, 2]
    (alone,) = average_bands([iter([one])])
    assert alone is one


def test_check_streamable_refuses_preprocessing_of_whole_images(path):
    with open_bands(path) as bands, pytest.raises(DataError) as error:
        next(stream_probabilities(Sum(), bands, prepare(square=True), TileSettings(shape=(24, 24))))
    one = Preprocessing(channels=1, config=prepare().config, space=SPACE, normalization=None)
    assert error.value.code == "image_too_large"
    with open_bands(path) as bands, pytest.raises(DataError) as error:
        next(stream_probabilities(Sum(), bands, one, TileSettings(shape=(24, 24))))
    assert error.value.code == "channel_count_mismatch"


def test_read_or_open_reads_small_and_opens_large_images(path):
    whole = io.read(path)
    pixels = read_or_open(path, lambda bands: False)
    assert (pixels.array == whole.array).all()
    assert pixels.spacing_mm == whole.spacing_mm
    with read_or_open(path, lambda bands: True) as bands:
        assert (bands.read(0, 203) == whole.array).all()
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError):
        read_or_open(path, lambda bands: False)


@pytest.mark.parametrize("downscale", [1.5, 2, 4])
def test_file_rows_are_equal_if_few_pixels_are_read_at_once(path, downscale, monkeypatch):
    sample = prepare(downscale=downscale).load(Case(id="x", image=path))
    with open_bands(path) as bands:
        rows = FileRows(bands, sample.image.shape, None)
        whole = rows.read(1, sample.image.shape[1])
        monkeypatch.setattr(file_rows, "MEASURED_PX", 5 * bands.shape[2])
        parts = rows.read(1, sample.image.shape[1])
    np.testing.assert_array_equal(whole, sample.image[:, 1:])
    np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize("downscale", [1, 1.5, 3])
def test_file_rows_of_a_part_are_those_of_the_whole(path, downscale):
    sample = prepare(downscale=downscale).load(Case(id="x", image=path))
    with open_bands(path) as bands:
        rows = FileRows(bands, sample.image.shape, None)
        part = rows.read_box(((20, 41), (7, 30)))
    np.testing.assert_array_equal(part, sample.image[:, 20:41, 7:30])
