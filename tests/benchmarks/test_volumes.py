"""Options, report, resampling and choice of weights of `benchmarks/scores/volumes.py`."""

import importlib
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

SCORES = Path(__file__).parents[2] / "benchmarks" / "scores"


@pytest.fixture(scope="module")
def load():
    """Return a function that imports a script of the benchmarks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCORES)
        yield importlib.import_module


@pytest.mark.parametrize(
    ("spacing_mm", "factor"), [((2, 1.5, 1.5), 1), ((10, 1.25, 1.25), 6), ((1, 1, 2), 0.75)]
)
def test_slices_get_the_proportions_of_the_tutorial(load, spacing_mm, factor):
    assert load("volume_training").slice_factor(spacing_mm) == pytest.approx(factor)


def test_resized_volume_keeps_its_slices_and_classes(load):
    resize = load("volume_training").resize
    mask = np.zeros((1, 3, 4, 4), dtype=np.uint8)
    mask[0, 1], mask[0, 2] = 2, 3
    wide = resize(mask, 2.0, "nearest-exact")
    assert wide.dtype == np.uint8
    assert wide[0, :, 0, 0].tolist() == [0, 0, 2, 2, 3, 3]
    image = np.linspace(0, 1, 3, dtype=np.float32)[None, :, None, None] * np.ones((1, 3, 4, 4))
    assert resize(image, 1.4).shape == (1, 4, 4, 4)
    assert resize(image, 0.01).shape == (1, 1, 4, 4)
    assert resize(image, 1.0) is image


def test_intensities_are_clipped_at_percentiles(load):
    clip_to_unit = load("volume_training").clip_to_unit
    volume = np.arange(1000, dtype=np.float32).reshape(1, 10, 10, 10)
    volume[0, -1, -1, -1] = 1e6
    found = clip_to_unit(volume)
    assert (found.min(), found.max()) == (0, 1)
    assert found[0, 5, 0, 0] == pytest.approx(0.5, abs=0.01)
    assert not clip_to_unit(np.full((1, 2, 2, 2), 7.0)).any()


def test_window_covers_a_flat_volume(load):
    assert load("peer_training").covering_window((10, 192, 97), 160) == (16, 160, 112)


class CountedDeadline:
    """A deadline that advances by a twentieth each time that it is asked."""

    def __init__(self):
        self.asked = -1

    def reserve(self, seconds):
        pass

    @property
    def progress(self):
        self.asked += 1
        return self.asked / 20


def test_training_ends_with_the_weights_that_were_best_in_validation(load):
    network, truth = torch.nn.Linear(1, 1, bias=False), np.arange(20, dtype=np.uint8) % 2
    network.weight.data.zero_()
    data = Namespace(validation=[(np.zeros((1, 20)), truth)], test=[np.zeros((1, 20))])

    def run_step():
        network.weight.data += 1

    def predict(image):
        # The fewest pixels are wrong after 7 steps.
        wrong = min(19, abs(int(network.weight) - 7))
        found = np.where(np.arange(20) < wrong, 1 - truth, truth)
        return np.stack([1 - found, found])

    steps = load("peer_training").train_to_best(network, run_step, predict, data, CountedDeadline())
    assert steps == 20
    assert int(network.weight) in (6, 7, 8)


def read(load, monkeypatch, *arguments):
    command = ["volumes.py", "--results", "found.jsonl", *arguments]
    monkeypatch.setattr("sys.argv", command)
    return load("volumes").read_options()


def test_spacing_of_a_known_set_is_that_of_the_table(load, monkeypatch):
    volumes = load("volumes")
    options = read(load, monkeypatch)
    spacing = volumes.find_spacing(Namespace(name="mnms_cardiac_nnunet"), options)
    assert spacing == ["10", "1.25", "1.25"]


def test_spacing_of_another_set_must_be_stated(load, monkeypatch):
    with pytest.raises(SystemExit):
        read(load, monkeypatch, "--data", "folder/mine")
    with pytest.raises(SystemExit):
        read(load, monkeypatch, "--data", "mine", "--spacing-mm", "0", "1", "1")
    options = read(load, monkeypatch, "--data", "folder/mine", "--spacing-mm", "3", "1", "0.5")
    assert load("volumes").find_spacing(Namespace(name="mine"), options) == ["3", "1", "0.5"]


def test_report_states_what_was_chosen(load, capsys):
    common = {"data": "hearts", "minutes": 10.0, "seed": 0, "steps": 5}
    load("volumes").print_report(
        [
            common | {"peer": "ushape", "dice": 0.8, "slices": 3},
            common | {"peer": "ushape-2d", "dice": 0.7, "slices": 1},
            common | {"peer": "monai", "error": "out of memory"},
        ]
    )
    printed = capsys.readouterr().out
    assert "| hearts | 0.800 (5) | 0.700 (5) | - | ushape |" in printed
    assert "ushape in 2.5D" in printed
    assert "out of memory" in printed
