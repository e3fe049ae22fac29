from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ushape import config
from ushape.data.preprocessing import Preprocessing
from ushape.data.preprocessing_config import PreprocessingConfig
from ushape.inference.backend_choice import (
    BackendChoice,
    _load_choice,
    _lost_dice,
    calibration_tiles,
    compare_networks,
    measure_speed,
)
from ushape.io.files import write_sealed_json
from ushape.labels import LabelSpace
from ushape.normalization import Normalization
from ushape.types import Case, CaseFacts

SPACE = LabelSpace(values=(0, 1), names=("background", "foreground"))


class Fixed:
    """Network that returns fixed logits."""

    def __init__(self, name, values):
        self.name, self.values = name, torch.tensor(values).reshape(1, 1, 2, 2)
        self.asked = 0

    def logits(self, tiles):
        self.asked += 1
        return self.values.expand(len(tiles), -1, -1, -1)


def test_compare_networks_by_hand():
    # Logits 0 and log 3 are probabilities 0.5 and 0.75; one of four pixels changes its class.
    one = Fixed("one", [0.0, 9.0, -9.0, -9.0])
    two = Fixed("two", [float(np.log(3)), 9.0, -9.0, 9.0])
    tiles = [np.zeros((2, 1, 2, 2), np.float32), np.zeros((1, 1, 2, 2), np.float32)]
    found = compare_networks(one, two, tiles, SPACE)
    assert found.tiles == 3
    assert found.changed_share == 0.25
    assert found.largest_probability == pytest.approx(1 - 2 / (1 + np.exp(9)), abs=1e-6)
    assert compare_networks(
        one, Fixed("three", [float(np.log(3)), 9.0, -9.0, -9.0]), tiles, SPACE
    ) == (type(found)(largest_probability=pytest.approx(0.25), changed_share=0.0, tiles=3))


def test_measure_speed_takes_turns():
    backends = [Fixed("one", [0.0] * 4), Fixed("two", [0.0] * 4)]
    found = measure_speed(backends, np.zeros((1, 1, 2, 2), np.float32), rounds=3)
    assert list(found) == ["one", "two"]
    assert all(seconds > 0 for seconds in found.values())
    assert [backend.asked for backend in backends] == [4, 4]


def test_stored_choice_that_was_changed_is_not_used(tmp_path):
    path = tmp_path / "choice.json"
    choice = BackendChoice(chosen="torch", machine="cpu", packages=("torch", "onnx"), measured=())
    write_sealed_json(path, config.to_dict(choice))
    assert _load_choice(path) == choice
    path.write_text(path.read_text().replace('"chosen": "torch"', '"chosen": "onnx"'))
    assert _load_choice(path) is None


def test_stored_choice_names_an_installed_backend(tmp_path):
    path = tmp_path / "choice.json"
    choice = BackendChoice(chosen="other", machine="cpu", packages=("torch",), measured=())
    write_sealed_json(path, config.to_dict(choice))
    assert _load_choice(path) is None


class Next:
    """Network whose logit is the next slice minus 25, at any size."""

    margin, name = 0, "next"

    def legal_size(self, at_least):
        return at_least

    def logits(self, tiles):
        return tiles[:, 2:] - 25


@pytest.fixture
def stack(tmp_path):
    """A run on slices with the values 10, 20 and 30; the mask of the second is full."""
    cases = []
    for number in (1, 2, 3):
        paths = [tmp_path / f"{kind}_{number}.png" for kind in ("image", "mask")]
        for path, value in zip(paths, (10 * number, number == 2), strict=True):
            Image.fromarray(np.full((8, 8), value, np.uint8)).save(path)
        cases.append(Case(id=f"s_{number}", image=paths[0], mask=paths[1], group="stack"))
    ids = tuple(case.id for case in cases)
    plain = Normalization(low=(0,), high=(255,), mean=(0,), std=(1,))
    config = PreprocessingConfig(downscale=1, intensity="data", slices=3)
    preprocessing = Preprocessing(channels=1, config=config, space=SPACE, normalization=plain)
    run = SimpleNamespace(
        load_splits=lambda: SimpleNamespace(train=ids, validated=ids),
        load_cases=lambda: [CaseFacts(case, (64, 0)) for case in cases],
    )
    return run, SimpleNamespace(preprocessing=preprocessing, tile_shape=(8, 8))


def test_calibration_tiles_show_the_neighbors_of_a_slice(stack):
    tiles = list(calibration_tiles(*stack, Next()))
    assert [tile[0, :, 0, 0].tolist() for tile in tiles] == [
        [10, 10, 20],
        [10, 20, 30],
        [20, 30, 30],
    ]


def test_lost_dice_is_measured_with_the_neighbors_of_a_slice(stack):
    class Never(Next):
        def logits(self, tiles):
            return torch.full_like(tiles[:, :1], -9)

    # The Dice of the second slice is 1 by its neighbor, and that of the third, which has none, 0.
    assert _lost_dice(*stack, Next(), Never()) == 0.5
