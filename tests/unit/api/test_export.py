import json
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import ushape
from codes import raises_code
from exported import write_run
from ushape.api.export import TARGETS
from ushape.errors import ConfigError, PlanError, RunError
from ushape.export.formats import FORMATS, METADATA


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run").folder


@pytest.fixture
def written(monkeypatch):
    """Replaces a target by one that writes a file without computing anything."""

    def fill(runs, folder, options, console):
        (folder / "model.pt").write_text(f"{len(runs)} {options.output}")
        (folder / "export.json").write_text("{}")

    monkeypatch.setitem(TARGETS, "torchscript", fill)


def test_export_writes_a_folder_with_its_description(run, capsys):
    (run / "model_card.md").write_text("# My cells\n")
    folder = ushape.export_model(run, to="torchscript")
    assert folder == run / "exports" / "torchscript"
    assert sorted(path.name for path in folder.iterdir()) == [
        "export.json",
        "model.pt",
        "model_card.md",
    ]
    extra = {METADATA: ""}
    with pytest.warns(DeprecationWarning, match="jit"):
        module = torch.jit.load(folder / "model.pt", _extra_files=extra)
    assert module(torch.zeros(3, 1, 21, 17)).shape == (3, 1, 21, 17)
    facts, stored = json.loads((folder / "export.json").read_text()), json.loads(extra[METADATA])
    assert stored.keys() == facts.keys() - {"checksum"}
    assert facts["parity"]["largest_difference"] <= 1e-3
    assert facts["output"]["channels"] == ["cell"]
    card, shown = (folder / "model_card.md").read_text(), capsys.readouterr().out
    assert card.startswith("# My cells\n\n## Export to torchscript\n")
    for text in ("whole images", "Compared with ushape predict"):
        assert text in card
        assert text in shown
    assert not list(run.glob("exports/.*"))


@pytest.mark.slow
@pytest.mark.parametrize("has_archives", [True, False])
def test_pt2_files_are_described_also_by_an_older_pytorch(run, monkeypatch, tmp_path, has_archives):
    if not has_archives:
        monkeypatch.delattr("torch.export.pt2_archive.PT2ArchiveReader")
    path = ushape.export_model(run, to="pt2", output=tmp_path / "cells.pt2", quiet=True)
    extra = {METADATA: ""}
    program = torch.export.load(path, extra_files=extra)
    stored = json.loads(extra[METADATA])
    assert json.loads(stored["output"])["channels"] == ["cell"]
    assert program.module()(torch.zeros(3, 1, 21, 17)).shape == (3, 1, 21, 17)


@pytest.mark.usefixtures("written")
def test_export_writes_a_single_file_if_the_output_is_one(run, tmp_path):
    path = ushape.export_model(run, to="torchscript", output=tmp_path / "new" / "cells.pt")
    assert [one.name for one in path.parent.iterdir()] == ["cells.pt"]
    assert path.read_text() == "1 probabilities"


@pytest.mark.usefixtures("written")
def test_export_replaces_outputs_only_if_asked(run, tmp_path):
    for output in (tmp_path / "folder", tmp_path / "cells.pt"):
        ushape.export_model(run, to="torchscript", output=output)
        with raises_code(RunError, "output_exists"):
            ushape.export_model(run, to="torchscript", output=output)
        ushape.export_model(
            [run, write_run(tmp_path / f"other-{output.name}").folder],
            to="torchscript",
            output=output,
            result="mask",
            overwrite=True,
        )
        file = output / "model.pt" if output.is_dir() else output
        assert file.read_text() == "2 mask"


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize("output", [".", "..", "/", "run", "link", "run/../run"])
def test_export_never_replaces_a_folder_with_the_run(run, tmp_path, monkeypatch, output):
    (tmp_path / "link").symlink_to(run)
    monkeypatch.chdir(run if output.startswith(".") else tmp_path)
    before = contents(tmp_path)
    for given in (run, Path(os.path.relpath(run))):
        with raises_code(RunError, "output_contains_run"):
            ushape.export_model(given, to="torchscript", output=output, overwrite=True)
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize(
    "content",
    [
        ["model.pt"],
        ["export.json", "notes.txt"],
        ["export.json", "code/old/net.py"],
        ["config.json", "README.md", "model.safetensors"],
        [f"{name}/export.json" for name in ("onnx", "standalone")],
    ],
)
def test_export_does_not_replace_files_of_others(run, tmp_path, content):
    folder = tmp_path / "folder"
    for name in content:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    before = contents(folder)
    with raises_code(RunError, "output_exists"):
        ushape.export_model(run, to="torchscript", output=folder, overwrite=True)
    assert contents(folder) == before


@pytest.mark.usefixtures("written")
def test_export_replaces_files_only_by_files_and_folders_by_folders(run, tmp_path):
    file, folder = tmp_path / "notes", tmp_path / "cells.pt"
    file.write_text("mine")
    folder.mkdir()
    for output in (file, folder):
        with raises_code(RunError, "output_exists"):
            ushape.export_model(run, to="torchscript", output=output, overwrite=True)
    assert file.read_text() == "mine"
    assert folder.is_dir()


@pytest.mark.usefixtures("written")
def test_export_writes_where_a_link_leads(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "link"
    link.symlink_to("elsewhere")
    for _ in range(2):
        ushape.export_model(run, to="torchscript", output=link, overwrite=True)
        (link / "__pycache__").mkdir()
        (link / "__pycache__" / "predict.cpython-312.pyc").touch()
    assert link.is_symlink()
    assert (tmp_path / "elsewhere" / "model.pt").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", "link", "run"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("name", ["folder", "cells.pt"])
def test_export_leaves_nothing_behind_if_it_fails(run, tmp_path, monkeypatch, error, name):
    def fail(runs, folder, options, console):
        (folder / "model.pt").write_text("half")
        raise error

    monkeypatch.setitem(TARGETS, "torchscript", fail)
    with pytest.raises(type(error)):
        ushape.export_model(run, to="torchscript", output=tmp_path / "out" / name)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("written")
def test_export_removes_what_a_killed_process_left(run, tmp_path):
    left = tmp_path / ".cells.999999999-1.part"
    left.mkdir()
    (left / "model.pt").write_text("half")
    ushape.export_model(run, to="torchscript", output=tmp_path / "cells")
    assert not left.exists()


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_export_says_where_the_scores_do_not_hold(tmp_path, capsys, norm):
    run = write_run(tmp_path / "run", network={"norm": norm})
    folder = ushape.export_model(run.folder, to="torchscript")
    facts = json.loads((folder / "export.json").read_text())
    assert any("tiles of this size" in line for line in facts["limits"]) == (norm == "instance")
    assert facts["receptive_field"] == [run.load_network(run.load_plan()).receptive_field]
    shown = capsys.readouterr().out
    for line in facts["limits"]:
        assert line in shown
        assert line in (folder / "model_card.md").read_text()


def test_export_refuses_unknown_formats_and_foreign_suffixes(run, tmp_path):
    with raises_code(ConfigError, "unknown_target") as caught:
        ushape.export_model(run, to="tensorflow")
    assert all(name in caught.value.hint for name in TARGETS)
    with raises_code(ConfigError, "output_suffix"):
        ushape.export_model(run, to="onnx", output=tmp_path / "cells.pt2")
    with raises_code(ConfigError, "output_suffix"):
        ushape.export_model(run, to="openvino", output=tmp_path / "cells.xml")


def test_export_refuses_a_folder_that_is_no_run(tmp_path):
    with raises_code(RunError, "run_incomplete"):
        ushape.export_model(tmp_path, to="torchscript")


def test_export_names_a_missing_package(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with raises_code(PlanError, "missing_package") as caught:
        ushape.export_model(run, to="onnx")
    assert "ushape[onnx]" in caught.value.hint
    assert not (run / "exports").exists() or not list((run / "exports").iterdir())


def test_export_writes_nothing_if_the_graph_differs(run, monkeypatch):
    format = FORMATS["torchscript"]
    wrong = type(format)(
        ".pt", format.write, lambda path: lambda images: np.zeros_like(images), format.annotate
    )
    monkeypatch.setitem(FORMATS, "torchscript", wrong)
    with raises_code(PlanError, "export_differs"):
        ushape.export_model(run, to="torchscript")
    assert list((run / "exports").iterdir()) == []


@pytest.fixture
def packaged(monkeypatch):
    """Replaces the package of bioimage.io by one file with the options."""

    def fill(runs, folder, options, console):
        (folder / "rdf.yaml").write_text(f"{options.authors} {options.license}")

    monkeypatch.setitem(TARGETS, "bioimageio", fill)


@pytest.mark.usefixtures("packaged")
def test_export_writes_a_package_as_a_zip_file_or_a_folder(run, tmp_path):
    stated = {"to": "bioimageio", "authors": ["Ada", "Bo"], "license": "MIT", "quiet": True}
    path = ushape.export_model(run, **stated)
    assert path == run / "exports" / "bioimageio.zip"
    with zipfile.ZipFile(path) as package:
        assert package.read("rdf.yaml") == b"('Ada', 'Bo') MIT"
    folder = ushape.export_model(run, output=tmp_path / "files", **stated)
    assert [one.name for one in folder.iterdir()] == ["rdf.yaml"]
    assert [one.name for one in path.parent.iterdir()] == ["bioimageio.zip"]


def test_export_refuses_authors_of_what_is_not_published(run):
    for options in ({"authors": ["Ada"]}, {"license": "MIT"}):
        with raises_code(ConfigError, "option_without_effect"):
            ushape.export_model(run, to="torchscript", **options)


def test_export_refuses_a_zip_file_of_another_target(run, tmp_path):
    with raises_code(ConfigError, "output_suffix"):
        ushape.export_model(run, to="torchscript", output=tmp_path / "cells.zip")


def test_torchscript_file_has_no_path_of_this_computer(run):
    folder = ushape.export_model(run, to="torchscript", quiet=True)
    with zipfile.ZipFile(folder / "model.pt") as weights:
        content = b"".join(map(weights.read, weights.namelist()))
    for private in (Path(ushape.__file__).parent, Path(torch.__file__).parent):
        assert str(private).encode() not in content
