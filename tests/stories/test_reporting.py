"""`ushape evaluate`, `report` and `compare` as users run them."""

import json
import re
import shutil

import numpy as np
import pytest
import SimpleITK
from PIL import Image

import ushape as package
from codes import edit_sealed_json
from ushape.errors import ConfigError, RunError


@pytest.fixture(scope="module")
def other(cells, tiny, tmp_path_factory, ushape):
    """A run on the same split that was trained for longer."""
    run = tmp_path_factory.mktemp("runs") / "longer"
    assert ushape("train", cells, "-o", run, "--epochs", 6, *tiny).code == 0
    return run


def test_train_writes_scores_as_data_and_a_model_card(trained):
    facts = json.loads((trained / "scores.json").read_text())
    (own,) = facts["summary"]["classes"]
    assert 0 <= own["means"]["dice"]["value"] <= 1
    assert own["means"]["hausdorff95"]["value"] >= 0
    assert sum(own["reliability"]["pixels"]) == facts["summary"]["cases"] * 64 * 64
    assert facts["leak_lines"][0].startswith("No group of these cases was used in training")
    header = (trained / "scores.csv").read_text().splitlines()[0].split(",")
    assert {"dice", "recall", "hausdorff95", "object_f1", "auroc", "label_error_score"} <= set(
        header
    )
    groups = (trained / "groups.csv").read_text().splitlines()
    assert len(groups) == 1 + facts["summary"]["groups"]
    card = (trained / "model_card.md").read_text()
    assert "## Intended use" in card
    assert list((trained / "pictures").iterdir())


def test_report_is_written_again_without_data_and_network(trained, ushape, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for name in ("model.safetensors", "cases.json", "report.html", "model_card.md"):
        (run / name).unlink()
    ended = ushape("report", run)
    assert ended.code == 0, ended.error
    assert "The mean Dice on" in ended.output
    assert (run / "report.html").exists()
    assert (run / "model_card.md").read_text() == (trained / "model_card.md").read_text()
    ended = ushape("report", run, "-o", tmp_path / "x.html")
    assert ended.code == 0
    ended = ushape("report", run, "-o", tmp_path / "x.html")
    assert (ended.code, ended.error_code) == (2, "output_exists")
    (run / "scores.json").unlink()
    ended = ushape("report", run)
    assert ended.code == 2
    assert "ushape evaluate RUN" in ended.error


def test_compare_two_runs(trained, other, ushape, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = ushape("compare", trained, other, "-o", "pair.html")
    assert ended.code == 0, ended.error
    assert "longer compared with cells on" in ended.output
    page = (tmp_path / "pair.html").read_text()
    assert "Largest changes" in page
    assert not re.search(r"(src|href)=.http", page)
    ended = ushape("compare", trained, other, "-o", "pair.html")
    assert (ended.code, ended.error_code) == (2, "output_exists")
    assert ushape("report", trained, other).code == 0
    assert (tmp_path / "comparison.html").exists()
    (found,) = package.compare(trained, other)
    (own,) = found.classes
    assert own.paired.mean_difference == pytest.approx(
        sum(own.other) / len(own.other) - sum(own.first) / len(own.first)
    )


def test_compare_refuses_one_run_and_folders_without_scores(trained, cells, ushape, tmp_path):
    for function in (package.compare, package.report):
        with pytest.raises(ConfigError) as error:
            function()
        assert error.value.code == "missing_argument"
    with pytest.raises(RunError) as error:
        package.compare(trained, trained)
    assert error.value.code == "run_given_twice"
    with pytest.raises(RunError) as error:
        package.compare(trained, tmp_path)
    assert error.value.code == "invalid_scores"


def test_evaluate_reports_images_used_in_training(trained, cells, ushape, tmp_path):
    ended = ushape("evaluate", trained, cells, "-o", tmp_path / "all")
    assert ended.code == 0, ended.error
    facts = json.loads((tmp_path / "all" / "scores.json").read_text())
    assert facts["summary"]["seen_cases"] > 0
    assert facts["leak_lines"][0].startswith("These cases are not the test set")
    assert "also used in training" in " ".join(facts["leak_lines"])
    assert "were used in training" in (tmp_path / "all" / "model_card.md").read_text()


def test_evaluate_reports_copies_among_the_test_cases(trained, ushape, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    splits = json.loads((run / "splits.json").read_text())
    cases = json.loads((run / "cases.json").read_text())["cases"]
    image = {case["id"]: case["image"] for case in cases}
    for case in cases:  # As if a test image had been used for training.
        if case["id"] == splits["train"][0]:
            case["image"] = image[splits["test"][0]]
    edit_sealed_json(run / "cases.json", cases=cases)
    ended = ushape("evaluate", run)
    assert ended.code == 0, ended.error
    facts = json.loads((run / "scores.json").read_text())
    assert "also used in training" in facts["leak_lines"][1]
    assert facts["summary"]["seen_cases"] == 1


def test_report_refuses_scores_that_were_changed(trained, ushape, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    scores, facts = (run / "scores.csv").read_text(), (run / "scores.json").read_text()
    header, first, *others = scores.splitlines()
    cells = first.split(",")
    cells[header.split(",").index("overlap_px")] = "999999"
    for name, content, is_refused in (
        ("scores.csv", header + "\n", True),
        ("scores.csv", "\n".join([header, first, first, *others]), True),
        ("scores.csv", "\n".join([header, ",".join(cells), *others]), True),
        ("scores.json", facts.replace('"cases": ', '"cases": NaN, "was": ', 1), True),
        ("scores.json", facts.replace('"missed"', '"mist"', 1), True),
        ("metrics.csv", "\udcff\udcfe", False),
    ):
        kept = (run / name).read_bytes()
        (run / name).write_bytes(content.encode("utf-8", "surrogateescape"))
        ended = ushape("report", run)
        assert ended.code == (2 if is_refused else 0), (name, content)
        assert not is_refused or name in ended.error
        assert "Traceback" not in ended.error
        (run / name).write_bytes(kept)


def test_compare_draws_names_that_contain_formulas(trained, ushape, tmp_path):
    other = shutil.copytree(trained, tmp_path / "b$\\frac$_")
    ended = ushape("compare", trained, other, "-o", tmp_path / "c.html")
    assert ended.code == 0, ended.error


def test_predict_masks_each_section_of_a_volume_with_a_model_of_images(trained, ushape, tmp_path):
    sections = np.random.default_rng(0).integers(0, 255, (5, 40, 40), np.uint8)
    volume = SimpleITK.GetImageFromArray(sections)
    SimpleITK.WriteImage(volume, str(tmp_path / "v.nii.gz"))
    (tmp_path / "sections").mkdir()
    for number, section in enumerate(sections, 1):
        Image.fromarray(section).save(tmp_path / "sections" / f"{number}.png")
    for source in ("v.nii.gz", "sections"):
        ended = ushape("predict", trained, tmp_path / source, "-o", tmp_path / f"{source}_masks")
        assert ended.code == 0, ended.error
    for number in range(1, 6):
        mask = tmp_path / "v.nii.gz_masks" / "v" / f"{number}.png"
        assert mask.read_bytes() == (tmp_path / "sections_masks" / f"{number}.png").read_bytes()


def test_evaluate_refuses_masks_alone_no_test_cases_and_folds(trained, ushape, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    ended = ushape("evaluate", run, "--masks", tmp_path)
    assert ended.code == 2
    edit_sealed_json(run / "splits.json", test=[])
    ended = ushape("evaluate", run)
    assert ended.code == 2
    (run / "folds.json").write_text("{}")
    assert "fold-1" in ushape("evaluate", run).error


def test_evaluate_scores_other_data_without_the_training_data(trained, cells, ushape, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    stored = json.loads((run / "cases.json").read_text())
    (run / "cases.json").write_text(json.dumps({**stored, "folder": str(tmp_path / "gone")}))
    ended = ushape("evaluate", run, cells, "-o", tmp_path / "out")
    assert ended.code == 0, ended.error
    assert "The mean Dice on" in ended.output
