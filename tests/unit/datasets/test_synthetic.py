import numpy as np
import pytest

from codes import raises_code
from ushape import io
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.errors import ConfigError, DataError

SMALL = SyntheticConfig(size=48, groups=2)


def test_write_data_set_is_reproducible_and_names_dishes(tmp_path):
    for name in ("a", "b"):
        write_data_set(tmp_path / name, 3, SMALL, seed=1)
    names = ["dish01_01.png", "dish01_02.png", "dish02_01.png"]
    for folder in ("images", "masks"):
        assert sorted(path.name for path in (tmp_path / "a" / folder).iterdir()) == names
        for name in names:
            first, second = (tmp_path / one / folder / name for one in "ab")
            assert first.read_bytes() == second.read_bytes()


def test_write_data_set_writes_masks_of_cells(tmp_path):
    write_data_set(tmp_path / "data", 2, SMALL, seed=1)
    masks = [io.read_mask(path).codes for path in (tmp_path / "data/masks").iterdir()]
    assert {mask.shape for mask in masks} == {(48, 48)}
    assert set(np.unique(masks)) == {0, 255}
    image = io.read(tmp_path / "data/images/dish01_01.png").array
    assert image.shape == (1, 48, 48)
    assert image.std() > 5


def test_write_data_set_refuses_full_folders_and_negative_seeds(tmp_path):
    (tmp_path / "x").write_text("occupied")
    with raises_code(DataError, "folder_not_empty"):
        write_data_set(tmp_path, 1, SMALL, seed=0)
    with raises_code(ConfigError, "value_out_of_range"):
        write_data_set(tmp_path / "new", 1, SMALL, seed=-1)


@pytest.mark.parametrize("presence", [0.0, 1.0])
def test_synthetic_config_presence_controls_the_share_of_cells(presence, tmp_path):
    write_data_set(tmp_path / "data", 2, SyntheticConfig(size=64, presence=presence), seed=3)
    masks = [io.read_mask(path).codes for path in (tmp_path / "data/masks").iterdir()]
    assert bool(np.any(masks)) == (presence > 0)
