import pytest
import torch
import yaml

from ushape.config import from_dict, override
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


RENAMED = {
    "predict.objects.rise_px=2": "predict.objects.h_px=2",
    "predict.objects.rise_probability=0.2": "predict.objects.h_probability=0.2",
    "predict.objects.rise_learned=0.3": "predict.objects.h_distance=0.3",
    "predict.objects.smallest_px=5": "predict.objects.min_size_px=5",
    "predict.objects.largest_hole_px=6": "predict.objects.max_hole_size_px=6",
    "predict.objects.split=distance": "predict.objects.separation=distance_transform",
    "predict.objects.split=probability": "predict.objects.separation=probability",
    "predict.objects.split=learned": "predict.objects.separation=learned_distance",
    "predict.tune_for=rand": "predict.tune_metric=rand",
    "predict.average=all_8": "predict.tta=all_8",
    "labels.reach_px=7": "labels.max_distance_px=7",
    "sampling.draw=uniform": "sampling.strategy=uniform",
    "sampling.draw=lesion": "sampling.strategy=foreground_weighted",
    "sampling.draw=patient_lesion": "sampling.strategy=group_foreground_weighted",
    "sampling.class_shares=[1, 3]": "sampling.class_ratios=[1, 3]",
    "split.spread_classes=false": "split.stratify_classes=false",
    "train.accumulate=2": "train.accumulate_grad_batches=2",
    "train.patience_on=training_loss": "train.monitor=training_loss",
    "train.keep_epochs=true": "train.save_every_epoch=true",
    "train.validation_cases=8": "train.max_validation_cases=8",
    "train.patches_from=files": "train.patch_source=files",
    "train.keep_memory=false": "train.reuse_freed_memory=false",
    "train.initial_weights=generated": "train.initial_weights=synthetic_pretrained",
    "network.dropout_place=after": "network.dropout_position=after",
    "network.centre_convolutions=3": "network.bottleneck_convolutions=3",
    "network.center_convolutions=3": "network.bottleneck_convolutions=3",
    "network.output=stretched": "network.valid_output=stretched",
    "network={output: centre, dims: 3}": "network={valid_output: center, dims: 3}",
    "network.down=stride": "network.downsampling=stride",
    "network.up=bilinear": "network.upsampling=bilinear",
    "augment.space.scale=0.5": "augment.geometry.scale=0.5",
    "augment.geometry.quarter_turn_probability=1": "augment.geometry.rotate90_probability=1",
    "augment.intensity.tone_probability=1": "augment.intensity.brightness_contrast_probability=1",
    "augment.intensity.one_of=[[tone, gamma], [blur]]": (
        "augment.intensity.one_of=[[brightness_contrast, gamma], [blur]]"
    ),
}
"""Settings of earlier versions, and what they are called now."""


def as_file(setting):
    """Return the values of a recipe file with one setting."""
    key, _, text = setting.partition("=")
    values = yaml.safe_load(text)
    for name in reversed(key.split(".")):
        values = {name: values}
    return values


@pytest.mark.parametrize(("earlier", "current"), RENAMED.items())
def test_settings_of_earlier_versions_are_those_with_the_current_names(earlier, current):
    expected = from_dict(Recipe, as_file(current), source="mine.yaml")
    assert expected != Recipe()
    assert from_dict(Recipe, as_file(earlier), source="mine.yaml") == expected
    assert override(Recipe(), current) == override(Recipe(), earlier) == expected
