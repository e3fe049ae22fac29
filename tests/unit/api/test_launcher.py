"""Programs that a launcher has started."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from codes import raises_code
from ushape.api import _launcher
from ushape.api._launcher import Exchange, Place, find_place, first_node
from ushape.api._processes import Team, free_port
from ushape.errors import ConfigError, RunError

TORCHRUN = {
    "RANK": "3",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29400",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_RESTART_COUNT": "0",
}
SRUN = {
    "SLURM_JOB_ID": "1234567",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
    "SLURM_STEP_TASKS_PER_NODE": "3,1",
    "SLURM_NODEID": "1",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
}


def test_find_place_reads_the_variables_of_torchrun():
    assert find_place(TORCHRUN) == Place(
        rank=3,
        count=4,
        local_rank=1,
        neighbors=2,
        address="node1",
        port=29400,
        has_store=True,
        attempt="0",
    )


def test_find_place_reads_the_variables_of_srun():
    assert find_place(SRUN) == Place(
        rank=3, count=4, local_rank=0, neighbors=1, address="gpu03", port=19567
    )


def test_find_place_ignores_a_single_program():
    assert find_place({}) is None
    assert find_place({**TORCHRUN, "WORLD_SIZE": "1"}) is None
    # sbatch states the tasks of the job to its script, which is a single program.
    assert find_place({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}) is None


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("cpu1", "cpu1"),
        ("cpu1,cpu2", "cpu1"),
        ("gpu[03-07,12],cpu1", "gpu03"),
        ("a[1,3]-b", "a1-b"),
    ],
)
def test_first_node_expands_the_list_of_slurm(nodes, expected):
    assert first_node(nodes) == expected


@pytest.fixture
def exchanges():
    place = Place(rank=0, count=2, local_rank=0, neighbors=2, address="127.0.0.1", port=free_port())
    both = Exchange(place), Exchange(replace(place, rank=1, local_rank=1))
    yield both
    for one in both:
        one.close()


def test_exchange_sends_messages_to_the_other_programs(exchanges):
    first, second = exchanges
    assert second.find("request-0") is None
    first.put("request-0", {"run": "cells"})
    while (found := second.find("request-0")) is None:  # The store confirms nothing.
        time.sleep(0.01)
    assert found == {"run": "cells"}


def test_exchange_notices_a_program_without_a_sign_of_life(exchanges, monkeypatch):
    first, _ = exchanges
    first.refuse_silent(1)
    monkeypatch.setattr(_launcher, "SILENT_S", -1.0)
    with raises_code(RunError, "process_lost"):
        first.refuse_silent(1)


def test_team_refuses_another_number_of_devices_than_the_launcher_has_started(monkeypatch):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with raises_code(ConfigError, "conflicting_options"), Team.gathered(2, quiet=True):
        pass


def follower_of(port):
    return Place(rank=1, count=2, local_rank=1, neighbors=2, address="127.0.0.1", port=port)


@contextmanager
def interrupted_soon():
    """Send this process Ctrl-C after a moment, and expect that the block ends by it."""
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        yield
    timer.join()


def test_program_that_finds_nobody_names_the_address(monkeypatch):
    monkeypatch.setattr(_launcher, "CONNECT_S", 0.1)
    port = free_port()
    with raises_code(RunError, "no_connection") as caught:
        Exchange(follower_of(port))
    assert f"127.0.0.1:{port}" in caught.value.message
    assert "MASTER_ADDR" in caught.value.hint


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_ctrl_c_ends_a_program_that_waits_for_the_first_one(monkeypatch):
    monkeypatch.setattr(_launcher, "CONNECT_S", 20.0)
    with interrupted_soon():  # Nobody listens.
        Exchange(follower_of(free_port()))
    with socket.create_server(("127.0.0.1", 0)) as silent, interrupted_soon():
        Exchange(follower_of(silent.getsockname()[1]))


@pytest.mark.timeout(100)
@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_program_whose_store_does_not_answer_is_not_blocked(monkeypatch):
    port = free_port()
    script = (
        "from torch.distributed import TCPStore\n"
        f"store = TCPStore('127.0.0.1', {port}, is_master=True, wait_for_workers=False)\n"
        "input()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as first:
        try:
            exchange = Exchange(follower_of(port))
            assert exchange.find("request-0") is None
            first.send_signal(signal.SIGSTOP)
            with interrupted_soon():
                exchange.find("request-0")
            monkeypatch.setattr(_launcher, "SILENT_S", 0.1)
            with raises_code(RunError, "process_lost"):
                exchange.find("request-0")
            exchange.close()
        finally:
            first.kill()
