"""The documentation website builds without a warning."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


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
