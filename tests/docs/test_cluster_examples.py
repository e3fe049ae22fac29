"""The examples for clusters are valid, agree with their page, and run."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from commands import command_environment
from ushape.distributed.parts import Part, part_of_task
from ushape.planning.run import Run

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "cluster"
PAGE = ROOT / "docs" / "how-to" / "array-jobs.md"
BASH = shutil.which("bash")


def jobs():
    return yaml.safe_load((FOLDER / "job.yaml").read_text(encoding="utf-8"))["items"]


@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_kubernetes_jobs_are_valid(version):
    predict, gather = jobs()
    for job in (predict, gather):
        assert kubernetes_validate.validate(job, version, strict=True) == version
    predict["spec"]["completion"] = 8
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(predict, version, strict=True)


def test_kubernetes_job_states_the_number_of_its_parts():
    predict, gather = (job["spec"] for job in jobs())
    (container,) = predict["template"]["spec"]["containers"]
    variables = {one["name"]: one["value"] for one in container["env"]}
    assert predict["completionMode"] == "Indexed"
    last = {**variables, "JOB_COMPLETION_INDEX": str(predict["completions"] - 1)}
    assert part_of_task(last) == Part(predict["completions"], predict["completions"])
    assert gather["template"] == predict["template"]
    assert "completionMode" not in gather  # Its pod has no index.
    assert part_of_task(variables).is_all


def test_dockerfile_installs_the_pinned_packages_and_runs_as_a_user():
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and line[0] != "#"]
    assert [rest for word, rest in lines if word == "FROM"] == ["python:3.11-slim"]
    copied = {name for word, rest in lines if word == "COPY" for name in rest.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = re.findall(r'^(?:readme = |license-files = \[)"(\S+?)"', project, re.MULTILINE)
    assert {"pyproject.toml", "constraints.txt", "src", *needed} <= copied
    (install,) = (rest for word, rest in lines if word == "RUN" and "pip install" in rest)
    assert "-c constraints.txt" in install
    pinned = (ROOT / "constraints.txt").read_text()
    assert re.search(r"^torch==", pinned, re.MULTILINE)
    # Without them, `predict-zarr`, its workers, slides and URLs would be refused.
    (extras,) = re.findall(r'"\.\[(.+)\]"', install)
    assert set(extras.split(",")) == {"cluster", "remote", "slides", "zarr"}
    options = tomllib.loads(project)["project"]["optional-dependencies"]
    for package in (one for extra in extras.split(",") for one in options[extra]):
        name = re.match(r"[\w-]+", package)[0]
        assert re.search(rf"^{name}==", pinned, re.MULTILINE), package
    (user,) = (rest for word, rest in lines if word == "USER")
    pod = jobs()[0]["spec"]["template"]["spec"]["securityContext"]
    assert user == str(pod["runAsUser"]) != "0"
    assert lines[-1] == ["ENTRYPOINT", json.dumps(["ushape"])]


def test_page_links_to_every_example():
    text = PAGE.read_text(encoding="utf-8")
    for path in FOLDER.iterdir():
        assert f"](../../examples/cluster/{path.name})" in text


@pytest.mark.skipif(BASH is None, reason="needs bash")
@pytest.mark.parametrize(("code", "expected"), [(0, 0), (2, 0), (1, 1), (75, 1), (137, 1)])
def test_part_of_snakemake_with_an_image_that_fails_does_not_end_the_workflow(code, expected):
    rule = (FOLDER / "Snakefile").read_text(encoding="utf-8").partition("rule predict_part")[2]
    shell = "".join(re.findall(r'^ {8}"(.*)"$', rule.partition("shell:")[2], re.MULTILINE))
    command, accepted = re.fullmatch(r"(.*/\{PARTS\})( .*)", shell).groups()
    assert "ushape predict" in command
    script = f"set -euo pipefail; bash -c 'exit {code}'{accepted}"  # As Snakemake does.
    assert subprocess.run([BASH, "-c", script], check=False).returncode == expected


def test_only_exit_code_2_of_a_part_is_not_repeated_in_nextflow_and_aws_batch():
    flow = (FOLDER / "main.nf").read_text(encoding="utf-8")
    assert "errorStrategy { task.exitStatus == 2 ? 'ignore' : 'retry' }" in flow
    (retries,) = re.findall("^retries='(.*)'$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert json.loads(retries)["evaluateOnExit"] == [{"onExitCode": "2", "action": "EXIT"}]


@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_slurm_script_is_valid():
    subprocess.run([BASH, "-n", FOLDER / "job.sh"], check=True)


@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_script_for_several_machines_resumes_the_run_if_it_is_started_again(tmp_path):
    page = (ROOT / "docs" / "how-to" / "several-gpus.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", page, re.DOTALL)
    code = f'srun() {{ echo "$@"; }}\n{script}'

    def start():
        return subprocess.check_output([BASH, "-ec", code], cwd=tmp_path, text=True).split()

    assert start()[:3] == ["ushape", "train", "my_images"]
    run = Run(tmp_path / "runs" / "my_images")
    run.folder.mkdir(parents=True)
    assert start()[1] == "train"  # It was killed while it planned.
    run.plan_path.touch()
    assert start() == ["ushape", "resume", "runs/my_images"]


@pytest.mark.slow
@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_slurm_script_predicts_the_folder_in_parts(tmp_path, ushape):
    tiny = ["--set", "network.widths=[4,8]", "--set", "sampling.patch_shape=[64,64]"]
    for arguments in (
        ["example", "cells", "--count", 8],
        ["train", "cells", "--epochs", 1, *tiny],
    ):
        assert ushape(*arguments, cwd=tmp_path).code == 0

    def run(task, count, *options):
        variables = {"ID": task, "COUNT": count, "MIN": 1 if count > 1 else task}
        environment = {
            **command_environment(),
            **{f"SLURM_ARRAY_TASK_{key}": str(value) for key, value in variables.items()},
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT / "src"),
        }
        command = [BASH, FOLDER / "job.sh", "runs/cells", "cells/images", "masks", *options]
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return {path.name for path in (tmp_path / "masks").glob("*.png")}

    images = {path.name for path in (tmp_path / "cells" / "images").iterdir()}
    first = run(1, 2, "--table")
    assert 0 < len(first) < len(images)
    assert run(2, 2, "--table") == images
    assert not (tmp_path / "masks" / "images.csv").exists()
    run(1, 1, "--table", "--part", "1/1")
    assert (tmp_path / "masks" / "images.csv").exists()
    assert not (tmp_path / "masks" / ".ushape-parts").exists()
