"""Blocks on the workers of Dask: in threads for the quick tests, in processes for the slow ones."""

import functools
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace
from unittest.mock import Mock

import distributed
import psutil
import pytest
import torch
from distributed.scheduler import KilledWorker

import block_functions
from ushape.distributed.dask_versions import differences
from ushape.distributed.scheduling import DaskExecutor, _Tasks, dask_executor
from ushape.errors import ConfigError, DataError, RunError, UshapeError


@pytest.fixture(scope="module")
def client():
    """Client of two workers that are threads of this process."""
    with distributed.Client(
        processes=False,
        n_workers=2,
        threads_per_worker=1,
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        set_as_default=False,
    ) as client:
        yield client


@pytest.fixture
def execute(client):
    return DaskExecutor(client, threads=torch.get_num_threads())


def test_results_are_those_of_all_indices(execute):
    assert sorted(execute(block_functions.square, range(12))) == [n**2 for n in range(12)]


def test_no_indices_give_no_results(execute):
    assert list(execute(block_functions.square, [])) == []


def test_few_blocks_are_taken_in_advance(execute):
    taken = []

    def indices():
        for index in range(100):
            taken.append(index)
            yield index

    results = execute(block_functions.square, indices())
    next(results)
    # 2 workers with 2 blocks each, and at most the 4 of one more round.
    assert len(taken) <= 8
    results.close()
    assert len(taken) <= 8


def test_same_index_is_computed_again_by_the_next_call(execute, tmp_path):
    function = functools.partial(block_functions.marked, tmp_path)
    assert sum(execute(function, range(4))) == 4
    assert sum(execute(function, range(4))) == 0


def test_error_names_the_block_and_keeps_its_class_code_and_hint(execute):
    with pytest.raises(DataError) as caught:
        list(execute(block_functions.refuse, [7]))
    assert caught.value.code == "damaged"
    assert caught.value.message.startswith("Block 7 on worker inproc://")
    assert str(caught.value).endswith("part 7 is damaged.\nCopy it again.")


def test_temporary_error_is_repeated(execute, tmp_path):
    function = functools.partial(block_functions.fail_once, tmp_path)
    assert sorted(execute(function, range(3))) == [0, 1, 2]


def test_unknown_error_is_reported_after_three_attempts(execute):
    with pytest.raises(UshapeError) as caught:
        list(execute(block_functions.fail, [5]))
    assert caught.value.code == "block_failed"
    assert "Block 5" in caught.value.message
    assert "ValueError: surprise" in caught.value.message


def test_executor_is_usable_after_an_error(execute):
    with pytest.raises(DataError):
        list(execute(block_functions.refuse, range(10)))
    assert sorted(execute(block_functions.square, range(3))) == [0, 1, 4]


def test_hint_after_killed_workers_keeps_the_finished_blocks():
    killed = KilledWorker("block-3", SimpleNamespace(address="tcp://10.0.0.5:1"), 3)
    future = Mock(status="error", exception=Mock(return_value=killed))
    tasks = _Tasks(None, block_functions.square, "block", None)
    tasks.running[future] = 3
    tasks._ended.put(future)
    with pytest.raises(RunError) as caught:
        list(tasks.take_finished(0.1))
    assert caught.value.code == "workers_ended"
    assert caught.value.message == (
        "Block 3: 4 workers ended while computing it, the last of them tcp://10.0.0.5:1."
    )
    # The size of the blocks belongs to the task: with another one, the same output is refused.
    same, _, other = caught.value.hint.partition("finished blocks are kept")
    assert "fewer workers" in same
    assert "--memory-limit" in same
    assert "smaller" not in same
    assert "smaller blocks" in other


@pytest.mark.parametrize("is_cluster", [True, False])
def test_after_an_interrupt_the_blocks_that_still_run_are_stated(client, is_cluster, tmp_path):
    said, threads = [], None if is_cluster else torch.get_num_threads()
    execute = DaskExecutor(client, say=said.append, threads=threads)
    results = execute(functools.partial(block_functions.marked, tmp_path, seconds=0.3), range(20))
    next(results)
    results.close()  # As Ctrl-C does.
    # 2 workers with 2 blocks each; workers of this computer end with the command.
    assert len(said) == is_cluster
    if is_cluster:
        assert re.fullmatch(
            r"The workers finish the blocks in progress: at most [1-4] blocks?\.", said[0]
        )
    assert list(DaskExecutor(client, say=said.append)(block_functions.square, [])) == []
    assert len(said) == is_cluster


@pytest.fixture
def lonely(monkeypatch):
    """Client of a cluster without workers, whose tasks never end."""
    monkeypatch.setattr("ushape.distributed.scheduling.SILENT_S", 0.0)
    monkeypatch.setattr("ushape.distributed.scheduling.LOST_S", 0.0)
    with distributed.Client(
        processes=False,
        n_workers=0,
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        set_as_default=False,
    ) as client:
        yield client


def test_cluster_without_workers_is_waited_for(lonely):
    def say(line):
        said.append(line)
        raise KeyboardInterrupt  # The user gives up.

    said = []
    with pytest.raises(KeyboardInterrupt):
        list(DaskExecutor(lonely, say=say)(block_functions.square, range(3)))
    assert len(said) == 1


def test_local_workers_that_all_ended_are_reported(lonely):
    with pytest.raises(RunError) as caught:
        list(DaskExecutor(lonely, threads=1)(block_functions.square, range(3)))
    assert caught.value.code == "workers_ended"


def test_scheduler_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr("ushape.distributed.scheduling.CONNECT_S", 0.3)
    with pytest.raises(RunError) as caught, dask_executor(scheduler="tcp://127.0.0.1:9"):
        pass
    assert caught.value.code == "scheduler_unreachable"
    assert "tcp://127.0.0.1:9" in caught.value.message


@pytest.mark.parametrize("address", ["nonsense://host:1", "tcp://host:port"])
def test_wrong_address_is_refused(address):
    with pytest.raises(ConfigError) as caught, dask_executor(scheduler=address):
        pass
    assert caught.value.code == "scheduler_address"


@pytest.mark.parametrize("options", [{}, {"scheduler": "tcp://127.0.0.1:1", "workers": 2}])
def test_exactly_one_of_scheduler_and_workers_is_needed(options):
    with pytest.raises(ConfigError) as caught, dask_executor(**options):
        pass
    assert caught.value.code == "scheduler_or_workers"


def packages(**versions):
    same = {"python": "3.11.2.final.0", "dask": "1", "distributed": "1", "ushape": "1"}
    return {"packages": {**same, "torch": "2.13.0", "numpy": "2", "zarr": "3", **versions}}


def test_builds_and_patch_versions_are_the_same_version():
    workers = {"tcp://a:1": packages(torch="2.13.0+cpu", python="3.11.9.final.0")}
    found = {"client": packages(), "scheduler": packages(torch=None), "workers": workers}
    assert differences(found) == []


def test_different_versions_are_listed_with_their_places():
    workers = {f"tcp://a:{n}": packages(ushape=None, python="3.12.1.final.0") for n in range(3)}
    found = {"client": packages(), "scheduler": packages(dask="2"), "workers": workers}
    places = "worker tcp://a:0, worker tcp://a:1 and 1 more"
    assert differences(found) == [
        f"python: 3.11 (here, scheduler); 3.12 ({places})",
        "dask: 1 (here, worker tcp://a:0 and 2 more); 2 (scheduler)",
        f"ushape: 1 (here); missing ({places})",
    ]


@pytest.mark.slow
def test_local_workers_survive_a_killed_one_and_leave_nothing_behind(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = dict(os.environ)
    me, said = psutil.Process(), []
    function = functools.partial(block_functions.kill_once, tmp_path)
    with dask_executor(workers=2, say=said.append) as execute:
        assert len(list(execute(function, range(8)))) == 8
        own = [me, *me.children(recursive=True)]
        sockets = [one for process in own for one in process.net_connections(kind="inet")]
        assert {one.laddr.ip for one in sockets if one.status == "LISTEN"} == {"127.0.0.1"}
        workers = [one for one in own[1:] if "spawn_main" in " ".join(one.cmdline())]
        assert len(workers) >= 2
    lines = Counter("".join(path.read_text() for path in tmp_path.glob("*.log")).split())
    assert lines["computed"] == 8
    assert len(said) == 1
    assert list(home.rglob("*")) == []
    assert dict(os.environ) == before
    assert not [one for one in workers if one.is_running()]


INTERRUPTED = """
import functools, sys, block_functions
from ushape.distributed.scheduling import dask_executor
if __name__ == "__main__":
    function = functools.partial(block_functions.marked, sys.argv[1], seconds=0.2)
    with dask_executor(workers=2) as execute:
        for result in execute(function, range(10_000)):
            print(result, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of process groups")
def test_interrupt_of_all_processes_ends_them_and_keeps_the_marks(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    paths = os.pathsep.join(sys.path)
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline() == "1\n"
        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert errors.strip().splitlines()[-1] == "KeyboardInterrupt"
    assert "distributed.worker" not in errors.partition("Traceback")[0]
    psutil.wait_procs(children, timeout=10)
    assert not [one for one in children if one.is_running()]
    marks = list(tmp_path.glob("*.done"))
    assert 1 <= len(marks) < 100
