import json

import pytest
import safetensors.torch
import torch

from ushape.errors import RunError
from ushape.planning.weights import CHECKSUM, load_weights, read_facts, save_weights


@pytest.fixture
def network():
    return torch.nn.Linear(2, 1)


@pytest.fixture
def path(tmp_path, network):
    save_weights(tmp_path / "model.safetensors", network.state_dict(), {"epoch": 3})
    return tmp_path / "model.safetensors"


def test_load_weights_returns_what_was_saved(path, network):
    found = load_weights(path, network)
    assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())
    assert read_facts(path) == {"epoch": 3}


def test_load_weights_refuses_a_changed_weight(path, network):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError) as caught:
        load_weights(path, network)
    assert caught.value.code == "damaged_weights"
    assert "checksum" in caught.value.message


def test_load_weights_accepts_older_files_without_a_checksum(path, network):
    header = {"ushape": json.dumps({"epoch": 3})}
    path.write_bytes(safetensors.torch.save(dict(network.state_dict()), header))
    assert load_weights(path, network).keys() == network.state_dict().keys()


def test_load_weights_refuses_other_shapes_before_it_allocates_them(path):
    with torch.device("meta"):
        huge = torch.nn.Linear(10**6, 10**6)
    with pytest.raises(RunError) as caught:
        load_weights(path, huge)
    assert caught.value.code == "damaged_weights"
    assert "bias has the shape (1,)" in caught.value.message


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\xff" * 8 + b"{}"])
def test_load_weights_refuses_other_files(path, network, content):
    path.write_bytes(content)
    with pytest.raises(RunError) as caught:
        load_weights(path, network)
    assert caught.value.code == "damaged_weights"


def test_save_weights_writes_equal_files_for_equal_weights(path, tmp_path, network):
    save_weights(tmp_path / "again", network.state_dict(), {"epoch": 3})
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    with safetensors.safe_open(path, framework="pt") as file:
        assert CHECKSUM in json.loads(file.metadata()["ushape"])
