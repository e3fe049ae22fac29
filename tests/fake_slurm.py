"""Programs of SLURM that run jobs on this machine, for tests of whole commands.

`install` writes sbatch, squeue, sacct, scancel, scontrol and srun into a folder for PATH; each of
them starts this file. A job is a file with its state in the same folder.

Environment variables change what happens:
    FAKE_SLURM_FAIL: Indices of tasks, such as 1, that end with exit code 1 without a start.
    FAKE_SLURM_HOLD: Jobs stay in the queue.
    FAKE_SLURM_SIGNAL: Number of a signal that sbatch sends to its caller after it has accepted a
        job, before it answers.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

NAMES = ("sbatch", "squeue", "sacct", "scancel", "scontrol", "srun")
POLL_S = 0.05


def install(folder):
    """Write the programs; returns the environment variables of a command that uses them."""
    folder.mkdir()
    for name in NAMES:
        path = folder / name
        call = shlex.join([sys.executable, __file__, name, str(folder)])
        path.write_text(f'#!/bin/sh\nexec {call} "$@"\n')
        path.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def jobs_of(folder):
    """The facts about each job by its number."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def is_idle(folder):
    """Whether no job waits or runs."""
    return all(job["state"] not in ("PENDING", "RUNNING") for job in jobs_of(folder).values())


def preempt(folder, number):
    """Ask for the end of a job as a cluster does, after which it starts again."""
    (folder / f"{number}.preempt").touch()


def sbatch(folder, script):
    text = Path(script).read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.MULTILINE))
    main = 1 + max((int(number.partition("_")[0]) for number in jobs_of(folder)), default=0)
    array = re.match(r"0-(\d+)", options.get("array", ""))
    numbers = [f"{main}_{task}" for task in range(1 + int(array[1]))] if array else [str(main)]
    for number in numbers:
        job = {"state": "PENDING", "name": shlex.split(options["job-name"])[0], "options": options}
        _store(folder, number, job)
        if "FAKE_SLURM_HOLD" not in os.environ:
            subprocess.Popen(
                [sys.executable, __file__, "run", folder, number, script],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
    if "FAKE_SLURM_SIGNAL" in os.environ:
        os.kill(os.getppid(), int(os.environ["FAKE_SLURM_SIGNAL"]))
    print(f"Submitted batch job {main}")


def run(folder, number, script):
    """Run a job, again and again if it is preempted or requeued."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main, _, task = number.partition("_")
    environment = {**os.environ, "SLURM_JOB_ID": main, "SLURM_JOB_NUM_NODES": "1"}
    if task:
        environment |= {"SLURM_ARRAY_JOB_ID": main, "SLURM_ARRAY_TASK_ID": task}
    job = jobs_of(folder)[number]
    marks = [folder / f"{number}.{kind}" for kind in ("preempt", "requeue")]
    fails = task != "" and task in os.environ.get("FAKE_SLURM_FAIL", "").split(",")
    code, is_again = 1, not fails
    while is_again:
        _store(folder, number, {**job, "state": "RUNNING"})
        process = subprocess.Popen(["bash", script], env=environment, start_new_session=True)
        while process.poll() is None:
            if marks[0].exists():
                _end_preempted(process)
            time.sleep(POLL_S)
        code = process.returncode
        is_again = any(mark.exists() for mark in marks)
        for mark in marks:
            mark.unlink(missing_ok=True)
    _store(folder, number, {**job, "state": "FAILED" if code else "COMPLETED"})


def _end_preempted(process):
    """Send SIGTERM to what srun has started, wait for the training, and kill what is left."""
    script = psutil.Process(process.pid)
    for one in script.children(recursive=True):
        if os.getsid(one.pid) == process.pid:
            one.send_signal(signal.SIGTERM)
    while any("ushape" in one.cmdline() for one in script.children(recursive=True)):
        time.sleep(POLL_S)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def squeue(folder, *arguments):
    form = arguments[arguments.index("-o") + 1]
    for number, job in jobs_of(folder).items():
        if job["state"] in ("PENDING", "RUNNING"):
            values = {"%i": number, "%T": job["state"], "%j": job["name"]}
            print(re.sub("%[iTj]", lambda found, own=values: own[found[0]], form))


def sacct(folder, *arguments):
    print(jobs_of(folder)[arguments[arguments.index("-j") + 1]]["state"])


def scancel(folder, number):
    job = jobs_of(folder)[number]
    _store(folder, number, {**job, "state": "CANCELLED"})


def scontrol(folder, requeue, number):
    assert requeue == "requeue"
    (folder / f"{number}.requeue").touch()


def srun(folder, *arguments):
    assert arguments[:2] == ("--unbuffered", "--output")
    main, task = os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_ARRAY_TASK_ID", "0")
    output = arguments[2]
    for pattern, value in (("%A", main), ("%j", main), ("%a", task), ("%t", "0")):
        output = output.replace(pattern, value)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(SLURM_PROCID="0", SLURM_LOCALID="0", SLURM_NTASKS="1")
    os.execvp(arguments[3], arguments[3:])


def _store(folder, number, job):
    path = folder / f"{number}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(job))
    part.replace(path)


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
