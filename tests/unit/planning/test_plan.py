import copy
import json
from pathlib import Path

import pytest

import ushape
from ushape import config
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.errors import ConfigError, RunError
from ushape.planning.plan import Plan, find_auto, load_plan

EARLIER = Path(__file__).parents[2] / "golden" / "earlier_plan.json"


def test_find_auto_returns_the_paths_of_open_values():
    values = {"name": "auto", "train": {"epochs": 3, "workers": "auto"}, "augment": "auto"}
    assert find_auto(values) == ["train.workers", "augment"]


@pytest.mark.parametrize(
    ("text", "kind", "code"),
    [
        ("{", RunError, "unreadable_plan"),
        ("[1]", RunError, "invalid_plan"),
        (json.dumps({"version": 0}), RunError, "unsupported_version"),
        (json.dumps({"recipe": {"augment": "auto"}}), ConfigError, "auto_in_plan"),
        (json.dumps({"version": 1, "colour": 3}), ConfigError, "unknown_key"),
    ],
)
def test_load_plan_refuses_other_files(tmp_path, text, kind, code):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(kind) as error:
        load_plan(tmp_path / "plan.json")
    assert error.value.code == code


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The values of a plan, as a run stores them."""
    data = tmp_path_factory.mktemp("data")
    write_data_set(data, 6, SyntheticConfig(size=32, groups=6), seed=0)
    settings = ["network.widths=[4,8]", "sampling.patch_shape=[32,32]", "train.precision=fp32"]
    return ushape.plan(data, epochs=1, device="cpu", settings=settings, quiet=True).to_dict()


IMPOSSIBLE = {
    "preprocessing.channels": [0, -1, 10**9, None, "x", 1e308],
    "preprocessing.space.values": [[0], [0, 0], [0, 70_000], [0, -1], list(range(300))],
    "preprocessing.space.regions": [
        [{"name": "a", "classes": [7]}],
        [{"name": "a", "classes": []}],
    ],
    "preprocessing.normalization": [
        {"low": [0], "high": [1], "mean": [0], "std": [0]},
        {"low": [0, 0], "high": [1, 1], "mean": [0, 0], "std": [1, 1]},
        {"low": [0], "high": [1], "mean": [float("nan")], "std": [1]},
    ],
    "preprocessing.config.target_spacing_mm": [[1], [1, 1, 1], [0, 1], "some"],
    "preprocessing.space.has_distance": [True],
    "recipe.labels.objects": ["distance", "auto"],
    "encoding.suffix": ["", ".exe", ".jpg"],
    "encoding.dtype": ["", "object", "str", "complex64"],
    "recipe.sampling.patch_shape": [[32], [32, 32, 32], [0, 32], [32, 2**40]],
    "recipe.predict.tile_shape": [[32], [-1, 32], "auto"],
    "recipe.predict.mirror_axes": [[0], [-3]],
    "recipe.train.workers": [100_000, -1, "many"],
    "recipe.train.batch_size": [0, 10**9, float("inf")],
    "recipe.train.steps_per_epoch": [10**12],
    "recipe.network.widths": [[4], [4] * 1000, [4, 10**9]],
    "recipe.network.convolutions": [0, 10**6],
    "recipe.code": [{"file": "../a.py", "function": "f", "checksum": ""}],
    "machine": [None, {}],
    "version": [0, 2, None, "1"],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in IMPOSSIBLE.items() for value in values]
)
def test_plan_refuses_impossible_values(stored, key, value):
    values = copy.deepcopy(stored)
    *sections, last = key.split(".")
    target = values
    for section in sections:
        target = target[section]
    target[last] = value
    with pytest.raises((RunError, ConfigError)):
        Plan.from_dict(values, source="plan.json")


def test_plan_accepts_what_a_run_stores(stored):
    assert Plan.from_dict(stored, source="plan.json").to_dict() == stored


def test_plan_that_an_earlier_version_wrote_is_read_and_written_again():
    """The file is the plan of a training with 60252c7; settings were added to recipes since."""
    plan = load_plan(EARLIER)
    stored = config.with_current_names(Plan, json.loads(EARLIER.read_text()))
    assert set(find_auto(stored["recipe"])) <= {"name"}
    for section, settings in stored["recipe"].items():
        if isinstance(settings, dict):
            now = plan.to_dict()["recipe"][section]
            assert {key: now[key] for key in settings} == settings
    assert Plan.from_dict(plan.to_dict(), source="plan.json") == plan


def test_plan_of_an_earlier_version_uses_all_cores_of_its_machine(stored):
    values = copy.deepcopy(stored)
    del values["recipe"]["train"]["threads"], values["machine"]["free_cores"]
    values["machine"]["cores"] = 3
    assert Plan.from_dict(values, source="plan.json").recipe.train.threads == 3
    values = copy.deepcopy(stored)
    del values["recipe"]["train"]["threads"]
    values["machine"] = None
    with pytest.raises(ConfigError):
        Plan.from_dict(values, source="plan.json")


def test_plan_of_an_earlier_version_decides_at_loading_where_patches_come_from(stored):
    values = copy.deepcopy(stored)
    del values["recipe"]["train"]["patch_source"]
    assert Plan.from_dict(values, source="plan.json").recipe.train.patch_source == "auto"
    values["recipe"]["train"]["patches_from"] = "auto"
    assert Plan.from_dict(values, source="plan.json").recipe.train.patch_source == "auto"
    values["recipe"]["train"]["patches_from"] = "files"
    assert Plan.from_dict(values, source="plan.json").recipe.train.patch_source == "files"


def test_plan_of_an_earlier_version_has_the_values_under_their_current_names(tmp_path):
    values = json.loads(EARLIER.read_text())
    recipe = values["recipe"]
    recipe["split"]["spread_classes"] = True
    recipe["sampling"] |= {"draw": "patient_lesion", "class_shares": [1]}
    recipe["network"] |= {"center_convolutions": 1, "up": "nearest", "down": "stride"}
    recipe["predict"]["objects"] |= {"split": "distance", "rise_px": 2, "largest_hole_px": 3}
    recipe["labels"]["reach_px"] = 4
    (tmp_path / "plan.json").write_text(json.dumps(values))
    found = load_plan(tmp_path / "plan.json").recipe
    assert found.train.initial_weights == "synthetic_pretrained"
    assert found.split.stratify_classes  # It is not taken for a setting that the plan lacks.
    assert found.sampling.strategy == "group_foreground_weighted"
    assert found.sampling.class_ratios == (1,)
    assert found.network.bottleneck_convolutions == 1
    assert (found.network.upsampling, found.network.downsampling) == ("nearest", "stride")
    objects = found.predict.objects
    assert (objects.separation, objects.h_px, objects.max_hole_size_px) == (
        "distance_transform",
        2,
        3,
    )
    assert found.labels.max_distance_px == 4


@pytest.mark.parametrize("key", ["preprocessing", "preparation"])
def test_plan_of_an_earlier_version_keeps_grid_and_distances(stored, key):
    values = copy.deepcopy(stored)
    for own in (values["recipe"]["preprocessing"], values["preprocessing"]["config"]):
        del own["target_spacing_mm"], own["distances"], own["slices"], own["spacing_mm"]
        del own["divide_above_px"]
    for own in (values["recipe"], values):
        own[key] = own.pop("preprocessing")
    plan = Plan.from_dict(values, source="plan.json")
    for own in (plan.recipe.preprocessing, plan.preprocessing.config):
        assert own.common_spacing_mm is None
        assert own.distances == "pixels"
        assert own.slices is None
        assert own.divide_above_px is None
