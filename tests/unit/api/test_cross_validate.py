import json
import sys
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from ushape.api._devices import Devices
from ushape.api._series import Series
from ushape.api.cross_validate import _FoldTraining
from ushape.config import parse
from ushape.console import Clock, Console
from ushape.data.preprocessing_config import PreprocessingConfig
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.errors import ConfigError
from ushape.labels import LabelConfig
from ushape.planning import processor
from ushape.planning.hardware import inspect_machine
from ushape.planning.recipe import CodeReference, Recipe, TrainConfig
from ushape.planning.run import Run

cross_validation = sys.modules[_FoldTraining.__module__]  # The package hides it by a function.


def training_of(tmp_path, devices="cpu", folds=3, **values):
    recipe = Recipe(train=TrainConfig(minutes=30), **values)
    return _FoldTraining(tmp_path / "data", None, recipe, Devices.parse(devices), folds)


@pytest.mark.parametrize(("devices", "minutes"), [("cpu", 10), ("cuda:0,cuda:1", 15)])
def test_folds_share_the_minutes_of_their_device(tmp_path, devices, minutes):
    # One device trains three folds in turn, two devices at most two each.
    recipe = training_of(tmp_path, devices).recipe_of(2)
    assert recipe.train.minutes == minutes
    assert (recipe.split.folds, recipe.split.fold) == (3, 1)


def test_fold_in_its_own_process_is_trained_with_the_same_recipe(tmp_path):
    training, run = training_of(tmp_path, "cpu,cpu"), Run(tmp_path / "fold-1")
    job = training.job_of(1, run)
    assert job.command()[3:7] == ["train", str(tmp_path / "data"), "-o", str(run.folder)]
    stored = (tmp_path / "fold-1.yaml").read_text()
    assert parse(Recipe, stored, source="") == training.recipe_of(1)
    run.folder.mkdir()
    run.plan_path.write_text("{}")
    assert training.job_of(1, run).command()[3:] == ["resume", str(run.folder)]


def test_one_fold_and_custom_code_on_several_devices_are_refused(tmp_path):
    with pytest.raises(ConfigError) as error:
        training_of(tmp_path, folds=1)
    assert error.value.code == "value_out_of_range"
    code = CodeReference(file="mine.py", function="f", checksum="")
    with pytest.raises(ConfigError) as error:
        training_of(tmp_path, "cpu,cpu", code=code).job_of(1, Run(tmp_path / "fold-1"))
    assert error.value.code == "custom_code_several_devices"


def test_folds_have_one_decision_on_objects_which_is_stored(tmp_path, capsys):
    write_data_set(tmp_path / "data", 6, SyntheticConfig(size=64, groups=6), seed=0)
    series = Series(tmp_path / "run" / "folds.json", "cross-validation")
    training = training_of(tmp_path, folds=2)
    begun = training.begin(series, Clock(), Console())
    said = capsys.readouterr()
    assert "of their 30 minutes" in said.out + said.err
    stored = json.loads(series.path.read_text())
    assert begun.recipe.labels.objects == stored["objects"] in ("connected", "distance")
    assert {begun.recipe_of(number).labels.objects for number in (1, 2)} == {stored["objects"]}
    # The time of reading is part of the minutes.
    assert 27 <= begun.recipe.train.minutes < 30

    other = {"connected": "distance", "distance": "connected"}[stored["objects"]]
    series.path.write_text(json.dumps(stored | {"objects": other}))
    assert training.begin(series, Clock(), Console(quiet=True)).recipe.labels.objects == other
    del stored["objects"], stored["minutes_used"]  # As older versions wrote it.
    series.path.write_text(json.dumps(stored))
    again = training.begin(series, Clock(), Console(quiet=True)).recipe
    assert (again.labels.objects, again.train.minutes) == ("auto", 30)


def test_objects_of_folds_are_decided_from_what_the_network_sees(tmp_path, monkeypatch):
    for number in range(3):
        mask = np.zeros((6, 20, 20), np.uint8)
        mask[1:3, 4 + number : 10, 4:10] = 1
        for folder, array in (("images", 50 * mask), ("masks", mask)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            path = tmp_path / "data" / folder / f"p{number}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(array.T, np.eye(4)), path)
    seen = []

    def settle(recipe, data):
        seen.append((data.median_shape, recipe.preprocessing.slices))
        return "connected"

    monkeypatch.setattr(cross_validation, "settle_objects", settle)
    for slices in (1, None, "auto"):
        own = PreprocessingConfig(slices=slices)
        training, console = training_of(tmp_path, preprocessing=own), Console(quiet=True)
        training._settle_objects(training._scan(console), console)
    assert seen == [((20, 20), 1), ((6, 20, 20), None), ((6, 20, 20), None)]


@pytest.mark.parametrize(("devices", "threads"), [("cpu", 2), ("cpu,cpu", 1)])
def test_folds_have_one_number_of_threads_which_is_stored(tmp_path, monkeypatch, devices, threads):
    free = iter([2.4])  # The load is measured once.
    machine = inspect_machine("cpu")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cross_validation, "inspect_machine", lambda _: replace(machine, cores=6))
    monkeypatch.setattr(processor, "measure_free_cores", lambda: next(free))
    series = Series(tmp_path / "run" / "folds.json", "cross-validation")
    recipe = Recipe(train=TrainConfig(epochs=2), labels=LabelConfig(objects="connected"))
    training = _FoldTraining(tmp_path, None, recipe, Devices.parse(devices), 2)
    for _ in range(2):  # The second call continues.
        begun = training.begin(series, Clock(), Console(quiet=True))
        assert begun.recipe_of(1).train.threads == begun.recipe_of(2).train.threads == threads
    stored = json.loads(series.path.read_text())
    del stored["threads"]  # As older versions wrote it, whose folds used all cores.
    series.path.write_text(json.dumps(stored))
    again = training.begin(series, Clock(), Console(quiet=True))
    assert again.recipe.train.threads == 6 // len(training.devices.names)
