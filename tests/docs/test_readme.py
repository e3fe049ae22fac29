"""The README's commands and code are what the package has."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ushape as package
from ushape.cli import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_python_of_the_readme_runs(tmp_path, monkeypatch):
    """On generated data, with a network that trains in a second."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for name, seed in (("my_images", 0), ("new_images", 1), ("other_images", 2)):
        from ushape.datasets.synthetic import SyntheticConfig, write_data_set

        write_data_set(tmp_path / name, 8, SyntheticConfig(size=64, groups=4), seed)
    tiny = ["network.widths=[4,8]", "sampling.patch_shape=[32,32]", "train.steps_per_epoch=2"]
    train = package.train
    monkeypatch.setattr(
        package,
        "train",
        lambda data, minutes: train(data, epochs=1, settings=tiny, device="cpu"),
        raising=False,
    )
    folds = package.cross_validate
    monkeypatch.setattr(
        package,
        "cross_validate",
        lambda data, **named: folds(
            data, folds=2, epochs=1, settings=tiny, device="cpu", output=named["output"]
        ),
        raising=False,
    )
    # New images are images alone.
    code = code.replace('"new_images"', '"new_images/images"')
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "runs" / "my_images" / "report.html").exists()
    assert len(list((tmp_path / "masks").glob("*.png"))) == 8
    assert (tmp_path / "comparison.html").exists()


@pytest.mark.parametrize(
    "command",
    [
        *(
            "train",
            "resume",
            "cross-validate",
            "evaluate",
            "report",
            "compare",
            "learning-curve",
            "predict",
            "recipes",
        ),
        *("example", "preview", "weight-map", "find-lr", "fetch"),
    ],
)
def test_every_option_that_the_readme_names_exists(command):
    shown = CliRunner().invoke(app, [command, "--help"]).output
    lines = [line for line in README.splitlines() if line.startswith(f"ushape {command}")]
    for line in lines:
        for option in re.findall(r"(?<!\w)(--?[a-z]+)", line.split("#")[0]):
            assert option in shown, f"{option} of: {line}"


def test_every_file_that_the_readme_links_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_make_has_the_targets_that_the_readme_names():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert f"\n{target}:" in makefile
