import numpy as np
import pytest
from PIL import Image

from ushape.api.preview import free_png, weight_map
from ushape.errors import ConfigError, DataError, RunError


def test_free_png_refuses_other_suffixes_and_existing_files(tmp_path):
    path = tmp_path / "a.png"
    assert free_png(path, overwrite=False) == path
    with pytest.raises(ConfigError) as error:
        free_png(tmp_path / "a.jpg", overwrite=True)
    assert error.value.code == "not_png"
    path.touch()
    with pytest.raises(RunError) as error:
        free_png(path, overwrite=False)
    assert error.value.code == "output_exists"
    assert free_png(path, overwrite=True) == path


def test_weight_map_needs_an_object(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "empty.png")
    with pytest.raises(DataError) as error:
        weight_map(tmp_path / "empty.png", output=tmp_path / "out.png")
    assert error.value.code == "no_foreground"
