import pytest

from ushape.errors import ConfigError
from ushape.planning.recipe import CodeReference, PredictConfig, Recipe, TrainConfig, with_some_rate


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
