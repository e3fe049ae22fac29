"""Printed commands can be pasted into a shell, whatever the names of the files are."""

import ast
import errno
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ushape
from codes import raises_code
from ushape.api import FUNCTIONS
from ushape.api.export import _is_file
from ushape.data.discovery import discover
from ushape.data.other_labels import find_other_labels
from ushape.errors import ConfigError, DataError, RunError
from ushape.export.publication import require_report
from ushape.formatting import quoted
from ushape.planning.run import Run
from ushape.training.callbacks import WholeFileCheckpoints
from ushape.training.trainer import _killed_loader, _not_written

SOURCE = Path(ushape.__file__).parent

NAME = "the user's data"
"""Name of a folder with a space and a quotation mark."""


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / NAME
    folder.mkdir()
    return folder


def words(text):
    """Words of the first command in a text."""
    return shlex.split(re.search(r"ushape [a-z]+ [^`;]*", text)[0])


def draw(path):
    """Write an image of two values."""
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(np.kron([[0, 255], [0, 0]], np.ones((8, 8))).astype(np.uint8)).save(path)


def test_quoted_leaves_simple_names_as_they_are():
    assert quoted("runs/my_images") == "runs/my_images"
    assert quoted("a b") == "'a b'"
    assert shlex.split(quoted(NAME)) == [NAME]


def test_resume_command_and_all_hints_that_name_it(folder):
    run = Run(folder)
    expected = ["ushape", "resume", str(folder)]
    assert shlex.split(run.resume_command) == expected
    assert words(run.describe_unfinished())[:3] == expected
    hints = [_killed_loader(run).hint, _not_written(run, OSError(errno.ENOSPC, "full")).hint]
    with raises_code(RunError, "weights_missing") as caught:
        run.require_weights()
    hints.append(caught.value.hint)
    run.plan_path.write_text("{}")
    with raises_code(RunError, "output_exists") as caught:
        Run.create(folder)
    hints.append(caught.value.hint)
    (folder / "checkpoints").write_text("a file in place of the folder")
    with raises_code(RunError, "checkpoint_not_written") as caught:
        WholeFileCheckpoints().save_checkpoint({}, run.checkpoint_path)
    hints.append(caught.value.hint)
    assert [words(hint)[:3] for hint in hints] == [expected] * 5


def test_commands_for_ambiguous_folders_tables_and_coco_files(folder):
    for name in ("images/a.png", "train/a.png", "masks/a.png"):
        draw(folder / name)
    with raises_code(DataError, "ambiguous_folders") as caught:
        discover(folder)
    masks = str(folder / "masks")
    assert words(caught.value.hint) == ["ushape", "train", str(folder / "images"), "--masks", masks]

    tables = folder / "tables"
    draw(tables / "a.png")
    for name in ("one.csv", "two.csv"):
        (tables / name).write_text("image,mask\na.png,a.png\n")
    with raises_code(DataError, "ambiguous_tables") as caught:
        discover(tables)
    assert words(caught.value.hint) == ["ushape", "train", str(tables / "one.csv")]

    files = folder / "coco"
    draw(files / "a.png")
    for number, name in enumerate(("one.json", "two.json")):
        values = {
            "images": [{"id": 1, "file_name": "a.png", "width": 16, "height": 16}],
            "categories": [{"id": 1, "name": f"class {number}"}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 8, 0, 8, 8]]}
            ],
        }
        (files / name).write_text(json.dumps(values))
    with raises_code(DataError, "ambiguous_coco_files") as caught:
        discover(files)
    assert words(caught.value.hint) == ["ushape", "train", str(files / "one.json")]


def test_command_for_other_labels(folder):
    for kind in ("images", "masks"):
        draw(folder / kind / "a.png")
    cases = discover(folder).cases
    draw(folder / "second" / "a.png")
    uses = [one.use for one in find_other_labels(folder, cases)]
    expected = ["train", str(folder / "images"), "--masks", f"{folder / 'second'}."]
    assert [words(use)[1:] for use in uses] == [expected]


def test_commands_of_exports(folder):
    with raises_code(RunError, "scores_missing") as caught:
        require_report(folder)
    assert words(caught.value.hint) == ["ushape", "evaluate", str(folder)]
    with raises_code(ConfigError, "output_suffix") as caught:
        _is_file(folder / "model.onnx", "openvino")
    option = caught.value.hint.partition("-o ")[2]
    assert shlex.split(option) == [str(folder / "model")]


NO_PATHS = {"len(names)", "kind", "more", "option"}
"""Other expressions in commands: numbers, devices, and options that were quoted before."""


def unquoted():
    """Yield file and expression of each value that stands in a command without quotes."""
    commands = "|".join(name.replace("_", "-") for name in FUNCTIONS)
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = ""
            for part in node.values if isinstance(node, ast.JoinedStr) else ():
                if isinstance(part, ast.Constant):
                    text += str(part.value)
                    continue
                source = ast.unparse(part.value)
                is_safe = source.startswith(("quoted(", "_run_above(")) or source in NO_PATHS
                if re.search(rf"(`|: |^)ushape ({commands}) [^`;:.]*$", text) and not is_safe:
                    yield path.name, source
                text += "X"


def test_paths_in_commands_are_quoted():
    # The candidates of a layout have quoted their paths before.
    assert set(unquoted()) <= {
        ("candidates.py", name) for name in ("images", "one.argument", "content.candidate.argument")
    }
