import json
from pathlib import Path

import pytest
import torch

from ushape.errors import RunError
from ushape.planning.run import Run
from ushape.types import Case, CaseFacts


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run")


def test_what_exists_is_in_the_way(run):
    assert Run.create(run.folder) == run  # Empty: nothing to lose.
    run.plan_path.write_text("{}")
    with pytest.raises(RunError, match="holds a run already"):
        Run.create(run.folder)
    (run.folder / "plan.json").rename(run.folder / "notes.json")
    with pytest.raises(RunError, match="is in the way"):
        Run.create(run.folder)


def test_a_folder_that_is_no_run_and_a_run_without_weights(run):
    with pytest.raises(RunError, match=r"is no run, or an incomplete one: no plan\.json"):
        Run.open(run.folder)
    run.plan_path.write_text("{}")
    with pytest.raises(RunError, match=r"has no model\.safetensors") as caught:
        Run.open(run.folder)
    assert "--resume" in caught.value.hint


def test_damaged_plan_and_plan_of_another_version(run):
    run.plan_path.write_text("{")
    with pytest.raises(RunError, match=r"plan\.json: not readable"):
        run.load_plan()
    run.plan_path.write_text(json.dumps({"version": 99}))
    with pytest.raises(RunError, match="version 99, this ushape reads 1"):
        run.load_plan()


def test_cases_are_found_again(run, tmp_path):
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    for path in (data / "sub" / "a.png", data / "a_mask.png"):
        path.write_bytes(b"x")
    case = Case(id="a", image=data / "sub" / "a.png", mask=data / "a_mask.png", group="g")
    run.save_cases(data, [CaseFacts(case, (5, 7))])
    assert run.load_cases() == [CaseFacts(case, (5, 7))]
    (data / "sub" / "a.png").unlink()
    with pytest.raises(RunError, match=r"1 images of .* are no longer there") as caught:
        run.load_cases()
    assert "evaluate RUN DATA" in caught.value.hint


def test_weights_carry_their_facts_and_run_no_code(run):
    weights = {"a": torch.arange(6.0).view(2, 3).t()}
    run.save_weights(weights, {"epoch": 4, "dice": 0.5})
    assert run.weight_facts() == {"epoch": 4, "dice": 0.5}
    assert run.weights_path.read_bytes()[8:9] == b"{"  # A JSON header, then plain numbers.
    assert [path.name for path in Path(run.folder).iterdir()] == ["model.safetensors"]
