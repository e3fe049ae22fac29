import numpy as np
import pytest
from PIL import Image

from codes import raises_code
from ushape.errors import DataError
from ushape.io import raster
from ushape.types import MaskEncoding

PALETTE = ((0, 0, 0), (255, 0, 0), (0, 255, 0))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif"])
def test_raster_palettes_are_read_back(suffix, tmp_path):
    codes = np.array([[0, 1], [2, 1]], np.uint8)
    with (tmp_path / f"x{suffix}").open("wb") as file:
        encoding = MaskEncoding(kind="palette", palette=PALETTE, suffix=suffix)
        raster.write(file, codes, encoding, None)
    found = raster.read(tmp_path / f"x{suffix}")
    assert found.array.tolist() == [codes.tolist()]
    assert found.palette[:3] == PALETTE


def test_raster_cmyk_is_converted_to_rgb(tmp_path):
    Image.new("CMYK", (2, 1), (0, 255, 255, 0)).save(tmp_path / "x.jpg")
    assert raster.read(tmp_path / "x.jpg").array.shape == (3, 1, 2)


def test_raster_refuses_other_files(tmp_path):
    (tmp_path / "x.png").write_bytes(b"not an image")
    with raises_code(DataError, "damaged_file"):
        raster.read(tmp_path / "x.png")
