"""Small images and masks in folders."""

import numpy as np
import pytest
from PIL import Image

BOX = np.zeros((16, 16), np.uint8)
BOX[4:9, 4:9] = 255


@pytest.fixture
def draw(tmp_path):
    """Writes a photograph, or a mask that differs from image to image; returns the path."""

    def write(name, number=None, value=255):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if number is None:
            pixels = np.random.default_rng(len(name)).integers(0, 256, (16, 16), dtype=np.uint8)
        else:
            pixels = np.roll(BOX, (3 * number, 5 * number), axis=(0, 1)) // 255 * np.uint8(value)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def draw_view(tmp_path):
    """Writes a mask of the field of view, nearly the same for all images; returns the path."""

    def write(name, number):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        y, x = np.mgrid[:16, :16] - 7.5
        Image.fromarray(np.uint8(255 * (y**2 + x**2 < 50 + number))).save(path)
        return path

    return write
