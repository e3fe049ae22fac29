import json
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch

from ushape.errors import RunError
from ushape.planning.run import Run
from ushape.types import Case, CaseFacts, CocoMask, MaskParts


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
    for name in ("a.png", "a1.png", "b.png", "c.png"):
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
    monkeypatch.setattr("ushape.planning.run.build_model", lambda *sizes: network)
    monkeypatch.setattr(Run, "require_code", lambda *arguments, **options: None)
    run.save_weights({"weight": torch.tensor([[1.0, value]]), "bias": torch.zeros(1)}, {})
    with pytest.raises(RunError) as caught:
        run.load_network(MagicMock())
    assert caught.value.code == "weights_not_finite"
    assert "weight" in caught.value.message
