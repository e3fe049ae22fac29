"""Levels of large masks, read back by other programs."""

import json

import numpy as np
import openslide
import pytest
import tifffile
import tiffslide
import zarr

from slides import blobs, write_svs
from ushape import io
from ushape.io import pyramid
from ushape.io.pyramid import level_shapes, nearest_indices
from ushape.io.streaming import open_band_writer, open_probability_writer
from ushape.types import MaskEncoding

CODES = np.random.default_rng(0).integers(0, 3, (300, 410)).astype(np.uint8)
EXPECTED = CODES[np.ix_(nearest_indices(300, 75), nearest_indices(410, 102))]


@pytest.fixture
def levels(monkeypatch):
    """Levels of small images."""
    monkeypatch.setattr(pyramid, "LARGE_PX", 200)
    monkeypatch.setattr(pyramid, "SMALL_PX", 120)


def write(path, codes=CODES, like=None, **encoding):
    with open_band_writer(path, codes.shape, MaskEncoding(**encoding), like) as writer:
        for first in range(0, len(codes), 37):
            writer.write(codes[first : first + 37])
    return path


def test_levels_are_four_times_smaller_until_they_are_small():
    assert level_shapes((4096, 4000)) == []
    assert level_shapes((30_000, 40_000)) == [(7500, 10_000), (1875, 2500), (468, 625)]
    assert level_shapes((1, 5000)) == [(1, 1250), (1, 312)]
    assert nearest_indices(8, 2).tolist() == [2, 6]
    assert nearest_indices(3, 3).tolist() == [0, 1, 2]


@pytest.mark.usefixtures("levels")
def test_masks_without_spacing_have_levels_that_openslide_reads(tmp_path):
    path = write(tmp_path / "x.tif")
    assert (io.read_mask(path).codes == CODES).all()
    with openslide.OpenSlide(path) as slide:
        assert slide.level_dimensions == ((410, 300), (102, 75))
        assert (np.asarray(slide.read_region((0, 0), 1, (102, 75)))[..., 0] == EXPECTED).all()
    colors = np.arange(300 * 410).reshape(300, 410) % 999
    path = write(tmp_path / "colors.tif", colors, kind="colors", dtype="uint8")
    assert (io.read_mask(path).codes == colors).all()


@pytest.mark.usefixtures("levels")
def test_masks_of_slides_are_ome_tiff_with_levels_and_physical_size(tmp_path):
    slide = write_svs(tmp_path / "a.svs", blobs((300, 410))[0], mpp=0.5)
    path = write(tmp_path / "x.tif", like=slide)
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        finest, coarse = file.series[0].levels
        assert (finest.asarray() == CODES).all()
        assert (coarse.asarray() == EXPECTED).all()
    with tiffslide.TiffSlide(path) as other:
        assert other.properties["tiffslide.mpp-x"] == pytest.approx(0.5)
        assert other.level_dimensions == ((410, 300), (102, 75))
    with openslide.OpenSlide(path) as other:
        whole = np.asarray(other.read_region((0, 0), 0, (410, 300)))
        assert (whole[..., 0] == CODES).all()
        assert float(other.properties["openslide.mpp-y"]) == pytest.approx(0.5)


@pytest.mark.usefixtures("levels")
def test_zarr_masks_and_probabilities_have_levels(tmp_path):
    slide = write_svs(tmp_path / "a.svs", blobs((300, 410))[0], mpp=0.5)
    group = zarr.open_group(str(write(tmp_path / "x.zarr", like=slide)), mode="r")
    assert (group["0"][:] == CODES).all()
    assert (group["1"][:] == EXPECTED).all()
    datasets = json.loads((tmp_path / "x.zarr/.zattrs").read_text())["multiscales"][0]["datasets"]
    scale, translation = datasets[1]["coordinateTransformations"]
    assert scale["scale"] == pytest.approx([2.0, 0.5 * 410 / 102])
    # Row n of the level is row 4 n + 2 of the image, whose pixels measure 0.5.
    assert translation["translation"][0] == 1.0
    place = np.arange(102) * scale["scale"][1] + translation["translation"][1]
    assert np.abs(place - 0.5 * nearest_indices(410, 102)).max() <= 0.5 * 0.5
    shares = np.random.default_rng(1).random((2, 300, 410), np.float32)
    for name in ("p.zarr", "p.tif"):
        with open_probability_writer(tmp_path / name, shares.shape, like=slide) as writer:
            writer.write(shares)
        assert (io.read(tmp_path / name).array == np.rint(255 * shares)).all()
    coarse = zarr.open_group(str(tmp_path / "p.zarr"), mode="r")["1"][:]
    assert coarse.shape == (2, 75, 102)
    assert (tifffile.imread(tmp_path / "p.tif", level=1) == np.moveaxis(coarse, 0, -1)).all()
