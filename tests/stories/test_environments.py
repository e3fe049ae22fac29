"""The commands of the README work without extras, and whatever the console, home and user are."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

COMMANDS = """
import json, sys
from ushape.__main__ import main

codes = []
for arguments in json.loads(sys.stdin.read()):
    sys.argv = ["ushape", *arguments]
    try:
        main()
        codes.append(0)
    except SystemExit as end:
        codes.append(end.code or 0)
print(codes)
"""
"""Runs several commands in one process, whose environment is that of the test."""

HIDER = """
import sys

class Filter:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in {modules!r}
        return None if hidden else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Filter, sys.meta_path)
"""
"""Makes modules appear as not installed."""

TINY = (
    "--epochs=1", "--device=cpu", "--set=network.widths=[4,8]", "--set=train.steps_per_epoch=2",
    "--set=sampling.patch_shape=[32,32]",
)  # fmt: skip


def modules_of_extras() -> set[str]:
    """Return the modules of all packages that only extras install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [line for extra in project["optional-dependencies"].values() for line in extra]
    names = {re.split(r"[\[<>=]", line)[0].replace("-", "_") for line in lines}
    return names | {name.lower() for name in names}


def environment(**changes: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG"))}
    source = {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return kept | source | changes


def run_readme(
    folder: Path, env: dict[str, str], name: str = "cells", start: tuple[str, ...] = ()
) -> str:
    """Run the commands of the README in a folder; return what they printed to standard error."""
    run = f"runs/{name}"
    commands = [
        ["example", name, "--count", "12"],
        ["check", name],
        ["train", name, *TINY],
        ["predict", run, f"{name}/images", "-o", "masks", "--overlay"],
        ["plan", name, "--explain", *TINY],
        ["evaluate", run, name, "-o", "scores", "--device=cpu"],
        ["compare", run, "scores"],
        ["report", run],
        ["recipes"],
    ]
    done = subprocess.run(
        [*start, sys.executable, "-c", COMMANDS],
        input=json.dumps(commands).encode(),
        capture_output=True,
        cwd=folder,
        env=env,
    )
    printed = (done.stdout + done.stderr).decode("utf-8", "backslashreplace")
    assert done.returncode == 0, printed
    assert "Traceback" not in printed
    codes = re.findall(r"^\[[\d, ]+\]$", printed, re.MULTILINE)
    assert codes[-1] == str([0] * len(commands)), printed
    assert len(list((folder / "masks").glob("*.png"))) >= 12
    assert (folder / run / "report.html").exists()
    return done.stderr.decode("utf-8", "backslashreplace")


def test_default_install_runs_all_commands_of_the_readme(tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    modules = modules_of_extras() - {"numpy"}
    (site / "sitecustomize.py").write_text(HIDER.format(modules=modules))
    env = environment(PYTHONPATH=os.pathsep.join([str(site), str(ROOT / "src")]))
    assert run_readme(tmp_path, env) == ""


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "ascii"])
def test_console_encodings_do_not_stop_a_command(tmp_path, encoding):
    env = environment(PYTHONIOENCODING=encoding)
    assert run_readme(tmp_path, env, name="Zellen λ 細胞") == ""


def test_locale_without_utf8_does_not_stop_a_command(tmp_path):
    env = environment(PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", LC_ALL="C")
    assert run_readme(tmp_path, env) == ""


def test_unusable_home_does_not_disturb(tmp_path):
    (tmp_path / "file").touch()
    nowhere = str(tmp_path / "file" / "home")
    env = environment(HOME=nowhere, XDG_CACHE_HOME=nowhere, XDG_CONFIG_HOME=nowhere)
    env.pop("MPLCONFIGDIR", None)
    assert run_readme(tmp_path, env) == ""


def test_user_without_a_name_and_home_runs_all_commands(tmp_path):
    namespace = ("unshare", "--user", "--map-user=64321")
    is_possible = shutil.which("unshare") is not None
    if not is_possible or subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("This machine allows no user namespaces.")
    env = environment()
    for name in ("HOME", "USER", "LOGNAME", "MPLCONFIGDIR"):
        env.pop(name, None)
    assert run_readme(tmp_path, env, start=namespace) == ""
