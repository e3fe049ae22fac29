import numpy as np
import tifffile

from ushape.data.preprocessing import Preprocessing
from ushape.data.preprocessing_config import PreprocessingConfig
from ushape.inference.slices import predict_preprocessed
from ushape.inference.sliding_window import TileSettings
from ushape.inference.streaming import stream_probabilities
from ushape.io.streaming import open_bands
from ushape.labels import LabelSpace
from ushape.types import Case

SPACE = LabelSpace(values=(0, 1), names=("background", "foreground"))
SETTINGS = TileSettings(shape=(16, 16), overlap_fraction=0.25)
rng = np.random.default_rng(0)


class Difference:
    """Next slice minus previous one as logit; any size is legal."""

    margin = 0

    def legal_size(self, at_least):
        return at_least

    def logits(self, tiles):
        assert tiles.shape[1] == 3
        return tiles[:, 2:] - tiles[:, :1]


def prepare(downscale=1):
    config = PreprocessingConfig(downscale=downscale, intensity="image", slices=3)
    return Preprocessing(channels=1, config=config, space=SPACE, normalization=None, by_slice=True)


def test_predict_preprocessed_gives_each_slice_its_neighbors():
    volume = rng.standard_normal((1, 5, 20, 24)).astype(np.float32)
    (found,) = predict_preprocessed(Difference(), [volume], prepare(), SETTINGS)
    before, after = volume[0, [0, 0, 1, 2, 3]], volume[0, [1, 2, 3, 4, 4]]
    assert found.shape == (1, 5, 20, 24)
    np.testing.assert_allclose(found[0], 1 / (1 + np.exp(before - after)), atol=1e-5)


def test_streamed_volume_equals_the_volume_in_memory(tmp_path, monkeypatch):
    volume = rng.integers(0, 255, (7, 40, 30), dtype=np.uint8)
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, volume, photometric="minisblack", metadata={"axes": "ZYX"})
    monkeypatch.setattr("ushape.inference.slices.BATCH_PX", 2 * 20 * 15)  # Two slices at a time.
    preprocessing = prepare(downscale=2)
    sample = preprocessing.load(Case(id="x", image=path))
    assert sample.image.shape == (1, 7, 20, 15)
    image = sample.normalization.apply(sample.image)
    (working,) = predict_preprocessed(Difference(), [image], preprocessing, SETTINGS)
    whole = preprocessing.restore(working, sample.geometry)
    with open_bands(path) as bands:
        found = list(stream_probabilities(Difference(), bands, preprocessing, SETTINGS))
    assert len(found) > 1
    np.testing.assert_allclose(np.concatenate(found, axis=1), whole, atol=1e-5)
