"""The documentation website builds without a warning."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ushape.planning.optimizers import OPTIMIZERS, SCHEDULES

ROOT = Path(__file__).parents[2]


def test_settings_reference_lists_the_optimizers_and_schedules():
    pytest.importorskip("mkdocs", reason="The website needs the extra 'docs'.")
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    page = hooks.recipe_settings_page()
    for key, table in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{key}` |")]
        assert ", ".join(table) in row


@pytest.mark.slow
def test_website_builds_strictly_and_has_the_generated_pages(tmp_path):
    pytest.importorskip("mkdocs", reason="The website needs the extra 'docs'.")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")]
    ended = subprocess.run(
        build,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    reference = tmp_path / "site" / "reference"
    for page, text in {
        "command-line": "ushape predict",
        "recipe-settings": "batch_size",
        "python-api": "learning_curve",
        "error-codes": "RunError",
        "changelog": "0.1.0",
    }.items():
        assert text in (reference / page / "index.html").read_text(encoding="utf-8")
