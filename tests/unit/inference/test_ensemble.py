from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from codes import raises_code
from ushape.errors import ConfigError, PlanError
from ushape.inference import ensemble
from ushape.inference.ensemble import EnsembleMember, open_members, tile_settings
from ushape.labels import LabelSpace
from ushape.models.config import NetworkConfig
from ushape.planning.recipe import PredictConfig, Recipe
from ushape.transforms.tiling import TilingConfig

SPACE = LabelSpace(values=(0, 255), names=("background", "cell"))


def plan_of(space=SPACE, tta="mirrored"):
    tiling = TilingConfig(overlap_fraction=0.5, blend="uniform")
    predict = SimpleNamespace(tta=tta, mirror_axes=(0, 1), tiling=tiling)
    return SimpleNamespace(
        tile_shape=(32, 64),
        image_dims=2,
        preprocessing=SimpleNamespace(space=space, channels=1),
        recipe=SimpleNamespace(predict=predict, network=SimpleNamespace(dims=2)),
    )


@dataclass(frozen=True)
class FakePlan:
    recipe: Recipe


def test_tile_settings_come_from_the_plan():
    found = tile_settings(plan_of(), "mirrored")
    assert (found.shape, found.overlap_fraction, found.blend) == ((32, 64), 0.5, "uniform")
    assert [one.mirror_axes for one in found.symmetries] == [(), (0,), (1,), (0, 1)]
    assert len(tile_settings(plan_of(), "none").symmetries) == 1


def test_open_members_refuses_runs_with_different_classes(tmp_path, monkeypatch):
    plans = [plan_of(), plan_of(LabelSpace(values=(0, 1), names=("background", "lesion")))]
    runs = []
    for number in range(2):
        weights = tmp_path / f"{number}.safetensors"
        weights.write_bytes(b"weights")
        runs.append(SimpleNamespace(folder=Path(f"run{number}"), weights_path=weights))

    def open_member(run, *settings):
        return EnsembleMember(plans[runs.index(run)], None, None), [f"note on {run.folder}"]

    monkeypatch.setattr(ensemble, "_open_member", open_member)
    members, notes = open_members(runs[:1], "cpu", "torch", ())
    assert (len(members), notes) == (1, ["note on run0"])
    with raises_code(PlanError, "incompatible_runs"):
        open_members(runs, "cpu", "torch", ())
    plans[1] = plan_of(replace(SPACE, has_distance=True))
    with raises_code(PlanError, "incompatible_runs") as caught:
        open_members(runs, "cpu", "torch", ())
    assert "labels.objects" in caught.value.message


def test_open_members_changes_settings_of_prediction_only():
    run = SimpleNamespace(load_plan=plan_of, weights_path=Path(__file__))
    with raises_code(ConfigError, "not_a_prediction_setting"):
        open_members([run], "cpu", "torch", ["train.epochs=3"])


@pytest.mark.parametrize(
    ("setting", "code"),
    [
        ("predict.tta=auto", "setting_left_open"),
        ("predict.mirror_axes=auto", "setting_left_open"),
        ("predict.tiling.overlap_fraction=auto", "setting_left_open"),
        ("predict.mirror_axes=[1]", "value_out_of_range"),
        ("predict.tile_shape=[64]", "axis_count_mismatch"),
    ],
)
def test_open_members_refuses_settings_that_only_a_training_can_choose(setting, code):
    tiling = TilingConfig(overlap_fraction=0.25)
    predict = PredictConfig(tta="none", mirror_axes=(-1,), tile_shape=(32, 32), tiling=tiling)
    plan = FakePlan(recipe=Recipe(predict=predict, network=NetworkConfig(dims=2)))
    run = SimpleNamespace(load_plan=lambda: plan, weights_path=Path(__file__))
    with raises_code(ConfigError, code):
        open_members([run], "cpu", "torch", [setting])
