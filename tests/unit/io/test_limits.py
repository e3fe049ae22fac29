import subprocess
import sys
from types import SimpleNamespace

import pytest

from codes import raises_code
from ushape.errors import ConfigError
from ushape.io import limits
from ushape.io.limits import core_limit, free_memory_bytes, memory_limit_bytes, sharing_processes

MB = 1 << 20
UNLIMITED_V1 = "9223372036854771712"


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine of 1000 MB, 900 of which are free; this process uses 50."""
    memory = SimpleNamespace(total=1000 * MB, available=900 * MB)
    used = SimpleNamespace(rss=50 * MB, vms=50 * MB)
    process = SimpleNamespace(memory_info=lambda: used)
    fake = SimpleNamespace(virtual_memory=lambda: memory, Process=lambda: process)
    monkeypatch.setattr(limits, "psutil", fake)


def tree(root, own, **files):
    """Write the file of the groups of this process, and files of the groups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(own)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


JOB = "slurm/job_7/step_0/task_0"
V2 = f"0::/{JOB}\n"
V1 = f"9:cpuset:/\n5:memory:/{JOB}\n3:cpu,cpuacct:/{JOB}\n1:name=systemd:/\n0::/init.scope\n"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        (V2, {}, None),
        (V2, {f"{JOB}/cpu.max": "max 100000"}, None),
        (V2, {f"{JOB}/cpu.max": "200000 100000"}, 2),
        (V2, {f"{JOB}/cpu.max": "150000 100000"}, 2),
        (V2, {f"{JOB}/cpu.max": "10000 100000"}, 1),
        # A parent, and the strictest of all.
        (V2, {f"{JOB}/cpu.max": "max 100000", "slurm/job_7/cpu.max": "300000 100000"}, 3),
        (V2, {f"{JOB}/cpu.max": "400000 100000", "slurm/cpu.max": "100000 50000"}, 2),
        (
            V2,
            {f"{JOB}/cpu.max": "max", "slurm/job_8/cpu.max": "100000 100000"},
            None,
        ),  # Another job.
        # A container sees its own group as the root, or as the end of a path of the host.
        ("0::/\n", {"cpu.max": "200000 100000"}, 2),
        ("0::/docker/a1b2\n", {"cpu.max": "200000 100000"}, 2),
        ("0::/docker/a1b2/own\n", {"own/cpu.max": "200000 100000", "cpu.max": "max 100000"}, 2),
        ("0::/../other\n", {"cpu.max": "200000 100000"}, 2),
        (V1, {f"cpu/{JOB}/cpu.cfs_quota_us": "-1", f"cpu/{JOB}/cpu.cfs_period_us": "100000"}, None),
        (V1, {f"cpu/{JOB}/cpu.cfs_quota_us": "25000", f"cpu/{JOB}/cpu.cfs_period_us": "10000"}, 3),
        (
            V1,
            {
                f"cpu,cpuacct/{JOB}/cpu.cfs_quota_us": "-1",
                "cpu,cpuacct/slurm/cpu.cfs_quota_us": "200000",
                "cpu,cpuacct/slurm/cpu.cfs_period_us": "100000",
            },
            2,
        ),
        (V1, {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
    ],
)
def test_core_limit_is_the_strictest_quota_rounded_up(own, files, expected, tmp_path):
    assert core_limit(tree(tmp_path, own, **files)) == expected


@pytest.mark.parametrize(
    ("own", "files", "expected_mb"),
    [
        (V2, {}, 1000),
        (V2, {f"{JOB}/memory.max": "max"}, 1000),
        (V2, {f"{JOB}/memory.max": f"{2000 * MB}"}, 1000),
        (V2, {f"{JOB}/memory.max": "max", "slurm/job_7/memory.max": f"{300 * MB}"}, 300),
        (V2, {f"{JOB}/memory.max": f"{400 * MB}", "slurm/memory.max": f"{200 * MB}"}, 200),
        (V2, {f"{JOB}/memory.max": "max", "slurm/job_8/memory.max": f"{300 * MB}"}, 1000),
        ("0::/docker/a1b2\n", {"memory.max": f"{300 * MB}"}, 300),
        (V1, {f"memory/{JOB}/memory.limit_in_bytes": UNLIMITED_V1}, 1000),
        (
            V1,
            {
                f"memory/{JOB}/memory.limit_in_bytes": UNLIMITED_V1,
                "memory/slurm/job_7/memory.limit_in_bytes": f"{300 * MB}",
                "memory/memory.limit_in_bytes": UNLIMITED_V1,
            },
            300,
        ),
        (V1, {"memory/memory.limit_in_bytes": f"{300 * MB}"}, 300),
    ],
)
def test_memory_limit_is_the_strictest_of_all_groups(own, files, expected_mb, tmp_path):
    assert memory_limit_bytes(tree(tmp_path, own, **files), {}) == expected_mb * MB


@pytest.mark.parametrize(
    ("environment", "expected_mb"),
    [
        ({"SLURM_MEM_PER_NODE": "300"}, 300),
        ({"SLURM_MEM_PER_NODE": "0"}, 1000),
        ({"SLURM_MEM_PER_NODE": "4000"}, 1000),
        ({"SLURM_MEM_PER_NODE": "many"}, 1000),
        ({"SLURM_MEM_PER_CPU": "100", "SLURM_CPUS_ON_NODE": "4"}, 400),
        ({"SLURM_MEM_PER_CPU": "0", "SLURM_CPUS_ON_NODE": "4"}, 1000),
        ({"SLURM_MEM_PER_CPU": "100"}, 1000),
        ({"SLURM_MEM_PER_GPU": "250", "SLURM_GPUS_ON_NODE": "2"}, 500),
    ],
)
def test_memory_limit_is_that_of_a_job_of_slurm(environment, expected_mb, tmp_path):
    assert memory_limit_bytes(tmp_path, environment) == expected_mb * MB


def test_free_memory_is_what_the_groups_leave(tmp_path):
    statistics = f"anon {10 * MB}\nactive_file {30 * MB}\ninactive_file {40 * MB}\nfile {80 * MB}"
    files = {
        f"{JOB}/memory.max": f"{400 * MB}",
        f"{JOB}/memory.current": f"{100 * MB}",
        "slurm/memory.max": f"{500 * MB}",
        "slurm/memory.current": f"{350 * MB}",
        "slurm/memory.stat": statistics,
    }
    # The job has 400 - 100 MB, its parent 500 - (350 - 30 - 40), as cached files can be removed.
    assert free_memory_bytes(tree(tmp_path, V2, **files), {}) == 220 * MB
    assert free_memory_bytes(tmp_path, {"SLURM_MEM_PER_NODE": "200"}) == 150 * MB
    assert free_memory_bytes(tmp_path, {"SLURM_MEM_PER_NODE": "10"}) == 0


def test_free_memory_is_what_the_groups_of_version_1_leave(tmp_path):
    files = {
        "memory/slurm/memory.limit_in_bytes": f"{500 * MB}",
        "memory/slurm/memory.usage_in_bytes": f"{350 * MB}",
        f"memory/{JOB}/memory.limit_in_bytes": UNLIMITED_V1,
        "memory/slurm/memory.stat": f"active_file 1\ntotal_inactive_file {70 * MB}",
    }
    assert free_memory_bytes(tree(tmp_path, V1, **files), {}) == 220 * MB


def test_limits_need_no_files_of_linux(tmp_path):
    assert core_limit(tmp_path) is None
    assert memory_limit_bytes(tmp_path, {}) == 1000 * MB
    assert free_memory_bytes(tmp_path, {}) == 900 * MB


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_free_memory_respects_the_limit_of_the_process():
    code = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from ushape.io.limits import free_memory_bytes
print(free_memory_bytes())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 3 << 30


def test_sharing_processes_are_counted_by_the_environment():
    assert sharing_processes({}) == 1
    assert sharing_processes({"USHAPE_PROCESSES": "8"}) == 8
    for text in ("0", "-2", "two", "1.5"):
        with raises_code(ConfigError, "invalid_processes"):
            sharing_processes({"USHAPE_PROCESSES": text})
