"""Recipes in a Python file, and networks that are not the U-Net, through the public functions."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import ushape
from ushape import config
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.errors import ConfigError
from ushape.losses import LOSSES, LossConfig
from ushape.models import MODELS, build_model, network_sizes
from ushape.models.config import NetworkConfig
from ushape.planning import custom_code
from ushape.planning.custom_code import load_custom_recipe
from ushape.planning.recipe import Recipe
from ushape.planning.recipes import load_recipe
from ushape.planning.run import Run

SETTINGS = ["sampling.patch_shape=[24,24]", "train.steps_per_epoch=3", "train.precision=fp32"]

MINE = """
import torch
from torch import nn

from ushape.losses import LossConfig
from ushape.models.config import NetworkConfig
from ushape.planning.recipe import Recipe


class Plain(nn.Module):
    margin = 0

    def __init__(self, config, in_channels, out_channels):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, out_channels, 1)
        )

    def legal_size(self, at_least):
        return at_least

    def forward(self, x):
        return self.layers(x)


class Squared(nn.Module):
    def __init__(self, space):
        super().__init__()
        self.space = space

    def forward(self, logits, target, weight):
        return (weight * (self.space.probabilities(logits) - target) ** 2).mean()


def plain():
    return Recipe(
        network=NetworkConfig(architecture=Plain),
        loss=LossConfig(terms={Squared: 1.0, "dice": 0.5}),
    )


def own_loss():
    return Recipe(network=NetworkConfig(widths=(4, 8)), loss=LossConfig(terms={Squared: 1.0}))


def data_only():
    return Recipe(seed=7)


def built():
    class Zero(nn.Module):
        def forward(self, logits, target, weight):
            return logits.sum() * 0

    return Recipe(
        network=NetworkConfig(architecture=Plain(None, 1, 1)), loss=LossConfig(terms={Zero: 1.0})
    )


def fails():
    return missing_name


def none():
    return None
"""


class TwoConvolutions(nn.Module):
    """Valid 3 x 3 convolutions: two pixels are lost on each side; only even sizes are legal."""

    margin = 2

    def __init__(self, config, in_channels, out_channels):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, out_channels, 3),
        )

    def legal_size(self, at_least):
        return max(6, at_least + at_least % 2)

    def forward(self, x):
        assert all(size % 2 == 0 for size in x.shape[2:])
        return self.layers(x)


@pytest.fixture
def cells(tmp_path):
    write_data_set(tmp_path / "cells", 6, SyntheticConfig(size=40, groups=6), seed=0)
    return tmp_path / "cells"


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


@pytest.fixture(autouse=True)
def new_process(monkeypatch):
    """Every test begins as a process in which no Python file was named."""
    monkeypatch.setattr(custom_code, "_SOURCES", {})
    for table in (MODELS, LOSSES):
        for name in table:
            monkeypatch.setitem(table, name, table[name])
    known = {*MODELS, *LOSSES}
    yield
    forget(known)


def forget(known=("unet",)):
    """Forget every loaded file, as a new process does."""
    custom_code._SOURCES.clear()
    for table in (MODELS, LOSSES):
        for name in [name for name in table if ".py:" in name]:
            del table[name]
    for name in [name for name in sys.modules if name.startswith("ushape_custom_")]:
        del sys.modules[name]


def image_of(cells):
    return sorted((cells / "images").iterdir())[0]


def test_models_entry_is_trained_scored_and_predicts(cells, tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "two", TwoConvolutions)
    settings = [*SETTINGS, "network.architecture=two"]
    run = ushape.train(cells, output=tmp_path / "run", epochs=1, settings=settings)
    plan = Run(run.folder).load_plan()
    assert plan.recipe.network.architecture == "two"
    assert isinstance(Run(run.folder).load_network(plan), TwoConvolutions)
    assert ushape.evaluate(run.folder).verdict
    (written,) = ushape.predict(run.folder, image_of(cells), output=tmp_path / "masks")
    mask = ushape.load(run.folder).predict(image_of(cells)).mask
    assert mask.shape == (40, 40)
    assert Path(written).exists()


def test_models_entry_decides_the_planned_patch_and_memory(cells, monkeypatch):
    monkeypatch.setitem(MODELS, "two", TwoConvolutions)
    plan = ushape.plan(cells, epochs=1, settings=["network.architecture=two"])
    assert plan.patch_shape == (44, 44)  # 40 pixels of the image and the margin on each side.
    assert any("Network: two" in line for line in plan.reasons)
    assert ushape.plan(cells, minutes=1, settings=["network.architecture=two"]).evaluation_s > 0


def test_network_sizes_come_from_the_network(monkeypatch):
    monkeypatch.setitem(MODELS, "two", TwoConvolutions)
    sizes = network_sizes(NetworkConfig(architecture="two"))
    assert (sizes.margin, sizes.legal_size(7), sizes.receptive_field) == (2, 8, None)
    unet = network_sizes(NetworkConfig(widths=(4, 8)))
    assert (unet.margin, unet.legal_size(7)) == (0, 8)


def test_network_sizes_use_no_random_numbers_even_of_a_network_that_needs_values(monkeypatch):
    class Stubborn(TwoConvolutions):
        def __init__(self, config, in_channels, out_channels):
            super().__init__(config, in_channels, out_channels)
            self.scale = float(self.layers[0].weight.abs().max().item())

    monkeypatch.setitem(MODELS, "stubborn", Stubborn)
    before = torch.random.get_rng_state()
    assert network_sizes(NetworkConfig(architecture="stubborn")).margin == 2
    assert torch.equal(torch.random.get_rng_state(), before)


def test_build_model_refuses_unknown_and_incomplete_networks(monkeypatch):
    monkeypatch.setitem(MODELS, "bare", lambda config, i, o: nn.Conv2d(i, o, 1))
    for name, code in (
        ("resnet", "unknown_network"),
        ("bare", "network_without_sizes"),
        ("mine.py:plain.Plain", "custom_code_missing"),
    ):
        with pytest.raises(ConfigError) as caught:
            build_model(NetworkConfig(architecture=name), 1, 1)
        assert caught.value.code == code


def test_load_recipe_replaces_the_objects_of_a_file_by_names(mine):
    recipe = load_recipe(f"{mine}:plain")
    assert recipe.name == "mine.py:plain"
    assert recipe.network.architecture == "mine.py:plain.Plain"
    assert recipe.loss.terms == {"mine.py:plain.Squared": 1.0, "dice": 0.5}
    assert config.from_dict(Recipe, config.to_dict(recipe), source="test") == recipe
    assert config.override(recipe, ["seed=3"]).network == recipe.network


def test_load_recipe_copies_a_built_network(mine):
    recipe = load_recipe(f"{mine}:built")
    first, second = (build_model(recipe.network, 1, 1) for _ in range(2))
    assert first is not second
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("function", "code"),
    [
        ("fails", "custom_code_failed"),
        ("none", "custom_code_failed"),
        ("no", "custom_code_not_found"),
    ],
)
def test_load_custom_recipe_refuses_what_is_no_recipe(mine, function, code):
    with pytest.raises(ConfigError) as caught:
        load_custom_recipe(f"{mine}:{function}")
    assert caught.value.code == code


def test_load_custom_recipe_names_the_line_of_an_error(mine):
    mine.write_text("a = 1\nb = a +\n")
    with pytest.raises(ConfigError) as caught:
        load_custom_recipe(f"{mine}:plain")
    assert caught.value.code == "custom_code_failed"
    assert "line 2" in caught.value.message
    with pytest.raises(ConfigError) as caught:
        load_custom_recipe(f"{mine.parent}/yours.py:plain")
    assert caught.value.code == "custom_code_not_found"


def test_train_refuses_objects_that_no_file_defines(cells, tmp_path):
    for recipe in (
        Recipe(network=NetworkConfig(architecture=TwoConvolutions)),
        Recipe(loss=LossConfig(terms={nn.MSELoss(): 1.0})),
    ):
        with pytest.raises(ConfigError) as caught:
            ushape.train(cells, output=tmp_path / "run", epochs=1, recipe=recipe)
        assert caught.value.code == "custom_code_without_file"


def test_recipe_of_a_file_without_objects_needs_the_file_no_more(cells, mine, tmp_path):
    settings = [*SETTINGS, "network.widths=[4,8]"]
    run = ushape.train(
        cells, output=tmp_path / "run", epochs=1, recipe=f"{mine}:data_only", settings=settings
    )
    forget()
    assert Run(run.folder).load_plan().recipe.seed == 7
    assert ushape.load(run.folder).predict(image_of(cells)).mask.shape == (40, 40)


def test_run_with_its_own_loss_predicts_without_the_file_and_is_resumed_with_it(
    cells, mine, tmp_path
):
    run = ushape.train(
        cells, output=tmp_path / "run", epochs=1, recipe=f"{mine}:own_loss", settings=SETTINGS
    )
    forget()
    assert ushape.load(run.folder).predict(image_of(cells)).mask.shape == (40, 40)
    with pytest.raises(ConfigError) as caught:
        ushape.resume(run.folder)
    assert caught.value.code == "custom_code_missing"


@pytest.fixture
def custom_run(cells, mine, tmp_path):
    """Run of the file's own network and loss, in what is then a new process."""
    run = ushape.train(
        cells, output=tmp_path / "run", epochs=2, recipe=f"{mine}:plain", settings=SETTINGS
    )
    forget()
    return run.folder


def test_custom_run_keeps_the_file_and_never_runs_its_copy(custom_run, cells, mine, tmp_path):
    assert (custom_run / "code" / "mine.py").read_text() == MINE
    code = json.loads((custom_run / "plan.json").read_text())["recipe"]["code"]
    assert (code["file"], code["function"]) == ("mine.py", "plain")
    image = image_of(cells)
    for use in (
        lambda: ushape.load(custom_run),
        lambda: ushape.predict(custom_run, image, output=tmp_path / "masks"),
        lambda: ushape.evaluate(custom_run),
        lambda: ushape.resume(custom_run),
    ):
        with pytest.raises(ConfigError) as caught:
            use()
        assert caught.value.code == "custom_code_missing"
        assert f"--recipe {custom_run / 'code' / 'mine.py'}:plain" in caught.value.hint
    assert not any(name.startswith("ushape_custom_") for name in sys.modules)


def test_custom_run_is_used_with_the_file_or_its_copy(custom_run, cells, mine, tmp_path):
    image = image_of(cells)
    first = ushape.load(custom_run, recipe=f"{mine}:plain").predict(image)
    forget()
    copied = f"{custom_run / 'code' / 'mine.py'}:plain"
    second = ushape.load(custom_run, recipe=copied).predict(image)
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    forget()
    assert ushape.predict(custom_run, image, output=tmp_path / "masks", recipe=copied)
    forget()
    assert ushape.evaluate(custom_run, recipe=copied).verdict
    forget()
    assert ushape.report(custom_run)  # Needs no network.


def test_custom_run_refuses_a_file_that_was_changed(custom_run, mine):
    mine.write_text(MINE + "\n# changed\n")
    with pytest.raises(ConfigError) as caught:
        ushape.load(custom_run, recipe=f"{mine}:plain")
    assert caught.value.code == "custom_code_changed"
    assert str(custom_run / "code" / "mine.py") in caught.value.hint
    with pytest.raises(ConfigError) as caught:
        ushape.load(custom_run, recipe="auto")
    assert caught.value.code == "custom_code_not_found"


def test_custom_run_without_its_copy_asks_for_the_file(custom_run):
    (custom_run / "code" / "mine.py").unlink()
    with pytest.raises(ConfigError) as caught:
        ushape.load(custom_run)
    assert caught.value.code == "custom_code_missing"
    assert "--recipe PATH/mine.py:plain" in caught.value.hint


def test_custom_run_is_resumed_to_the_same_weights(custom_run, cells, mine, tmp_path):
    weights = (custom_run / "model.safetensors").read_bytes()
    (custom_run / "checkpoints" / "ended").unlink()
    ushape.resume(custom_run, recipe=f"{mine}:plain")
    assert (custom_run / "model.safetensors").read_bytes() == weights


def test_plan_with_custom_code_is_trained_with_the_file(cells, mine, tmp_path):
    target = tmp_path / "plan.json"
    ushape.plan(cells, output=target, epochs=1, recipe=f"{mine}:plain", settings=SETTINGS)
    forget()
    with pytest.raises(ConfigError) as caught:
        ushape.train(cells, output=tmp_path / "first", plan=target)
    assert caught.value.code == "custom_code_missing"
    run = ushape.train(cells, output=tmp_path / "run", plan=target, recipe=f"{mine}:plain")
    assert (run.folder / "code" / "mine.py").exists()


def test_custom_run_is_used_from_the_command_line(custom_run, cells, tmp_path, ushape):
    predict = ["predict", custom_run, image_of(cells), "-o", tmp_path / "masks"]
    assert ushape(*predict).code == 2
    copied = f"{custom_run / 'code' / 'mine.py'}:plain"
    assert ushape(*predict, "--recipe", copied).code == 0
    assert ushape("evaluate", custom_run, "--recipe", copied).code == 0
    assert ushape("train", "--resume", custom_run, "--recipe", copied).code == 0


def test_cross_validation_of_custom_code_takes_one_device(cells, mine, tmp_path):
    with pytest.raises(ConfigError) as caught:
        ushape.cross_validate(
            cells,
            folds=2,
            epochs=1,
            recipe=f"{mine}:plain",
            device="cpu,cpu",
            output=tmp_path / "f",
        )
    assert caught.value.code == "custom_code_several_devices"
