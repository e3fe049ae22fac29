"""Slides: their levels equal those that OpenSlide reads, and faults end in clear errors."""

from contextlib import ExitStack

import numpy as np
import openslide
import pytest
import tifffile

from codes import raises_code
from slides import blobs, write_svs
from ushape import io
from ushape.errors import DataError, MissingPackageError
from ushape.io import slides
from ushape.io.streaming import open_bands
from ushape.io.streaming.slides import describe_slide, open_bands_at

IMAGE, _ = blobs()


@pytest.fixture
def slide(tmp_path):
    return write_svs(tmp_path / "a.svs", IMAGE)


def region(path, level, box):
    """A part of a level as OpenSlide reads it, (3, y, x)."""
    (top, bottom), (left, right) = box
    with openslide.OpenSlide(path) as other:
        scale = round(other.level_downsamples[level])
        place = left * scale, top * scale
        found = other.read_region(place, level, (right - left, bottom - top))
        return np.moveaxis(np.asarray(found)[..., :3], -1, 0)


def test_levels_equal_those_of_openslide(slide):
    with openslide.OpenSlide(slide) as other, ExitStack() as closing:
        found = slides.open_slide(slide, closing)
        assert [level.shape[:0:-1] for level in found.levels] == list(other.level_dimensions)
        steps = [level.spacing_mm for level in found.levels]
        expected = [0.00025 * scale for scale in other.level_downsamples]
        assert [step[0] for step in steps] == pytest.approx(expected, rel=0.02)
    whole = ((0, 600), (0, 800))
    with open_bands(slide) as bands:
        assert bands.shape == (3, 600, 800)
        assert (bands.read(0, 600) == region(slide, 0, whole)).all()
    for mpp, level, box in ((1, 1, ((30, 140), (7, 190))), (4, 2, ((0, 37), (0, 50)))):
        with open_bands_at(slide, mpp) as bands:
            assert (bands.read_box(box) == region(slide, level, box)).all()


def test_a_resolution_between_levels_is_the_exact_average_of_the_finer_one(slide):
    with open_bands_at(slide, 0.5) as bands, open_bands(slide) as finest:
        assert bands.shape == (3, 300, 400)
        assert bands.spacing_mm == pytest.approx((0.0005, 0.0005))
        squares = finest.read(0, 600).reshape(3, 300, 2, 400, 2)
        assert (bands.read(0, 300) == np.rint(squares.mean(axis=(2, 4)))).all()
    with open_bands_at(slide, 1.3) as bands:  # A pixel of level 1 is divided among two.
        whole = bands.read(0, bands.shape[1])
        parts = [bands.read(first, first + 1) for first in range(bands.shape[1])]
        assert (np.concatenate(parts, axis=1) == whole).all()
        assert (bands.read_box(((20, 50), (33, 77))) == whole[:, 20:50, 33:77]).all()


def test_the_level_that_is_read_is_described(slide):
    assert describe_slide(slide, None).startswith("level 0 of 3 (600 × 800 pixels, 0.25 µm")
    assert describe_slide(slide, 1.0).endswith("is read as it is")
    assert describe_slide(slide, 0.98).endswith("is read as it is")  # Equal up to 5 %.
    assert describe_slide(slide, 2.0).endswith("is reduced to 75 × 100 pixels of 2 µm")


def test_a_missing_or_coarse_resolution_is_refused(tmp_path, slide):
    with raises_code(DataError, "slide_too_coarse"):
        open_bands_at(slide, 0.2)
    unstated = write_svs(tmp_path / "b.svs", IMAGE, mpp=None)
    with pytest.raises(DataError) as error:
        open_bands_at(unstated, 0.5)
    assert error.value.code == "missing_spacing"
    assert "slide_mpp" in error.value.hint
    with open_bands(unstated) as bands:
        assert bands.shape == (3, 600, 800)
        assert bands.spacing_mm is None


def test_a_slide_is_read_whole_like_its_finest_level(slide):
    pixels = io.read(slide)
    with open_bands(slide) as bands:
        assert (pixels.array == bands.read(0, 600)).all()
    assert pixels.spacing_mm == (0.00025, 0.00025)
    assert io.read_size(slide) == (600, 800)
    assert io.is_image(slide)


def test_cut_off_and_empty_slides_are_refused(tmp_path, slide):
    content = slide.read_bytes()
    for size in (0, 100, len(content) // 3, len(content) - 1000):
        cut = tmp_path / "cut.svs"
        cut.write_bytes(content[:size])
        with pytest.raises(DataError), open_bands_at(cut, 1.0) as bands:
            bands.read(0, bands.shape[1])
    (tmp_path / "text.svs").write_text("This is not a slide.")
    with pytest.raises(DataError):
        open_bands(tmp_path / "text.svs")


def test_gray_slides_of_16_bits_and_single_levels_are_read(tmp_path):
    values = np.random.default_rng(0).integers(0, 60_000, (200, 300)).astype(np.uint16)
    path = tmp_path / "gray.tif"
    options = {"tile": (64, 64), "metadata": None, "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as file:
        file.write(values, resolution=(20_000, 20_000), **options)
        file.write(values[::2, ::2], resolution=(10_000, 10_000), subfiletype=1, **options)
    assert slides.is_slide(path)
    with open_bands_at(path, 0.5) as bands:
        assert (bands.read(0, 200)[0] == values).all()
    with open_bands_at(path, 1.0) as bands:
        assert (bands.read(0, 100)[0] == values[::2, ::2]).all()
    one = write_svs(tmp_path / "one.svs", IMAGE, factors=())
    with open_bands_at(one, 2.0) as bands:
        assert bands.shape == (3, 75, 100)
    assert not slides.is_slide(tmp_path / "missing.tif")


def test_colors_of_printing_are_refused(tmp_path):
    path = tmp_path / "cmyk.tif"
    colors = np.zeros((64, 64, 4), np.uint8)
    with tifffile.TiffWriter(path) as file:
        for step in (1, 2):
            part = np.ascontiguousarray(colors[::step, ::step])
            file.write(part, tile=(16, 16), photometric="separated", metadata=None)
    with raises_code(DataError, "unsupported_colors"), ExitStack() as closing:
        slides.open_slide(path, closing)


def test_a_resolution_for_printing_is_none(tmp_path):
    path = tmp_path / "print.tif"
    with tifffile.TiffWriter(path) as file:
        for step in (1, 2):
            part = np.ascontiguousarray(IMAGE[::step, ::step])
            options = {"tile": (64, 64), "metadata": None, "resolutionunit": "INCH"}
            file.write(part, photometric="rgb", resolution=(72, 72), **options)
    with raises_code(DataError, "missing_spacing"):
        open_bands_at(path, 0.5)


def test_missing_packages_are_named(monkeypatch, slide, tmp_path):
    mirax = tmp_path / "a.mrxs"
    mirax.write_bytes(b"\xff\xd8\xff")
    with raises_code(DataError, "damaged_file"):
        open_bands(mirax)
    missing = ModuleNotFoundError("missing")

    def refuse(name):
        raise missing

    monkeypatch.setattr("importlib.import_module", refuse)
    with pytest.raises(MissingPackageError) as error:
        slides.check_packages(slide)
    assert "ushape[slides]" in error.value.hint
    with pytest.raises(MissingPackageError) as error:
        slides.check_packages(mirax)
    assert "openslide-python" in error.value.hint


def test_openslide_reads_what_tiffslide_reads(monkeypatch, slide):
    with open_bands_at(slide, 1.0) as bands:
        expected = bands.read(0, 150)
    monkeypatch.setattr(slides, "ONLY_OPENSLIDE", (".svs",))
    with open_bands_at(slide, 1.0) as bands:
        assert bands.shape == (3, 150, 200)
        assert (bands.read(0, 150) == expected).all()
