import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from ushape import io
from ushape.io.annotations import read_annotation
from ushape.io.orientation import as_displayed, as_stored
from ushape.io.streaming import open_bands

STORED = np.arange(35, dtype=np.uint8).reshape(5, 7)


@pytest.fixture
def turned(tmp_path):
    def write(orientation, name="x.png"):
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(STORED).save(tmp_path / name, exif=exif)
        return tmp_path / name

    return write


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_turned_as_pillow_turns_them_and_back(orientation, turned):
    path = turned(orientation)
    with Image.open(path) as image:
        shown = np.asarray(ImageOps.exif_transpose(image))
    assert (as_displayed(STORED, orientation) == shown).all()
    assert (as_stored(shown, orientation) == STORED).all()
    pixels = io.read(path)
    assert (pixels.array[0] == shown).all()
    assert pixels.orientation == io.read_orientation(path) == orientation
    assert io.read_size(path) == shown.shape


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_tiff_is_applied(orientation, tmp_path):
    path = tmp_path / "x.tif"
    colors = np.stack([STORED, STORED + 40, STORED + 80], axis=-1)
    tag = (274, "H", 1, orientation, True)
    tifffile.imwrite(path, colors, photometric="rgb", extratags=[tag], metadata=None)
    shown = as_displayed(np.moveaxis(colors, -1, 0), orientation)
    pixels = io.read(path)
    assert (pixels.array == shown).all()
    assert pixels.orientation == io.read_orientation(path) == orientation
    assert io.read_size(path) == shown.shape[1:]
    with open_bands(path) as bands:
        assert bands.orientation == orientation
        assert (bands.read(0, shown.shape[1]) == shown).all()


@pytest.mark.parametrize("drawn_on", ["displayed", "stored"])
def test_sizes_decide_what_a_mask_was_drawn_on(drawn_on, turned, tmp_path):
    image = turned(6)
    codes = STORED if drawn_on == "stored" else as_displayed(STORED, 6)
    Image.fromarray(codes).save(tmp_path / "m.png")
    mask = read_annotation(tmp_path / "m.png", image)
    assert mask.turn == drawn_on
    assert (mask.codes == as_displayed(STORED, 6)).all()


def test_mask_with_the_same_orientation_is_turned_once(turned):
    mask = read_annotation(turned(6, "m.png"), turned(6))
    assert mask.turn == ""
    assert (mask.codes == as_displayed(STORED, 6)).all()


def test_mask_that_fits_both_ways_is_taken_as_displayed(tmp_path):
    exif = Image.Exif()
    exif[274] = 3
    noise = np.random.default_rng(0).integers(255, size=(40, 40), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.png", exif=exif)
    codes = np.zeros((40, 40), np.uint8)
    codes[5:20, 3:30] = 1
    Image.fromarray(codes).save(tmp_path / "m.png")
    mask = read_annotation(tmp_path / "m.png", tmp_path / "x.png")
    assert mask.turn == "unclear"
    assert (mask.codes == codes).all()
