"""Programs that a launcher has started."""

import time
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
