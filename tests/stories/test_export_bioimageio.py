"""Packages for bioimage.io, checked by the official test in an environment of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parents[1] / "requirements-bioimageio.txt"

OFFICIAL_TEST = """
import json, sys
from bioimageio.core import test_model

for package in sys.argv[1:]:
    for weights in ("torchscript", "onnx"):
        summary = test_model(package, weight_format=weights)
        problems = [f"{one.loc}: {one.msg}" for one in summary.errors]
        print(json.dumps([weights, summary.status, problems]))
"""
"""Tests each package with both kinds of weights, and prints a line of JSON for each."""


@pytest.fixture(scope="module")
def official_test(tmp_path_factory):
    """Runs `bioimageio.core.test_model` on packages, and returns a result for each format."""
    folder = tmp_path_factory.mktemp("official")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", REQUIREMENTS], check=True)

    def run(*packages: Path) -> list[list]:
        command = [python, "-c", OFFICIAL_TEST, *packages]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]

    return run


def test_packages_pass_the_official_test(trained, cells, tiny, ushape, official_test, tmp_path):
    valid = ("--set=network.padding=valid", "--set=sampling.patch_shape=[60,60]")
    unpadded = tmp_path / "valid"
    ended = ushape("train", cells, "-o", unpadded, "--epochs", 1, *tiny, *valid)
    assert ended.code == 0, ended.error
    packages = [tmp_path / "padded.zip", tmp_path / "valid.zip"]
    for run, package in zip((trained, unpadded), packages, strict=True):
        ended = ushape("export", run, "--to", "bioimageio", "-o", package, "--author", "Ada L.")
        assert ended.code == 0, ended.error
        assert "Validated by bioimageio.spec" in ended.output
    assert official_test(*packages) == 2 * [["torchscript", "passed", []], ["onnx", "passed", []]]


def test_package_has_no_path_of_this_computer(trained, ushape, tmp_path):
    folder = tmp_path / "package"
    ended = ushape("export", trained, "--to", "bioimageio", "-o", folder)
    assert ended.code == 0, ended.error
    for path in folder.iterdir():
        content = path.read_bytes()
        if path.suffix == ".pt":
            with zipfile.ZipFile(path) as weights:
                content = b"".join(map(weights.read, weights.namelist()))
        for private in (Path(__file__).parents[2], Path(sys.prefix), trained.parent):
            assert str(private).encode() not in content, path


def test_hugging_face_folder_predicts_the_same_masks(trained, cells, ushape, tmp_path):
    folder = tmp_path / "model"
    ended = ushape("export", trained, "--to", "huggingface", "-o", folder, "--license", "MIT")
    assert ended.code == 0, ended.error
    for run, out in ((trained, tmp_path / "a"), (folder, tmp_path / "b")):
        assert ushape("predict", run, cells / "images", "-o", out).code == 0
    masks = sorted((tmp_path / "a").glob("*.png"))
    assert len(masks) == 8
    for mask in masks:
        assert mask.read_bytes() == (tmp_path / "b" / mask.name).read_bytes()
    for path in folder.iterdir():
        assert str(trained.parent).encode() not in path.read_bytes()
