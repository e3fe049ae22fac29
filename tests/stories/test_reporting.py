"""`ushape evaluate`, `report` and `compare` as users run them."""

import json
import re
import shutil

import numpy as np
import pytest

import ushape as package
from ushape.errors import ConfigError, RunError


@pytest.fixture(scope="module")
def other(cells, tiny, tmp_path_factory, ushape):
    """A run on the same split that was trained for longer."""
    run = tmp_path_factory.mktemp("runs") / "longer"
    assert ushape("train", cells, "-o", run, "--epochs", 6, *tiny).code == 0
    return run


def test_a_run_leaves_scores_as_data_and_a_card(trained):
    facts = json.loads((trained / "scores.json").read_text())
    (own,) = facts["summary"]["classes"]
    assert 0 <= own["means"]["dice"]["value"] <= 1
    assert own["means"]["hausdorff95"]["value"] >= 0
    assert sum(own["reliability"]["pixels"]) == facts["summary"]["cases"] * 64 * 64
    assert facts["leak_lines"][0] == "No group of these cases was there in training or validation."
    header = (trained / "scores.csv").read_text().splitlines()[0].split(",")
    assert {"dice", "recall", "hausdorff95", "object_f1", "auroc", "label_error_score"} <= set(
        header
    )
    groups = (trained / "groups.csv").read_text().splitlines()
    assert len(groups) == 1 + facts["summary"]["groups"]
    card = (trained / "model_card.md").read_text()
    assert "## Intended use" in card
    assert list((trained / "pictures").iterdir())


def test_the_report_is_made_again_without_data_and_network(trained, ushape, tmp_path):
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
    assert ushape("report", run, "-o", tmp_path / "x.html").code == 2
    (run / "scores.json").unlink()
    ended = ushape("report", run)
    assert ended.code == 2
    assert "ushape evaluate RUN" in ended.error


def test_two_runs_side_by_side(trained, other, ushape, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = ushape("compare", trained, other, "-o", "pair.html")
    assert ended.code == 0, ended.error
    assert "longer against cells, on" in ended.output
    assert "a confidence interval needs at least two groups" in ended.output
    page = (tmp_path / "pair.html").read_text()
    assert "Largest changes" in page
    assert not re.search(r"(src|href)=.http", page)
    assert ushape("compare", trained, other, "-o", "pair.html").code == 2
    assert ushape("report", trained, other).code == 0
    assert (tmp_path / "comparison.html").exists()
    (found,) = package.compare(trained, other)
    (own,) = found.classes
    assert own.paired.mean_difference == pytest.approx(
        sum(own.other) / len(own.other) - sum(own.first) / len(own.first)
    )


def test_what_cannot_be_compared(trained, cells, ushape, tmp_path):
    with pytest.raises(ConfigError, match="Two runs are compared"):
        package.compare(trained)
    with pytest.raises(RunError, match="named twice"):
        package.compare(trained, trained)
    with pytest.raises(RunError) as error:
        package.compare(trained, tmp_path)
    assert error.value.code == "invalid_scores"


def test_images_that_were_there_in_training_are_said(trained, cells, ushape, tmp_path):
    ended = ushape("evaluate", trained, cells, "-o", tmp_path / "all")
    assert ended.code == 0, ended.error
    facts = json.loads((tmp_path / "all" / "scores.json").read_text())
    assert facts["summary"]["seen_cases"] > 0
    assert facts["leak_lines"][0].startswith("These are other data")
    assert "were there in training" in " ".join(facts["leak_lines"])
    assert "were used in training" in (tmp_path / "all" / "model_card.md").read_text()


def test_a_copy_among_the_test_cases_is_told_each_time(trained, ushape, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    splits = json.loads((run / "splits.json").read_text())
    splits["train"] = [*splits["train"], splits["test"][0]]  # As if an image lay there twice.
    (run / "splits.json").write_text(json.dumps(splits))
    ended = ushape("evaluate", run)
    assert ended.code == 0, ended.error
    assert "images were used in training)" in ended.output
    facts = json.loads((run / "scores.json").read_text())
    assert "also in training" in facts["leak_lines"][0]


def test_scores_that_were_changed_are_refused(trained, ushape, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    scores, facts = (run / "scores.csv").read_text(), (run / "scores.json").read_text()
    header, first, *others = scores.splitlines()
    cells = first.split(",")
    cells[header.split(",").index("overlap_px")] = "999999"
    for name, content, said in (
        ("scores.csv", header + "\n", "0 rows of 0 cases"),
        ("scores.csv", "\n".join([header, first, first, *others]), "rows of"),
        ("scores.csv", "\n".join([header, ",".join(cells), *others]), "contradict each other"),
        (
            "scores.json",
            facts.replace('"cases": ', '"cases": NaN, "was": ', 1),
            "does not contain scores",
        ),
        ("scores.json", facts.replace('"missed"', '"mist"', 1), "does not contain scores"),
        ("metrics.csv", "\udcff\udcfe", ""),
    ):
        kept = (run / name).read_bytes()
        (run / name).write_bytes(content.encode("utf-8", "surrogateescape"))
        ended = ushape("report", run)
        if said:
            assert ended.code == 2, (name, said)
            assert said in ended.error
        assert "Traceback" not in ended.error
        (run / name).write_bytes(kept)


def test_names_that_a_plot_could_read_as_formulas(trained, ushape, tmp_path):
    other = shutil.copytree(trained, tmp_path / "b$\\frac$_")
    ended = ushape("compare", trained, other, "-o", tmp_path / "c.html")
    assert ended.code == 0, ended.error


def test_a_volume_is_no_image(trained, ushape, tmp_path):
    itk = pytest.importorskip("SimpleITK")
    volume = itk.GetImageFromArray(np.zeros((5, 40, 40), np.uint8))
    itk.WriteImage(volume, str(tmp_path / "v.nii.gz"))
    ended = ushape("predict", trained, tmp_path / "v.nii.gz", "-o", tmp_path / "out")
    assert ended.code == 2
    assert "v.nii.gz is a volume, the model predicts images" in ended.error


def test_what_evaluate_refuses(trained, ushape, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    ended = ushape("evaluate", run, "--masks", tmp_path)
    assert ended.code == 2
    assert "Masks were given without data" in ended.error
    splits = json.loads((run / "splits.json").read_text())
    (run / "splits.json").write_text(json.dumps({**splits, "test": []}))
    ended = ushape("evaluate", run)
    assert ended.code == 2
    assert "names no test case" in ended.error
    (run / "folds.json").write_text("{}")
    assert "is a cross-validation" in ushape("evaluate", run).error


def test_other_data_are_scored_where_the_training_data_are_not(trained, cells, ushape, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    stored = json.loads((run / "cases.json").read_text())
    (run / "cases.json").write_text(json.dumps({**stored, "folder": str(tmp_path / "gone")}))
    ended = ushape("evaluate", run, cells, "-o", tmp_path / "out")
    assert ended.code == 0, ended.error
    assert "The mean Dice on" in ended.output
