from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ushape.api._named_images import find_images, without_own_outputs
from ushape.api._named_runs import run_folders
from ushape.api._prediction_text import PredictionSummary
from ushape.console import Console
from ushape.data.inputs import Input
from ushape.errors import ConfigError, DataError
from ushape.inference.output import OutputConfig
from ushape.inference.output.writer import Written
from ushape.types import Case


def make_run(folder):
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text("{}")
    return folder


def test_run_folders_replaces_a_cross_validation_by_its_folds(tmp_path):
    folds = [make_run(tmp_path / "folds" / f"fold-{number}") for number in (1, 2)]
    (tmp_path / "folds" / "fold-3").mkdir()  # Not planned yet.
    single = make_run(tmp_path / "single")
    assert run_folders(str(single)) == [single]
    assert run_folders([tmp_path / "folds", single]) == [*folds, single]


@pytest.mark.parametrize(("runs", "code"), [(["a", "a"], "run_named_twice"), ([], "no_run_named")])
def test_run_folders_refuses_no_run_and_the_same_run(runs, code):
    with pytest.raises(ConfigError) as error:
        run_folders(runs)
    assert error.value.code == code


def test_find_images_refuses_arrays():
    with pytest.raises(DataError) as error:
        find_images(SimpleNamespace(), [Path("a.png"), 3])
    assert error.value.code == "not_a_path"


def test_outputs_of_an_earlier_call_are_not_predicted(tmp_path):
    inputs = [
        Input(Case(id=name, image=tmp_path / name), Path(name)) for name in ("a.png", "masks/a.png")
    ]
    assert without_own_outputs(inputs, tmp_path / "masks") == inputs[:1]
    assert without_own_outputs(inputs, None) == inputs
    assert without_own_outputs(inputs[1:], tmp_path / "masks") == inputs[1:]


def test_groups_of_a_model_that_needs_them_are_printed(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/1.png", "c/1.png", "d/1.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
    preprocessing = SimpleNamespace(channels=1, needs_group=False)
    plain = SimpleNamespace(preprocessing=preprocessing, image_dims=2)
    notes = []
    members = (SimpleNamespace(plan=plain),)
    find_images(SimpleNamespace(plan=plain, members=members), tmp_path, notes.append)
    assert notes == []
    grouping = SimpleNamespace(
        preprocessing=SimpleNamespace(needs_group=True),
        recipe=SimpleNamespace(groups=None),
        group_noun="groups",
        group_rule=None,
    )
    members += (SimpleNamespace(plan=grouping),)
    find_images(SimpleNamespace(plan=plain, members=members), tmp_path, notes.append)
    assert len(notes) == 1
    assert f"in 4 groups, one for each folder: {tmp_path / 'a'} (2 images), " in notes[0]
    assert notes[0].endswith(
        " and 1 more. To set other groups, pass a table with the columns image and group."
    )
    for name in ("p_1.png", "p_2.png", "q_1.png"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a" / name)
    grouping.group_rule = r"([^/_]+)_[^/]*$"
    images = sorted((tmp_path / "a").glob("*_*"))
    find_images(SimpleNamespace(plan=plain, members=members), images, notes.append)
    assert "in 2 groups, by the regular expression" in notes[1]


def test_images_with_cut_objects_are_named(capsys, tmp_path):
    summary = PredictionSummary(2, lambda *state: None)
    for name, cut in (("a.tif", 2), ("b.tif", 0)):
        image = Input(Case(id=name, image=Path(name)), Path(name))
        summary.add(image, Written(Path(name), 4, cut_parts=cut))
    writer = SimpleNamespace(config=OutputConfig(folder=tmp_path))
    summary.report(writer, summary.masks, Console())
    lines = capsys.readouterr().out.splitlines()
    (cut,) = [line for line in lines if "a.tif" in line]
    assert "memory" in cut
    assert not [line for line in lines if "b.tif" in line]
