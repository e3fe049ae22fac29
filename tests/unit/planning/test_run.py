import json
import shutil
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from ome_zarrs import add_labels, save_image
from ushape.data import checksum
from ushape.data.checksum import dataset_checksum, file_checksums
from ushape.data.discovery import discover
from ushape.data.splits import Splits
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.errors import RunError
from ushape.io import write_rgb
from ushape.planning.run import Run
from ushape.types import Case, CaseFacts, CocoMask, MaskBox, MaskPage, MaskParts, ShapesMask


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run")


def test_run_create_overwrites_nothing(run):
    assert Run.create(run.folder) == run  # The folder is empty.
    for name in ("plan.json", "notes.json"):
        (run.folder / name).write_text("{}")
        with pytest.raises(RunError) as caught:
            Run.create(run.folder)
        assert caught.value.code == "output_exists"
        (run.folder / name).unlink()


def test_run_open_tells_interrupted_trainings_from_lost_weights(run):
    run.plan_path.write_text("{}")
    for path in (run.metrics_path, run.checkpoint_path):
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    with pytest.raises(RunError) as caught:
        Run.open(run.folder)
    assert "ushape resume" in caught.value.hint
    run.checkpoint_path.unlink()
    with pytest.raises(RunError) as caught:
        Run.open(run.folder)
    assert "original run" in caught.value.hint


def test_run_open_refuses_other_folders_and_runs_without_weights(run):
    with pytest.raises(RunError) as caught:
        Run.open(run.folder)
    assert caught.value.code == "run_incomplete"
    run.plan_path.write_text("{}")
    with pytest.raises(RunError) as caught:
        Run.open(run.folder)
    assert caught.value.code == "weights_missing"
    assert "ushape resume" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "damaged_run"),
        ("[" * 100_000, "damaged_run"),
        ('{"version": 99}', "unsupported_version"),
        ("[]", "invalid_plan"),
    ],
)
def test_run_load_plan_refuses_damaged_plans_and_other_versions(run, text, code):
    run.plan_path.write_text(text)
    with pytest.raises(RunError) as caught:
        run.load_plan()
    assert caught.value.code == code


def test_run_load_cases_returns_what_was_saved(run, tmp_path):
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    for path in (data / "sub" / "a.png", data / "a_mask.png"):
        path.write_bytes(b"x")
    case = Case(id="a", image=data / "sub" / "a.png", mask=data / "a_mask.png", group="g")
    run.save_cases(data, [CaseFacts(case, (5, 7))], "checksum")
    assert run.load_cases() == [CaseFacts(case, (5, 7))]
    (data / "sub" / "a.png").unlink()
    with pytest.raises(RunError) as caught:
        run.load_cases()
    assert caught.value.code == "data_missing"
    assert "evaluate RUN DATA" in caught.value.hint


def test_run_save_weights_stores_facts_and_no_code(run):
    weights = {"a": torch.arange(6.0).view(2, 3).t()}
    run.save_weights(weights, {"epoch": 4, "dice": 0.5})
    assert run.weight_facts() == {"epoch": 4, "dice": 0.5}
    assert run.weights_path.read_bytes()[8:9] == b"{"  # A JSON header, then plain numbers.
    assert [path.name for path in Path(run.folder).iterdir()] == ["model.safetensors"]


def test_run_load_cases_returns_every_kind_of_case(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a.png", "a1.png", "b.png", "c.png", "d.png", "e.tif"):
        (data / name).write_bytes(b"x")
    cases = [
        Case(
            id="a",
            image=data / "a.png",
            channels=(data / "a1.png",),
            mask=MaskParts((data / "m1.png", tmp_path / "m2.png"), (1, 3)),
            split="test",
            metadata={"stain": "PAS"},
        ),
        Case(id="b", image=data / "b.png", mask=CocoMask(data / "x.json", 5)),
        Case(id="c", image=data / "c.png", mask=CocoMask(data / "x.json", "five"), group="g"),
        Case(
            id="d",
            image=data / "d.png",
            mask=ShapesMask(data / "x.csv", "run_lengths", data / "d.png", "d", ("cell",)),
        ),
        Case(id="e/2", image=data / "e.tif", mask=MaskPage(data / "f.tif", 1), page=1),
        Case(
            id="e/part-1",
            image=data / "e.tif",
            mask=MaskBox(data / "f.tif", ((0, 4), (2, 9))),
            box=((0, 4), (2, 9)),
        ),
    ]
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run")
    facts = [CaseFacts(case, (5, 7)) for case in cases]
    run.save_cases(data, facts, "checksum")
    assert run.load_cases() == facts
    first = json.loads(run.cases_path.read_text())["cases"][0]
    assert first["mask"] == {"parts": ["m1.png", str(tmp_path / "m2.png")], "values": [1, 3]}

    (data / "t.csv").write_text("image,mask\n")  # A table as data: paths below its folder.
    run.save_cases(data / "t.csv", facts, "checksum")
    assert run.load_cases() == facts


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_run_load_network_refuses_weights_that_are_not_finite(run, value, monkeypatch):
    network = torch.nn.Linear(2, 1)
    for name in ("build_model", "build_without_data"):
        monkeypatch.setattr(f"ushape.planning.run.{name}", lambda *sizes: network)
    monkeypatch.setattr(Run, "require_code", lambda *arguments, **options: None)
    run.save_weights({"weight": torch.tensor([[1.0, value]]), "bias": torch.zeros(1)}, {})
    with pytest.raises(RunError) as caught:
        run.load_network(MagicMock())
    assert caught.value.code == "weights_not_finite"
    assert "weight" in caught.value.message


@pytest.fixture
def planned(run, tmp_path):
    """A run with the cases of a data set of three pairs."""
    data = tmp_path / "data"
    write_data_set(data, 3, SyntheticConfig(size=16, groups=3), seed=0)
    found = discover(data)
    files = file_checksums(found.cases, {})
    facts = [CaseFacts(case, (1, 2)) for case in found.cases]
    run.save_cases(data, facts, dataset_checksum(found.cases, data), files=files)
    return run


CHANGES = {
    "modified": lambda image, mask: mask.write_bytes(image.read_bytes()),
    "removed": lambda image, mask: (image.unlink(), mask.unlink()),
    "added": lambda image, mask: [
        (path.parent / "new.png").write_bytes(path.read_bytes()) for path in (image, mask)
    ],
    "renamed": lambda image, mask: [path.rename(path.parent / "x.png") for path in (image, mask)],
}


@pytest.mark.parametrize("change", CHANGES)
def test_run_refuse_changed_data_names_each_kind_of_change(planned, tmp_path, change):
    planned.refuse_changed_data()
    image = sorted((tmp_path / "data" / "images").iterdir())[0]
    CHANGES[change](image, tmp_path / "data" / "masks" / image.name)
    with pytest.raises(RunError) as caught:
        planned.refuse_changed_data()
    assert caught.value.code == "data_changed"
    kinds = {"renamed": ("removed", "added")}.get(change, (change,))
    assert all(kind in caught.value.message for kind in kinds)


def test_run_refuse_changed_data_accepts_moved_data(planned, tmp_path):
    (tmp_path / "data").rename(tmp_path / "moved")
    stored = json.loads(planned.cases_path.read_text())
    planned.cases_path.write_text(json.dumps({**stored, "folder": str(tmp_path / "moved")}))
    Run(planned.folder).refuse_changed_data()


def test_run_data_and_masks_are_what_the_user_named(planned, tmp_path):
    data = tmp_path / "data"
    assert planned.data_and_masks() == (data, None)
    stored = json.loads(planned.cases_path.read_text())
    del stored["checksum"]
    planned.cases_path.write_text(json.dumps(stored | {"data": "images", "masks": "masks"}))
    assert Run(planned.folder).data_and_masks() == (data / "images", data / "masks")
    older = {key: stored[key] for key in ("folder", "digest", "command", "cases")}
    planned.cases_path.write_text(json.dumps(older))
    assert Run(planned.folder).data_and_masks() == (data, None)


def test_run_refuse_changed_data_compares_older_runs_as_a_whole(planned, tmp_path):
    stored = json.loads(planned.cases_path.read_text())
    older = {key: stored[key] for key in ("folder", "digest", "command", "cases")}
    planned.cases_path.write_text(json.dumps(older))
    Run(planned.folder).refuse_changed_data()
    CHANGES["modified"](
        *[next((tmp_path / "data" / part).iterdir()) for part in ("images", "masks")]
    )
    with pytest.raises(RunError) as caught:
        Run(planned.folder).refuse_changed_data()
    assert caught.value.code == "data_changed"


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("kind", ["files", "digest"])
def test_run_accepts_label_images_that_were_added_or_counted_earlier(kind, version, run, tmp_path):
    data, codes = tmp_path / "data", np.ones((20, 16), np.uint8)
    for name in "abc":
        save_image(data / f"images/{name}.zarr", (20, 16), "yx", version, is_consolidated=True)
        write_rgb(data / f"masks/{name}.png", codes)
    found = discover(data)
    facts = [CaseFacts(case, (1, 2)) for case in found.cases]

    def save(files):
        names = {} if kind == "digest" else files
        run.save_cases(data, facts, checksum._combine(files, data), files=names)

    save(checksum.file_checksums(found.cases, {}))
    run.refuse_changed_data()
    add_labels(data / "images/a.zarr", codes)  # The run continues after `predict --zarr-labels`.
    run.refuse_changed_data()
    # Earlier versions counted all files.
    save(checksum.earlier_checksums(found.cases))
    run.refuse_changed_data()
    if kind == "files":
        shutil.rmtree(data / "images/a.zarr/labels")
        run.refuse_changed_data()
    (data / "images/a.zarr/s0/0.0").write_bytes(b"changed")
    with pytest.raises(RunError) as caught:
        run.refuse_changed_data()
    assert caught.value.code == "data_changed"


@pytest.mark.parametrize(
    "change",
    [
        {"cases": []},
        {"folder": 3},
        {"cases": [{"id": "a", "group": "", "image": "\x00", "mask": None}]},
        {"cases": [{"id": "a", "group": "", "image": "a", "mask": {"parts": [], "values": []}}]},
        {"cases": [{"id": "a", "group": "", "image": "a", "mask": None, "class_pixels": [-1]}]},
        {"cases": 2 * [{"id": "a", "group": "", "image": "a", "mask": None}]},
        {"cases": [{"id": "a", "group": "", "image": "a", "mask": None, "box": [[0, 2], [3, 1]]}]},
    ],
)
def test_run_refuses_cases_that_training_does_not_write(planned, change):
    stored = json.loads(planned.cases_path.read_text())
    del stored["checksum"]
    planned.cases_path.write_text(json.dumps(stored | change))
    with pytest.raises(RunError) as caught:
        Run(planned.folder).load_cases()
    assert caught.value.code == "damaged_run"
    assert "Value error" not in caught.value.message


def test_run_refuses_cases_that_were_changed(planned):
    planned.cases_path.write_text(planned.cases_path.read_text().replace("masks/", "images/", 1))
    with pytest.raises(RunError) as caught:
        Run(planned.folder).load_cases()
    assert caught.value.code == "damaged_run"
    assert '"checksum"' in caught.value.hint


def test_run_load_splits_refuses_unknown_and_repeated_cases(planned):
    names = [fact.case.id for fact in planned.load_cases()]
    for train in (("other",), (names[0], names[1]), (names[0], names[0])):
        Splits(train=train, validation=(names[1],), test=(names[2],), text="").save(
            planned.splits_path
        )
        with pytest.raises(RunError) as caught:
            planned.load_splits()
        assert caught.value.code == "damaged_run"


def test_training_that_has_not_ended_is_described_until_its_report_exists(tmp_path):
    run = Run.create(tmp_path / "run")
    line = run.describe_unfinished()
    assert line is not None
    assert f"ushape resume {run.folder}" in line
    run.report_path.write_text("<html>")
    assert run.describe_unfinished() is None
