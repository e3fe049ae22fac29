import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from codes import raises_code
from reports import make_case, make_report
from ushape.console import Console
from ushape.errors import ConfigError, RunError
from ushape.evaluation.storage import save_report
from ushape.export import hugging_face
from ushape.export.graph import ExportOptions
from ushape.export.hugging_face import export_folder, fill_folder
from ushape.export.publication import Publication
from ushape.inference.predictor import Predictor
from ushape.io.files import write_sealed_json
from ushape.models import build_model
from ushape.planning.plan import load_plan
from ushape.planning.run import Run

PLAN = Path(__file__).parents[2] / "golden" / "earlier_plan.json"
SECRET = "/home/ada/patients/smith"


@pytest.fixture
def run(tmp_path):
    """A run that is evaluated; its plan and thresholds name a private folder."""
    run = Run.create(tmp_path / "my_cells")
    values = load_plan(PLAN).to_dict()
    values["recipe"]["network"]["widths"] = [4, 8]
    values["reasons"] = [*values["reasons"], f"Start: weights from {SECRET}/first.safetensors."]
    write_sealed_json(run.plan_path, values)
    plan = run.load_plan()
    channels = plan.preprocessing.input_channels, plan.preprocessing.space.outputs
    network = build_model(plan.recipe.network, *channels)
    run.save_weights(network.state_dict(), {"epoch": 1})
    write_sealed_json(run.tuning_path, {"rule": {}, "report": [f"chosen in {SECRET}/runs/"]})
    cases = [make_case(f"smith_{n}", 32, n, group=f"smith_{n}") for n in range(3)]
    lines = [f"Command: ushape train {SECRET} -o my_cells", "Seed 0"]
    save_report(run.folder, make_report(cases, reproduce_lines=lines))
    return run


@pytest.fixture
def exported(run, tmp_path):
    folder = tmp_path / "exported"
    folder.mkdir()
    notes = fill_folder([run], folder, Publication(authors=("Ada L.",), license="MIT"))
    return folder, notes


def test_exported_folder_predicts_as_the_run_does(run, exported):
    folder, _ = exported
    image = np.random.default_rng(0).integers(0, 255, (1, 40, 48)).astype(np.uint8)
    predictors = [Predictor.open(one, "cpu") for one in (run.folder, folder)]
    found = [own.predict([own.preprocess_array(image)])[0] for own in predictors]
    assert np.array_equal(found[0].probabilities, found[1].probabilities)
    assert np.array_equal(found[0].classes, found[1].classes)


def test_license_of_the_users_own_is_named_as_the_hub_expects():
    own = hugging_face._license_of(Publication(license="my own terms"))
    assert own == {"license": "other", "license_name": "my own terms"}
    assert hugging_face._license_of(Publication()) == {"license": "cc-by-4.0"}


def test_exported_folder_contains_no_private_name(exported):
    folder, _ = exported
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "README.md",
        "config.json",
        "decision.json",
        "model.safetensors",
        "plan.json",
        "predictions.png",
    }
    for path in folder.iterdir():
        content = path.read_bytes()
        for word in (b"smith", b"/home", b"patients", b"ushape train"):
            assert word not in content, (path, word)


def test_model_card_has_metadata_of_the_hub(exported):
    folder, _ = exported
    text = (folder / "README.md").read_text()
    header = yaml.safe_load(re.match(r"---\n(.*?)---\n", text, re.DOTALL)[1])
    assert header["license"] == "mit"
    assert header["library_name"] == "ushape"
    assert header["pipeline_tag"] == "image-segmentation"
    assert {"ushape", "unet2d", "2d"} <= set(header["tags"])
    (model,) = header["model-index"]
    (result,) = model["results"]
    assert model["name"] == "my_cells"
    assert result["task"]["type"] == "image-segmentation"
    assert {"name", "type"} <= result["dataset"].keys()
    for metric in result["metrics"]:
        assert isinstance(metric["value"], float)
        assert metric["type"] in header["metrics"]
    assert "95% CI" in result["metrics"][0]["name"]


def test_model_card_has_the_sections_of_the_report_and_the_authors(exported):
    folder, _ = exported
    text = (folder / "README.md").read_text()
    for line in ("# my_cells", "Authors: Ada L.", "## How to use", "## Results", "- Seed 0"):
        assert f"\n{line}\n" in text
    with Image.open(folder / "predictions.png") as picture:
        assert picture.size == (3 * 264, 2 * 264)


def test_config_summarizes_the_model(exported):
    folder, _ = exported
    config = json.loads((folder / "config.json").read_text())
    plan = load_plan(PLAN)
    assert config["library_name"] == "ushape"
    assert config["channels"] == plan.preprocessing.channels
    assert config["weights"] == "model.safetensors"


def test_notes_tell_that_test_images_are_visible(exported):
    _, notes = exported
    assert len(notes) == 1
    assert notes[0].startswith("predictions.png shows")


def test_fill_folder_needs_scores(run, tmp_path):
    (run.folder / "scores.json").unlink()
    with raises_code(RunError, "scores_missing"):
        fill_folder([run], tmp_path / "x", Publication())


def test_export_folder_refuses_options_of_graphs(run, tmp_path):
    for options in (ExportOptions(output="mask"), ExportOptions(fixed_intensity=True)):
        with raises_code(ConfigError, "option_without_effect"):
            export_folder([run], tmp_path, options, Console(quiet=True))


def test_fill_folder_has_a_folder_for_each_of_several_runs(run, tmp_path):
    folds = tmp_path / "folds"
    for number in (1, 2):
        shutil.copytree(run.folder, folds / f"fold-{number}")
    shutil.copyfile(run.folder / "scores.json", folds / "scores.json")
    for name in ("scores.csv", "baseline_scores.csv"):
        shutil.copyfile(run.folder / name, folds / name)
    runs = [Run(folds / f"fold-{number}") for number in (1, 2)]
    folder = tmp_path / "exported"
    folder.mkdir()
    fill_folder(runs, folder, Publication())
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "fold-1",
        "fold-2",
    ]
    assert [own.load_plan().recipe.network.widths for own in runs] == [(4, 8)] * 2
    assert (folder / "README.md").read_text().count("# folds\n") == 1
