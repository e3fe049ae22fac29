"""Small image files in a folder."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def make(tmp_path):
    """Makes small image files by their paths; returns the folder."""

    def make_files(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix in (".png", ".jpg", ".gif", ".tif", ".JPG"):
                Image.fromarray(np.zeros((2, 2), np.uint8)).save(path)
            else:
                path.write_text("text")
        return tmp_path

    return make_files
