import numpy as np
import pytest
import torch

from ushape import config
from ushape.inference.backend_choice import (
    BackendChoice,
    _load_choice,
    compare_networks,
    measure_speed,
)
from ushape.io.files import write_sealed_json
from ushape.labels import LabelSpace

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
