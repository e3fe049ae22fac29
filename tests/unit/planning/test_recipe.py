import pytest
import torch

from ushape.config import override
from ushape.errors import ConfigError
from ushape.planning.optimizers import OPTIMIZERS, SCHEDULES
from ushape.planning.recipe import CodeReference, PredictConfig, Recipe, TrainConfig, with_some_rate
from ushape.training.optimizers import Schedule, build_optimizer


@pytest.mark.parametrize(
    "values",
    [
        {"minutes": 0},
        {"epochs": -1},
        {"learning_rate": float("nan")},
        {"batch_size": 0},
        {"workers": -1},
        {"ema_decay": 1.0},
        {"momentum": -0.1},
    ],
)
def test_train_config_refuses_values_out_of_range(values):
    with pytest.raises(ConfigError) as error:
        TrainConfig(**values)
    assert error.value.code == "value_out_of_range"


def test_recipe_refuses_seeds_and_tiles_out_of_range():
    for make in (lambda: Recipe(seed=2**32), lambda: PredictConfig(tile_shape=(0, 64))):
        with pytest.raises(ConfigError) as error:
            make()
        assert error.value.code == "value_out_of_range"


def test_with_some_rate_replaces_only_an_open_learning_rate():
    recipe = Recipe(train=TrainConfig(learning_rate="auto"))
    assert with_some_rate(recipe).train.learning_rate == 1e-3
    assert with_some_rate(Recipe()) == Recipe()


def test_code_reference_is_named_like_the_option():
    assert CodeReference(file="mine.py", function="small", checksum="").name == "mine.py:small"


@pytest.mark.parametrize("key", ["optimizer", "schedule"])
def test_unknown_optimizer_or_schedule_is_refused_with_the_known_ones(key):
    for make in (
        lambda: TrainConfig(**{key: "linear"}),
        lambda: override(Recipe(), f"train.{key}=linear"),
    ):
        with pytest.raises(ConfigError) as error:
            make()
        assert error.value.code == "invalid_value"
        assert f"train.{key} is linear" in error.value.message
        for name in OPTIMIZERS if key == "optimizer" else SCHEDULES:
            assert name in error.value.hint


def test_new_optimizer_and_schedule_need_one_entry_in_their_table(monkeypatch):
    monkeypatch.setitem(SCHEDULES, "linear", lambda progress, warmup: 1 - progress)
    monkeypatch.setitem(
        OPTIMIZERS,
        "plain",
        lambda parameters, settings: torch.optim.SGD(parameters, settings.learning_rate),
    )
    recipe = override(Recipe(), ["train.schedule=linear", "train.optimizer=plain"])
    assert Schedule(recipe.train, 10).factor(4) == pytest.approx(0.6)
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = build_optimizer([weight], recipe.train, "cpu")
    (2 * weight).sum().backward()
    optimizer.step()
    assert weight.item() == pytest.approx(1 - 2 * 2e-3)
